"""`make weights`: train and export the stand-ins for CLIP and Vicuna, then the small LLaVA that `minillava chat` talks with.

Notable: the folders are of the published formats - `transformers.CLIPModel` and `LlamaForCausalLM` load the vision tower and the
language models as they load the real ones. Goes on where it was stopped. Every folder gets a card.json (recipe, seed, time,
machine, figures) and gates.jsonl, the figures on the way; what counts is measured at the end (`standins/gates.py`).

    python -m minillava.standins.weights            # about 2 hours on 2 cores
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import CLIPConfig

from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.messages import TYPES
from minillava.machine import bar, follow, machine
from minillava.model import load_vision, save_language
from minillava.model.formats.assemble import assemble, normalisation, save_trained
from minillava.model.formats.published import vision_published
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins import language_model as language_model
from minillava.standins import vision_tower as vision_tower
from minillava.standins.gates import looking, probe, text_accuracy
from minillava.standins.records import caption_record, instruct
from minillava.training.checkpoints import training_seconds
from minillava.training.evaluation import with_evaluation
from minillava.training.features import Features
from minillava.training.stages import train_stage

VISION_STEPS, LANGUAGE_STEPS = 3000, 4800
SMALL = 64  # width of the smaller language model, for Table 8's comparison of language models
PRECISION = torch.float16  # stored; loaded as float32
PICTURES = 48_000
PER_PICTURE = {"conversation": 1.0, "detail": 0.25, "complex": 0.5}  # records of each type, per picture
STAGE_1, STAGE_2 = {"batch_size": 64, "lr": 4e-3}, {"batch_size": 32, "lr": 2e-3, "lr_muon": 2e-3}
PARTS = ("vision_tower", "language_model", "language_model_small", "llava")


def write_card(folder: Path, card: dict) -> None:
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def export_vision_tower(clip: vision_tower.Clip, tokenizer, folder: Path) -> None:
    """A CLIPModel folder: both towers, their projections, the image processor's settings, the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in clip.state_dict().items():
        if name.startswith("vision_model.layers."):
            name = name.replace("vision_model.layers.", "vision_model.encoder.layers.")
        elif name.startswith("text_model.") and not name.startswith("text_model.text_model."):
            name = name if "position_ids" not in name else None
        if name:
            tensors[name] = tensor.detach().to(PRECISION).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    vision = {k: v for k, v in vision_published(clip.vision_model.config).items() if k != "architectures"}
    config = CLIPConfig(
        text_config=clip.text_model.config.to_dict(), vision_config=vision, projection_dim=vision_tower.SHARED
    )
    config.architectures = ["CLIPModel"]
    config.save_pretrained(folder)
    size = clip.vision_model.config.image_size
    processor = {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": size}, "resample": 3,
                 "do_center_crop": True, "crop_size": {"height": size, "width": size}, "do_rescale": True, "rescale_factor": 1 / 255,
                 "do_normalize": True, "image_mean": list(vision_tower.MEAN), "image_std": list(vision_tower.STD), "do_convert_rgb": True}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    tokenizer.save_pretrained(folder)


def see(model, vision_tower: Path, pictures: int, folder: Path) -> Features:
    """The features of the training pictures, drawn to files once."""
    path = folder / "train.safetensors"
    if not path.exists():
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        names = []
        for scene in tqdm(scenes("train", pictures), desc="draw", unit="picture"):
            names.append(f"{scene.id}.png")
            draw(scene, 96).save(folder / "pictures" / names[-1], compress_level=1)
        with tqdm(total=pictures, desc="see", unit="picture") as progress:
            show = lambda done, _: progress.update(done - progress.n)  # noqa: E731
            Features.compute(model, folder / "pictures", names, *normalisation(vision_tower), show).save(path)
    return Features.load(path)


def train_llava(work: Path, weights: Path, out: Path, pictures: int = PICTURES) -> dict:
    """Both stages into `work`, the model to `out`; returns its card with the exact-match figures on the dev split."""
    model, tokenizer = (
        assemble(weights / "vision_tower", weights / "language_model", seed=0),
        load_tokenizer(weights / "language_model"),
    )
    normal, features = normalisation(weights / "vision_tower"), see(model, weights / "vision_tower", pictures, work)
    train = scenes("train", pictures)
    stages = (
        (1, [caption_record(s) for s in train[: pictures // 4]], STAGE_1),
        (2, [instruct(s, kind) for kind in TYPES for s in train[: round(pictures * PER_PICTURE[kind])]], STAGE_2),
    )
    steps = {}
    for stage, records, settings in stages:
        samples, folder = [encode(r, CHAT, tokenizer) for r in records], work / f"stage{stage}"
        steps[stage] = len(samples) // settings["batch_size"]
        with bar(steps[stage], "step", f"stage {stage}") as progress:
            measure = lambda: looking(model, tokenizer, normal)  # noqa: E731
            show = with_evaluation(follow(progress), model, measure, folder) if stage == 2 else follow(progress)
            train_stage(model, stage, samples, features, folder, steps=steps[stage], progress=show, **settings)
    model.eval()
    figures = looking(model, tokenizer, normal, per_kind=80)
    recipe = {"made as": "LLaVA: stage 1, then stage 2, from the shipped vision tower and language model", "pictures": pictures,
              "steps": {f"stage {k}": v for k, v in steps.items()}}  # fmt: skip
    card = {"recipe": recipe, "figures": {"exact match, dev split, per cent": figures}}
    about = {"template": CHAT.name, "trained on": f"{pictures} picture-book scenes"}
    save_trained(model, tokenizer, weights / "vision_tower", out, about, PRECISION)
    return card


def make_vision_tower(work: Path, out: Path, steps: int) -> dict:
    """Train and export the vision tower; returns its card."""
    normal = (vision_tower.MEAN, vision_tower.STD)

    def measure(clip):  # a smaller probe on the way than at the end
        return {f"layer {k}": probe(clip.vision_model, normal, k, train=1500, test=400) for k in (-1, -2)}

    clip, tokenizer = vision_tower.train(work, steps, measure)
    export_vision_tower(clip, tokenizer, out)
    recipe = {"made as": "CLIP, contrastive, pictures and captions of the picture book, and patches and names of things",
              "steps": steps, "pairs": steps * 2 * vision_tower.PAIRS}  # fmt: skip
    probed = {f"layer {k}": probe(load_vision(out), normal, k) for k in (-1, -2, -3)}
    return {"recipe": recipe, "figures": {"linear probe on an object's patches, dev split, per cent": probed}}


def make_language_model(
    work: Path, out: Path, steps: int, width: int = 128, second: int = language_model.SECOND
) -> dict:
    """Train and export a language model of this width; returns its card."""
    model, tokenizer = language_model.train(
        work, steps, partial(text_accuracy, per_kind=10), width=width, second=second
    )
    save_language(model, out, dtype=PRECISION)
    tokenizer.save_pretrained(out)
    recipe = {"made as": "Llama, text only, questions and descriptions", "steps": {"first course": steps, "second": second},
              "records": (steps + second) * language_model.BATCH}  # fmt: skip
    answers = text_accuracy(model.eval(), tokenizer)
    return {"recipe": recipe, "figures": {"exact match on scenes told in words, dev split, per cent": answers}}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the stand-ins and the small LLaVA.")
    parser.add_argument("--work", type=Path, default=Path("runs/weights"), help="where half-finished training is kept")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--vision-steps", type=int, default=VISION_STEPS)
    parser.add_argument("--language-steps", type=int, default=LANGUAGE_STEPS)
    options = parser.parse_args()
    for part in (options.only,) if options.only else PARTS:
        work, out = options.work / part, options.out / part
        print(f"{part}: training in {work}, to be exported to {out}", flush=True)
        if part == "vision_tower":
            card = make_vision_tower(work, out, options.vision_steps)
        elif part == "llava":
            card = train_llava(work, options.out, out)
        else:
            card = make_language_model(
                work, out, options.language_steps, **({"width": SMALL} if part == "language_model_small" else {})
            )
        rows = []
        for path in sorted(work.glob("**/gates.jsonl")):  # of one course after the other
            before = rows[-1]["step"] if rows else 0
            rows += [row | {"step": before + row["step"]} for row in map(json.loads, path.read_text().splitlines())]
        (out / "gates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        seconds = sum(training_seconds(path.parent) for path in sorted(work.glob("**/checkpoints")))
        write_card(out, card | {"seed": 0, "minutes": round(seconds / 60, 1), "machine": machine()})


if __name__ == "__main__":
    main()

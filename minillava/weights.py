"""`make weights`: train and export the stand-ins for CLIP and Vicuna, then the small LLaVA that `minillava chat` talks with.

Notable: the folders are of the published formats - `transformers.CLIPModel` and `LlamaForCausalLM` load the first two as
they load the real ones. Goes on where it was stopped. Every folder gets a card.json: recipe, seed, time, machine, figures.

    python -m minillava.weights            # about 2 hours on 2 cores
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import CLIPConfig

from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.questions import balanced
from minillava.datagen.records import caption_record, instruct
from minillava.datagen.teacher import TYPES
from minillava.judging.answers import answer, exact_match, shuffled
from minillava.model import save_language
from minillava.model.checkpoint import vision_published
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.training import brain, eye
from minillava.training.loop import machine
from minillava.training.stages import Features, assemble, normalisation, save_trained, train_stage

EYE_STEPS, BRAIN_STEPS = 6000, 2000
PRECISION = torch.float16  # stored; loaded as float32
PICTURES = 24_000
PER_PICTURE = {"conversation": 1.0, "detail": 0.15, "complex": 0.6}  # records of each type, per picture
STAGE_1, STAGE_2 = {"batch_size": 64, "lr": 4e-3}, {"batch_size": 32, "lr": 1e-3, "lr_muon": 1e-3}


def write_card(folder: Path, card: dict) -> None:
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def export_eye(clip: eye.Clip, tokenizer, folder: Path) -> None:
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
    config = CLIPConfig(text_config=clip.text_model.config.to_dict(), vision_config=vision, projection_dim=eye.SHARED)
    config.architectures = ["CLIPModel"]
    config.save_pretrained(folder)
    size = clip.vision_model.config.image_size
    processor = {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": size}, "resample": 3,
                 "do_center_crop": True, "crop_size": {"height": size, "width": size}, "do_rescale": True, "rescale_factor": 1 / 255,
                 "do_normalize": True, "image_mean": list(eye.MEAN), "image_std": list(eye.STD), "do_convert_rgb": True}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    tokenizer.save_pretrained(folder)


def see(model, eye: Path, drawn: list, folder: Path, name: str) -> Features:
    """The features of these scenes, drawn to files once."""
    if (folder / f"{name}.safetensors").exists():
        return Features.load(folder / f"{name}.safetensors")
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for scene in tqdm(drawn, desc=f"draw {name}", unit="picture"):
        draw(scene, 96).save(pictures / f"{scene.id}.png", compress_level=1)
    with tqdm(total=len(drawn), desc=f"see {name}", unit="picture") as bar:
        names = [f"{s.id}.png" for s in drawn]
        features = Features.of(model, pictures, names, *normalisation(eye), lambda done, _: bar.update(done - bar.n))
    features.save(folder / f"{name}.safetensors")
    return features


def train_llava(work: Path, weights: Path, out: Path, pictures: int = PICTURES) -> dict:
    """Both stages into `work`, the model to `out`; returns its card with the exact-match figures on the dev split."""
    model, tokenizer = assemble(weights / "eye", weights / "brain", seed=0), load_tokenizer(weights / "brain")
    train_scenes, dev = scenes("train", pictures), scenes("dev", 700)
    features, dev_features = (
        see(model, weights / "eye", train_scenes, work, "train"),
        see(model, weights / "eye", dev, work, "dev"),
    )
    stages = (
        (1, [caption_record(s) for s in train_scenes[: pictures // 3]], STAGE_1),
        (
            2,
            [instruct(s, kind) for kind in TYPES for s in train_scenes[: round(pictures * PER_PICTURE[kind])]],
            STAGE_2,
        ),
    )
    steps = {}
    for stage, records, settings in stages:
        samples = [encode(r, CHAT, tokenizer) for r in records]
        steps[stage] = len(samples) // settings["batch_size"]
        with tqdm(total=steps[stage], desc=f"stage {stage}", unit="step") as bar:

            def show(step, total, loss, bar=bar):
                bar.update(step - bar.n)
                bar.set_postfix(loss=f"{loss:.3f}")

            train_stage(
                model, stage, samples, features, work / f"stage{stage}", steps=steps[stage], progress=show, **settings
            )
    model.eval()
    items = [(f"{s.id}.png", q) for s, q in balanced(dev, 80)]
    figures = {}
    for tag, names in (("picture", [n for n, _ in items]), ("shuffled", shuffled([n for n, _ in items]))):
        texts = answer(model, tokenizer, CHAT, [(q.text, dev_features[n]) for n, (_, q) in zip(names, items)], 40)
        figures[tag] = exact_match(items, texts)
        print(tag, figures[tag])
    card = {"made as": "LLaVA: stage 1, then stage 2, from the shipped eye and brain", "pictures": pictures, "seed": 0,
            "steps": {f"stage {k}": v for k, v in steps.items()}, "exact match, dev split, per cent": figures}  # fmt: skip
    about = {"template": CHAT.name, "trained on": f"{pictures} picture-book scenes"}
    save_trained(model, tokenizer, weights / "eye", out, about, PRECISION)
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the stand-ins and the small LLaVA.")
    parser.add_argument("--work", type=Path, default=Path("runs/weights"), help="where half-finished training is kept")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--only", choices=("eye", "brain", "llava"))
    parser.add_argument("--eye-steps", type=int, default=EYE_STEPS)
    parser.add_argument("--brain-steps", type=int, default=BRAIN_STEPS)
    options = parser.parse_args()
    for part in (options.only,) if options.only else ("eye", "brain", "llava"):
        start, work, out = time.monotonic(), options.work / part, options.out / part
        print(f"{part}: training in {work}, to be exported to {out}", flush=True)
        if part == "eye":
            model, tokenizer = eye.train(work, options.eye_steps)
            export_eye(model, tokenizer, out)
            card = {"made as": "CLIP, contrastive, pictures and captions of the picture book", "steps": options.eye_steps, "seed": 0,
                    "pairs": options.eye_steps * 2 * eye.PAIRS}  # fmt: skip
        elif part == "brain":
            model, tokenizer = brain.train(work, options.brain_steps)
            save_language(model, out, dtype=PRECISION)
            tokenizer.save_pretrained(out)
            card = {
                "made as": "Llama, text only",
                "steps": options.brain_steps,
                "seed": 0,
                "records": options.brain_steps * brain.BATCH,
            }
        else:
            card = train_llava(work, options.out, out)
        metrics = (
            [json.loads(line)["loss"] for line in (work / "metrics.jsonl").read_text().splitlines()]
            if part != "llava"
            else []
        )
        if metrics:
            card["loss"] = round(sum(metrics[-50:]) / len(metrics[-50:]), 4)
        write_card(out, card | {"minutes": round((time.monotonic() - start) / 60, 1), "machine": machine()})


if __name__ == "__main__":
    main()

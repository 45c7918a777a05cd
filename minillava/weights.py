"""`make weights`: train and export the stand-ins for CLIP and Vicuna, then the small LLaVA that `minillava chat` talks with.

Notable: the folders are of the published formats - `transformers.CLIPModel` and `LlamaForCausalLM` load the first two as
they load the real ones. Goes on where it was stopped. Every folder gets a card.json: recipe, seed, time, machine, figures.

    python -m minillava.weights            # about 2 hours on 2 cores
"""

import argparse
import json
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
from minillava.judging.gates import probe, text_accuracy
from minillava.model import load_vision, save_language
from minillava.model.checkpoint import vision_published
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.training import brain, eye
from minillava.training.loop import bar, follow, machine, seconds_of
from minillava.training.stages import Features, assemble, normalisation, save_trained, train_stage

EYE_STEPS, BRAIN_STEPS = 6000, 1800
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
        with bar(steps[stage], "step", f"stage {stage}") as progress:
            train_stage(
                model,
                stage,
                samples,
                features,
                work / f"stage{stage}",
                steps=steps[stage],
                progress=follow(progress),
                **settings,
            )
    model.eval()
    items = [(f"{s.id}.png", q) for s, q in balanced(dev, 80)]
    figures = {}
    for tag, names in (("picture", [n for n, _ in items]), ("shuffled", shuffled([n for n, _ in items]))):
        texts = answer(model, tokenizer, CHAT, [(q.text, dev_features[n]) for n, (_, q) in zip(names, items)], 40)
        figures[tag] = exact_match(items, texts)
        print(tag, figures[tag])
    recipe = {"made as": "LLaVA: stage 1, then stage 2, from the shipped eye and brain", "pictures": pictures,
              "steps": {f"stage {k}": v for k, v in steps.items()}}  # fmt: skip
    card = {"recipe": recipe, "figures": {"exact match, dev split, per cent": figures}}
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
        work, out = options.work / part, options.out / part
        print(f"{part}: training in {work}, to be exported to {out}", flush=True)
        if part == "eye":
            model, tokenizer = eye.train(work, options.eye_steps)
            export_eye(model, tokenizer, out)
            recipe = {"made as": "CLIP, contrastive, pictures and captions of the picture book", "steps": options.eye_steps,
                      "pairs": options.eye_steps * 2 * eye.PAIRS}  # fmt: skip
            probed = {f"layer {k}": probe(load_vision(out), normalisation(out), k) for k in (-1, -2)}
            card = {"recipe": recipe, "figures": {"linear probe on an object's patches, dev split, per cent": probed}}
        elif part == "brain":
            model, tokenizer = brain.train(work, options.brain_steps)
            save_language(model, out, dtype=PRECISION)
            tokenizer.save_pretrained(out)
            recipe = {"made as": "Llama, text only, look-up first", "steps": options.brain_steps,
                      "records": options.brain_steps * brain.BATCH}  # fmt: skip
            answers = text_accuracy(assemble(options.out / "eye", out, 0).eval(), tokenizer)
            card = {"recipe": recipe, "figures": {"exact match on scenes told in words, dev split, per cent": answers}}
        else:
            card = train_llava(work, options.out, out)
        seconds = sum(seconds_of(path.parent) for path in sorted(work.glob("**/checkpoint.pt")))
        write_card(out, card | {"seed": 0, "minutes": round(seconds / 60, 1), "machine": machine()})


if __name__ == "__main__":
    main()

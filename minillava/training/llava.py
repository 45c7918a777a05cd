"""Train the small LLaVA that ships: the paper's two stages from the shipped eye and brain, for longer than the demo does.

Notable: the same `train_stage` as everywhere; only the counts differ. Scored on the dev split, never on the benchmark.
"""

from pathlib import Path

import torch
from tqdm import tqdm

from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.questions import balanced
from minillava.datagen.records import caption_record, instruct
from minillava.datagen.teacher import TYPES
from minillava.judging.answers import answer, exact_match, shuffled
from minillava.model import save_llava
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.training.stages import Features, assemble, normalisation, train_stage

PICTURES = 24_000
PER_PICTURE = {"conversation": 1.0, "detail": 0.15, "complex": 0.6}  # records of each type, per picture
STAGE_1, STAGE_2 = {"batch_size": 64, "lr": 4e-3}, {"batch_size": 32, "lr": 1e-3, "lr_muon": 1e-3}


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


def train(work: Path, weights: Path, out: Path, pictures: int = PICTURES) -> dict:
    """Both stages into `work`, the model to `out`; returns its card with the exact-match figures on the dev split."""
    model, tokenizer = assemble(weights / "eye", weights / "brain", seed=0), load_tokenizer(weights / "brain")
    train_scenes, dev = scenes("train", pictures), scenes("dev", 700)
    features, dev_features = see(model, weights / "eye", train_scenes, work, "train"), see(model, weights / "eye", dev, work, "dev")
    stages = (
        (1, [caption_record(s) for s in train_scenes[: pictures // 3]], STAGE_1),
        (2, [instruct(s, kind) for kind in TYPES for s in train_scenes[: round(pictures * PER_PICTURE[kind])]], STAGE_2),
    )
    steps = {}
    for stage, records, settings in stages:
        samples = [encode(r, CHAT, tokenizer) for r in records]
        steps[stage] = len(samples) // settings["batch_size"]
        with tqdm(total=steps[stage], desc=f"stage {stage}", unit="step") as bar:

            def show(step, total, loss, bar=bar):
                bar.update(step - bar.n)
                bar.set_postfix(loss=f"{loss:.3f}")

            train_stage(model, stage, samples, features, work / f"stage{stage}", steps=steps[stage], progress=show, **settings)
    model.eval()
    items = [(f"{s.id}.png", q) for s, q in balanced(dev, 80)]
    figures = {}
    for tag, names in (("picture", [n for n, _ in items]), ("shuffled", shuffled([n for n, _ in items]))):
        texts = answer(model, tokenizer, CHAT, [(q.text, dev_features[n]) for n, (_, q) in zip(names, items)], 40)
        figures[tag] = exact_match(items, texts)
        print(tag, figures[tag])
    card = {"made as": "LLaVA: stage 1, then stage 2, from the shipped eye and brain", "pictures": pictures, "seed": 0,
            "steps": {f"stage {k}": v for k, v in steps.items()}, "exact match, dev split, per cent": figures}  # fmt: skip
    with torch.no_grad():
        save_llava(model, out, {"template": CHAT.name, "trained on": f"{pictures} picture-book scenes"}, dtype=torch.float16)
    tokenizer.save_pretrained(out)
    (out / "preprocessor_config.json").write_text((weights / "eye" / "preprocessor_config.json").read_text())
    return card

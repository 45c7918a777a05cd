"""Does the small model use the picture? Measures its parts and the whole, each beside its controls, against thresholds.

There are four gates, each a condition for the next. 1. Can a linear probe read an object's kind, colour and side off
the vision tower's patches? 2. Does the language model answer about a scene told in words? 3. Does the whole model
answer from the picture, and not from a blank one or another scene's? 4. Is it as good as the text-only teacher? Recipes
were chosen on the split `dev`. The figures that count are taken on `bench`, on which nothing was chosen.

    python -m minillava.standins.gates data_samples/weights
"""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from minillava.data.images import Preparation, pixels
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.judging.answers import answer, blank_picture, shuffled, vision_features
from minillava.judging.bench import score_pairs
from minillava.judging.scores import relative_score
from minillava.model import LanguageModel, Llava, LlavaConfig, load_language, load_llava, load_vision
from minillava.model.formats.preparation import read_preparation
from minillava.model.vision import VisionTower
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.scenes.questions import balanced_questions, exact_match, is_correct
from minillava.scenes.world import COLOURS, KINDS, SIDES, Scene
from minillava.standins.bench import build_bench, judge_answers
from minillava.standins.text_lessons import SCENE_FORMATS
from minillava.standins.vision_tower import TINY_CLIP

PROBED = {"kind": list(KINDS), "colour": list(COLOURS), "side": list(SIDES)}  # attribute -> its values
# Gate -> figure -> the least per cent to pass; for `controls`, the per cent to stay below.
SEEN = dict.fromkeys(("existence", "colour", "side", "place"), 95) | {"relation": 90, "count": 85}
SEEN |= {"all": 80, "odd: named": 85, "odd: none": 80}
THRESHOLDS = {
    "vision_tower": {"kind": 90, "colour": 95, "side": 90},
    "language_model": {"all": 95},
    "llava": SEEN | {"relative score": 80},
    "llava, picture after": SEEN,  # the question, the other order of Eq. 2
    "controls": {"relative score, shuffled": 35},
}


@torch.no_grad()
def object_features(
    tower: VisionTower, preparation: Preparation, some: list[Scene], layer: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the patches that each object covers, (N, D), and its kind, colour and side as indices, (N, 3)."""
    config, rows, labels = tower.config, [], []
    grid, size = config.image_size // config.patch_size, config.image_size
    prepared = replace(preparation, size=size)  # exercise 6 asks towers of other sizes
    centres = [(2 * i + 1) * 500 // grid for i in range(grid)]  # of patches, in thousandths
    for start in range(0, len(some), 64):
        chosen = some[start : start + 64]
        patches = tower(pixels([draw(s, size) for s in chosen], prepared), layer).unflatten(1, (grid, grid))
        for scene, picture in zip(chosen, patches):
            for t in scene.things:
                columns = [c for c, x in enumerate(centres) if t.box[0] <= x < t.box[2]]
                lines = [r for r, y in enumerate(centres) if t.box[1] <= y < t.box[3]]
                rows.append(picture[lines][:, columns].mean(dim=(0, 1)))
                labels.append([PROBED[name].index(getattr(t, name)) for name in PROBED])
    return torch.stack(rows), torch.tensor(labels)


def linear_probe(
    tower: VisionTower,
    preparation: Preparation,
    layer: int = -2,
    split: str = "dev",
    train: int = 3000,
    test: int = 600,
) -> dict[str, float]:
    """Accuracy in per cent of a linear probe for kind, colour and side, fitted on `train` scenes, read on `test`."""
    x, y = object_features(tower, preparation, scenes("train", train), layer)
    x_held, y_held = object_features(tower, preparation, scenes(split, test), layer)
    mean, std = x.mean(0), x.std(0)
    out = {}
    with torch.enable_grad():
        for k, (name, values) in enumerate(PROBED.items()):
            generator = torch.Generator().manual_seed(0)
            linear = torch.nn.Linear(x.shape[1], len(values))
            torch.nn.init.normal_(linear.weight, std=0.02, generator=generator)
            torch.nn.init.zeros_(linear.bias)
            optimizer = torch.optim.AdamW(linear.parameters(), lr=0.02, weight_decay=1e-3)
            for _ in range(300):
                optimizer.zero_grad()
                F.cross_entropy(linear((x - mean) / std), y[:, k]).backward()
                optimizer.step()
            hits = linear((x_held - mean) / std).argmax(-1) == y_held[:, k]
            out[name] = round(100 * hits.float().mean().item(), 1)
    return out


def text_accuracy(
    language: LanguageModel, tokenizer, split: str = "dev", per_kind: int = 40
) -> dict[str, dict[str, float]]:
    """Exact match of the language model alone, with the scene told in words: {format: {kind of question: per cent}}."""
    # The vision tower and W are never used. They have to be on the language model's device.
    model = Llava(LlavaConfig(TINY_CLIP, language.config), language_model=language).eval()
    model.to(language.embed_tokens.weight)
    rng, items = random.Random(0), balanced_questions(scenes(split, 15 * per_kind), per_kind)
    out = {}
    for how, tell in SCENE_FORMATS.items():
        texts = answer(model, tokenizer, CHAT, [(f"{tell(s, rng)}\n{q.text}", None) for s, q in items], 40)
        out[how] = exact_match([(s.id, q) for s, q in items], texts)
    return out


def picture_accuracy(
    model: Llava, tokenizer, preparation: Preparation, split: str = "dev", per_kind: int = 40, after: bool = False
) -> dict[str, dict]:
    """Exact match with the picture, a blank one and another scene's: {"picture" | "blank" | "shuffled": figures}.

    The figures are the seven kinds, their mean, "odd: named" (the share of odd scenes where the oddity is named) and
    "odd: none" (the share of other scenes where the model says that nothing is odd), in per cent. after: the picture,
    whichever is shown, comes after the question and not before it (Eq. 2 allows both).
    """
    items, size = balanced_questions(scenes(split, 15 * per_kind), per_kind), model.config.vision.image_size
    drawn = {scene.id: draw(scene, size) for scene, _ in items}
    features = dict(zip(drawn, vision_features(model, preparation, list(drawn.values()))))
    blank = vision_features(model, preparation, [blank_picture(size)])[0]
    names, out = [scene.id for scene, _ in items], {}
    looks = {"picture": [features[n] for n in names], "blank": [blank] * len(names)}
    looks["shuffled"] = [features[n] for n in shuffled(names)]
    for look, pictures in looks.items():
        texts = answer(model, tokenizer, CHAT, [(q.text, Zv) for (_, q), Zv in zip(items, pictures)], 40, after)
        out[look] = exact_match([(s.id, q) for s, q in items], texts)
        odd = [(q.key == "nothing", is_correct(q, text)) for (_, q), text in zip(items, texts) if q.kind == "odd"]
        for name, none in (("odd: named", False), ("odd: none", True)):
            hits = [hit for key, hit in odd if key == none]
            out[look][name] = round(100 * sum(hits) / len(hits), 1)
    return out


def relative_scores(model: Llava, tokenizer, preparation: Preparation, count: int = 100) -> dict[str, float]:
    """The relative score on `count` scenes of the picture book's LLaVA-Bench, and the same with shuffled pictures."""
    items = build_bench("coco", count)
    drawn = {f"{s.id}.png": draw(s, model.config.vision.image_size) for s in scenes("bench", count)}
    features, out = dict(zip(drawn, vision_features(model, preparation, list(drawn.values())))), {}
    for name, look in (("relative score", list), ("relative score, shuffled", shuffled)):
        asked = [(i.text, features[n]) for i, n in zip(items, look([i.image for i in items]))]
        texts = answer(model, tokenizer, CHAT, asked)
        reviews = judge_answers(items, {i.question_id: t for i, t in zip(items, texts)}, name)
        out[name] = round(relative_score(score_pairs(reviews)), 1)
    return out


def measure_gates(weights: Path, split: str = "bench", per_kind: int = 100) -> list[dict]:
    """One row per figure of every gate: its threshold, what the shipped weights reach, and what the controls reach."""
    rows = []
    vision_tower, language_model, llava = (weights / name for name in ("vision_tower", "language_model", "llava"))

    def row(gate, figure, measured, **more):
        wanted = THRESHOLDS[gate][figure]
        passed = measured < wanted if gate == "controls" else measured >= wanted
        rows.append({"gate": gate, "figure": figure, "wanted": wanted, "measured": measured, "passed": passed, **more})

    tower = load_vision(vision_tower)
    probed = linear_probe(tower, read_preparation(vision_tower, tower.config.image_size), -2, split)
    for name, value in probed.items():
        row("vision_tower", name, value)
    told = text_accuracy(load_language(language_model).eval(), load_tokenizer(language_model), split, per_kind)
    row("language_model", "all", round(sum(f["all"] for f in told.values()) / len(told), 1), formats=told)
    (model, _), tokenizer = load_llava(llava), load_tokenizer(llava)
    preparation = read_preparation(llava, model.config.vision.image_size)
    for gate, after in (("llava", False), ("llava, picture after", True)):
        exact = picture_accuracy(model.eval(), tokenizer, preparation, split, per_kind, after)
        for name in SEEN:
            row(gate, name, exact["picture"][name], blank=exact["blank"][name], shuffled=exact["shuffled"][name])
    score = relative_scores(model, tokenizer, preparation)
    row("llava", "relative score", score["relative score"], shuffled=score["relative score, shuffled"])
    row("controls", "relative score, shuffled", score["relative score, shuffled"])
    return rows


if __name__ == "__main__":
    for found in measure_gates(Path(sys.argv[1])):
        print(json.dumps(found), flush=True)

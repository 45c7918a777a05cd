"""Does the small model truly look? What its parts can do by themselves and what the whole can do, each beside its controls.

Notable: four questions in order, as each rests on the one before. The vision tower: can an object's kind, colour and side be
*read* off the patches it covers, by a linear probe? The language model: does it answer about a scene told in words? The whole:
does it answer from the picture, and not from a blank or from another scene's? And is it as good as the text-only
teacher? The split `dev` chose recipes; the figures that count are taken on `bench`, which chose nothing.

    python -m minillava.standins.gates data_samples/weights
"""

import json
import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from minillava.data.images import pixels
from minillava.data.samples import prompt_ids
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.judging.answers import answer, shuffled, vision_features
from minillava.judging.bench import score_pairs
from minillava.judging.scores import relative_score
from minillava.model import (
    LanguageModel,
    Llava,
    LlavaConfig,
    VisionTower,
    generate,
    load_language,
    load_llava,
    load_vision,
)
from minillava.model.formats.assemble import normalisation
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.scenes.questions import balanced, exact_match, right
from minillava.scenes.world import COLOURS, KINDS, SIDES, Scene
from minillava.standins.bench import build, judge_answers
from minillava.standins.language_model import TOLD
from minillava.standins.vision_tower import TINY_CLIP

READ = {"kind": list(KINDS), "colour": list(COLOURS), "side": list(SIDES)}
BINDING = ("existence", "colour", "side")
# Gate -> figure -> per cent wanted; those of `controls` are wanted below.
WANTED = {
    "vision_tower": {"kind": 90, "colour": 95, "side": 90},
    "language_model": {"all": 95},
    "llava": {"existence": 90, "colour": 90, "side": 90, "place": 90, "all": 80, "odd: named": 80, "odd: none": 80,
              "relative score": 80},
    "controls": {"relative score, shuffled": 35},
}  # fmt: skip


@torch.no_grad()
def object_features(
    tower: VisionTower, normal: tuple, some: list[Scene], layer: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the patches each object covers, (N, D), and its kind, colour and side as numbers, (N, 3)."""
    config, rows, labels = tower.config, [], []
    grid, size = config.image_size // config.patch_size, config.image_size
    middle = [(2 * i + 1) * 500 // grid for i in range(grid)]  # per mille
    for start in range(0, len(some), 64):
        chosen = some[start : start + 64]
        patches = tower(pixels([draw(s, size) for s in chosen], size, *normal), layer).unflatten(1, (grid, grid))
        for scene, seen in zip(chosen, patches):
            for t in scene.things:
                columns = [c for c, x in enumerate(middle) if t.box[0] <= x < t.box[2]]
                lines = [r for r, y in enumerate(middle) if t.box[1] <= y < t.box[3]]
                rows.append(seen[lines][:, columns].mean(dim=(0, 1)))
                labels.append([READ[name].index(getattr(t, name)) for name in READ])
    return torch.stack(rows), torch.tensor(labels)


def probe(
    tower: VisionTower, normal: tuple, layer: int = -2, split: str = "dev", train: int = 3000, test: int = 600
) -> dict[str, float]:
    """Per cent right of a linear probe for kind, colour and side, fitted on `train` scenes and read on `test` of a split."""
    x, y = object_features(tower, normal, scenes("train", train), layer)
    x_held, y_held = object_features(tower, normal, scenes(split, test), layer)
    mean, std = x.mean(0), x.std(0)
    out = {}
    with torch.enable_grad():
        for k, (name, values) in enumerate(READ.items()):
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
    """Exact-match accuracy of the language model alone, the scene told in words; {format: {kind of question: per cent}}."""
    model = Llava(
        LlavaConfig(TINY_CLIP, language.config), language_model=language
    ).eval()  # a vision tower that is never used
    model.to(language.embed_tokens.weight)  # and a W, where the language model is
    rng, items = random.Random(0), balanced(scenes(split, 15 * per_kind), per_kind)
    stop, out = [tokenizer.encode(CHAT.stop, add_special_tokens=False)], {}
    for how, tell in TOLD.items():
        texts = []
        for start in range(0, len(items), 64):
            prompts = [prompt_ids(f"{tell(s, rng)}\n{q.text}", CHAT, tokenizer) for s, q in items[start : start + 64]]
            texts += [tokenizer.decode(ids).strip() for ids in generate(model, prompts, [[]] * len(prompts), 40, stop)]
        out[how] = exact_match([(s.id, q) for s, q in items], texts)
    return out


def looking(model: Llava, tokenizer, normal: tuple, split: str = "dev", per_kind: int = 40) -> dict[str, dict]:
    """Exact match from the picture, from a blank one and from another scene's: {"picture" | "blank" | "shuffled": figures}.

    Beside the seven kinds and their mean: of the scenes with something odd in which share it is named, and of the others
    in which share the model says that nothing is.
    """
    items, size = balanced(scenes(split, 15 * per_kind), per_kind), model.config.vision.image_size
    drawn = {scene.id: scene for scene, _ in items}
    seen = vision_features(model, normal, [draw(s, size) for s in drawn.values()])
    features = dict(zip(drawn, seen))
    blank = vision_features(model, normal, [Image.new("RGB", (size, size), (178, 188, 190))])[0]
    names, out = [scene.id for scene, _ in items], {}
    looks = {"picture": [features[n] for n in names], "blank": [blank] * len(names)}
    looks["shuffled"] = [features[n] for n in shuffled(names)]
    for how, look in looks.items():
        texts = answer(model, tokenizer, CHAT, [(q.text, z) for (_, q), z in zip(items, look)], 40)
        out[how] = exact_match([(s.id, q) for s, q in items], texts)
        odd = [(q.key == "nothing", right(q, text)) for (_, q), text in zip(items, texts) if q.kind == "odd"]
        for name, none in (("odd: named", False), ("odd: none", True)):
            hits = [hit for key, hit in odd if key == none]
            out[how][name] = round(100 * sum(hits) / len(hits), 1)
    return out


def scored(model: Llava, tokenizer, normal: tuple, count: int = 100) -> dict[str, float]:
    """The relative score on the picture book's LLaVA-Bench of `count` scenes, and with the pictures exchanged."""
    items = build("coco", count)
    drawn = {f"{s.id}.png": draw(s, model.config.vision.image_size) for s in scenes("bench", count)}
    features, out = dict(zip(drawn, vision_features(model, normal, list(drawn.values())))), {}
    for name, look in (("relative score", list), ("relative score, shuffled", shuffled)):
        asked = [(i.text, features[n]) for i, n in zip(items, look([i.image for i in items]))]
        texts = answer(model, tokenizer, CHAT, asked)
        reviews = judge_answers(items, {i.question_id: t for i, t in zip(items, texts)}, name)
        out[name] = round(relative_score(score_pairs(reviews)), 1)
    return out


def gates(weights: Path, split: str = "bench", per_kind: int = 100) -> list[dict]:
    """Every gate of the shipped weights: what is wanted, what was measured, with the picture blank and shuffled."""
    rows = []

    def row(gate, figure, measured, **more):
        wanted = WANTED[gate][figure]
        passed = measured < wanted if gate == "controls" else measured >= wanted
        rows.append({"gate": gate, "figure": figure, "wanted": wanted, "measured": measured, "passed": passed, **more})

    for name, value in probe(
        load_vision(weights / "vision_tower"), normalisation(weights / "vision_tower"), -2, split
    ).items():
        row("vision_tower", name, value)
    told = text_accuracy(
        load_language(weights / "language_model").eval(), load_tokenizer(weights / "language_model"), split, per_kind
    )
    row("language_model", "all", round(sum(f["all"] for f in told.values()) / len(told), 1), formats=told)
    (model, _), tokenizer = load_llava(weights / "llava"), load_tokenizer(weights / "llava")
    normal = normalisation(weights / "llava")
    seen, score = looking(model.eval(), tokenizer, normal, split, per_kind), scored(model, tokenizer, normal)
    for name in WANTED["llava"]:
        if name in seen["picture"]:
            row("llava", name, seen["picture"][name], blank=seen["blank"][name], shuffled=seen["shuffled"][name])
    row("llava", "relative score", score["relative score"], shuffled=score["relative score, shuffled"])
    row("controls", "relative score, shuffled", score["relative score, shuffled"])
    return rows


if __name__ == "__main__":
    for found in gates(Path(sys.argv[1])):
        print(json.dumps(found), flush=True)

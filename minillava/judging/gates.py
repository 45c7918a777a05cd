"""What the stand-ins can do by themselves: a linear probe of the eye, and the brain's answers about scenes told in words.

Notable: measured on the dev split, which chose recipes, never on a benchmark. The probe asks whether an object's kind,
colour and side can be *read* from the patches it covers; nothing about the scene is told to it.

    python -m minillava.judging.gates data_samples/weights
"""

import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from minillava.data.images import pixels
from minillava.data.samples import prompt
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.questions import balanced
from minillava.judging.answers import exact_match
from minillava.model import Llava, VisionTower, generate, load_vision
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.scenes.world import COLOURS, KINDS, SIDES, Scene
from minillava.training.brain import TOLD
from minillava.training.stages import assemble, normalisation

READ = {"kind": list(KINDS), "colour": list(COLOURS), "side": list(SIDES)}


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


def probe(tower: VisionTower, normal: tuple, layer: int = -2, train: int = 3000, test: int = 600) -> dict[str, float]:
    """Per cent right of a linear probe, fitted on `train` scenes and read on `test` dev scenes, for kind, colour and side."""
    x, y = object_features(tower, normal, scenes("train", train), layer)
    x_dev, y_dev = object_features(tower, normal, scenes("dev", test), layer)
    mean, std = x.mean(0), x.std(0)
    out = {}
    for k, (name, values) in enumerate(READ.items()):
        torch.manual_seed(0)
        linear = torch.nn.Linear(x.shape[1], len(values))
        optimizer = torch.optim.AdamW(linear.parameters(), lr=0.02, weight_decay=1e-3)
        for _ in range(300):
            optimizer.zero_grad()
            F.cross_entropy(linear((x - mean) / std), y[:, k]).backward()
            optimizer.step()
        hits = linear((x_dev - mean) / std).argmax(-1) == y_dev[:, k]
        out[name] = round(100 * hits.float().mean().item(), 1)
    return out


def text_accuracy(model: Llava, tokenizer, per_kind: int = 40) -> dict[str, dict[str, float]]:
    """Exact-match accuracy of the language model alone, the scene told as captions, notes or a table; balanced dev questions."""
    rng, items = random.Random(0), balanced(scenes("dev", 600), per_kind)
    stop, out = [tokenizer.encode(CHAT.stop, add_special_tokens=False)], {}
    for how, tell in TOLD.items():
        texts = []
        for start in range(0, len(items), 64):
            prompts = [prompt(f"{tell(s, rng)}\n{q.text}", CHAT, tokenizer) for s, q in items[start : start + 64]]
            texts += [tokenizer.decode(ids).strip() for ids in generate(model, prompts, [[]] * len(prompts), 40, stop)]
        out[how] = exact_match([(s.id, q) for s, q in items], texts)
    return out


if __name__ == "__main__":
    weights = Path(sys.argv[1])
    for layer in (-1, -2, -3):
        print("eye, layer", layer, probe(load_vision(weights / "eye"), normalisation(weights / "eye"), layer))
    whole = assemble(weights / "eye", weights / "brain", 0).eval()
    for how, scores in text_accuracy(whole, load_tokenizer(weights / "brain")).items():
        print("brain,", how, scores)

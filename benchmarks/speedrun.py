"""A speedrun: seconds on CPU cores from vision tower and language model to a small LLaVA that sees, in both orders.

The score is the mean of seven kinds of questions and both orders of Eq. 2 (the picture before and after the question) on
held-out scenes that chose nothing, beside the same with a blank picture and with another scene's. A record counts when
the mean of three seeds reaches the ladder's score. The clock runs from the pictures' files to the trained model: reading
records, features, every training step. Drawing the pictures, writing the records and scoring are not timed.

Record 0 is what `minillava paper` was on 2026-11-27, on the weights of that day (--first: `git archive 4288295
data_samples/weights | tar x -C FOLDER`, then FOLDER/data_samples/weights). Every run does it beside the others, as
ratios carry over from machine to machine where seconds do not. All recipes draw from its records. SPEEDRUN.md keeps the
records.

    python benchmarks/speedrun.py --first FOLDER [--seeds 3] [--recipes 0,1] [--quick] [--json FILE]
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import environment
import torch

from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.messages import TYPES
from minillava.model.formats.assemble import assemble
from minillava.model.formats.preparation import read_preparation
from minillava.scales import WEIGHTS, find_scale
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw_file
from minillava.standins.gates import picture_accuracy
from minillava.standins.records import caption_record, in_turns, instruction_record
from minillava.standins.start import project_by_least_squares
from minillava.training.features import Features
from minillava.training.stages import train_stage, useful_cores

LADDERS = {"A": 66.0, "B": 85.0}
DATA = {"pictures": 6000, "pairs": 6000, "conversation": 2900, "detail": 1150, "complex": 3850}  # of record 0

QUICK = 0.02  # share of the steps and records with --quick, which only shows that all of it runs


@dataclass(frozen=True)
class Recipe:
    """What a record changed. turns: at most so many questions per record, each with the picture; 0 leaves records whole.

    boxes: scenes for the start of W by least squares, in place of stage 1; 0: stage 1 as in the paper. epochs: passes
    over the records.
    """

    what: str
    boxes: int = 0
    turns: int = 0
    batch: int = 32
    epochs: float = 2.0
    lr: float = 2e-3
    layer: int = -2  # of the vision tower, whose features are read; the paper's


RECIPES = (
    Recipe("`minillava paper` of that day: stage 1, then stage 2 on the full data"),
    Recipe("W by least squares from 1,200 boxes, records of two questions", boxes=1200, turns=2, batch=24, epochs=0.36),
    Recipe("as 1, twice as long", boxes=1200, turns=2, batch=24, epochs=0.69),
    Recipe("as 1, seven times as long", boxes=1200, turns=2, batch=24, epochs=2.4),
    Recipe("as 1 from the last layer, 0.6 times as long", boxes=1200, turns=2, batch=24, epochs=0.21, layer=-1),
    Recipe("as 4, ten times as long", boxes=1200, turns=2, batch=24, epochs=2.1, layer=-1),
)


def write_data(scale, folder: Path) -> tuple[list, dict]:
    """The pictures' files, and the records of both stages."""
    some = scenes("train", scale.pictures)
    for scene in some:
        draw_file(scene, folder / f"{scene.id}.png", 96)
    counts = zip(TYPES, (scale.conversation, scale.detail, scale.complex))
    records = {2: [instruction_record(s, kind) for kind, count in counts for s in some[:count]]}
    return some, records | {1: [caption_record(s) for s in some[: scale.pairs]]}


def train(recipe: Recipe, scale, some: list, records: dict, folder: Path, weights: Path, seed: int, part: float):
    """The trained model, its tokenizer, and (wall, CPU) seconds. part: the share of the steps."""
    with tempfile.TemporaryDirectory() as work:
        work, began = Path(work), (time.perf_counter(), time.process_time())
        vision, language = weights / "vision_tower", weights / "language_model"
        model, tokenizer = assemble(vision, language, seed, recipe.layer), load_tokenizer(language)
        preparation = read_preparation(vision, model.config.vision.image_size)
        wanted = records[2]
        if recipe.turns:
            wanted = [one for record in wanted for one in in_turns(record, recipe.turns)]
        random.Random(seed).shuffle(wanted)
        steps = max(1, round(part * recipe.epochs * len(wanted) / recipe.batch))
        wanted = wanted[: steps * recipe.batch]  # what is never trained on is never seen
        names = {record["image"] for record in wanted} | {f"{s.id}.png" for s in some[: recipe.boxes]}
        names |= set() if recipe.boxes else {record["image"] for record in records[1]}
        features = Features.compute(model, folder, sorted(names), preparation, lambda *a: None)
        common = {"seed": seed, "cores": useful_cores(model)}
        if recipe.boxes:
            project_by_least_squares(model, tokenizer, some[: recipe.boxes], features)
        else:
            pairs = [encode(record, CHAT, tokenizer) for record in records[1]]
            first = max(1, round(part * len(pairs) / scale.stage1_batch))
            settings = {"batch_size": scale.stage1_batch, "steps": first, "lr": scale.stage1_lr}
            train_stage(model, 1, pairs, features, work / "stage1", **settings, **common)
        samples = [encode(record, CHAT, tokenizer) for record in wanted]
        settings = {"batch_size": recipe.batch, "steps": steps, "lr": recipe.lr, "lr_muon": recipe.lr}
        train_stage(model, 2, samples, features, work / "stage2", **settings, **common)
        ended = time.perf_counter(), time.process_time()
    return model.eval(), tokenizer, tuple(b - a for a, b in zip(began, ended))


def score(model, tokenizer, weights: Path, per_kind: int) -> dict:
    """Mean over the seven kinds in each order and under each control, and each kind with the picture; per cent."""
    preparation, out = read_preparation(weights / "vision_tower", 96), {}
    for order, after in (("first", False), ("after", True)):
        for look, figures in picture_accuracy(model, tokenizer, preparation, "bench", per_kind, after).items():
            kinds = {k: v for k, v in figures.items() if not k.startswith("odd:")}
            out[f"{order} {look}"] = kinds.pop("all")
            if look == "picture":
                out[f"{order} by kind"] = kinds
    return out | {"mean": (out["first picture"] + out["after picture"]) / 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipes", default=f"0,{len(RECIPES) - 1}", help="numbers; 0 is the one to compare with")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="vision tower and language model to begin with")
    parser.add_argument("--first", type=Path, help="the same for record 0 (default: --weights)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--per-kind", type=int, default=100, help="questions of each kind and order")
    parser.add_argument("--quick", action="store_true", help="a few steps: shows that it runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scale, part = find_scale("smoke"), QUICK
    if not options.quick:
        scale, part = replace(find_scale("tiny"), **DATA), 1.0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        some, records = write_data(scale, Path(folder))
        for seed in range(options.seeds):
            for number in map(int, options.recipes.split(",")):
                weights = options.weights if number else options.first or options.weights
                given = RECIPES[number], scale, some, records, Path(folder), weights, seed, part
                model, tokenizer, (wall, cpu) = train(*given)
                row = {"recipe": number, "seed": seed, "wall": round(wall, 1), "cpu": round(cpu, 1)}
                rows.append(row | score(model, tokenizer, weights, 4 if options.quick else options.per_kind))
                print(json.dumps(rows[-1]), flush=True)
    records_of = {n: [row for row in rows if row["recipe"] == n] for n in sorted({row["recipe"] for row in rows})}
    means = {n: {k: statistics.mean(r[k] for r in rs) for k in ("wall", "cpu", "mean")} for n, rs in records_of.items()}
    for number, mean in means.items():
        base = means.get(0, mean)
        ladders = ", ".join(f"{name}" for name, least in LADDERS.items() if mean["mean"] >= least) or "none"
        print(f"recipe {number} ({RECIPES[number].what}): {mean['wall']:.0f} s, {mean['cpu']:.0f} s of CPU, "
              f"{mean['wall'] / base['wall']:.2f} of recipe 0's time ({mean['cpu'] / base['cpu']:.2f} of its CPU time), "
              f"mean {mean['mean']:.1f}, ladders reached: {ladders}")  # fmt: skip
    results = {"machine": environment.describe_machine(), "threads": options.threads, "rows": rows, "means": means}
    environment.write_results(options.json, results)


if __name__ == "__main__":
    main()

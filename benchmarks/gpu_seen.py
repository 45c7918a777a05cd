"""A real language model learns to see, on one GPU, in about seven minutes: three seeds side by side, with controls.

Model `smol`: the shipped vision tower (frozen), W, and SmolLM2-135M-Instruct. Three more are the picture book's own
small language model on other mixtures of records: `whole` (conversations of eight questions), `turns` (of two), `book`
(also single questions, three of four asked before the picture). Each is a process of its own on the same GPU. Pictures
and records are drawn and encoded on all cores beforehand. A short trial measures the speed of all of them together;
then the number of steps is fixed so that the cosine ends in time.

Written to --out: plan.json (recipe and steps); for every model its losses per step, its answers' scores and W; the
reference curves of three seeds (`minillava/curves.py`). A model whose result is complete is not trained again.

    python benchmarks/gpu_seen.py --language-model FOLDER --out OUT --json benchmarks/results/gpu-seen.json
    python benchmarks/gpu_seen.py --dry --out OUT       # on the CPU, at mock size
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path
from unittest.mock import patch

import gpu_seen_parts as parts
import torch
from environment import write_results
from gpu_parts import machine
from safetensors.torch import save_file

from minillava.curves import read_losses
from minillava.data.samples import plan_batches
from minillava.data.tokenizer import load_tokenizer
from minillava.errors import UserError
from minillava.files import read_json, write_json
from minillava.judging import answers
from minillava.model.formats.assemble import assemble
from minillava.model.formats.chat_template import own_template, training_template
from minillava.scales import TINY, WEIGHTS
from minillava.standins.gates import relative_scores
from minillava.training.checkpoints import Saver
from minillava.training.stages import compile_blocks, train_stage

STAGES = (1, "captions"), (2, "instructions")


@dataclass(frozen=True)
class Recipe:
    """What is trained and how; fixed before the run. most: steps of both stages at most; the time decides below that.

    Gates of `smol`, for each of three seeds, on held-out scenes: colour, side, place and existence at least 85 % in
    both orders of Eq. 2; blank and shuffled at most 12 points above chance; of 20 plain questions at most 2 lost, in
    its own chat template and in ours; 75 % of the letters of 300 held-out problems of the quiz.

    The first recipe (results/gpu-seen-first.json; LOG.md) had stage 1 and the teacher's records in batches of 32. After
    170 steps it saw the place alone. Since then: a vision tower trained anew; W starts by least squares from the boxes
    of 1,200 scenes (`standins/start.py`); most records are one question about one picture, half of them asked before
    it; a batch holds 64, as a step waits for its launches and a larger batch costs little. Foreseen for the lowest
    seed: colour 90, side 70, place 100, existence 60. Seen: colour 96, side 97, place 100, existence 93 in
    970 steps of 0.2 s.

    Not tried since: more text of its own against forgetting (it lost 5 to 12 of 20 plain questions).
    """

    scenes: int = 24_000  # training pictures; twice as many in results/gpu-seen.json, where drawing took 132 s of 438
    boxes: int = 1_200  # of whose scenes W starts by least squares, in place of stage 1; 0: stage 1 as in the paper
    captions: int = 0  # stage-1 pairs of each picture
    questions: int = 3  # records of one question with one right answer, of each picture
    after: float = 0.5  # how many of these ask before they show
    turns: int = 2  # a conversation of 8 becomes records of so many turns: "picture after" learns sooner
    whole: int = 4  # one conversation in so many stays whole
    every: tuple[int, int, int] = (3, 6, 3)  # one conversation, detail and complex record for so many pictures
    seeds: tuple[int, ...] = (0, 1, 2)
    stage1_batch: int = 64
    stage1_lr: float = 2e-3  # W alone; the paper's
    stage2_batch: int = 64
    stage2_lr: float = 3e-4  # at twice this rate it forgot the capital of France sooner than it saw
    lr_muon: float = 0.0
    lr_w: float | None = 1e-3  # W's rate in stage 2
    most: tuple[int, int] = (375, 4000)
    own_answers: tuple[int, int] = (1_200, 8)  # questions, copies: text, against forgetting
    trial: int = 30  # steps of each stage in the trial; the last half counts
    share: tuple[float, float] = (0.0, 0.62)  # of the time left after the trial; the rest is for answers and the quiz
    quiz: tuple[int, int] = (6_000, 300)  # problems to learn and to answer
    per_kind: int = 100  # questions of each of the seven kinds
    bench: int = 100  # scenes of the LLaVA-Bench for `book`
    compiled: bool = False  # stage 2 by `stages.compile_blocks`, for `smol`
    seen: int = 85  # the gates
    above_chance: int = 12
    lost: int = 2
    letters: int = 75


SMOL = Recipe()
BOOK = replace(SMOL, boxes=0, captions=1, seeds=(0,), stage1_lr=TINY.stage1_lr, stage2_lr=TINY.stage2_lr, lr_w=None,
               lr_muon=TINY.stage2_lr_muon, stage2_batch=48, most=(187, 2_625), trial=60, share=(0.06, 0.72),
               questions=1, after=0.75, every=(1, 2, 1))  # fmt: skip
TURNS = replace(BOOK, questions=0)
MODELS = {
    "smol": SMOL,
    "whole": replace(TURNS, whole=1, every=(1, 4, 2), stage2_batch=32),
    "turns": TURNS,
    "book": BOOK,
}
DRY = dict(scenes=16, stage1_batch=4, stage2_batch=4, most=(8, 8), trial=3, quiz=(8, 2), per_kind=2, bench=2,
           own_answers=(4, 1))  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One model of one seed, trained and asked in a process of its own."""

    name: str
    seed: int
    recipe: Recipe
    language_model: Path
    home: Path

    @property
    def result(self) -> dict:
        """What it has written so far."""
        path = self.home / "result.json"
        return read_json(path) if path.exists() else {"done": False}

    def assemble(self, device: str):
        return assemble(parts.VISION_TOWER, self.language_model, self.seed, device=device)

    def train(self, model, stage: int, samples, features, folder: Path, steps: int, **more) -> None:
        """A stage, without checkpoints of 1.6 GB: a model that was stopped begins again."""
        batch, lr = (self.recipe.stage1_batch, self.recipe.stage1_lr) if stage == 1 else (0, self.recipe.stage2_lr)
        settings = {"batch_size": batch or self.recipe.stage2_batch, "steps": steps, "lr": lr, "seed": self.seed}
        muon = self.recipe.lr_muon if stage == 2 else 0.0
        if stage == 2 and self.recipe.compiled:
            compile_blocks(model)
        lr_w = self.recipe.lr_w if stage == 2 else None
        with patch.object(Saver, "save", lambda *_: None):
            train_stage(model, stage, samples, features, folder, lr_muon=muon, lr_w=lr_w, **settings, **more)
        for block in model.language_model.layers:
            vars(block).pop("forward", None)  # answers are not compiled

    @property
    def stages(self) -> tuple:
        """Those that it trains; the start by least squares stands in the place of the first."""
        return STAGES[1:] if self.recipe.boxes else STAGES

    def timed(self, model, stage: int, samples, features, folder: Path, steps: int) -> float:
        """Seconds for a step of a short training."""
        marks = []
        several = samples[: 3 * steps * max(self.recipe.stage1_batch, self.recipe.stage2_batch)]
        self.train(model, stage, several, features, folder, steps, progress=lambda *_: marks.append(time.monotonic()))
        each = [after - before for before, after in pairwise(marks)]
        return statistics.median(each[len(each) // 2 :])  # the first ones load kernels and find memory


def work(job: Job, place: int, folder: Path, deadline: float, board, flags: dict, threads: int) -> None:
    """One model, from its parts to its scores, in a process of its own. board: for each process what it has reached
    (1 loaded, 2 tried) and its seconds for a step of each stage. flags: what the process waits for."""
    device, recipe, began = "cuda" if torch.cuda.is_available() else "cpu", job.recipe, time.monotonic()
    threading.Thread(target=lambda: multiprocessing.parent_process().join() or os._exit(1), daemon=True).start()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    answers.BATCH = 256 if device == "cuda" else answers.BATCH  # decoding waits for launches, not for products
    result = {"job": job.name, "seed": job.seed, "machine": machine(), "done": False}

    def note(**more):
        result.update(more, seconds=round(time.monotonic() - began, 1))
        write_json(job.home / "result.json", result)
        print(f"{job.name} {job.seed}, {result['seconds']:.0f} s: {', '.join(more)}", flush=True)

    tokenizer, model = load_tokenizer(job.language_model), job.assemble(device).eval()
    ours = training_template(job.language_model)
    own = own_template(tokenizer, job.language_model) if tokenizer.chat_template else ours
    note(knowledge={"before": parts.ask_knowledge(model, tokenizer, own)})
    templates = [own, ours]
    kept = parts.own_answers(model, tokenizer, templates, *recipe.own_answers) if job.name == "smol" else []
    flags["drawn"].wait()
    features, samples, asked = parts.read_data(folder, job.name, device)
    samples["instructions"] += kept
    board[3 * place] = 1
    flags["try"].wait()
    if not (job.home.parent / "plan.json").exists():
        for stage, what in job.stages:
            trial = folder / f"{job.home.name}-{stage}"
            board[3 * place + stage] = job.timed(model, stage, samples[what], features, trial, recipe.trial)
        del model
        model = job.assemble(device)
    board[3 * place] = 2
    flags["go"].wait()
    steps, start = read_json(job.home.parent / "plan.json")["steps"][job.name], time.monotonic()
    if recipe.boxes:
        parts.start_by_least_squares(model, tokenizer, recipe, features)
        note(start={"boxes of": recipe.boxes, "seconds": round(time.monotonic() - start, 1)})
    for stage, what in job.stages:
        start, home = time.monotonic(), job.home / f"stage{stage}"
        shutil.rmtree(home, ignore_errors=True)
        job.train(model, stage, samples[what], features, home, steps[stage - 1])
        took, lengths = time.monotonic() - start, [len(s.ids) for s in samples[what]]
        batch = recipe.stage1_batch if stage == 1 else recipe.stage2_batch
        plan = plan_batches(lengths, batch, steps[stage - 1], job.seed)
        more = model.config.vision.num_patches - 1
        tokens = sum(lengths[i] + more * len(samples[what][i].images) for chosen in plan for i in chosen)
        seen, losses = batch * steps[stage - 1], read_losses(home)
        row = {"steps": steps[stage - 1], "seconds": round(took, 1), "samples/s": round(seen / took, 1)}
        row |= {"epochs": round(seen / len(lengths), 2), "tokens/s": round(tokens / took)}
        note(**{f"stage {stage}": row | {"loss": [losses[0], round(statistics.fmean(losses[-20:]), 4)]}})
    if device == "cuda":
        note(peak_memory=torch.cuda.max_memory_allocated())
    W = {key: value.cpu().contiguous() for key, value in model.projector.state_dict().items()}
    save_file(W, job.home / "projector.safetensors")
    model.eval()
    scores, examples = parts.ask_about_pictures(model, tokenizer, ours, asked, features)
    note(sight=scores, examples=examples)
    if job.name != "smol":
        parts.keep(job, model, tokenizer)
        note(relative=relative_scores(model, tokenizer, parts.preparation(), recipe.bench))
    else:
        after = zip(("after, own template", "after, our template"), templates)
        knowledge = {when: parts.ask_knowledge(model, tokenizer, template) for when, template in after}
        note(knowledge=result["knowledge"] | knowledge)
        left, per_step = deadline - time.time() - 15, 1.3 * result["stage 2"]["seconds"] / steps[1]  # seen: 1.1
        count = min(int(left / per_step), 2 * recipe.quiz[0] // recipe.stage2_batch)
        if count >= 50 or recipe.quiz[0] < 50:
            shutil.rmtree(job.home / "quiz", ignore_errors=True)
            job.train(model, 2, samples["quiz"], features, job.home / "quiz", max(2, count))
            model.eval()
            right = parts.ask_quiz(model, tokenizer, ours, features, recipe.quiz[1])
            note(quiz={"steps": max(2, count), "right": right})
    note(done=True)


def plan_steps(jobs: list[Job], board, left: float) -> dict[str, list[int]]:
    """The steps of both stages for each model, by its slowest seed; in tens, so that the time decides coarsely."""
    found = {}
    for name in dict.fromkeys(job.name for job in jobs):
        mine = [n for n, job in enumerate(jobs) if job.name == name and board[3 * n] == 2]
        recipe = next(job.recipe for job in jobs if job.name == name)
        slow = [max([board[3 * n + stage] for n in mine], default=0.0) or 1.0 for stage in (1, 2)]  # 1.0: not tried
        wanted = [int(left * share / seconds) // 10 * 10 for share, seconds in zip(recipe.share, slow)]
        found[name] = [max(8, min(pair)) for pair in zip(wanted, recipe.most)]
    return found


def run(
    out: Path, language_model: Path, seconds: float, dry: bool, compiled: bool, write: Callable[[dict], None]
) -> int:
    """All models that are not done, side by side. write: gets the results when one ends. Returns how many failed."""
    began, change = time.time(), DRY if dry else {}
    recipes = {
        name: replace(recipe, **change, boxes=min(recipe.boxes, 8)) if dry else recipe
        for name, recipe in MODELS.items()
    }
    recipes["smol"] = replace(recipes["smol"], compiled=compiled)
    folders = dict.fromkeys(recipes, WEIGHTS / "language_model") | {"smol": language_model}
    every = [Job(name, seed, recipe, folders[name], out / f"{name}-{seed}")
             for name, recipe in recipes.items() for seed in recipe.seeds]  # fmt: skip
    made_of = {"recipe": {name: asdict(recipe) for name, recipe in recipes.items()}}
    plan = read_json(out / "plan.json") if (out / "plan.json").exists() else None
    if plan and plan["recipe"] != json.loads(json.dumps(made_of))["recipe"]:
        raise UserError(f"{out} holds a run of another recipe; remove it or name another with --out")
    jobs = [job for job in every if not job.result["done"]]
    with tempfile.TemporaryDirectory() as temporary:
        context, folder = multiprocessing.get_context("spawn"), Path(temporary)
        board, flags = context.Array("d", 3 * len(jobs)), {name: context.Event() for name in ("drawn", "try", "go")}
        fixed = (folder, began + seconds, board, flags, max(1, (os.cpu_count() or 1) // max(1, len(jobs))))
        processes = [context.Process(target=work, args=(job, n, *fixed), daemon=True) for n, job in enumerate(jobs)]

        def all_reach(step):  # those that have failed are not waited for
            while any(p.is_alive() and board[3 * n] < step for n, p in enumerate(processes)):
                time.sleep(0.05)

        for process in processes:
            process.start()
        drawn = 0
        if jobs:
            parts.draw_all(recipes["smol"], {name: (folders[name], recipe) for name, recipe in recipes.items()}, folder)
            drawn = round(time.time() - began)
            print(f"drawn after {drawn} s", flush=True)
        flags["drawn"].set()
        all_reach(1)
        flags["try"].set()
        all_reach(2)
        if not plan:
            steps = plan_steps(jobs, board, began + seconds - time.time())
            plan = made_of | {"steps": steps, "seconds for a step": [round(value, 5) for value in board]}
            plan["drawn"] = drawn  # after so many seconds
            write_json(out / "plan.json", plan)
        print(f"steps of both stages, after {time.time() - began:.0f} s: {plan['steps']}", flush=True)
        flags["go"].set()
        while any(p.is_alive() for p in processes):
            wait([p.sentinel for p in processes if p.is_alive()])
            write(parts.summary(out, every, recipes["smol"], time.time() - began))
    write(parts.summary(out, every, recipes["smol"], time.time() - began))
    return sum(p.exitcode != 0 for p in processes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--language-model", type=Path, help="the folder of SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="the file of all results")
    parser.add_argument("--seconds", type=float, default=240, help="the whole run ends within these")
    parser.add_argument("--compiled", action="store_true", help="compile the blocks of `smol` for stage 2")
    parser.add_argument("--dry", action="store_true", help="mock size, with the smallest shipped language model")
    options = parser.parse_args()
    language_model = WEIGHTS / "language_model_small" if options.dry else options.language_model
    if language_model is None:
        parser.error("--language-model is needed")
    try:
        write = partial(write_results, options.json)
        settings = options.seconds, options.dry, options.compiled
        return int(run(options.out, language_model, *settings, write) > 0)
    except UserError as error:
        print(f"gpu_seen: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

"""The training loop: every stage and stand-in is trained by these lines, and every one can be stopped and goes on.

Notable: the batch of step t is a function of (seed, t) alone, so an interrupted run continues bit for bit from its
checkpoint (checkpoints.py). The same lines train in one process or in many (parallel.py), a whole batch at once or in
parts (gradient accumulation), these one after another or, of a small model, each on a core of its own; in float32,
bfloat16 or, with a scaler, in float16.
"""

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.utils.data import DataLoader

from minillava.text import few
from minillava.training import checkpoints, parallel
from minillava.training.checkpoints import TrainingError
from minillava.training.optim import Optimizer, cosine

SAVE_SECONDS = 20.0  # between checkpoints, or 20 times what writing one took
ADVICE = "start again in another folder with a lower learning rate, or look at the batches before it"
SPIKES = 5  # so many losses in a row far above those before are an explosion, fewer a hard batch
LOOKS = 12  # how often a gate is measured on the way


def along(
    progress: Callable[[int, int, float], None], model: nn.Module, measure: Callable[[], dict], folder: Path, times: int
) -> Callable[[int, int, float], None]:
    """A `progress` for `fit` that also measures the model about `times` times on the way: rows of `folder`/gates.jsonl.

    measure(): figures by name, taken in eval mode without gradients. A run that goes on measures no step twice.
    """

    def show(step, steps, loss):
        progress(step, steps, loss)
        if step % max(1, steps // times) and step != steps:
            return
        path = Path(folder) / "gates.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [row for row in map(json.loads, lines) if row["step"] < step]
        model.eval()
        with torch.no_grad():
            rows.append({"step": step, **measure()})
        model.train()
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return show


class Ahead:
    """Make the batches of steps to come in a second process: `Ahead(make, steps)(t)` is make(t), asked for in order."""

    def __init__(self, make: Callable, steps: int):
        self.make, self.steps, self.batches = make, steps, None

    def __getitem__(self, step):
        return self.make(step)

    def __call__(self, step):
        if self.batches is None:
            loader = DataLoader(
                self, batch_size=None, sampler=range(step, self.steps), num_workers=1, prefetch_factor=4
            )
            self.batches = iter(loader)
        return next(self.batches)


@contextmanager
def alone(folder: Path):
    """The folder belongs to this run until it ends. Raises TrainingError where another run is at work in it."""
    lock = FileLock(folder / ".lock")
    try:
        if parallel.rank() == 0:
            lock.acquire(timeout=0)
        yield
    except Timeout:
        raise TrainingError(f"{folder}: another run is at work in this folder; wait for it or name another") from None
    finally:
        lock.release()


def exploded(losses: list[float]) -> bool:
    """Whether the last `SPIKES` losses are all more than 3 above three times the median of the 50 before them."""
    before, last = losses[-SPIKES - 50 : -SPIKES], losses[-SPIKES:]
    return len(before) >= 10 and min(last) > 3 + 3 * statistics.median(before)


# A step's loss, or calls that give the parts that sum to it.
Parts = torch.Tensor | Iterable[Callable[[], torch.Tensor]]


def gradients(model: nn.Module, optimizer: Optimizer, parts: Parts, cores: int = 1) -> float:
    """Add up the gradients of the parts of one step's loss, ours of all ranks'. Returns the sum of our parts.

    cores: so many parts are taken at the same time. Their gradients are added in the order of the parts, so that a step
    is the same whoever was first.
    """
    value, ranks = 0.0, parallel.world()
    if cores == 1 or isinstance(parts, torch.Tensor):
        for part in [lambda: parts] if isinstance(parts, torch.Tensor) else parts:
            loss = part()
            optimizer.scaler.scale(loss * ranks).backward()  # gradients are averaged over ranks; the loss is a sum
            value += loss.item()
        return value
    params = list(checkpoints.trainable(model).values())

    def of(part):
        loss = part()
        return loss.item(), torch.autograd.grad(optimizer.scaler.scale(loss), params, allow_unused=True)

    sums = [None] * len(params)
    for n, (loss, found) in enumerate(parallel.on_cores([partial(of, part) for part in parts], cores)):
        value += loss
        sums = [
            b if a is None else a if b is None else torch.add(a, b, out=a if n > 1 else None)  # the first is not ours
            for a, b in zip(sums, found, strict=True)
        ]
    for p, gradient in zip(params, sums, strict=True):
        p.grad = gradient
    return value


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    loss_at: Callable[[int], Parts],
    steps: int,
    folder: Path,
    recipe: dict,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    clip: float = 1.0,
    ids_at: Callable[[int], list[str]] = lambda step: [],
    cores: int = 1,
) -> list[float]:
    """Train for `steps` steps, or go on where the folder's newest checkpoint stands. Returns the loss of every step.

    loss_at(t): the loss of step t's batch, or calls that give its parts (gradient accumulation), which sum to it over all
    parts and ranks; must depend on nothing but the weights and t. recipe: what this run is, as JSON. ids_at(t): the
    records of step t's batch. cores: as in `gradients`, for one process. Writes metrics.jsonl (one line a step) and
    checkpoints (every 20 seconds, on Ctrl-C, and at the end). Raises TrainingError for a folder that is at work or of
    another recipe, and for a loss that is not finite or explodes, with its step and records.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder), parallel.stoppable() as stopped:
        step, before = checkpoints.resume(folder, model, optimizer, recipe)
        losses, start = _go_on(folder / "metrics.jsonl", step), time.monotonic()
        saved, cost = start, 0.0  # when the last checkpoint was written, and how long that took
        kept = step if step else None  # and of which step it is
        params = list(checkpoints.trainable(model).values())

        def save():
            nonlocal saved, cost, kept
            metrics.flush()
            if step != kept:
                now = time.monotonic()
                checkpoints.save(folder, model, optimizer, step, recipe, before + now - start)
                saved, kept = time.monotonic(), step
                cost = saved - now

        def failed(what, advice):
            records = f"; its records are {few(ids_at(step))}" if ids_at(step) else ""
            return TrainingError(f"{folder}: the {what}; {advice}{records}")

        whole = True  # the weights are those after `step` whole steps, and worth keeping
        with open(folder / "metrics.jsonl" if parallel.rank() == 0 else os.devnull, "a") as metrics:
            try:
                while step < steps:
                    factor = cosine(step, steps)
                    ours = gradients(model, optimizer, loss_at(step), cores)
                    due = time.monotonic() - saved > SAVE_SECONDS * max(1, cost)
                    value, dues, stops = parallel.total([ours, due, stopped.is_set()])
                    if not math.isfinite(value):
                        whole = all(p.isfinite().all() for p in params)
                        raise failed(f"loss of step {step} is {value}", "lower the learning rate or look at its batch")
                    optimizer.unscale()
                    norm = nn.utils.clip_grad_norm_([p for p in params if p.grad is not None], clip)
                    norm = parallel.gathered(norm)
                    if not norm.isfinite() and not optimizer.scaler.is_enabled():  # a scaler leaves such a step out
                        raise failed(
                            f"gradient of step {step} is {norm:f}", "lower the learning rate or look at its batch"
                        )
                    whole = False
                    optimizer.step(factor)
                    losses.append(round(value, 5))
                    row = {"step": step, "loss": losses[-1], "lr_factor": round(factor, 5)}
                    metrics.write(json.dumps(row) + "\n")
                    if exploded(losses):
                        raise failed(f"loss exploded: {value:.3g} at step {step}", ADVICE)
                    step += 1
                    whole = True
                    progress(step, steps, value)
                    if stops:
                        raise KeyboardInterrupt
                    if dues:
                        save()
            finally:  # also on Ctrl-C; one that falls within a step's update leaves the checkpoint before
                if whole and parallel.calm():
                    save()
    return losses


def _go_on(path: Path, step: int) -> list[float]:
    """The losses of the steps before `step`; the lines of later ones, which are taken again, are cut off."""
    losses = []
    if parallel.rank() == 0:
        lines = path.read_text().splitlines(keepends=True)[:step] if step else []
        path.write_text("".join(lines))
        losses = [json.loads(line)["loss"] for line in lines]
    return parallel.agree(losses)

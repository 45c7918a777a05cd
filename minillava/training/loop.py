"""The training loop of section 4.2: both stages and all stand-ins are trained by these lines.

The batch of step t depends on (seed, t) alone. So a run that was stopped resumes from its checkpoint (checkpoints.py)
and ends bit for bit as if it had never stopped. The same lines train in one process or in many (parallel.py), on whole
batches or on parts of them (gradient accumulation), in float32, bfloat16 or, with a scaler, float16.
"""

import json
import math
import os
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from minillava.text import few
from minillava.training import checkpoints, parallel
from minillava.training.checkpoints import TrainingError
from minillava.training.optim import Optimizer, cosine

HIGH_LOSSES = 5  # this many losses in a row far above those before are an explosion; fewer are a hard batch

# A step's loss, or functions that compute its parts, which sum to it.
Parts = torch.Tensor | Iterable[Callable[[], torch.Tensor]]


def exploded(losses: list[float]) -> bool:
    """Whether the last `HIGH_LOSSES` losses are all more than 3 above three times the median of the 50 before them."""
    before, last = losses[-HIGH_LOSSES - 50 : -HIGH_LOSSES], losses[-HIGH_LOSSES:]
    return len(before) >= 10 and min(last) > 3 + 3 * statistics.median(before)


def accumulate_gradients(model: nn.Module, optimizer: Optimizer, parts: Parts, cores: int = 1) -> float:
    """Add up the gradients of this process's parts of one step's loss. Returns the sum of these parts.

    cores: how many parts are computed at the same time, each on one core (`parallel.gradients_on_cores`).
    """
    whole = isinstance(parts, torch.Tensor)
    if cores > 1 and not whole:
        return parallel.gradients_on_cores(parts, checkpoints.trainable(model).values(), cores, optimizer.scaler.scale)
    losses = []
    for part in [parts] if whole else parts:
        loss = part if whole else part()
        share = loss * parallel.world_size()  # gradients are averaged over ranks, but the parts' losses are summed
        optimizer.scaler.scale(share).backward()
        losses.append(loss.detach())
    return sum(loss.item() for loss in losses)  # at the end, so that a GPU never waits between parts


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
    """Train for `steps` steps, resuming from the folder's newest checkpoint. Returns the loss of every step.

    loss_at(t): the loss of step t's batch, or functions that compute this process's parts of it; it may depend only on
    the weights and t. recipe: what identifies this run, as JSON. progress(steps done, steps, loss): called after each
    step. ids_at(t): the records in step t's batch, for messages. cores: as in `accumulate_gradients`.
    Writes metrics.jsonl (one line per step) and checkpoints: when one is due, when the run is stopped, and at the end.
    Raises TrainingError, with step and records, for a loss that explodes and for a loss or gradient that is not finite;
    also for a folder that another run is using or that holds a run of another recipe.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    params = list(checkpoints.trainable(model).values())
    with checkpoints.lock_folder(folder), parallel.stop_event() as stop:
        saver = checkpoints.Saver(folder, model, optimizer, recipe)
        step, losses = saver.resume(), saver.losses

        def failed(what, advice="lower the learning rate or look at its batch"):
            records = f"; its records are {few(ids_at(step))}" if ids_at(step) else ""
            return TrainingError(f"{folder}: the {what}; {advice}{records}")

        consistent = True  # the weights are those after `step` steps, so they may be saved
        with open(folder / "metrics.jsonl" if parallel.rank() == 0 else os.devnull, "w", 1, "utf-8") as metrics:
            metrics.writelines(_row(t, loss, steps) for t, loss in enumerate(losses))  # of the steps before
            try:
                while step < steps:
                    loss = accumulate_gradients(model, optimizer, loss_at(step), cores)
                    loss, due, stopped = parallel.sum_over_ranks([loss, saver.due(), stop.is_set()])
                    if not math.isfinite(loss):
                        consistent = all(p.isfinite().all() for p in params)
                        raise failed(f"loss of step {step} is {loss}")
                    optimizer.unscale()
                    norm = nn.utils.clip_grad_norm_([p for p in params if p.grad is not None], clip)
                    norm = parallel.full_tensor(norm)
                    finite = bool(norm.isfinite())
                    if not finite and not optimizer.scaler.is_enabled():
                        raise failed(f"gradient of step {step} is {norm:f}")
                    with parallel.signals_wait():
                        consistent = False  # until the step is complete: an error in between leaves the last checkpoint
                        optimizer.step(cosine(step, steps)) if finite else optimizer.skip()
                        losses.append(round(loss, 5))
                        metrics.write(_row(step, losses[-1], steps))
                        if exploded(losses):
                            advice = (
                                "start again in another folder with a lower learning rate, or look at earlier batches"
                            )
                            raise failed(f"loss exploded: {loss:.3g} at step {step}", advice)
                        step += 1
                        consistent = True
                    progress(step, steps, loss)
                    if stopped:
                        raise KeyboardInterrupt
                    if due:
                        saver.save(step)
            finally:
                if consistent and parallel.ranks_in_step():
                    saver.save(step)
    return losses


def _row(step: int, loss: float, steps: int) -> str:
    """A line of metrics.jsonl."""
    return json.dumps({"step": step, "loss": loss, "lr_factor": round(cosine(step, steps), 5)}) + "\n"

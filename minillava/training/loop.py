"""The training loop: every stage and stand-in is trained by these lines, and every one can be stopped and goes on.

Notable: the batch of step t is a function of (seed, t) alone, so a checkpoint needs only weights, optimizer and t, and
an interrupted run continues bit for bit. Checkpoints are written beside and renamed; a torn one is never seen.
"""

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from minillava.training.optim import Optimizer, cosine

SAVE_SECONDS = 20.0
LOOKS = 12  # how often a gate is measured on the way


class TrainingError(RuntimeError):
    """A run that cannot go on: another recipe in the folder, a loss that is not a number."""


def compute_dtype() -> torch.dtype:
    """bfloat16 where the CPU or GPU multiplies it in hardware, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capable = torch.backends.cpu.get_cpu_capability()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return torch.bfloat16 if "AVX512" in capable and "avx512_bf16" in flags else torch.float32


def machine() -> dict:
    """What this ran on, without its name."""
    return {
        "system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(),
        "torch": torch.__version__, "precision": str(compute_dtype()).removeprefix("torch."),
    }  # fmt: skip


def save_atomic(state: dict, path: Path) -> None:
    """Write a state beside `path`, flush it to the disk, then rename: a reader sees the old file or the new one."""
    beside = path.with_name(path.name + ".part")
    with open(beside, "wb") as f:
        try:
            torch.save(state, f)
        except RuntimeError as error:  # torch hides why it could not write, such as a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        f.flush()
        os.fsync(f.fileno())
    os.replace(beside, path)


def seconds_of(folder: Path) -> float:
    """How long the training in this folder has taken so far, over interruptions."""
    path = folder / "checkpoint.pt"
    return torch.load(path, weights_only=True)["seconds"] if path.exists() else 0.0


def _resume(folder: Path, model: nn.Module, optimizer: Optimizer, recipe: dict) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        return 0
    state = torch.load(path, weights_only=True)
    if state["recipe"] != json.dumps(recipe, sort_keys=True):
        raise TrainingError(
            f"{folder}: holds a half-finished run of another recipe; remove the folder or choose another"
        )
    for name, parameter in trainable(model).items():
        parameter.data.copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[: state["step"]]))
    return state["step"]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def bar(total: int, unit: str, name: str = " ") -> tqdm:
    """A progress bar with the time left; a line now and then where the output is not a terminal."""
    return tqdm(total=total, unit=unit, desc=name, leave=False, mininterval=0.3 if sys.stderr.isatty() else 20)


def follow(progress: tqdm) -> Callable[[int, int, float], None]:
    """What `fit` calls after each step to move a bar and show the loss."""

    def show(step, steps, loss):
        progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
        progress.update(step - progress.n)

    return show


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


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    loss_at: Callable[[int], torch.Tensor],
    steps: int,
    folder: Path,
    recipe: dict,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    clip: float = 1.0,
) -> list[float]:
    """Train for `steps` steps, or go on where the folder's checkpoint stands. Returns the loss of every step.

    loss_at(t): the loss of step t's batch; must depend on nothing but the weights and t. recipe: what this run is, as
    JSON; going on with another recipe raises TrainingError, and so does a loss that is not finite (with its step).
    Writes metrics.jsonl (one line a step) and checkpoint.pt (every 20 seconds, on Ctrl-C, and at the end).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    step, before, start = _resume(folder, model, optimizer, recipe), seconds_of(folder), time.monotonic()

    def save():
        weights = {name: p.detach() for name, p in trainable(model).items()}
        state = {
            "weights": weights,
            "optimizer": optimizer.state_dict(),
            "step": step,
            "recipe": json.dumps(recipe, sort_keys=True),
            "seconds": before + time.monotonic() - start,
        }
        save_atomic(state, folder / "checkpoint.pt")

    saved, whole = start, True  # whole: the weights are those after `step` whole steps
    with open(folder / "metrics.jsonl", "a") as metrics:
        try:
            while step < steps:
                factor = cosine(step, steps)
                loss = loss_at(step)
                value = loss.item()
                if not math.isfinite(value):
                    raise TrainingError(
                        f"{folder}: the loss of step {step} is {value}; lower the learning rate or look at its batch"
                    )
                loss.backward()
                torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], clip)
                whole = False
                optimizer.step(factor)
                metrics.write(json.dumps({"step": step, "loss": round(value, 5), "lr_factor": round(factor, 5)}) + "\n")
                step += 1
                whole = True
                progress(step, steps, value)
                if time.monotonic() - saved > SAVE_SECONDS:
                    metrics.flush()
                    save()
                    saved = time.monotonic()
        finally:  # also on Ctrl-C; one that falls within a step's update leaves the checkpoint before
            metrics.flush()
            if whole:
                save()
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

"""What training looks like and what it takes: a run's loss over its reference band, also live, and memory.

train_stage(..., progress=Live(read("tiny-stage2")))    # a plot that grows below the cell
band([losses_of("runs/paper/seed-0/full-data")], read("tiny-stage2")).savefig("loss.png")
"""

import math
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from minillava.curves import (
    Curve,
    CurveError,
    describe_run,
    excursions,
    mean_log_loss,
    read_curve,
    read_losses,
    recipe_of,
)
from minillava.figures.charts import lines, stacked
from minillava.figures.panels import above
from minillava.figures.style import BLUE, ORANGE, canvas, fills, plain_log

TRAININGS = {"stage1": "boxes-stage1", "full-data": "stage2"}  # folder of a run of the paper -> its curve's name
LOSS, SEEDS = "loss, nats per token", "other seeds"
WINDOW = 20  # steps
MEMORY = ("weights", "gradients", "optimizer", "activations", "logits")  # of the memory that training takes


def smooth(losses: list[float], window: int) -> list[float]:
    """The mean of the last `window` losses at every step, as the bands have it."""
    return [math.exp(mean_log_loss(losses, window, step)) for step in range(len(losses))]


def band(runs: list[list[float]], curve: Curve, title: str = "") -> Figure:
    """Losses over the band: each step as a dot, each run smoothed as the band is; orange where it is outside."""
    outside, x = [out for run in runs for out in excursions(run, curve)], range(max(curve.steps, *map(len, runs)))
    parts = (curve.low, curve.middle, curve.high)
    low, middle, high = (np.interp(x, curve.at, v, left=math.nan, right=math.nan) for v in parts)
    drawn = {SEEDS: middle}
    for n, run in enumerate(runs):
        begun = min(curve.window, len(run)) - 1
        drawn["this run" if len(runs) == 1 else f"seed {n}"] = [math.nan] * begun + smooth(run, curve.window)[begun:]
    title = title or ("The loss leaves its band" if outside else "The loss stays within its band")
    across = f"step  (dots: batches; lines: mean of the last {curve.window}; orange: outside)"
    figure = lines(x, drawn, across, LOSS, title, {SEEDS: (low, high)})
    (axis,) = figure.axes
    for run in runs:
        axis.plot(run, ".", color=BLUE, ms=2, alpha=0.5)
    for out in outside:
        axis.axvspan(out.first, max(out.last, out.first + 1), color=ORANGE, alpha=0.25, lw=0)
    plain_log(axis)
    return figure


def health(folder: Path, scale: str) -> list[str]:
    """A line for each training of a run of the paper that has a reference curve, and its figure in `folder`/figures."""
    said = []
    for training, name in TRAININGS.items():
        try:
            curve = read_curve(f"{scale}-{name}")
        except CurveError:
            continue  # this scale ships none
        runs = sorted(Path(folder).glob(f"seed-*/{training}/metrics.jsonl"))
        if not runs or recipe_of(runs[0].parent) != curve.about:
            said.append(f"Loss of {training}: not compared; the reference curve is of other weights or another recipe")
            continue
        band([read_losses(run) for run in runs], curve).savefig(Path(folder) / "figures" / f"band-{training}.png")
        said += [f"Loss of {training}, {run.parent.parent.name}: {describe_run(run, curve)}" for run in runs]
    return said


class Live:
    """A `progress` for training that redraws the figure below a notebook's cell every few seconds."""

    def __init__(self, curve: Curve, seconds: float = 3.0):
        self.curve, self.seconds, self.losses, self.shown, self.drawn = curve, seconds, [], None, 0.0

    def __call__(self, step: int, steps: int, loss: float) -> None:
        from IPython.display import display

        self.losses.append(loss)
        if step < steps and time.monotonic() - self.drawn < self.seconds:
            return
        self.drawn, title = time.monotonic(), f"Step {step} of {steps}: loss {loss:.3f}"
        figure = band([self.losses], self.curve, title)
        self.shown = self.shown or display(figure, display_id=True)
        if self.shown:
            self.shown.update(figure)


def loss_curves(curves: dict[str, list[float]], title: str) -> Figure:
    """Losses by step, each smoothed over the last `WINDOW` steps. curves: name -> the loss of every step."""
    means = {name: smooth(losses, WINDOW) for name, losses in curves.items()}
    across = f"step  (lines: mean of the last {WINDOW})"
    figure = lines(range(max(map(len, means.values()))), means, across, LOSS, title)
    plain_log(figure.axes[0])
    return figure


def both_ways(losses: dict[str, tuple[list[float], list[float]]], title: str) -> Figure:
    """The loss of every step computed twice, a panel for each training. losses: name -> (yours, the package's)."""
    figure, axes = canvas(8.5, 3.4, len(losses), squeeze=False)
    for axis, (name, (mine, theirs)) in zip(axes[0], losses.items()):
        lines(range(len(theirs)), {"the package": theirs, "yours": mine}, "step", LOSS, name, axis=axis)
        axis.set_ylim(0)
    above(figure, title)
    return figure


def memory_bars(needs: dict[str, dict[str, float]], room: float, title: str) -> Figure:
    """What needs a device's memory, a bar for each way to train. needs: name -> bytes of each part. room: of a device."""
    gigabytes = {name: {part: parts[part] / 1e9 for part in MEMORY} for name, parts in needs.items()}
    level = (room / 1e9, f"{room / 1e9:.0f} GB, what a device has")
    return stacked(gigabytes, dict(zip(MEMORY, fills(MEMORY))), "GB per device", title, level)

"""A run's loss over its reference band, as a figure, at the end of a run or live in a notebook.

train_stage(..., progress=Live(read("tiny-stage2")))    # a plot that grows below the cell
band([losses_of("runs/paper/seed-0/full-data")], read("tiny-stage2")).savefig("loss.png")
"""

import math
import time
from pathlib import Path

from matplotlib.figure import Figure

from minillava.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, canvas, headline, plain_log
from minillava.training.curves import (
    Curve,
    CurveError,
    describe_run,
    excursions,
    mean_log_loss,
    read_curve,
    read_losses,
    recipe_of,
)

TRAININGS = {"stage1": "stage1", "full-data": "stage2"}  # folder of a run of the paper -> its curve's name


def band(runs: list[list[float]], curve: Curve | None, title: str = "") -> Figure:
    """Losses over the band: each step as a dot, each run smoothed as the band is; orange where it is outside."""
    figure, axis = canvas(8, 3.4)
    window = curve.window if curve else max(4, max(map(len, runs), default=0) // 8)
    outside = [out for run in runs for out in (excursions(run, curve) if curve else [])]
    if curve:
        axis.fill_between(
            curve.at, curve.low, curve.high, color=GREY, alpha=0.35, lw=0, label=f"band of {curve.seeds} seeds"
        )
        axis.plot(curve.at, curve.middle, color=GREY, lw=1.2)
    for run in runs:
        axis.plot(run, ".", color=BLUE, ms=2, alpha=0.35)
        steps = range(min(window, len(run)) - 1, len(run))
        axis.plot(steps, [math.exp(mean_log_loss(run, window, s)) for s in steps], color=INK, lw=1.4)
    for out in outside:
        axis.axvspan(out.first, max(out.last, out.first + 1), color=ORANGE, alpha=0.25, lw=0)
    if curve:
        axis.set_xlim(0, max(curve.steps, *(len(run) for run in runs)))
        axis.legend(frameon=False, fontsize=8)
    plain_log(axis)
    axis.set_xlabel(f"step  (dots: batches; lines: mean of the last {window}; orange: outside)")
    axis.set_ylabel("loss, nats a token")
    headline(
        axis,
        title
        or (
            "The loss leaves its band" if outside else "The loss stays within its band" if curve else "The loss so far"
        ),
    )
    return figure


def health(folder: Path, scale: str) -> list[str]:
    """A line for each training of a run of the paper that has a reference curve, and its figure in `folder`/figures."""
    lines = []
    for training, stage in TRAININGS.items():
        try:
            curve = read_curve(f"{scale}-{stage}")
        except CurveError:
            continue  # this scale ships none
        runs = sorted(Path(folder).glob(f"seed-*/{training}/metrics.jsonl"))
        if not runs or recipe_of(runs[0].parent) != curve.about:
            lines.append(f"Loss of {stage}: not compared; the reference curve is of other weights or another recipe")
            continue
        (Path(folder) / "figures").mkdir(exist_ok=True)
        band([read_losses(run) for run in runs], curve).savefig(Path(folder) / "figures" / f"band-{stage}.png")
        lines += [f"Loss of {stage}, {run.parent.parent.name}: {describe_run(run, curve)}" for run in runs]
    return lines


class Live:
    """A `progress` for training that redraws the figure below a notebook's cell every few seconds."""

    def __init__(self, curve: Curve | None = None, seconds: float = 3.0):
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
    """Losses by step, smoothed over 20 steps. curves: name -> the loss of every step."""
    figure, axis = canvas(8, 3.2)
    for (name, losses), colour in zip(curves.items(), (BLUE, ORANGE, GREEN, PINK, GREY, INK)):
        smooth = [sum(losses[max(0, i - 19) : i + 1]) / len(losses[max(0, i - 19) : i + 1]) for i in range(len(losses))]
        axis.plot(smooth, color=colour, label=name, lw=1.5)
    plain_log(axis)
    axis.set_xlabel("step")
    axis.set_ylabel("loss, nats a token")
    axis.legend(frameon=False, fontsize=8)
    headline(axis, title)
    return figure

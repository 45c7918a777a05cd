"""Is this loss normal? Reference curves with tolerance bands, and where a run leaves its band.

A curve is made from the metrics.jsonl of at least three seeds of one recipe. Losses are averaged over a window, as
logarithms, because batches of short answers and of long ones alternate. The band extends from their mean by a factor of
1.15 and three standard deviations over seeds to each side. A curve is valid only for its own weights and recipe.

    python -m minillava.curves make tiny-stage2 runs/paper/seed-*/full-data
    python -m minillava.curves check tiny-stage2 runs/paper/seed-0/full-data
"""

import argparse
import json
import math
import statistics
import sys
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from minillava.files import write_text
from minillava.scales import WEIGHTS

CURVE_FOLDER = WEIGHTS.parent / "curves"
LEAST_SEEDS, MOST_POINTS = 3, 40  # runs that a curve needs; points that it has
BAND_FACTOR, BAND_DEVIATIONS = 1.15, 3.0
LEAST_POINTS_OUTSIDE = 2  # in a row, to count as leaving the band
ADVICE = {
    "above": "check the learning rate, which tokens carry loss (template, labels), and the vision tower's features",
    "below": "check whether too many tokens carry loss, or the same records come again and again",
}


class CurveError(ValueError):
    """A curve or metrics that cannot be used; the message names the file."""


@dataclass(frozen=True)
class Curve:
    """A reference curve. at: steps. low, middle, high: the band there, in nats per token, for the mean loss of the
    `window` steps up to it. about: recipe and weights of the runs, from their state.json."""

    name: str
    seeds: int
    steps: int
    window: int
    at: list[int]
    low: list[float]
    middle: list[float]
    high: list[float]
    about: dict


@dataclass(frozen=True)
class Excursion:
    """Steps in a row outside the band. side: "above", "below", or "lost" for a loss that is not a number. factor: the
    largest distance from the band."""

    first: int
    last: int
    side: str
    factor: float

    def __str__(self) -> str:
        if self.side == "lost":
            return f"at step {self.first} the loss is not a number; lower the learning rate"
        where = f"step {self.first} to {self.last}"
        return (
            f"{where}: the loss is {self.side} its band, by a factor of {self.factor:.2f} at worst; {ADVICE[self.side]}"
        )


def read_losses(path: str | Path) -> list[float]:
    """The loss of every step from a metrics.jsonl or the folder that it is in. Raises CurveError."""
    path = Path(path) / "metrics.jsonl" if Path(path).is_dir() else Path(path)
    try:
        return [float(json.loads(line)["loss"]) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CurveError(f"{path}: not the metrics of a training ({error})") from error


def mean_log_loss(losses: list[float], window: int, step: int) -> float:
    """The mean logarithm of the loss over the `window` steps up to `step`."""
    return statistics.fmean(math.log(max(loss, 1e-6)) for loss in losses[max(0, step - window + 1) : step + 1])


def make_curve(name: str, runs: list[list[float]], about: dict) -> Curve:
    """The curve of several runs of one recipe: the losses of each. Raises CurveError for too few or unequal runs."""
    lengths = {len(run) for run in runs}
    if len(runs) < LEAST_SEEDS or len(lengths) != 1 or min(lengths) < 8:
        needs = f"{LEAST_SEEDS} or more runs of equal length and at least 8 steps are needed"
        raise CurveError(f"{name}: {len(runs)} runs of {sorted(lengths)} steps; {needs}")
    if not all(math.isfinite(loss) for run in runs for loss in run):
        raise CurveError(f"{name}: a run's loss is not a number")
    (steps,) = lengths
    window = max(4, steps // 8)
    points = min(MOST_POINTS, steps - window + 1)
    at = [round(window - 1 + i * (steps - window) / (points - 1)) for i in range(points)]
    values = [[mean_log_loss(run, window, step) for run in runs] for step in at]
    spread = math.sqrt(statistics.fmean(map(statistics.variance, values)))  # over all points, as seeds are few
    half = math.log(BAND_FACTOR) + BAND_DEVIATIONS * spread
    band = [[round(math.exp(statistics.fmean(v) + side * half), 4) for v in values] for side in (-1, 0, 1)]
    return Curve(name, len(runs), steps, window, at, *band, about)


def excursions(metrics: str | Path | list[float], curve: Curve) -> list[Excursion]:
    """Where a run leaves the band; [] for a healthy run. An unfinished run is compared as far as it has come."""
    losses = metrics if isinstance(metrics, list) else read_losses(metrics)
    for step, loss in enumerate(losses):
        if not math.isfinite(loss):
            return [Excursion(step, step, "lost", math.inf)]
    points = []  # (step, side, by which factor it is outside; at most 1 inside)
    for step, low, high in zip(curve.at, curve.low, curve.high):
        if step < len(losses):
            value = math.exp(mean_log_loss(losses, curve.window, step))
            points.append((step, "above", value / high) if value > high else (step, "below", low / value))
    found = []
    for side, group in groupby(points, lambda point: point[1] if point[2] > 1 else None):
        stretch = list(group)
        if side and len(stretch) >= LEAST_POINTS_OUTSIDE:
            found.append(Excursion(stretch[0][0], stretch[-1][0], side, max(factor for *_, factor in stretch)))
    return found


def recipe_of(folder: str | Path) -> dict:
    """Recipe and weights of the `minillava paper` run that contains this training's folder (RUN/seed-N/TRAINING)."""
    path = Path(folder).absolute().parent.parent / "state.json"
    return json.loads(path.read_text(encoding="utf-8"))["recipe"] if path.exists() else {}


def read_curve(name: str, folder: Path = CURVE_FOLDER) -> Curve:
    """A shipped curve. Raises CurveError, with the names of those that exist."""
    path = Path(folder) / f"{name}.json"
    try:
        return Curve(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in Path(folder).glob("*.json"))) or "none"
        raise CurveError(f"no reference curve is called {name!r}; there are: {known}") from None
    except (ValueError, TypeError) as error:
        raise CurveError(f"{path}: not a reference curve ({error})") from error


def write_curve(curve: Curve, folder: Path = CURVE_FOLDER) -> Path:
    """Write a curve that `read_curve` reads; returns its file."""
    path = Path(folder) / f"{curve.name}.json"
    write_text(path, json.dumps(asdict(curve)) + "\n")
    return path


def describe_run(metrics: str | Path, curve: Curve) -> str:
    """Whether a run is healthy and where it is not, as a sentence."""
    losses, found = read_losses(metrics), excursions(metrics, curve)
    if found:
        return "not healthy. " + ". ".join(map(str, found))
    reached = [n for n, step in enumerate(curve.at) if step < len(losses)]
    if not reached:
        return f"too early to say: {len(losses)} steps, the band of {curve.name} begins at step {curve.at[0]}"
    values = [math.exp(mean_log_loss(losses, curve.window, curve.at[n])) for n in reached]
    inside = sum(curve.low[n] <= value <= curve.high[n] for n, value in zip(reached, values))
    return f"healthy: within the band of {curve.name} at {inside} of {len(curve.at)} points ({curve.seeds} seeds)"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minillava.curves", description=__doc__.partition("\n")[0])
    parser.add_argument("do", choices=("make", "check"))
    parser.add_argument("name", help="the curve's name, such as tiny-stage2")
    parser.add_argument("runs", nargs="+", type=Path, help="folders with a metrics.jsonl")
    parser.add_argument("--folder", type=Path, default=CURVE_FOLDER, help="where curves are")
    options = parser.parse_args(arguments)
    try:
        if options.do == "make":
            recipes = [recipe_of(run) for run in options.runs]
            if any(recipe != recipes[0] for recipe in recipes):
                raise CurveError(f"{options.name}: these runs are of different recipes or weights")
            curve = make_curve(options.name, [read_losses(run) for run in options.runs], recipes[0])
            loss, factor = f"{curve.middle[0]:.3f} to {curve.middle[-1]:.3f}", curve.high[0] / curve.middle[0]
            path = write_curve(curve, options.folder)
            print(f"{path}: {curve.seeds} seeds, {curve.steps} steps, loss {loss}, the band a factor of {factor:.2f}")
            return 0
        curve = read_curve(options.name, options.folder)
        for run in options.runs:
            print(f"{run}: {describe_run(run, curve)}")
        return int(any(excursions(run, curve) for run in options.runs))
    except CurveError as error:
        print(f"minillava: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

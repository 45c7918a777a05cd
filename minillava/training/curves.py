"""Is this loss normal? Reference curves with tolerance bands, and where a run leaves its band.

Notable: a curve is made from the metrics.jsonl of at least three seeds of one recipe. Losses are averaged in logarithms
over a window, because batches of short answers and of long ones alternate. The band is their mean, a factor of 1.15 and
three standard deviations over seeds to each side. A curve counts only for the weights and the recipe it was made of.

    python -m minillava.training.curves make tiny-stage2 runs/paper/seed-*/full-data
    python -m minillava.training.curves check tiny-stage2 runs/paper/seed-0/full-data
"""

import argparse
import json
import math
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from minillava.files import write_text
from minillava.scales import WEIGHTS

CURVES = WEIGHTS.parent / "curves"
SEEDS, POINTS = 3, 40  # at least so many runs; at most so many points of a curve
FACTOR, DEVIATIONS = 1.15, 3.0
LASTING = 2  # points in a row outside the band that count as leaving it
ADVICE = {
    "above": "look at the learning rate, at what carries loss (template, labels), and that the vision tower's features are the right ones",
    "below": "look whether too much carries loss, or the same records come again and again",
}


class CurveError(ValueError):
    """A curve or a run's metrics that cannot be used; the message names the file."""


@dataclass(frozen=True)
class Curve:
    """at: steps; low, middle, high: the loss there, nats a token, over the `window` steps up to it. about: recipe and
    weights of the runs, as their state.json says."""

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
    """A stretch outside the band. side: "above", "below", or "lost" where the loss is no number. factor: how far at worst."""

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


def losses_of(path: str | Path) -> list[float]:
    """The loss of every step from a metrics.jsonl or its folder. Raises CurveError."""
    path = Path(path) / "metrics.jsonl" if Path(path).is_dir() else Path(path)
    try:
        return [float(json.loads(line)["loss"]) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CurveError(f"{path}: not the metrics of a training ({error})") from error


def smooth(losses: list[float], window: int, step: int) -> float:
    """The mean of the logarithms of the losses of the `window` steps up to `step`."""
    return statistics.fmean(math.log(max(loss, 1e-6)) for loss in losses[max(0, step - window + 1) : step + 1])


def make(name: str, runs: list[list[float]], about: dict) -> Curve:
    """The curve of the losses of several runs of one recipe. Raises CurveError for too few, or for unequal lengths."""
    lengths = {len(run) for run in runs}
    if len(runs) < SEEDS or len(lengths) != 1 or min(lengths) < 8:
        raise CurveError(f"{name}: {len(runs)} runs of {sorted(lengths)} steps; needs {SEEDS} or more of equal length, 8 or more steps")  # fmt: skip
    if not all(math.isfinite(loss) for run in runs for loss in run):
        raise CurveError(f"{name}: a run's loss is not a number")
    (steps,) = lengths
    window = max(4, steps // 8)
    points = min(POINTS, steps - window + 1)
    at = [round(window - 1 + i * (steps - window) / (points - 1)) for i in range(points)]
    values = [[smooth(run, window, step) for run in runs] for step in at]
    spread = math.sqrt(
        statistics.fmean(statistics.variance(v) for v in values)
    )  # of all points: three seeds say little
    half = math.log(FACTOR) + DEVIATIONS * spread
    band = [[round(math.exp(statistics.fmean(v) + side * half), 4) for v in values] for side in (-1, 0, 1)]
    return Curve(name, len(runs), steps, window, at, *band, about)


def healthy(metrics: str | Path | list[float], curve: Curve) -> list[Excursion]:
    """Where a run leaves the band; empty where it is healthy. A run under way is judged as far as it has come."""
    losses = metrics if isinstance(metrics, list) else losses_of(metrics)
    for step, loss in enumerate(losses):
        if not math.isfinite(loss):
            return [Excursion(step, step, "lost", math.inf)]
    found, stretch = [], []

    def close():
        if len(stretch) >= LASTING:
            found.append(Excursion(stretch[0][0], stretch[-1][0], stretch[0][1], max(f for *_, f in stretch)))
        stretch.clear()

    for step, low, high in zip(curve.at, curve.low, curve.high):
        if step >= len(losses):
            break
        value = math.exp(smooth(losses, curve.window, step))
        side, factor = ("above", value / high) if value > high else ("below", low / value)
        if stretch and (factor <= 1 or stretch[0][1] != side):
            close()
        if factor > 1:
            stretch.append((step, side, factor))
    close()
    return found


def about(folder: str | Path) -> dict:
    """Recipe and weights of the run of the paper that a training's folder (RUN/seed-N/TRAINING) lies in."""
    path = Path(folder).absolute().parent.parent / "state.json"
    return json.loads(path.read_text())["recipe"] if path.exists() else {}


def read(name: str, folder: Path = CURVES) -> Curve:
    """A shipped curve. Raises CurveError that lists those there are."""
    path = Path(folder) / f"{name}.json"
    try:
        return Curve(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        there = ", ".join(sorted(p.stem for p in Path(folder).glob("*.json"))) or "none"
        raise CurveError(f"no reference curve is called {name!r}; there are: {there}") from None
    except (ValueError, TypeError) as error:
        raise CurveError(f"{path}: not a reference curve ({error})") from error


def write(curve: Curve, folder: Path = CURVES) -> Path:
    path = Path(folder) / f"{curve.name}.json"
    write_text(path, json.dumps(asdict(curve)) + "\n")
    return path


def verdict(metrics: str | Path, curve: Curve) -> str:
    """What `healthy` finds, in words."""
    losses, found = losses_of(metrics), healthy(metrics, curve)
    if found:
        return "not healthy. " + ". ".join(map(str, found))
    come = [n for n, step in enumerate(curve.at) if step < len(losses)]
    if not come:
        return f"too early to say: {len(losses)} steps, the band of {curve.name} begins at step {curve.at[0]}"
    values = [math.exp(smooth(losses, curve.window, curve.at[n])) for n in come]
    inside = sum(curve.low[n] <= value <= curve.high[n] for n, value in zip(come, values))
    return f"healthy: within the band of {curve.name} at {inside} of {len(curve.at)} points ({curve.seeds} seeds)"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minillava.training.curves", description=__doc__.partition("\n")[0])
    parser.add_argument("do", choices=("make", "check"))
    parser.add_argument("name", help="of the curve, such as tiny-stage2")
    parser.add_argument("runs", nargs="+", type=Path, help="folders with a metrics.jsonl")
    parser.add_argument("--folder", type=Path, default=CURVES, help="where curves are")
    options = parser.parse_args(arguments)
    try:
        if options.do == "make":
            abouts = [about(run) for run in options.runs]
            if any(a != abouts[0] for a in abouts):
                raise CurveError(f"{options.name}: these runs are of different recipes or weights")
            curve = make(options.name, [losses_of(run) for run in options.runs], abouts[0])
            print(f"{write(curve, options.folder)}: {curve.seeds} seeds, {curve.steps} steps, "
                  f"{curve.middle[0]:.3f} to {curve.middle[-1]:.3f}, the band a factor of {curve.high[0] / curve.middle[0]:.2f}")  # fmt: skip
            return 0
        curve, bad = read(options.name, options.folder), False
        for run in options.runs:
            print(f"{run}: {verdict(run, curve)}")
            bad = bad or bool(healthy(run, curve))
        return int(bad)
    except CurveError as error:
        print(f"minillava: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

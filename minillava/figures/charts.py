"""What figures of numbers are made of: bars with whiskers and marks, dots, stacks, curves over bands, heat maps.

Notable: the paper's value is a thick grey mark. Numbers are printed right of the bars, the paper's in brackets. A chart
that is given an `axis` is drawn there, and otherwise in a figure of its own.

    bars(["Full data", "Conversation"], [Score(81.5, (79.6, 83.5), 85.1), Score(53.9)], "relative score, %", "It helps")
"""

import math
import textwrap
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from minillava.figures import style
from minillava.figures.style import DOTTED, INK, THEIRS, WHISKER, canvas, fill, fills, headline, ink_on, pen, short

MARKERS = "os^Dv*"  # of curves, so that colour never stands alone
SEEDS, QUESTIONS = "standard deviation over seeds", "95 % interval"  # what whiskers show


class Score(NamedTuple):
    """A value of ours; its whisker (low, high) and the paper's value, or None."""

    ours: float
    whisker: tuple[float, float] | None = None
    paper: float | None = None


def over_seeds(cell: dict, paper: float | None = None) -> Score:
    """A cell {"ours", "spread"} of a report: the whisker is one standard deviation over seeds to each side."""
    ours, spread = cell["ours"], cell["spread"]
    return Score(ours, (ours - spread, ours + spread) if spread else None, paper)


def _scores(values: list) -> list[Score | None]:
    return [Score(value) if isinstance(value, (int, float)) else value for value in values]


def _notes(label: str, scores: list[Score], whisker: str, level: tuple[float, str] | None = None) -> str:
    """The name of an axis, and below it what is drawn beside the bars."""
    notes = [f"line: {whisker}"] * any(score.whisker for score in scores)
    notes += ["grey mark: the paper"] * any(score.paper is not None for score in scores)
    notes += [f"dotted: {level[1]}"] if level else []
    return "\n".join(filter(None, [label, " · ".join(notes)]))


def _named_rows(axis, names, numbers: list[str], reach: list[float], level: tuple[float, str] | None) -> None:
    """What lying bars have in common: names at the left, numbers at the right, a dotted line at a level."""
    for y, number in enumerate(numbers):
        axis.text(1.01, y, number, va="center", fontsize=9, transform=axis.get_yaxis_transform())
    if level:
        axis.axvline(level[0], **DOTTED)
    reach = [0.0, *reach, level[0] if level else 0.0]
    axis.set(xlim=(1.03 * min(reach), 1.03 * max(*reach, 1e-9)), ylim=(max(len(numbers), 1) - 0.5, -0.5))
    axis.set_yticks(range(len(numbers)), [short(name, 44) for name in names])


def legend_below(figure: Figure, columns: int = 4, **handles) -> None:
    """One legend for the whole figure, below its axes."""
    figure.legend(frameon=False, fontsize=8, ncols=columns, loc="outside lower center", **handles)


def bars(names: list[str], values: list, across: str, title: str, marked: tuple[str, ...] = (), whisker: str = "",
         level: tuple[float, str] | None = None, shades: list[dict] | None = None, axis=None) -> Figure:  # fmt: skip
    """A bar for each name, from the top, in its colour of the palette; others are blue, and those `marked` are orange.

    values: numbers or Scores. across: what is measured, with its unit. whisker: what whiskers show. level: value and name
    of a dotted line. shades: other colours, from `style.fill`.
    """
    axis = axis or canvas(8, 0.32 * len(names) + 1.2)[1]
    shades = shades or [fill(name, style.ORANGE if name in marked else style.BLUE) for name in names]
    scores = _scores(values)
    for y, (score, shade) in enumerate(zip(scores, shades, strict=True)):
        axis.barh(y, score.ours, height=0.64, **shade)
        if score.whisker:
            axis.plot(score.whisker, [y, y], **WHISKER)
        if score.paper is not None:
            axis.plot([score.paper, score.paper], [y - 0.42, y + 0.42], **THEIRS)
    numbers = [f"{s.ours:,}" if isinstance(s.ours, int) else f"{s.ours:.4g}" for s in scores]
    numbers = [n if s.paper is None else f"{n} ({s.paper:.4g})" for n, s in zip(numbers, scores)]
    reach = [value for s in scores for value in (s.ours, *(s.whisker or ()), s.paper) if value is not None]
    _named_rows(axis, names, numbers, reach, level)
    axis.axvline(0, color=INK, lw=1)
    axis.set_xlabel(_notes(across, scores, whisker, level))
    headline(axis, title)
    return axis.figure


def dots(names: list[str], scores: list[Score], across: str, title: str, marked: tuple[str, ...] = ()) -> Figure:
    """A dot with its 95 % interval for each name, from the top. The axis begins near the lowest, not at 0.

    For values that are close together: as bars they would look the same. Orange: the names in `marked`.
    """
    axis = canvas(8, 0.32 * len(names) + 1.2)[1]
    for y, (name, score) in enumerate(zip(names, scores, strict=True)):
        axis.plot(score.whisker, [y, y], **WHISKER)
        axis.plot(score.ours, y, "o", ms=8, color=style.ORANGE if name in marked else style.BLUE, mec=INK, mew=0.6)
    ends = [end for score in scores for end in score.whisker]
    edge = 0.04 * (max(ends) - min(ends))
    _named_rows(axis, names, [f"{score.ours:.4g}" for score in scores], [], None)
    axis.set(xlim=(min(ends) - edge, max(ends) + edge), xlabel=_notes(across, scores, QUESTIONS))
    axis.grid(axis="x", color=style.GREY, alpha=0.3, lw=0.6)
    headline(axis, title)
    return axis.figure


def grouped(rows: dict[str, list], groups: list[str], up: str, title: str, chance: list[float | None] = (),
            whisker: str = "", axis=None) -> Figure:  # fmt: skip
    """Bars in groups. rows: name -> for each group a number, a Score or None. up: what is measured, with its unit.

    chance: for each group the value of a dotted line, or None.
    """
    axis = axis or canvas(min(11.0, max(6.5, (0.5 + 0.24 * len(rows)) * len(groups))), 3.4 + 0.06 * len(rows))[1]
    width, scores = 0.82 / len(rows), {name: _scores(row) for name, row in rows.items()}
    for k, (name, shade) in enumerate(zip(rows, fills(rows))):
        there = [(n - 0.41 + width * (k + 0.5), s) for n, s in zip(range(len(groups)), scores[name], strict=True) if s]
        axis.bar([x for x, _ in there], [score.ours for _, score in there], 0.92 * width, label=name, **shade)
        for x, score in there:
            if score.whisker:
                axis.plot([x, x], score.whisker, **WHISKER)
            if score.paper is not None:
                axis.plot([x - width / 2, x + width / 2], [score.paper] * 2, **THEIRS)
    for n, (x, value) in enumerate((x, value) for x, value in enumerate(chance) if value is not None):
        axis.plot([x - 0.46, x + 0.46], [value] * 2, label=None if n else "chance", **DOTTED)
    axis.set_xticks(range(len(groups)), [textwrap.fill(name, 16) for name in groups], fontsize=9)
    axis.set(ylim=(0, 104), ylabel=up, xlabel=_notes("", [s for row in scores.values() for s in row if s], whisker))
    legend_below(axis.figure, 3 if max(map(len, rows)) > 32 else 4)
    headline(axis, title)
    return axis.figure


def stacked(totals: dict[str, dict[str, float]], shades: dict[str, dict], across: str, title: str,
            level: tuple[float, str] | None = None) -> Figure:  # fmt: skip
    """Bars made of parts, with their sizes and sum. totals: bar -> part -> value. shades: part -> its `style.fill`."""
    figure, axis = canvas(9, 0.52 * len(totals) + 1.4)
    sums = [sum(parts[part] for part in shades) for parts in totals.values()]
    ends = np.zeros(len(totals))
    for part, shade in shades.items():
        values, colour = [parts[part] for parts in totals.values()], shade["facecolor"]
        drawn = axis.barh(range(len(totals)), values, left=ends, height=0.66, label=part, **shade)
        shown = [f"{value:.3g}" if value > 0.05 * max(sums) else "" for value in values]
        inside = {"fontsize": 8.5, "color": ink_on(colour), "bbox": {"fc": colour, "ec": "none", "pad": 1}}
        axis.bar_label(drawn, shown, label_type="center", **inside)
        ends += values
    _named_rows(axis, totals, [f"{whole:.3g}" for whole in sums], sums, level)
    axis.set_xlabel(_notes(across, [], "", level))
    legend_below(figure, len(shades))
    headline(axis, title)
    return figure


def lines(x, curves: dict[str, list[float]], across: str, up: str, title: str, bands: dict[str, tuple] | None = None,
          axis=None) -> Figure:  # fmt: skip
    """Curves over x, each with a band where `bands` has (low, high) for its name; a curve may end early.

    across, up: the names of the axes, with their units.
    """
    alone, axis = axis is None, axis or canvas(8, 3.4)[1]
    for (name, y), shade, marker in zip(curves.items(), fills(curves), MARKERS * len(curves)):
        axis.plot(x[: len(y)], y, marker=marker, ms=4, markevery=max(1, len(y) // 12), label=name, **pen(shade))
        if name in (bands or {}):
            axis.fill_between(x[: len(y)], *bands[name], color=shade["facecolor"], alpha=0.25, lw=0)
    if len(x) < 12:
        axis.set_xticks(x)
    axis.set(xlabel=across, ylabel=up)
    legend_below(axis.figure) if alone else axis.legend(frameon=False, fontsize=8)
    headline(axis, title)
    return axis.figure


def matrix(values, rows: list[str], columns: list[str], title: str, digits: int | None = None) -> Figure:
    """A table of numbers (R, C) as colour, yellow large; with `digits` the numbers too. -inf stays white."""
    R, C = len(rows), len(columns)
    cell = 0.55 if digits is not None else max(0.17, min(0.4, 6 / max(R, C)))
    figure, axis = canvas(cell * C + 2.6, cell * R + 1.9)
    finite = [[float(v) if math.isfinite(float(v)) else math.nan for v in row] for row in values]
    image = axis.imshow(finite, cmap=style.HEAT, aspect="auto")
    for r, c in ((r, c) for r in range(R) for c in range(C) if digits is not None and math.isfinite(finite[r][c])):
        ink = ink_on(image.cmap(image.norm(finite[r][c])))
        axis.text(c, r, f"{finite[r][c]:.{digits}f}", ha="center", va="center", fontsize=8, color=ink)
    small = {"fontsize": 8 if cell > 0.2 else 6}
    axis.set_yticks(range(R), map(short, rows), **small)
    axis.set_xticks(range(C), map(short, columns), rotation=60, ha="right", rotation_mode="anchor", **small)
    axis.spines[:].set_visible(False)
    headline(axis, title)
    return figure

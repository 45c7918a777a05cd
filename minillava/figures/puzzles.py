"""A puzzle, drawn: the values that a function gets, the value that it is to give, and what it gave.

Notable: each value is a grid of cells that hold their numbers, so that a shift, a swap or a missing row is seen at
once. All numbers of a figure share one scale of colours, pale to blue. An image token and a label without loss are drawn as such.

    grids({"ids": ids, "target": ids[1:]})
"""

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minillava.data import IGNORE, IMAGE
from minillava.figures.style import GREEN, GREY, INK, ORANGE, PALE, WHITE, ink_on

SAID = {True: ("yes", GREEN), False: ("no", PALE), IMAGE: ("image", ORANGE), IGNORE: ("ignore", PALE)}
INCH = 0.4  # of a cell


def tables(value) -> list[list[list]]:
    """A value as tables of cells: one, or one per slice of a (N, M, K) tensor. A text has a cell per letter."""
    if isinstance(value, torch.Tensor):
        return [sub.tolist() for sub in value] if value.dim() == 3 else tables(value.tolist())
    if isinstance(value, dict):
        return [[[f"{key}:", one] for key, one in value.items()]]
    if isinstance(value, str):
        return [[list(value)]]
    if isinstance(value, (list, tuple)) and value and all(isinstance(row, (list, tuple)) for row in value):
        return [[list(row) for row in value]]
    return [[list(value) if isinstance(value, (list, tuple)) else [value]]]


def cell(value, scale) -> tuple[str, str]:
    """The words and the colour of one cell. scale: from a number to a colour."""
    if isinstance(value, (bool, int)) and (value is True or value is False or value in (IMAGE, IGNORE)):
        return SAID[value]
    if isinstance(value, (int, float)):
        return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value), scale(value)
    return "␣" if value == " " else str(value), WHITE


def grids(values: dict[str, object]) -> Figure:
    """The values side by side, each with its name, a tensor with its shape too. Rows alone stand below one another."""
    drawn = {name: tables(value) for name, value in values.items()}
    flat = [v for some in drawn.values() for table in some for row in table for v in row]
    numbers = [v for v in flat if isinstance(v, (int, float)) and v not in (IMAGE, IGNORE)]
    low, high = min(numbers, default=0), max(numbers, default=1)
    scale = lambda v: colormaps["Blues"](0.05 + 0.5 * (v - low) / ((high - low) or 1))  # noqa: E731
    sizes = {name: f" {tuple(v.shape)}" if isinstance(v, torch.Tensor) else "" for name, v in values.items()}
    rows = all(len(table) == 1 for some in drawn.values() for table in some)
    same = [[cell(v, scale) for v in flat]] if rows else []  # below one another, all cells are of one width
    margin = 0.17 * max(len(name + size) for name, size in sizes.items()) + 0.4 if rows else 0.0
    figure = Figure()
    axis, x, y, right, deepest = figure.add_axes((0, 0, 1, 1)), margin, 0.0, 0.0, 1.0
    for name, some in drawn.items():
        label, begin = name + sizes[name], x
        place = (0.0, y + 0.6) if rows else (x, -0.25)
        axis.text(*place, label, fontsize=9, color=INK, weight="bold" if name == "target" else None)
        for table in some:
            cells = [[cell(v, scale) for v in row] for row in table]
            wide = max([1.0, *(0.24 * len(text) + 0.3 for row in same or cells for text, _ in row)])
            for r, row in enumerate(cells):
                for c, (text, colour) in enumerate(row):
                    axis.add_patch(Rectangle((x + c * wide, y + r), wide, 1, fc=colour, ec=GREY, lw=0.8))
                    middle = (x + (c + 0.5) * wide, y + r + 0.5)
                    axis.text(*middle, text, ha="center", va="center", fontsize=8, color=ink_on(colour))
            x, deepest = x + wide * max(map(len, cells), default=0) + 0.4, max(deepest, y + len(cells))
        right = max(right, x, begin + 0.17 * len(label)) + (0 if rows else 0.6)
        x, y = (margin, y + 1.3) if rows else (right, 0.0)
    top = -0.2 if rows else -1.0
    figure.set_size_inches(INCH * (right + 0.2), INCH * (deepest + 0.2 - top))
    axis.set(xlim=(-0.2, right), ylim=(deepest + 0.2, top))
    axis.axis("off")
    return figure

"""What figures of pictures and of text are made of: tiles, maps over the patches, a picture beside lines, tokens as boxes.

Notable: text is wrapped to its column before it is drawn and the figure grows with it, so lines cannot run into each other.

    from minillava.figures.panels import Line, beside
    beside([(picture, {"": [[Line("What is odd?", bold=True), Line("A bus in the air.")]]})])
"""

import textwrap
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from minillava.data.images import crop
from minillava.figures.charts import legend_below
from minillava.figures.style import (
    GREEN,
    HEAT,
    INK,
    PINK,
    RIGHT,
    VERMILION,
    WHITE,
    WRONG,
    canvas,
    headline,
    ink_on,
    short,
)

STEP, LETTERS = 0.17, 13.5  # inches from one line of text to the next; letters in an inch of a line


def above(figure: Figure, title: str) -> None:
    """A title over all axes of a figure that says the conclusion, in as many lines as it needs."""
    figure.suptitle(textwrap.fill(title, int(10 * figure.get_figwidth())), x=0.01, ha="left", fontweight="bold", fontsize=11)  # fmt: skip


def _grid(names: list[str], title: str, columns: int, inch: float) -> list:
    """Axes for small pictures, each under its name, and their figure's title."""
    rows = -(-len(names) // columns)
    width = max(inch * columns, min(8.0, 0.1 * len(title)))
    figure, axes = canvas(width, (inch + 0.25) * rows + 0.4, columns, rows, squeeze=False)
    above(figure, title)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names):
        axis.set_title(name, fontsize=9)
    return list(axes.flat)


def tiles(pictures: list, names: list[str], title: str, columns: int = 8, inch: float = 1.25) -> Figure:
    """Small pictures, each under its name. pictures: PIL images or (h, w, 3) arrays in [0, 1]; `columns` a row, each
    `inch` wide."""
    axes = _grid(names, title, columns, inch)
    for axis, picture in zip(axes, pictures):
        axis.imshow(picture, interpolation="nearest")
    return axes[0].figure


def maps(grids, names: list[str], title: str, pictures: list[Image.Image] = (), columns: int = 6) -> Figure:
    """Maps over the patches, tensors (side, side), each with its own scale; with pictures, as a veil over them.

    Over a picture: the brighter, the larger. Without: dark small, yellow large.
    """
    axes = _grid(names, title, min(columns, len(grids)), 1.6)
    for n, (axis, grid) in enumerate(zip(axes, grids)):
        low, high = float(grid.min()), float(grid.max())
        scaled, place = ((grid - low) / (high - low or 1.0)).tolist(), {"extent": (0, len(grid), len(grid), 0)}
        if pictures:
            axis.imshow(crop(pictures[n], 192), **place)
            veil = [[(0.0, 0.0, 0.0, 0.85 * (1 - value)) for value in row] for row in scaled]
            axis.imshow(veil, interpolation="nearest", **place)
        else:
            axis.imshow(scaled, cmap=HEAT, interpolation="nearest", **place)
    return axes[0].figure


class Line(NamedTuple):
    """A line of text; where it is long it is wrapped. key: the look of a small square before it, from `style.fill`."""

    text: str
    colour: str = INK
    bold: bool = False
    key: dict | None = None


def verdict(text: str, good: bool | None) -> Line:
    """A line with a tick and in green where it is right, with a cross and in red where it is wrong, plain for None."""
    mark, colour = {True: ("✓ ", RIGHT), False: ("✗ ", WRONG), None: ("", INK)}[good]
    return Line(mark + (text or "(nothing)"), colour)


def _laid(columns: list[list[list[Line]]], letters: int) -> tuple[list[tuple], float]:
    """Where each line goes: (column, height in lines from the top, wrapped text, line); and how many lines high it all is."""
    placed, top = [], 0.0
    for n in range(max(map(len, columns))):
        ends = []
        for column, cells in enumerate(columns):
            y = top
            for line in cells[n]:
                wrapped = textwrap.wrap(line.text, letters - 3 * bool(line.key)) or [""]
                placed.append((column, y, "\n".join(wrapped), line))
                y += len(wrapped)
            ends.append(y)
        top = max(ends) + 0.6
    return placed, top


def beside(rows: list[tuple], title: str = "", text: float = 4.8, picture: float = 2.8, more: float = 0.0) -> Figure:
    """Pictures below one another, each beside columns of text.

    rows: (picture or None, {heading: cells}); a cell is a list of `Line`, and the n-th cells of all columns of a row begin at
    the same height. text, picture: inches that a column and a picture are wide. more: inches of an empty axis at the right.
    """
    laid = [_laid(list(columns.values()), int(LETTERS * text)) for _, columns in rows]
    heights, wide = [max(picture, STEP * lines) for _, lines in laid], len(rows[0][1])
    widths = [picture, *[text] * wide, *[more] * bool(more)]
    room = 0.3 * bool(title) + sum(0.1 + 0.3 * any(columns) for _, columns in rows)
    figure, axes = canvas(sum(widths) + 0.2, sum(heights) + room, len(widths), len(rows), squeeze=False,
                          width_ratios=widths, height_ratios=heights)  # fmt: skip
    for (shown, columns), (placed, _), height, (left, *others) in zip(rows, laid, heights, axes):
        for axis in (left, *others[:wide]):
            axis.set_axis_off()
        if shown is None:
            left.text(0.5, 0.5, "(no picture)", ha="center", va="center")
        else:
            left.imshow(shown)
            left.set_anchor("N")
        for axis, heading in zip(others, columns):
            axis.set(xlim=(0, text), ylim=(height / STEP, 0))
            headline(axis, heading)
        for column, y, words, line in placed:
            if line.key:
                others[column].add_patch(Rectangle((0, y + 0.12), 0.13, 0.7, **line.key))
            others[column].text(
                0.22 if line.key else 0, y, words, fontsize=9, color=line.colour, va="top", linespacing=1.35,
                fontweight="bold" if line.bold else "normal",
            ).set_in_layout(False)  # fmt: skip
    if title:
        above(figure, title)
    return figure


class Piece(NamedTuple):
    """A piece of text in a coloured box. loss: underlined. off: with a rim, for it is not as it should be."""

    text: str
    colour: str
    loss: bool = False
    off: bool = False


def pieces(sections: dict[str, list[Piece]], legend: dict[str, str], title: str = "", width: int = 108, most: int = 60) -> Figure:  # fmt: skip
    """Boxes of text one after another, under the heading of each section; a line ends at a line end of the text.

    legend: what each colour means. width: letters in a line. most: lines of a section; the rest is not drawn.
    """
    figure, axis = canvas(11, 3)
    y = 0
    for heading, some in sections.items():
        if heading:
            axis.text(0, y, heading, va="center", fontsize=9, fontweight="bold")
        x, y = 0.0, y + bool(heading)
        last = y + most
        for piece in some:
            shown = piece.text.replace("\n", "↵").replace(" ", "·")
            wide = len(shown) + 0.7
            if x and x + wide > width and shown != "↵":
                x, y = 0.0, y + 1
            if y >= last:
                break
            rim = {"ec": PINK, "lw": 2.5} if piece.off else {"ec": WHITE, "lw": 0.6}
            axis.add_patch(Rectangle((x, y - 0.4), wide, 0.8, fc=piece.colour, **rim))
            look = {"fontsize": 7.5, "family": "monospace", "color": ink_on(piece.colour)}
            axis.text(x + wide / 2, y, shown, ha="center", va="center", **look)
            if piece.loss:
                axis.plot([x, x + wide], [y + 0.44] * 2, color=INK, lw=1.4)
            x += wide + 0.4
            if "↵" in shown:
                x, y = 0.0, y + 1
        y += bool(x) + 0.4
    axis.set(xlim=(-0.5, width + 2), ylim=(y - 0.4, -0.7))
    axis.set_axis_off()
    figure.set_size_inches(11, 0.25 * y + 0.4 + 0.3 * bool(title))
    legend_below(figure, 6, handles=[Patch(fc=colour, ec=INK, lw=0.5, label=name) for name, colour in legend.items()])
    headline(axis, title)
    return figure


def checklist(rows: dict[str, list], columns: list[str], title: str, said=("equal", "differs")) -> Figure:
    """A table of checks: True a green cell, False a red one, each with its word of `said`; all else as text."""
    words = [[""] + columns] + [
        [short(name)] + [said[not v] if isinstance(v, bool) else short(str(v)) for v in row]
        for name, row in rows.items()
    ]
    letters = [max(8, *map(len, column)) + 2 for column in zip(*words)]
    figure, axis = canvas(max(0.09 * sum(letters), 0.1 * len(title)), 0.3 * len(words) + 0.5)
    table = axis.table(words, colWidths=[n / sum(letters) for n in letters], cellLoc="center", bbox=(0, 0, 1, 1))
    table.auto_set_font_size(False)
    for (y, x), cell in table.get_celld().items():
        value = list(rows.values())[y - 1][x - 1] if x and y else None
        colour = {True: GREEN, False: VERMILION}[value] if isinstance(value, bool) else WHITE
        cell.set(facecolor=colour, edgecolor=WHITE, linewidth=3, fontsize=9)
        cell.get_text().set(color=ink_on(colour), fontweight="normal" if y else "bold")
    axis.set_axis_off()
    headline(axis, title)
    return figure

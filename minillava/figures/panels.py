"""What figures of pictures and text are made of: tiles, maps, a picture beside lines, tokens in boxes, checklists.

Notable: text is wrapped to its column before it is drawn, and the figure grows with it, so lines never overlap.

    beside([(picture, {"": [[Line("What is odd?", bold=True), Line("A bus in the air.")]]})])
"""

import textwrap
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image, ImageDraw

from minillava.data.images import crop
from minillava.figures import style
from minillava.figures.charts import legend_below
from minillava.figures.style import INK, WHITE, canvas, headline, ink_on, short

STEP, PER_INCH = 0.17, 13.5  # inches from one line of text to the next; letters in an inch of a line
VEIL = 192  # pixels per side of a picture under a map
MOST = 50  # lines of boxes under a heading; the rest is not drawn


def above(figure: Figure, title: str) -> None:
    """A title over all axes of a figure that says the conclusion, in as many lines as it needs."""
    words = textwrap.fill(title, int(10 * figure.get_figwidth()))
    figure.suptitle(words, x=0.01, ha="left", fontweight="bold", fontsize=11)


def tiles(pictures: list, names: list[str], title: str, columns: int = 8, inch: float = 1.25) -> Figure:
    """Small pictures, each under its name. pictures: PIL images or (h, w, 3) arrays in [0, 1]. inch: width of each."""
    rows, width = -(-len(pictures) // columns), max(inch * columns, min(8.0, 0.1 * len(title)))
    figure, axes = canvas(width, (inch + 0.25 * any(names)) * rows + 0.4, columns, rows, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, name in zip(axes.flat, pictures, names):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(name, fontsize=9)
    above(figure, title)
    return figure


def maps(grids, names: list[str], title: str, pictures: list[Image.Image] = (), columns: int = 6) -> Figure:
    """Maps over the patches, tensors (side, side), each with its own scale: dark small, yellow large.

    pictures: where there are any, each map is a veil over its picture, and the brighter a patch, the larger its value.
    """
    shown = []
    for n, grid in enumerate(grids):
        low, high = float(grid.min()), float(grid.max())
        scaled = ((grid - low) / (high - low or 1.0)).float().cpu().numpy()
        if pictures:
            light = Image.fromarray(0.15 + 0.85 * scaled).resize((VEIL, VEIL), Image.Resampling.NEAREST)
            shown.append(np.asarray(crop(pictures[n], VEIL)) / 255 * np.asarray(light)[..., None])
        else:
            shown.append(colormaps[style.HEAT](scaled)[..., :3])
    return tiles(shown, names, title, min(columns, len(shown)), 1.6)


def outlined(picture: Image.Image, grid, share: float = 0.5) -> Image.Image:
    """A picture with a rim around the fewest patches that hold `share` of a map (side, side); the rest is paler."""
    values, order = grid.float().flatten().sort(descending=True)
    count = int((values.cumsum(0) < share * values.sum()).sum()) + 1
    clear, cell = crop(picture, VEIL).convert("RGB"), VEIL / len(grid)
    image = Image.blend(clear, Image.new("RGB", clear.size, WHITE), 0.6)
    pen = ImageDraw.Draw(image)
    for row, column in (divmod(n, len(grid)) for n in order[:count].tolist()):
        box = [round(cell * edge) for edge in (column, row, column + 1, row + 1)]
        image.paste(clear.crop(box), box)
        pen.rectangle([box[0], box[1], box[2] - 1, box[3] - 1], outline=style.VERMILION, width=2)
    return image


class Line(NamedTuple):
    """A line of text; a long one is wrapped. key: a `style.fill` for a small square before it."""

    text: str
    colour: str = INK
    bold: bool = False
    key: dict | None = None


def ticked(text: str, good: bool | None) -> Line:
    """A line with a tick and in green where it is right, with a cross and in red where it is wrong, plain for None."""
    mark, colour = {True: ("✓ ", style.RIGHT), False: ("✗ ", style.WRONG), None: ("", INK)}[good]
    return Line(mark + (text or "(nothing)"), colour)


def _laid(columns: list[list[list[Line]]], letters: int) -> tuple[list[tuple], float]:
    """The place of each line, (column, lines from the top, wrapped text, line), and how many lines high it all is."""
    placed, top = [], 0.0
    for cells in zip(*columns, strict=True):
        ends = [top] * len(columns)
        for column, cell in enumerate(cells):
            for line in cell:
                wrapped = textwrap.wrap(line.text, letters - 3 * bool(line.key)) or [""]
                placed.append((column, ends[column], "\n".join(wrapped), line))
                ends[column] += len(wrapped)
        top = max(ends) + 0.6
    return placed, top


def beside(rows: list[tuple], title: str = "", text: float = 4.8, picture: float = 2.8, more: float = 0.0) -> Figure:
    """Pictures below one another, each beside columns of text.

    rows: (picture or None, {heading: cells}); a cell is a list of `Line`, and the n-th cells of all columns are level.
    text, picture: width of a column and of a picture in inches. more: inches of an empty axis at the right.
    """
    laid = [_laid(list(columns.values()), int(PER_INCH * text)) for _, columns in rows]
    heights = [max(picture, STEP * lines) for _, lines in laid]
    widths = [picture, *[text] * len(rows[0][1]), *[more] * bool(more)]
    size = sum(widths) + 0.2, sum(heights) + 0.3 * bool(title) + sum(0.1 + 0.3 * any(columns) for _, columns in rows)
    ratios = {"width_ratios": widths, "height_ratios": heights}
    figure, axes = canvas(*size, len(widths), len(rows), squeeze=False, **ratios)
    for (shown, columns), (placed, _), height, (left, *others) in zip(rows, laid, heights, axes):
        left.set_axis_off()
        left.set_anchor("N")
        left.text(0.5, 0.5, "(no picture)", ha="center", va="center") if shown is None else left.imshow(shown)
        for axis, heading in zip(others, columns):
            axis.set_axis_off()
            axis.set(xlim=(0, text), ylim=(height / STEP, 0))
            headline(axis, heading)
        for column, y, words, line in placed:
            if line.key:
                others[column].add_patch(Rectangle((0, y + 0.12), 0.13, 0.7, **line.key))
            font = {"color": line.colour, "fontweight": "bold" if line.bold else "normal", "fontsize": 9}
            x, fixed = 0.22 if line.key else 0.0, {"va": "top", "linespacing": 1.35, "in_layout": False}
            others[column].text(x, y, words, **font, **fixed)
    if title:
        above(figure, title)
    return figure


class Piece(NamedTuple):
    """A piece of text in a coloured box. loss: underlined, for it carries loss. rim: with a rim, to point at it."""

    text: str
    colour: str
    loss: bool = False
    rim: bool = False


def pieces(sections: dict[str, list[Piece]], legend: dict[str, str], title: str = "", width: int = 108) -> Figure:
    """Boxes of text one after another, under the heading of each section; a line ends at a line end of the text.

    legend: what each colour means. width: letters in a line.
    """
    figure, axis = canvas(11, 3)
    y = 0.0
    for heading, some in sections.items():
        axis.text(0, y, heading, va="center", fontsize=9, fontweight="bold")
        x, y, last = 0.0, y + bool(heading), y + bool(heading) + MOST
        for piece in some:
            shown = piece.text.replace("\n", "↵").replace(" ", "·")
            wide = len(shown) + 0.7
            if x and x + wide > width and shown != "↵":
                x, y = 0.0, y + 1
            if y >= last:
                break
            rim = {"ec": style.PINK, "lw": 2.5} if piece.rim else {"ec": WHITE, "lw": 0.6}
            axis.add_patch(Rectangle((x, y - 0.4), wide, 0.8, fc=piece.colour, **rim))
            font = {"fontsize": 7.5, "family": "monospace", "color": ink_on(piece.colour)}
            axis.text(x + wide / 2, y, shown, ha="center", va="center", **font)
            if piece.loss:
                axis.plot([x, x + wide], [y + 0.44] * 2, color=INK, lw=1.4)
            x, y = (0.0, y + 1) if "↵" in shown else (x + wide + 0.4, y)
        y += bool(x) + 0.4
    axis.set(xlim=(-0.5, width + 2), ylim=(y - 0.4, -0.7))
    axis.set_axis_off()
    figure.set_size_inches(11, 0.25 * y + 0.4 + 0.3 * bool(title))
    legend_below(figure, 6, handles=[Patch(fc=colour, ec=INK, lw=0.5, label=name) for name, colour in legend.items()])
    headline(axis, title)
    return figure


def checklist(rows: dict[str, list], columns: list[str], title: str, said=("equal", "differs")) -> Figure:
    """A table of checks: True a green cell, False a red one, each with its word of `said`; all else as text."""
    word, colour = {True: said[0], False: said[1]}, {True: style.GREEN, False: style.VERMILION}
    flat = [["", *columns], *([name, *row] for name, row in rows.items())]
    words = [[short(word[value] if isinstance(value, bool) else str(value)) for value in row] for row in flat]
    letters = [max(8, *map(len, column)) + 2 for column in zip(*words)]
    figure, axis = canvas(max(0.09 * sum(letters), 0.1 * len(title)), 0.3 * len(words) + 0.5)
    table = axis.table(words, colWidths=[n / sum(letters) for n in letters], cellLoc="center", bbox=(0, 0, 1, 1))
    table.auto_set_font_size(False)
    for (y, x), cell in table.get_celld().items():
        ground = colour[flat[y][x]] if isinstance(flat[y][x], bool) else WHITE
        cell.set(facecolor=ground, edgecolor=WHITE, linewidth=3, fontsize=9)
        cell.get_text().set(color=ink_on(ground), fontweight="normal" if y else "bold")
    axis.set_axis_off()
    headline(axis, title)
    return figure

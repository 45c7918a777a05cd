"""The parts from inside: small pictures in rows, maps over the patches, tables of numbers, lines, bars and RoPE's hands.

Notable: each draws the numbers it is given and takes its title from the caller, who has seen them.

    python -c "from minillava.figures.charts import bars; bars(['a', 'b'], [1, 2], 'votes', 'b wins').savefig('bars.png')"
"""

import math

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from minillava.data.images import crop
from minillava.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, canvas, headline

COLOURS = (BLUE, ORANGE, GREEN, PINK, INK, GREY)
ROOM = 28  # letters of a label


def short(text: str, room: int = ROOM) -> str:
    """A label cut to `room` letters."""
    return text if len(text) <= room else text[: room - 1] + "…"


def tiles(pictures: list, names: list[str], title: str, columns: int = 8, inch: float = 1.25) -> Figure:
    """Small pictures, each under its name. pictures: PIL images or (h, w, 3) arrays in [0, 1]; `columns` a row, each
    `inch` wide."""
    rows = -(-len(pictures) // columns)
    figure, axes = canvas(inch * columns, (inch + 0.2) * rows + 0.4, columns, rows)
    flat = list(axes.flat) if hasattr(axes, "flat") else [axes]
    for axis in flat:
        axis.set_axis_off()
    for axis, picture, name in zip(flat, pictures, names, strict=False):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(name, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def maps(grids, names: list[str], title: str, pictures: list[Image.Image] = (), columns: int = 6) -> Figure:
    """Heat maps over the patches, tensors (side, side) each; where there are pictures, as a veil over them.

    Over a picture: the brighter, the larger. Without: dark small, yellow large, each map with its own scale.
    """
    rows, columns = -(-len(grids) // columns), min(columns, len(grids))
    figure, axes = canvas(1.75 * columns, 2.0 * rows + 0.4, columns, rows)
    flat = list(axes.flat) if hasattr(axes, "flat") else [axes]
    for axis in flat:
        axis.set_axis_off()
    for n, (axis, grid, name) in enumerate(zip(flat, grids, names, strict=False)):
        side, low, high = len(grid), float(grid.min()), float(grid.max())
        scaled = ((grid - low) / (high - low or 1.0)).tolist()
        if pictures:
            axis.imshow(crop(pictures[n], 192), extent=(0, side, side, 0))
            veil = [[(0.0, 0.0, 0.0, 0.85 * (1 - v)) for v in row] for row in scaled]
            axis.imshow(veil, extent=(0, side, side, 0), interpolation="nearest")
        else:
            axis.imshow(scaled, extent=(0, side, side, 0), cmap="cividis", interpolation="nearest")
        axis.set_title(name, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def matrix(values, rows: list[str], columns: list[str], title: str, digits: int | None = None) -> Figure:
    """A table of numbers as colour, (R, C), yellow large; with `digits` the numbers too. -inf stays white."""
    R, C = len(rows), len(columns)
    cell = 0.55 if digits is not None else max(0.17, min(0.4, 6 / max(R, C)))
    figure, axis = canvas(cell * C + 2.6, cell * R + 1.9)
    finite = [[float(v) if math.isfinite(float(v)) else math.nan for v in row] for row in values]
    image = axis.imshow(finite, cmap="cividis", aspect="auto")
    if digits is not None:
        for r in range(R):
            for c in (c for c in range(C) if math.isfinite(finite[r][c])):
                ink = "black" if image.norm(finite[r][c]) > 0.5 else "white"
                axis.text(c, r, f"{finite[r][c]:.{digits}f}", ha="center", va="center", fontsize=8, color=ink)
    axis.set_yticks(range(R), [short(name) for name in rows], fontsize=8 if cell > 0.2 else 6)
    axis.set_xticks(
        range(C), [short(name) for name in columns], rotation=60, ha="right", fontsize=8 if cell > 0.2 else 6
    )
    for side in axis.spines.values():
        side.set_visible(False)
    headline(axis, title)
    return figure


def lines(x: list, curves: dict[str, list[float]], across: str, up: str, title: str) -> Figure:
    """Curves over x, each named in the legend. across, up: the names of the axes."""
    figure, axis = canvas(8, 3.3)
    for (name, values), colour in zip(curves.items(), COLOURS):
        axis.plot(x, values, "o-", color=colour, label=name, ms=3.5, lw=1.6)
    if len(x) < 12:
        axis.set_xticks(x)
    axis.set_xlabel(across)
    axis.set_ylabel(up)
    figure.legend(frameon=False, fontsize=8, ncols=min(4, len(curves)), loc="outside lower center")
    headline(axis, title)
    return figure


def bars(names: list[str], values: list[float], across: str, title: str, marked: tuple[str, ...] = ()) -> Figure:
    """A bar a name, in the order given from the top; marked ones orange, the others blue."""
    figure, axis = canvas(8, 0.3 * len(names) + 1.1)
    for y, (name, value) in enumerate(zip(names, values, strict=True)):
        axis.barh(y, value, color=ORANGE if name in marked else BLUE, height=0.66)
        axis.text(max(value, 0), y, f" {value:.3g}", va="center", fontsize=9)
    axis.set_yticks(range(len(names)), [short(name) for name in names])
    axis.invert_yaxis()
    axis.set_xlim(min(0, *values), max(*values, 1e-9) * 1.12)
    axis.set_xlabel(across)
    headline(axis, title)
    return figure


def clocks(angles, title: str) -> Figure:
    """RoPE: how far each pair is turned at each position. angles: (positions, pairs), radians; a dial a cell, from 0."""
    figure, axis = canvas(0.62 * len(angles[0]) + 1.6, 0.62 * len(angles) + 1.2)
    for position, row in enumerate(angles):
        for pair, angle in enumerate(row):
            turn = [0.01 * n * 2 * math.pi for n in range(101)]
            axis.plot(
                [pair + 0.4 * math.cos(t) for t in turn],
                [position + 0.4 * math.sin(t) for t in turn],
                color=GREY,
                lw=0.6,
            )
            hand = float(angle)
            axis.plot(
                [pair, pair + 0.4 * math.cos(hand)], [position, position - 0.4 * math.sin(hand)], color=BLUE, lw=1.8
            )
    axis.set_aspect("equal")
    axis.invert_yaxis()
    axis.set_xticks(range(len(angles[0])))
    axis.set_yticks(range(len(angles)))
    axis.set_xlabel("pair of numbers of a head")
    axis.set_ylabel("position")
    headline(axis, title)
    return figure


def checklist(rows: dict[str, list], columns: list[str], title: str, said=("equal", "differs")) -> Figure:
    """A table of checks: True a green cell, False an orange one, each with its word; all else as text. columns: their
    names, without the first. said: the words for True and False.
    """
    widths = [
        max(len(short(str(v))) for v in (*(row[n] for row in rows.values()), name)) for n, name in enumerate(columns)
    ]
    widths = [max(8, w + 1) for w in widths]
    first = max(len(short(name)) for name in rows) + 2
    width = max(0.092 * (first + sum(widths)), 0.1 * len(title)) + 0.3
    figure, axis = canvas(width, 0.31 * (len(rows) + 1) + 0.5)
    left = [first + sum(widths[:n]) for n in range(len(columns))]
    for x, name in zip(left, columns, strict=True):
        axis.text(x + 0.5, -0.5, name, va="center", fontsize=9, color=INK, fontweight="bold")
    for y, (name, row) in enumerate(rows.items()):
        axis.text(0, y + 0.5, short(name), va="center", fontsize=9, color=INK)
        for x, wide, value in zip(left, widths, row, strict=True):
            if isinstance(value, bool):
                colour, ink = (GREEN, "white") if value else (ORANGE, INK)
                axis.add_patch(Rectangle((x + 0.15, y + 0.08), wide - 0.3, 0.84, fc=colour, ec="none"))
                axis.text(x + wide / 2, y + 0.5, said[not value], va="center", ha="center", fontsize=8.5, color=ink)
            else:
                axis.text(x + 0.5, y + 0.5, short(str(value)), va="center", fontsize=9, color=INK)
    axis.set_xlim(0, first + sum(widths))
    axis.set_ylim(len(rows), -1)
    axis.set_axis_off()
    headline(axis, title)
    return figure


def splice_step(pieces: list[str], patches: int, step: int) -> Figure:
    """The splice after `step` ids (Fig. 1): above the ids, the picture's coloured; below the rows that they have brought.

    pieces: each id as text, "<image>" where a picture stands; it brings `patches` rows, every other id one.
    """
    counts = [patches if piece == "<image>" else 1 for piece in pieces]
    figure, axis = canvas(11, 2.6)
    width, rows = 1.0 / len(pieces), 1.0 / sum(counts)
    done = 0
    for n, (piece, count) in enumerate(zip(pieces, counts)):
        colour = ORANGE if piece == "<image>" else BLUE
        taken = n < step
        axis.add_patch(
            Rectangle((n * width, 1.9), 0.94 * width, 0.6, fc=colour if taken else "white", ec=colour, lw=1.2)
        )
        axis.text((n + 0.47) * width, 2.62, short(piece, 12), rotation=60, fontsize=7.5, color=INK, va="bottom")
        for row in range(done, done + count if taken else 0):
            axis.add_patch(Rectangle((row * rows, 0.3), 0.9 * rows, 0.7, fc=colour, ec="none"))
        if n == step - 1:
            middle = (done + count / 2) * rows
            axis.annotate(
                "", (middle, 1.04), ((n + 0.47) * width, 1.86), arrowprops={"arrowstyle": "-|>", "color": INK}
            )
        done += count
    axis.add_patch(Rectangle((0, 0.3), 1, 0.7, fc="none", ec=GREY, lw=1))
    axis.text(0, 0.2, f"T' = {done} rows of width D", va="top", fontsize=9, color=INK)
    axis.set_xlim(-0.005, 1.03)
    axis.set_ylim(-0.15, 4.1)
    axis.set_axis_off()
    if step:
        brought = "one row of the embedding" if counts[step - 1] == 1 else f"{counts[step - 1]} rows of W Zv"
        headline(
            axis, f"Id {step} of {len(pieces)}, {short(pieces[step - 1], 12)}: {brought}, {sum(counts[:step])} so far"
        )
    else:
        headline(axis, f"{len(pieces)} ids, no row yet")
    return figure

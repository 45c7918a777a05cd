"""What people look at: one style for every figure, colour-blind safe, the paper's figure as a grey mark beside ours.

python -c "from minillava.figures import gallery; gallery().savefig('gallery.png')"
"""

import json
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from minillava.scenes.captions import captions
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PINK, GREY, INK = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#9A9A9A", "#2B2B33"
STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,     "figure.facecolor": "white", "savefig.dpi": 130, "axes.axisbelow": True,
}  # fmt: skip


def canvas(width: float, height: float, columns: int = 1, rows: int = 1, height_ratios: list[float] | None = None):
    """(figure, axes) in the project's style; sizes in inches. Not registered with pyplot, so nothing is shown twice."""
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, height_ratios=height_ratios)


def headline(axis, text: str) -> None:
    """A title that says the conclusion."""
    axis.set_title(text, loc="left", fontweight="bold", fontsize=11)


def plain_log(axis) -> None:
    """A logarithmic height with ticks as one reads them: 1, 1.5, 2, 3."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def gallery(columns: int = 8) -> Figure:
    """The picture book: three rows as in training, one in the style kept for the benchmark in the wild."""
    figure, axes = canvas(columns * 1.5, 4 * 1.5 + 0.6, columns, 4)
    shown = [*scenes("train", 3 * columns), *scenes("wild", columns)]
    for axis, scene in zip(axes.flat, shown):
        axis.imshow(draw(scene, 192))
        axis.set_axis_off()
    figure.suptitle(
        "The picture book: scenes drawn by code; the last row is kept for the benchmark in the wild", fontsize=11
    )
    return figure


def scene_card(scene, size: int = 320) -> Figure:
    """One scene with its five captions and its boxes."""
    figure, (left, right) = canvas(9, 3.4, 2)
    left.imshow(draw(scene, size), extent=(0, 1, 1, 0))
    for thing in scene.things:
        x1, y1, x2, y2 = (v / 1000 for v in thing.box)
        left.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=INK, lw=1)
        left.text(x1, y1 - 0.01, thing.kind, fontsize=8, color="white", backgroundcolor=INK)
    left.set_axis_off()
    right.set_axis_off()
    for n, text in enumerate(captions(scene)):
        right.text(0, 0.9 - 0.2 * n, text, wrap=True, fontsize=9)
    return figure


def table_bars(table: dict, title: str) -> Figure:
    """A table of the report: our `All` column as bars with intervals, the paper's as grey marks."""
    rows = table["rows"][::-1]
    figure, axis = canvas(8, 0.5 * len(rows) + 1.3)
    for y, row in enumerate(rows):
        cell = row["All"]
        low, high = cell["interval"]
        axis.barh(y, cell["ours"], color=BLUE if cell["paper"] is not None else ORANGE, height=0.6)
        axis.plot([low, high], [y, y], color=INK, lw=1.5)
        axis.text(max(cell["ours"], high) + 1, y, f"{cell['ours']:.1f}", va="center")
        if cell["paper"] is not None:
            axis.plot([cell["paper"]] * 2, [y - 0.36, y + 0.36], color=GREY, lw=4)
    axis.set_yticks(range(len(rows)), [row["row"] for row in rows])
    axis.set_xlim(0, 105)
    axis.set_xlabel(
        "relative score, % of the text-only teacher's\nline: 95 % interval · grey mark: the paper · orange: our controls"
    )
    headline(axis, title)
    return figure


def paper_bars(table, column: str, title: str, marked: tuple[str, ...] = ()) -> Figure:
    """One column of a table of the paper as bars, the highest on top; marked rows in colour, spreads where printed."""
    cells = [(row, table.value(row, column)) for row in table.rows]
    cells = [(row, *(v if isinstance(v, tuple) else (v, 0.0))) for row, v in cells]
    cells.sort(key=lambda cell: cell[1])
    figure, axis = canvas(8, 0.34 * len(cells) + 1.2)
    for y, (row, value, spread) in enumerate(cells):
        axis.barh(y, value, xerr=spread, color=BLUE if row in marked else GREY, height=0.62, ecolor=INK)
        axis.text(value + spread + 0.8, y, f"{value:g}", va="center", fontsize=9)
    axis.set_yticks(range(len(cells)), [row for row, *_ in cells])
    axis.set_xlim(0, 108)
    axis.set_xlabel(f"{table.id}, {column}, %")
    headline(axis, title)
    return figure


def question_bars(report: dict) -> Figure:
    """Exact-match accuracy with the picture, blanked and shuffled."""
    kinds = list(report["vqa"])
    figure, axis = canvas(8, 3.2)
    for k, (key, label, colour) in enumerate(
        (("vqa", "with the picture", BLUE), ("vqa_blank", "blanked", ORANGE), ("vqa_shuffled", "another's", GREY))
    ):
        axis.bar(
            [x + 0.27 * (k - 1) for x in range(len(kinds))],
            [report[key][kind] for kind in kinds],
            0.25,
            color=colour,
            label=label,
        )
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set_ylim(0, 100)
    axis.set_ylabel("% right")
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    gain = report["vqa"]["all"] - report["vqa_shuffled"]["all"]
    headline(axis, f"Looking is worth {gain:+.0f} points over another scene's picture")
    return figure


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


def answered(picture: Image.Image, pairs: list[tuple[str, str]]) -> Figure:
    """A picture with questions and answers beside it."""
    figure, (left, right) = canvas(9, 3.4, 2)
    left.imshow(picture)
    left.set_axis_off()
    right.set_axis_off()
    y = 0.98
    for question, answer in pairs:
        for text, colour in ((question, BLUE), (answer, INK)):
            lines = textwrap.wrap(text, 58) or [""]
            right.text(0, y, "\n".join(lines), fontsize=10, color=colour, va="top")
            y -= 0.068 * len(lines) + 0.02
        y -= 0.03
    return figure


def report_figures(report: dict, folder: Path) -> None:
    """The figures that report.md shows, into `folder`/figures."""
    out = folder / "figures"
    out.mkdir(exist_ok=True)
    for table in report["tables"]:
        best, worst = (
            max(table["rows"], key=lambda r: r["All"]["ours"]),
            min(table["rows"], key=lambda r: r["All"]["ours"]),
        )
        title = f"{best['row']}: {best['All']['ours']:.0f}; {worst['row'][0].lower() + worst['row'][1:]}: {worst['All']['ours']:.0f}"
        table_bars(table, title).savefig(out / f"{table['table'].lower().replace(' ', '-')}.png")
    question_bars(report).savefig(out / "questions.png")
    curves = {}
    for path in sorted(folder.glob(f"seed-{report['seeds'][0]}/*/metrics.jsonl")):
        curves[path.parent.name] = [json.loads(line)["loss"] for line in path.read_text().splitlines()]
    loss_curves(curves, "The loss of every training, seed 0").savefig(out / "loss.png")
    gallery().savefig(out / "gallery.png")

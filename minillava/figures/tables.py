"""Figures of section 5: Tables 3 and 6 as pictures, Tables 4, 5, 7 and 8 as bars, the learning curves, the judge's own quality.

Notable: as in `style.py`, a title says the conclusion, and the paper's figure is a grey mark beside ours.

    python -c "from minillava.figures.tables import *; quality([]).savefig('quality.png')"
"""

import statistics
import textwrap

from matplotlib.figure import Figure
from PIL import Image

from minillava.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, canvas, headline
from minillava.paper import TABLE_8

HATCHES = ("///", "...", "xxx", "---")
COLOURS = (BLUE, ORANGE, GREEN, PINK, GREY, INK)


def table_3(table: dict, picture: Image.Image, title: str = "") -> Figure:
    """A picture, and what each model says to each question (the table of `tables.table_3`)."""
    title = title or "Table 3 in miniature: one odd picture, three models, and the text-only teacher"
    return answered_pictures([(table, picture)], title)


def answered_pictures(tables: list[tuple[dict, Image.Image]], title: str) -> Figure:
    """Pictures, and beside each what was said to each question (`tables.table_3`, `tables.hardest`)."""
    said = [_lines(table) for table, _ in tables]
    heights = [max(18, sum(len(text) for text, *_ in lines)) for lines in said]
    figure, axes = canvas(10.5, 0.17 * sum(heights) + 0.6, 2, len(tables), height_ratios=heights)
    figure.suptitle(title, fontweight="bold", fontsize=11)
    for lines, height, (_, picture), (left, right) in zip(said, heights, tables, [axes] if len(tables) == 1 else axes):
        left.imshow(picture)
        for axis in (left, right):
            axis.set_axis_off()
        y = 0.0
        for text, colour, weight in lines:
            where = {"fontweight": weight, "fontsize": 9, "va": "top", "linespacing": 1.1}
            right.text(0, 1 - y / height, "\n".join(text), color=colour, **where)
            y += len(text)
        right.set_ylim(0, 1)
    return figure


def _lines(table: dict) -> list[tuple[list[str], str, str]]:
    """(wrapped text, colour, weight) of each question and each answer."""
    lines = []
    for n, question in enumerate(table["questions"]):
        lines.append((textwrap.wrap(question, 76), INK, "bold"))
        for row, colour in zip(
            table["answers"], (BLUE, ORANGE, GREEN, GREY) if len(table["answers"]) > 2 else (BLUE, GREY)
        ):
            lines.append((textwrap.wrap(f"{row}: {table['answers'][row][n] or '(nothing)'}", 76), colour, "normal"))
        lines.append(([""], INK, "normal"))
    return lines


def _bars(axis, columns, rows: list[tuple[str, list, list]]) -> None:
    """Grouped bars. rows: (name, ours by column - {"ours", "spread"} or None -, the paper's by column, number or None)."""
    width = 0.8 / max(1, len(rows))
    for k, (name, ours, theirs) in enumerate(rows):
        places = [x - 0.4 + width * (k + 0.5) for x in range(len(columns))]
        there = [(x, c) for x, c in zip(places, ours) if c]
        spread = [c["spread"] or 0 for _, c in there]
        control = all(v is None for v in theirs)  # a row the paper does not have: hatched
        look = (
            {"color": "white", "edgecolor": INK, "hatch": HATCHES[k % len(HATCHES)]}
            if control
            else {"color": COLOURS[k % len(COLOURS)]}
        )
        axis.bar([x for x, _ in there], [c["ours"] for _, c in there], 0.9 * width, yerr=spread, label=name, ecolor=INK,
                 error_kw={"lw": 1}, linewidth=0.6, **look)  # fmt: skip
        for x, value in zip(places, theirs):
            if value is not None:
                axis.plot([x - 0.45 * width, x + 0.45 * width], [value] * 2, color=INK, lw=2.2, alpha=0.55)
    axis.set_xticks(range(len(columns)), columns)


def by_column(rows: list[dict], theirs) -> Figure:
    """Table 4 or 5: our rows as bars by column, spread over seeds as whiskers, the paper's as grey marks."""
    figure, axis = canvas(10, 4.6)
    columns = theirs.columns
    _bars(axis, columns, [(r["row"], [r[c] for c in columns], [r[c]["paper"] for c in columns]) for r in rows])
    axis.set_ylabel("relative score, %")
    axis.set_xlabel("whiskers: standard deviation over seeds · grey marks: the paper")
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    best = max(rows, key=lambda r: r["All"]["ours"])
    headline(
        axis,
        f"{theirs.id}: {best['row'][0].lower() + best['row'][1:]} scores highest over all, {best['All']['ours']:.0f}",
    )
    return figure


def science(report: dict, number: int) -> Figure:
    """Table 7 (the ensembles by column) or 8 (the design choices, and the learning curves)."""
    return _ensembles(report) if number == 7 else _choices(report)


def _ensembles(report: dict) -> Figure:
    rows = [r for r in report["table 7"] if r["ours"] and r["paper"]]
    columns = list(rows[0]["ours"])
    figure, axis = canvas(11, 4.4)
    _bars(axis, columns, [(r["row"], [r["ours"][c] for c in columns], [r["paper"][c] for c in columns]) for r in rows])
    axis.axhline(report["chance"], color=GREY, lw=1, ls=":")
    axis.set_ylim(0, 100)
    axis.set_ylabel("% right")
    axis.set_xlabel("whiskers: standard deviation over seeds · grey marks: the paper · dotted: chance")
    axis.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    of = {r["row"]: r["ours"]["Avg"]["ours"] for r in rows}
    gain = of["LLaVA+GPT-4 (judge)"] - max(of["LLaVA"], of["GPT-4 (text only)"])
    headline(axis, f"Asked again where the two differ, the expert is {gain:+.1f} points over the better of the two")
    return figure


def _choices(report: dict) -> Figure:
    figure, (left, right) = canvas(11, 3.8, 2)
    rows = [r for r in report["table 8"] if r["ours"]][::-1]
    for y, row in enumerate(rows):
        ours = row["ours"]["Avg"]
        left.barh(y, ours["ours"], xerr=ours["spread"] or 0, color=BLUE, height=0.6, ecolor=INK)
        left.text(ours["ours"] + (ours["spread"] or 0) + 1, y, f"{ours['ours']:.1f}", va="center")
        left.plot([row["paper"]["Avg"]] * 2, [y - 0.36, y + 0.36], color=GREY, lw=4)
    left.axvline(report["chance"], color=GREY, lw=1, ls=":")
    left.set_yticks(range(len(rows)), ["Smaller language model (7B)" if r["row"] == "7B" else r["row"] for r in rows])
    left.set_xlim(0, 108)
    left.set_xlabel("% right · grey marks: the paper · dotted: chance")
    worst = min((r for r in rows if r["gap"]), key=lambda r: r["gap"]["ours"], default=None)
    headline(left, f"{worst['row']} costs the most, {worst['gap']['ours']:+.1f}" if worst else "One row only")
    for (row, seeds), colour in zip(report["curves"].items(), (BLUE, ORANGE)):
        for n, values in enumerate(seeds):
            right.plot(
                range(1, len(values) + 1), values, color=colour, lw=1.3, marker="o", ms=3, label=row if n == 0 else None
            )
    right.axhline(report["chance"], color=GREY, lw=1, ls=":")
    right.set_xticks(range(1, 1 + max(len(values) for seeds in report["curves"].values() for values in seeds)))
    right.set_xlabel("epoch")
    right.set_ylabel("% right, validation split")
    right.legend(frameon=False, fontsize=8)
    first, other = (
        statistics.mean(values[(len(values) - 1) // 2] for values in seeds) for seeds in report["curves"].values()
    )
    headline(right, f"Half way: reasons first {first:.0f} %, answer first {other:.0f} %")
    return figure


def designs(report: dict) -> Figure:
    """Table 8's choices on the chat data: each row with its control, and its difference to the best beside the paper's on
    ScienceQA (`designs.designs_report`).
    """
    figure, (left, right) = canvas(11, 3.2, 2)
    rows = report["rows"][::-1]
    names = [r["row"].replace("7B", "Smaller language model (7B)") for r in rows]
    for y, row in enumerate(rows):
        ours = row["ours"]["all"]
        left.barh(y, ours["ours"], xerr=ours["spread"] or 0, color=BLUE, height=0.6, ecolor=INK)
        left.text(ours["ours"] + (ours["spread"] or 0) + 1, y, f"{ours['ours']:.1f}", va="center")
        left.plot([row["shuffled"]["ours"]] * 2, [y - 0.36, y + 0.36], color=ORANGE, lw=3)
        if row["gap"]:
            right.plot(row["gap"]["interval"], [y, y], color=BLUE, lw=2)
            right.plot(row["gap"]["ours"], y, "o", color=BLUE)
            right.plot([TABLE_8.delta(row["row"], "Avg")] * 2, [y - 0.3, y + 0.3], color=GREY, lw=4)
    left.set_yticks(range(len(rows)), names)
    left.set_xlim(0, 108)
    left.set_xlabel("% right · orange: pictures shuffled")
    headline(left, "Table 8's choices, asked of the chat data")
    right.axvline(0, color=INK, lw=1)
    right.set_yticks(range(len(rows)), [""] * len(rows))
    right.set_xlabel("points beside the best, 95 % interval · grey: the paper")
    gaps = [r["gap"]["interval"] for r in rows if r["gap"]]
    headline(right, f"{sum(low <= 0 <= high for low, high in gaps)} of {len(gaps)} choices cannot be told from none")
    return figure


def quality(rows: list) -> Figure:
    """How often a judge puts answers spoilt on purpose below the unspoilt one (rows of `standins.quality.measure`)."""
    from minillava.standins.quality import overall_share

    figure, axis = canvas(7.5, 0.36 * len(rows) + 1.5)
    for y, row in enumerate(rows[::-1]):
        axis.barh(y, row.share, color=BLUE, height=0.6)
        axis.text(101, y, f"{row.share:.1f} of {row.answers}", va="center", fontsize=8)
    axis.axvline(95, color=GREY, lw=2)
    axis.set_yticks(range(len(rows)), [r.way for r in rows[::-1]])
    axis.set_xlim(0, 118)
    axis.set_xticks(range(0, 101, 20))
    axis.set_xlabel("% of answers where the unspoilt one scores higher · grey: 95 %")
    headline(axis, f"The judge tells a spoilt answer in {overall_share(rows):.1f} % of cases" if rows else "No answers")
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

"""Tables 4, 5, 7 and 8 as bars or dots beside the paper's, the learning curves, the controls, the judge's own quality.

paper_bars(TABLE_5, "All", "LLaVA leads", ("LLaVA",)).savefig("table-5.png")
"""

import numpy as np
from matplotlib.figure import Figure

from minillava.figures.charts import QUESTIONS, SEEDS, Score, bars, dots, grouped, lines, over_seeds
from minillava.figures.style import canvas, fill
from minillava.paper import TABLE_8
from minillava.standins.quality import overall_share

SMALLER = {"7B": "Smaller language model"}  # what is here in the place of the paper's 7B


def by_column(rows: list[dict], theirs) -> Figure:
    """Table 4 or 5: our rows as bars by column, beside the paper's table `theirs`."""
    scores = {row["row"]: [over_seeds(row[c], row[c]["paper"]) for c in theirs.columns] for row in rows}
    best = max(rows, key=lambda row: row["All"]["ours"])
    name = best["row"][0].lower() + best["row"][1:]
    title = f"{theirs.id}: {name} scores highest over all, {best['All']['ours']:.0f}"
    return grouped(scores, list(theirs.columns), "relative score, %", title, whisker=SEEDS)


def table_bars(table: dict, title: str) -> Figure:
    """A table of the report: our `All` column as bars with intervals over questions, beside the paper's."""
    scores = [Score(c["ours"], tuple(c["interval"]), c["paper"]) for c in (row["All"] for row in table["rows"])]
    across = "relative score, % of the text-only teacher's"
    return bars([row["row"] for row in table["rows"]], scores, across, title, whisker=QUESTIONS)


def question_bars(report: dict) -> Figure:
    """Exact-match accuracy by kind of question: with the picture before and after the question, and of its controls."""
    kinds, spread = list(report["vqa"]), report["vqa_spread"]
    rows = {"its picture": [over_seeds({"ours": report["vqa"][kind], "spread": spread[kind]}) for kind in kinds]}
    others = {
        "after the question": "vqa_after",
        "blank": "vqa_blank",
        "shuffled": "vqa_shuffled",
        "text only": "vqa_text",
    }
    rows |= {name: list(report[key].values()) for name, key in others.items()}
    gain = report["vqa"]["all"] - report["vqa_shuffled"]["all"]
    title = f"Its own picture is worth {gain:+.0f} points over another scene's"
    return grouped(rows, kinds, "% right", title, whisker=SEEDS)


def table_7(report: dict) -> Figure:
    """Table 7: LLaVA, the expert, and the two together, by column."""
    rows = [row for row in report["table 7"] if row["ours"] and row["paper"]]
    columns = list(rows[0]["ours"])
    scores = {row["row"]: [over_seeds(row["ours"][c], row["paper"][c]) for c in columns] for row in rows}
    of = {row["row"]: row["ours"]["Avg"]["ours"] for row in rows}
    gain = of["LLaVA+GPT-4 (judge)"] - max(of["LLaVA"], of["GPT-4 (text only)"])
    title = f"The expert, asked again where the two differ: {gain:+.1f} points against the better of the two"
    return grouped(scores, columns, "% right", title, [report["chance"]] * len(columns), SEEDS)


def table_8(report: dict) -> Figure:
    """Table 8: the design choices, and how the two orders of reasons and answer learn."""
    figure, (left, right) = canvas(11.5, 3.8, 2)
    rows = {SMALLER.get(row["row"], row["row"]): row for row in report["table 8"]}
    scores = [over_seeds(row["ours"]["Avg"], row["paper"]["Avg"]) for row in rows.values()]
    gaps = {name: row["gap"]["ours"] for name, row in rows.items() if row["gap"]}
    worst = min(gaps, key=gaps.get)
    title = f"{worst} costs the most: {gaps[worst]:+.1f} points"
    bars(list(rows), scores, "% right", title, (), SEEDS, (report["chance"], "chance"), axis=left)
    curves = {name: np.array(seeds) for name, seeds in report["curves"].items()}  # (seeds, epochs) each
    means = {name: found.mean(0) for name, found in curves.items()}
    bands = {name: (found.min(0), found.max(0)) for name, found in curves.items()}
    first, other = (values[(len(values) - 1) // 2] for values in means.values())
    title = f"Half way: reasons first {first:.0f} %, answer first {other:.0f} %"
    x = range(1, 1 + max(map(len, means.values())))
    across, up = "epoch  (lines: mean of the seeds; bands: all seeds)", "% right, validation split"
    lines(x, means, across, up, title, bands, axis=right)
    return figure


def designs(report: dict) -> Figure:
    """Table 8's choices on the chat data: each row with its control, and its difference beside the paper's."""
    figure, (left, right) = canvas(13, 3.6, 2, width_ratios=(5, 4))
    rows = {SMALLER.get(row["row"], row["row"]): row for row in report["rows"]}
    scores = {"its picture": [over_seeds(row["ours"]["all"]) for row in rows.values()],
              "after the question": [over_seeds(row["after"]) for row in rows.values()],
              "shuffled": [over_seeds(row["shuffled"]) for row in rows.values()]}  # fmt: skip
    least = min(min(both) - control for *both, control in zip(*([s.ours for s in of] for of in scores.values())))
    title = f"Every row looks: at least {least:+.0f} points over shuffled pictures"
    grouped(scores, list(rows), "% right", title, whisker=SEEDS, axis=left)
    gaps = {name: row["gap"] | {"paper": TABLE_8.delta(row["row"], "Avg")} for name, row in rows.items() if row["gap"]}
    gaps |= {row["row"]: row["gap"] | {"paper": None} for row in report["stage 1"] if row["gap"]}
    points = [Score(gap["ours"], gap["interval"], gap["paper"]) for gap in gaps.values()]
    title = f"{sum(not low <= 0 <= high for _, (low, high), _ in points)} of {len(points)} choices make a difference"
    bars(list(gaps), points, "points beside the paper's choice", title, whisker=QUESTIONS, axis=right)
    return figure


def paper_bars(table, column: str, title: str, marked: tuple[str, ...] = ()) -> Figure:
    """One column of a table of the paper as bars, the highest on top, all in grey but the marked ones."""
    cells = {row: table.value(row, column) for row in table.rows}
    pairs = {row: cell if isinstance(cell, tuple) else (cell, None) for row, cell in cells.items()}
    scores = {row: over_seeds({"ours": value, "spread": spread}) for row, (value, spread) in pairs.items()}
    names = sorted(scores, key=lambda row: -scores[row].ours)
    shades = [fill(name if name in marked else "paper") for name in names]
    across = f"{table.id}, {column}, %"
    return bars(names, [scores[name] for name in names], across, title, whisker="standard deviation", shades=shades)


def paper_dots(table, column: str, title: str, questions: int, marked: tuple[str, ...] = ()) -> Figure:
    """One column of accuracies of the paper as dots, the highest on top, on a scale where a point can be seen.

    The interval is 1.96 standard errors of a share of so many `questions`; the paper itself prints none.
    """
    names = sorted(table.rows, key=lambda row: -table.value(row, column))
    values = [table.value(name, column) for name in names]
    reach = [1.96 * (value * (100 - value) / questions) ** 0.5 for value in values]
    scores = [Score(value, (value - r, value + r)) for value, r in zip(values, reach)]
    return dots(names, scores, f"{table.id}, {column}, % right of {questions:,} questions", title, marked)


def quality(rows: list) -> Figure:
    """How often a judge puts answers spoilt on purpose below the unspoilt one (rows of `standins.quality.measure`)."""
    names = [f"{row.way}, {row.answers} answers" for row in rows]
    across = "% of answers where the unspoilt one scores higher"
    title = f"The judge tells a spoilt answer in {overall_share(rows):.1f} % of cases" if rows else "No answers"
    return bars(names, [row.share for row in rows], across, title, level=(95.0, "95 %"))

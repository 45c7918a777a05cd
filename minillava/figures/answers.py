"""What was said of a picture, beside it: answers, a review taken apart, the ablation by what a model was tuned on.

Notable: each figure draws what it is given, and judges nothing itself. Whoever is named has its colour of `style.WORN`.

    from minillava.figures.answers import claims_card, Said
    claims_card(picture, question, {"the candidate": Said(answer, marks, {"a car": True})})
"""

import textwrap
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from minillava.figures.charts import Score, bars
from minillava.figures.panels import Line, beside, verdict
from minillava.figures.style import fills
from minillava.standins.judge import Marks

MARKS = ("helpfulness", "relevance", "accuracy", "detail")
LONGEST = 300  # letters of an answer that stands beside others


class Said(NamedTuple):
    """An answer, the judge's marks for it, and its claims in words -> whether each is true of the picture."""

    text: str
    marks: Marks
    claims: dict[str, bool]


def answered(picture: Image.Image, pairs: list[tuple[str, str]], title: str = "") -> Figure:
    """A picture with questions and answers beside it."""
    return beside([(picture, {"": [[Line(question, bold=True), Line(answer)] for question, answer in pairs]})], title)


def answered_pictures(tables: list[tuple[dict, Image.Image]], title: str) -> Figure:
    """Pictures, and beside each what was said to each question. A table: {"questions": [...], "answers": {who: [...]}}."""
    rows = []
    for table, picture in tables:
        keys = fills(table["answers"])
        cells = [
            [Line(question, bold=True)]
            + [Line(f"{who}: {said[n] or '(nothing)'}", key=key) for (who, said), key in zip(table["answers"].items(), keys)]
            for n, question in enumerate(table["questions"])
        ]  # fmt: skip
        rows.append((picture, {"": cells}))
    return beside(rows, title, text=6.4)


def before_after(
    picture: Image.Image,
    questions: list[str],
    said: dict[str, list[str]],
    right: dict[str, list[bool | None]],
    title: str = "",
) -> Figure:
    """A picture, and beside it a column of answers for each model. said: model -> an answer to each question.

    right: model -> whether each answer is; None where nobody says so. Raises ValueError where the lengths differ.
    """
    columns = {
        model: [[Line(q, bold=True), verdict(a, good)] for q, a, good in zip(questions, texts, right[model], strict=True)]
        for model, texts in said.items()
    }  # fmt: skip
    return beside([(picture, columns)], title, text=3.0)


def claims_card(picture: Image.Image, question: str, said: dict[str, Said]) -> Figure:
    """A picture and a question; in a column for each answer its words, its claims ticked or crossed, and its four marks."""
    columns = {
        f"{who}: {one.marks.score:g} of 10": [
            [Line(one.text or "(nothing)")],
            [verdict(claim, true) for claim, true in one.claims.items()],
            [
                Line(", ".join(f"{mark} {getattr(one.marks, mark):g}" for mark in some))
                for some in (MARKS[:2], MARKS[2:])
            ],
        ]
        for who, one in said.items()
    }
    return beside([(picture, columns)], question, text=3.6)


def tuned_on(
    picture: Image.Image, question: str, answers: dict[str, tuple[str, float]], scores: dict[str, tuple], chosen: str
) -> Figure:
    """What one choice of training data does: what is said about a picture, and every choice's score beside the paper's.

    answers: name -> (text, points of ten). scores: training data -> (ours, the paper's or None), per cent. chosen: one of
    these, in bold. Raises KeyError for another.
    """
    ours, _ = scores[chosen]
    cells = [[Line(question, bold=True)]]
    for (who, (text, points)), key in zip(answers.items(), fills(answers)):
        told = textwrap.shorten(f"{who} ({points:g}): {text or '(nothing)'}", LONGEST, placeholder=" …")
        cells.append([Line(told, key=key)])
    figure = beside([(picture, {"": cells})], text=4.0, more=5.2)
    axis, points = figure.axes[2], [Score(value, None, theirs) for value, theirs in scores.values()]
    bars(list(scores), points, "relative score, %", f"{chosen}: {ours:.0f}", axis=axis)
    axis.get_yticklabels()[list(scores).index(chosen)].set_fontweight("bold")
    return figure

"""What was said of a picture, beside it: answers, a review taken apart, the ablation by what a model was tuned on.

claims_card(picture, question, {"the candidate": Said(answer, marks, {"a car": True})})
"""

import textwrap
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from minillava.figures.charts import Score, bars
from minillava.figures.panels import Line, beside, ticked
from minillava.figures.style import fills
from minillava.standins.judge import Marks

LONGEST = 300  # letters of an answer that is one of several


class Said(NamedTuple):
    """An answer, the judge's marks for it, and its claims in words -> whether each is true of the picture."""

    text: str
    marks: Marks
    claims: dict[str, bool]


def answered(picture: Image.Image, pairs: list[tuple[str, str]]) -> Figure:
    """A picture with questions and answers beside it."""
    return beside([(picture, {"": [[Line(question, bold=True), Line(answer)] for question, answer in pairs]})])


def answered_pictures(tables: list[tuple[dict, Image.Image]], title: str) -> Figure:
    """Tables 3 and 6: pictures, and beside each what everyone said to each question.

    tables: ({"questions": [...], "answers": {who: [...]}}, picture) for each.
    """
    rows = []
    for table, picture in tables:
        cells = [[Line(question, bold=True)] for question in table["questions"]]
        for (who, said), key in zip(table["answers"].items(), fills(table["answers"])):
            for cell, text in zip(cells, said, strict=True):
                cell.append(Line(f"{who}: {text or '(nothing)'}", key=key))
        rows.append((picture, {"": cells}))
    return beside(rows, title, text=6.4)


def before_after(picture: Image.Image, questions: list[str], said: dict[str, list[str]],
                 right: dict[str, list[bool | None]]) -> Figure:  # fmt: skip
    """A picture, and beside it a column of answers for each model. said: model -> an answer to each question.

    right: model -> whether each answer is right; None where nobody says. Raises ValueError where the lengths differ.
    """
    columns = {}
    for model, texts in said.items():
        answers = zip(questions, texts, right[model], strict=True)
        columns[model] = [[Line(question, bold=True), ticked(text, good)] for question, text, good in answers]
    return beside([(picture, columns)], text=3.0)


def claims_card(picture: Image.Image, question: str, said: dict[str, Said]) -> Figure:
    """A picture and a question; for each answer a column with its words, its claims ticked or crossed, its marks."""
    columns = {}
    for who, (text, marks, claims) in said.items():
        given = [f"helpfulness {marks.helpfulness:g}, relevance {marks.relevance:g}"]
        given += [f"accuracy {marks.accuracy:g}, detail {marks.detail:g}"]
        judged = [ticked(claim, true) for claim, true in claims.items()]
        columns[f"{who}: {marks.score:g} of 10"] = [[ticked(text, None)], judged, [Line(line) for line in given]]
    return beside([(picture, columns)], question, text=3.6)


def tuned_on(picture: Image.Image, question: str, answers: dict[str, tuple[str, float]], scores: dict[str, tuple],
             chosen: str) -> Figure:  # fmt: skip
    """What one choice of training data does: what is said of a picture, and every choice's score beside the paper's.

    answers: name -> (text, points of ten). scores: training data -> (ours, the paper's or None), per cent. chosen: the
    one in bold. Raises KeyError where scores have no such name.
    """
    title, cells = f"{chosen}: {scores[chosen][0]:.0f}", [[Line(question, bold=True)]]
    for (who, (text, points)), key in zip(answers.items(), fills(answers)):
        told = textwrap.shorten(f"{who} ({points:g}): {text or '(nothing)'}", LONGEST, placeholder=" …")
        cells.append([Line(told, key=key)])
    figure = beside([(picture, {"": cells})], text=4.0, more=5.2)
    values, axis = [Score(ours, None, theirs) for ours, theirs in scores.values()], figure.axes[2]
    bars(list(scores), values, "relative score, %", title, axis=axis)
    axis.get_yticklabels()[list(scores).index(chosen)].set_fontweight("bold")
    return figure

"""Figures of a judge at work: one review taken apart, the ablation by what a model was tuned on, what moves a score.

Notable: as in `style.py`, a title says the conclusion; each figure draws what it is given, and judges nothing itself.

    from minillava.figures.answers import claims_card, Said
    claims_card(picture, question, {"the candidate": Said(answer, marks, {"a car": True})})
"""

import textwrap
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from minillava.figures.style import BLUE, GREEN, GREY, INK, canvas, headline
from minillava.figures.training import WRONG
from minillava.standins.judge import Marks

MARKS = ("helpfulness", "relevance", "accuracy", "detail")
LETTERS = 44  # of a line of an answer
LONGEST = 300  # letters of an answer that stands beside others


class Said(NamedTuple):
    """An answer, the judge's marks for it, and its claims in words -> whether each is true of the picture."""

    text: str
    marks: Marks
    claims: dict[str, bool]


def claims_card(picture: Image.Image, question: str, said: dict[str, Said]) -> Figure:
    """A picture and a question; in a column for each answer its words, its claims ticked or crossed, and its four marks."""
    texts = {name: textwrap.wrap(one.text, LETTERS) or ["(nothing)"] for name, one in said.items()}
    rows = max(len(texts[name]) + len(one.claims) for name, one in said.items()) + 4.5
    figure, axes = canvas(3.1 + 3.4 * len(said), max(3.0, 0.185 * rows + 0.6), 1 + len(said))
    axes[0].imshow(picture)
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, one) in zip(axes[1:], said.items(), strict=True):
        headline(axis, f"{name}: {one.marks.score:g} of 10")
        lines = [(line, INK) for line in texts[name]] + [("", INK)]
        lines += [("✓ " + c if true else "✗ " + c, GREEN if true else WRONG) for c, true in one.claims.items()]
        lines += [("", INK), (", ".join(f"{m} {getattr(one.marks, m):g}" for m in MARKS[:2]), GREY)]
        lines += [(", ".join(f"{m} {getattr(one.marks, m):g}" for m in MARKS[2:]), GREY)]
        for n, (line, colour) in enumerate(lines):
            axis.text(0, 1 - n / rows, line, fontsize=9, color=colour, va="top")
    figure.suptitle(question, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def tuned_on(
    picture: Image.Image, question: str, answers: dict[str, tuple[str, float]], scores: dict[str, tuple], chosen: str
) -> Figure:
    """What one choice of training data does: what is said about a picture, and every choice's score beside the paper's.

    answers: name -> (text, points of ten). scores: training data -> (ours, the paper's or None), per cent. chosen: one of
    these, in colour. Raises KeyError for another.
    """
    ours, _ = scores[chosen]
    texts = [(textwrap.wrap(question, LETTERS), GREY)]
    for n, (name, (text, points)) in enumerate(answers.items()):
        said = textwrap.shorten(f"{name} ({points:g}): {text or '(nothing)'}", LONGEST, placeholder=" …")
        texts.append((textwrap.wrap(said, LETTERS), BLUE if n == 0 else INK))
    rows = sum(len(lines) + 0.7 for lines, _ in texts)
    figure, (left, middle, right) = canvas(12, max(3.5, 0.165 * rows + 0.4), 3)
    left.imshow(picture)
    y = 0.0
    for lines, colour in texts:
        middle.text(0, 1 - y / max(rows, 19), "\n".join(lines), fontsize=9, color=colour, va="top", linespacing=1.15)
        y += len(lines) + 0.7
    for axis in (left, middle):
        axis.set_axis_off()
    for y, (name, (value, theirs)) in enumerate(reversed(scores.items())):
        right.barh(y, value, color=BLUE if name == chosen else GREY, height=0.6, alpha=1 if name == chosen else 0.6)
        right.text(value + 1, y, f"{value:.0f}", va="center", fontsize=9)
        if theirs is not None:
            right.plot([theirs] * 2, [y - 0.36, y + 0.36], color=INK, lw=2.2, alpha=0.55)
    right.set_yticks(range(len(scores)), ["\n".join(textwrap.wrap(name, 22)) for name in reversed(scores)], fontsize=8)
    right.set_xlim(0, 105)
    right.set_xlabel("relative score, % · dark marks: the paper")
    headline(right, f"{chosen}: {ours:.0f}")
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

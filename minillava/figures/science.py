"""Section 5.2 as pictures: questions with their parts, what a model is to write, what its letters owe to the picture, and where
two who answer the same questions meet.

Notable: each figure draws what it is given; who was right is said by whoever calls. Colour never stands alone: loss is
underlined, the right choice has a tick.

    python -c "from minillava.figures.science import *; from minillava.standins.quiz import problem; from minillava.scenes.draw import draw; \
               p, s = problem('train', 0); question_cards([p], [draw(s, 256)]).savefig('card.png')"
"""

import textwrap

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from minillava.data.scienceqa import LETTERS, Problem, answer_text, question_text
from minillava.figures.model import PALE
from minillava.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, canvas, headline
from minillava.figures.training import WRONG

PARTS = {"question": PALE, "context": "#CFE3F1", "options": "#F6DFAE", "lecture": PINK, "explanation": GREEN, "answer": BLUE}  # fmt: skip
DARK = ("explanation", "answer")  # parts whose words stand in white


def _lines(axis, lines: list[tuple[str, str, str]], width: int, size: float = 8.5) -> None:
    """Text from the top of an axis: (text, colour, weight) a line, wrapped to `width` letters; an empty text is a gap."""
    y, step = 0.98, 0.082
    for text, colour, weight in lines:
        wrapped = textwrap.wrap(text, width) or [""]
        axis.text(0, y, "\n".join(wrapped), va="top", fontsize=size, color=colour, fontweight=weight, linespacing=1.15)
        y -= step * (len(wrapped) if text else 0.5)


def question_cards(problems: list[Problem], pictures: list[Image.Image | None]) -> Figure:
    """Problems side by side: the picture, question, context, options (the right one ticked), lecture and solution."""
    figure, axes = canvas(3.2 * len(problems), 4.3, len(problems), 2, height_ratios=[1, 1])
    columns = zip(axes[0], axes[1]) if len(problems) > 1 else [axes]
    for (top, below), problem, picture in zip(columns, problems, pictures, strict=True):
        for axis in (top, below):
            axis.set_axis_off()
        if picture is None:
            top.text(0.5, 0.5, "(no picture)", ha="center", va="center", color=GREY)
        else:
            top.imshow(picture)
        top.set_title(
            f"{problem.subject}, {problem.grade.replace('grade', 'grade ')}", loc="left", fontsize=9, color=GREY
        )
        lines = [(problem.question, INK, "bold"), (f"Context: {problem.hint or 'N/A'}", BLUE, "normal")]
        for n, choice in enumerate(problem.choices):
            right = n == problem.answer
            lines.append((f"({LETTERS[n]}) {choice}" + " ✓" * right, GREEN if right else INK, "normal"))
        lines += [("", INK, "normal"), (f"Lecture: {problem.lecture or 'none'}", GREY, "normal")]
        lines.append((f"Solution: {problem.solution or 'none'}", GREY, "normal"))
        _lines(below, lines, 43, 8)
    return figure


def part_of(problem: Problem, text: str, asked: bool) -> list[str]:
    """To which of PARTS each letter of a question's (asked) or an answer's text belongs."""
    marks = ["question" if asked else "answer"] * len(text)
    for name, start, end in (
        (("context", "\nContext: ", "\nOptions: "), ("options", "\nOptions: ", "")) if asked else ()
    ):
        first, last = text.index(start) + 1, text.index(end) + 1 if end else len(text)
        marks[first:last] = [name] * (last - first)
    for name, words in (("lecture", problem.lecture), ("explanation", problem.solution)) if not asked else ():
        first = text.find(words) if words else -1
        if first >= 0:
            head = f"{'LECTURE' if name == 'lecture' else 'SOLUTION'}: "
            begin = first - len(head) if text[:first].endswith(head) else first
            end = first + len(words) + (text[first + len(words) :][:1] == "\n")
            marks[begin:end] = [name] * (end - begin)
    return marks


def formats(problem: Problem, tokenizer, names: tuple[str, ...], width: int = 104) -> Figure:
    """What the model reads and is to write, format by format, as tokens; each in the colour of its part, loss underlined.

    tokenizer: one that says where in a text its tokens stand (a fast one). width: letters a line.
    """
    boxes, heads, y = [], [], 0.0
    asked = question_text(problem)

    def put(text, part, loss):
        nonlocal y
        x = 0.0
        found = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        for start, end in found["offset_mapping"]:
            shown = text[start:end].replace("\n", "↵").replace(" ", "·")
            if x and x + len(shown) + 1 > width:
                x, y = 0.0, y + 1
            boxes.append((x, y, len(shown) + 0.7, shown, part[end - 1], loss))
            x += len(shown) + 1.0
            if "↵" in shown:
                x, y = 0.0, y + 1
        y += 1 if x else 0

    heads.append((y, "what it reads, in all formats"))
    y += 1
    put(asked, part_of(problem, asked, True), False)
    for name in names:
        text = answer_text(problem, name)
        y += 0.5
        heads.append((y, f"{name}: what it is to write"))
        y += 1
        put(text, part_of(problem, text, False), True)
    figure, axis = canvas(9.8, 0.24 * y + 0.7)
    for x, row, wide, shown, part, loss in boxes:
        axis.add_patch(Rectangle((x, -row - 0.4), wide, 0.8, fc=PARTS[part], ec="white", lw=0.5))
        ink = "white" if part in DARK else INK
        axis.text(x + wide / 2, -row, shown, ha="center", va="center", fontsize=7, family="monospace", color=ink)
        if loss:
            axis.plot([x, x + wide], [-row - 0.43] * 2, color=INK, lw=1.3)
    for row, text in heads:
        axis.text(0, -row, text, va="center", fontsize=9, fontweight="bold")
    for n, (part, colour) in enumerate(PARTS.items()):
        axis.add_patch(Rectangle((n * 16, -y - 0.9), 2, 0.8, fc=colour, ec="none"))
        axis.text(n * 16 + 2.6, -y - 0.5, part, va="center", fontsize=8.5)
    axis.set_xlim(0, width + 2)
    axis.set_ylim(-y - 1.2, 0.7)
    axis.set_axis_off()
    return figure


def grouped(
    rows: dict[str, list[float]], groups: list[str], up: str, title: str, chance: list[float | None] = ()
) -> Figure:
    """Bars in groups. rows: name -> a value a group; the first in blue. chance: a dotted mark across each group that has one."""
    figure, axis = canvas(max(6.5, 1.25 * len(groups) + 1.5), 3.1)
    width = 0.8 / len(rows)
    for k, ((name, values), colour) in enumerate(zip(rows.items(), (BLUE, ORANGE, GREY, GREEN))):
        places = [x - 0.4 + width * (k + 0.5) for x in range(len(groups))]
        axis.bar(places, values, 0.92 * width, color=colour, label=name)
    for n, (x, level) in enumerate((x, level) for x, level in enumerate(chance) if level is not None):
        axis.plot([x - 0.43, x + 0.43], [level] * 2, color=INK, lw=1.2, ls=":", label=None if n else "chance")
    axis.set_xticks(range(len(groups)), [textwrap.fill(name, 16) for name in groups], fontsize=8.5)
    axis.set_ylim(0, 104)
    axis.set_ylabel(up)
    figure.legend(frameon=False, fontsize=8, ncols=len(rows) + 1, loc="outside lower center")
    headline(axis, title)
    return figure


MEETINGS = {  # where two meet -> colour, hatch
    "both right": (GREEN, ""), "only LLaVA right": (BLUE, ""), "only the expert right": (ORANGE, ""), "neither": (PALE, "///"),
}  # fmt: skip


def meetings(
    problems: dict[str, Problem], ours: dict[str, int], theirs: dict[str, int], groups: dict[str, list[str]]
) -> dict[str, dict[str, int]]:
    """Where LLaVA and the expert meet: group -> {of MEETINGS: how many}. ours, theirs: index by problem id, where readable.

    groups: name -> ids of its problems.
    """
    out = {}
    for group, names in groups.items():
        counts = dict.fromkeys(MEETINGS, 0)
        for name in names:
            one, two = (found.get(name) == problems[name].answer for found in (ours, theirs))
            counts[{(1, 1): "both right", (1, 0): "only LLaVA right", (0, 1): "only the expert right"}.get((one, two), "neither")] += 1  # fmt: skip
        out[group] = counts
    return out


def meeting_bars(counts: dict[str, dict[str, int]], title: str) -> Figure:
    """The counts of `meetings`, a bar a group."""
    figure, axis = canvas(9, 0.55 * len(counts) + 1.3)
    for y, (_, found) in enumerate(reversed(counts.items())):
        left = 0
        for what, (colour, hatch) in MEETINGS.items():
            axis.barh(y, found[what], left=left, color=colour, hatch=hatch, edgecolor=GREY if hatch else "white", height=0.66, label=what if y == 0 else None)  # fmt: skip
            if found[what]:
                axis.text(left + found[what] / 2, y, found[what], ha="center", va="center", fontsize=9, color=INK if colour in (PALE, ORANGE) else "white")  # fmt: skip
            left += found[what]
    axis.set_yticks(range(len(counts)), list(counts)[::-1])
    axis.set_xlabel("questions")
    figure.legend(frameon=False, fontsize=8, ncols=len(MEETINGS), loc="outside lower center")
    headline(axis, title)
    return figure


def solved(problem: Problem, picture: Image.Image | None, said: dict[str, tuple[str, int | None]]) -> Figure:
    """A question with its picture, and below it what each answers: (words, index or None), ticked where it is right."""
    figure, (left, right) = canvas(8.6, 3.0, 2)
    for axis in (left, right):
        axis.set_axis_off()
    if picture is None:
        left.text(0.5, 0.5, "(no picture)", ha="center", va="center", color=GREY)
    else:
        left.imshow(picture)
    options = "  ".join(f"({LETTERS[n]}) {choice}" for n, choice in enumerate(problem.choices))
    lines = [(problem.question, INK, "bold"), (f"Context: {problem.hint or 'N/A'}", GREY, "normal"), (options, INK, "normal"), ("", INK, "normal")]  # fmt: skip
    for who, (words, index) in said.items():
        good = index == problem.answer
        letter = "no letter" if index is None else LETTERS[index]
        text = f"{'✓' if good else '✗'} {who}: {letter}" + (f" ({' '.join(words.split())})" if words else "")
        lines.append((text, GREEN if good else WRONG, "normal"))
    _lines(right, lines, 58, 8.5)
    return figure

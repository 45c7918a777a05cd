"""Section 5.2 as pictures: questions with their parts, what a model is to write, what it answered.

problem, scene = standins.quiz.problem("train", 0)
question_cards([problem], [draw(scene, 256)]).savefig("card.png")
"""

import re

from matplotlib.figure import Figure
from PIL import Image

from minillava.data.scienceqa import LETTERS, Problem, answer_text, question_text
from minillava.figures.panels import Line, Piece, beside, pieces, ticked
from minillava.figures.style import BLUE, GREEN, PALE, PINK, RIGHT

PARTS = {"question": PALE, "context": "#CFE3F1", "options": "#F6DFAE",  # of what is read
         "lecture": PINK, "explanation": GREEN, "answer": BLUE}  # of what is written  # fmt: skip


def question_cards(problems: list[Problem], pictures: list[Image.Image | None]) -> Figure:
    """Problems below one another: picture, question, context, options with the right one ticked, lecture, solution."""
    rows = []
    for problem, picture in zip(problems, pictures, strict=True):
        choices = [Line(f"({LETTERS[n]}) {choice}") for n, choice in enumerate(problem.choices)]
        right = choices[problem.answer]
        choices[problem.answer] = Line(right.text + " ✓", RIGHT)
        cells = [
            [Line(problem.question, bold=True), Line(f"Context: {problem.hint or 'N/A'}"), *choices],
            [Line(f"Lecture: {problem.lecture or 'none'}"), Line(f"Solution: {problem.solution or 'none'}")],
        ]
        rows.append((picture, {f"{problem.subject}, {problem.grade.replace('grade', 'grade ')}": cells}))
    return beside(rows, text=6.2, picture=1.7)


def solved(problem: Problem, picture: Image.Image | None, said: dict[str, tuple[str, int | None]]) -> Figure:
    """A question with its picture, and what each answers, (words, index or None), ticked where it is right."""
    options = "  ".join(f"({LETTERS[n]}) {choice}" for n, choice in enumerate(problem.choices))
    cells = [[Line(problem.question, bold=True), Line(f"Context: {problem.hint or 'N/A'}"), Line(options)]]
    for who, (words, index) in said.items():
        told = f"{who}: {'no letter' if index is None else LETTERS[index]}" + (f" ({words})" if words else "")
        cells.append([ticked(told, index == problem.answer)])
    return beside([(picture, {"": cells})])


def part_of(problem: Problem, text: str, asked: bool) -> list[str]:
    """To which of PARTS each letter of a question's (asked) or an answer's text belongs."""
    marks = ["question" if asked else "answer"] * len(text)
    for name, head in (("context", "\nContext: "), ("options", "\nOptions: ")) if asked else ():
        begin = text.index(head) + 1
        marks[begin:] = [name] * (len(text) - begin)
    told = {"lecture": ("LECTURE: ", problem.lecture), "explanation": ("SOLUTION: ", problem.solution)}
    for name, (head, words) in ({} if asked else told).items():
        if found := words and re.search(f"({head})?{re.escape(words)}\n?", text):
            marks[found.start() : found.end()] = [name] * len(found[0])
    return marks


def formats(problem: Problem, tokenizer, names: tuple[str, ...]) -> Figure:
    """What the model reads and is to write, format by format, as tokens in the colours of PARTS, loss underlined.

    tokenizer: a fast one, which says where in a text its tokens are.
    """

    def boxes(text, asked):
        parts = part_of(problem, text, asked)
        places = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        return [Piece(text[start:end], PARTS[parts[end - 1]], not asked) for start, end in places]

    sections = {"what it reads, in all formats": boxes(question_text(problem), True)}
    sections |= {f"{name}: what it is to write": boxes(answer_text(problem, name), False) for name in names}
    first = {name: part_of(problem, answer_text(problem, name), False)[0] for name in names}
    title = "Underlined: loss. " + ", ".join(f"{name} begins with the {part}" for name, part in first.items())
    return pieces(sections, PARTS, title)

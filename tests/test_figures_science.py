"""The figures of section 5.2 say to which part each letter belongs, and tick what is right."""

import pytest
from PIL import Image

from minillava.data.scienceqa import FORMATS, Problem, answer_text, question_text
from minillava.data.tokenizer import load_tokenizer
from minillava.figures.charts import grouped
from minillava.figures.science import (
    PARTS,
    formats,
    part_of,
    question_cards,
    solved,
)
from minillava.figures.style import RIGHT, WRONG
from minillava.scales import WEIGHTS

FISH = Problem(
    "1", "Which is a fish?", ("trout", "oak"), 0, "Ann has a pond.", "1/image.png", lecture="Fish swim.", solution="A trout is a fish.",
)  # fmt: skip
BARE = Problem("2", "Which is a tree?", ("trout", "oak"), 1)
PICTURE = Image.new("RGB", (8, 8))


def texts(axis):
    return [text.get_text().replace("\n", " ") for text in axis.texts]


def spans(problem, text, asked):
    """{part: its letters} of a text."""
    marks = part_of(problem, text, asked)
    assert len(marks) == len(text) and set(marks) <= set(PARTS)
    return {part: "".join(c for c, m in zip(text, marks) if m == part) for part in dict.fromkeys(marks)}


def test_each_letter_of_a_question_and_of_a_target_has_its_part():
    assert spans(FISH, question_text(FISH), True) == {
        "question": "Which is a fish?\n", "context": "Context: Ann has a pond.\n", "options": "Options: (A) trout (B) oak",
    }  # fmt: skip
    assert spans(FISH, answer_text(FISH, "QCM-LEPA"), False) == {
        "lecture": "LECTURE: Fish swim.\n", "explanation": "SOLUTION: A trout is a fish.\n", "answer": "###\nANSWER: A.",
    }  # fmt: skip
    assert spans(FISH, answer_text(FISH, "QCM-ALE"), False)["answer"] == "The answer is A. BECAUSE:  "
    assert set(spans(BARE, answer_text(BARE, "QCM-LEA"), False)) == {"answer"}


def test_the_tokens_of_a_format_are_its_text_and_only_what_is_written_carries_loss():
    axis = formats(FISH, load_tokenizer(WEIGHTS / "language_model"), FORMATS).axes[0]
    heads = [t for t in texts(axis) if "write" in t or "reads" in t]
    assert heads == ["what it reads, in all formats", *(f"{name}: what it is to write" for name in FORMATS)]
    shown = [t.get_text() for t in axis.texts if t.get_family() == ["monospace"]]
    written = "".join(answer_text(FISH, name) for name in FORMATS)
    assert "".join(shown).replace("·", " ").replace("↵", "\n") == question_text(FISH) + written
    tokens = load_tokenizer(WEIGHTS / "language_model")
    count = sum(len(tokens.encode(answer_text(FISH, name), add_special_tokens=False)) for name in FORMATS)
    assert len(axis.lines) == count  # an underline a token that carries loss


def test_a_card_shows_all_of_a_problem_and_ticks_the_right_choice():
    figure = question_cards([FISH, BARE], [PICTURE, None])
    shown = [texts(axis) for axis in figure.axes]
    assert "(A) trout ✓" in shown[1] and "(B) oak" in shown[1] and "Context: Ann has a pond." in shown[1]
    assert shown[2] == ["(no picture)"] and "Context: N/A" in shown[3] and "Solution: none" in shown[3]
    assert len(question_cards([FISH], [PICTURE]).axes) == 2


def test_grouped_bars_have_the_values_given_and_chance_only_where_there_is_one():
    axis = grouped({"own": [90.0, 40.0], "blank": [50.0, 38.0]}, ["reasons", "letters"], "%", "t", [None, 39.5]).axes[0]
    assert [bar.get_height() for bar in axis.patches] == [90, 40, 50, 38]
    assert [list(line.get_ydata()) for line in axis.lines] == [[39.5, 39.5]] and 0 < axis.lines[0].get_xdata()[0]


@pytest.mark.parametrize("index, start, colour", [(0, "✓ LLaVA: A", RIGHT), (1, "✗ LLaVA: B", WRONG), (None, "✗ LLaVA: no letter", WRONG)])  # fmt: skip
def test_an_answer_is_ticked_where_its_letter_is_right(index, start, colour):
    last = solved(FISH, None, {"LLaVA": ("It\nswims.", index)}).axes[1].texts[-1]
    assert last.get_text().replace("\n", " ") == f"{start} (It swims.)" and last.get_color() == colour

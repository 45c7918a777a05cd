"""The figures of a judge at work show every claim, mark and score they are given, and nothing of their own."""

import pytest
from PIL import Image

from minillava.figures.answers import Said, claims_card, tuned_on
from minillava.figures.style import GREY
from minillava.standins.judge import Marks
from tests.drawn import outside

PICTURE = Image.new("RGB", (8, 8))
GOOD, BAD = Marks(10, 9, 8, 7, "why"), Marks(1, 2, 3, 4.5, "why")


def test_each_answer_has_its_column_with_words_claims_and_marks():
    said = {"Assistant 1": Said("A red car.", GOOD, {"exists car red": True}), "Assistant 2": Said("", BAD, {"place room": False, "exists dog": True})}  # fmt: skip
    figure = claims_card(PICTURE, "What is there?", said)
    one, two = ([t.get_text() for t in axis.texts] for axis in figure.axes[1:])
    assert one == ["A red car.", "✓ exists car red", "helpfulness 10, relevance 9", "accuracy 8, detail 7"]
    assert two == ["(nothing)", "✗ place room", "✓ exists dog", "helpfulness 1, relevance 2", "accuracy 3, detail 4.5"]
    assert [axis.get_title(loc="left") for axis in figure.axes[1:]] == ["Assistant 1: 8.5 of 10", "Assistant 2: 2.6 of 10"]  # fmt: skip
    assert figure.get_suptitle() == "What is there?"


def test_long_answers_stay_inside_the_figure():
    long = Said("word " * 80, GOOD, {f"claim {n}": True for n in range(12)})
    assert outside(claims_card(PICTURE, "?", {"A": long, "B": long})) == []


def test_the_chosen_data_is_in_colour_and_the_papers_figure_beside_ours():
    scores = {"Full data": (55.4, 85.1), "Conversation": (50.0, 73.8), "Full data, pictures blank": (30.0, None)}
    answers = {"Conversation": ("A dog.", 3.5), "the reference": ("A red dog.", 10)}
    left, middle, right = tuned_on(PICTURE, "What?", answers, scores, "Conversation").axes
    assert [bar.get_width() for bar in right.patches] == [55.4, 50, 30]
    assert [line.get_xdata()[0] for line in right.lines if line.get_color() == GREY] == [85.1, 73.8]
    weights = {label.get_text(): label.get_fontweight() for label in right.get_yticklabels()}
    assert {name for name, weight in weights.items() if weight == "bold"} == {"Conversation"}
    assert [t.get_text() for t in middle.texts] == [
        "What?",
        "Conversation (3.5): A dog.",
        "the reference (10): A red dog.",
    ]
    assert right.get_title(loc="left") == "Conversation: 50" and left.images
    with pytest.raises(KeyError):
        tuned_on(PICTURE, "What?", answers, scores, "Nothing")


def test_an_answer_without_end_is_cut_and_leaves_room_for_the_others(tmp_path, recwarn):
    answers = {"Conversation": ("a dog on the left " * 40, 1.0), "the reference": ("A red dog. " * 40, 10)}
    figure = tuned_on(PICTURE, "What?", answers, {"Conversation": (50.0, 73.8)}, "Conversation")
    figure.savefig(tmp_path / "f.png")
    texts = figure.axes[1].texts
    assert texts[1].get_text().endswith("…") and len(texts[1].get_text()) <= 300
    assert outside(figure) == [] and not recwarn.list

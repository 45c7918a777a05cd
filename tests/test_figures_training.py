"""The figures of training draw every answer with its verdict, and bars whose lengths are the bytes given."""

import pytest
from PIL import Image

from minillava.figures.answers import before_after
from minillava.figures.training import MEMORY, both_ways, memory_bars

PICTURE = Image.new("RGB", (8, 8))
LONG = "a long answer that needs several lines because it goes on and on about nothing at all"


def test_each_model_has_a_column_with_every_answer_and_its_mark():
    said = {"before": [LONG, "no"], "after": ["a dog", ""]}
    right = {"before": [False, None], "after": [True, False]}
    figure = before_after(PICTURE, ["What?", "Why?"], said, right)
    columns = [[text.get_text().replace("\n", " ") for text in axis.texts] for axis in figure.axes[1:]]
    assert columns == [["What?", f"✗ {LONG}", "Why?", "no"], ["What?", "✓ a dog", "Why?", "✗ (nothing)"]]
    assert [axis.get_title(loc="left") for axis in figure.axes[1:]] == ["before", "after"]
    heights = [[text.get_position()[1] for text in axis.texts[::2]] for axis in figure.axes[1:]]
    assert heights[0] == heights[1] and heights[0][1] - heights[0][0] > 3  # same rows, room for the longer answer


def test_answers_that_are_not_as_many_as_questions_are_an_error():
    with pytest.raises(ValueError):
        before_after(PICTURE, ["What?", "Why?"], {"before": ["no", "no"]}, {"before": [True]})


def test_a_bar_is_as_long_as_its_bytes():
    one = dict(zip(MEMORY, (4e9, 2e9, 8e9, 1e9, 5e8)))
    two = {part: 10 * value for part, value in one.items()}
    needs = {"one": one, "two": two}
    axis = memory_bars(needs, 80e9, "1 of 2 fit").axes[0]
    widths = [bar.get_width() for bar in axis.patches]
    assert widths == pytest.approx([needs[name][part] / 1e9 for part in MEMORY for name in needs])
    assert axis.patches[9].get_x() + axis.patches[9].get_width() == pytest.approx(155)
    assert [t.get_text() for t in axis.get_yticklabels()] == ["one", "two"]
    assert axis.get_title(loc="left") == "1 of 2 fit" and [t.get_text() for t in axis.texts][-2:] == ["15.5", "155"]


def test_two_ways_of_a_loss_share_a_panel_a_training():
    figure = both_ways({"one": ([3, 2], [3, 2.5]), "two": ([1], [1])}, "the same")
    drawn = [[list(line.get_ydata()) for line in axis.lines] for axis in figure.axes]
    assert drawn == [[[3, 2.5], [3, 2]], [[1], [1]]]
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["one", "two"]

"""The figures of the parts draw every number they are given, under its name."""

import math

import pytest
import torch
from matplotlib.colors import to_rgba
from PIL import Image

from minillava.datagen.statistics import statistics
from minillava.figures.charts import bars, lines, matrix
from minillava.figures.data import statistics_figure
from minillava.figures.model import clocks, splice_step
from minillava.figures.panels import VEIL, checklist, maps, outlined, tiles
from minillava.figures.style import PALE, VERMILION, short

PICTURE = Image.new("RGB", (8, 8), (200, 100, 50))


def shown(figure):
    """The axes that have a picture on them."""
    return [axis for axis in figure.axes if axis.images]


@pytest.mark.filterwarnings("error")
def test_the_statistics_of_no_record_are_drawn_without_a_warning():
    figure = statistics_figure(statistics({"detail": [], "complex": []}))
    figure.canvas.draw()
    assert figure.axes[2].get_title(loc="left") == "No nouns"


def test_the_types_are_told_apart_by_their_questions_where_each_has_as_many_records():
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    one = {"id": "1", "image": "1.png", "conversations": turns}
    figure = statistics_figure(statistics({"detail": [one], "conversation": [one | {"conversations": turns * 4}]}))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1, 4]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "detail, 1 records",
        "conversation, 1 records",
    ]


def test_each_picture_stands_under_its_name_and_the_rest_of_a_row_stays_empty():
    figure = tiles([PICTURE] * 3, ["a", "b", "c"], "three", columns=2)
    assert [axis.get_title() for axis in shown(figure)] == ["a", "b", "c"] and len(figure.axes) == 4
    assert figure.get_suptitle() == "three"


def test_a_map_has_its_own_scale_and_a_flat_one_is_no_error():
    figure = maps(
        [torch.arange(4.0).view(2, 2), torch.arange(0.0, 40.0, 10.0).view(2, 2), torch.ones(2, 2)], list("abc"), "maps"
    )
    first, second, flat = (axis.images[0].get_array() for axis in shown(figure))
    assert (first == second).all() and (flat == first[0, 0]).all()
    assert first[1, 1].sum() > first[0, 1].sum() > first[0, 0].sum()  # dark small, yellow large


def test_over_a_picture_the_largest_patch_is_clear_and_the_smallest_dark():
    axis = shown(maps([torch.tensor([[0.0, 1.0], [2.0, 4.0]])], ["x"], "veil", [PICTURE]))[0]
    seen, clear = axis.images[0].get_array(), [200 / 255, 100 / 255, 50 / 255]
    assert seen[-1, -1].tolist() == pytest.approx(clear)
    assert seen[0, 0].tolist() == pytest.approx([0.15 * value for value in clear], abs=1e-5)


def test_the_fewest_patches_that_hold_half_of_a_map_are_clear_and_have_a_rim():
    for grid, wanted in (([[4.0, 1.0], [2.0, 1.0]], {(0, 0)}), ([[3.0, 1.0], [2.0, 2.0]], {(0, 0), (1, 0)})):
        image = outlined(PICTURE, torch.tensor(grid))
        middle = {
            (y, x): image.getpixel((VEIL // 4 + x * VEIL // 2, VEIL // 4 + y * VEIL // 2))
            for y in (0, 1)
            for x in (0, 1)
        }
        assert {place for place, colour in middle.items() if colour == (200, 100, 50)} == wanted
        assert image.getpixel((0, 0)) == tuple(round(255 * part) for part in to_rgba(VERMILION)[:3])
    assert len({colour for place, colour in middle.items() if place not in wanted}) == 1


def test_a_table_prints_its_numbers_and_leaves_what_is_hidden_white():
    axis = matrix([[1.25, 2.0], [-math.inf, 0.5]], ["r1", "r2"], ["c1", "c2"], "t", digits=1).axes[0]
    assert [text.get_text() for text in axis.texts] == ["1.2", "2.0", "0.5"]
    assert bool(axis.images[0].get_array().mask[1, 0]) and not matrix([[1.0]], ["r"], ["c"], "t").axes[0].texts


def test_lines_and_bars_have_the_values_given():
    figure = lines([1, 2], {"a": [3, 4], "b": [5, 6]}, "step", "%", "up")
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[3, 4], [5, 6]]
    axis = bars(["yes", "no"], [3.0, 1.0], "votes", "yes wins", ("no",)).axes[0]
    assert [bar.get_width() for bar in axis.patches] == [3, 1]
    assert axis.patches[0].get_facecolor() != axis.patches[1].get_facecolor()


def test_a_hand_points_where_its_angle_says():
    axis = clocks(torch.tensor([2 * math.pi, math.pi / 2]), [1], "turned").axes[0]
    hands = [line.get_xydata()[-1].tolist() for line in axis.lines]
    assert hands == [pytest.approx([0.4, 0.0], abs=1e-6), pytest.approx([1.0, -0.4], abs=1e-6)]


def test_a_long_label_is_cut_to_its_room():
    assert short("cup") == "cup" and short("x" * 99, 12) == "x" * 11 + "…"


def test_a_checklist_says_each_verdict_in_words_and_colour():
    rows = {"vision_tower": ["4.1", True], "loss": ["Eq. 3", False], "ids": ["Table 2", ""]}
    axis = checklist(rows, ["of the paper", "verdict"], "one of three", said=("same", "other")).axes[0]
    (table,) = axis.tables
    cells = {place: cell.get_text().get_text() for place, cell in table.get_celld().items()}
    assert [cells[row, 0] for row in (1, 2, 3)] == list(rows) and [cells[0, 2], cells[1, 2], cells[2, 2]] == [
        "verdict",
        "same",
        "other",
    ]
    assert {"4.1", "Eq. 3", "Table 2"} <= set(cells.values()) and cells[3, 2] == ""
    colours = [table[row, 2].get_facecolor() for row in (1, 2, 3)]
    assert len(set(colours)) == 3 and table[3, 1].get_facecolor() == colours[2]
    assert axis.get_title(loc="left") == "one of three"


@pytest.mark.parametrize("step, rows", [(0, 0), (1, 1), (2, 5), (3, 6)])
def test_a_step_of_the_splice_shows_the_rows_that_the_ids_so_far_have_brought(step, rows):
    (axis,) = splice_step(["Human:", "<image>", "odd?"], 4, step).axes
    said, blank = axis.get_title(loc="left"), to_rgba(PALE)
    boxes = [box for box in axis.patches if box.get_facecolor() != blank]
    assert len(boxes) == step + rows and (f"{rows} so far" in said or (step, said) == (0, "3 ids, no row yet"))
    rims = [box for box in axis.patches if box.get_linewidth() > 1]
    assert len(rims) == {0: 0, 1: 2, 2: 5, 3: 2}[step] and ("4 rows of W Zv" in said) == (step == 2)

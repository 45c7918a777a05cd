"""What all figures are made of: one palette, the paper's marks where the paper's values are, and text that can be read."""

import json

import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from minillava.figures.answers import answered_pictures, tuned_on
from minillava.figures.charts import Score, bars, grouped, lines, matrix, stacked
from minillava.figures.panels import MOST, Line, Piece, beside, checklist, maps, pieces, tiles
from minillava.figures.style import GREY, THEIRS, WORN, fill, fills, ink_on
from minillava.figures.tables import (
    by_column,
    designs,
    paper_bars,
    paper_dots,
    question_bars,
    table_7,
    table_8,
    table_bars,
)
from minillava.figures.training import loss_curves, memory_bars
from minillava.paper import TABLE_4, TABLE_5, TABLE_8, TABLES
from minillava.scales import WEIGHTS
from tests.drawn import outside, over_one_another

PICTURE = Image.new("RGB", (40, 40), (200, 100, 50))
RESULTS = WEIGHTS.parent / "results"
REPORT, SCIENCE, DESIGNS = (json.loads((RESULTS / f"{n}.json").read_text()) for n in ("report", "science", "designs"))
FOUR = REPORT["tables"][0]
CONTROLS = ("blank", "shuffled", "text only")


def marks(axis):
    """Where the grey marks of the paper are: (x, y) of their middles."""
    found = [
        line for line in axis.lines if line.get_color() == THEIRS["color"] and line.get_linewidth() == THEIRS["lw"]
    ]
    return [tuple(sum(values) / 2 for values in line.get_data()) for line in found]


def lightness(colour):
    """CIE L*, 0 black to 100 white."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.009 else 903 * y


# the palette


def test_the_rows_of_table_4_can_be_told_apart_also_in_black_and_white():
    levels = sorted(lightness(fill(row)["facecolor"]) for row in TABLE_4.rows)
    assert min(b - a for a, b in zip(levels, levels[1:])) > 10


def test_every_colour_and_hatch_is_worn_for_one_reason():
    names = [name for wearers in WORN.values() for name in wearers]
    assert len(names) == len(set(names)) and len({colour for colour, _ in WORN}) == len(WORN)
    hatched = [hatch for _, hatch in WORN if hatch]
    assert len(hatched) == len(set(hatched)) == len(CONTROLS)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_looks_the_same_whoever_is_controlled(control):
    for name in (f"Full data, pictures {control}", f"LLaVA, {control}", f"GPT-4 ({control})", control.title()):
        assert fill(name) == fill(control) and fill(name)["hatch"]
    assert fill(control)["facecolor"] not in {fill(row)["facecolor"] for row in TABLE_4.rows}


def test_a_row_has_one_colour_in_every_figure():
    grouped_axis = by_column(FOUR["rows"], TABLE_4).axes[0]
    flat_axis = table_bars(FOUR, "t").axes[0]
    scores = {row["row"]: (row["All"]["ours"], row["All"]["paper"]) for row in FOUR["rows"]}
    tuned_axis = tuned_on(PICTURE, "?", {"Full data": ("A dog.", 3.0)}, scores, "Full data").axes[2]
    curves = loss_curves({"full-data": [2, 1], "conv-5-detail-10-complex": [2, 1], "caption-only-tuning": [2, 1]}, "t")
    for n, row in enumerate(FOUR["rows"]):
        own = fill(row["row"])
        bars_of = [grouped_axis.containers[n][0], flat_axis.patches[n], tuned_axis.patches[n]]
        assert [(to_hex(bar.get_facecolor()).upper(), bar.get_hatch() or "") for bar in bars_of] == [(own["facecolor"], own["hatch"])] * 3  # fmt: skip
    named = [fill(row)["facecolor"] for row in ("Full data", "Conv + 5% Detail + 10% Complex", "Caption-only tuning")]
    assert [line.get_color() for line in curves.axes[0].lines] == named


def test_names_without_a_colour_of_their_own_take_none_that_another_has():
    looks = fills(["kind", "Full data", "side", "LLaVA, pictures blank", "colour"])
    colours = [look["facecolor"] for look in looks]
    assert len(set(colours)) == 5 and colours[1] == fill("Full data")["facecolor"]
    assert fill("paper: judged 3 times")["facecolor"] == GREY
    assert fill("Caption-only tuning (in BLIP-2's place)") == fill("Caption-only tuning")
    rows = ("Full data, picture after the question", "Interleaved tuning (in OpenFlamingo's place)", *TABLE_4.rows)
    assert len({fill(row)["facecolor"] for row in rows}) == len(rows)


def test_words_on_a_colour_can_be_read():
    for colour, _ in WORN:
        assert abs(lightness(colour) - lightness(ink_on(colour))) > 38, colour


# numbers


def test_the_papers_mark_is_at_the_papers_value_and_the_whisker_at_its_ends():
    axis = bars(["a", "b"], [Score(50.0, (45.0, 56.0), 61.0), 30.0], "%", "t", whisker="95 % interval").axes[0]
    assert marks(axis) == [(61.0, 0.0)] and [45.0, 56.0] in [list(line.get_xdata()) for line in axis.lines]
    assert [text.get_text() for text in axis.texts] == ["50 (61)", "30"]
    assert "95 % interval" in axis.get_xlabel() and "the paper" in axis.get_xlabel()
    axis = grouped({"a": [Score(50.0, None, 61.0), None], "b": [20.0, 40.0]}, ["x", "y"], "%", "t", [None, 33.0]).axes[
        0
    ]
    ((x, y),) = marks(axis)
    first, other, _ = axis.patches
    assert y == 61.0 and first.get_x() < x < first.get_x() + first.get_width() and other.get_height() == 20
    assert [list(line.get_ydata()) for line in axis.lines if line.get_linestyle() == ":"] == [[33.0, 33.0]]


def test_every_figure_of_the_paper_in_a_report_has_its_mark():
    axis = by_column(FOUR["rows"], TABLE_4).axes[0]
    expected = [row[c]["paper"] for row in FOUR["rows"] for c in TABLE_4.columns if row[c]["paper"] is not None]
    assert [y for _, y in marks(axis)] == expected and len(expected) == 20
    assert [x for x, _ in marks(table_bars(FOUR, "t").axes[0])] == [85.1, 81.9, 80.5, 73.8, 21.5]
    assert [x for x, _ in marks(table_8(SCIENCE).axes[0])] == [90.92, 89.96, 89.77, 85.81, 89.84]
    assert [x for x, _ in marks(designs(DESIGNS).axes[1])] == [-0.96, -5.11, -1.08]
    assert len(marks(table_7(SCIENCE).axes[0])) == 4 * 9 and not marks(question_bars(REPORT).axes[0])


def test_bars_that_go_below_zero_and_a_level_are_inside_the_axis():
    axis = bars(["a", "b"], [Score(-5.0, (-8.0, 2.0)), -1.0], "points", "t", level=(12.0, "chance")).axes[0]
    low, high = axis.get_xlim()
    assert low < -8 and high > 12 and "chance" in axis.get_xlabel()


def test_the_papers_own_bars_are_grey_and_ordered():
    axis = paper_bars(TABLE_5, "All", "t", ("LLaVA",)).axes[0]
    assert [bar.get_width() for bar in axis.patches] == [67.3, 66.7, 38.1, 19.1]
    assert [to_hex(bar.get_facecolor()).upper() == GREY for bar in axis.patches] == [False, True, True, True]


def test_the_papers_accuracies_are_dots_with_intervals_on_a_scale_where_a_point_is_seen():
    axis = paper_dots(TABLE_8, "Avg", "t", 4241, ("Best variant",)).axes[0]
    points = [line for line in axis.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == [90.92, 89.96, 89.84, 89.77, 85.81]
    assert len({line.get_color() for line in points}) == 2 and points[0].get_color() != points[1].get_color()
    low, high = axis.lines[0].get_xdata()
    assert high - low == pytest.approx(2 * 0.865, abs=0.01)  # 1.96 standard errors to each side
    left, right = axis.get_xlim()
    assert 84 < left < 85.81 - 1 and high < right and 1 / (right - left) > 0.1  # a point is a tenth of the width


def test_a_band_is_around_its_own_curve_and_curves_may_end_early():
    figure = lines([0, 1, 2], {"a": [1, 2, 3], "b": [5, 4]}, "step", "%", "t", {"a": ([0, 1, 2], [2, 3, 9])})
    axis = figure.axes[0]
    assert [len(line.get_ydata()) for line in axis.lines] == [3, 2] and len(axis.collections) == 1
    corners = axis.collections[0].get_paths()[0].vertices.tolist()
    assert [2.0, 9.0] in corners and [0.0, 0.0] in corners
    assert len({line.get_marker() for line in axis.lines}) == 2


# pictures and text


def test_cells_of_columns_begin_at_one_height_and_long_ones_push_the_next_down():
    long = Line("a long answer that is wrapped because it does not fit into one line of its column " * 2)
    rows = [(PICTURE, {"one": [[long], [Line("end")]], "two": [[Line("short")], [Line("end")]]})]
    _, one, two = beside(rows, "t", text=3.0).axes
    assert one.texts[1].get_position()[1] == two.texts[1].get_position()[1] > one.texts[0].get_text().count("\n") + 1
    assert beside([(None, {"": [[Line("x")]]})]).axes[0].texts[0].get_text() == "(no picture)"


def test_who_speaks_has_the_colour_of_its_row():
    table = {"questions": ["What?"], "answers": {"Full data": ["A dog."], "No Instruction Tuning": [""]}}
    axis = answered_pictures([(table, PICTURE)], "t").axes[1]
    assert [to_hex(key.get_facecolor()).upper() for key in axis.patches] == [fill(r)["facecolor"] for r in table["answers"]]  # fmt: skip
    assert [t.get_text() for t in axis.texts] == ["What?", "Full data: A dog.", "No Instruction Tuning: (nothing)"]


def test_a_line_of_boxes_ends_at_its_width_and_at_a_line_end_and_what_carries_loss_is_underlined():
    some = [Piece(t, "white") for t in ("aaaa", "b\n", "cccc", "dddd", "eeee")]
    some[1], some[2] = some[1]._replace(loss=True), some[2]._replace(rim=True)
    axis = pieces({"one": some, "two": some[:1]}, {"white": "white"}, "t", width=14).axes[0]
    places = [(text.get_text(), text.get_position()[1]) for text in axis.texts]
    assert places[:6] == [("one", 0), ("aaaa", 1), ("b↵", 1), ("cccc", 2), ("dddd", 2), ("eeee", 3)]
    assert places[6][0] == "two" and places[7][1] > places[6][1] > 3 and len(axis.lines) == 1
    rims = [box.get_linewidth() for box in axis.patches]
    assert rims[2] == max(rims) and rims.count(max(rims)) == 1
    endless = pieces({"": some[:1] * 1000}, {}, width=9).axes[0]
    assert len([text for text in endless.texts if text.get_text()]) == MOST  # one in a line


LONG = "a very long name of something that nobody would ever call so"
FIGURES = {
    "bars": lambda: bars([LONG, "b"], [Score(99.0, (90.0, 104.0), 85.1), 1.0], "relative score, %", "t", whisker="95 % interval"),  # fmt: skip
    "grouped": lambda: grouped({LONG: [99.0, 1.0], "b": [2.0, Score(100.0, (99.0, 103.0))]}, [LONG, "y"], "%", "t"),
    "stacked": lambda: stacked({LONG: {"a": 1.0, "b": 2.0}}, dict(zip("ab", fills("ab"))), "GB", "t", (4.0, "room")),
    "lines": lambda: lines(range(40), {LONG: list(range(40)), "b": [1] * 40}, "step", "%", "t"),
    "matrix": lambda: matrix([[1.0, 2.0], [3.0, 4.0]], [LONG, "b"], ["a", LONG], "t", digits=1),
    "tiles": lambda: tiles([PICTURE] * 3, ["a", "b", "c"], "one title that is longer than the pictures are wide, in words"),
    "maps": lambda: maps([torch.ones(2, 2)], ["a"], "one title that is longer than the picture is wide, in words"),
    "beside": lambda: beside([(PICTURE, {"": [[Line("W" + "ord of some length " * 30)]]})] * 2, "title " * 30),
    "checklist": lambda: checklist({LONG: [True, "text of some length"], "b": [False, ""]}, ["a", "the second"], "t"),
    "Table 4": lambda: by_column(FOUR["rows"], TABLE_4),
    "Table 4, All": lambda: table_bars(FOUR, "t"),
    "Table 7": lambda: table_7(SCIENCE),
    "Table 8": lambda: table_8(SCIENCE),
    "Table 8 on the chat data": lambda: designs(DESIGNS),
    "questions": lambda: question_bars(REPORT),
    "the paper's": lambda: paper_bars(TABLES["Table 7"], "Avg", "t"),
    "the paper's accuracies": lambda: paper_dots(TABLES["Table 7"], "Avg", "t", 4241, ("LLaVA",)),
    "memory": lambda: memory_bars({"a": dict.fromkeys(("weights", "gradients", "optimizer", "activations", "logits"), 1e9)}, 4e9, "t"),  # fmt: skip
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_text_stays_inside_its_figure_and_covers_no_other(name, recwarn):
    figure = FIGURES[name]()
    assert outside(figure) == [] and over_one_another(figure) == []
    assert not [w for w in recwarn.list if "layout" in str(w.message) or "lyph" in str(w.message)]

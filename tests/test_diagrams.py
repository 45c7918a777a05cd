"""Every diagram is an SVG with a title, reads in light and dark, and keeps its words inside their boxes and apart."""

import base64
import functools
import inspect
import re
from html import unescape
from itertools import combinations
from xml.etree import ElementTree

import pytest
from matplotlib.font_manager import FontProperties, findfont, get_font

from minillava import paper
from minillava.figures import diagrams, model_diagrams
from minillava.figures.drawing import Drawing
from minillava.figures.style import INK, ORANGE, PALE
from minillava.scales import REAL_SCALES, TINY

SVG = "{http://www.w3.org/2000/svg}"
MAKERS = {
    name: maker
    for module in (diagrams, model_diagrams)
    for name, maker in vars(module).items()
    if inspect.isfunction(maker) and inspect.signature(maker, eval_str=True).return_annotation is Drawing
    if not name.startswith("_")
}
DRAWINGS = {name: [maker()] for name, maker in MAKERS.items() if name != "gradients"}
DRAWINGS["gradients"] = [model_diagrams.gradients(run) for run in paper.RECIPES]
DRAWINGS["fig_1"].append(model_diagrams.fig_1("7B"))
DRAWINGS["what_trains"].append(model_diagrams.what_trains("stage 1"))


@functools.cache
def width_of(words, size, weight):
    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    font.set_size(size, 72)
    font.set_text(words)
    return font.get_width_height()[0] / 64


def wide(text):
    """How wide a <text> is, in pixels, in DejaVu Sans: wider than the fonts of macOS and Windows."""
    return width_of(text.text or "", float(text.get("font-size")), "bold" if text.get("font-weight") else "normal")


def extent(text):
    """(left, top, right, bottom) of a <text>."""
    size, x, y, width = float(text.get("font-size")), float(text.get("x")), float(text.get("y")), wide(text)
    left = x - width * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
    return left, y - 0.75 * size, left + width, y + 0.22 * size


def rect(element):
    x, y, width, height = (float(element.get(name)) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def inside(part, whole, by=0.0):
    return all(a >= b + by for a, b in zip(part[:2], whole[:2])) and all(
        a <= b - by for a, b in zip(part[2:], whole[2:])
    )


def covers(a, b, by=1.0):
    return min(a[2], b[2]) - max(a[0], b[0]) > by and min(a[3], b[3]) - max(a[1], b[1]) > by


def faults(drawing):
    """What is wrong with a drawing, in words."""
    root = ElementTree.fromstring(drawing._repr_svg_())
    edge, boxes = (0, 0, drawing.width, drawing.height), root.findall(f"{SVG}g")
    boxed = [text for box in boxes for text in box.findall(f"{SVG}text")]
    free = root.findall(f"{SVG}text")
    found = [f"outside: {t.text}" for t in [*free, *boxed] if not inside(extent(t), edge, 4)]
    for box in boxes:
        frame = rect(box.find(f"{SVG}rect"))
        found += [] if inside(frame, edge, 4) else [f"a box leaves the picture: {frame}"]
        found += [f"leaves its box: {t.text}" for t in box.findall(f"{SVG}text") if not inside(extent(t), frame, 2)]
        found += [f"on a box: {t.text}" for t in free if covers(extent(t), frame, -2)]
    found += [f"over one another: {a.text}, {b.text}" for a, b in combinations(free, 2) if covers(extent(a), extent(b))]
    return found


def words(drawing):
    return " ".join(t.text for t in ElementTree.fromstring(drawing._repr_svg_()).iter(f"{SVG}text") if t.text)


@pytest.mark.parametrize("name", DRAWINGS)
def test_words_stay_in_their_boxes_and_apart(name):
    for drawing in DRAWINGS[name]:
        assert faults(drawing) == []


@pytest.mark.parametrize("name", DRAWINGS)
def test_it_has_a_title_and_a_text_for_whoever_cannot_see_it_and_is_small(name):
    for drawing in DRAWINGS[name]:
        root = ElementTree.fromstring(drawing._repr_svg_())
        assert root.find(f"{SVG}title").text == drawing.title and len(root.find(f"{SVG}desc").text) > 30
        assert len(drawing._repr_svg_()) < 16_000 and "\n" not in repr(drawing)


def test_neutral_colours_turn_in_the_dark_and_coloured_boxes_keep_theirs():
    drawing = Drawing("t", "about it", 200, 100)
    drawing.box(10, 40, 80, 40, "pale", PALE)
    drawing.box(100, 40, 80, 40, "orange", ORANGE)
    svg = drawing._repr_svg_()
    assert "prefers-color-scheme: dark" in svg
    root = ElementTree.fromstring(svg)
    pale, orange = (
        [box.find(f"{SVG}{tag}").get("class") for tag in ("rect", "text")] for box in root.findall(f"{SVG}g")
    )
    assert pale == ["mv-pale", "mv-ink"] and orange == [None, None]
    assert root.findall(f"{SVG}g")[1].find(f"{SVG}text").get("fill") == INK


def test_it_is_an_image_too_for_notebooks_that_are_not_trusted():
    drawing = Drawing('say "t"', "about it", 200, 100)
    alt, data = re.fullmatch(r'<img alt="(.*)" src="data:image/svg\+xml;base64,(.*)">', drawing._repr_html_()).groups()
    assert unescape(alt) == repr(drawing) and base64.b64decode(data).decode() == drawing._repr_svg_()


def test_the_guard_sees_words_that_leave_their_box_or_cover_others():
    drawing = Drawing("t", "about it", 200, 100)
    drawing.box(10, 40, 40, 20, "far too long for it")
    drawing.text(20, 90, "one over", "start")
    drawing.text(30, 92, "another", "start")
    drawing.text(12, 55, "x", "start")
    assert [fault.split(":")[0] for fault in faults(drawing)] == [
        "outside", "leaves its box", "on a box", "over one another"]  # fmt: skip


def test_the_numbers_are_the_papers():
    P, D = paper.ARCHITECTURE["patch_tokens"].value, paper.ARCHITECTURE["widths"].value["7B"]
    assert f"Hv ({P}, {D})" in words(model_diagrams.fig_1("7B"))
    for row in paper.TABLE_4.rows:
        assert str(paper.TABLE_4.value(row, "All")) in words(diagrams.table_4_sets())
    for run, recipe in paper.RECIPES.items():
        assert f"{recipe.steps:,} steps" in words(model_diagrams.what_trains(run))
    for scale in (TINY, *REAL_SCALES.values()):
        assert f"{scale.stage('stage 2').samples:,} records" in words(diagrams.scales_ladder())


def test_the_mixtures_are_read_from_the_names_of_table_4s_rows():
    shares = {row: tuple(diagrams.mixture(row).values()) for row in paper.TABLE_4.rows}
    assert list(shares.values()) == [(1, 1, 1), (0, 1, 1), (1, 0.05, 0.1), (1, 0, 0), (0, 0, 0)]


def test_only_what_trains_has_a_colour():
    drawn = words(model_diagrams.what_trains("stage 1"))
    assert "W trains" in drawn and "CLIP frozen" in drawn and "LLM frozen" in drawn

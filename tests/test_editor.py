"""Widgets for one's own pictures: a scene is built and taken apart, and a photograph is opened or refused."""

import io

import pytest
from PIL import Image

from minillava.course.editor import Photo, SceneEditor, picture_of, placed
from minillava.course.widgets import Text, explore
from minillava.data.images import ImageError
from minillava.scenes.draw import draw
from minillava.scenes.world import KINDS, SIDES, Scene


@pytest.mark.parametrize("kind", KINDS)
def test_a_placed_thing_is_inside_the_picture_and_knows_its_side(kind):
    corners = [placed(kind, "red", x, y) for x in (0, 50, 100) for y in (0, 100)]
    assert all(0 <= min(t.box) and max(t.box) <= 1000 for t in corners)
    assert [t.side for t in corners[::2]] == list(SIDES)
    assert [t.air for t in corners[:2]] == [True, False]


def test_the_truth_of_a_scene_follows_what_is_placed():
    assert [o.why for o in Scene("own", "room", (placed("cow", "red", 50, 90),)).odd] == ["a cow belongs in a park"]
    assert [o.why for o in Scene("own", "street", (placed("bus", "red", 50, 10),)).odd] == ["a bus cannot fly"]


def test_the_editor_asks_about_what_it_shows():
    asked = []

    def show(scene, question):
        asked.append(([(t.colour, t.kind) for t in scene.things], scene.place, question))
        return draw(scene, 64)

    one = SceneEditor(show, Scene("own", "beach", (placed("tree", "green", 50, 90),)), kind="cow", question="odd?")
    assert asked[-1] == ([("green", "tree"), ("red", "cow")], "beach", "odd?")
    before = one.view.value
    one.controls["x"].value = 0
    assert one.view.value != before
    keep, take = one.buttons[0].children
    keep.click()
    one.controls["kind"].value = "dog"
    one.controls["place"].value = "park"
    assert asked[-1][:2] == ([("green", "tree"), ("red", "cow"), ("red", "dog")], "park")
    for _ in range(5):  # more often than there are things
        take.click()
    assert asked[-1][0] == [("red", "dog")] and one.view is one.children[-1]
    assert "run this cell in Jupyter to move: place, kind" in repr(one)


def test_a_photograph_is_opened_and_a_broken_one_is_an_error():
    data = io.BytesIO()
    Image.new("L", (5, 3)).save(data, "png")
    assert picture_of(()) is None
    assert picture_of(({"content": memoryview(data.getvalue())},)).size == (5, 3)
    with pytest.raises(ImageError):
        picture_of(({"content": memoryview(b"no picture")},))
    made = explore(lambda photo, question: f"{len(photo)} {question}", photo=Photo(), question=Text(value="?"))
    assert "0 ?" in made.view.value

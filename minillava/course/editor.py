"""Widgets to ask about one's own pictures: a scene that one builds from the picture book, and a photograph.

SceneEditor(talk, Scene("own", "beach"), kind="cow", question="What is odd?")  # talk(scene, question)
explore(talk, photo=Photo(), question=Text(value="What is this?"))  # talk(value, question), see `picture_of`
"""

from collections.abc import Callable
from dataclasses import replace

import ipywidgets
from PIL import Image

from minillava.course.widgets import Dropdown, Explorer, Slider, Text
from minillava.data.images import open_picture
from minillava.scenes.world import COLOURS, KINDS, PLACES, SIDES, Scene, Thing

FOOT_IN_AIR = 750  # thousandths from the top: a thing whose foot is above this stands on nothing


def placed(kind: str, colour: str, x: int, y: int) -> Thing:
    """A thing at a place that is told in per cent of the room around it: 0, 0 is top left, 100, 100 bottom right."""
    width, height = KINDS[kind].size
    left, top = x * (1000 - width) // 100, y * (1000 - height) // 100
    side = SIDES[(left + width // 2) * len(SIDES) // 1000]
    return Thing(kind, colour, side, air=top + height < FOOT_IN_AIR, box=(left, top, left + width, top + height))


class SceneEditor(Explorer):
    """Place a thing of the picture book in a scene and ask about it; it may be kept, and another one placed.

    show(scene, question) returns what is displayed, as for `explore`. start: the scene to begin with. value: the first
    values of the controls place, kind, colour, x, y and question.
    """

    def __init__(self, show: Callable[[Scene, str], object], start: Scene, **value):
        self.things, self.ask = list(start.things), show
        chosen = {"place": start.place, "kind": "cat", "colour": "red", "x": 50, "y": 90, "question": ""} | value
        lists = {"place": PLACES, "kind": KINDS, "colour": COLOURS}
        controls = {name: Dropdown(options=list(some), value=chosen[name]) for name, some in lists.items()}
        controls |= {name: Slider(max=100, value=chosen[name]) for name in ("x", "y")}
        keep, take = ipywidgets.Button(description="keep it"), ipywidgets.Button(description="take one away")
        keep.on_click(self.keep)
        take.on_click(self.take_away)
        self.scene, self.buttons = start, (ipywidgets.HBox([keep, take]),)
        super().__init__(self.changed, **controls, question=Text(value=chosen["question"]))

    def changed(self, place, kind, colour, x, y, question) -> object:
        """What `show` returns for the kept things and the one in hand."""
        self.scene = replace(self.scene, place=place, things=(*self.things, placed(kind, colour, x, y)))
        return self.ask(self.scene, question)

    def keep(self, button=None) -> None:
        """Leave the thing in hand where it is, and take a second one like it in hand."""
        self.things.append(self.scene.things[-1])
        self.update()

    def take_away(self, button=None) -> None:
        """Take away the thing that was kept last."""
        del self.things[-1:]
        self.update()


def Photo() -> ipywidgets.FileUpload:
    """A button that takes one picture from the reader's machine."""
    return ipywidgets.FileUpload(accept="image/*", multiple=False)


def picture_of(value: tuple) -> Image.Image | None:
    """The picture in the value of `Photo`, None before one is chosen. Raises ImageError."""
    return open_picture(bytes(value[0]["content"])) if value else None

"""The picture book's world: what exists in it, where it belongs, and what would be odd.

This table is all that the offline course knows about the world. Scenes are composed from it (`compose.py`) and drawn
from it (`draw.py`). The rule-based teacher and judge reason with it, but they see a scene only as text. It takes the
place of COCO (pictures, captions, boxes) and of what GPT-4 knows.

    python -c "from minillava.scenes import world; print(len(world.KINDS), 'kinds')"
"""

from dataclasses import dataclass, field

COLOURS = {
    "red": (222, 52, 48),
    "orange": (246, 140, 30),
    "yellow": (252, 214, 48),
    "green": (38, 158, 72),
    "blue": (44, 96, 216),
    "purple": (142, 68, 184),
    "white": (250, 250, 248),
    "black": (52, 50, 58),
}
SIDES = ("left", "middle", "right")
PLACES = {  # name -> how a sentence says it
    "park": "in a park",
    "street": "on a street",
    "lake": "on a lake",
    "room": "in a room",
    "beach": "on a beach",
}
DOINGS = {  # what a person may do -> (places where that is usual, why it is odd elsewhere)
    "reading": (tuple(PLACES), ""),
    "waving": (tuple(PLACES), ""),
    "painting": (("park", "room", "beach", "lake"), "people do not paint on a street"),
    "fishing": (("lake", "beach"), "there is no water to fish in"),
    "ironing": (("room",), "people iron in a room"),
}
DOING_WIDTH = {"painting": 160, "fishing": 160, "ironing": 160}  # with props, per cent of a person's width


@dataclass(frozen=True)
class Kind:
    """One kind of object, and where it is usual."""

    name: str
    size: tuple[int, int]  # width, height, in thousandths of the picture's side
    ground: tuple[str, ...] = ()  # places where it usually stands
    air: tuple[str, ...] = ()  # places where it usually flies or hangs
    belongs: str = ""  # where it belongs, in words
    carries: tuple[str, ...] = ()  # kinds that are usually on it or in it
    seat: int | None = None  # where something on it stands: thousandths of its height, from the top
    use: str = ""  # what one can use it to do
    plural: str = ""  # by default the name and an s

    def __post_init__(self):
        object.__setattr__(self, "plural", self.plural or self.name + "s")


OUTDOORS = ("park", "street", "lake", "beach")
_ROWS = [
    Kind("person", (170, 350), ("park", "street", "room", "beach"), belongs="on the ground", plural="people"),
    Kind("cat", (230, 230), ("park", "street", "room"), belongs="on land"),
    Kind("dog", (260, 230), ("park", "street", "room", "beach"), belongs="on land"),
    Kind("horse", (320, 300), ("park", "street", "beach"), belongs="outdoors, on land", carries=("person", "bird"), seat=330, use="carry a rider"),
    Kind("cow", (320, 250), ("park",), belongs="in a park"),
    Kind("sheep", (280, 230), ("park",), belongs="in a park", plural="sheep"),
    Kind("rabbit", (210, 240), ("park", "room"), belongs="in a park"),
    Kind("bird", (230, 180), ("park", "beach"), ("park", "street", "lake", "beach"), belongs="outdoors"),
    Kind("duck", (240, 200), ("lake", "park"), belongs="on the water"),
    Kind("fish", (260, 180), ("lake",), belongs="in the water", plural="fish"),
    Kind("butterfly", (200, 190), (), ("park", "lake"), belongs="in a park", plural="butterflies"),
    Kind("car", (320, 200), ("street",), belongs="on a street", carries=("bird", "cat", "box"), seat=40, use="drive"),
    Kind("bus", (330, 270), ("street",), belongs="on a street", carries=("bird",), seat=20, use="drive", plural="buses"),
    Kind("truck", (330, 240), ("street",), belongs="on a street", carries=("box", "bird"), seat=60, use="drive"),
    Kind("bicycle", (300, 210), ("street", "park"), belongs="on a street", carries=("person", "bird"), seat=280, use="pedal along"),
    Kind("boat", (320, 280), ("lake",), belongs="on the water", carries=("person", "dog", "bird"), seat=700, use="cross the water"),
    Kind("plane", (330, 180), (), OUTDOORS, belongs="in the sky"),
    Kind("tree", (280, 360), ("park", "street"), belongs="in a park", carries=("bird",), seat=60, use="find shade"),
    Kind("flower", (180, 260), ("park", "room"), belongs="in a park"),
    Kind("mushroom", (220, 220), ("park",), belongs="in a park"),
    Kind("house", (320, 330), ("park", "street"), belongs="on a street", carries=("bird", "cat"), seat=70, use="live inside"),
    Kind("chair", (200, 280), ("room", "beach"), belongs="in a room", carries=("cat", "person", "book", "hat"), seat=520, use="sit down"),
    Kind("table", (320, 210), ("room",), belongs="in a room", carries=("cup", "book", "lamp", "hat", "cat", "flower", "clock"), seat=20),
    Kind("lamp", (180, 280), ("room",), belongs="in a room", use="have light"),
    Kind("clock", (220, 220), (), ("room",), belongs="on the wall of a room", use="tell the time"),
    Kind("cup", (200, 180), ("room",), belongs="in a room", use="drink"),
    Kind("book", (240, 170), ("room", "beach"), belongs="in a room", use="learn something"),
    Kind("ball", (200, 200), ("park", "room", "beach", "lake"), belongs="on the ground", use="play a game"),
    Kind("box", (240, 210), ("street", "room"), belongs="in a room", carries=("cat", "ball", "rabbit", "book"), seat=40, plural="boxes"),
    Kind("umbrella", (280, 270), ("park", "street", "beach"), belongs="outdoors", use="stay dry"),
    Kind("balloon", (190, 270), (), tuple(PLACES), belongs="in the air"),
    Kind("kite", (230, 260), (), ("park", "lake", "beach"), belongs="in the sky", use="play in the wind"),
    Kind("hat", (240, 180), ("room", "beach"), belongs="in a room", use="keep the sun off"),
]  # fmt: skip
KINDS = {kind.name: kind for kind in _ROWS}
CAN_FLY = {"bird", "butterfly", "plane", "balloon", "kite"}


@dataclass(frozen=True)
class Thing:
    """One object of a scene. An attribute is None where it is unknown, as when a text does not tell it."""

    kind: str
    colour: str | None = None
    side: str | None = None
    air: bool = False
    on: int | None = None  # index of the thing it stands on
    doing: str | None = None
    box: tuple[int, int, int, int] | None = None  # x1, y1, x2, y2 in thousandths, y downwards
    flip: bool = False  # drawn mirrored


@dataclass(frozen=True)
class Scene:
    """A place and the things in it: what is drawn, and the truth that captions and answers are checked against."""

    id: str
    place: str | None
    things: tuple[Thing, ...] = ()
    variant: int = 0  # which of its place's backgrounds
    style: str = "book"

    @property
    def odd(self) -> "list[Oddity]":
        return oddities(self)

    def key(self) -> tuple:
        """What the scene shows, but not the exact boxes: two scenes with the same key are the same to a reader."""
        shown = sorted(str((t.kind, t.colour, t.side, t.air, t.on is None, t.doing)) for t in self.things)
        return self.place, tuple(shown)


@dataclass(frozen=True)
class Oddity:
    """What is odd in a scene: the thing, the rule it breaks, and the reason in words."""

    thing: int
    rule: str = field(compare=False)
    why: str = field(compare=False)


def a(noun: str) -> str:
    """A noun with its article: `a car`, `an umbrella`."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def oddities(scene: Scene) -> list[Oddity]:
    """Everything in the scene that the world's rules do not expect: at most one oddity per thing.

    It needs no boxes, so it also works on a scene that was read from a text.
    """
    found = []
    for i, thing in enumerate(scene.things):
        kind = KINDS[thing.kind]
        if thing.doing and scene.place and scene.place not in DOINGS[thing.doing][0]:
            found.append(Oddity(i, "doing", DOINGS[thing.doing][1]))
        elif thing.on is not None:
            under = scene.things[thing.on]
            if thing.kind not in KINDS[under.kind].carries:
                found.append(Oddity(i, "support", f"{a(thing.kind)} does not belong on {a(under.kind)}"))
        elif thing.air and not kind.air:
            found.append(Oddity(i, "air", f"{a(thing.kind)} cannot fly"))
        elif scene.place and scene.place not in (kind.air if thing.air else kind.ground):
            found.append(Oddity(i, "place", f"{a(thing.kind)} belongs {kind.belongs}"))
    return found

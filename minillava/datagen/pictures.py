"""One picture as text: its captions and boxes, and what makes a record of one unusable.

Notable: whatever is wrong is `Bad` with the reason; who reads a file adds its name and the record's (`Problem`). A
picture's path may not leave the image folder: not by `..`, not by an absolute path, not by a symbolic link.

    python -c "from minillava.datagen.pictures import *; check_box('car', (0.2, 0.1, 0.9, 0.5))"
"""

import math
from dataclasses import dataclass
from pathlib import Path

from minillava.data.records import IMAGE_TOKEN, points_outside

MAX_CAPTIONS = 5  # of a picture are used; COCO has five, and a few pictures more
MAX_COORDINATE = 1e9  # pixels
BOX_TOLERANCE = 0.002  # boxes drawn by hand stick out of the picture by a pixel or so


@dataclass(frozen=True)
class Picture:
    """One picture as text: captions, and (category, (x1, y1, x2, y2)) boxes in [0, 1]. image: path below the image folder."""

    id: str
    image: str
    captions: tuple[str, ...]
    boxes: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A record that was left out, and why."""

    file: str
    record: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.record}: {self.reason}"


class BadRecord(ValueError):
    """What is wrong with one record."""


def check_image(image: str, root: Path) -> None:
    """Raise Bad unless `image` is a file below the (resolved) image folder, links followed."""
    if points_outside(image):
        raise BadRecord(f"the image path {image!r} leaves the image folder")
    path = root / image
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long
        raise BadRecord(f"the image path {image[:40]!r}... cannot be looked up ({error.strerror})") from None
    if not there:
        raise BadRecord(f"no picture {image!r} in the image folder")
    if not path.resolve().is_relative_to(root):
        raise BadRecord(f"the image path {image!r} leaves the image folder by a link")
    if not path.is_file():
        raise BadRecord(f"{image!r} is not a file")


def check_box(kind: str, box: tuple) -> None:
    """Raise Bad unless the box lies in the picture, its first corner above and left of its second."""
    said = f"the box {kind}: [{', '.join(f'{v:.3f}' for v in box)}]"
    if not all(math.isfinite(v) for v in box):
        raise BadRecord(f"{said} is not of numbers")
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        raise BadRecord(f"{said} is turned inside out or empty")
    if min(box) < -BOX_TOLERANCE or max(box) > 1 + BOX_TOLERANCE:
        raise BadRecord(f"{said} is outside the picture")


def parse_captions(captions: object) -> tuple[str, ...]:
    """Captions on one line each: a line break would end the caption in the context."""
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise BadRecord("`captions` must be a list of texts")
    return tuple(" ".join(c.split()) for c in captions if c.replace(IMAGE_TOKEN, "").strip())[:MAX_CAPTIONS]


def is_number(value: object) -> bool:
    """Whether it is a number that pixels can have."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_COORDINATE


def required_text(row: dict, name: str) -> str:
    """The text in a field that must not be empty; a number (COCO's ids) as text. Raises Bad."""
    if not isinstance(row.get(name), (str, int)) or row[name] == "":
        raise BadRecord(f"no `{name}`")
    return str(row[name])


def parse_box(category: object, numbers: object) -> tuple[str, tuple]:
    """(category, (x1, y1, x2, y2)), what sticks out by less than `SLACK` cut off; where the box lies is `check_box`'s. Raises Bad."""
    if (
        not isinstance(category, str)
        or not category.strip()
        or not isinstance(numbers, (list, tuple))
        or len(numbers) != 4
    ):
        raise BadRecord(f"{category!r}: {numbers!r} is not a box; expected a category and four numbers")
    if not all(map(is_number, numbers)):
        raise BadRecord(f"the box {category}: {numbers} is not of numbers")
    return " ".join(category.split()), tuple(
        min(max(float(v), 0.0), 1.0) if -BOX_TOLERANCE <= v <= 1 + BOX_TOLERANCE else float(v) for v in numbers
    )

"""One picture as text, its captions and boxes, and the reasons why a record of one cannot be used.

Every fault is a `BadRecord` with its reason. The caller knows the file and the record, and reports both as `LeftOut`. A
picture's path may not point outside the image folder: not by `..`, an absolute path or a symbolic link.

    python -c "from minillava.datagen.pictures import *; check_box('car', (0.2, 0.1, 0.9, 0.5))"
"""

import math
from dataclasses import dataclass
from pathlib import Path

from minillava.data.records import IMAGE_TOKEN, points_outside

MAX_CAPTIONS = 5  # per picture; COCO has five, and a few pictures have more
MAX_COORDINATE = 1e9  # pixels
BOX_TOLERANCE = 0.002  # boxes drawn by hand can extend past the picture by about a pixel


@dataclass(frozen=True)
class Picture:
    """One picture as text. boxes: (category, (x1, y1, x2, y2)) in [0, 1]. image: a path in the image folder."""

    id: str
    image: str
    captions: tuple[str, ...]
    boxes: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A record that was left out, and the reason."""

    file: str
    record: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.record}: {self.reason}"


class BadRecord(ValueError):
    """The reason why one record cannot be used."""


def check_image(image: str, root: Path) -> None:
    """Raise BadRecord unless `image` is a file in the (resolved) image folder, after following links."""
    if points_outside(image):
        raise BadRecord(f"the image path {image!r} points outside the image folder")
    path = root / image
    try:
        exists = path.exists()
    except OSError as error:  # such as a name that is too long
        raise BadRecord(f"the image path {image[:40]!r}... cannot be looked up ({error.strerror})") from None
    if not exists:
        raise BadRecord(f"no picture {image!r} in the image folder")
    if not path.resolve().is_relative_to(root):
        raise BadRecord(f"the image path {image!r} points outside the image folder through a link")
    if not path.is_file():
        raise BadRecord(f"{image!r} is not a file")


def check_box(kind: str, box: tuple) -> None:
    """Raise BadRecord unless the box is inside the picture and its first corner is above and left of its second."""
    name = f"the box {kind}: [{', '.join(f'{v:.3f}' for v in box)}]"
    if not all(math.isfinite(v) for v in box):
        raise BadRecord(f"{name} has a value that is not a number")
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        raise BadRecord(f"{name} is inverted or empty")
    if min(box) < -BOX_TOLERANCE or max(box) > 1 + BOX_TOLERANCE:
        raise BadRecord(f"{name} is outside the picture")


def parse_captions(captions: object) -> tuple[str, ...]:
    """Captions without empty ones, each on one line, because a line break would end a caption in the context."""
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise BadRecord("`captions` must be a list of texts")
    return tuple(" ".join(c.split()) for c in captions if c.replace(IMAGE_TOKEN, "").strip())[:MAX_CAPTIONS]


def is_number(value: object) -> bool:
    """Whether it is a number that can be a pixel coordinate."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_COORDINATE


def required_text(row: dict, name: str) -> str:
    """The text in a field that must not be empty; a number, such as COCO's ids, as text. Raises BadRecord."""
    if not isinstance(row.get(name), (str, int)) or row[name] == "":
        raise BadRecord(f"no `{name}`")
    return str(row[name])


def parse_box(category: object, numbers: object) -> tuple[str, tuple]:
    """(category, (x1, y1, x2, y2)), clipped to the picture where it extends less than `BOX_TOLERANCE` past it.

    Raises BadRecord. The position of the box is checked by `check_box`.
    """
    is_name = isinstance(category, str) and category.strip()
    if not is_name or not isinstance(numbers, (list, tuple)) or len(numbers) != 4:
        raise BadRecord(f"{category!r}: {numbers!r} is not a box; expected a category and four numbers")
    if not all(map(is_number, numbers)):
        raise BadRecord(f"the box {category}: {numbers} has a value that is not a number")
    clipped = (min(max(v, 0), 1) if -BOX_TOLERANCE <= v <= 1 + BOX_TOLERANCE else v for v in numbers)
    return " ".join(category.split()), tuple(map(float, clipped))

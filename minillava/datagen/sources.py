"""Pictures with captions and boxes, from COCO's files, the authors' caps_boxes JSONL, or a CSV.

A record that cannot be used becomes a `LeftOut` with file, record and reason; the others are used. Boxes become x1, y1,
x2, y2 in [0, 1] (COCO has x, y, width, height in pixels). COCO's crowd boxes are left out, as each stands for many
things. Its ids are numbers, so "000000000139" and 139 are the same picture.

    cd data_samples
    python -c "from minillava.datagen.sources import *; print(read_source('caps_boxes.jsonl', 'pictures')[0][0])"
"""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path

from minillava.datagen.pictures import (
    BadRecord,
    LeftOut,
    Picture,
    check_box,
    check_image,
    is_number,
    parse_box,
    parse_captions,
    required_text,
)
from minillava.errors import UserError
from minillava.files import parse_json, read_json

Rows = Iterable[tuple[str, Callable[[], Picture]]]  # (name of the record, function that makes its picture)


class SourceError(UserError):
    """A source that cannot be read at all; the message names the file and says what is expected."""


def read_source(
    source: str | Path, images: Path, instances: Path | None = None, limit: int | None = None
) -> tuple[list[Picture], list[LeftOut]]:
    """(the first `limit` pictures of a source, the records that were left out).

    source: COCO's captions_*.json (with boxes from `instances`, or from an instances_*.json next to it), a caps_boxes
    *.jsonl, or a *.csv with the columns `image` and `caption`, one row per caption.
    Raises SourceError when the source cannot be read at all.
    """
    if limit is not None and limit < 1:
        raise SourceError(f"--limit {limit}: at least 1 is needed")
    source, images = Path(source), Path(images)
    if not images.is_dir():
        raise SourceError(f"{images}: no such folder; name the folder with the pictures with --images")
    if source.suffix not in (".json", ".jsonl", ".csv"):
        raise SourceError(f"{source}: not a source; expected COCO's captions_*.json, a caps_boxes .jsonl, or a .csv")
    readers = {".json": lambda path: _coco(path, instances), ".jsonl": _caps_boxes, ".csv": _csv}
    try:
        return _check(readers[source.suffix](source), source, images.resolve(), limit)
    except OSError as error:
        raise SourceError(f"{error.filename or source}: cannot be read ({error.strerror})") from error
    except csv.Error as error:
        raise SourceError(f"{source}: not a CSV file ({error})") from error


def _check(rows: Rows, source: Path, root: Path, limit: int | None) -> tuple[list[Picture], list[LeftOut]]:
    """The good pictures, each id once, and the problems of the others."""
    pictures, problems, seen = [], [], set()
    for record, make in rows:
        if limit is not None and len(pictures) == limit:
            break
        try:
            picture = make()
            if picture.id in seen:
                raise BadRecord(f"the id {picture.id!r} appears twice; the first one is used")
            seen.add(picture.id)
            if not picture.captions:
                raise BadRecord("no captions")
            texts = [picture.id, picture.image, *picture.captions, *(kind for kind, _ in picture.boxes)]
            if any("\ud800" <= c <= "\udfff" for text in texts for c in text):
                raise BadRecord("half a character (a lone surrogate), which cannot be written as UTF-8")
            check_image(picture.image, root)
            for kind, box in picture.boxes:
                check_box(kind, box)
            pictures.append(picture)
        except BadRecord as error:
            problems.append(LeftOut(source.name, record, str(error)))
    return pictures, problems


def _caps_boxes(path: Path) -> Rows:
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            text = None
        if text is None or text.strip():
            yield f"line {number}", lambda text=text: _from_caps_boxes(text)


def _from_caps_boxes(text: str | None) -> Picture:
    if text is None:
        raise BadRecord("not UTF-8")
    try:
        row = parse_json(text)
    except ValueError as error:
        raise BadRecord(f"not JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("instances", []), list):
        raise BadRecord("expected an object with `id`, `image`, `captions`, `instances`")
    boxes = []
    for instance in row.get("instances", []):
        if not isinstance(instance, dict):
            raise BadRecord(f"{instance!r} is not an instance")
        boxes.append(parse_box(instance.get("category"), instance.get("bbox")))
    captions = parse_captions(row.get("captions"))
    return Picture(required_text(row, "id"), required_text(row, "image"), captions, tuple(boxes))


def _csv(path: Path) -> Rows:
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")  # `_from_csv` names the rows that are not UTF-8
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = reader.fieldnames or []
    if not {"image", "caption"} <= set(columns):
        raise SourceError(f"{path}: its columns are {columns}; expected `image` and `caption` (and `id`, if you like)")
    groups: dict[str, list[tuple[int, dict]]] = {}
    for row in reader:
        groups.setdefault(str(row["image"] or ""), []).append((reader.line_num, row))
    for image, rows in groups.items():
        record = f"line {rows[0][0]}" + (f" ({image!r})" if image else "")
        yield record, lambda image=image, rows=rows: _from_csv(image, rows)


def _from_csv(image: str, rows: list[tuple[int, dict]]) -> Picture:
    for number, row in rows:
        values = [v for v in row.values() if isinstance(v, str)]
        if any("\udc80" <= c <= "\udcff" for v in values for c in v):
            raise BadRecord(f"line {number} is not UTF-8")
        if None in row or None in row.values():
            raise BadRecord(f"line {number} has {'more' if None in row else 'fewer'} fields than the header")
    if not image:
        raise BadRecord("no `image`")
    ids = {row["id"] for _, row in rows if row.get("id")}
    if len(ids) > 1:
        raise BadRecord(f"one image with several ids: {', '.join(sorted(ids))}")
    return Picture(
        ids.pop() if ids else _without_suffix(image), image, parse_captions([row["caption"] for _, row in rows])
    )


def _read_coco(path: Path, *names: str) -> dict:
    """A COCO file with the lists `names`. Segmentations, nine tenths of it, are dropped while it is read."""

    def without_segmentation(row: dict) -> dict:
        row.pop("segmentation", None)
        return row

    data = read_json(path, object_hook=without_segmentation)
    for name in names:
        rows = data.get(name) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SourceError(f"{path}: no list `{name}` of objects; expected a file in COCO's format")
    return data


def _coco(path: Path, instances: Path | None = None) -> Rows:
    data, near = _read_coco(path, "images", "annotations"), path.with_name(path.name.replace("captions", "instances"))
    if instances is None and near != path and near.exists():
        instances = near
    captions, boxes, categories = {}, {}, {}  # image id -> captions, image id -> annotations, category id -> name
    for row in data["annotations"]:
        captions.setdefault(_id(row, "image_id"), []).append(row.get("caption"))
    if instances is not None:
        things = _read_coco(Path(instances), "annotations", "categories")
        categories = {_id(row): row.get("name") for row in things["categories"]}
        for row in things["annotations"]:
            boxes.setdefault(_id(row, "image_id"), []).append(row)
        if data["images"] and not any(_id(image) in boxes for image in data["images"]):
            advice = "name the instances of the same split with --instances, or move that file away to go without boxes"
            raise SourceError(f"{path}: 0 of {len(data['images']):,} pictures have boxes in {instances}; {advice}")
    known = set()
    for n, image in enumerate(data["images"]):
        if _id(image) in known:
            yield f"image {image.get('id', n)}", lambda: _refuse("has the id of another picture")
        else:
            yield f"image {image.get('id', n)}", lambda image=image: _from_coco(image, captions, boxes, categories)
        known.add(_id(image))
    for name in captions:
        if name not in known:
            yield f"image {name}", lambda: _refuse("has captions but is not among `images`")


def _id(row: dict, name: str = "id") -> int | float | str:
    """An id for lookup: digits in a text are a number. A value that cannot be an id, such as a list, becomes text."""
    value = row.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 40:
        return int(value)
    return value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else repr(value)


def _refuse(reason: str) -> Picture:
    raise BadRecord(reason)


def _from_coco(image: dict, captions: dict, boxes: dict, categories: dict) -> Picture:
    width, height = image.get("width"), image.get("height")
    if not all(is_number(v) and v > 0 for v in (width, height)):
        raise BadRecord("no `width` and `height`")
    corners = []
    for row in boxes.get(_id(image), []):
        if row.get("iscrowd") in (1, "1"):
            continue
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            raise BadRecord(f"{box!r} is not a box; expected x, y, width, height")
        x, y, w, h = box
        scaled = (x / width, y / height, (x + w) / width, (y + h) / height)
        corners.append(parse_box(categories.get(_id(row, "category_id")), scaled))
    name = required_text(image, "file_name")
    return Picture(_without_suffix(name), name, parse_captions(captions.get(_id(image), [])), tuple(corners))


def _without_suffix(image: str) -> str:
    """The id of a picture without one: its path without the suffix, so that frames in two folders are two pictures."""
    return str(Path(image).parent / Path(image).stem)

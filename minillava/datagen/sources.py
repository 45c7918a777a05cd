"""Pictures with captions and boxes, from COCO's files, the authors' caps_boxes JSONL, or a CSV.

Notable: what is wrong with a record is a `Problem` that names file and record; that record is left out, the good rest
goes on, and the caller counts. Boxes become x1, y1, x2, y2 in [0, 1] (COCO has x, y, width, height in pixels).

    python -c "from minillava.datagen.sources import *; print(read_source('data_samples/caps_boxes.jsonl', 'data_samples/pictures')[0][0])"
"""

import csv
import io
import json
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


class SourceError(UserError):
    """A source of which nothing can be read; the message names the file and says what is expected."""


def read_source(
    source: str | Path, images: Path, instances: Path | None = None, limit: int | None = None
) -> tuple[list[Picture], list[LeftOut]]:
    """The pictures of a source, at most `limit`, in its own order, and what had to be left out.

    source: COCO's captions_*.json (boxes from `instances`, or from instances_*.json beside it where there is one), a
    caps_boxes *.jsonl, or a *.csv with the columns `image` and `caption`, one row per caption. Raises SourceError when nothing
    can be read.
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


def _check(rows, source: Path, root: Path, limit: int | None) -> tuple[list[Picture], list[LeftOut]]:
    """rows: (record's name, () -> Picture); the good ones, each id once, and the problems of the others."""
    pictures, problems, seen = [], [], set()
    for record, make in rows:
        if limit is not None and len(pictures) == limit:
            break
        try:
            picture = make()
            if picture.id in seen:
                raise BadRecord(f"the id {picture.id!r} is there twice; the first one is used")
            seen.add(picture.id)
            if not picture.captions:
                raise BadRecord("no captions")
            said = [picture.id, picture.image, *picture.captions, *(kind for kind, _ in picture.boxes)]
            if any("\ud800" <= c <= "\udfff" for text in said for c in text):
                raise BadRecord("half a character (a lone surrogate), which cannot be written as UTF-8")
            check_image(picture.image, root)
            for kind, box in picture.boxes:
                check_box(kind, box)
            pictures.append(picture)
        except BadRecord as error:
            problems.append(LeftOut(source.name, record, str(error)))
    return pictures, problems


def _lines(path: Path):
    """(number, line) of a file; a line that is not UTF-8 is None."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            yield number, None


def _caps_boxes(path: Path):
    def make(line):
        if line is None:
            raise BadRecord("not UTF-8")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRecord(f"not JSON ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get("instances", []), list):
            raise BadRecord("expected an object with `id`, `image`, `captions`, `instances`")
        found = []
        for instance in row.get("instances", []):
            if not isinstance(instance, dict):
                raise BadRecord(f"{instance!r} is not an instance")
            found.append(parse_box(instance.get("category"), instance.get("bbox")))
        return Picture(
            required_text(row, "id"), required_text(row, "image"), parse_captions(row.get("captions")), tuple(found)
        )

    for number, line in _lines(path):
        if line is None or line.strip():
            yield f"line {number}", lambda line=line: make(line)


def _csv(path: Path):
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")  # a row that is not UTF-8 is named below
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
        *ids or (str(Path(image).with_suffix("")),), image, parse_captions([row["caption"] for _, row in rows])
    )


def _json(path: Path, *names: str) -> dict:
    """A COCO file. Its segmentations, nine tenths of it, are dropped as it is read."""

    def light(row: dict) -> dict:
        row.pop("segmentation", None)
        return row

    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=light)
    except (ValueError, RecursionError) as error:  # broken JSON, not UTF-8, lists in lists in lists
        raise SourceError(f"{path}: not a JSON file ({error})") from error
    for name in names:
        rows = data.get(name) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SourceError(f"{path}: no list `{name}` of objects; expected a file in COCO's format")
    return data


def _coco(path: Path, instances: Path | None = None):
    data, near = _json(path, "images", "annotations"), path.with_name(path.name.replace("captions", "instances"))
    if instances is None and near != path and near.exists():
        instances = near
    texts, found, kinds = {}, {}, {}
    for row in data["annotations"]:
        texts.setdefault(_id(row, "image_id"), []).append(row.get("caption"))
    if instances is not None:
        boxes = _json(Path(instances), "annotations", "categories")
        kinds = {_id(row): row.get("name") for row in boxes["categories"]}
        for row in boxes["annotations"]:
            found.setdefault(_id(row, "image_id"), []).append(row)
    for n, image in enumerate(data["images"]):
        yield f"image {image.get('id', n)}", lambda image=image: _from_coco(image, texts, found, kinds)
    known = {_id(image) for image in data["images"]}
    for name in [i for i in texts if i not in known]:
        yield f"image {name}", _stray(path)


def _id(row: dict, name: str = "id") -> int | float | str:
    """An id to look things up by; what is none, such as a list, as it is written."""
    value = row.get(name)
    return value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else repr(value)


def _stray(path: Path):
    def make():
        raise BadRecord("has captions but is not among `images`")

    return make


def _from_coco(image: dict, texts: dict, found: dict, kinds: dict) -> Picture:
    width, height = image.get("width"), image.get("height")
    if not all(is_number(v) and v > 0 for v in (width, height)):
        raise BadRecord("no `width` and `height`")
    corners = []
    for row in found.get(_id(image), []):
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            raise BadRecord(f"{box!r} is not a box; expected x, y, width, height")
        x, y, w, h = box
        corners.append(
            parse_box(kinds.get(_id(row, "category_id")), (x / width, y / height, (x + w) / width, (y + h) / height))
        )
    name = required_text(image, "file_name")
    return Picture(Path(name).stem, name, parse_captions(texts.get(_id(image), [])), tuple(corners))

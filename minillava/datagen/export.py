"""Records as a `datasets` dataset with their pictures, to share, filter or stream; and back to the same records.

The columns are id, type, file (the record's `image`), image (the picture) and conversations. A picture is read from
disk when its row is used. `save_to_disk` and `push_to_hub` copy the files' bytes into the dataset, so that it can be
moved.

    from minillava.data.valid import read_records
    print(to_dataset({"detail": read_records("data_samples/detail.json")}, "data_samples/pictures"))
"""

from pathlib import Path

from minillava.data.records import RecordError, points_outside
from minillava.datagen.pictures import BadRecord, check_image


def to_dataset(records: dict[str, list[dict]], images: Path):
    """A `datasets.Dataset` of records (type -> list); the `image` of a record without a picture is None.

    Raises RecordError, naming the record, if its picture is not in `images`; ModuleNotFoundError without `datasets`.
    """
    import datasets

    root, rows = Path(images).resolve(), []
    for kind, some in records.items():
        for record in some:
            name = record.get("image")
            if isinstance(name, list):
                raise RecordError(f"record {record['id']}: {len(name)} pictures; the dataset has a column for one")
            try:
                if name is not None:
                    check_image(name, root)
            except BadRecord as error:
                raise RecordError(f"record {record['id']}: {error}") from error
            picture = None if name is None else {"path": str(root / name), "bytes": None}
            turns = record["conversations"]
            rows.append({"id": record["id"], "type": kind, "file": name, "image": picture, "conversations": turns})
    text = datasets.Value("string")
    turns = datasets.List({"from": text, "value": text})
    columns = {"id": text, "type": text, "file": text, "image": datasets.Image(), "conversations": turns}
    features = datasets.Features(columns)
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in columns}, features=features)


def to_records(dataset, images: Path | None = None) -> dict[str, list[dict]]:
    """The records of a dataset made by `to_dataset`, by type. images: a folder to write the pictures' bytes to.

    Raises RecordError for a picture whose name points outside that folder.
    """
    import datasets

    out: dict[str, list[dict]] = {}
    for row in dataset.cast_column("image", datasets.Image(decode=False)):
        picture, name, record = row["image"], row["file"], {"id": row["id"]}
        if name is not None:
            record["image"] = name
        if name is not None and images is not None:
            if points_outside(name):
                raise RecordError(f"record {row['id']}: the image path {name!r} points outside the image folder")
            path = Path(images) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture["bytes"] or Path(picture["path"]).read_bytes())
        turns = [{"from": t["from"], "value": t["value"]} for t in row["conversations"]]
        out.setdefault(row["type"], []).append(record | {"conversations": turns})
    return out

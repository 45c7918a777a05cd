"""Records as a `datasets` dataset, pictures included: to share, to filter, to stream.

Notable: the columns are id, type, file (the record's `image`), image (the picture itself) and conversations. Pictures are
read from disk when they are looked at; `save_to_disk` and `push_to_hub` put their bytes into the dataset, as they are, so
that it can be moved. And back: the same records.

    python -c "from minillava.datagen.export import *; print(to_dataset({'detail': read_records('data_samples/detail.json')}, 'data_samples/pictures'))"
"""

from pathlib import Path

from minillava.data.records import RecordError, points_outside, read_records
from minillava.datagen.pictures import BadRecord, check_image

__all__ = ["read_records", "to_dataset", "to_records"]


def to_dataset(records: dict[str, list[dict]], images: Path):
    """A `datasets.Dataset` of records (type -> list) with an Image column; text-only records have None there.

    Raises RecordError, naming the record, for a picture that is not below `images`; ModuleNotFoundError without datasets.
    """
    import datasets

    root, rows = Path(images).resolve(), []
    for kind, some in records.items():
        for record in some:
            name = record.get("image")
            try:
                if name is not None:
                    check_image(name, root)
            except BadRecord as error:
                raise RecordError(f"record {record['id']}: {error}") from error
            picture = None if name is None else {"path": str(root / name), "bytes": None}
            turns = record["conversations"]
            rows.append({"id": record["id"], "type": kind, "file": name, "image": picture, "conversations": turns})
    turn = {"from": datasets.Value("string"), "value": datasets.Value("string")}
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "type": datasets.Value("string"),
            "file": datasets.Value("string"),
            "image": datasets.Image(),
            "conversations": datasets.List(turn),
        }
    )
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features)


def to_records(dataset, images: Path | None = None) -> dict[str, list[dict]]:
    """The records of such a dataset, by type. images: a folder that the pictures are written to, byte for byte.

    Raises RecordError for a picture whose name leads out of that folder.
    """
    import datasets

    out: dict[str, list[dict]] = {}
    for row in dataset.cast_column("image", datasets.Image(decode=False)):
        picture, name, record = row["image"], row["file"], {"id": row["id"]}
        if name is not None:
            record["image"] = name
        if name is not None and images is not None:
            if points_outside(name):
                raise RecordError(f"record {row['id']}: the image path {name!r} leaves the image folder")
            path = Path(images) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture["bytes"] or Path(picture["path"]).read_bytes())
        turns = [{"from": t["from"], "value": t["value"]} for t in row["conversations"]]
        out.setdefault(row["type"], []).append(record | {"conversations": turns})
    return out

"""Records as a `datasets` dataset with their pictures, to share, filter or stream.

The columns are id, type, file (the record's `image`), image (the picture) and conversations. A picture is read from
disk when its row is used. `save_to_disk` and `push_to_hub` copy the files' bytes into the dataset, so that it can be
moved.

    from minillava.data.valid import read_records
    print(to_dataset({"detail": read_records("data_samples/detail.json")}, "data_samples/pictures"))
"""

from pathlib import Path

from minillava.data.records import RecordError
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

"""Records for others to use: as the folder that `minillava train` reads, or as a `datasets` dataset to share or stream.

The dataset's columns are id, type, file (the record's `image`), image (the picture) and conversations. A picture is
read from disk when its row is used. `save_to_disk` and `push_to_hub` copy the files' bytes into the dataset, so that it
can be moved.

    from minillava.data.valid import read_records
    print(to_dataset({"detail": read_records("data_samples/detail.json")}, "data_samples/pictures"))
"""

from pathlib import Path

from minillava import paper
from minillava.data.records import RecordError, write_records
from minillava.datagen.generate import CAPTION, PlannedRecord, record_of
from minillava.datagen.messages import TYPES
from minillava.datagen.pictures import BadRecord, Picture, check_image


def mixture(records: dict[str, list[dict]], pictures: int) -> tuple[list[dict], str]:
    """Instruction records in the paper's proportions (58K : 23K : 77K), and how many of each type, as text.

    records: by type. The commonest of these types gets a record per picture; where fewer were made than the proportions
    ask for, all are taken. The types take turns, so that the first N records have these proportions too.
    """
    shares = {kind: share for kind, share in paper.DATA["instruct_types"].value.items() if kind in records}
    turns, said = [], []
    for kind, share in shares.items():
        wanted = -(-pictures * share // max(shares.values()))
        taken = records[kind][:wanted]
        turns += [((n + 0.5) / len(taken), record) for n, record in enumerate(taken)]
        said.append(f"{len(taken):,} {kind}" + (f" ({wanted:,} wanted)" if len(taken) < wanted else ""))
    return [record for _, record in sorted(turns, key=lambda turn: turn[0])], ", ".join(said)


def write_training_folder(records: dict, pictures: list[Picture], images: Path, out: Path, seed: int) -> str:
    """Write stage1.json, a caption of every picture, and stage2.json, the `mixture`; link `out`/images to the pictures.

    Returns what was written and how to train on it, as text. Raises OSError when a file cannot be written.
    """
    lines = [f"stage1.json: {len(pictures):,} pairs of a picture and a caption"]
    write_records((record_of(PlannedRecord(p, CAPTION), None, seed) for p in pictures), out / "stage1.json")
    if set(records) & set(TYPES):
        mixed, said = mixture(records, len(pictures))
        write_records(mixed, out / "stage2.json")
        lines.append(f"stage2.json, in the paper's proportions: {said}")
    link, target, home, more = out / "images", images.resolve(), out.resolve(), ""
    try:
        if link.resolve() != target:
            link.unlink(missing_ok=True)  # a link of a run with other pictures; a folder is an error
            within = target.is_relative_to(home)  # then `out` can be moved
            link.symlink_to(target.relative_to(home) if within else target, target_is_directory=True)
    except OSError as error:
        more = f" --images {images}"
        lines.append(f"{link}: no link to the pictures could be made ({error.strerror})")
    return "\n".join([*lines, f"train on it: minillava train {out}{more}"])


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

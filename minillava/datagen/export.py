"""Records in the forms that other tools read; `minillava generate --format` writes them beside our own.

    messages     NAME.json: `messages` whose parts are pictures and texts, and `images` (TRL, ms-swift)
    sharegpt     NAME.json: `conversations` and `images`, and a dataset_info.json (LLaMA-Factory)
    webdataset   NAME-000000.tar, ...: 000000000.json, a record as here, then its picture as 000000000.png
    parquet      NAME.parquet: as messages, with the pictures' bytes in `images` (`datasets`, the hub, TRL)

`data.records.normalise` reads the first two, and a row of the last, as the records that they were made from.

    from minillava.data.valid import read_records
    print(as_messages(read_records("data_samples/detail.json")[0]))
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from minillava.data.records import IMAGE_TOKEN, RecordError, pictures_of, write_records
from minillava.files import atomic_write, write_json

FORMS = ("llava", "messages", "sharegpt", "webdataset", "parquet")
SHARD = 1000  # records per file of a WebDataset
GROUP = 100  # records per row group of a Parquet file, which is what a reader holds in memory
ROLES = {"human": "user", "gpt": "assistant"}


def as_messages(record: dict) -> dict:
    """A record as `messages`: each content a list of parts, and a picture a part where `<image>` stood in the text."""
    messages = []
    for turn in record["conversations"]:
        texts = re.split(f"\n?({IMAGE_TOKEN})\n?", turn["value"])
        parts = [{"type": "image"} if t == IMAGE_TOKEN else {"type": "text", "text": t} for t in texts if t]
        messages.append({"role": ROLES[turn["from"]], "content": parts})
    return {"id": record["id"], "messages": messages, "images": pictures_of(record)}


def as_sharegpt(record: dict) -> dict:
    """A record with its pictures in `images`, as many as `<image>` stands in its text."""
    return {"id": record["id"], "conversations": record["conversations"], "images": pictures_of(record)}


def check_form(form: str, images: Iterable[str]) -> None:
    """Raise RecordError unless records of these pictures can be written in this form; before any money is spent.

    `datasets` takes a WebDataset's columns from the first five records of its first shard. A picture whose suffix none
    of these have would be left out without a word, so one suffix is asked of all.
    """
    if form == "parquet":
        try:
            import datasets  # noqa: F401
        except ModuleNotFoundError as error:
            raise RecordError(f"--format parquet: {error}; pip install datasets") from error
    kinds = sorted({_suffix(image) for image in images})
    if form == "webdataset" and (len(kinds) > 1 or kinds[0] in ("", "json")):  # .json is the record's own
        found = ", ".join(kind or "none" for kind in kinds)
        raise RecordError(f"--format webdataset: one suffix is needed for all pictures, not {found}; parquet takes any")


def write_as(form: str, records: dict[str, list[dict]], images: Path, out: Path) -> list[Path]:
    """Write records (file name -> records, each with one picture in `images`) into `out`; returns the files.

    form: of FORMS but llava. Each file is written whole or not at all. Raises OSError.
    """
    if form == "webdataset":
        return [path for name, some in records.items() for path in _write_shards(some, images, out, name)]
    if form == "parquet":
        return [_write_parquet(some, images, out / f"{name}.parquet") for name, some in records.items()]
    convert = {"messages": as_messages, "sharegpt": as_sharegpt}[form]
    for name, some in records.items():
        write_records(map(convert, some), out / f"{name}.json")
    if form == "sharegpt":
        columns = {"messages": "conversations", "images": "images"}
        about = {n: {"file_name": f"{n}.json", "formatting": "sharegpt", "columns": columns} for n in records}
        write_json(out / "dataset_info.json", about)
    return [out / f"{name}.json" for name in records]


def _suffix(image: str) -> str:
    """A picture's suffix as a WebDataset's member has it: jpg, png."""
    return PurePosixPath(image).suffix[1:].lower().replace("jpeg", "jpg")


def _write_shards(records: list[dict], images: Path, out: Path, name: str) -> list[Path]:
    """Shards of SHARD records, the same bytes in every run. Shards of a longer run before are removed."""
    written = []
    for first in range(0, len(records), SHARD):
        written.append(out / f"{name}-{first // SHARD:06}.tar")
        with atomic_write(written[-1]) as temporary, tarfile.open(temporary, "w") as shard:
            for number, record in enumerate(records[first : first + SHARD], first):
                picture = images / record["image"]
                members = {"json": json.dumps(record).encode(), _suffix(record["image"]): picture.read_bytes()}
                for suffix, data in members.items():
                    member = tarfile.TarInfo(f"{number:09}.{suffix}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))
    for old in set(out.glob(f"{name}-??????.tar")) - set(written):
        old.unlink()
    return written


def _write_parquet(records: list[dict], images: Path, path: Path) -> Path:
    """One file with `images` as pictures for `datasets`; a picture's path there is the record's own name for it."""
    from datasets import Features, Image, List, Value
    from pyarrow import Table, parquet

    part = {"type": Value("string"), "text": Value("string")}
    messages = List({"role": Value("string"), "content": List(part)})
    schema = Features({"id": Value("string"), "messages": messages, "images": List(Image())}).arrow_schema
    with atomic_write(path) as temporary, parquet.ParquetWriter(temporary, schema) as file:
        for first in range(0, len(records), GROUP):
            rows = [as_messages(record) for record in records[first : first + GROUP]]
            for row in rows:
                row["images"] = [{"bytes": (images / name).read_bytes(), "path": name} for name in row["images"]]
            file.write_table(Table.from_pylist(rows, schema))
    return path

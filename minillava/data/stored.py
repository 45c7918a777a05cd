"""Any number of records as samples on disk: encoded once and memory-mapped, so memory does not grow with their number.

Records that cannot be used, and records whose picture is missing or broken, are left out: named in left_out.jsonl,
counted in the table of records.txt, and together no more than an allowance. Each picture is opened once, before the
vision tower looks; a second run opens only those that are new or have changed. Samples on disk are used again unless
the records, a picture, the template, the length limit or the tokenizer changed, or the samples are damaged.

    FOLDER/ids.bin (int32), carries.bin (1 where there is loss), text.bin (id, pictures), ends.bin (3 per sample)
    FOLDER/about.json   what they were made from, and their checksums
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from minillava.data import IGNORE
from minillava.data.images import ImageError, open_picture
from minillava.data.records import IMAGE_TOKEN, RecordError, pictures_of
from minillava.data.samples import Sample, encode, without_stop
from minillava.data.template import Template
from minillava.data.valid import Tally, each_record, valid_records
from minillava.files import (
    READ_CHUNK,
    FileError,
    atomic_write,
    checksum,
    file_mark,
    read_checked,
    read_json,
    write_checked,
    write_text,
)

ALLOWED_BAD = 0.01  # the share of records that may be left out because they, or their pictures, are bad
TOGETHER = 256  # records whose pictures are opened together
DTYPES = {"ids": np.int32, "carries": np.uint8, "text": np.uint8, "ends": np.int64}  # file -> its numbers


class StoredSamples(Sequence):
    """Samples in a folder made by `store_samples`: `stored[n]` reads one from disk."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.ids, self.carries, self.text, ends = (
            np.memmap(self.folder / f"{name}.bin", dtype, "r") for name, dtype in DTYPES.items()
        )
        self.ends = ends.reshape(-1, 3)  # per sample: where it ends in ids and in text, and its number of pictures

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, n: int) -> Sample:
        if not 0 <= n < len(self.ends):
            raise IndexError(n)
        (a, c), (b, d) = self.ends[n - 1, :2] if n else (0, 0), self.ends[n, :2]
        ids = torch.from_numpy(self.ids[a:b].astype(np.int64))
        labels = ids.masked_fill(torch.from_numpy(self.carries[a:b] == 0), IGNORE)
        name, *images = json.loads(bytes(self.text[c:d]))
        return Sample(name, ids, labels, tuple(image for image in images if image is not None))

    def lengths(self, patches: int = 1) -> list[int]:
        """The number of tokens per sample, counting a picture as `patches` tokens. Reads no sample."""
        return (np.diff(self.ends[:, 0], prepend=0) + self.ends[:, 2] * (patches - 1)).tolist()

    def digest(self) -> str:
        """A hash that differs for other samples, as `data.samples.digest` does in memory. Reads the files once."""
        found = hashlib.sha256()
        for part in (self.ends, self.text, self.ids, self.carries):
            found.update(part)
        return found.hexdigest()[:16]

    def seen(self) -> str:
        """A hash that differs for other pictures under the same names."""
        return read_json(self.folder / "about.json")["seen"]

    def pictures(self) -> list[str]:
        """The names of all pictures, sorted, each once."""
        ends = self.ends[:, 1].tolist()
        found = (json.loads(bytes(self.text[c:d]))[1:] for c, d in zip([0, *ends], ends))
        return sorted({image for images in found for image in images if image is not None})


def store_samples(
    path: Path,
    images: Path,
    template: Template,
    tokenizer,
    longest: int,
    patches: int,
    folder: Path,
    say: Callable[[str], None] = print,
    progress: Callable[[int], None] = lambda done: None,
    chunk: int = READ_CHUNK,
    allow_bad: int | float = ALLOWED_BAD,
    limit: int | None = None,
) -> StoredSamples:
    """The records of `path` as samples in `folder`, which is written unless it holds these samples already.

    longest: the most tokens of a sample, counting each picture as `patches` tokens; longer ones are left out, and are
    not bad. allow_bad: how many records may be bad, a number or, as a float, a share; above 0 it always allows one.
    say: gets the table of what was taken, changed and left out. progress(number of records done) is called now and
    then. limit: only the first so many records that can be read. Next to `folder`, records.txt gets the table,
    left_out.jsonl a line for each record that is left out, and pictures.json what was found in the pictures, with a
    checksum of each, taken while it is opened anyway. Raises RecordError, with the table, when more records are bad or
    none is left.
    """
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    made_from = {
        "records": [str(path), file_mark(path)],
        "pictures": str(images),
        "longest": longest,
        "patches": patches,
        "template": repr(template),
        "tokenizer": hashlib.sha256(vocabulary).hexdigest(),
        "allow_bad": allow_bad,
        "limit": limit,
    }
    about, table, looked_at = folder / "about.json", folder.with_name("records.txt"), folder.with_name("pictures.json")
    looks = _checked(looked_at)
    if looks.get("folder") != str(images) or "pictures" not in looks:
        looks = {"folder": str(images), "pictures": {}}
    found = looks["pictures"]  # name of a picture -> [its mark, what is wrong with it or "", its file's checksum]
    kept = _checked(about)
    if table.exists() and kept == made_from | {"seen": kept.get("seen", "")}:
        if all(file_mark(images / name) == mark for name, (mark, *_) in found.items()):
            say(table.read_text(encoding="utf-8"))
            return StoredSamples(folder)

    def look(name):
        mark = file_mark(images / name)
        if name not in found or found[name][0] != mark:
            fault = _fault(images / name)
            found[name] = [mark, fault, None if fault else checksum(images / name)]

    with atomic_write(folder) as temporary, ExitStack() as stack:
        temporary.mkdir()
        files = {name: stack.enter_context(open(temporary / f"{name}.bin", "wb")) for name in DTYPES}
        log = stack.enter_context(open(folder.with_name("left_out.jsonl"), "w", encoding="utf-8"))
        pool = stack.enter_context(ThreadPoolExecutor(torch.get_num_threads()))
        stack.callback(lambda: write_checked(looked_at, looks))
        tally = Tally(lambda *row: log.write(json.dumps(dict(zip(("record", "why", "picture"), row))) + "\n"))
        records, seen = islice(valid_records(each_record(path, chunk), tally), limit), set()
        while some := list(islice(records, TOGETHER)):
            new = {name for record in some for name in pictures_of(record)} - seen
            list(pool.map(look, new))
            seen |= new
            for record in some:
                _encode(record, template, tokenizer, longest, patches, found, tally, files)
            progress(tally.read)
        for name in found.keys() - seen:
            del found[name]
        shown = tally.table(path)
        write_text(table, shown + "\n")
        bad = f"{path}: {tally.bad:,} of {tally.read:,} records cannot be used"
        share = isinstance(allow_bad, float)
        if tally.bad > (max(allow_bad * tally.read, allow_bad > 0) if share else allow_bad):
            allowed = f"{100 * allow_bad:g} %" if share else f"{allow_bad:,}"
            raise RecordError(
                f"{bad}, and at most {allowed} may be bad; mend them, or allow more with --allow-bad "
                f"(all of them: {log.name})\n{shown}"
            )
        if not files["ends"].tell():
            raise RecordError(f"{path}: no record is left\n{shown}")
        say(shown)
        for file in files.values():
            file.close()
        digest = hashlib.sha256()
        for name in sorted(found):
            digest.update(json.dumps([name, found[name][2]]).encode())
        made_from["seen"] = digest.hexdigest()[:16]
        write_checked(temporary / "about.json", made_from, (temporary / f"{name}.bin" for name in DTYPES))
        shutil.rmtree(folder, ignore_errors=True)
    return StoredSamples(folder)


def _checked(path: Path) -> dict:
    """What was written to a file of this folder; nothing where it, or a file that it names, is missing or damaged."""
    try:
        return read_checked(path) if path.exists() else {}
    except FileError as error:
        print(f"{error}; made again", file=sys.stderr)
        return {}


def _encode(
    record: dict, template: Template, tokenizer, longest: int, patches: int, found, tally: Tally, files
) -> None:
    """Write one record as a sample, or count why it is left out."""
    name, pictures = record["id"], pictures_of(record)
    for picture in pictures:
        if found[picture][1]:
            return tally.leave_out(name, found[picture][1], picture)
    marks = dict.fromkeys((template.stop, *tokenizer.all_special_tokens))  # in a text they would become control tokens
    stops = [mark for mark in marks if mark and mark != IMAGE_TOKEN and without_stop(record, mark) is not record]
    for stop in stops:
        record = without_stop(record, stop)
    try:
        sample = encode(record, template, tokenizer)
    except RecordError:  # the only errors that are left in a valid record
        return tally.leave_out(name, "no token carries loss, or the template leaves out a picture")
    if len(sample.ids) + (patches - 1) * len(pictures) > longest:
        return tally.leave_out(name, f"more than {longest:,} tokens, with its pictures (not counted as bad)", bad=False)
    tally.change(name, [f"{stop} inside a text becomes {stop[:-1]}, as it is a mark of the format" for stop in stops])
    files["ids"].write(sample.ids.numpy().astype(np.int32).tobytes())
    files["carries"].write((sample.labels != IGNORE).numpy().astype(np.uint8).tobytes())
    files["text"].write(json.dumps([name, *(pictures or [None])]).encode())
    ends = [files["ids"].tell() // 4, files["text"].tell(), len(pictures)]
    files["ends"].write(np.array(ends, dtype=np.int64).tobytes())


def _fault(path: Path) -> str:
    """Why a picture cannot be used, or "". It is decoded whole, as a download that broke off has a good header."""
    try:
        open_picture(path)
    except (ImageError, OSError):  # OSError: a name that is too long
        return "a picture is missing" if file_mark(path) is None else "a picture cannot be read"
    return ""

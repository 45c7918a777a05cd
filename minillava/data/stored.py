"""Records of any number as samples on disk: encoded once, memory-mapped, so memory does not grow with their number.

Notable: the JSON is read a record at a time. Of what breaks the format the first ten are named and the rest counted.
Records whose picture is missing or that are too long are left out and counted, the former up to a share. What is there
already is used again unless records, pictures, template, length or tokenizer are others.

    FOLDER/ids.bin (int32), carries.bin (1 where there is loss), text.bin (id and picture), ends.bin (three a sample)
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from minillava.data import IGNORE
from minillava.data.records import RecordError
from minillava.data.samples import Sample, encode
from minillava.data.template import Template
from minillava.data.valid import CHUNK, check, each_record
from minillava.text import listed

MISSING = 0.01  # the share of records whose picture may be missing
KINDS = {"ids": np.int32, "carries": np.uint8, "text": np.uint8, "ends": np.int64}


class Stored(Sequence):
    """Samples in a folder that `keep` made: `stored[n]` reads one from the disk."""

    def __init__(self, folder: Path):
        self.ids, self.carries, self.text, ends = (
            np.memmap(Path(folder) / f"{name}.bin", kind, "r") for name, kind in KINDS.items()
        )
        self.ends = ends.reshape(
            -1, 3
        )  # (samples, 3): where each ends in ids and in text, and whether it has a picture

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, n: int) -> Sample:
        if not 0 <= n < len(self.ends):
            raise IndexError(n)
        (a, c), (b, d) = self.ends[n - 1, :2] if n else (0, 0), self.ends[n, :2]
        ids = torch.from_numpy(self.ids[a:b].astype(np.int64))
        labels = ids.masked_fill(torch.from_numpy(self.carries[a:b] == 0), IGNORE)
        name, image = json.loads(bytes(self.text[c:d]))
        return Sample(name, ids, labels, image)

    def lengths(self, patches: int = 1) -> list[int]:
        """Tokens of every sample, its picture counted as `patches` of them; no sample is read."""
        return (np.diff(self.ends[:, 0], prepend=0) + self.ends[:, 2] * (patches - 1)).tolist()

    def digest(self) -> str:
        """What `data.samples.digest` is of samples in memory: other records, another digest. The files are read once."""
        whole = hashlib.sha256()
        for part in (self.ends, self.text, self.ids, self.carries):
            whole.update(part)
        return whole.hexdigest()[:16]

    def pictures(self) -> list[str]:
        """The names of all pictures, in order; each once."""
        ends = self.ends[:, 1].tolist()
        found = (json.loads(bytes(self.text[c:d]))[1] for c, d in zip([0, *ends], ends))
        return sorted({image for image in found if image})


def keep(
    path: Path, images: Path, template: Template, tokenizer, longest: int, patches: int, folder: Path,
    say: Callable[[str], None] = print, progress: Callable[[int], None] = lambda done: None, chunk: int = CHUNK,
) -> Stored:  # fmt: skip
    """The records of `path` as samples in `folder`, made now unless they are there from all the same.

    longest: tokens of a sample, its `patches` among them. progress(how many records are done) is called now and then.
    Raises RecordError that lists the first ten records that break the format, or where more than 1 % of the pictures are
    missing in `images`, or where no record is left.
    """
    made_from = {
        "records": [str(path), *_mark(path)], "pictures": [str(images), *_mark(images)], "longest": longest,
        "patches": patches, "template": repr(template),
        "tokenizer": hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest(),
    }  # fmt: skip
    if (folder / "about.json").exists() and json.loads((folder / "about.json").read_text()) == made_from:
        return Stored(folder)
    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    wrong, missing, long, count = [], [], 0, 0
    with open(beside / "ids.bin", "wb") as ids, open(beside / "carries.bin", "wb") as carries, \
            open(beside / "text.bin", "wb") as text, open(beside / "ends.bin", "wb") as ends:  # fmt: skip
        for record in each_record(path, chunk):
            count += 1
            if count % 1000 == 0:
                progress(count)
            try:
                check(record)
                sample = encode(record, template, tokenizer)
            except RecordError as error:
                wrong.append(str(error))
                continue
            if sample.image and not (images / sample.image).is_file():
                missing.append(sample.image)
            elif len(sample.ids) + (patches - 1 if sample.image else 0) > longest:
                long += 1
            else:
                ids.write(sample.ids.numpy().astype(np.int32).tobytes())
                carries.write((sample.labels != IGNORE).numpy().astype(np.uint8).tobytes())
                text.write(json.dumps([sample.id, sample.image]).encode())
                ends.write(np.array([ids.tell() // 4, text.tell(), bool(sample.image)], dtype=np.int64).tobytes())
        kept = ends.tell()
    if wrong:
        raise RecordError(f"{path}: {len(wrong):,} of {count:,} records cannot be used:\n{listed(wrong)}")
    if len(missing) > MISSING * count:
        raise RecordError(
            f"{path}: {len(missing):,} of {count:,} pictures are not in {images}; fetch them, or leave their records "
            f"out: {100 * MISSING:g} % may be missing\n{listed(missing)}"
        )
    for some, why in ((len(missing), "without their picture"), (long, f"of more than {longest} tokens")):
        if some:
            say(f"{path}: {some:,} records {why} are left out")
    if not kept:
        raise RecordError(f"{path}: no record is left")
    (beside / "about.json").write_text(json.dumps(made_from))
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return Stored(folder)


def _mark(path: Path) -> list[int]:
    """Size and time of a file, the time of a folder: what changes when somebody changes it."""
    about = path.stat() if path.exists() else None
    return [about.st_mtime_ns, *([about.st_size] if path.is_file() else [])] if about else []

"""Any number of records as samples on disk: encoded once and memory-mapped, so memory does not grow with their number.

Records that break the format are an error. Records that are too long are left out and counted, and so are records
without their picture, up to a limit. Samples on disk are used again unless the records, the pictures' folder, the
template, the length limit or the tokenizer changed.

    FOLDER/ids.bin (int32), carries.bin (1 where there is loss), text.bin (id, picture), ends.bin (3 per sample)
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from minillava.data import IGNORE
from minillava.data.records import RecordError
from minillava.data.samples import Sample, encode
from minillava.data.template import Template
from minillava.data.valid import READ_CHUNK, check_untrusted, each_record
from minillava.files import atomic_write
from minillava.text import listed

MAX_MISSING = 0.01  # the share of records whose picture may be missing
DTYPES = {"ids": np.int32, "carries": np.uint8, "text": np.uint8, "ends": np.int64}  # file -> its numbers


class StoredSamples(Sequence):
    """Samples in a folder made by `store_samples`: `stored[n]` reads one from disk."""

    def __init__(self, folder: Path):
        self.ids, self.carries, self.text, ends = (
            np.memmap(Path(folder) / f"{name}.bin", dtype, "r") for name, dtype in DTYPES.items()
        )
        self.ends = ends.reshape(-1, 3)  # per sample: where it ends in ids and in text, and whether it has a picture

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
        """The number of tokens per sample, counting a picture as `patches` tokens. Reads no sample."""
        return (np.diff(self.ends[:, 0], prepend=0) + self.ends[:, 2] * (patches - 1)).tolist()

    def digest(self) -> str:
        """A hash that differs for other samples, as `data.samples.digest` does in memory. Reads the files once."""
        found = hashlib.sha256()
        for part in (self.ends, self.text, self.ids, self.carries):
            found.update(part)
        return found.hexdigest()[:16]

    def pictures(self) -> list[str]:
        """The names of all pictures, sorted, each once."""
        ends = self.ends[:, 1].tolist()
        found = (json.loads(bytes(self.text[c:d]))[1] for c, d in zip([0, *ends], ends))
        return sorted({image for image in found if image})


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
) -> StoredSamples:
    """The records of `path` as samples in `folder`, which is written unless it holds these samples already.

    longest: the most tokens of a sample, counting its picture as `patches` tokens. progress(number of records done) is
    called now and then. Raises RecordError when records break the format, when more than `MAX_MISSING` of the pictures
    are not in `images`, or when no record is left.
    """
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    made_from = {
        "records": [str(path), *_mark(path)],
        "pictures": [str(images), *_mark(images)],
        "longest": longest,
        "patches": patches,
        "template": repr(template),
        "tokenizer": hashlib.sha256(vocabulary).hexdigest(),
    }
    about = folder / "about.json"
    if about.exists() and json.loads(about.read_text()) == made_from:
        return StoredSamples(folder)
    wrong, missing, long, count = [], [], 0, 0
    with atomic_write(folder, sync=False) as temporary, ExitStack() as stack:
        temporary.mkdir()
        files = {name: stack.enter_context(open(temporary / f"{name}.bin", "wb")) for name in DTYPES}
        for record in each_record(path, chunk):
            count += 1
            if count % 1000 == 0:
                progress(count)
            try:
                check_untrusted(record)
                sample = encode(record, template, tokenizer)
            except RecordError as error:
                wrong.append(str(error))
                continue
            if sample.image and not (images / sample.image).is_file():
                missing.append(sample.image)
            elif len(sample.ids) + (patches - 1 if sample.image else 0) > longest:
                long += 1
            else:
                _append(sample, files)
        if wrong:
            raise RecordError(f"{path}: {len(wrong):,} of {count:,} records cannot be used:\n{listed(wrong)}")
        if len(missing) > MAX_MISSING * count:
            raise RecordError(
                f"{path}: {len(missing):,} of {count:,} pictures are not in {images}; fetch them, or remove their "
                f"records: at most {100 * MAX_MISSING:g} % may be missing\n{listed(missing)}"
            )
        for left_out, why in ((len(missing), "without their picture"), (long, f"of more than {longest} tokens")):
            if left_out:
                say(f"{path}: {left_out:,} records {why} are left out")
        if not files["ends"].tell():
            raise RecordError(f"{path}: no record is left")
        (temporary / "about.json").write_text(json.dumps(made_from))
        shutil.rmtree(folder, ignore_errors=True)
    return StoredSamples(folder)


def _append(sample: Sample, files: dict) -> None:
    """Write a sample at the end of the files of DTYPES."""
    files["ids"].write(sample.ids.numpy().astype(np.int32).tobytes())
    files["carries"].write((sample.labels != IGNORE).numpy().astype(np.uint8).tobytes())
    files["text"].write(json.dumps([sample.id, sample.image]).encode())
    ends = [files["ids"].tell() // 4, files["text"].tell(), bool(sample.image)]
    files["ends"].write(np.array(ends, dtype=np.int64).tobytes())


def _mark(path: Path) -> list[int]:
    """Numbers that change when a file or folder does: its time, and a file's size. Empty when it does not exist."""
    if not path.exists():
        return []
    about = path.stat()
    return [about.st_mtime_ns, about.st_size] if path.is_file() else [about.st_mtime_ns]

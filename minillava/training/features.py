"""The frozen vision tower's features of all pictures, on disk: computed once for all stages, epochs and ablations.

The numbers are memory-mapped, so a batch reads only its own pictures. The index says what they were made from: the
vision tower's weights, the feature layer and the pictures' preparation, and for each picture its size and times. A
second run computes only pictures that are new or have changed, and those whose numbers are not as they were written,
and adds them at the end; after another vision tower, layer or preparation it starts again.

    PATH       a JSON line with the key and the shape (P, Dv), then one per row of numbers: [picture, mark, checksum]
    PATH.bin   the rows: (P, Dv) in bfloat16 each
"""

import hashlib
import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from minillava.data.images import Preparation, open_picture, pixels
from minillava.files import FileError, file_mark, write_jsonl
from minillava.machine import compute_dtype
from minillava.model import Llava
from minillava.model.llava import to_device

VISION_BATCH = 64  # pictures at a time
READERS = 8  # threads that open and resize pictures for a GPU, each with one picture in memory
Progress = Callable[[int, int], None]  # (pictures done, of how many)


class Features:
    """Zv of every picture: name -> (P, Dv), stored in bfloat16. index: name -> row in values (N, P, Dv).

    checks: the checksum of every picture's numbers in the file `path`, compared whenever they are read; none in memory.
    """

    def __init__(self, index: dict[str, int], values: torch.Tensor, checks: dict[str, int] | None = None, path=None):
        self.index, self.values, self.checks, self.path = index, values, checks, path

    def of(self, names: Sequence[str]) -> list[torch.Tensor]:
        """Those of these pictures as they are stored, (P, Dv) in bfloat16 each. Raises FileError."""
        for name in names:
            if not self.holds(name):
                what = f"no features of {name}, or damaged ones"
                raise FileError(f"{self.path}: {what}; remove this file to make it again")
        return [self.values[self.index[name]] for name in names]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.of([name])[0].float()

    def holds(self, name: str) -> bool:
        """Whether this picture's numbers are here, as they were written."""
        if self.checks is None or name not in self.index:
            return name in self.index
        return _checksum(name, self.values[self.index[name]]) == self.checks[name]

    @classmethod
    def compute(
        cls, model: Llava, folder: Path, names: list[str], preparation: Preparation, progress: Progress
    ) -> "Features":
        """The features of these pictures of a folder, in memory."""
        values = torch.cat([some.cpu() for some in _batches(model, folder, names, preparation, progress)])
        return cls({name: n for n, name in enumerate(names)}, values)

    @classmethod
    def cached(
        cls, path: Path, model: Llava, folder: Path, names: list[str], preparation: Preparation, progress: Progress
    ) -> "Features":
        """Those in the file `path`, after computing the ones of these pictures that it does not hold yet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        key, shape = fingerprint(model, preparation), [model.config.vision.num_patches, model.config.vision.hidden_size]
        size, rows = 2 * shape[0] * shape[1], []  # size: bytes per picture
        try:
            about, rows = _read_index(path) if path.exists() else ({}, [])
            if rows and about != {"key": key, "shape": shape}:
                raise FileError(f"{path}: made from another vision tower, layer or preparation")
        except FileError as error:
            print(f"{error}; made again", file=sys.stderr)
            rows = []
        write_jsonl([{"key": key, "shape": shape}, *rows], path)
        known, marks = {name: mark for name, mark, _ in rows}, {name: file_mark(folder / name) for name in names}
        with open(_bin(path), "ab") as file, open(path, "a", encoding="utf-8") as index:
            file.truncate(len(rows) * size)  # without a batch that is not in the index
            before = cls.load(path)
            todo = [name for name in names if known.get(name, 0) != marks[name] or not before.holds(name)]
            done = len(names) - len(todo)
            for values in _batches(model, folder, todo, preparation, lambda n, _: progress(done + n, len(names))):
                values = values.cpu()
                file.write(values.view(torch.int16).numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())
                some, todo = todo[: len(values)], todo[len(values) :]
                lines = [[name, marks[name], _checksum(name, row)] for name, row in zip(some, values)]
                index.write("".join(json.dumps(line) + "\n" for line in lines))
                index.flush()
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "Features":
        """Those in a file, memory-mapped; what it was made from is not compared. Raises FileError."""
        about, rows = _read_index(path)
        shape = torch.Size((len(rows), *about["shape"]))
        values = (
            torch.from_file(str(_bin(path)), False, shape.numel(), dtype=torch.bfloat16) if rows else torch.empty(0)
        )
        index, checks = {name: n for n, (name, *_) in enumerate(rows)}, {name: check for name, _, check in rows}
        return cls(index, values.view(shape), checks, path)


class LiveFeatures:
    """In place of `Features` where the disk has no room for them: each is computed whenever it is asked for."""

    def __init__(self, model: Llava, folder: Path, preparation: Preparation):
        self.model, self.folder, self.preparation = model, folder, preparation

    def of(self, names: Sequence[str]) -> list[torch.Tensor]:
        """Those of these pictures, (P, Dv) in bfloat16 each, on the vision tower's device."""
        return [row for some in _batches(self.model, self.folder, names, self.preparation) for row in some]


def _batches(
    model: Llava, folder: Path, names: Sequence[str], preparation: Preparation, progress: Progress = lambda *_: None
) -> Iterator[torch.Tensor]:
    """The features of the pictures in turn, VISION_BATCH at a time: (up to VISION_BATCH, P, Dv) in bfloat16."""
    device = next(model.vision_tower.parameters()).device
    dtype, readers = compute_dtype(device.type), READERS if device.type == "cuda" else 1  # a CPU is busy with the tower

    def view(name):
        return pixels([open_picture(folder / name)], preparation)

    with ThreadPoolExecutor(readers) as pool:
        for start in range(0, len(names), VISION_BATCH):
            views = torch.cat(list(pool.map(view, names[start : start + VISION_BATCH])))
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                yield model.features(to_device(views, device)).to(torch.bfloat16)
            progress(min(start + VISION_BATCH, len(names)), len(names))


def fingerprint(model: Llava, preparation: Preparation) -> str:
    """A digest of all that features depend on besides the picture: the tower's weights, the layer, the preparation."""
    settings = (model.config.vision, model.config.select_layer, preparation, VISION_BATCH)
    digest = hashlib.sha256(repr(settings).encode())
    for name, tensor in sorted(model.vision_tower.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _bin(path: Path) -> Path:
    return path.with_name(f"{path.name}.bin")


def _checksum(name: str, row: torch.Tensor) -> int:
    """CRC-32 of a picture's name and numbers, at several GB per second: detects accidental damage."""
    return zlib.crc32(row.view(torch.int16).numpy(), zlib.crc32(name.encode()))


def _read_index(path: Path) -> tuple[dict, list]:
    """(key and shape, [picture, mark, checksum] per row of numbers), without a row that was only partly written.

    Raises FileError for a file that is damaged elsewhere.
    """
    try:
        about, *rows = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])
        kept = _bin(path).stat().st_size // (2 * math.prod(about["shape"])) if _bin(path).exists() else 0
        return about, [(name, mark, check) for name, mark, check in rows[:kept]]
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise FileError(f"{path}: not an index of features ({error})") from error

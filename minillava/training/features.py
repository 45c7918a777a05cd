"""The frozen vision tower's features of all pictures, on disk: computed once for all stages, epochs and ablations.

The file is a safetensors of one tensor, memory-mapped, so a batch reads only its own pictures. It says what it was made
from: the vision tower's weights, the feature layer, the pictures' preparation, and each picture's size and time. Where
any of these has changed, it is made again. A file that was only partly written is completed.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from minillava.data.images import Preparation, open_picture, pixels
from minillava.files import atomic_write
from minillava.machine import compute_dtype
from minillava.model import Llava

VISION_BATCH = 64  # pictures at a time
Progress = Callable[[int, int], None]  # (pictures done, of how many)


class Features:
    """Zv of every picture: name -> (P, Dv), stored in bfloat16. index: name -> row in values (N, P, Dv)."""

    def __init__(self, index: dict[str, int], values: torch.Tensor):
        self.index, self.values = index, values

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[self.index[name]].float()

    @classmethod
    def compute(
        cls, model: Llava, folder: Path, names: list[str], preparation: Preparation, progress: Progress
    ) -> "Features":
        """The features of these pictures of a folder, in memory."""
        values = torch.cat(list(_batches(model, folder, names, preparation, progress)))
        return cls({name: n for n, name in enumerate(names)}, values)

    @classmethod
    def cached(
        cls, path: Path, model: Llava, folder: Path, names: list[str], preparation: Preparation, progress: Progress
    ) -> "Features":
        """Those in the file `path`, made now unless it holds those of this vision tower and these pictures."""
        pictures = json.dumps([_size_and_time(folder / name) for name in names])
        made_from = {"key": fingerprint(model, preparation), "pictures": pictures, "names": "\n".join(names)}
        if path.exists():
            why = _difference(path, made_from)
            if not why:
                return cls.load(path)
            print(f"{path}: {why}; the pictures are looked at again", file=sys.stderr)
        P, width = model.config.vision.num_patches, model.config.vision.hidden_size
        row = P * width * 2  # bytes per picture
        tensor = {"dtype": "BF16", "shape": [len(names), P, width], "data_offsets": [0, len(names) * row]}
        header = json.dumps({"__metadata__": made_from, "features": tensor}).encode()
        header += b" " * (-len(header) % 8)
        start, temporary = len(header).to_bytes(8, "little") + header, path.with_suffix(".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        done = 0  # pictures in an earlier run's temporary file, in whole batches
        if temporary.exists():
            with open(temporary, "rb") as file:
                same = file.read(len(start)) == start
            done = (temporary.stat().st_size - len(start)) // row // VISION_BATCH * VISION_BATCH if same else 0
        with open(temporary, "r+b" if done else "wb") as file:
            if not done:
                file.write(start)
            file.truncate(len(start) + done * row)
            file.seek(0, 2)
            rest = names[done:]
            for values in _batches(model, folder, rest, preparation, lambda n, _: progress(done + n, len(names))):
                file.write(values.view(torch.int16).numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return cls.load(path)

    def save(self, path: Path) -> None:
        """Write a file that `load` reads."""
        with atomic_write(path) as temporary:
            save_file({"features": self.values}, temporary, metadata={"names": "\n".join(self.index)})

    @classmethod
    def load(cls, path: Path) -> "Features":
        """Those in a file, memory-mapped; what it was made from is not compared."""
        with safe_open(path, "pt") as file:
            names = file.metadata()["names"].split("\n")
            return cls({name: n for n, name in enumerate(names)}, file.get_tensor("features"))


class LiveFeatures:
    """In place of `Features` where the disk has no room for them: each is computed whenever it is asked for."""

    def __init__(self, model: Llava, folder: Path, preparation: Preparation):
        self.model, self.folder, self.preparation = model, folder, preparation

    def __getitem__(self, name: str) -> torch.Tensor:
        return next(_batches(self.model, self.folder, [name], self.preparation))[0].float()


def _batches(
    model: Llava, folder: Path, names: list[str], preparation: Preparation, progress: Progress = lambda *_: None
) -> Iterator[torch.Tensor]:
    """The features of the pictures in turn, VISION_BATCH at a time: (up to VISION_BATCH, P, Dv) in bfloat16."""
    device = next(model.vision_tower.parameters()).device
    dtype = compute_dtype(device.type)
    for start in range(0, len(names), VISION_BATCH):
        pictures = (open_picture(folder / name) for name in names[start : start + VISION_BATCH])  # one at a time
        views = pixels(pictures, preparation).to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            yield model.features(views).to("cpu", torch.bfloat16)
        progress(min(start + VISION_BATCH, len(names)), len(names))


def fingerprint(model: Llava, preparation: Preparation) -> str:
    """A digest of all that features depend on besides the picture: the tower's weights, the layer, the preparation."""
    settings = (model.config.vision, model.config.select_layer, preparation, VISION_BATCH)
    digest = hashlib.sha256(repr(settings).encode())
    for name, tensor in sorted(model.vision_tower.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _difference(path: Path, made_from: dict[str, str]) -> str:
    """Why a file of features cannot be used, or "" where it can."""
    try:
        with safe_open(path, "pt") as file:
            stated = file.metadata() or {}
    except SafetensorError:
        return "incomplete"
    if stated.get("key") != made_from["key"]:
        return "made from another vision tower, layer or preparation"
    return "" if made_from.items() <= stated.items() else "made from other pictures"


def _size_and_time(path: Path) -> str:
    status = path.stat() if path.exists() else open_picture(path)  # raises an error that says what is wrong
    return f"{status.st_size} {status.st_mtime_ns}"

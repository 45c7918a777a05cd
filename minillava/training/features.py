"""What the frozen vision tower sees in every picture, kept on disk: looked at once for stages, epochs and ablations.

Notable: a file is a safetensors of one tensor, memory-mapped, so a batch reads only its own pictures. It says what it was
made from - the vision tower's weights, the feature layer, how pictures are prepared, and of every picture its size and time - and
where anything of that is no longer so, it is made again. A file half made is gone on with.
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

from minillava.data.images import open_picture, pixels
from minillava.files import whole
from minillava.machine import compute_dtype
from minillava.model import Llava

CHUNK = 64  # pictures at a time


class Features:
    """Zv of every picture: name -> (P, Dv), stored in bfloat16."""

    def __init__(self, table: dict[str, int], values: torch.Tensor):
        self.table, self.values = table, values

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[self.table[name]].float()

    @classmethod
    def of(
        cls, model: Llava, folder: Path, names: list[str], mean, std, progress: Callable[[int, int], None]
    ) -> "Features":
        """Look at every picture of a folder with the frozen vision tower, and keep what is seen in memory."""
        parts = list(_look(model, folder, names, mean, std, progress))
        return cls({name: n for n, name in enumerate(names)}, torch.cat(parts))

    @classmethod
    def kept(
        cls, path: Path, model: Llava, folder: Path, names: list[str], mean, std, progress: Callable[[int, int], None]
    ) -> "Features":
        """Those in `path`, made now where they are not there or not of this vision tower and these pictures."""
        made_from = {"key": key(model, mean, std), "pictures": json.dumps([_mark(folder / name) for name in names])}
        made_from |= {"names": "\n".join(names)}
        if path.exists():
            try:
                with safe_open(path, "pt") as file:
                    stated = file.metadata() or {}
            except SafetensorError:
                stated = None
            wrong = [what for what in made_from if (stated or {}).get(what) != made_from[what]]
            if not wrong:
                return cls.load(path)
            what = "another vision tower, layer or preparation" if "key" in wrong else "other pictures"
            why = "torn" if stated is None else f"made from {what}"
            print(f"{path}: {why}; the pictures are looked at again", file=sys.stderr)
        P, width = model.config.vision.num_patches, model.config.vision.hidden_size
        row = P * width * 2  # bytes
        about = {"dtype": "BF16", "shape": [len(names), P, width], "data_offsets": [0, len(names) * row]}
        header = json.dumps({"__metadata__": made_from, "features": about}).encode()
        header += b" " * (-len(header) % 8)
        start, beside = len(header).to_bytes(8, "little") + header, path.with_suffix(".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        done = 0
        if beside.exists():
            with open(beside, "rb") as file:
                same = file.read(len(start)) == start
            done = (beside.stat().st_size - len(start)) // row // CHUNK * CHUNK if same else 0
        with open(beside, "r+b" if done else "wb") as file:
            if not done:
                file.write(start)
            file.truncate(len(start) + done * row)
            file.seek(0, 2)
            for part in _look(model, folder, names[done:], mean, std, lambda n, _: progress(done + n, len(names))):
                file.write(part.view(torch.int16).numpy().tobytes())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        return cls.load(path)

    def save(self, path: Path) -> None:
        with whole(path) as temporary:
            save_file({"features": self.values}, temporary, metadata={"names": "\n".join(self.table)})

    @classmethod
    def load(cls, path: Path) -> "Features":
        """Those in a file, whatever it was made from; memory-mapped."""
        with safe_open(path, "pt") as file:
            names = file.metadata()["names"].split("\n")
            return cls({name: n for n, name in enumerate(names)}, file.get_tensor("features"))


class Live:
    """In the place of `Features`, where these do not fit on the disk: every picture is looked at when it is asked for."""

    def __init__(self, model: Llava, folder: Path, mean, std):
        self.model, self.folder, self.normal = model, folder, (mean, std)

    def __getitem__(self, name: str) -> torch.Tensor:
        return next(_look(self.model, self.folder, [name], *self.normal))[0].float()


def _look(
    model: Llava, folder: Path, names: list[str], mean, std, progress=lambda done, count: None
) -> Iterator[torch.Tensor]:
    """(up to CHUNK, P, Dv) in bfloat16 of the pictures in turn."""
    size, device = model.config.vision.image_size, next(model.vision_tower.parameters()).device
    dtype = compute_dtype(device.type)
    for start in range(0, len(names), CHUNK):
        pictures = [open_picture(folder / name) for name in names[start : start + CHUNK]]
        views = pixels(pictures, size, mean, std).to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            yield model.features(views).to("cpu", torch.bfloat16)
        progress(min(start + CHUNK, len(names)), len(names))


def key(model: Llava, mean, std) -> str:
    """A digest of all that decides what is seen in a picture: the vision tower's weights, the layer, the preparation."""
    found = hashlib.sha256(
        repr((model.config.vision, model.config.select_layer, tuple(mean), tuple(std), CHUNK)).encode()
    )
    for name, tensor in sorted(model.vision_tower.state_dict().items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _mark(path: Path) -> str:
    about = path.stat() if path.exists() else open_picture(path)  # which says what is wrong
    return f"{about.st_size} {about.st_mtime_ns}"

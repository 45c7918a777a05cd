"""Weights in torch's own files (pytorch_model.bin), which are pickles in a zip. Nothing in them runs.

torch.load(weights_only=True) builds named tensors and refuses everything else. mmap=True reads only what is used, so
that memory never holds a whole file.

Try it: `{name: t.shape for name, t in PickledFiles().tensors("pytorch_model.bin").items()}`.
"""

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch

from minillava.errors import CheckpointError
from minillava.text import few

KINDS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}  # in safetensors
# What was read stays in memory until the file is closed. To open one of 400 tensors takes 30 ms, so not for each tensor.
MAPPED_BYTES = 16 << 20


def load_pickle(path):
    """The tensors of a torch file by name, mapped, not yet read. Raises CheckpointError for anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(file.compress_type for file in archive.infolist()):  # torch would take the packed bytes for numbers
                raise CheckpointError(f"{path}: a compressed archive, not a file that torch wrote")
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        raise CheckpointError(f"{path}: not only tensors, which could run code; not loaded") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path}: incomplete, or not written by torch 1.6 or later. If its size is right, it is in the older format: "
            "rewrite it with torch.save(torch.load(FILE, weights_only=True), FILE)"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle raises errors of many kinds
        said = f"{type(error).__name__}: {str(error).partition('. ')[0]}"
        raise CheckpointError(f"{path}: cannot be read ({said}); fetch it again") from error
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: not a file of named tensors but a {type(stored).__name__}")
    wrong = [name for name, value in stored.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if wrong:
        raise CheckpointError(f"{path}: not a file of named tensors: {few(map(str, wrong))}")
    return stored


class PickledFiles:
    """The torch files of one folder. One of them is mapped at a time, and anew after every MAPPED_BYTES."""

    def __init__(self):
        self.path, self.mapped, self.bytes = None, {}, 0

    def tensors(self, path):
        """{name: PickledTensor} of a file. Raises CheckpointError that names it."""
        return {
            name: PickledTensor(self, path, name, tuple(t.shape), _kind(t)) for name, t in load_pickle(path).items()
        }

    def read(self, path, key, dtype, device):
        """A copy of one tensor."""
        if path != self.path or self.bytes >= MAPPED_BYTES:
            self.mapped = {}  # closed before it is opened again
            self.path, self.mapped, self.bytes = path, load_pickle(path), 0
        tensor = self.mapped[key].detach()
        self.bytes += tensor.nbytes
        return tensor.to(device=device, dtype=dtype, copy=True, memory_format=torch.contiguous_format)


class PickledTensor(NamedTuple):
    """A tensor in a torch file, not yet read."""

    files: PickledFiles
    file: Path
    key: str
    shape: tuple
    kind: str  # F32, BF16, ... as in safetensors, or torch's word for what is not used here

    def read(self, dtype=None, device="cpu"):
        """Its values in memory. dtype None keeps the stored type."""
        return self.files.read(self.file, self.key, dtype, device)


def _kind(tensor):
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return f"{tensor.layout} on {tensor.device}".removeprefix("torch.")
    return KINDS.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))

"""Checkpoint folders as files: found here or on the hub, read tensor by tensor, written whole or not at all.

Notable
- `find` takes a local folder or a hub id. With HF_HUB_OFFLINE=1 an id is looked up in the cache only; pickle and code
  are never fetched.
- `fill` is strict: before a tensor is read, every name and shape in the files is compared with what the config asks for.
  Then each tensor goes straight to its device and precision, and its file is closed again: beside the model itself
  memory holds one stored tensor. One that is not a number is an error that names it.
- `write` puts files beside their place, flushes them to disk and only then renames: a crash leaves the old ones whole.

Try it: `{name: t.shape for name, t in open_tensors("data_samples/weights/vision_tower").items()}`.
"""

import json
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from minillava.errors import UserError
from minillava.files import on_disk
from minillava.text import few

FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # of a hub repository: no code, no pickle
# Tables that older versions of transformers stored although they follow from the config.
DERIVED = (".position_ids", ".rotary_emb.inv_freq")
FLOATS = ("F64", "F32", "F16", "BF16")  # quantised ones mean nothing without their scales

# What a config raises on the way to a model where a size in it is none.
SENSELESS = (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RuntimeError)


class CheckpointError(UserError):
    """A folder does not hold what it says, or cannot be read or written; the message names it."""


class Stored(NamedTuple):
    """A tensor in a safetensors file, not yet read."""

    file: Path
    key: str
    shape: tuple
    kind: str  # F32, BF16, ...: safetensors' name of its type

    def read(self, dtype=None, device="cpu"):
        """A copy of its own in memory; the file is closed. dtype None keeps what is stored."""
        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.key).to(device=device, dtype=dtype, copy=True)


def find(source, also=()):
    """The folder that `source` means: itself, or where a hub id ("owner/name") was fetched to or lies in the cache.

    also: names of further files to fetch. Raises CheckpointError that says what was looked for and where.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{source} is a file; a checkpoint is a folder")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise CheckpointError(f"{source}: no such folder, and not a hub id of the form owner/name")
    from huggingface_hub import constants, snapshot_download  # takes a while, and most runs never need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(str(source), allow_patterns=[*FETCHED, *also]))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        raise CheckpointError(
            f"{source}: no such folder here, and as a hub id neither in the cache {constants.HF_HUB_CACHE} nor to be "
            f"fetched{offline}: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error


def origin(source):
    """What to call `source` in a checkpoint made from it: the hub id, or the name of a local folder (not its path)."""
    return Path(source).expanduser().resolve().name if Path(source).expanduser().exists() else str(source)


def read_json(path):
    """The object in a JSON file, or a CheckpointError that names the file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


@contextmanager
def meant(path):
    """The object in a JSON file, to be understood within; what breaks there is a CheckpointError that names the file."""
    written = read_json(path)
    try:
        yield written
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except SENSELESS as error:
        raise CheckpointError(f"{path}: {type(error).__name__}, {error}: not a config that makes sense") from error


def open_tensors(folder, skip=()):
    """{name: Stored} over one model.safetensors or all shards of its index; reads names and shapes only."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists():
        shards = {"model.safetensors": None}
    elif index.exists():
        with meant(index) as written:
            where = written["weight_map"]
            shards = {shard: {k for k, s in where.items() if s == shard} for shard in sorted(set(where.values()))}
            if any(Path(shard).name != shard for shard in shards):
                raise ValueError("a shard lies beside its index")
    else:
        pickled = " Its .bin is pickle and could run code: convert it first." if any(folder.glob("*.bin")) else ""
        raise CheckpointError(f"{folder}: no model.safetensors and no {index.name}.{pickled}")
    stored = {}
    for shard, promised in shards.items():
        try:
            with safe_open(folder / shard, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                names = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder / shard}: {error}") from error
        if promised is not None and names.keys() != promised:
            raise CheckpointError(f"{folder / shard}: {index.name} promises {few(promised ^ names.keys())} otherwise")
        stored |= {
            name: Stored(folder / shard, name, shape, kind)
            for name, (shape, kind) in names.items()
            if not name.startswith(skip) and not name.endswith(DERIVED)
        }
    return stored


def fill(build, config, stored, folder, name_of, dtype=torch.float32, device="cpu"):
    """build(config) with every parameter from the files; or a CheckpointError that lists all that does not fit.

    stored: {published name: Stored}. name_of: our name to the published one.
    """
    try:
        with torch.device("meta"):  # shapes without memory
            model = build(config)
    except SENSELESS as error:
        raise CheckpointError(f"{folder}: no {build.__name__} can be built of {config}: {error}") from error
    wanted = {name_of(ours): tuple(tensor.shape) for ours, tensor in model.state_dict().items()}
    wrong = {
        "missing": wanted.keys() - stored.keys(),
        "unexpected": stored.keys() - wanted.keys(),
        "misshapen": [
            f"{name} is {stored[name].shape}, expected {shape}"
            for name, shape in wanted.items()
            if name in stored and stored[name].shape != shape
        ],
        "of a type that is not computed with": [
            f"{name} is {stored[name].kind}" for name in wanted if name in stored and stored[name].kind not in FLOATS
        ],
    }
    if any(wrong.values()):
        lines = [f"  {len(names)} {what}: {few(names)}" for what, names in wrong.items() if names]
        raise CheckpointError(f"{folder} does not hold a {build.__name__} of {config}:\n" + "\n".join(lines))
    tensors, broken = {}, []
    for ours in model.state_dict():
        tensors[ours] = tensor = stored[name_of(ours)].read(dtype, device)
        if not finite(tensor):
            broken.append(name_of(ours))
    if broken:
        raise CheckpointError(
            f"{folder}: {len(broken)} tensors hold values that are not finite as {tensor.dtype}: {few(broken)}; "
            "fetch or train the weights again, or load them in a wider precision"
        )
    model.load_state_dict(tensors, assign=True)
    return model


def finite(tensor):
    """Whether all its values are numbers; without a copy of it."""
    low, high = tensor.aminmax()
    return bool(low.isfinite() and high.isfinite())


def write(folder, jsons, tensors, dtype=None, also=lambda fresh: None):
    """model.safetensors and {name: object} as JSON into `folder`, whole or not at all; other files there stay.

    dtype None keeps the tensors' own. also(fresh): puts further files into the temporary folder.
    Raises CheckpointError, with nothing saved, for values that are not finite or a place that cannot be written.
    """
    folder, stored = Path(folder), {}
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a checkpoint is a folder")
    if (folder / "model.safetensors.index.json").exists():
        raise CheckpointError(f"{folder} holds a sharded checkpoint; saving here would leave two sets of weights")
    for name, tensor in tensors.items():
        stored[name] = tensor = tensor.detach().to("cpu", dtype).contiguous()
        if not finite(tensor):
            raise CheckpointError(f"{name} has values that are not finite in {tensor.dtype}; nothing was saved")
    stored_as = {"dtype": str(tensor.dtype).removeprefix("torch.")}
    texts = {name: json.dumps(written | stored_as, indent=2) + "\n" for name, written in jsons.items()}
    fresh = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        save_file(stored, fresh / "model.safetensors", metadata={"format": "pt"})
        for name, text in texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        also(fresh)
        for path in [*fresh.iterdir(), fresh]:
            path.chmod(0o755 if path == fresh else 0o644)  # temporary folders and safetensors files come out private
            on_disk(path)
        if not folder.exists():
            fresh.rename(folder)
        else:
            for path in sorted(fresh.iterdir()):
                path.replace(folder / path.name)
            on_disk(folder)
        on_disk(folder.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {folder}: {error}") from error
    finally:
        if fresh is not None and fresh.exists():
            shutil.rmtree(fresh)

"""Checkpoint folders as files: found here or on the hub, read tensor by tensor, written whole or not at all.

- `find_checkpoint` takes a local folder or a hub id, "owner/name" or "owner/name@revision". With HF_HUB_OFFLINE=1 it
  looks only in the cache. Code is never fetched, and torch's pickles only where there are no safetensors.
- `load_strictly` first compares every name and shape in the files with what the config needs. Then it reads each tensor
  straight to its device and precision and closes the file, so memory holds the model and one stored tensor.
- `write_checkpoint` writes temporary files, flushes them to the disk, then renames them: a crash leaves the old ones.

Try it: `{name: t.shape for name, t in open_tensors("data_samples/weights/vision_tower").items()}`.
"""

import json
import re
import tempfile
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from minillava.data.tokenizer import TokenizerError, load_tokenizer
from minillava.errors import CheckpointError
from minillava.files import FileError, flush_to_disk, read_json
from minillava.model.formats.pickled import PickledFiles
from minillava.scales import without_weights
from minillava.text import few

FETCHED_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # of a hub repository: no code
SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # read where a folder has neither of the above
DERIVED_TENSORS = (".position_ids", ".rotary_emb.inv_freq")  # in older files, although the config determines them
LARGEST = 1e12  # of a config's numbers
FLOAT_TYPES = ("F64", "F32", "F16", "BF16")  # quantised types mean nothing without their scales

# Errors that a config with an invalid size raises while the model is built.
CONFIG_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)


class StoredTensor(NamedTuple):
    """A tensor in a safetensors file, not yet read."""

    file: Path
    key: str
    shape: tuple
    kind: str  # F32, BF16, ...: its type in safetensors

    def read(self, dtype=None, device="cpu"):
        """Its values in memory; the file is closed again. dtype None keeps the stored type."""
        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.key).to(device=device, dtype=dtype, copy=True)


def find_checkpoint(source, only=(), judge=None):
    """The local folder of `source`: the folder itself, or for a hub id ("owner/name") its copy in the cache.

    A hub id is fetched if needed, at the revision after an @ (a branch, tag or commit), by default main. only: names of
    the files to fetch, instead of all that a checkpoint has. judge: called with what config.json says before weights
    are fetched; it raises for a model that cannot be loaded. Raises CheckpointError that says what was looked for where.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        gguf = f": minillava import {source} --out FOLDER makes one" if folder.suffix == ".gguf" else ""
        raise CheckpointError(f"{source} is a file; a checkpoint is a folder{gguf}")
    if advice := without_weights(folder):
        raise CheckpointError(advice)
    name, at, revision = str(source).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or (at and not revision):
        raise CheckpointError(
            f"{source}: no such folder, and not a hub id of the form owner/name or owner/name@revision"
        )
    from huggingface_hub import constants, snapshot_download  # takes a while, and most runs never need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    def fetch(revision, patterns):  # no subfolders: they hold other formats
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*patterns], ignore_patterns=["*/*"]))

    try:
        found = fetch(revision or None, only or ["*.json"])
        if only:
            return found
        if judge and (found / "config.json").exists():
            with reading_config(found / "config.json") as config:
                judge(config)
        found = fetch(found.name, FETCHED_FILES)  # of the same revision
        safe = any((found / file).exists() for file in SAFE)
        return found if safe else fetch(found.name, [*FETCHED_FILES, "pytorch_model*.bin"])
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        raise CheckpointError(
            f"{source}: no such folder here, and as a hub id neither in the cache {constants.HF_HUB_CACHE} nor to be "
            f"fetched{offline}: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error


def origin(source):
    """The name of `source` for a checkpoint made from it: the hub id, or a local folder's name without its path."""
    return Path(source).expanduser().resolve().name if Path(source).expanduser().exists() else str(source)


def read_config(path):
    """The object in a JSON file. Raises CheckpointError, naming the file, if it cannot be read."""
    try:
        written = read_json(path)
    except FileError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(without_weights(path) or f"{path}: {error}") from error
    if not isinstance(written, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(written).__name__}")
    return written


def checked(config):
    """A config read from JSON, if each value is of its field's type. Raises CheckpointError that names the field."""
    for field in fields(config):
        value, kind = getattr(config, field.name), float | int if field.type is float else field.type
        if is_dataclass(value):
            checked(value)
            continue
        low, high = (1, LARGEST) if kind is int else (-LARGEST, LARGEST)
        if field.name == "select_layer":
            low, high = ~config.vision.num_layers, config.vision.num_layers
        fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
        if isinstance(value, tuple):
            fits = all(type(token) is int for token in value)
        elif fits and isinstance(value, int | float):
            fits = kind is bool or low <= value <= high
        if not fits:
            raise CheckpointError(f"{field.name} {str(value)[:60]!r} is not a value that a model can have")
    return config


@contextmanager
def reading_config(path):
    """Read a JSON config and use it in the block: `with reading_config(path) as config: ...`.

    An error in the block that nonsense in the config can cause becomes a CheckpointError that names the file.
    """
    config = read_config(path)
    try:
        yield config
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except CONFIG_ERRORS as error:
        raise CheckpointError(f"{path}: {type(error).__name__}, {error}: not a config that makes sense") from error


def end_ids(folder):
    """The token ids that end an answer of these weights, a tuple; () where no file says them.

    generation_config.json says them, one or several, or else config.json, or else the tokenizer.
    """
    for path in (folder / "generation_config.json", folder / "config.json"):
        if path.exists():
            with reading_config(path) as config:
                ends = config.get("eos_token_id", config.get("text_config", {}).get("eos_token_id"))
                ends = () if ends is None else ends if isinstance(ends, list) else [ends]
                if not all(isinstance(end, int) for end in ends):
                    raise ValueError(f"eos_token_id {ends}: token ids are whole numbers")
                if ends:
                    return tuple(ends)
    try:
        end = load_tokenizer(folder).eos_token_id
    except (FileNotFoundError, TokenizerError):  # who needs the tokenizer is told when loading it
        return ()
    return () if end is None else (end,)


def open_tensors(folder, skip=()):
    """{name: stored tensor} of a folder's weights, one file or all shards of an index; reads only names and shapes.

    safetensors come before pickles (pickled.py). skip: beginnings of names to leave out.
    """
    folder = Path(folder)
    weights = next((folder / name for name in (*SAFE, *PICKLED) if (folder / name).exists()), None)
    if weights is None:
        raise CheckpointError(f"{folder}: no weights here; expected {', '.join(SAFE)} or {', '.join(PICKLED)}")
    shards = {weights.name: None}
    if weights.suffix == ".json":
        with reading_config(weights) as config:
            shard_of = config["weight_map"]
            shards = {shard: {k for k, s in shard_of.items() if s == shard} for shard in sorted(set(shard_of.values()))}
            if any(Path(shard).name != shard for shard in shards):
                raise ValueError("a shard must be in the folder of its index")
    stored, tensors_of = {}, safe_tensors if weights.name in SAFE else PickledFiles().tensors
    for shard, listed in shards.items():
        tensors = tensors_of(folder / shard)
        if listed is not None and tensors.keys() != listed:
            raise CheckpointError(f"{folder / shard}: differs from {weights.name} in {few(listed ^ tensors.keys())}")
        stored |= tensors
    return {name: t for name, t in stored.items() if not (name.startswith(skip) or name.endswith(DERIVED_TENSORS))}


def safe_tensors(path):
    """{name: StoredTensor} of a safetensors file. Raises CheckpointError that names it."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: StoredTensor(path, name, tuple(part.get_shape()), part.get_dtype())
                for name, part in slices.items()
            }
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def load_strictly(build, config, stored, folder, name_of, dtype=torch.float32, device="cpu"):
    """build(config) with every parameter read from the files.

    stored: {published name: StoredTensor}. name_of: our name of a tensor to the published one. Raises CheckpointError
    that lists every tensor that does not fit.
    """
    try:
        checked(config)
        layers = sum(getattr(part, "num_layers", 0) for part in (config, *vars(config).values()))
        if layers > len(stored):  # each layer has tensors; building a million layers would take for ever
            raise ValueError(f"it says {layers:,} layers, but the files hold {len(stored):,} tensors")
        with torch.device("meta"):  # shapes without memory
            model = build(config)
    except CONFIG_ERRORS as error:
        raise CheckpointError(f"{folder}: no {build.__name__} can be built from {config}: {error}") from error
    wanted = {name_of(ours): tuple(tensor.shape) for ours, tensor in model.state_dict().items()}
    wrong = {
        "missing": wanted.keys() - stored.keys(),
        "unexpected": stored.keys() - wanted.keys(),
        "misshapen": [
            f"{name} is {stored[name].shape}, expected {shape}"
            for name, shape in wanted.items()
            if name in stored and stored[name].shape != shape
        ],
        "of a type that cannot be used": [
            f"{name} is {tensor.kind}" for name, tensor in stored.items() if tensor.kind not in FLOAT_TYPES
        ],
    }
    if any(wrong.values()):
        lines = [f"  {len(names)} {what}: {few(names)}" for what, names in wrong.items() if names]
        raise CheckpointError(f"{folder} does not hold a {build.__name__} of {config}:\n" + "\n".join(lines))
    tensors, broken = {}, []
    for ours in model.state_dict():
        tensors[ours] = tensor = stored[name_of(ours)].read(dtype, device)
        if not is_finite(tensor):
            broken.append(name_of(ours))
    if broken:
        raise CheckpointError(
            f"{folder}: {len(broken)} tensors hold values that are not finite in {tensor.dtype}: {few(broken)}; "
            "fetch or train the weights again, or load them in a wider precision"
        )
    model.load_state_dict(tensors, assign=True)
    return model


def is_finite(tensor):
    """Whether all its values are finite; makes no copy of it."""
    low, high = tensor.aminmax()
    return bool(low.isfinite() and high.isfinite())


def write_checkpoint(folder, jsons, tensors, dtype=None, also=lambda temporary: None):
    """Write model.safetensors and {name: object} as JSON into `folder`, whole or not at all; other files there stay.

    dtype None keeps the tensors' own. also(temporary): writes further files into the temporary folder.
    Raises CheckpointError, with nothing saved, for values that are not finite or a folder that cannot be written.
    """
    folder, stored = Path(folder), {}
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a checkpoint is a folder")
    if (folder / "model.safetensors.index.json").exists():
        raise CheckpointError(f"{folder} holds a sharded checkpoint; saving here would leave two sets of weights")
    for name, tensor in tensors.items():
        stored[name] = tensor = tensor.detach().to("cpu", dtype).contiguous()
        if not is_finite(tensor):
            raise CheckpointError(f"{name} has values that are not finite in {tensor.dtype}; nothing was saved")
    stored_as = {"dtype": str(tensor.dtype).removeprefix("torch.")}
    texts = {name: json.dumps(written | stored_as, indent=2) + "\n" for name, written in jsons.items()}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        near = folder if folder.exists() else folder.parent  # on the disk of `folder`, which can be one's root
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=near) as made:
            temporary = Path(made)
            save_file(stored, temporary / "model.safetensors", metadata={"format": "pt"})
            for name, text in texts.items():
                (temporary / name).write_text(text, encoding="utf-8")
            also(temporary)
            for path in [*temporary.iterdir(), temporary]:
                path.chmod(0o755 if path == temporary else 0o644)  # tempfile and safetensors make private ones
                flush_to_disk(path)
            if not folder.exists():
                temporary.rename(folder)
            else:
                for path in sorted(temporary.iterdir()):
                    path.replace(folder / path.name)
                flush_to_disk(folder)
        flush_to_disk(folder.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {folder}: {error}") from error

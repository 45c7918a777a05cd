"""Checkpoints of a training: written whole or not at all, the last two kept, a broken one recognised.

    FOLDER/checkpoints/step-00000120/   *.safetensors   weights that train, optimizer states, random states
                                        state.json      step, recipe, seconds, the size and checksum of every file

Notable
- A checkpoint is written beside its place, flushed to the disk, then renamed: a kill or a full disk leaves those before.
- The batch of step t is a function of (recipe's seed, t): the step is the schedule's and the sampler's position at once.
- Tensors go through `torch.distributed.checkpoint`, each process writes its part, and any number of processes may read
  them again. They are safetensors: reading one cannot run code.

Try it: `latest("runs/weights/language_model")`.
"""

import json
import random
import shutil
import sys
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from minillava.errors import UserError
from minillava.files import on_disk
from minillava.training.optim import Optimizer
from minillava.training.parallel import agree, rank, world

KEPT = 2
FILE = 512 << 20  # bytes of a file: the library holds two copies of each that it writes
RENAMED = {"eye": "vision_tower", "brain": "language_model"}  # names in recipes and of folders in older checkpoints


class TrainingError(UserError):
    """A run that cannot go on: another recipe in the folder, a loss that is not a number."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save(folder: Path, model: nn.Module, optimizer: Optimizer, step: int, recipe: dict, seconds: float) -> None:
    """Write the checkpoint of `step`, then remove all but the last two. Raises OSError, the others kept, on a full disk."""
    import torch.distributed.checkpoint as dcp

    home = Path(folder) / "checkpoints"
    beside = home / f".step-{step:08}"
    if rank() == 0:
        home.mkdir(parents=True, exist_ok=True)
        for torn in home.glob(".step-*"):
            shutil.rmtree(torn)
        beside.mkdir()
    agree(None)
    tensors = _weights(model) | _moments(model, optimizer) | _random()
    try:
        with _quiet():
            writer = dcp.HuggingFaceStorageWriter(str(beside), _files(tensors), save_distributed=True)
            dcp.save(tensors, storage_writer=writer, no_dist=world() == 1)
        if rank() == 0:
            state = {
                "step": step,
                "recipe": recipe,
                "seconds": seconds,
                "scaler": optimizer.scaler.state_dict(),
                "files": {p.name: [p.stat().st_size, _checksum(p)] for p in sorted(beside.glob("*.safetensors"))},
            }
            (beside / "state.json").write_text(json.dumps(state))
            for path in (*beside.iterdir(), beside):
                on_disk(path)
            shutil.rmtree(place(folder, step), ignore_errors=True)
            beside.rename(place(folder, step))
            on_disk(home)
            for old in _all(folder)[KEPT:]:
                shutil.rmtree(old)
    except (Exception, dcp.api.CheckpointException) as error:  # which is no Exception
        shutil.rmtree(beside, ignore_errors=True)
        raise (_cause(error) or error) from None
    agree(None)


def resume(folder: Path, model: nn.Module, optimizer: Optimizer, recipe: dict) -> tuple[int, float]:
    """(step, seconds so far) after loading the newest whole checkpoint of this recipe into model and optimizer; (0, 0.0)
    where there is none. A torn one, or one of another recipe, is passed over with a message.

    Raises TrainingError where all that are whole are of another recipe, saying what differs.
    """
    chosen = agree(_choose(Path(folder), recipe) if rank() == 0 else None)
    if isinstance(chosen, str):
        raise TrainingError(chosen)
    if chosen is None:
        return 0, 0.0
    path, state = chosen
    _load(path, model, optimizer)
    if state["scaler"]:
        optimizer.scaler.load_state_dict(state["scaler"])
    return state["step"], state["seconds"]


def latest(folder: str | Path) -> dict | None:
    """What the newest checkpoint of a training says of itself: step, recipe, seconds. None where there is none."""
    for path in _all(folder):
        state = _read(path)
        if not isinstance(state, str):
            return state
    return None


def seconds_of(folder: Path) -> float:
    """How long the training in this folder has taken so far, over interruptions."""
    state = latest(folder)
    return state["seconds"] if state else 0.0


def place(folder: str | Path, step: int) -> Path:
    return Path(folder) / "checkpoints" / f"step-{step:08}"


def _all(folder: str | Path) -> list[Path]:
    """The checkpoints there are, the newest first."""
    return sorted((Path(folder) / "checkpoints").glob("step-*"), reverse=True)


def _choose(folder: Path, recipe: dict) -> tuple[Path, dict] | str | None:
    wanted, foreign = json.loads(json.dumps(recipe)), None
    for path in _all(folder):
        state = _read(path)
        if not isinstance(state, str) and state["recipe"] == wanted:
            return path, state
        if not isinstance(state, str):
            foreign = foreign or state["recipe"]  # the newest one's
        why = state if isinstance(state, str) else "it is of another recipe"
        print(f"{path} is passed over: {why}; the one before it is used", file=sys.stderr)
    if foreign is None:
        return None
    others = sorted(name for name in foreign | wanted if foreign.get(name) != wanted.get(name))
    if others == ["records"]:
        return (
            f"{folder}: its records have changed since the half-finished run here began (as many, but others); put them "
            "back as they were, or remove the folder or choose another"
        )
    return f"{folder}: holds a half-finished run of another recipe ({', '.join(others)}); remove the folder or choose another"


def _read(path: Path) -> dict | str:
    """state.json of a whole checkpoint, or what is wrong with it."""
    try:
        state = json.loads((path / "state.json").read_text())
        state["recipe"] = {
            RENAMED.get(k, k): RENAMED.get(v, v) if k in RENAMED else v for k, v in state["recipe"].items()
        }
        for name, (size, checksum) in state["files"].items():
            if (path / name).stat().st_size != size or _checksum(path / name) != checksum:
                return f"{name} is not as it was written"
        return state if {"step", "recipe", "seconds", "scaler"} <= state.keys() else "state.json is incomplete"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({error})"


def _load(path: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Fill model, optimizer and random states, in place. The files say which moments there are."""
    import torch.distributed.checkpoint as dcp

    reader, parameters = dcp.HuggingFaceStorageReader(str(path)), trainable(model)
    stored = reader.read_metadata().state_dict_metadata
    tensors, mine = _weights(model), f"random/{rank()}/"
    for key, about in stored.items():
        if key.startswith("optimizer/"):
            like, dtype = parameters[key.split("/")[1]], about.properties.dtype
            split = about.size == like.shape and about.size.numel() > 1  # as its parameter is
            tensors[key] = torch.zeros_like(like, dtype=dtype) if split else torch.zeros(about.size, dtype=dtype)
        elif key.startswith(mine):
            tensors[key] = torch.zeros(about.size, dtype=about.properties.dtype)
    if {key for key in tensors if key.startswith("weights/")} - stored.keys():
        raise TrainingError(f"{path}: holds the weights of another model; remove the folder or choose another")
    with _quiet():
        dcp.load(tensors, storage_reader=reader, no_dist=world() == 1)
    for part in optimizer.parts:
        names = {id(p): name for name, p in parameters.items()}
        for p in (p for group in part.param_groups for p in group["params"]):
            prefix = f"optimizer/{names[id(p)]}/"
            kept = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
            if kept:
                part.state[p] = {key: t[0] if key == "step" else t for key, t in kept.items()}
    if mine + "torch" in tensors:  # a process more than there were keeps its own
        _set_random({key.removeprefix(mine): t for key, t in tensors.items() if key.startswith(mine)})


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {f"weights/{name}": p.detach() for name, p in trainable(model).items()}


def _moments(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"optimizer/{names[id(p)]}/{key}": t.reshape(1) if key == "step" else t
        for part in optimizer.parts
        for p, kept in part.state.items()
        for key, t in kept.items()
    }


def _random() -> dict[str, torch.Tensor]:
    """The states of all generators of this process."""
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - others may use it
    _, words, gauss = random.getstate()
    states = {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor([*keys.tolist(), position, has_gauss]),
        "numpy-gauss": torch.tensor([cached], dtype=torch.float64),
        "python": torch.tensor(words),
        "python-gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {f"random/{rank()}/{name}": state for name, state in states.items()}


def _files(tensors: dict[str, torch.Tensor]) -> dict[str, int]:
    """Which of a rank's files, counted from 1, each tensor of any rank goes into."""
    files, held, mine = {}, 0, f"random/{rank()}/"
    for key, tensor in tensors.items():
        if key.startswith(mine):
            files |= {f"random/{r}/{key.removeprefix(mine)}": 1 for r in range(world())}
        else:
            held += tensor.numel() * tensor.element_size() // world()
            files[key] = 1 + held // FILE
    return files


def _set_random(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    *keys, position, has_gauss = states["numpy"].tolist()
    state = ("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, states["numpy-gauss"].item())
    np.random.set_state(state)  # noqa: NPY002
    gauss = states["python-gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss[0] if gauss else None))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


@contextmanager
def _quiet():
    """Without the library's warning that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _checksum(path: Path) -> int:
    """CRC-32 of a file: finds what was torn or changed by accident."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _cause(error: BaseException) -> OSError | None:
    """The OSError, such as a full disk's, within what the checkpoint library raised."""
    failures = [failure[0] for failure in getattr(error, "failures", {}).values()]
    for inner in (error, error.__cause__, error.__context__, *failures):
        if isinstance(inner, OSError):
            return inner
    return None

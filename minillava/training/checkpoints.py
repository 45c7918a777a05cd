"""Checkpoints during training: written whole or not at all, the last two kept, a damaged one recognised.

    FOLDER/checkpoints/step-00000120/   *.safetensors   weights that train, optimizer states, random states
                                        state.json      step, recipe, losses, seconds, checksums of all files

A checkpoint is written to a temporary folder, flushed to the disk, then renamed, so a kill or a full disk leaves the
earlier ones as they are. Each process writes its part with `torch.distributed.checkpoint`, and any number of processes
can read them. The files are safetensors: reading one cannot run code.

Try it: `latest("runs/weights/language_model")`.
"""

import json
import random
import shutil
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from minillava.errors import UserError
from minillava.files import flush_to_disk, read_checked, write_checked
from minillava.training.optim import Optimizer
from minillava.training.parallel import broadcast, rank, wait_for_rank_0, world_size

SAVE_SECONDS = 20.0  # between checkpoints, or 20 times what writing one takes
KEEP_LAST = 2
FILE_BYTES = 512 << 20  # of one file: the library holds two copies of each file that it writes
# Names in the recipes of older checkpoints, and of the shipped folders that they trained.
RENAMED = {"eye": "vision_tower", "brain": "language_model", "brain-small": "language_model_small"}


class TrainingError(UserError):
    """A training that cannot continue: another recipe in the folder, a loss that is not a number."""


@contextmanager
def lock_folder(folder: Path):
    """Reserve the folder for this run. Raises TrainingError where another run is using it."""
    lock = FileLock(folder / ".lock")
    try:
        if rank() == 0:
            lock.acquire(timeout=0)
        yield
    except Timeout:
        raise TrainingError(f"{folder}: another run is at work in this folder; wait for it or name another") from None
    finally:
        lock.release()


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


class Saver:
    """The checkpoints of one run in its folder. recipe: what identifies the run, as JSON."""

    def __init__(self, folder: Path, model: nn.Module, optimizer: Optimizer, recipe: dict):
        self.folder, self.model, self.optimizer = Path(folder), model, optimizer
        self.recipe, self.saved_step, self.losses = json.loads(json.dumps(recipe)), None, []  # losses: one per step
        self.start = self.saved_at = time.monotonic()
        self.seconds_before, self.save_seconds = 0.0, 0.0  # of earlier runs; that the last save took

    def resume(self) -> int:
        """Load the newest checkpoint of this recipe into model and optimizer. Returns its step, 0 without one.

        Damaged checkpoints and those of another recipe are skipped with a message. Raises TrainingError where all
        undamaged ones are of another recipe, saying what differs.
        """
        chosen = broadcast(_choose(self.folder, self.recipe) if rank() == 0 else None)
        if isinstance(chosen, str):
            raise TrainingError(chosen)
        if chosen:
            path, state = chosen
            _load(path, self.model, self.optimizer)
            if state["scaler"]:
                self.optimizer.scaler.load_state_dict(state["scaler"])
            self.saved_step, self.seconds_before, self.losses = state["step"] or None, state["seconds"], state["losses"]
        self.start = self.saved_at = time.monotonic()
        return self.saved_step or 0

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() - self.saved_at > SAVE_SECONDS * max(1, self.save_seconds)

    def save(self, step: int) -> None:
        """Write the checkpoint of `step`, unless it is there, and remove all but the last two.

        Raises OSError, for example on a full disk; earlier checkpoints then stay.
        """
        if step == self.saved_step:
            return
        begin = time.monotonic()
        seconds = self.seconds_before + begin - self.start
        state = dict(step=step, recipe=self.recipe, losses=self.losses, seconds=seconds)
        _write(self.folder, self.model, self.optimizer, state)
        self.saved_step, self.saved_at = step, time.monotonic()
        self.save_seconds = self.saved_at - begin


def latest(folder: str | Path) -> dict | None:
    """The state.json of the newest undamaged checkpoint: step, recipe, seconds. None without one."""
    return next((state for state in map(_read_state, _newest_first(folder)) if isinstance(state, dict)), None)


def training_seconds(folder: Path) -> float:
    """How long the training in this folder has taken so far, all its runs together."""
    return (latest(folder) or {"seconds": 0.0})["seconds"]


def checkpoint_path(folder: str | Path, step: int) -> Path:
    """Where the checkpoint of `step` is."""
    return Path(folder) / "checkpoints" / f"step-{step:08}"


def _write(folder: Path, model: nn.Module, optimizer: Optimizer, state: dict) -> None:
    import torch.distributed.checkpoint as dcp

    path = checkpoint_path(folder, state["step"])
    temporary = path.with_name(f".{path.name}")
    if rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        for incomplete in path.parent.glob(".step-*"):
            shutil.rmtree(incomplete)
        temporary.mkdir()
    wait_for_rank_0()
    tensors = _weights(model) | _optimizer_states(model, optimizer) | _random_states()
    try:
        with _quiet():
            writer = dcp.HuggingFaceStorageWriter(str(temporary), _file_numbers(tensors), save_distributed=True)
            dcp.save(tensors, storage_writer=writer, no_dist=world_size() == 1)
        if rank() == 0:
            state["scaler"] = optimizer.scaler.state_dict()
            write_checked(temporary / "state.json", state, sorted(temporary.glob("*.safetensors")))
            flush_to_disk(temporary)
            shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
            flush_to_disk(path.parent)
            for old in _newest_first(folder)[KEEP_LAST:]:
                shutil.rmtree(old)
    except (Exception, dcp.api.CheckpointException) as error:  # the library's own is no subclass of Exception
        shutil.rmtree(temporary, ignore_errors=True)
        raise (_reason(error) or error) from None
    wait_for_rank_0()


def _newest_first(folder: str | Path) -> list[Path]:
    return sorted((Path(folder) / "checkpoints").glob("step-*"), reverse=True)


def _choose(folder: Path, recipe: dict) -> tuple[Path, dict] | str | None:
    """The newest checkpoint of this recipe and its state; what differs where all are of others; None without any."""
    other = None
    for path in _newest_first(folder):
        state = _read_state(path)
        if isinstance(state, str):
            why = state
        elif state["recipe"] == recipe:
            return path, state
        else:
            why, other = "it is of another recipe", other or state["recipe"]
        print(f"{path} is skipped: {why}; the one before it is used", file=sys.stderr)
    if other is None:
        return None
    return refusal(folder, other, recipe, "half-finished")


def refusal(folder: Path, kept: dict, recipe: dict, state: str) -> str:
    """Why a run of this recipe cannot use a folder with a run of another one. state: finished or half-finished."""
    differ = sorted(name for name in kept | recipe if kept.get(name) != recipe.get(name))
    what = f"holds a {state} run of another recipe ({', '.join(differ)});"
    if {*differ} <= {"records", "pictures"}:
        what = f"its {' and '.join(differ)} have changed since the {state} run here began; put them back, or"
    return f"{folder}: {what} remove the folder or choose another"


def _read_state(path: Path) -> dict | str:
    """state.json of an undamaged checkpoint, or what is wrong with it."""
    try:
        state = read_checked(path / "state.json")
        old = (*RENAMED, "stand-in")
        state["recipe"] = {RENAMED.get(k, k): RENAMED.get(v, v) if k in old else v for k, v in state["recipe"].items()}
        return state
    except (OSError, UserError) as error:
        return str(error)


def _load(path: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Fill model, optimizer and random states, in place. The files say which optimizer states there are."""
    import torch.distributed.checkpoint as dcp

    reader, parameters = dcp.HuggingFaceStorageReader(str(path)), trainable(model)
    stored = reader.read_metadata().state_dict_metadata
    tensors, own_random = _weights(model), f"random/{rank()}/"
    for key, meta in stored.items():
        if key.startswith("optimizer/"):
            like, dtype = parameters[key.split("/")[1]], meta.properties.dtype
            split = meta.size == like.shape and meta.size.numel() > 1  # over the ranks, as its parameter is
            tensors[key] = torch.zeros_like(like, dtype=dtype) if split else torch.zeros(meta.size, dtype=dtype)
        elif key.startswith(own_random):
            tensors[key] = torch.zeros(meta.size, dtype=meta.properties.dtype)
    if {key for key in tensors if key.startswith("weights/")} - stored.keys():
        raise TrainingError(f"{path}: holds the weights of another model; remove the folder or choose another")
    try:
        with _quiet():
            dcp.load(tensors, storage_reader=reader, no_dist=world_size() == 1)
    except dcp.api.CheckpointException as error:
        raise (_reason(error) or error) from None
    names = {id(p): name for name, p in parameters.items()}
    for part in optimizer.optimizers:
        for p in (p for group in part.param_groups for p in group["params"]):
            states = _below(f"optimizer/{names[id(p)]}/", tensors)
            if states:
                # fused Adam reads its count of steps where the parameter is
                part.state[p] = {key: t[0].to(p.device) if key == "step" else t for key, t in states.items()}
    random_states = _below(own_random, tensors)
    if random_states:  # there are none for a process that the earlier run did not have
        _set_random_states(random_states)


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with `prefix`, named without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {f"weights/{name}": p.detach() for name, p in trainable(model).items()}


def _optimizer_states(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"optimizer/{names[id(p)]}/{key}": tensor.reshape(1) if key == "step" else tensor
        for part in optimizer.optimizers
        for p, states in part.state.items()
        for key, tensor in states.items()
    }


def _random_states() -> dict[str, torch.Tensor]:
    """The states of all random generators of this process."""
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - other libraries may use it
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


def _set_random_states(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["torch"])
    *keys, position, has_gauss = states["numpy"].tolist()
    state = ("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, states["numpy-gauss"].item())
    np.random.set_state(state)  # noqa: NPY002
    gauss = states["python-gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss[0] if gauss else None))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _file_numbers(tensors: dict[str, torch.Tensor]) -> dict[str, int]:
    """For every tensor of every rank the number, from 1, of the rank's file that it is written to."""
    numbers, total, own_random = {}, 0, f"random/{rank()}/"
    for key, tensor in tensors.items():
        if key.startswith(own_random):
            numbers |= {f"random/{r}/{key.removeprefix(own_random)}": 1 for r in range(world_size())}
        else:
            total += tensor.numel() * tensor.element_size() // world_size()
            numbers[key] = 1 + total // FILE_BYTES
    return numbers


@contextmanager
def _quiet():
    """Without the library's warning that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _reason(error: BaseException) -> OSError | KeyboardInterrupt | None:
    """A full disk's error, or a Ctrl-C, inside what the checkpoint library raised."""
    failures = [failure[0] for failure in getattr(error, "failures", {}).values()]
    causes = (error, error.__cause__, error.__context__, *failures)
    return next((cause for cause in causes if isinstance(cause, (OSError, KeyboardInterrupt))), None)

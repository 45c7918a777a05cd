"""One process or many: who this one is, what all of them agree on, and a model split over them with FSDP2; cores in one.

Notable: everything here also works in a single process, where it does nothing; so the loop has no second form. `torchrun
--nproc-per-node N -m minillava train ...` starts N of these. With `shard` each holds 1/N of the weights, gradients and
moments ("full shard", the authors' choice for stage 2); without it each holds all of them, and only gradients are
exchanged: DDP, the same call on a mesh of N x 1.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from threading import Event

import torch
import torch.distributed as dist
from torch import nn


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def broadcast(value):
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def on_rank_0(work: Callable[[Callable], None]) -> None:
    """Rank 0 does `work(beat)`; the others wait, however long it takes, as long as it calls beat() every few minutes."""
    if rank() == 0:
        work(lambda: broadcast(True))
        broadcast(False)
    else:
        while broadcast(None):
            pass


def sum_over_ranks(values: list[float]) -> list[float]:
    """Each of these numbers summed over the ranks."""
    if world_size() == 1:
        return values
    numbers = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(numbers)
    return numbers.tolist()


@contextmanager
def process_group():
    """The process group that torchrun described, and the device of this process. Alone: no group."""
    if "LOCAL_RANK" not in os.environ:
        yield torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield device
    finally:
        if (
            ranks_in_step()
        ):  # gloo's threads drop the last exchange's tensors under Python's lock, which ending holds: they go first
            dist.barrier()
            time.sleep(0.2)
        dist.destroy_process_group()


@contextmanager
def stop_event():
    """An event that is set once the run should stop: many processes must stop after the same step, so they share it.

    Alone, Ctrl-C is a KeyboardInterrupt at once and the event is never set.
    """
    stop = Event()
    if world_size() == 1:
        yield stop
        return
    before = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def ranks_in_step() -> bool:
    """Whether all ranks may be asked for something now: not where one of several fails, the others being elsewhere."""
    return world_size() == 1 or sys.exc_info()[0] in (None, KeyboardInterrupt)


def distribute(model: nn.Module, frozen: nn.Module, blocks: list[nn.Module], dtype: torch.dtype, shard: bool = True) -> None:
    """Split a model over the ranks, in place: block by block, then the rest; `frozen` stays whole on each.

    dtype: what a block's weights travel in; gradients are summed in float32. Before this call the model lies on this
    rank's device, on each rank with equal weights; or on "meta", and `deal` fills it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if shard:
        mesh = init_device_mesh(kind, (world_size(),), mesh_dim_names=("shard",))
    else:
        mesh = init_device_mesh(kind, (world_size(), 1), mesh_dim_names=("replicate", "shard"))
    low = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=low if dtype != torch.float32 else MixedPrecisionPolicy())
    fully_shard(model, mesh=mesh, ignored_params=set(frozen.parameters()))


def on_cores(works: list[Callable], cores: int) -> Iterator:
    """The results of these calls, in their order; `cores` of them are at work at the same time, each on one core.

    For matrices too small to feed several cores: shared, each operation would wait for its slower half.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as crew:
            yield from crew.map(lambda work: work(), works)
    finally:
        torch.set_num_threads(threads)  # what a thread sets for itself would hold for later ones, too


def load_from_rank_0(model: nn.Module, tensors: dict[str, torch.Tensor], device: torch.device) -> None:
    """Fill a split model that lies on "meta" from rank 0's whole tensors, one after another; the other ranks give {}."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    model.to_empty(device=device)
    set_model_state_dict(
        model, tensors, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=True)
    )


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be split; every rank must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

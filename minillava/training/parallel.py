"""Training on many devices: ranks, what they exchange, a model split over them with FSDP2; and on the cores of one.

Everything here also works in a single process, where it does nothing; so the loop is written only once. `torchrun
--nproc-per-node N -m minillava train ...` starts N processes. With `shard` each holds 1/N of the weights, gradients and
moments ("full shard", the authors' choice for stage 2). Without it each holds all of them and they exchange gradients:
DDP, by the same call on a mesh of N x 1.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from threading import Event, current_thread, main_thread

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def broadcast(value):
    """Rank 0's value, on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_rank_0() -> None:
    """Return on every rank once rank 0 has come here."""
    broadcast(None)


def on_rank_0(work: Callable[[Callable], None]) -> None:
    """Rank 0 does `work(beat)`. The others wait as long as it takes, if it calls beat() every few minutes."""
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
def process_group(name: str | None = None):
    """Join the process group that torchrun described (none without torchrun). Yields the device of this process.

    name: that device without torchrun; None: the NVIDIA GPU if there is one, else the CPU.
    """
    if "LOCAL_RANK" not in os.environ:
        yield torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
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
        # gloo's threads need Python's lock to free what was last exchanged, and destroying the group holds it: wait
        if ranks_in_step():
            dist.barrier()
            time.sleep(0.2)
        dist.destroy_process_group()


@contextmanager
def stop_event():
    """An event that is set when the run should stop. Many processes share it, as all must stop after the same step.

    In a single process Ctrl-C raises KeyboardInterrupt at once, and the event is never set.
    """
    stop = Event()
    if world_size() == 1:
        yield stop
        return
    kinds = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    before = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in kinds}
    try:
        yield stop
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def signals_wait():
    """A signal that comes within the block does at its end what it would have done: no step is cut in two."""
    kinds = {getattr(signal, name, signal.SIGINT) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")}
    in_main = current_thread() is main_thread()  # the only one that signals interrupt
    before = {kind: h for kind in kinds if in_main and callable(h := signal.getsignal(kind))}
    received = []
    for kind in before:
        signal.signal(kind, lambda *of: received.append(of))
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    for kind, frame in received[:1]:
        before[kind](kind, frame)


def ranks_in_step() -> bool:
    """Whether all ranks will answer now. When one of them fails, the others are still elsewhere."""
    return world_size() == 1 or sys.exc_info()[0] in (None, KeyboardInterrupt)


def distribute(
    model: nn.Module, frozen: nn.Module, blocks: list[nn.Module], dtype: torch.dtype, shard: bool = True
) -> None:
    """Split a model over the ranks, in place: block by block, then the rest. `frozen` stays whole on each rank.

    dtype: the precision in which weights are exchanged; gradients are summed in float32. The model must be on this
    rank's device, with equal weights on every rank, or on "meta"; then `load_from_rank_0` must follow.
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


def load_from_rank_0(model: nn.Module, tensors: dict[str, torch.Tensor], device: torch.device) -> None:
    """Fill a distributed model on "meta" with rank 0's whole tensors, one by one. The other ranks pass {}."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    model.to_empty(device=device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=True)
    set_model_state_dict(model, tensors, options=options)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor that may be split over the ranks; every rank must call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def on_cores(works: list[Callable], cores: int) -> Iterator:
    """The results of these calls, in their order. `cores` of them run at the same time, each on one core.

    This is for matrices too small to occupy several cores: on all cores, each operation waits for its slowest core.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as crew:
            yield from crew.map(lambda work: work(), works)
    finally:
        torch.set_num_threads(threads)  # what one thread sets would also hold for threads that start later


def gradients_on_cores(parts: Iterable[Callable], params: Iterable, cores: int, scale: Callable) -> float:
    """Set the parameters' gradients to those of the sum of the parts, `cores` parts at a time. Returns the sum.

    Gradients are added in the order of the parts, so the result is the same bit for bit whichever part ends first.
    """
    params = list(params)

    def gradients_of(part):
        loss = part()
        return loss.item(), torch.autograd.grad(scale(loss), params, allow_unused=True)

    total, sums = 0.0, [None] * len(params)
    for loss, gradients in on_cores([partial(gradients_of, part) for part in parts], cores):
        total += loss
        for i, gradient in enumerate(gradients):
            if gradient is not None:  # copied first, as autograd may give two parameters the same tensor
                sums[i] = gradient.clone() if sums[i] is None else sums[i].add_(gradient)
    for p, gradient in zip(params, sums, strict=True):
        p.grad = gradient
    return total


class Prefetch:
    """Make batches ahead, in a second process: `Prefetch(make, steps)(t)` is make(t), if t is asked for in order."""

    def __init__(self, make: Callable, steps: int):
        self.make, self.steps, self.batches = make, steps, None

    def __getitem__(self, step):
        return self.make(step)

    def __call__(self, step):
        if self.batches is None:
            order = range(step, self.steps)
            self.batches = iter(DataLoader(self, batch_size=None, sampler=order, num_workers=1, prefetch_factor=4))
        batch = next(self.batches)
        if step + 1 == self.steps:
            self.batches = None  # the second process ends now, before a later one could inherit it
        return batch


class Ahead:
    """Do the next step's work meanwhile, in a thread: `Ahead(work, steps)(t)` is work(t), and work(t + 1) begins."""

    def __init__(self, work: Callable, steps: int):
        self.work, self.steps, self.begun, self.thread = work, steps, {}, ThreadPoolExecutor(1)

    def __call__(self, step):
        now = self.begun.pop(step, None) or self.thread.submit(self.work, step)
        self.begun = {step + 1: self.thread.submit(self.work, step + 1)} if step + 1 < self.steps else {}
        return now.result()

"""This machine: processor, memory, GPU, speed, the precision it is fast in, and progress bars on its terminal."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm


def progress_bar(total: int | None, unit: str, name: str = " ") -> tqdm:
    """A progress bar with the time left; where the output is not a terminal, a line from time to time."""
    return tqdm(total=total, unit=unit, desc=name, leave=False, mininterval=0.3 if sys.stderr.isatty() else 20)


def loss_reporter(progress: tqdm) -> Callable[[int, int, float], None]:
    """A function for `fit` to call after each step; it moves the bar and shows the loss."""

    def report(step, steps, loss):
        progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
        progress.update(step - progress.n)

    return report


def compute_dtype(kind: str | None = None) -> torch.dtype:
    """bfloat16 if the hardware multiplies it; else float16 on a GPU, which needs a scaler, and float32 on a CPU.

    kind: "cpu" or "cuda"; None: the GPU if there is one.
    """
    if kind == "cuda" or (kind is None and torch.cuda.is_available()):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capable = torch.backends.cpu.get_cpu_capability()
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    return torch.bfloat16 if "AVX512" in capable and "avx512_bf16" in flags else torch.float32


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or a container's limit."""
    if hasattr(os, "sysconf"):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:  # Windows
        status = (ctypes.c_ulonglong * 8)(64)  # MEMORYSTATUSEX: its own size in bytes, then the total, then others
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        total = status[1]
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.exists() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
            total = min(total, int(text))
    return total


def describe_machine() -> dict:
    """What this machine is, without its name. gpu: name, count and memory of the GPUs, or None. Memory in bytes."""
    gpu = None
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        gpu = {"name": card.name, "count": torch.cuda.device_count(), "memory": card.total_memory}
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": core_count(),
        "memory": available_memory(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "precision": str(compute_dtype()).removeprefix("torch."),
        "bfloat16 in hardware": compute_dtype() == torch.bfloat16,
        "gpu": gpu,
    }


def matmul_speed(dtype: torch.dtype, device: str = "cpu", seconds: float = 0.5) -> float:
    """FLOP/s of a large matrix product here, the best of several: an upper bound for what a model can reach."""
    from torch.utils import benchmark  # takes a while, as it loads setuptools

    n = 1024 if device == "cpu" else 8192
    both = {name: torch.randn(n, n, device=device).to(dtype) for name in "ab"}
    timer = benchmark.Timer("a @ b", globals=both, num_threads=torch.get_num_threads())
    return 2 * n**3 / min(timer.blocked_autorange(min_run_time=seconds).times)

"""The machine: what it is, which precision it multiplies in, and how progress is shown on it."""

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm


def bar(total: int, unit: str, name: str = " ") -> tqdm:
    """A progress bar with the time left; a line now and then where the output is not a terminal."""
    return tqdm(total=total, unit=unit, desc=name, leave=False, mininterval=0.3 if sys.stderr.isatty() else 20)


def follow(progress: tqdm) -> Callable[[int, int, float], None]:
    """What `fit` calls after each step to move a bar and show the loss."""

    def show(step, steps, loss):
        progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
        progress.update(step - progress.n)

    return show


def compute_dtype(kind: str | None = None) -> torch.dtype:
    """bfloat16 where the "cpu" or "cuda" (None: the GPU where there is one) multiplies it in hardware; else float16 on a
    GPU, which needs a scaler, and float32 on a CPU.
    """
    if kind == "cuda" or (kind is None and torch.cuda.is_available()):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capable = torch.backends.cpu.get_cpu_capability()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return torch.bfloat16 if "AVX512" in capable and "avx512_bf16" in flags else torch.float32


def machine() -> dict:
    """What this ran on, without its name."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(),
        "torch": torch.__version__, "precision": str(compute_dtype()).removeprefix("torch."),
    } | gpu  # fmt: skip

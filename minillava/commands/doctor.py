"""`minillava doctor`: what this machine is, what each scale costs, and which of them fits here.

Notable: parameters, arithmetic and memory follow from the shapes and each scale's recipe alone (model/costs.py,
preflight.py), so that a model is refused on paper before it is fetched or built, and by the same rule by which `minillava
train` refuses it. One figure is measured, the speed of a large matrix product; times follow from it at half of it, which
good training code reaches.

    minillava doctor          # --json for programs
"""

import json
import math
import os
import platform
import textwrap
import time

import torch

from minillava import scales
from minillava.costs.hardware import CARDS, Card, Hardware, memory_here
from minillava.costs.model import cache_bytes, flops, parameters, shapes
from minillava.costs.preflight import USABLE_SHARE, DoesNotFit, device_bytes, fits, preflight
from minillava.machine import compute_dtype

WORDS = 200  # tokens of text beside a picture's patches, where one more is written
UTILISATION = 0.5
BIG_GPU, MOST = "a100-80gb", 64  # the paper's; more than so many of them are not thought of


def arguments(parser) -> None:
    """Declare what the verb is given."""
    parser.add_argument("--json", action="store_true", help="the same figures for a program")


def machine() -> dict:
    """What this is, without its name: processor, cores, memory in bytes, GPU, and whether bfloat16 is in hardware."""
    found = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": memory_here(),
        "torch": torch.__version__,
        "bfloat16 in hardware": compute_dtype() == torch.bfloat16,
        "gpu": None,
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found["gpu"] = {"name": card.name, "count": torch.cuda.device_count(), "memory": card.total_memory}
    return found


def matmul_speed(dtype: torch.dtype, device: str = "cpu", seconds: float = 0.5) -> float:
    """FLOP/s of a large matrix product here, the best of a few: what all arithmetic below is held against."""
    n = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    wait, best, end = (
        torch.cuda.synchronize if device != "cpu" else lambda: None,
        math.inf,
        time.perf_counter() + seconds,
    )
    for step in range(1000):
        wait()
        begun = time.perf_counter()
        a @ b
        wait()
        best = min(best, time.perf_counter() - begun) if step else best  # the first one warms up
        if step > 2 and time.perf_counter() > end:
            break
    return 2 * n**3 / best


def examine(speed: float, here: dict) -> dict:
    """For each shape: parameters, FLOPs, bytes, hours, and whether it fits. here: from `machine`."""
    device, gpu = here["gpu"] or here, bool(here["gpu"])
    on = Hardware(Card("this machine", device["memory"], speed, None, gpu=gpu), device.get("count", 1))
    half = gpu or here["bfloat16 in hardware"]
    found = {}
    for name, config in shapes().items():
        tokens, parts = config.vision.num_patches + WORDS, parameters(config)
        cache = cache_bytes(config, 2 if half else 4)
        row = {
            "parameters": parts,
            "FLOPs a written token": flops(config, tokens, 1, 0)["total"] - flops(config, tokens - 1, 0, 0)["total"],
            "cache bytes a token": cache,
            "answering": {"bytes": parts["total"] * (2 if half else 4) + cache * config.language.max_position},
        }
        row["answering"]["fits"] = row["answering"]["bytes"] < USABLE_SHARE * device["memory"]
        for number in (1, 2):
            stage = scales.find(name).stage(f"stage {number}")
            tokens = stage.looks * config.vision.num_patches + stage.text
            work = flops(config, tokens, stage.answer, stage.looks, number)["total"]
            cards = (n for n in range(1, MOST + 1) if fits(config, stage, Hardware(CARDS[BIG_GPU], n)))
            row[stage.id] = {
                "batch": stage.batch,
                "at once": stage.micro,
                "tokens a sample": tokens,
                "FLOPs a sample": work,
                "samples a second": UTILISATION * speed * on.count / work,
                "bytes": device_bytes(config, stage, on.count, gpu),
                "80 GB GPUs": next(cards, None),
                "refused": None,
            }
            try:
                preflight(config, stage, on)
            except DoesNotFit as error:
                row[stage.id]["refused"] = str(error)
        found[name] = row
    return found


def show(here: dict, speed: float, found: dict) -> str:
    """The examination as text for a terminal."""
    card = here["gpu"]
    gpu = f"{card['count']} x {card['name']}, {card['memory'] / 1e9:.0f} GB" if card else "no GPU"
    yes = lambda is_so: "yes" if is_so else "no"  # noqa: E731
    lines = [
        f"{here['system']} on {here['processor']}, {here['cores']} cores, {here['memory'] / 1e9:.1f} GB of memory, {gpu}",
        f"bfloat16 in hardware: {yes(here['bfloat16 in hardware'])}; a large matrix product runs at "
        f"{number(speed)}FLOP/s (measured); torch {here['torch']}",
        "",
        "".rjust(26) + "".join(name.rjust(13) for name in found),
    ]

    def add(title, of):
        lines.append(title.ljust(26) + "".join(of(row).rjust(13) for row in found.values()))

    for part in next(iter(found.values()))["parameters"]:
        name = {"total": "parameters, all", "stage 1": "  trained in stage 1", "stage 2": "  trained in stage 2"}
        add(name.get(part, f"  {part.replace('_', ' ')}"), lambda row, part=part: number(row["parameters"][part]))
    add("FLOPs a written token", lambda row: number(row["FLOPs a written token"]))
    add("cache a token, bytes", lambda row: number(row["cache bytes a token"]))
    add("answers: memory, bytes", lambda row: number(row["answering"]["bytes"]))
    add("  fits here", lambda row: yes(row["answering"]["fits"]))
    for stage in ("stage 1", "stage 2"):
        add(f"{stage}: batch, at once", lambda row, s=stage: f"{row[s]['batch']}, {row[s]['at once']}")
        add("  tokens a sample", lambda row, s=stage: f"{row[s]['tokens a sample']:.0f}")
        add("  FLOPs a sample", lambda row, s=stage: number(row[s]["FLOPs a sample"]))
        add("  samples a second", lambda row, s=stage: f"{row[s]['samples a second']:.3g}")
        add("  memory a device, bytes", lambda row, s=stage: number(row[s]["bytes"]["total"]))
        add("  fits here", lambda row, s=stage: yes(not row[s]["refused"]))
        add("  80 GB GPUs it needs", lambda row, s=stage: str(row[s]["80 GB GPUs"] or f"over {MOST}"))
    lines += [
        "",
        f"Speeds: at half of the matrix product's. A written token: behind a picture and {WORDS} tokens. Answering: one",
        "conversation that fills the context. Stages: each scale's recipe, as `minillava train` would begin it here.",
    ]
    for name, row in found.items():
        for stage in ("stage 1", "stage 2"):
            if row[stage]["refused"]:
                lines += textwrap.wrap(f"{name}, {row[stage]['refused']}", 112, subsequent_indent="  ")
    return "\n".join(lines)


def number(value: float) -> str:
    """1234567 as "1.23 M"."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g} "


def run(options) -> None:
    """Print it, as a table or as JSON."""
    here = machine()
    speed = matmul_speed(compute_dtype(), "cuda" if here["gpu"] else "cpu")
    found = examine(speed, here)
    print(json.dumps({"machine": here, "matmul": speed, "scales": found}, indent=2) if options.json else show(here, speed, found))  # fmt: skip

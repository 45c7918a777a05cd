"""`minillava doctor`: what this machine is, what each scale costs, and which of them fits here.

Notable: parameters, arithmetic and memory follow from the shapes alone (model/costs.py), so that a model is refused on
paper before it is fetched or built. One figure is measured, the speed of a large matrix product; times follow from it
at half of it, which good training code reaches.

    minillava doctor          # --json for programs
"""

import json
import math
import os
import platform
import time

import torch

from minillava.hardware import memory_here
from minillava.model import LanguageConfig, LlavaConfig, VisionConfig, cache_bytes, flops, memory, parameters
from minillava.model.costs import SHAPES
from minillava.model.files import read_json
from minillava.paper import RECIPES
from minillava.scales import WEIGHTS
from minillava.training.loop import compute_dtype

WORDS, ANSWER = 200, 100  # a sample beside its patches: tokens of text, and how many of them are the answer
UTILISATION = 0.5
BIG_GPU = 80e9  # bytes; the paper's A100


def shapes() -> dict[str, LlavaConfig]:
    """Name -> LlavaConfig: the shipped small LLaVA as it is now, then the others."""
    written = read_json(WEIGHTS / "llava" / "llava.json")
    tiny = LlavaConfig(
        VisionConfig(**written["vision"]), LanguageConfig(**written["language"]), written["select_layer"],
        written["projector"]["type"],
    )  # fmt: skip
    return {"tiny": tiny} | SHAPES


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
    device = here["gpu"] or here
    room, count = device["memory"], (here["gpu"] or {}).get("count", 1)
    half = bool(here["gpu"]) or here["bfloat16 in hardware"]
    found = {}
    for name, config in shapes().items():
        tokens = config.vision.num_patches + WORDS
        parts, big = parameters(config), parameters(config)["total"] > 1e9
        precision = "bfloat16" if big else "mixed" if half else "float32"
        cache = cache_bytes(config, 2 if half else 4)
        row = {
            "parameters": parts,
            "tokens a sample": tokens,
            "FLOPs a written token": flops(config, tokens, 1, 0)["total"] - flops(config, tokens - 1, 0, 0)["total"],
            "cache bytes a token": cache,
            "precision of training": precision,
            "answering": {"bytes": parts["total"] * (2 if half else 4) + cache * config.language.max_position},
        }
        row["answering"]["fits"] = row["answering"]["bytes"] < 0.9 * room
        for stage in (1, 2):
            recipe = RECIPES[f"stage {stage}"]
            needs = memory(config, stage, recipe.per_gpu_batch, tokens, ANSWER, precision, big, bool(here["gpu"]))
            work = flops(config, tokens, ANSWER, stage=stage)["total"]
            row[f"stage {stage}"] = {
                "bytes": needs,
                "batch": recipe.per_gpu_batch,
                "checkpointing": big,
                "FLOPs a sample": work,
                "samples a second": UTILISATION * speed * count / work,
                "fits": needs["total"] < 0.9 * room,
                "80 GB GPUs": math.ceil(needs["total"] / (0.9 * BIG_GPU)),
            }
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
    add("tokens a sample", lambda row: str(row["tokens a sample"]))
    add("FLOPs a written token", lambda row: number(row["FLOPs a written token"]))
    add("cache a token, bytes", lambda row: number(row["cache bytes a token"]))
    add("answers: memory, bytes", lambda row: number(row["answering"]["bytes"]))
    add("  fits here", lambda row: yes(row["answering"]["fits"]))
    for stage in ("stage 1", "stage 2"):
        add(f"{stage}: batch", lambda row, s=stage: str(row[s]["batch"]))
        add("  FLOPs a sample", lambda row, s=stage: number(row[s]["FLOPs a sample"]))
        add("  samples a second", lambda row, s=stage: f"{row[s]['samples a second']:.3g}")
        add("  memory, bytes", lambda row, s=stage: number(row[s]["bytes"]["total"]))
        add("  fits here", lambda row, s=stage: yes(row[s]["fits"]))
        add("  80 GB GPUs it needs", lambda row, s=stage: str(row[s]["80 GB GPUs"]))
    lines += [
        "",
        f"A sample: the patches of one picture, {WORDS} tokens of text, {ANSWER} of them answer. Speeds: at half of the",
        "matrix product's. Training above 1G parameters: bfloat16 throughout, activations computed again (checkpointing),",
        "state shared between GPUs where it needs several. Answering: one conversation that fills the context.",
    ]
    return "\n".join(lines)


def number(value: float) -> str:
    """1234567 as "1.23 M"."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g} "


def doctor(options) -> None:
    """Print it, as a table or as JSON."""
    here = machine()
    speed = matmul_speed(compute_dtype(), "cuda" if here["gpu"] else "cpu")
    found = examine(speed, here)
    print(json.dumps({"machine": here, "matmul": speed, "scales": found}, indent=2) if options.json else show(here, speed, found))  # fmt: skip

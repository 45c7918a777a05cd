"""What a training runs on: GPUs with memory, arithmetic and price as data, several of one kind, or this machine.

The arithmetic is the maker's figure for dense matrix products in half precision (bf16, or fp16 on a T4); training
reaches a part of it (`PEAK_UTILISATION`). Prices are dollars per hour to rent one GPU. They are assumptions with date
and source: they differ threefold between providers and change within months. Give your own with --price.

    python -c "from minillava.costs.hardware import parse_hardware; print(parse_hardware('8xa100-80gb'))"
"""

import re
from dataclasses import dataclass

import torch

from minillava.machine import compute_dtype, describe_machine, matmul_speed
from minillava.scales import ScaleError

PEAK_UTILISATION = 0.4  # share of the maker's figure that training reaches; good code reaches 0.3 to 0.5
SURVEY = "middle of the specialised landlords' range in mercatus-ai.com/blog/cloud-gpu-pricing, May 2026"
GUESS = "an assumption of 2026 from general knowledge, not looked up"


@dataclass(frozen=True)
class Card:
    """One GPU. memory: bytes. flops: peak dense half-precision FLOP/s. price: dollars per hour; None if it is not
    rented. gpu: False for a machine without a GPU."""

    name: str
    memory: float
    flops: float
    price: float | None
    source: str = ""
    gpu: bool = True


@dataclass(frozen=True)
class Hardware:
    """`count` GPUs of one kind."""

    card: Card
    count: int = 1

    def __str__(self) -> str:
        return f"{self.count} x {self.card.name}" if self.count > 1 else self.card.name


CARDS = {
    "t4": Card("T4, 16 GB", 15.6e9, 65e12, 0.35, GUESS),
    "l4": Card("L4, 24 GB", 23.6e9, 121e12, 0.70, GUESS),
    "rtx-4090": Card("RTX 4090, 24 GB", 25.3e9, 165e12, 0.50, GUESS),
    "a100-80gb": Card("A100, 80 GB", 84.9e9, 312e12, 1.30, SURVEY),
    "h100-80gb": Card("H100 SXM, 80 GB", 84.9e9, 989e12, 3.00, SURVEY),
    "h200-141gb": Card("H200 SXM, 141 GB", 150e9, 989e12, 4.00, SURVEY),
}


def parse_hardware(text: str) -> Hardware:
    """`a100-80gb`, `8xa100-80gb`, or `here`, which measures this machine's speed. Raises ScaleError for others."""
    if text == "here":
        return this_machine(matmul_speed(compute_dtype(), "cuda" if torch.cuda.is_available() else "cpu"))
    found = re.fullmatch(r"(?:(\d{1,5})x)?(.+)", text)
    count = int(found[1] or 1) if found else 0
    if not count or found[2] not in CARDS:
        raise ScaleError(f"no hardware is called {text!r}; there are: here, {', '.join(CARDS)}, or 8xa100-80gb")
    return Hardware(CARDS[found[2]], count)


def this_machine(flops: float = 0.0, described: dict | None = None) -> Hardware:
    """This machine, or one that `describe_machine` described. flops: the measured speed of a large matrix product."""
    here = described or describe_machine()
    device = here["gpu"] or {"name": "this machine, no GPU", "memory": here["memory"], "count": 1}
    return Hardware(Card(device["name"], device["memory"], flops, None, gpu=bool(here["gpu"])), device["count"])

"""What a training runs on: cards with their memory, arithmetic and price as data, several of one kind, or this machine.

Notable: arithmetic is the maker's figure for dense matrix products in half precision (bf16, or fp16 on a T4), of which
training reaches a part (`UTILISATION`). Prices are dollars an hour to rent one card, an assumption with its date
and source: they differ threefold between landlords and change within months. Put your own with --price.

    python -c "from minillava.costs.hardware import parse; print(parse('8xa100-80gb'))"
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from minillava.scales import ScaleError

PEAK_UTILISATION = 0.4  # of that arithmetic; good training code reaches 0.3 to 0.5
SURVEY = "middle of the specialised landlords' range in mercatus-ai.com/blog/cloud-gpu-pricing, May 2026"
GUESS = "an assumption of 2026 from general knowledge, not looked up"


@dataclass(frozen=True)
class Card:
    """memory in bytes; flops: dense half-precision FLOP/s at the most; price: dollars an hour, None where nobody rents."""

    name: str
    memory: float
    flops: float
    price: float | None
    source: str = ""
    gpu: bool = True


@dataclass(frozen=True)
class Hardware:
    """`count` cards of one kind."""

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
    """`a100-80gb` or `8xa100-80gb`. Raises ScaleError that lists the cards there are."""
    found = re.fullmatch(r"(?:(\d{1,5})x)?(.+)", text)
    count = int(found[1] or 1) if found else 0
    if not count or found[2] not in CARDS:
        raise ScaleError(
            f"no hardware is called {text!r}; there are: here, {', '.join(CARDS)}, or several: 8xa100-80gb"
        )
    return Hardware(CARDS[found[2]], count)


def memory_here() -> int:
    """Bytes of memory that this process may use: the machine's, or less where a container says so."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def this_machine(flops: float = 0.0) -> Hardware:
    """This machine: its GPUs, or its memory. flops: of a large matrix product, where it was measured."""
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return Hardware(Card(card.name, card.total_memory, flops, None), torch.cuda.device_count())
    return Hardware(Card("this machine, no GPU", memory_here(), flops, None, gpu=False))

"""What the hub holds under the ids that this project names: hub.json, read from public copies of the hub's pages.

Of each id: its files with their sizes, their layout, licence and revision, where that was read, and what was not seen.
The tests' stand-in of the hub serves the same names and layouts.

    python -c "from minillava.fetch.listing import HUB; print(HUB['lmsys/vicuna-7b-v1.3']['layout'])"
"""

import json
from pathlib import Path

_TABLE = json.loads(Path(__file__).with_name("hub.json").read_text(encoding="utf-8"))
HUB = {row["id"]: row for row in _TABLE["repositories"]}


def weight_bytes(id: str) -> int:
    """Bytes to download for a model's weights: its safetensors, or its pickles where there are no safetensors."""
    sizes = {name: size.get("bytes") or size["about"] or 0 for name, size in HUB[id]["files"].items()}
    safe = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    return safe or sum(size for name, size in sizes.items() if name.endswith(".bin"))

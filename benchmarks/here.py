"""What every benchmark says of the machine it ran on, and how its figures are kept. Needs neither torch nor transformers."""

import json
import os
import platform
from pathlib import Path


def machine() -> dict:
    """Processor, cores and Python, without the machine's own name; load: how many others wanted the cores just now."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {"model": model, "cores": os.cpu_count(), "python": platform.python_version(), "load": load}


def write(path: Path | None, figures: dict) -> None:
    """The figures as JSON, where a file was named (--json)."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")

"""The machine that a benchmark ran on, without its name, and the file of its results. Does without torch."""

import json
import os
import platform
from pathlib import Path


def describe_machine() -> dict:
    """Processor, cores, Python, and load: how many processes wanted the cores in the last minute."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {"model": model, "cores": os.cpu_count(), "python": platform.python_version(), "load": load}


def write_results(path: Path | None, results: dict) -> None:
    """Write the results as JSON if a file was named (--json)."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")

"""Shared by the scripts of gpu.sh: independent parts, each written to one file as it ends; a part that is there is skipped.

A part that raises is recorded with the end of its traceback, and the next one begins.
"""

import argparse
import gc
import json
import subprocess
import time
import traceback
from pathlib import Path

import environment
import torch

from minillava.files import write_text
from minillava.machine import describe_machine


def machine():
    """The card, its driver, and the versions of what ran on it."""
    found = environment.describe_machine() | describe_machine() | {"cuda": torch.version.cuda}
    if torch.cuda.is_available():
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
        found |= {"driver": driver, "cudnn": torch.backends.cudnn.version()}
    return found


def run(text, name, parts, mock=None):
    """Run the parts that the file named by --json does not hold yet.

    mock: the names of those that --dry runs, each at mock size; None: all. Status 1 where one of these raised.
    """
    parser = argparse.ArgumentParser(description=text.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each part's figures here, and resume from it")
    parser.add_argument(
        "--dry", action="store_true", help="everything at mock size, also on a CPU, to see that it runs"
    )
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no part after so many seconds")
    options = parser.parse_args()
    begun, results = (
        time.monotonic(),
        {"benchmark": f"gpu, {name}", "dry": options.dry, "machine": machine(), "parts": {}},
    )
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text())
    parts = {part: parts[part] for part in (mock if options.dry and mock else parts)}
    for part, work in parts.items():
        if part in results["parts"] or time.monotonic() - begun > options.seconds:
            continue
        start = time.monotonic()
        try:
            figures = work(options.dry)
        except Exception:
            figures = {"raised": traceback.format_exc().splitlines()[-6:]}
            print(f"{part}: raised", *figures["raised"], sep="\n", flush=True)
        results["parts"][part] = figures | {"took": round(time.monotonic() - start, 1)}
        if options.json:
            write_text(options.json, json.dumps(results, indent=1) + "\n")
        torch.compiler.reset()  # it keeps few compilations of one function, and then none of the newer ones
        gc.collect()  # a model that an exception held
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    failed = [part for part, figures in results["parts"].items() if "raised" in figures]
    left = [part for part in parts if part not in results["parts"]]
    print(f"{name}: {len(results['parts'])} parts, raised: {failed}, not begun: {left}", flush=True)
    if options.dry and (failed or left):
        raise SystemExit(1)

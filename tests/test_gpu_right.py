"""The GPU's checks run on a CPU with small sizes, so that they do not break where no GPU is at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_right.py"
PARTS = ("forward passes, tiny", "answers", "attention", "kernel_forms", "one_update", "resumed, Adam",
         "resumed, Muon", "resumed, Adam, deterministic", "float16, Adam", "recomputed, tiny", "sharded",
         "float16, Muon", "compiled, tiny")  # fmt: skip


def start(*options):
    command = [sys.executable, SCRIPT, "--dry", *map(str, options)]
    names = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    return subprocess.run(command, env=names, capture_output=True, text=True, timeout=300)


def test_every_check_runs_dry_and_holds_and_what_is_in_the_file_is_not_run_again(tmp_path):
    path = tmp_path / "right.json"
    done = start("--json", path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(path.read_text())
    assert set(found["checks"]) == set(PARTS) and found["machine"]["torch"] == torch.__version__
    for name, check in found["checks"].items():
        assert check["rows"], name
        for row in check["rows"]:
            assert row["ok"] and row["difference"] <= row["tolerance"], row

    rows = found["checks"]["kernel_forms"]["rows"]
    rows[0] |= {"ok": False, "difference": None}
    path.write_text(json.dumps(found))
    again = start("--json", path, "--seconds", 0)
    assert again.returncode == 1 and json.loads(path.read_text())["checks"] == found["checks"]

"""benchmarks/gpu.sh runs on the CPU at mock size, so that it still runs on the day a GPU is at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minillava.costs.model import SHAPES, memory
from minillava.data import IGNORE
from minillava.data.samples import plan_batches

ROOT = Path(__file__).parent.parent
FAST = json.loads((ROOT / "benchmarks" / "results" / "gpu-fast.json").read_text(encoding="utf-8"))["parts"]


def kit(*arguments, out):
    """The results that the kit writes in a dry run."""
    command = ["bash", "benchmarks/gpu.sh", "--dry", "--out", str(out), *arguments]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {path.name: json.loads(path.read_text()) for path in out.glob("*.json")}


def test_speed_is_measured_part_by_part_and_a_second_run_measures_nothing_again(tmp_path):
    (first,) = kit("fast", out=tmp_path).values()
    assert first["dry"] and len(first["parts"]) == 4 and not any("raised" in part for part in first["parts"].values())
    assert first["parts"]["0.5B, stage 1"]["plain"]["tokens a second"] > 0
    (again,) = kit("fast", out=tmp_path).values()
    assert again == first


def test_an_unknown_part_is_refused():
    done = subprocess.run(["bash", ROOT / "benchmarks/gpu.sh", "slow"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "slow" in done.stderr


@pytest.mark.parametrize("stage", [1, 2])
def test_the_memory_that_the_loop_took_on_the_gpu_is_what_is_foreseen(stage, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_fast

    config, batch, tokens = SHAPES["colab"], gpu_fast.BATCH[stage], gpu_fast.TOKENS[stage]
    for way, (compiled, _) in gpu_fast.WAYS.items():
        found = FAST[f"0.5B, stage {stage}"][way]
        count = len(found["seconds"]) + 1
        samples = gpu_fast.samples_of(config, stage, batch * count)
        steps = plan_batches([len(s.ids) for s in samples], batch, count, 0)
        needs = gpu_fast.foreseen(config, stage, samples, steps, tokens, compiled)
        assert needs == found["foreseen memory"] and abs(found["peak memory"] / needs - 1) < 0.1


@pytest.mark.parametrize("part", [name for name in FAST if "a step" in name])
def test_the_memory_that_a_step_took_on_the_gpu_is_what_is_foreseen(part, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import forward

    found = FAST[part]
    config, count = SHAPES[found["shape"]], found["samples"]
    some = forward.samples(found["shape"], config, count)
    lengths = [len(ids) - 1 + config.vision.num_patches for ids, _ in some]
    assert sum(lengths) == found["tokens"]  # the batch that was measured
    scored = sum(int((labels[1:] != IGNORE).sum()) for _, labels in some) / count
    again = found["activations"] == "activations computed again"
    sizes = config, found["stage"], count, max(lengths), scored, found["precision"], again
    for way in ("ours", "ours compiled"):
        needs = memory(*sizes, parts=1, compiled=way == "ours compiled")["total"]
        assert needs == found[way]["foreseen memory"] and abs(found[way]["peak memory"] / needs - 1) < 0.05

"""What generate.py and forward.py share: one set of random weights in our classes and in those of `transformers`, timing
in turn, peak memory, and the machine described without its name.

Notable: both sides hold the very same tensors, so what they compute can be compared, and memory is not taken twice. Times
are taken in turn, a round each, and ratios are medians over rounds: what else runs on the machine hits both alike.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave their core to others
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import here
import torch
import transformers

from minillava.costs.model import shapes as known_shapes
from minillava.machine import compute_dtype, describe_machine
from minillava.model import Llava
from minillava.model.formats.published import llava_names, llava_published

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = ("tiny", "colab")


def arguments(text, precisions, parts=()):
    """The options that every benchmark has, and a hidden one with which it measures memory in a process of its own.

    parts: of a benchmark that is long enough to be run in several.
    """
    parser = argparse.ArgumentParser(description=text.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: a sample of the work, fewer rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    shapes = "tiny,colab,full-7b" if DEVICE == "cuda" else "tiny,colab"
    parser.add_argument("--shapes", help=f"of {', '.join(known_shapes())} (default: {shapes}; with --quick: tiny)")
    parser.add_argument(
        "--precisions", help=f"of {', '.join(precisions)} (default: all that this machine has in hardware)"
    )
    if parts:
        parser.add_argument("--parts", default=",".join(parts), help=f"of {', '.join(parts)} (default: all)")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # shape/precision/side: measure its memory and end
    options = parser.parse_args()
    half = compute_dtype() == torch.bfloat16
    offered = [p for p in precisions if half or p == "float32"]
    options.precisions = (
        options.precisions.split(",") if options.precisions else offered[-1:] if options.quick else offered
    )
    options.shapes = (options.shapes or ("tiny" if options.quick else shapes)).split(",")
    unknown = [name for name in options.shapes if name not in known_shapes()]
    if unknown:
        parser.error(f"--shapes {unknown[0]}: choose from {', '.join(known_shapes())}")
    if parts:
        options.parts = options.parts.split(",")
    return options


def twins(name, dtype):
    """(ours, theirs) of a shape, random, the same tensors in both. In theirs the last token stands for a patch."""
    config = known_shapes()[name]
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(DEVICE):
        ours = Llava(config).eval()
        published = llava_published(config, config.language.vocab_size - 1)
        theirs = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**published)).eval()
    torch.set_default_dtype(torch.float32)
    own, tensors = ours.state_dict(), theirs.state_dict()
    name_of = llava_names(tensors)
    for ours_name, tensor in own.items():
        assert tensors[name_of(ours_name)].shape == tensor.shape, ours_name
        tensors[name_of(ours_name)] = tensor
    if config.language.tie_embeddings:
        tensors["lm_head.weight"] = own["language_model.embed_tokens.weight"]
    D = config.language.hidden_size
    second = theirs.model.multi_modal_projector.linear_2
    tensors[name_of("projector.2.weight")] = torch.eye(D).to(second.weight)  # the linear W there (published.py)
    tensors[name_of("projector.2.bias")] = torch.zeros(D).to(second.bias)
    theirs.load_state_dict(tensors, assign=True)
    theirs.tie_weights()
    return ours, theirs


def in_turn(sides, rounds, warm=True):
    """{side: [(seconds, CPU seconds) of each round]}: every side once a round, after one round that is not counted.

    CPU seconds are of all threads together; where other work takes the cores, they say more than the clock.
    """
    wait = torch.cuda.synchronize if DEVICE == "cuda" else lambda: None
    times = {name: [] for name in sides}
    for counted in range(0 if warm else 1, rounds + 1):
        for name, work in sides.items():
            wait()
            begun = time.perf_counter(), time.process_time()
            work()
            wait()
            if counted:
                times[name].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    return times


def compare(times, ours="ours"):
    """For each other side: how many times as long as ours it took, the median over rounds, by the clock and in CPU time."""
    return {
        name: [statistics.median(b[i] / a[i] for a, b in zip(times[ours], rows, strict=True)) for i in (0, 1)]
        for name, rows in times.items()
        if name != ours
    }


def rss():
    """Bytes of memory this process has now, and had at most since the last reset."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))


def available():
    """Bytes of memory that are free; without limit where the system does not say."""
    path = Path("/proc/meminfo")
    lines = dict(line.split(":") for line in path.read_text().splitlines()) if path.exists() else {}
    return 1024 * int(lines["MemAvailable"].split()[0]) if "MemAvailable" in lines else math.inf


def growth(work):
    """By how many bytes `work` makes memory grow at its peak (None where the system does not say)."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    if not Path("/proc/self/clear_refs").exists():
        return None
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, _ = rss()
    work()
    return rss()[1] - before


def alone(script, options, *key):
    """The bytes that the same script measures for this key in a process of its own, where nothing else has grown."""
    command = [sys.executable, script, "--alone", "/".join(key)] + (["--quick"] if options.quick else [])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def table(title, times, ratios, memory, goals):
    """One measurement in words."""
    print(f"\n{title}")
    for name, rows in times.items():
        clock = [row[0] for row in rows]
        line = f"  {name:12} {statistics.median(clock):9.3f} s ({min(clock):.3f} to {max(clock):.3f}), CPU {statistics.median(row[1] for row in rows):9.3f} s"
        line += f", memory +{memory[name] / 1e6:.0f} MB" if memory.get(name) else ""
        if name in ratios:
            line += f"   ours is {ratios[name][0]:.2f} x as fast ({ratios[name][1]:.2f} in CPU time)"
            line += f", goal {goals[name]}" if name in goals else ""
        print(line, flush=True)


def described():
    """The machine, its processor or GPU but not its own name, and what ran on it."""
    libraries = {"threads": torch.get_num_threads(), "transformers": transformers.__version__}
    return here.machine() | describe_machine() | libraries


def finish(options, results):
    here.write(options.json, {"machine": described(), "quick": options.quick} | results)


def run(name, text, precisions, goals, measure, work_of):
    """All of a benchmark: every shape in every precision, or, with --alone, by how much one side's memory grows.

    measure(shape, precision, options) prints and returns figures. work_of(shape, precision, side) gives what that side does.
    """
    options = arguments(text, precisions)
    if options.alone:
        print(json.dumps(growth(work_of(*options.alone.split("/")))))
        return
    found = [measure(shape, precision, options) for shape in options.shapes for precision in options.precisions]
    finish(options, {"benchmark": name, "goals": goals, "results": found})

"""Shared by the benchmarks against `transformers`: random weights in both, timing in turn, peak memory, results.

Both sides use the same tensors, so their outputs can be compared and the weights are in memory only once. They are
timed in turn, and ratios are medians over rounds, so whatever else the machine does affects both alike.
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

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave their core to others
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import environment
import torch
import transformers

from minillava.costs.model import SHAPES
from minillava.machine import compute_dtype, describe_machine
from minillava.model import Llava
from minillava.model.formats.published import llava_names, llava_published

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def arguments(text, precisions, parts=()):
    """The options of every benchmark, and a hidden one: measure the memory of one side and end.

    parts: the names of a long benchmark's parts, which can be run one by one.
    """
    parser = argparse.ArgumentParser(description=text.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: less work, fewer rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here as well")
    shapes = "tiny,colab,full-7b" if DEVICE == "cuda" else "tiny,colab"
    parser.add_argument("--shapes", help=f"of {', '.join(SHAPES)} (default: {shapes}; with --quick: tiny)")
    hardware = "all that this machine has in hardware"
    parser.add_argument("--precisions", help=f"of {', '.join(precisions)} (default: {hardware})")
    if parts:
        parser.add_argument("--parts", default=",".join(parts), help=f"of {', '.join(parts)} (default: all)")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # shape/precision/side
    options = parser.parse_args()
    half = compute_dtype() == torch.bfloat16
    offered = [p for p in precisions if half or p == "float32"]
    offered = offered[-1:] if options.quick else offered
    options.precisions = options.precisions.split(",") if options.precisions else offered
    options.shapes = (options.shapes or ("tiny" if options.quick else shapes)).split(",")
    unknown = [name for name in options.shapes if name not in SHAPES]
    if unknown:
        parser.error(f"--shapes {unknown[0]}: choose from {', '.join(SHAPES)}")
    if parts:
        options.parts = options.parts.split(",")
    return options


def same_weights(name, dtype):
    """(our Llava, transformers') of a shape, with the same random tensors. In theirs the last token is a patch."""
    config = SHAPES[name]
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


def synchronize():
    """Wait until the GPU, if there is one, has finished."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def time_in_turn(sides, rounds, warm_up=True):
    """{side: [(seconds, CPU seconds) per round]}: every side once per round. warm_up: one round before is not counted.

    CPU seconds are of all threads together; where other work takes the cores, they say more than the clock.
    """
    times = {name: [] for name in sides}
    for counted in range(0 if warm_up else 1, rounds + 1):
        for name, work in sides.items():
            synchronize()
            begun = time.perf_counter(), time.process_time()
            work()
            synchronize()
            if counted:
                times[name].append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    return times


def ratios_to_ours(times):
    """{other side: [by the clock, in CPU time]}: how many times as long as ours it took, the median over rounds."""
    others = {name: list(zip(times["ours"], rows, strict=True)) for name, rows in times.items() if name != "ours"}
    return {
        name: [statistics.median(theirs[i] / ours[i] for ours, theirs in rows) for i in (0, 1)]
        for name, rows in others.items()
    }


def process_memory():
    """Bytes of memory that this process has now, and its peak since the last reset."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(status[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))


def free_memory():
    """Bytes of memory that are free; infinity where the system does not say."""
    path = Path("/proc/meminfo")
    lines = dict(line.split(":") for line in path.read_text().splitlines()) if path.exists() else {}
    return 1024 * int(lines["MemAvailable"].split()[0]) if "MemAvailable" in lines else math.inf


def memory_growth(work):
    """By how many bytes memory grows at the peak of `work`; None where the system does not say."""
    if DEVICE == "cuda":
        synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    if not Path("/proc/self/clear_refs").exists():
        return None
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, _ = process_memory()
    work()
    return process_memory()[1] - before


def in_own_process(script, options, *key):
    """What the script measures for this key (see --alone) in a new process, where nothing else has used memory."""
    command = [sys.executable, script, "--alone", "/".join(key)] + (["--quick"] if options.quick else [])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def print_times(title, times, ratios, memory, goals):
    """One line per side: its times, memory, how many times as fast ours is, and the goal."""
    print(f"\n{title}")
    for name, rows in times.items():
        clock, cpu = zip(*rows)
        line = f"  {name:12} {statistics.median(clock):9.3f} s ({min(clock):.3f} to {max(clock):.3f})"
        line += f", CPU {statistics.median(cpu):9.3f} s"
        line += f", memory +{memory[name] / 1e6:.0f} MB" if memory.get(name) else ""
        if name in ratios:
            line += f"   ours is {ratios[name][0]:.2f} x as fast ({ratios[name][1]:.2f} in CPU time)"
            line += f", goal {goals[name]}" if name in goals else ""
        print(line, flush=True)


def write_results(options, results):
    """Write them, if a file was named, with the machine, its processor or GPU, and the versions of libraries."""
    machine = environment.describe_machine() | describe_machine()
    machine |= {"threads": torch.get_num_threads(), "transformers": transformers.__version__}
    environment.write_results(options.json, {"machine": machine, "quick": options.quick} | results)


def run(name, text, precisions, goals, measure, work_of):
    """Run a benchmark for every shape and precision; or, with --alone, measure by how much one side's memory grows.

    measure(shape, precision, options): prints and returns figures. work_of(shape, precision, side): that side's work.
    """
    options = arguments(text, precisions)
    if options.alone:
        print(json.dumps(memory_growth(work_of(*options.alone.split("/")))))
        return
    found = [measure(shape, precision, options) for shape in options.shapes for precision in options.precisions]
    write_results(options, {"benchmark": name, "goals": goals, "results": found})

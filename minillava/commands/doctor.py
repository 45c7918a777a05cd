"""`minillava doctor`: what this machine is, what each scale costs, and which of them fits here.

Parameters, arithmetic and memory follow from shapes and recipes alone (costs/model.py, costs/preflight.py), so a model
is refused before it is fetched or built, as in `minillava train`. Only the speed of a large matrix product is measured;
times assume that training reaches half of it (`MATMUL_UTILISATION`), as good code does.

    minillava doctor          # --json for programs
    minillava doctor --language-model FOLDER_OR_HUB_ID      # a part of your own, trained as `minillava train` would
"""

import json
import textwrap
from dataclasses import asdict
from importlib.util import find_spec

from minillava import scales
from minillava.commands import add_parts
from minillava.commands.cost import as_trained
from minillava.costs.estimate import estimate_stage, scale_config
from minillava.costs.hardware import CARDS, Hardware, this_machine
from minillava.costs.model import SHAPES, cache_bytes, flops, parameters
from minillava.costs.preflight import USABLE_SHARE, fits
from minillava.machine import compute_dtype, describe_machine, matmul_speed
from minillava.text import aligned, short_number

TEXT_TOKENS = 200  # in the context beside a picture's patches, when the cost of one more token is counted
MATMUL_UTILISATION = 0.5  # share of the measured matrix product's speed that training reaches
LARGE_GPU, MAX_GPUS = "a100-80gb", 64  # the paper's GPU; how many of them are tried
STAGES = ("stage 1", "stage 2")


def arguments(parser) -> None:
    add_parts(parser.add_argument)
    parser.add_argument(
        "--scale", default="tiny", help="whose recipe your own parts get (default: tiny, as in `train`)"
    )
    parser.add_argument("--json", action="store_true", help="the same figures for a program")


def examine(speed: float, machine: dict, configs: dict | None = None) -> dict:
    """For each scale: parameters, FLOPs, bytes, hours, and whether it fits.

    speed: FLOP/s of a large matrix product. machine: from `describe_machine`. configs: scale -> LlavaConfig; by default
    every scale's.
    """
    hardware = this_machine(speed, machine)
    bytes_each = 2 if hardware.card.gpu or machine["bfloat16 in hardware"] else 4
    found = {}
    for name, config in (configs or SHAPES).items():
        tokens, parts = config.vision.num_patches + TEXT_TOKENS, parameters(config)
        cache = cache_bytes(config, bytes_each)
        answering = parts["total"] * bytes_each + cache * config.language.max_position
        found[name] = {
            "parameters": parts,
            "FLOPs a written token": flops(config, tokens, 1, 0)["total"] - flops(config, tokens - 1, 0, 0)["total"],
            "cache bytes a token": cache,
            "answering": {"bytes": answering, "fits": answering < USABLE_SHARE * hardware.card.memory},
        }
        for id in STAGES:
            stage = as_trained(scales.find_scale(name).stage(id), hardware)
            estimate = asdict(estimate_stage(config, stage, hardware, MATMUL_UTILISATION))
            counts = (n for n in range(1, MAX_GPUS + 1) if fits(config, stage, Hardware(CARDS[LARGE_GPU], n)))
            rate = stage.samples * stage.epochs / (3600 * estimate["hours"])
            found[name][id] = estimate | {"samples a second": rate, "80 GB GPUs": next(counts, None)}
    return found


def report(machine: dict, speed: float, found: dict) -> str:
    """The examination as text for a terminal."""
    card = machine["gpu"]
    gpu = f"{card['count']} x {card['name']}, {card['memory'] / 1e9:.0f} GB" if card else "no GPU"
    table = [["", *found]]

    def add(title, cell):
        table.append([title, *(cell(row) for row in found.values())])

    names = {"total": "parameters, all", "stage 1": "  trained in stage 1", "stage 2": "  trained in stage 2"}
    for part in next(iter(found.values()))["parameters"]:
        title = names.get(part, f"  {part.replace('_', ' ')}")
        add(title, lambda row, part=part: short_number(row["parameters"][part]))
    add("FLOPs per written token", lambda row: short_number(row["FLOPs a written token"]))
    add("cache per token, bytes", lambda row: short_number(row["cache bytes a token"]))
    add("answering: memory, bytes", lambda row: short_number(row["answering"]["bytes"]))
    add("  fits here", lambda row: "yes" if row["answering"]["fits"] else "no")
    for stage in STAGES:
        add(f"{stage}: FLOPs per sample", lambda row, s=stage: short_number(row[s]["sample_flops"]))
        add("  samples per second", lambda row, s=stage: f"{row[s]['samples a second']:.3g}")
        add("  memory per device, bytes", lambda row, s=stage: short_number(row[s]["memory"]))
        add("  fits here", lambda row, s=stage: "no" if row[s]["refused"] else "yes")
        add("  80 GB GPUs it needs", lambda row, s=stage: str(row[s]["80 GB GPUs"] or f"over {MAX_GPUS}"))
    native = "yes" if machine["bfloat16 in hardware"] else "no"
    lines = [
        f"{machine['system']} on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory'] / 1e9:.1f} GB of memory, {gpu}",
        f"bfloat16 in hardware: {native}; a large matrix product runs at "
        f"{short_number(speed)}FLOP/s (measured); torch {machine['torch']}",
        "",
        aligned(table),
        "",
        "What each stage trains, on what and for how long: `minillava cost`.",
        f"Speeds: at half of the matrix product's. A written token: after a picture and {TEXT_TOKENS} tokens.",
        "Answering: a conversation that fills the context. Stages: as `minillava train` would run each recipe here.",
    ]
    if not find_spec("sentencepiece"):
        lines.append("Not installed: what Vicuna's tokenizer needs. Install it with `pip install 'minillava[real]'`.")
    for name, row in found.items():
        for stage in STAGES:
            if row[stage]["refused"]:
                lines += textwrap.wrap(f"{name}, {row[stage]['refused']}", 112, subsequent_indent="  ")
    return "\n".join(lines)


def run(options) -> None:
    """Print the examination, as a table or as JSON."""
    machine = describe_machine()
    speed = matmul_speed(compute_dtype(), "cuda" if machine["gpu"] else "cpu")
    name, own = options.scale, (options.vision_tower, options.language_model)
    if any(own):
        (row,) = examine(speed, machine, {name: scale_config(name, *own)}).values()
        found = {f"yours, as {name}": row}
    else:
        found = examine(speed, machine)
    if options.json:
        print(json.dumps({"machine": machine, "matmul": speed, "scales": found}, indent=2))
    else:
        print(report(machine, speed, found))

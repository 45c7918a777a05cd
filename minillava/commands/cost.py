"""`minillava cost`: what each scale trains, on what data, for how long and for how much money, on given hardware.

Parameters, arithmetic, memory and disk follow from shapes and recipe (costs/model.py, costs/preflight.py). Hours follow
from one printed assumption, the share of a GPU's peak that training reaches (utilisation), and money from a price that
is printed with its source. As a check, full-13b also shows the paper's own hours and what utilisation they need.

    minillava cost                                    # every scale on its usual hardware
    minillava cost --scale full-7b --hardware 4xh100-80gb --utilisation 0.5
    minillava cost --scale tiny --hardware here       # at this machine's measured speed
    minillava cost --scale colab --language-model FOLDER_OR_HUB_ID    # its recipe on a part of your own
"""

import json
from dataclasses import asdict, replace

from minillava import scales
from minillava.commands import add_parts
from minillava.costs.estimate import StageEstimate, estimate_stage, paper_utilisation, scale_config
from minillava.costs.hardware import CARDS, PEAK_UTILISATION, Hardware, parse_hardware
from minillava.costs.model import parameters
from minillava.fetch.listing import HUB, weight_bytes
from minillava.scales import ScaleError
from minillava.text import aligned, short_number
from minillava.training.stages import TOKENS_PER_CORE

SHIPPED = {scales.TINY.vision_tower: "shipped vision tower", scales.TINY.language_model: "shipped language model"}


def as_trained(stage: scales.Stage, hardware: Hardware) -> scales.Stage:
    """The stage as `minillava train` runs it: on a CPU each process takes at most TOKENS_PER_CORE tokens at once."""
    most = -(-TOKENS_PER_CORE // stage.longest_sample)
    return stage if hardware.card.gpu else replace(stage, micro=min(stage.micro, most))


def arguments(parser) -> None:
    add = parser.add_argument
    names = ", ".join(scales.PICTURE_BOOK_SCALES | scales.REAL_SCALES)
    add("--scale", help=f"one of: {names} (default: all; for your own parts tiny, as in `train`)")
    add_parts(add)
    add("--hardware", help=f"here, {', '.join(CARDS)}, or several: 8xa100-80gb (default: the scale's usual hardware)")
    add("--utilisation", type=float, default=PEAK_UTILISATION, help="share of the peak reached (default: %(default)s)")
    add("--price", type=float, help="dollars per hour and GPU, instead of the assumed price")
    add("--json", action="store_true", help="the same figures for a program")


def report(scale, parts, config, stages, hardware: Hardware, estimates: list[StageEstimate], utilisation, price=None):
    """One scale as text for one screen of a terminal. parts: its vision tower and language model, or one's own."""
    count = parameters(config)
    language = sum(count[name] for name in ("embedding", "decoder", "head"))
    vision_tower, language_model = (SHIPPED.get(part, part) for part in parts)
    lines = [
        f"{scale.name}: {vision_tower} ({short_number(count['vision_tower'])} parameters, frozen), "
        f"W ({short_number(count['projector'])}), {language_model} ({short_number(language)})",
        f"on {hardware}, at {utilisation:.0%} of {short_number(hardware.card.flops * hardware.count)}FLOP/s",
        "",
        aligned(_table(stages, estimates)),
    ]
    if estimates[0].dollars is not None:
        rate, source = (hardware.card.price, hardware.card.source) if price is None else (price, "as given")
        lines += ["", f"Price: ${rate:g} per hour and GPU ({source})."]
    if scale.name == "full-13b" and config == scale_config(scale.name):
        checks = [paper_utilisation(config, stage) for stage in stages]
        hours = ", ".join(f"{hours} h ({share:.0%} utilisation or more)" for hours, share in checks)
        lines.append(f"The paper, 13B on 8 A100: at most {hours}.")
    held = [f"  {p}, {short_number(weight_bytes(p))}B, licence: {HUB[p]['licence']}" for p in parts if p in HUB]
    lines += ["To download:", *held] if held else []
    lines += [f"{e.stage}: {e.refused}" for e in estimates if e.refused]
    about = getattr(scale, "why", {}) if parts == (scale.vision_tower, scale.language_model) else {}
    why = [f"  {what}: {reason}" for what, reason in about.items()]
    for stage in stages:
        why += [f"  {stage.id}, {n}: {ours} (paper {theirs}): {w}" for n, (theirs, ours, w) in stage.reasons().items()]
    return "\n".join([*lines, *(["", "Not as in the paper:"] if why else []), *why])


def _table(stages, estimates: list[StageEstimate]) -> list[list[str]]:
    """One row per figure, one column per stage."""
    rows = [
        ["", *(s.id for s in stages)],
        ["trains", *(" + ".join(s.trains) + (f", LoRA {s.lora}" if s.lora else "") for s in stages)],
        ["  parameters", *(short_number(e.trained) for e in estimates)],
        ["on", *(s.data for s in stages)],
        ["  samples x epochs", *(f"{s.samples:,} x {s.epochs}" for s in stages)],
        ["  tokens per sample", *(f"{e.tokens:.0f}" for e in estimates)],
        ["learning rate", *(f"{s.lr:g}" for s in stages)],
        ["batch; at once per device", *(f"{s.batch}; {s.micro}" for s in stages)],
        ["precision", *(s.precision for s in stages)],
        ["steps", *(f"{s.steps:,}" for s in stages)],
        ["FLOPs per sample", *(short_number(e.sample_flops) for e in estimates)],
        ["FLOPs", *(f"{e.flops:.2g}" for e in estimates)],
        ["memory per device", *(f"{short_number(e.memory)}B{' - too much' if e.refused else ''}" for e in estimates)],
        ["disk, at most", *(f"{short_number(e.disk)}B" for e in estimates)],
        ["time", *(f"{60 * e.hours:.1f} min" if e.hours < 1 else f"{e.hours:.1f} h" for e in estimates)],
    ]
    if estimates[0].dollars is not None:
        rows.append(["price", *(f"${e.dollars:,.2f}" for e in estimates)])
    return rows


def run(options) -> None:
    """Print the costs scale by scale, as text or as JSON. Raises ScaleError for an unknown scale or hardware."""
    if not 0 < options.utilisation <= 1:
        raise ScaleError(f"--utilisation {options.utilisation:g}: a share above 0 and at most 1 is needed")
    own = options.vision_tower, options.language_model
    chosen = [scales.TINY] if any(own) else [scales.TINY, *scales.REAL_SCALES.values()]
    chosen = [scales.find_scale(options.scale)] if options.scale else chosen
    found, texts = {}, []
    for scale in chosen:
        hardware, config = parse_hardware(options.hardware or scale.hardware), scale_config(scale.name, *own)
        parts = own[0] or scale.vision_tower, own[1] or scale.language_model
        stages = [as_trained(stage, hardware) for stage in scale.stages]
        estimates = [estimate_stage(config, s, hardware, options.utilisation, options.price) for s in stages]
        found[scale.name] = {
            "hardware": str(hardware), "utilisation": options.utilisation,
            "recipe": [asdict(stage) for stage in stages], "estimates": [asdict(e) for e in estimates],
        }  # fmt: skip
        texts.append(report(scale, parts, config, stages, hardware, estimates, options.utilisation, options.price))
    print(json.dumps(found, indent=1) if options.json else f"\n\n{'-' * 104}\n".join(texts))

"""`minillava cost`: what each scale trains, on what, for how long and for how much, on hardware with a name.

Notable: parameters, arithmetic, memory and disk follow from shapes and recipe (model/costs.py, preflight.py). Hours
follow from one assumption that is printed, the share of a card's arithmetic that training reaches (utilisation); money
from a price that is printed with its source. What the paper itself took, at most, stands below as a check: it says
what utilisation the authors reached at least.

    minillava cost                                    # every scale on what it is meant for
    minillava cost --scale full-7b --hardware 4xh100-80gb --utilisation 0.5
    minillava cost --scale tiny --hardware here       # at this machine's measured speed
"""

import json
from dataclasses import asdict

from minillava import scales
from minillava.commands.doctor import matmul_speed, number
from minillava.costs import hardware
from minillava.costs.estimate import Estimate, config_of, duration, estimate_stage, paper_utilisation
from minillava.costs.model import parameters
from minillava.costs.preflight import bytes_text
from minillava.machine import compute_dtype
from minillava.scales import ScaleError


def arguments(parser) -> None:
    """Declare what the verb is given."""
    parser.add_argument("--scale", help=f"one of: {', '.join(scales.SCALES | scales.REAL)} (default: all)")
    parser.add_argument(
        "--hardware",
        help=f"here, {', '.join(hardware.CARDS)}, or several: 8xa100-80gb (default: what the scale is for)",
    )
    parser.add_argument(
        "--utilisation", type=float, default=hardware.PEAK_UTILISATION, help="share of the peak reached (default: 0.4)"
    )
    parser.add_argument("--price", type=float, help="dollars an hour and card, instead of those assumed")
    parser.add_argument("--json", action="store_true", help="the same figures for a program")


def show(scale, config, on: hardware.Hardware, estimates: list[Estimate], utilisation: float, price=None) -> str:
    """One scale as text for one screen of a terminal."""
    count = parameters(config)
    language = sum(count[name] for name in ("embedding", "decoder", "head"))
    vision_tower, language_model = (
        ("shipped vision tower", "shipped language model")
        if scale.name in scales.SCALES
        else (scale.vision_tower, scale.language_model)
    )
    lines = [
        f"{scale.name}: {vision_tower} ({number(count['vision_tower'])} parameters, frozen), W ({number(count['projector'])}), "
        f"{language_model} ({number(language)})",
        f"on {on}, at {utilisation:.0%} of {number(on.card.flops * on.count)}FLOP/s",
        "",
    ]

    def add(title, values):
        lines.append(title.ljust(26) + "".join(value.rjust(26) for value in values))

    stages = scale.stages
    add("", [stage.id for stage in stages])
    add("trains", [" + ".join(stage.trains) + (f", LoRA {stage.lora}" if stage.lora else "") for stage in stages])
    add("  parameters", [number(e.trained) for e in estimates])
    add("on", [stage.data for stage in stages])
    add("  samples x epochs", [f"{stage.samples:,} x {stage.epochs}" for stage in stages])
    add("  tokens a sample", [f"{e.tokens:.0f}" for e in estimates])
    add("learning rate", [f"{stage.lr:g}" for stage in stages])
    add("batch; at once a device", [f"{stage.batch}; {stage.micro}" for stage in stages])
    add("precision", [stage.precision for stage in stages])
    add("steps", [f"{stage.steps:,}" for stage in stages])
    add("FLOPs a sample", [number(e.sample_flops) for e in estimates])
    add("FLOPs", [f"{e.flops:.2g}" for e in estimates])
    add("memory a device", [bytes_text(e.memory) + (" - too much" if e.refused else "") for e in estimates])
    add("disk, at most", [bytes_text(e.disk) for e in estimates])
    add("time", [duration(e.hours) for e in estimates])
    if estimates[0].dollars is not None:
        add("price", [f"${e.dollars:,.2f}" for e in estimates])
        given = "as given" if price is not None else on.card.source
        rate = on.card.price if price is None else price
        lines += ["", f"Price: ${rate:g} an hour and card ({given})."]
    if scale.name.startswith("full"):
        checks = [paper_utilisation(config, stage) for stage in stages]
        lines.append(
            "The paper, 13B on 8 A100: at most "
            + ", ".join(f"{hours} h ({share:.0%} utilisation or more)" for hours, share in checks)
            + "."
            if scale.name == "full-13b"
            else "The paper gives its hours for 13B only."
        )
    lines += [f"{e.stage}: {e.refused}" for e in estimates if e.refused]
    why = [f"  {what}: {reason}" for what, reason in getattr(scale, "why", {}).items()]
    for stage in stages:
        why += [f"  {stage.id}, {n}: {ours} (paper {theirs}): {w}" for n, (theirs, ours, w) in stage.reasons().items()]
    return "\n".join([*lines, *(["", "Not as in the paper:"] if why else []), *why])


def run(options) -> None:
    """Print it, scale by scale, as text or as JSON. Raises ScaleError for what does not exist."""
    if not 0 < options.utilisation <= 1:
        raise ScaleError(f"--utilisation {options.utilisation:g}: a share above 0, 1 at the most")
    chosen = [scales.find(options.scale)] if options.scale else [scales.TINY, *scales.REAL.values()]
    found, texts = {}, []
    for scale in chosen:
        name = options.hardware or scale.hardware
        on = hardware.parse_hardware(name) if name != "here" else measured()
        config = config_of(scale.name)
        each = [estimate_stage(config, stage, on, options.utilisation, options.price) for stage in scale.stages]
        found[scale.name] = {
            "hardware": str(on), "utilisation": options.utilisation, "recipe": [asdict(stage) for stage in scale.stages],
            "estimates": [asdict(e) for e in each],
        }  # fmt: skip
        texts.append(show(scale, config, on, each, options.utilisation, options.price))
    print(json.dumps(found, indent=1) if options.json else f"\n\n{'-' * 104}\n".join(texts))


def measured() -> hardware.Hardware:
    """This machine, with the speed of a large matrix product as it is now."""
    gpu = hardware.this_machine().card.gpu
    return hardware.this_machine(matmul_speed(compute_dtype(), "cuda" if gpu else "cpu"))

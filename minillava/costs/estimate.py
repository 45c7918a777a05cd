"""What one stage of a scale takes on given hardware: arithmetic, memory, disk, hours, dollars.

python -c "from minillava.costs.estimate import scale_config; print(scale_config('full-7b'))"
"""

from dataclasses import dataclass

from minillava import paper, scales
from minillava.costs.hardware import PEAK_UTILISATION, Hardware, parse_hardware
from minillava.costs.model import SHAPES, flops, parameters
from minillava.costs.preflight import DoesNotFit, device_bytes, disk_bytes, llava_config, preflight
from minillava.scales import Stage


@dataclass(frozen=True)
class StageEstimate:
    """What one stage takes. FLOPs are the model's alone, as is usual: what checkpointing computes again is not counted.
    memory: bytes per device. dollars: None for hardware that is not rented. refused: why the stage does not fit, or
    None."""

    stage: str
    trained: int
    tokens: float
    sample_flops: float
    flops: float
    memory: float
    disk: float
    hours: float
    dollars: float | None
    refused: str | None


def estimate_stage(config, stage: Stage, on: Hardware, utilisation=PEAK_UTILISATION, price=None) -> StageEstimate:
    """A stage of a scale on some hardware. price: dollars per hour and GPU, instead of hardware.py's."""
    tokens = stage.looks * config.vision.num_patches + stage.text
    each = flops(config, tokens, stage.answer, stage.looks, 1 if stage.lora else stage.number)["total"]
    work = each * stage.samples * stage.epochs
    hours = work / (on.card.flops * on.count * utilisation) / 3600
    price = on.card.price if price is None else price
    refused = None
    try:
        preflight(config, stage, on)
    except DoesNotFit as error:
        refused = str(error)
    return StageEstimate(
        stage.id, parameters(config)[f"stage {stage.number}"], tokens, each, work,
        device_bytes(config, stage, on.count, on.card.gpu)["total"], disk_bytes(config, stage)["total"],
        hours, None if price is None else price * on.count * hours, refused,
    )  # fmt: skip


def paper_utilisation(config, stage: Stage) -> tuple[float, float]:
    """(hours, utilisation) of the paper's run of this stage on 8 A100: at most this long, so at least this fast."""
    theirs, cards = paper.RECIPES[stage.id], parse_hardware("8xa100-80gb")
    return theirs.wall_hours, estimate_stage(config, stage, cards, utilisation=1.0).hours / theirs.wall_hours


def scale_config(name: str, vision_tower: str | None = None, language_model: str | None = None):
    """The LlavaConfig of a scale, or with other parts in place of its own: folders or hub ids, only config.json is read.

    `smoke` trains the parts of `tiny`. Raises CheckpointError that names the part.
    """
    if vision_tower or language_model:
        scale = scales.find_scale(name)
        return llava_config(vision_tower or scale.vision_tower, language_model or scale.language_model)
    return SHAPES["tiny" if name in scales.PICTURE_BOOK_SCALES else name]

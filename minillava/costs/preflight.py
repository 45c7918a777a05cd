"""Will it fit? Memory and disk of a training, foreseen from its shapes, before anything is fetched, built or begun.

Notable: what does not fit is refused with the smallest change that would: micro batches first, which change nothing but
time, then activations computed again, then weights shared between the devices there are, then LoRA, which changes what
is learnt, then more devices. `costs/model.py` says what one device needs that holds everything; here it is split.

    preflight(SHAPES["full-7b"], find("full-7b").stage("stage 2"), parse("2xa100-80gb"), Path("runs/7b"))
    foresee("openai/clip-vit-base-patch16", "Qwen/Qwen2.5-0.5B-Instruct", find("colab").stage("stage 2"), Path("runs/colab"))
"""

import shutil
from dataclasses import replace
from pathlib import Path

from minillava.costs.hardware import Hardware, here
from minillava.costs.model import memory, parameters
from minillava.errors import UserError
from minillava.model import LlavaConfig
from minillava.model.formats.files import CheckpointError, reading_config
from minillava.model.formats.published import language_config, vision_config
from minillava.scales import Stage

SHARE = 0.9  # of a device's memory may be planned with; the rest is the allocator's gaps and the libraries' own
CHECKPOINTS = 3  # the last two, and the one that is being written
RANK = 64  # of LoRA, where it is proposed
MOST = 1024  # devices that are thought of
PRECISIONS = {"bf16 + tf32": "mixed", "fp16": "mixed", "bf16 or float32": "float32", "float32": "float32"}


class DoesNotFit(UserError):
    """Too little memory or disk; the message says what would fit. change: that stage, or None."""

    def __init__(self, message: str, change: Stage | None = None):
        super().__init__(message)
        self.change = change


def device_bytes(config, stage: Stage, devices: int = 1, fused: bool = True) -> dict[str, float]:
    """Bytes that each of `devices` needs for the longest micro batch of a stage, by what needs them, and their "total".

    Sharded: weights, gradients and Adam's moments in `devices` parts, the frozen vision tower whole, two blocks and the
    vocabulary gathered in half precision. With LoRA: the matrices as `training/lora.py` keeps them, state only for what
    is added.
    fused: as in `costs.memory`.
    """
    precision = PRECISIONS[stage.precision]
    patches = config.vision.num_patches
    answer = min(stage.reach - patches, max(1, round(stage.reach * stage.answer / (patches + stage.text))))
    needs = memory(config, stage.number, stage.micro, stage.reach, answer, precision, stage.checkpointing, fused)
    count = parameters(config)
    if stage.lora:
        added = count["projector"] + lora_parameters(config, stage.lora)
        low, copy = (2, 2) if precision == "mixed" else (4, 0)  # of frozen matrices, and what autocast makes of others
        table = (4 + (copy if config.language.tie_embeddings else 0)) * count["embedding"]
        needs |= {
            "weights": low * (count["decoder"] + count["head"]) + table + 4 * count["vision_tower"] + (4 + copy) * added,
            "gradients": 4 * added, "optimizer": 8 * added,
        }  # fmt: skip
    elif stage.shard and devices > 1:
        block = count["decoder"] / config.language.num_layers
        gathered = 2 * (2 * block + count["embedding"] + count["head"])
        split = 4 * (count["total"] - count["vision_tower"]) / devices
        needs |= {
            "weights": split + 4 * count["vision_tower"] + gathered,
            "gradients": needs["gradients"] / devices,
            "optimizer": needs["optimizer"] / devices,
        }
    needs.pop("total")
    return needs | {"total": sum(needs.values())}


def lora_parameters(config, rank: int) -> int:
    """What LoRA adds beside every matrix of the blocks: rank x (in + out) each."""
    language = config.language
    D, F, wide = language.hidden_size, language.intermediate_size, language.num_heads * language.head_dim
    narrow = language.num_kv_heads * language.head_dim
    return rank * language.num_layers * (2 * (D + wide) + 2 * (D + narrow) + 3 * (D + F))


def disk_bytes(config, stage: Stage, pictures: int = 0) -> dict[str, float]:
    """Bytes of disk a run takes: checkpoints of what trains (weights, two moments), the model at its end, and the
    frozen vision tower's features of `pictures` where they are kept."""
    count = parameters(config)
    trained = count[f"stage {stage.number}"]
    if stage.lora:
        trained = count["projector"] + lora_parameters(config, stage.lora)
    parts = {
        "checkpoints": CHECKPOINTS * 12 * trained,
        "model": 2 * count["total"] if stage.number == 2 else 4 * trained,
        "features": 2 * pictures * config.vision.num_patches * config.vision.hidden_size,
    }
    return parts | {"total": sum(parts.values())}


def fits(config, stage: Stage, hardware: Hardware) -> bool:
    need = device_bytes(config, stage, hardware.count, hardware.card.gpu)["total"]
    return need <= SHARE * hardware.card.memory


def changes(stage: Stage, devices: int):
    """What could be changed, the smallest change first: stages that need less."""
    again = [False, True] if not stage.checkpointing else [True]
    share = [False, True] if devices > 1 and not stage.shard else [stage.shard]
    lora = [stage.lora, RANK] if stage.number == 2 and not stage.lora else [stage.lora]
    for rank in lora:
        for shard in share:
            for checkpointing in again:
                micro = stage.micro
                while micro:
                    yield replace(stage, micro=micro, checkpointing=checkpointing, shard=shard and rank == 0, lora=rank)
                    micro //= 2


def said(stage: Stage, change: Stage) -> str:
    """A change in words."""
    words = []
    if change.micro != stage.micro:
        words.append(
            f"--micro {change.micro} instead of {stage.micro} samples at once (the batch of {stage.batch} stays)"
        )
    if change.checkpointing and not stage.checkpointing:
        words.append("activations computed again (--checkpointing)")
    if change.shard and not stage.shard:
        words.append("weights shared between the devices (full shard, without --replicate)")
    if change.lora != stage.lora:
        words.append(f"LoRA of rank {change.lora} (--lora {change.lora})")
    return " and ".join(words)


def enough(config, stage: Stage, hardware: Hardware) -> int | None:
    """The fewest devices of that kind, one by one up to 8, then in eights, on which the stage fits as sparingly as it can."""
    least = replace(stage, micro=1, checkpointing=True, shard=True)
    for count in [*range(hardware.count + 1, 8), *range(8, MOST + 1, 8)]:
        if count > hardware.count and fits(config, least, replace(hardware, count=count)):
            return count
    return None


def preflight(config, stage: Stage, hardware: Hardware, folder: Path | None = None, pictures: int = 0) -> None:
    """Raise DoesNotFit unless memory and, where a folder is named, disk suffice for the stage.

    config: a LlavaConfig. pictures: how many the vision tower's features are kept of on disk; 0 where they are not.
    """
    if not fits(config, stage, hardware):
        needs = device_bytes(config, stage, hardware.count, hardware.card.gpu)
        most = max((part for part in needs if part != "total"), key=needs.get)
        message = (
            f"{stage.id} needs {size(needs['total'])} of memory a device ({size(needs[most])} of it {most}); "
            f"{hardware} has {size(SHARE * hardware.card.memory)} to plan with; "
        )
        for change in changes(stage, hardware.count):
            if fits(config, change, hardware):
                raise DoesNotFit(f"{message}what would fit: {said(stage, change)}", change)
        count = enough(config, stage, hardware) if hardware.card.gpu else None
        if count is None:
            raise DoesNotFit(
                f"{message}no change makes it fit here: take a smaller scale (`minillava cost` lists them)"
            )
        more = replace(hardware, count=count)
        change = next(c for c in changes(stage, count) if not c.lora and fits(config, c, more))
        also = said(stage, change)
        raise DoesNotFit(f"{message}what would fit: {count} of these" + (f", {also}" if also else ""), change)
    if folder is not None:
        disk(config, stage, folder, pictures)


def foresee(vision_tower: str, language_model: str, stage: Stage, folder: Path, processes: int = 1) -> None:
    """`preflight` on this machine, of parts that nothing but their config.json need be there of.

    vision tower, language model: folders or hub ids. processes: how many train together, each on a GPU or on its share of this memory.
    """
    machine = here()
    card = machine.card if machine.card.gpu else replace(machine.card, memory=machine.card.memory / processes)
    preflight(config_of(vision_tower, language_model), stage, Hardware(card, processes), folder)


def config_of(vision_tower: str, language_model: str) -> LlavaConfig:
    """What a LLaVA of these two parts, folders or hub ids, will be. Raises CheckpointError that names the file."""
    with reading_config(published(vision_tower)) as written:
        vision = vision_config(written)
    with reading_config(published(language_model)) as written:
        return LlavaConfig(vision, language_config(written))


def published(source: str) -> Path:
    """config.json of a folder or hub id; of the latter nothing else is fetched. Raises CheckpointError."""
    path = Path(source).expanduser() / "config.json"
    if not path.is_file():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            path = Path(hf_hub_download(str(source), "config.json"))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise CheckpointError(f"{source}: neither a folder with a config.json nor to be had from the hub ({str(error).splitlines()[0]})") from error  # fmt: skip
    return path


def disk(config, stage: Stage, folder: Path, pictures: int = 0) -> None:
    """Raise DoesNotFit unless the disk that `folder` is (to be) on has room for the run."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    own = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())  # of this run, which it replaces
    free, needs = shutil.disk_usage(place).free + own, disk_bytes(config, stage, pictures)
    if needs["total"] <= free:
        return
    parts = ", ".join(f"{size(v)} {name}" for name, v in needs.items() if name != "total" and v)
    message = f"{folder}: {stage.id} needs {size(needs['total'])} of disk ({parts}), {size(free)} are free; "
    if needs["total"] - needs["features"] <= free:
        raise DoesNotFit(f"{message}what would fit: do not keep the pictures' features, which costs time", stage)
    lora = replace(stage, lora=stage.lora or RANK, shard=False)
    for kept in (pictures, 0):
        if stage.number == 2 and disk_bytes(config, lora, kept)["total"] <= free:
            without = "" if kept or not pictures else ", and do not keep the pictures' features"
            raise DoesNotFit(f"{message}what would fit: {said(stage, lora)}{without}", lora)
    short = needs["total"] - needs["features"] - free
    raise DoesNotFit(f"{message}make room for {size(short)} more, or name a folder on another disk")


def size(value: float) -> str:
    """Bytes for reading: 1234567 as "1.2 MB"."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.{1 if value < 99.95 * unit else 0}f} {letter}B"
    return f"{value:.0f} B"

"""Will it fit? Memory and disk of a training, predicted from its shapes before anything is fetched, built or started.

A stage that does not fit is refused with the smallest change that would fit: first smaller micro batches, then
activations computed again, then weights shared between the devices, then LoRA, which changes what is learnt, then more
devices.

    preflight(SHAPES["full-7b"], find("full-7b").stage("stage 2"), parse_hardware("2xa100-80gb"), Path("runs/7b"))
    preflight_here("openai/clip-vit-base-patch16", "Qwen/Qwen2.5-0.5B-Instruct", stage, Path("runs/colab"))
"""

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

from minillava.costs.hardware import Hardware, this_machine
from minillava.costs.model import memory, parameters
from minillava.errors import UserError
from minillava.machine import describe_machine
from minillava.model import LlavaConfig
from minillava.model.formats.checkpoint import read_llava
from minillava.model.formats.files import find_checkpoint, reading_config
from minillava.model.formats.published import language_config, vision_config
from minillava.scales import Stage
from minillava.text import short_number

USABLE_SHARE = 0.9  # of a device's memory; the rest is for the allocator's gaps and the libraries
CHECKPOINTS = 3  # the last two, and the one that is being written
LORA_RANK = 64  # the rank that is proposed
MAX_DEVICES = 1024  # the most that are proposed
RECIPE_PRECISIONS = {"bf16 + tf32": "mixed", "fp16": "mixed", "bf16 or float32": "float32", "float32": "float32"}


class DoesNotFit(UserError):
    """Too little memory or disk; the message says what would fit. change: the changed stage that fits, or None."""

    def __init__(self, message: str, change: Stage | None = None):
        super().__init__(message)
        self.change = change


def device_bytes(config, stage: Stage, devices: int = 1, fused: bool = True) -> dict[str, float]:
    """Bytes that each of `devices` needs for a stage's longest micro batch, by what needs them, and their "total".

    Where a device takes its share of the batch at once, gradients count only beyond the activations (`memory`).
    Sharded: weights, gradients and Adam's moments are split over the devices; the frozen vision tower is on each, as
    are two blocks and the vocabulary, gathered in half precision. With LoRA: the matrices as `training/lora.py` keeps
    them, and gradients and moments only for what is added. fused: as in `costs.model.memory`.
    """
    precision = RECIPE_PRECISIONS[stage.precision]
    tokens, patches = stage.longest_sample, config.vision.num_patches
    answer = min(tokens - patches, max(1, round(tokens * stage.answer / (patches + stage.text))))
    parts = 1 if stage.batch <= stage.micro * devices else 2
    shared = devices if stage.shard and not stage.lora else 1
    each = config, stage.number, stage.micro, tokens, answer, precision, stage.checkpointing, fused
    needs = memory(*each, parts, shared)
    count = parameters(config)
    if stage.lora:
        added = count["projector"] + lora_parameters(config, stage.lora)
        low, copy = (2, 2) if precision == "mixed" else (4, 0)  # bytes of a frozen weight, of autocast's copy of others
        table = (4 + (copy if config.language.tie_embeddings else 0)) * count["embedding"]
        frozen = low * (count["decoder"] + count["head"]) + table + 4 * count["vision_tower"]
        needs |= {"weights": frozen + (4 + copy) * added, "gradients": 4 * added, "optimizer": 8 * added}
    elif shared > 1:
        block = count["decoder"] / config.language.num_layers
        gathered = 2 * (2 * block + count["embedding"] + count["head"])
        split = 4 * (count["total"] - count["vision_tower"]) / devices
        needs["weights"] = split + 4 * count["vision_tower"] + gathered
    needs.pop("total")
    return needs | {"total": sum(needs.values())}


def lora_parameters(config, rank: int) -> int:
    """The parameters that LoRA adds to the matrices of the blocks: rank x (in + out) for each."""
    language = config.language
    D, F, wide = language.hidden_size, language.intermediate_size, language.num_heads * language.head_dim
    narrow = language.num_kv_heads * language.head_dim
    return rank * language.num_layers * (2 * (D + wide) + 2 * (D + narrow) + 3 * (D + F))


def disk_bytes(config, stage: Stage, gpu: bool = True) -> dict[str, float]:
    """Bytes of disk that a run takes: checkpoints of what it trains (weights and two moments), and the final model.

    gpu: the model is then stored in half precision.
    """
    count = parameters(config)
    trained = count[f"stage {stage.number}"]
    if stage.lora:
        trained = count["projector"] + lora_parameters(config, stage.lora)
    each = 2 if gpu else 4
    checkpoints, model = CHECKPOINTS * 12 * trained, each * count["total"] if stage.number == 2 else 4 * trained
    return {"checkpoints": checkpoints, "model": model, "total": checkpoints + model}


def fits(config, stage: Stage, hardware: Hardware) -> bool:
    need = device_bytes(config, stage, hardware.count, hardware.card.gpu)["total"]
    return need <= USABLE_SHARE * hardware.card.memory


def cheaper_stages(stage: Stage, devices: int):
    """Stages that need less memory, the smallest change first."""
    ranks = [stage.lora, LORA_RANK] if stage.number == 2 and not stage.lora else [stage.lora]
    shared = sorted({stage.shard, stage.shard or devices > 1})
    for rank, shard, checkpointing in product(ranks, shared, sorted({stage.checkpointing, True})):
        micro = stage.micro
        while micro:
            yield replace(stage, micro=micro, checkpointing=checkpointing, shard=shard and rank == 0, lora=rank)
            micro //= 2


def change_in_words(stage: Stage, change: Stage) -> str:
    """A changed stage in words."""
    words = []
    if change.micro != stage.micro:
        words.append(f"--micro {change.micro} instead of {stage.micro} samples at once (the batch stays {stage.batch})")
    if change.checkpointing and not stage.checkpointing:
        words.append("activations computed again (--checkpointing)")
    if change.shard and not stage.shard:
        words.append("weights shared between the devices (full shard, without --replicate)")
    if change.lora != stage.lora:
        words.append(f"LoRA of rank {change.lora} (--lora {change.lora})")
    return " and ".join(words)


def preflight(config, stage: Stage, hardware: Hardware, folder: Path | None = None) -> None:
    """Raise DoesNotFit unless there is enough memory for the stage and, if a folder is given, enough disk.

    config: a LlavaConfig. On more devices, up to 8 or a multiple of 8, LoRA is not proposed.
    """
    if not fits(config, stage, hardware):
        needs = device_bytes(config, stage, hardware.count, hardware.card.gpu)
        most = max((part for part in needs if part != "total"), key=needs.get)
        message = (
            f"{stage.id} needs {short_number(needs['total'])}B of memory per device ({short_number(needs[most])}B of it "
            f"{most}); {hardware} has {short_number(USABLE_SHARE * hardware.card.memory)}B to use; "
        )
        for change in cheaper_stages(stage, hardware.count):
            if fits(config, change, hardware):
                raise DoesNotFit(f"{message}what would fit: {change_in_words(stage, change)}", change)
        counts = (*range(hardware.count + 1, 8), *range(8, MAX_DEVICES + 1, 8)) if hardware.card.gpu else ()
        for count in (n for n in counts if n > hardware.count):
            for change in cheaper_stages(stage, count):
                if change.lora == stage.lora and fits(config, change, replace(hardware, count=count)):
                    words = filter(None, (f"{count} of these", change_in_words(stage, change)))
                    raise DoesNotFit(f"{message}what would fit: {', '.join(words)}", change)
        raise DoesNotFit(f"{message}no change makes it fit here: take a smaller scale (see `minillava cost`)")
    if folder is not None:
        check_disk(config, stage, folder, hardware.card.gpu)


def preflight_here(
    vision_tower: str, language_model: str, stage: Stage, folder: Path, processes: int = 1, gpu: bool = True
) -> None:
    """`preflight` on this machine. Of both parts it needs only the config.json.

    vision_tower, language_model: folders or hub ids. processes: how many train together, each on its own GPU or with
    its share of this machine's memory. gpu: whether an NVIDIA GPU that is here is used.
    """
    card = (this_machine() if gpu else this_machine(described=describe_machine() | {"gpu": None})).card
    if not card.gpu:
        card = replace(card, memory=card.memory / processes)
    preflight(llava_config(vision_tower, language_model), stage, Hardware(card, processes), folder)


def llava_config(vision_tower: str, language_model: str) -> LlavaConfig:
    """The config of a LLaVA made of two parts, each a folder or hub id, of which only config.json is fetched.

    Both may be one folder of a trained LLaVA. Raises CheckpointError that names the file.
    """
    if vision_tower == language_model:
        return read_llava(vision_tower)[0]
    one, two = (find_checkpoint(part, only=["config.json"]) for part in (vision_tower, language_model))
    with reading_config(one / "config.json") as written:
        vision = vision_config(written)
    with reading_config(two / "config.json") as written:
        return LlavaConfig(vision, language_config(written))


def check_disk(config, stage: Stage, folder: Path, gpu: bool = True) -> None:
    """Raise DoesNotFit unless the disk of `folder`, which need not exist yet, has room for the run."""
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    own = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())  # this run's files, which it replaces
    free, needs = shutil.disk_usage(place).free + own, disk_bytes(config, stage, gpu)
    if needs["total"] <= free:
        return
    parts = ", ".join(f"{short_number(v)}B {name}" for name, v in needs.items() if name != "total")
    need = f"{short_number(needs['total'])}B of disk ({parts})"
    message = f"{folder}: {stage.id} needs {need}, {short_number(free)}B are free; "
    lora = replace(stage, lora=stage.lora or LORA_RANK, shard=False)
    if stage.number == 2 and disk_bytes(config, lora, gpu)["total"] <= free:
        raise DoesNotFit(f"{message}what would fit: {change_in_words(stage, lora)}", lora)
    raise DoesNotFit(f"{message}free {short_number(needs['total'] - free)}B more, or name a folder on another disk")

"""`minillava train`: the two stages of section 4.2 on a folder of LLaVA JSON and pictures, on one device or on many.

    DATA/stage1.json   picture-caption records      DATA/images/   the pictures that they name
    DATA/stage2.json   instruction records          either file may be absent; its stage is left out

    minillava train DATA --scale colab --out runs/colab                            # one device
    torchrun --nproc-per-node 8 -m minillava train DATA --scale full-7b            # one machine
    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m minillava train ...
    srun --nodes 4 --ntasks-per-node 1 torchrun --nnodes 4 ... the same            # slurm: one torchrun a node

Notable: stopped and started again, also with another number of processes, it goes on from its checkpoint. The result is
OUT/model, which `minillava chat --weights OUT/model` talks with, and OUT/stage1/projector.safetensors.
"""

import importlib.util
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from minillava import scales
from minillava.data.samples import Sample, divide, encode, fill_rate
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.records import RecordError, check_record
from minillava.hardware import Hardware, here
from minillava.model import Llava, LlavaConfig, find, load_language, load_vision, set_trainable
from minillava.model.files import read_json
from minillava.model.published import language_config, vision_config
from minillava.preflight import foresee, preflight
from minillava.training import lora
from minillava.training.checkpoints import TrainingError
from minillava.training.features import Features, Live
from minillava.training.loop import bar, compute_dtype, follow
from minillava.training.parallel import agree, gathered, rank, split, together, world
from minillava.training.stages import normalisation, recompute, save_trained, train_stage

MISSING = 0.01  # the share of records whose picture may be missing


def say(text: str) -> None:
    if rank() == 0:
        print(text, flush=True)


def read_samples(path: Path, images: Path, tokenizer, longest: int, patches: int) -> list[Sample]:
    """The records of a LLaVA JSON file as samples, without those whose picture is missing or that are too long, counted.

    Raises RecordError that lists the first ten records that break the format, or where over 1 % of pictures are missing.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: not a JSON file of records ({error})") from error
    if not isinstance(records, list) or not records:
        raise RecordError(f"{path}: expected a list of records, and at least one")
    samples, wrong, missing, long = [], [], [], 0
    for record in records:
        try:
            check_record(record)
            sample = encode(record, CHAT, tokenizer)
        except RecordError as error:
            wrong.append(str(error))
            continue
        if sample.image and not (images / sample.image).is_file():
            missing.append(sample.image)
        elif len(sample.ids) + (patches - 1 if sample.image else 0) > longest:
            long += 1
        else:
            samples.append(sample)
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise RecordError(f"{path}: {len(wrong)} of {len(records)} records cannot be used:\n  " + "\n  ".join(wrong[:10]) + more)  # fmt: skip
    if len(missing) > MISSING * len(records):
        raise RecordError(
            f"{path}: {len(missing)} of {len(records)} pictures are not in {images} (the first: {missing[0]}); "
            f"fetch them, or leave their records out: {100 * MISSING:g} % may be missing"
        )
    for count, why in ((len(missing), "without their picture"), (long, f"of more than {longest} tokens")):
        if count:
            say(f"{path}: {count} records {why} are left out")
    if not samples:
        raise RecordError(f"{path}: no record is left")
    return samples


def see(model: Llava, images: Path, names: list[str], normal, out: Path):
    """What the eye sees in these pictures, from out/features.safetensors where the disk has room; else when asked."""
    vision = model.config.vision
    need, path = 2 * len(names) * vision.num_patches * vision.hidden_size, out / "features.safetensors"
    room = path.stat().st_size if path.exists() else 0
    if not agree(need < 0.8 * (shutil.disk_usage(out).free + room)):
        say(f"{need / 1e9:.1f} GB of features do not fit beside {path}: every picture is looked at again each time")
        return Live(model, images, *normal)
    if rank() == 0:
        with bar(len(names), "picture", "see") as progress:
            Features.kept(path, model, images, names, *normal, lambda n, _: progress.update(n - progress.n))
    agree(None)
    return Features.load(path)


def build(options, stage: scales.Stage, device: torch.device, dtype: torch.dtype) -> Llava:
    """LLaVA as this stage begins: stage 1 with a random W, stage 2 with stage 1's; LoRA, recomputing, split."""
    vision, language = load_vision(options.eye, device=device), load_language(options.brain, device=device)
    torch.manual_seed(options.seed)
    with torch.device(device):
        model = Llava(LlavaConfig(vision.config, language.config), vision, language)
    if stage.number == 2:
        path = options.out / "stage1" / "projector.safetensors"
        if not path.exists():
            raise TrainingError(f"{path}: stage 2 starts from the W of stage 1; give stage1.json as well")
        model.projector.load_state_dict(load_file(path))
    set_trainable(model, stage.number)
    if stage.lora and stage.number == 2:
        lora.add(model, stage.lora)
    if stage.checkpointing:
        recompute(model)
    if world() > 1:
        split(model, model.vision_tower, list(model.language_model.layers), dtype, stage.shard)
    return model


def whole(model: Llava, adapted: int) -> Llava | None:
    """The model in one piece, on rank 0's CPU; None on the others."""
    state = {}
    for name, tensor in model.state_dict().items():
        tensor = gathered(tensor)
        if rank() == 0:
            state[name] = tensor.detach().cpu()
    if rank() > 0:
        return None
    with torch.device("meta"):
        plain = Llava(model.config)
        if adapted:
            lora.add(plain, adapted)
    plain.load_state_dict(state, assign=True)
    plain.vision_tower.origin, plain.language_model.origin = model.vision_tower.origin, model.language_model.origin
    return plain


def watcher(folder: Path, progress):
    """What `fit` calls after every step: the bar, and TensorBoard's file where that is installed."""
    show = follow(progress)
    if rank() > 0 or not importlib.util.find_spec("tensorboard"):
        return show
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def both(step, steps, loss):
        show(step, steps, loss)
        writer.add_scalar("loss", loss, step)

    return both


def run_stage(options, stage: scales.Stage, device: torch.device) -> None:
    """Train one stage and write what it made, or leave it be where that is there."""
    folder, n = options.out / f"stage{stage.number}", stage.number
    result = options.out / "model" / "llava.json" if n == 2 else folder / "projector.safetensors"
    if agree(result.exists()):
        return say(f"stage {n}: done before, {result}")
    vision = vision_config(read_json(find(options.eye) / "config.json"))
    language = language_config(read_json(find(options.brain) / "config.json"))
    on = replace(here(), count=world())
    if not on.card.gpu:  # processes share the machine's memory
        on = Hardware(replace(on.card, memory=on.card.memory / world()))
    preflight(LlavaConfig(vision, language), stage, on, options.out)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = compute_dtype(device.type) if options.dtype is None else getattr(torch, options.dtype)
    tokenizer, model = load_tokenizer(find(options.brain)), build(options, stage, device, dtype)
    patches, longest = model.config.vision.num_patches, min(stage.max_length, model.config.language.max_position)
    images = options.images or options.data / "images"
    samples = read_samples(options.data / f"stage{n}.json", images, tokenizer, longest, patches)
    names = sorted({s.image for s in samples if s.image})
    features = see(model, images, names, normalisation(find(options.eye)), folder)
    steps = -(-len(samples) // stage.batch) * stage.epochs
    tokens = options.tokens or stage.micro * stage.reach
    lengths = [len(s.ids) + (patches - 1 if s.image else 0) for s in samples]
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])[: 50 * stage.batch]
    filled = fill_rate(lengths, divide(lengths, order, tokens, options.packed), options.packed)
    say(f"stage {n}: {len(samples)} samples, {steps} steps of {stage.batch}, {world()} process(es), {dtype}, "
        f"up to {tokens} tokens at once, {100 * filled:.0f} % of them filled")  # fmt: skip
    with bar(steps if rank() == 0 else 0, "step", f"stage {n}") as progress:
        progress.disable = rank() > 0
        train_stage(
            model, n, samples, features, folder, batch_size=stage.batch, steps=steps, lr=stage.lr, seed=options.seed,
            progress=watcher(folder, progress), tokens=tokens, packed=options.packed, uneven=True, dtype=dtype,
        )  # fmt: skip
    plain = whole(model, stage.lora if n == 2 else 0)
    if plain is not None and n == 1:
        beside = result.with_suffix(".part")
        save_file({name: t.contiguous() for name, t in plain.projector.state_dict().items()}, beside)
        beside.replace(result)
    elif plain is not None:
        if stage.lora:
            lora.save_adapters(plain, folder / "adapter.safetensors")
            lora.merge(plain)
        about = {
            "template": CHAT.name,
            "trained on": f"{options.data.name}: {len(samples)} records",
            "scale": options.scale,
        }
        stored = torch.bfloat16 if device.type == "cuda" else torch.float32
        save_trained(plain, tokenizer, find(options.eye), options.out / "model", about, stored)
    agree(None)
    say(f"stage {n}: {result.parent if n == 2 else result}")


def train(options) -> None:
    """The stages whose records are there, one after another."""
    scale = scales.find(options.scale)
    options.eye, options.brain = options.eye or scale.eye, options.brain or scale.brain
    there = [n for n in (1, 2) if (options.data / f"stage{n}.json").is_file()]
    if not there:
        raise TrainingError(f"{options.data}: neither stage1.json nor stage2.json here; each is a LLaVA JSON file")
    if "OMP_NUM_THREADS" not in os.environ or "LOCAL_RANK" in os.environ:  # torchrun sets 1 where nobody said otherwise
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    torch.backends.cuda.matmul.allow_tf32 = True
    given = {name: getattr(options, name) for name in ("batch", "lr", "epochs", "lora", "micro", "checkpointing")}
    stages = []
    for n in there:
        stage = scale.stage(f"stage {n}")
        changed = {
            name: value for name, value in given.items() if value is not None and (name != "lr" or n == there[-1])
        }
        stages.append(replace(stage, **changed, shard=stage.shard and not options.replicate))
    with together() as device:
        for stage in stages:  # all of them before any begins
            some = options.tokens and max(1, options.tokens // stage.reach)
            foresee(options.eye, options.brain, replace(stage, micro=some or stage.micro), options.out, world())
        for stage in stages:
            run_stage(options, stage, device)

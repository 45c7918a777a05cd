"""`minillava train`: the two stages of section 4.2 on a folder of LLaVA JSON and pictures, on one device or on many.

    DATA/stage1.json   picture-caption records      DATA/images/   the pictures that they name
    DATA/stage2.json   instruction records          either file may be absent; its stage is left out

    minillava train DATA --scale colab --out runs/colab                            # one device
    minillava train DATA --scale colab --recipe ScienceQA                          # stage2.json holds ScienceQA
    torchrun --nproc-per-node 8 -m minillava train DATA --scale full-7b            # one machine
    # several machines: the same command on each, HOST being one of them; ten minutes to meet
    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --rdzv-id 1 -m minillava train ...
    # slurm: one torchrun a node, inside `sbatch --nodes 4 --ntasks-per-node 1 --gpus-per-node 8`
    srun torchrun --nnodes $SLURM_NNODES --nproc-per-node 8 --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID \\
        --rdzv-endpoint $(scontrol show hostnames $SLURM_JOB_NODELIST | head -1):29500 -m minillava train ...

Notable: stopped and started again, also with another number of processes, it goes on from its checkpoint; DATA and OUT
must then be folders that all machines share. Records and pictures' features lie on the disk and are read as they are
needed. The result is OUT/model, which `minillava chat --weights OUT/model` talks with, and OUT/stage1/projector.safetensors.
"""

import importlib.util
import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from minillava import files, scales
from minillava.costs.preflight import config_of, disk_bytes, foresee
from minillava.data.samples import divide, fill_rate
from minillava.data.stored import Stored, keep
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.machine import bar, compute_dtype, follow
from minillava.model import Llava, LlavaConfig, find, load_language, load_vision, set_trainable
from minillava.model.formats.assemble import normalisation, save_trained
from minillava.model.formats.files import origin
from minillava.training import curves, lora
from minillava.training.checkpoints import TrainingError
from minillava.training.features import Features, Live
from minillava.training.loop import alone
from minillava.training.parallel import agree, deal, first, gathered, rank, split, together, world
from minillava.training.stages import AT_ONCE, cores_apart, recompute, train_stage


def arguments(parser) -> None:
    """Declare what the verb is given."""
    parser.add_argument("data", type=Path, help="a folder with stage1.json, stage2.json and images/")
    parser.add_argument("--scale", default="tiny", help="whose recipe and parts to take (default: tiny)")
    parser.add_argument(
        "--recipe", default="stage 2", choices=("stage 2", "ScienceQA"), help="what stage2.json is trained by"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/train"), help="a stopped run goes on here")
    parser.add_argument("--images", type=Path, help="where the pictures are (default: DATA/images)")
    parser.add_argument("--vision-tower", help="a CLIP folder or hub id (default: the scale's)")
    parser.add_argument("--language-model", help="a Llama, Mistral or Qwen2 folder or hub id (default: the scale's)")
    parser.add_argument("--batch", type=int, help="samples of one step, over all processes (default: the recipe's)")
    parser.add_argument("--micro", type=int, help="of the longest samples, how many one process takes at once")
    parser.add_argument("--tokens", type=int, default=0, help="instead of --micro: how many tokens at once")
    parser.add_argument("--lr", type=float, help="of the last stage there is")
    parser.add_argument("--epochs", type=int)
    parser.add_argument(
        "--lora", type=int, metavar="RANK", help="stage 2 trains LoRA of this rank instead of the matrices"
    )
    parser.add_argument(
        "--checkpointing", action="store_const", const=True, help="compute activations again: less memory, more time"
    )
    parser.add_argument(
        "--packed", action="store_true", help="samples end to end without padding, each seeing itself alone"
    )
    parser.add_argument("--replicate", action="store_true", help="many processes: each holds all weights (DDP)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="(default: what the machine does best)"
    )
    parser.add_argument("--seed", type=int, default=0)


def say(text: str) -> None:
    if rank() == 0:
        print(text, flush=True)


def calculated_in(options, device: torch.device) -> torch.dtype:
    """What --dtype names, or else what the device does best."""
    return getattr(torch, options.dtype) if options.dtype else compute_dtype(device.type)


def result_of(options, number: int) -> Path:
    """The file that is there once a stage is done."""
    return options.out / ("stage1/projector.safetensors" if number == 1 else "model/llava.json")


def stored(options, stage: scales.Stage, config: LlavaConfig, tokenizer) -> Stored:
    """The stage's records as samples on the disk, encoded by rank 0 where they are not there yet."""
    folder = options.out / f"stage{stage.number}" / "samples"
    path, images = options.data / f"stage{stage.number}.json", options.images or options.data / "images"
    longest, patches = min(stage.max_length, config.language.max_position), config.vision.num_patches

    def encode(beat):
        with bar(None, "record", "encode") as progress:

            def show(done):
                progress.update(done - progress.n)
                beat()

            keep(path, images, CHAT, tokenizer, longest, patches, folder, say, show)

    first(encode)
    return Stored(folder)


def see(model: Llava, images: Path, names: list[str], normal, out: Path, spare: float):
    """What the vision tower sees in these pictures, from out/features.safetensors where the disk has room; else when asked.

    spare: bytes of the disk that the run itself will take.
    """
    vision = model.config.vision
    need, path = 2 * len(names) * vision.num_patches * vision.hidden_size, out / "features.safetensors"
    there = sum(p.stat().st_size for p in (path, path.with_suffix(".part")) if p.exists())
    if not agree(need + spare < shutil.disk_usage(out).free + there):
        say(f"{need / 1e9:.1f} GB of features do not fit beside {path}: every picture is looked at again each time")
        return Live(model, images, *normal)

    def look(beat):
        with bar(len(names), "picture", "see") as progress:

            def show(done, _):
                progress.update(done - progress.n)
                beat()

            Features.kept(path, model, images, names, *normal, show)

    first(look)
    return Features.load(path)


def build(options, stage: scales.Stage, config: LlavaConfig, device: torch.device, dtype: torch.dtype) -> Llava:
    """LLaVA as this stage begins: stage 1 with a random W, stage 2 with stage 1's; LoRA, recomputing, split.

    In many processes rank 0 alone reads the files, into its machine's memory; the others are dealt their parts.
    """
    adapted = stage.lora if stage.number == 2 else 0

    def prepared(model):
        set_trainable(model, stage.number)
        if adapted:
            lora.add(model, adapted, dtype=dtype)
        if stage.checkpointing:
            recompute(model)
        return model

    if rank() == 0:
        where = device if world() == 1 else torch.device("cpu")
        vision = load_vision(options.vision_tower, device=where)
        language = load_language(options.language_model, dtype if adapted else torch.float32, where)
        torch.manual_seed(options.seed)
        with torch.device(where):
            model = Llava(config, vision, language)
        if stage.number == 2:
            model.projector.load_state_dict(load_file(options.out / "stage1" / "projector.safetensors"))
        model = prepared(model)
    if world() > 1:
        tensors = model.state_dict() if rank() == 0 else {}
        with torch.device("meta"):
            model = prepared(Llava(config))
        split(model, model.vision_tower, list(model.language_model.layers), dtype, stage.shard)
        deal(model, tensors, device)
    model.vision_tower.origin, model.language_model.origin = (
        origin(options.vision_tower),
        origin(options.language_model),
    )
    return model


def whole(model: Llava, options, adapted: int, dtype: torch.dtype) -> Llava | None:
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
            lora.add(plain, adapted, dtype=dtype)
    plain.load_state_dict(state, assign=True)
    plain.vision_tower.origin, plain.language_model.origin = (
        origin(options.vision_tower),
        origin(options.language_model),
    )
    return plain


@contextmanager
def watched(folder: Path, progress):
    """What `fit` calls after every step: the bar, and TensorBoard's file where that is installed."""
    show = follow(progress)
    if rank() > 0 or not importlib.util.find_spec("tensorboard"):
        yield show
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def both(step, steps, loss):
            show(step, steps, loss)
            writer.add_scalar("loss", loss, step)

        yield both


def health(options, scale, number: int, folder: Path) -> str:
    """Whether the loss is that of the reference, where one ships for this scale and its own vision tower and language model."""
    try:
        curve = curves.read(f"{scale.name}-stage{number}")
    except curves.CurveError:
        return f"no reference curve ships for {scale.name}; `python -m minillava.training.curves` makes one of three of your runs"
    if (options.vision_tower, options.language_model) != (scale.vision_tower, scale.language_model):
        return f"not compared: {curve.name} is of another vision tower or language model"
    return f"{curves.verdict(folder, curve)}; the reference is of the scale's own records, in {curve.steps} steps"


def run_stage(options, scale, stage: scales.Stage, device: torch.device) -> None:
    """Train one stage and write what it made, or leave it be where that is there."""
    folder, n, vision_tower = options.out / f"stage{stage.number}", stage.number, find(options.vision_tower)
    result, dtype = result_of(options, n), calculated_in(options, device)
    if agree(result.exists()):
        return say(f"stage {n}: done before, {result}")
    tokenizer, config = (
        load_tokenizer(find(options.language_model)),
        config_of(options.vision_tower, options.language_model),
    )
    samples, patches = stored(options, stage, config, tokenizer), config.vision.num_patches
    model = build(options, stage, config, device, dtype)
    images, spare = options.images or options.data / "images", disk_bytes(config, stage)["total"]
    features = see(model, images, samples.pictures(), normalisation(vision_tower), folder, spare)
    steps, lengths = -(-len(samples) // stage.batch) * stage.epochs, samples.lengths(patches)
    most = AT_ONCE if device.type == "cpu" else stage.micro * stage.reach
    tokens = options.tokens or min(most, stage.micro * stage.reach)
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])[: 50 * stage.batch]
    filled = fill_rate(lengths, divide(lengths, order, tokens, options.packed), options.packed)
    say(f"stage {n}: {len(samples):,} samples, {steps:,} steps of {stage.batch}, {world()} process(es), {dtype}, "
        f"up to {tokens} tokens at once, {100 * filled:.0f} % of them filled")  # fmt: skip
    muon = stage.lr if "Muon" in stage.optimizer and n == 2 and not stage.lora else 0.0
    with bar(steps if rank() == 0 else 0, "step", f"stage {n}") as progress, watched(folder, progress) as show:
        progress.disable = rank() > 0
        train_stage(
            model, n, samples, features, folder, batch_size=stage.batch, steps=steps, lr=stage.lr, lr_muon=muon,
            seed=options.seed, progress=show, tokens=tokens, packed=options.packed, uneven=True, dtype=dtype,
            cores=cores_apart(model),
        )  # fmt: skip
    plain = whole(model, options, stage.lora if n == 2 else 0, dtype)
    if plain is not None and n == 1:
        with files.whole(result) as temporary:
            save_file({name: t.contiguous() for name, t in plain.projector.state_dict().items()}, temporary)
    elif plain is not None:
        if stage.lora:
            lora.save_adapters(plain, folder / "adapter.safetensors")
            lora.merge(plain)
        about = {"template": CHAT.name, "trained on": f"{options.data.name}: {len(samples)} records", "scale": scale.name}  # fmt: skip
        kind = torch.bfloat16 if device.type == "cuda" else torch.float32
        save_trained(plain, tokenizer, vision_tower, options.out / "model", about, kind)
    agree(None)
    if rank() == 0:
        say(f"stage {n}: {result.parent if n == 2 else result}; loss: {health(options, scale, n, folder)}")


def share_cores() -> None:
    """As many threads as this process has cores; of several on a machine each takes its part. OMP_NUM_THREADS goes first,
    but not under torchrun, which sets 1 where nobody said otherwise."""
    if "OMP_NUM_THREADS" not in os.environ or "LOCAL_RANK" in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def run(options) -> None:
    """The stages whose records are there, one after another."""
    scale = scales.find(options.scale)
    for name, least in (("batch", 1), ("micro", 1), ("epochs", 1), ("lora", 0), ("tokens", 0), ("lr", 0), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and not least <= value < 2**32:  # nan is neither
            raise TrainingError(f"--{name} {value}: at least {least} is needed")
    options.vision_tower, options.language_model = (
        options.vision_tower or scale.vision_tower,
        options.language_model or scale.language_model,
    )
    there = [n for n in (1, 2) if (options.data / f"stage{n}.json").is_file()]
    if not there:
        raise TrainingError(f"{options.data}: neither stage1.json nor stage2.json here; each is a LLaVA JSON file")
    if there == [2] and not result_of(options, 1).exists():
        raise TrainingError(f"{result_of(options, 1)}: stage 2 starts from the W of stage 1; give stage1.json as well")
    share_cores()
    torch.backends.cuda.matmul.allow_tf32 = True
    given = {name: getattr(options, name) for name in ("batch", "lr", "epochs", "lora", "micro", "checkpointing")}
    stages = []
    for n in there:
        stage = scale.stage("stage 1" if n == 1 else options.recipe)
        changed = {
            name: value for name, value in given.items() if value is not None and (name != "lr" or n == there[-1])
        }
        stages.append(replace(stage, **changed, shard=stage.shard and not options.replicate))
    with together() as device:
        wide = {"precision": "float32"} if calculated_in(options, device) == torch.float32 else {}
        for stage in stages:  # all of them before any begins
            some = options.tokens and max(1, options.tokens // stage.reach)
            planned = replace(stage, micro=some or stage.micro, **wide)
            foresee(options.vision_tower, options.language_model, planned, options.out, world())
        options.out.mkdir(parents=True, exist_ok=True)
        with alone(options.out):
            for stage in stages:  # so that bad records of the second stage do not wait for the first one's end
                if not agree(result_of(options, stage.number).exists()):
                    stored(
                        options,
                        stage,
                        config_of(options.vision_tower, options.language_model),
                        load_tokenizer(find(options.language_model)),
                    )
            for stage in stages:
                run_stage(options, scale, stage, device)

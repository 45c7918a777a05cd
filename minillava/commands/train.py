"""`minillava train`: the two stages of section 4.2 on a folder of LLaVA JSON and pictures, on one device or on many.

    DATA/stage1.json   picture-caption records      DATA/images/   the pictures that they name
    DATA/stage2.json   instruction records          either file may be absent; its stage is then skipped

The files are JSON lists or JSON lines (also as .jsonl), in the form of LLaVA, ShareGPT, LLaMA-Factory, ms-swift or TRL.
Before training a table says what was taken, changed and left out (OUT/stageN/records.txt, left_out.jsonl). More than
1 % of bad records, and of records with a missing or broken picture, stop the run, unless --allow-bad says otherwise;
one alone never does.

    minillava train DATA --scale colab --out runs/colab                            # one device
    minillava train DATA --scale colab --recipe ScienceQA                          # stage2.json holds ScienceQA
    torchrun --nproc-per-node 8 -m minillava train DATA --scale full-7b            # one machine
    # several machines: the same command on each, with HOST one of them; they have ten minutes to meet
    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --rdzv-id 1 \\
        -m minillava train ...
    # slurm: one torchrun per node, inside `sbatch --nodes 4 --ntasks-per-node 1 --gpus-per-node 8`
    srun torchrun --nnodes $SLURM_NNODES --nproc-per-node 8 --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID \\
        --rdzv-endpoint $(scontrol show hostnames $SLURM_JOB_NODELIST | head -1):29500 -m minillava train ...

    minillava train DATA --projector runs/one/stage1/projector.safetensors         # stage 2 alone, from that W
    minillava train MORE --weights runs/one/model --limit 1000                     # go on from a trained LLaVA

A stopped run resumes from its checkpoint, also with another number of processes; DATA and OUT must then be folders that
all machines share. A finished stage is not trained again; one of another recipe, or from other records, pictures or
weights, is refused. Records and features are on disk and read as they are needed. The results are
OUT/stage1/projector.safetensors and OUT/model, with which `minillava chat --weights OUT/model` talks.
"""

import os
import sys
from argparse import BooleanOptionalAction, Namespace
from dataclasses import replace
from pathlib import Path

import torch

from minillava import scales
from minillava.commands import add_device, add_parts
from minillava.commands.stage_run import StageRun, records_file, result_path
from minillava.costs.preflight import preflight_here
from minillava.data.stored import ALLOWED_BAD
from minillava.machine import core_count
from minillava.training.checkpoints import TrainingError, lock_folder
from minillava.training.parallel import process_group, rank, world_size
from minillava.training.parity import check_device

LEAST = dict.fromkeys(("lora", "tokens", "lr", "stage1-lr", "w-lr", "seed"), 0)  # option -> its least value
LEAST |= dict.fromkeys(("limit", "batch", "micro", "epochs"), 1)
OVERRIDES = ("batch", "lr", "epochs", "lora", "micro", "checkpointing")  # options that replace the recipe's values


def allowance(text: str) -> int | float:
    """50 as a number of records, 2% as the share 0.02. Raises ValueError."""
    value = float(text.removesuffix("%")) / 100 if text.endswith("%") else int(text)
    if not 0 <= value <= (1 if text.endswith("%") else value):
        raise ValueError(text)
    return value


def arguments(parser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    add("data", type=Path, help="a folder with stage1.json, stage2.json and images/")
    add("--scale", default="tiny", help="whose recipe and parts to use (default: tiny)")
    add("--recipe", default="stage 2", choices=("stage 2", "ScienceQA"), help="the recipe for stage2.json")
    add("--out", type=Path, default=Path("runs/train"), help="a stopped run resumes here")
    add("--allow-bad", type=allowance, default=ALLOWED_BAD, metavar="N", help="bad records: 50, or 2%% (default: 1%%)")
    add("--limit", type=int, metavar="N", help="train on the first N usable records of each file (default: all)")
    add("--images", type=Path, help="where the pictures are (default: DATA/images)")
    add_parts(add)
    projector = "instead of stage 1: the projector.safetensors of another run, or the authors' mm_projector.bin"
    add("--projector", type=Path, metavar="FILE", help=projector)
    weights = "go on from this trained LLaVA, a folder of `minillava train`: stage 2 with new records"
    add("--weights", type=Path, metavar="FOLDER", help=weights)
    add("--batch", type=int, help="samples per step, over all processes (default: the recipe's)")
    add("--micro", type=int, help="how many of the longest samples one process takes at once")
    add("--tokens", type=int, default=0, help="instead of --micro: how many tokens at once")
    add("--lr", type=float, help="learning rate of the last stage: of stage 2, or of stage 1 without a stage2.json")
    add("--stage1-lr", type=float, metavar="LR", help="learning rate of stage 1")
    add("--w-lr", type=float, metavar="LR", help="learning rate of W in stage 2 (default: as the language model's)")
    add("--epochs", type=int)
    add("--lora", type=int, metavar="RANK", help="stage 2 trains LoRA of this rank instead of the matrices")
    again = "compute activations again: less memory, more time"
    add("--checkpointing", action=BooleanOptionalAction, default=None, help=again)
    add("--replicate", action="store_true", help="with many processes: each holds all weights (DDP)")
    add_device(add)
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="(default: the machine's best)")
    add("--seed", type=int, default=0)


def check(options: Namespace) -> list[int]:
    """The stages whose records exist. Raises TrainingError for a number out of range, or if training cannot start."""
    for name, least in LEAST.items():
        value = getattr(options, name.replace("-", "_"))
        if value is not None and not least <= value < 2**32:  # also refuses nan
            raise TrainingError(f"--{name} {value}: at least {least} is needed")
    if options.projector and not options.projector.is_file():
        raise TrainingError(f"--projector {options.projector}: no such file")
    if options.weights and (options.vision_tower or options.language_model or options.projector):
        raise TrainingError("--weights has all parts: leave out --vision-tower, --language-model and --projector")
    begun = options.weights or options.projector
    numbers = [n for n in (1, 2) if records_file(options.data, n).is_file() and not (n == 1 and begun)]
    if not numbers:
        raise TrainingError(f"{options.data}: neither stage1.json nor stage2.json here; each is a LLaVA JSON file")
    projector = result_path(options.out, 1)
    if numbers == [2] and not (begun or projector.exists()):
        advice = "add stage1.json to the data folder, or name another W with --projector"
        raise TrainingError(f"{projector}: stage 2 starts from the W of stage 1; {advice}")
    return numbers


def plan_stages(options: Namespace, scale, numbers: list[int]) -> list[scales.Stage]:
    """The scale's recipes for these stages, changed by the options; --lr is for the last one."""
    given = {name: getattr(options, name) for name in OVERRIDES if getattr(options, name) is not None}
    stages = []
    for n in numbers:
        stage = scale.stage("stage 1" if n == 1 else options.recipe)
        changes = given if n == numbers[-1] else {name: value for name, value in given.items() if name != "lr"}
        if n == 1 and options.stage1_lr is not None:
            changes |= {"lr": options.stage1_lr}
        stages.append(replace(stage, **changes, shard=stage.shard and not options.replicate))
    return stages


def check_memory(run: StageRun) -> None:
    """Raise DoesNotFit unless the stage fits on this machine, with the tokens and in the precision that it will use."""
    stage, parts = run.stage, (run.options.vision_tower, run.options.language_model)
    wide = {"precision": "float32"} if run.dtype == torch.float32 else {}
    planned = replace(stage, micro=-(-run.tokens // stage.longest_sample), **wide)
    preflight_here(*parts, planned, run.options.out, world_size(), run.device.type == "cuda")


def warn_of_rate(run: StageRun) -> None:
    """Say that stage 2 takes a rate that was found for another language model than the one to train."""
    scale, stage, model = run.scale, run.stage, run.options.language_model
    if stage.number == 2 and run.options.lr is None and model != scale.language_model and rank() == 0:
        print(
            f"{model} is trained at the rate of the scale {scale.name}, {stage.lr:g} ({stage.optimizer}), which was found "
            f"for {scale.language_model}; --lr names another, such as the paper's {scales.STAGE_2.lr:g}",
            file=sys.stderr,
        )


def share_cores() -> None:
    """Use as many threads as this process has cores, shared with the other processes of this machine.

    OMP_NUM_THREADS takes precedence, but not under torchrun, which sets it to 1 by default.
    """
    if "OMP_NUM_THREADS" not in os.environ or "LOCAL_RANK" in os.environ:
        torch.set_num_threads(max(1, core_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def run(options: Namespace) -> None:
    """Train the stages whose records exist, one after another."""
    scale = scales.find_scale(options.scale)
    numbers = check(options)
    whole = str(options.weights) if options.weights else None
    options.vision_tower = options.vision_tower or whole or scale.vision_tower
    options.language_model = options.language_model or whole or scale.language_model
    stages = plan_stages(options, scale, numbers)
    if options.device and "LOCAL_RANK" in os.environ:
        raise TrainingError("--device is for a single process: under torchrun each takes its NVIDIA GPU, else the CPU")
    check_device(options.device)
    share_cores()
    torch.backends.cuda.matmul.allow_tf32 = True
    with process_group(options.device) as device:
        runs = [StageRun(options, scale, stage, device) for stage in stages]
        for one in runs:  # all of them before any begins
            check_memory(one)
            warn_of_rate(one)
        options.out.mkdir(parents=True, exist_ok=True)
        with lock_folder(options.out):
            for one in runs:  # so that bad records of stage 2 are found before stage 1 is trained
                one.samples()
            for one in runs:
                one.train()

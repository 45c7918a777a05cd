"""The two stages of section 4.2, as two calls of one function: stage 1 trains W, stage 2 W and the language model.

The vision tower is frozen in both, so its features are computed once per picture and shared by stages, epochs and
ablations (features.py). Stage 1 reads brief questions and captions, stage 2 instruction records; the sequence and the
loss are the same (Table 2, Eq. 3).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint

from minillava.data import IGNORE
from minillava.data.samples import Sample, digest, micro_batches, plan_batches
from minillava.data.stored import StoredSamples
from minillava.machine import compute_dtype
from minillava.model import Batch, Llava, set_trainable
from minillava.model.llava import STAGES, to_device
from minillava.training import lora
from minillava.training.features import Features
from minillava.training.loop import fit
from minillava.training.optim import adam, muon
from minillava.training.parallel import Ahead, rank, world_size

SMALL_MODEL = 16_000_000  # parameters of a language model whose matrices do not occupy several cores
TOKENS_PER_CORE = 4096  # of a small model, at a time (see `useful_cores`)
# Parameters of a language model whose blocks `minillava train` compiles on a GPU. Measured on an H200 (gpu-fast.json): at
# 7B a step takes 0.514 s compiled and 0.607 s plain, with 73.4 and 86.6 GB. At 0.5B nothing is gained (stage 1 112,000
# to 123,000 and 140,000 tokens/s, stage 2 92,600 and 90,400), and compiling takes half a minute. Nothing between the two
# was measured.
COMPILED_FROM = 2_000_000_000
MOST_CORES = 8  # with more, the parts of a batch of 32 are small, and Python's one thread at a time is the limit


def language_parameters(model: Llava) -> int:
    """How many parameters the language model has."""
    return sum(p.numel() for p in model.language_model.parameters())


def useful_cores(model: Llava) -> int:
    """How many parts of a batch to compute at the same time, each on one core.

    For a small model in one process on a CPU: as many as it has cores, up to MOST_CORES. Otherwise 1, as large matrices
    occupy all cores, and each part holds gradients of its own.

    Measured at the tiny scale on two cores of an Intel Xeon (benchmarks/train.py): parts of 1024 / 2048 / 4096 / 8192
    tokens take 3.8 / 3.2 / 3.0 / 3.1 s per epoch; one part after another on both cores takes 1.1 to 1.3 times as long.
    """
    on_cpu, small = next(model.projector.parameters()).device.type == "cpu", language_parameters(model) < SMALL_MODEL
    return min(torch.get_num_threads(), MOST_CORES) if on_cpu and small and world_size() == 1 else 1


def train_stage(
    model: Llava,
    stage: int,
    samples: Sequence[Sample],
    features: Features,
    folder: Path,
    *,
    batch_size: int,
    steps: int,
    lr: float,
    lr_muon: float = 0.0,
    seed: int = 0,
    progress: Callable[[int, int, float], None] = lambda *a: None,
    tokens: int = 0,
    uneven: bool = False,
    dtype: torch.dtype | None = None,
    cores: int = 1,
    start: dict | None = None,
    lr_w: float | None = None,
) -> list[float]:
    """Train stage 1 or 2 on these samples, resuming what is in `folder`. Returns the loss of every step.

    Raises what `fit` raises. The recipe holds a digest of the samples, so a folder that trained on others is refused.

    lr_muon: 0 for the paper's Adam; above 0 Muon trains the matrices inside the blocks at this rate. tokens: how many
    to compute at once (gradient accumulation); 0 for the whole batch. uneven: as in `plan_batches`. dtype: None for
    what the machine does best. cores: how many parts to compute at the same time in a single process (see
    `useful_cores`). Of many processes each computes its share of every batch. However a batch is divided, its loss is
    the mean over all its supervised tokens. start: what it begins with, for the recipe: checksums of weights.
    lr_w: W's rate, if it is not that of the rest.
    """
    if not lora.adapters(model):  # `lora.add` has already decided what trains
        set_trainable(model, stage)
    parts = [getattr(model, name) for name in STAGES[stage]]
    optimizer = muon(parts, lr_muon, lr) if lr_muon else adam(parts, lr)
    if lr_w is not None:
        optimizer.set_rate(model.projector, lr_w)
    device, P = next(model.projector.parameters()).device, model.config.vision.num_patches
    kind = device.type
    dtype = dtype or compute_dtype(kind)
    optimizer.scaler = torch.amp.GradScaler(kind, enabled=dtype == torch.float16)
    lengths = samples.lengths() if isinstance(samples, StoredSamples) else [len(s.ids) for s in samples]
    batches = plan_batches(lengths, batch_size, steps, seed, uneven)

    def read(step):
        """This process's parts of a step: (batch, what each of its tokens counts)."""
        some = {i: samples[i] for i in batches[step]}
        lengths = {i: len(s.ids) + (P - 1) * len(s.images) for i, s in some.items()}
        each = 1 / sum(int((s.labels[1:] != IGNORE).sum()) for s in some.values())
        parts = micro_batches(lengths, batches[step], tokens, world_size() * cores)[rank() :: world_size()]
        # all ranks must take part in every exchange: instead of nothing they compute a sample that counts nothing
        parts, spare = [part for part in parts if part or world_size() > 1], some[batches[step][0]]
        return [(batch_of([some[i] for i in part] or [spare]), each if part else 0.0) for part in parts]

    def batch_of(some):
        seen = features.of([name for s in some for name in s.images])
        if kind == "cuda" and seen:  # in one piece: many small copies take longer than a step
            seen = to_device(torch.stack(seen), device).unbind()
        seen = iter(seen)
        pictures = [[next(seen) for _ in s.images] for s in some]
        return Batch([s.ids for s in some], [s.labels for s in some], pictures, [s.id for s in some])

    def loss_of(batch, weight):
        """The sum of the losses of the batch's supervised tokens, times `weight`."""
        with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
            loss, count = model(batch)
        return loss * (count * weight)

    parts_at = Ahead(read, steps) if kind == "cuda" else read

    def loss_at(step):
        return [partial(loss_of, *part) for part in parts_at(step)]

    def ids_at(step):
        return [samples[i].id for i in batches[step]]

    recipe = recipe_of(stage, samples, batch_size, steps, lr, lr_muon, seed, uneven, start, lr_w)
    recipe |= {name: getattr(getattr(model, name), "origin", None) for name in ("vision_tower", "language_model")}
    recipe["trained"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return fit(model, optimizer, loss_at, steps, folder, recipe, progress, ids_at=ids_at, cores=cores)


def recipe_of(
    stage: int,
    samples: Sequence[Sample],
    batch_size: int,
    steps: int,
    lr: float,
    lr_muon: float = 0.0,
    seed: int = 0,
    uneven: bool = False,
    start: dict | None = None,
    lr_w: float | None = None,
) -> dict:
    """What identifies a training of a stage besides its model, as JSON. The arguments are those of `train_stage`."""
    records = samples.digest() if isinstance(samples, StoredSamples) else digest(samples)
    recipe = dict(stage=stage, samples=len(samples), records=records, batch=batch_size, steps=steps)
    recipe |= dict(lr=lr, muon=lr_muon, seed=seed, uneven=uneven)
    recipe |= {} if lr_w is None else {"lr_w": lr_w}
    recipe |= {"pictures": samples.seen()} if isinstance(samples, StoredSamples) else {}
    return recipe | (start or {})


def recompute_activations(model: Llava) -> None:
    """Activation checkpointing: keep only the input of each block of the language model, and compute the rest again."""
    for block in model.language_model.layers:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(model: Llava) -> None:
    """Let `torch.compile` join what stands between the large products of a block: on a GPU it waits for memory there.

    Two compilations serve all blocks and lengths. Call it before `recompute_activations`.
    """
    for block in model.language_model.layers:
        block.forward = torch.compile(block.forward, dynamic=True)

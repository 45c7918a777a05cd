"""The two stages of section 4.2, as two calls of one function: stage 1 trains W, stage 2 W and the language model.

Notable: the vision tower is frozen in both stages, so its features are computed once a picture and shared by stages, epochs and
ablations (features.py). Stage 1 reads brief questions and captions, stage 2 instruction records; the sequence and the
loss are the same (Table 2, Eq. 3).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint

from minillava.data import IGNORE
from minillava.data.samples import Sample, digest, divide, plan
from minillava.data.stored import Stored
from minillava.machine import compute_dtype
from minillava.model import Batch, Llava, set_trainable
from minillava.model.llava import STAGES
from minillava.training import lora
from minillava.training.features import Features
from minillava.training.loop import fit
from minillava.training.optim import adam, muon
from minillava.training.parallel import rank, world_size

SMALL_MODEL = 16_000_000  # parameters of a language model whose matrices do not feed several cores
TOKENS_PER_CORE = 4096  # tokens that one core takes through a small model (see `cores_apart`)
MOST_CORES = 8  # cores; beyond, parts of a batch of 32 would be small and Python, one thread at a time, the limit


def useful_cores(model: Llava) -> int:
    """How many parts of a batch are worth taking at the same time, each on a core of its own.

    Of a small model in one process on a CPU as many as it has cores, up to MOST_APART. Else 1: large matrices feed all
    cores, and each part holds gradients of its own. An epoch of the tiny scale on two cores of an Intel Xeon, batches of
    32, about 5500 tokens (benchmarks/train.py): one part after another on both cores takes 1.1 to 1.3 times as long. In
    parts of at most 1024 / 2048 / 4096 / 8192 tokens, each on its core: float32 3.8 / 3.2 / 3.0 / 3.1 s, bfloat16 - / 2.8 /
    2.5 / 2.5 s.
    """
    size = sum(p.numel() for p in model.language_model.parameters())
    on_cpu = next(model.projector.parameters()).device.type == "cpu"
    return min(torch.get_num_threads(), MOST_CORES) if on_cpu and size < SMALL_MODEL and world_size() == 1 else 1


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
    packed: bool = False,
    uneven: bool = False,
    dtype: torch.dtype | None = None,
    cores: int = 1,
) -> list[float]:
    """Stage 1 or 2 on these samples; goes on where `folder` stands. Returns the loss of every step.

    Raises what `fit` does; TrainingError also where `folder` is of as many other samples: their digest is in the recipe.

    lr_muon 0 is the paper's Adam; above 0 the matrices inside the blocks are trained by Muon with that rate. tokens:
    how many go through the model at once, the rest of a batch after them (gradient accumulation); 0: the whole batch.
    packed, uneven: as in `data.samples`. dtype: None asks the machine. cores: so many parts at the same time (`cores_apart`
    says how many are worth it), where one process trains. In many processes each takes its parts of every
    batch; the loss is the same mean over all supervised tokens of the batch, however it is divided.
    """
    if not lora.adapters(model):  # where there are, `lora.add` has said what trains
        set_trainable(model, stage)
    parts = [getattr(model, name) for name in STAGES[stage]]
    optimizer = muon(parts, lr_muon, lr) if lr_muon else adam(parts, lr)
    kind, P = next(model.projector.parameters()).device.type, model.config.vision.num_patches
    dtype = dtype or compute_dtype(kind)
    optimizer.scaler = torch.amp.GradScaler(kind, enabled=dtype == torch.float16)
    lengths = samples.lengths() if isinstance(samples, Stored) else [len(s.ids) for s in samples]
    batches = plan(lengths, batch_size, steps, seed, uneven)

    def loss_of(chosen, share):
        some = [samples[i] for i in chosen]
        seen = [[features[s.image]] if s.image else [] for s in some]
        batch = Batch([s.ids for s in some], [s.labels for s in some], seen, [s.id for s in some])
        with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
            loss, count = model(batch, packed)
        return loss * (count * share)

    def loss_at(step):
        some = {i: samples[i] for i in batches[step]}
        lengths = {i: len(s.ids) + (P - 1 if s.image else 0) for i, s in some.items()}
        total = sum(int((s.labels[1:] != IGNORE).sum()) for s in some.values())
        for part in divide(lengths, batches[step], tokens, packed, world_size() * cores)[rank() :: world_size()]:
            if part:
                yield partial(loss_of, part, 1 / total)
            elif world_size() > 1:  # takes another's sample for nothing, as all must take part in every exchange
                yield partial(loss_of, batches[step][:1], 0.0)

    records = samples.digest() if isinstance(samples, Stored) else digest(samples)
    recipe = {"stage": stage, "samples": len(samples), "records": records, "batch": batch_size, "steps": steps, "lr": lr, "muon": lr_muon,
              "seed": seed, "uneven": uneven, "vision_tower": getattr(model.vision_tower, "origin", None),
              "language_model": getattr(model.language_model, "origin", None),
              "trained": sum(p.numel() for p in model.parameters() if p.requires_grad)}  # fmt: skip
    ids_at = lambda step: [samples[i].id for i in batches[step]]  # noqa: E731
    return fit(model, optimizer, loss_at, steps, folder, recipe, progress, ids_at=ids_at, cores=cores)


def recompute_activations(model: Llava) -> None:
    """Activation checkpointing: of each block of the language model only what goes in is kept; the rest is computed again."""
    for block in model.language_model.layers:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)

"""The checks of gpu_right.py that train: float16, resuming, one update, a model split over processes (one here).

Each is a function that yields rows; dry: small sizes. They train stage 2 from the shipped parts on drawn scenes.
"""

import copy
import math
import os
import sys
import tempfile
from functools import lru_cache

import forward
import side_by_side as side
import torch
import torch.distributed as dist
from gpu_differences import HALF, LOSS, gradients, norm_apart, our_loss, row, setting

from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.judging.answers import vision_features
from minillava.model import set_trainable
from minillava.model.formats.assemble import assemble
from minillava.model.formats.preparation import read_preparation
from minillava.scales import TINY, WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import instruction_record
from minillava.training import checkpoints, optim, parallel
from minillava.training.features import Features
from minillava.training.stages import train_stage

MUON = TINY.stage2_lr_muon


@lru_cache
def lessons(count):
    """(samples of stage 2 on drawn scenes, their pictures' features)."""
    some, tokenizer = scenes("train", count), load_tokenizer(WEIGHTS / "language_model")
    samples = [encode(instruction_record(s, kind), CHAT, tokenizer) for s in some for kind in forward.TYPES]
    preparation = read_preparation(WEIGHTS / "vision_tower", 96)
    seen = vision_features(learner("cpu"), preparation, [draw(scene, 96) for scene in some])
    return samples, Features({f"{scene.id}.png": n for n, scene in enumerate(some)}, seen.bfloat16())


def learner(device):
    """The shipped vision tower and language model, with a random W."""
    return assemble(WEIGHTS / "vision_tower", WEIGHTS / "language_model", 0, device=device)


def train(dry, steps, dtype, lr_muon=0.0, folder=None, stop=None, model=None):
    """(losses, weights, the last checkpoint's state) of `steps` steps. stop: interrupt it after so many."""

    def progress(step, *_):
        if step == stop:
            raise KeyboardInterrupt

    torch.manual_seed(0)
    model, (samples, seen) = model or learner(side.DEVICE), lessons(8 if dry else 128)
    settings = dict(batch_size=2 if dry else 16, steps=steps, lr=TINY.stage2_lr, lr_muon=lr_muon, dtype=dtype)
    with tempfile.TemporaryDirectory() as new:
        try:
            losses = train_stage(model, 2, samples, seen, folder or new, progress=progress, **settings)
        except KeyboardInterrupt:
            return None
        state = checkpoints.latest(folder or new)
    return losses, {name: p.detach().clone() for name, p in checkpoints.trainable(model).items()}, state


def float16(lr_muon, dry):
    """Stage 2 in float16 with the scaler learns as much as in float32 and bfloat16."""
    steps, last = (2, 1) if dry else (100 if lr_muon else 200, 20)
    found, name = {}, "Muon" if lr_muon else "Adam"
    for precision, dtype in ({"float32": torch.float32} | HALF).items():
        losses, _, state = train(dry, steps, dtype, lr_muon)
        begin, end = found[precision] = sum(losses[:last]) / last, sum(losses[-last:]) / last
        said = f"mean of the first {last} {begin:.4f}, of the last {end:.4f}"
        if precision == "float16":  # a scale grows after 2000 steps, and is halved for each step that is skipped
            said += f"; {math.log2(65536 / state['scaler']['scale']):.0f} steps were skipped"
        far = abs(end - found["float32"][1]) / found["float32"][0]  # the last losses may be near 0
        yield row(f"{name}, {steps} steps: last losses and float32's", precision, far, 0.05, said)
        yield row(f"{name}, {steps} steps: last losses and first", precision, end / begin, 2 if dry else 0.5)


def runs_apart(check, one, other):
    """A row: the largest difference of the weights of two runs, which should be 0."""
    differ = [name for name in one[1] if not torch.equal(one[1][name], other[1][name])]
    first = next((step for step, pair in enumerate(zip(one[0], other[0])) if pair[0] != pair[1]), "none")
    said = f"absolute; {len(differ)} of {len(one[1])} tensors differ; first loss that differs: {first}"
    return row(check, "bfloat16", max((a - other[1][k]).abs().max().item() for k, a in one[1].items()), 0, said)


def resumed(lr_muon, deterministic, dry):
    """The same gradients twice, the same training twice, and stopped half way and resumed: all bit for bit."""
    how = f"{'Muon' if lr_muon else 'Adam'}{', deterministic' if deterministic else ''}"
    try:
        torch.use_deterministic_algorithms(deterministic)
        ours, _, batch, _ = setting("tiny", "float32")
        (_, a), (_, b) = (gradients("bfloat16 autocast", our_loss, ours, batch) for _ in range(2))
        differ = [name for name in a if not torch.equal(a[name], b[name])]
        said = f"{len(differ)} of {len(a)} differ {differ[-2:]}"
        yield row(f"gradients of one batch twice, {how}", "bfloat16 autocast", norm_apart(a, b), 0, said)
        steps = 4 if dry else 20
        once, again = (train(dry, steps, torch.bfloat16, lr_muon) for _ in range(2))
        yield runs_apart(f"{steps} steps twice, {how}", again, once)
        with tempfile.TemporaryDirectory() as folder:
            train(dry, steps, torch.bfloat16, lr_muon, folder, steps // 2)
            parts = train(dry, steps, torch.bfloat16, lr_muon, folder)
        yield runs_apart(f"{steps} steps, resumed at {steps // 2}, {how}", parts, once)
    finally:
        torch.use_deterministic_algorithms(False)


def one_update(dry):
    """One step of AdamW and of Muon from equal gradients, here and on the CPU."""
    here, _, batch, _ = setting("tiny", "float32")
    there = copy.deepcopy(here).cpu()
    _, found = gradients("float32", our_loss, there, batch)
    for name, tolerance in (("AdamW", 1e-4), ("Muon", 5e-2)):  # Muon computes in bfloat16
        updates = []
        for model in (copy.deepcopy(here), copy.deepcopy(there)):
            parts, params = [model.projector, model.language_model], checkpoints.trainable(model)
            optimizer = optim.muon(parts, 1e-3, 1e-3) if name == "Muon" else optim.adam(parts, 1e-3)
            before = {k: p.detach().clone() for k, p in params.items()}
            for k, p in params.items():
                p.grad = found[k].to(p.device).clone()
            optimizer.step(1.0)
            updates.append({k: p.detach() - before[k] for k, p in params.items()})
        yield row(f"{name}, one update here and on the CPU", "float32", norm_apart(*updates), tolerance)


def sharded(dry):
    """FSDP2 with one process, over NCCL on a GPU and gloo on a CPU, and the plain model."""
    local = "lo0" if sys.platform == "darwin" else "lo"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", local)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", local)
    backend = "cpu:gloo,cuda:nccl" if side.DEVICE == "cuda" else "gloo"
    tolerances = {"float32": LOSS["float32"] * 5, "bfloat16": 5e-2}  # over five steps; in bfloat16 it also keeps norms
    for precision, tolerance in tolerances.items():
        dtype = getattr(torch, precision)
        plain = train(dry, 5, dtype)[0]
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        try:
            model = learner(side.DEVICE)
            set_trainable(model, 2)
            parallel.distribute(model, model.vision_tower, list(model.language_model.layers), dtype)
            split = train(dry, 5, dtype, model=model)[0]
        finally:
            dist.destroy_process_group()
        far = max(abs(a / b - 1) for a, b in zip(split, plain, strict=True))
        said = f"losses {split[0]:.4f} to {split[-1]:.4f}, plain {plain[0]:.4f} to {plain[-1]:.4f}"
        yield row("FSDP2 with one process and the plain model", precision, far, tolerance, said)

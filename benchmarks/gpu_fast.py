"""How fast training and answering are on a GPU: tokens per second, share of a large matrix product, memory.

Each part is measured by itself and written as it ends, the most wanted first; parts that are in the file are left out.

    ceilings        a large matrix product and a large copy on this card
    stage 1, 2      `minillava train`'s own loop at the size of Qwen2.5-0.5B: reading ahead, splice, AdamW; no
                    checkpoints. Features of photographs are read from disk, or computed at every use ("live")
    a step          forward, backward and AdamW beside `transformers` on the same batch and weights (large.py)
    answers         90 questions about 30 pictures at the size of 7B (generate.py)

    python benchmarks/gpu_fast.py --json benchmarks/results/gpu-fast.json [--seconds 240] [--dry]
"""

import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import generate
import gpu_parts
import large
import numpy as np
import side_by_side as side
import torch
from PIL import Image

from minillava.costs.model import SHAPES, flops, memory
from minillava.data import IGNORE, IMAGE
from minillava.data.images import Preparation
from minillava.data.samples import Sample, micro_batches, plan_batches
from minillava.machine import compute_dtype, matmul_speed
from minillava.model import Llava
from minillava.text import short_number
from minillava.training import checkpoints
from minillava.training.features import Features, LiveFeatures
from minillava.training.stages import train_stage

NOMINAL = 989e12  # FLOP/s of an H100 or H200 SXM in bfloat16, by the maker's data sheet
GOALS = {1: 100_000, 2: 86_000}  # real tokens per second at 0.5B
BATCH, TOKENS = {1: 128, 2: 32}, {1: 49152, 2: 24576}  # samples per step, tokens at once
WORDS = {1: (60, 90, 16 / 75), 2: (120, 520, 200 / 320)}  # of a sample, from and to; the share with a label (scales.py)
PHOTOS = 64  # different ones; a sample shows one of them
UNCOUNTED = 4  # steps at the beginning: compilation, first memory
WAYS = {"compiled": (True, False), "compiled, live": (True, True), "plain": (False, False)}  # (compiled, live features)
# A checkpoint of 0.5B takes 6 GB, and how fast a disk is says nothing about a GPU.
NO_CHECKPOINTS = {"save": lambda *_: None, "due": lambda *_: False}
CLIP = Preparation(224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def ceilings(dry):
    """FLOP/s of a large product, and bytes per second of a large copy, read and written."""
    n = 1 << (20 if dry else 31)
    source = torch.randint(0, 255, (n,), dtype=torch.uint8, device=side.DEVICE)
    target, took = torch.empty_like(source), []
    for _ in range(8):
        side.synchronize()
        begun = time.perf_counter()
        target.copy_(source)
        side.synchronize()
        took.append(time.perf_counter() - begun)
    speed = matmul_speed(torch.bfloat16, side.DEVICE)
    figures = {"matmul": speed, "copy": 2 * n / min(took[2:])}
    print(f"a large product {short_number(speed)}FLOP/s, a large copy {short_number(figures['copy'])}B/s", flush=True)
    return figures


def photographs(folder):
    """JPEG files of 640 x 480 with coarse noise, as photographs have few fine details."""
    random = np.random.default_rng(0)
    for n in range(PHOTOS):
        small = Image.fromarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{n}.jpg", quality=90)
    return [f"{n}.jpg" for n in range(PHOTOS)]


def samples_of(config, stage, count):
    """`count` samples with one picture each, random words, and lengths as in the stage's data."""
    generator, (low, high, share) = torch.Generator().manual_seed(stage), WORDS[stage]
    made = []
    for n in range(count):
        length = int(torch.randint(low, high, (1,), generator=generator))
        ids = torch.randint(3, config.language.vocab_size, (length,), generator=generator)
        ids[30] = IMAGE
        labels = torch.where(torch.arange(length) < length * (1 - share), IGNORE, ids)
        made.append(Sample(str(n), ids, labels, (f"{n % PHOTOS}.jpg",)))
    return made


def training(dry, stage):
    """Some steps of a stage by `train_stage`, in each of `WAYS`. Prints and returns the speed of each."""
    config, batch = SHAPES["tiny" if dry else "colab"], 4 if dry else BATCH[stage]
    steps, tokens = UNCOUNTED + (2 if dry else 12), 1024 if dry else TOKENS[stage]
    samples, found = samples_of(config, stage, batch * steps), {}
    with tempfile.TemporaryDirectory() as name, patch.multiple(checkpoints.Saver, **NO_CHECKPOINTS):
        folder, preparation = Path(name), replace(CLIP, size=config.vision.image_size)
        photos = photographs(folder)
        for way, (compiled, live) in WAYS.items():
            torch.manual_seed(0)
            with torch.device(side.DEVICE):
                model = Llava(config)
            if compiled:
                large.compile_here(model)
            reset_peak()
            features, stamps = LiveFeatures(model, folder, preparation), []
            if not live:
                features = Features.cached(folder / "features", model, folder, photos, preparation, lambda *_: None)
            settings = dict(batch_size=batch, steps=steps, lr=1e-4, tokens=tokens)
            settings |= {"dtype": compute_dtype(side.DEVICE), "progress": partial(stamp, stamps)}
            train_stage(model, stage, samples, features, folder / way, **settings)
            found[way] = figures_of(config, stage, samples, batch, tokens, live, stamps, compiled)
            speed, each = found[way]["tokens a second"], found[way]["samples a second"]
            print(f"stage {stage}, {way}: {speed:,.0f} real tokens/s (goal {GOALS[stage]:,}), {each:,.0f} samples/s, "
                  f"{short_number(found[way]['FLOP/s'])}FLOP/s", flush=True)  # fmt: skip
            del model, features
    return found


def figures_of(config, stage, samples, batch, tokens, live, stamps, compiled):
    """What the times of all steps say about those that count. Tokens are real ones: padding is not among them."""
    lengths = [len(s.ids) - 1 + config.vision.num_patches for s in samples]
    steps = plan_batches([len(s.ids) for s in samples], batch, len(stamps), 0)
    parts = [part for chosen in steps[UNCOUNTED:] for part in micro_batches(lengths, chosen, tokens)]
    seconds, chosen = stamps[-1] - stamps[UNCOUNTED - 1], [i for part in parts for i in part]
    scored = {i: int((samples[i].labels[1:] != IGNORE).sum()) for i in chosen}
    work = sum(flops(config, lengths[i], scored[i], int(live), stage)["total"] for i in chosen) / seconds
    return {
        "tokens a second": sum(lengths[i] for i in chosen) / seconds, "samples a second": len(chosen) / seconds,
        "FLOP/s": work, "nominal MFU": work / NOMINAL, "seconds": [b - a for a, b in pairwise(stamps)],
        "tokens at once": tokens, "peak memory": peak_memory(),
        "foreseen memory": foreseen(config, stage, samples, steps, tokens, compiled),
    }  # fmt: skip


def foreseen(config, stage, samples, steps, tokens, compiled):
    """Bytes for the part that needs most. Long samples have more labels too, and so larger logits."""
    lengths = [len(s.ids) - 1 + config.vision.num_patches for s in samples]
    found = []
    for parts in (micro_batches(lengths, chosen, tokens) for chosen in steps):
        for part in parts:
            scored = sum(int((samples[i].labels[1:] != IGNORE).sum()) for i in part) / len(part)
            size = len(part), max(lengths[i] for i in part), scored
            found.append(memory(config, stage, *size, parts=len(parts), compiled=compiled)["total"])
    return max(found)


def stamp(stamps, *_):
    stamps.append(time.perf_counter())


def reset_peak():
    if side.DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory():
    return torch.cuda.max_memory_allocated() if side.DEVICE == "cuda" else None


def step(dry, name, precision, stage, count, again, ways=("ours compiled", "ours", "transformers")):
    """One of large.py's measurements."""
    return large.measure("tiny" if dry else name, precision, stage, count, again, 1 if dry else 4, ways)


def answers(dry):
    """90 questions at the size of 7B; one by one every tenth of them."""
    name = "tiny" if dry else "full-7b"
    ours, theirs, asked = generate.setting(name, "float32" if dry else "bfloat16", 2 if dry else generate.PICTURES)
    timed = range(0, len(asked[1]), 10)
    times = side.time_in_turn(generate.sides_of(ours, theirs, asked, timed), 1 if dry else 2)
    clock = {way: statistics.median(row[0] for row in rows) for way, rows in times.items()}
    clock["one by one"] *= len(asked[1]) / len(timed)
    tokens = sum(asked[3])
    for way, seconds in clock.items():
        print(f"{name}, {way}: {len(asked[1])} answers, {tokens} tokens in {seconds:.2f} s", flush=True)
    return {"shape": name, "questions": len(asked[1]), "tokens": tokens, "seconds": clock}


PARTS = {
    "ceilings": ceilings,
    "0.5B, stage 1": partial(training, stage=1),
    "0.5B, stage 2": partial(training, stage=2),
    "7B, a step of stage 2": partial(step, name="full-7b", precision="bfloat16", stage=2, count=16, again=False),
    "7B, answers": answers,
    "0.5B, a step of stage 2": partial(step, name="colab", precision="mixed", stage=2, count=64, again=False),
    "0.5B, a step of stage 1": partial(step, name="colab", precision="mixed", stage=1, count=64, again=False),
    "7B, a step of stage 2, recomputed": partial(
        step, name="full-7b", precision="bfloat16", stage=2, count=16, again=True
    ),
    "7B, a step of stage 2, half as many": partial(
        step, name="full-7b", precision="bfloat16", stage=2, count=8, again=False
    ),
    "7B, a step of stage 1": partial(step, name="full-7b", precision="bfloat16", stage=1, count=16, again=False),
}
MOCK = ["ceilings", "0.5B, stage 1", "7B, a step of stage 2", "7B, answers"]

if __name__ == "__main__":
    gpu_parts.run(__doc__, "fast", PARTS, MOCK)

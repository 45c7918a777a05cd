"""An epoch of stage 2, compared with `transformers`' Llava and `Trainer` on the same records and weights.

Both sides train everything but the vision tower with fused AdamW, a cosine schedule, clipping, and the same batch size
and precision. `transformers` is used as usual: the vision tower computes each picture in each step, batches are random
and padded, the vocabulary is scored at every token. Before training both losses on one batch must agree; after an epoch
from the same weights both losses on all records are printed.

What each trick contributes is measured by leaving it out. Ours computes the features once; that time is printed, and
counted in its first epoch. `memory`: the peak of training, weights included, each side in its own process. `growth`:
seconds and memory for more and for longer samples.

    pip install -c constraints.txt -e ".[benchmarks]"                               # accelerate, which `Trainer` needs
    python benchmarks/train.py --quick                                              # under a minute, small model only
    python benchmarks/train.py --parts epochs --shapes tiny --json benchmarks/results/train.json
    python benchmarks/train.py --parts epochs,memory --shapes colab --precisions float32 --json FILE
    python benchmarks/train.py --parts growth --json benchmarks/results/train.json  # results of other parts there stay
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import side_by_side as side
import torch
from train_growth import growth
from transformers import Trainer, TrainingArguments

from minillava.costs.model import flops
from minillava.data import IGNORE, IMAGE
from minillava.data import samples as dividing
from minillava.data.images import Preparation, pixels
from minillava.data.samples import Sample, encode, fill_rate, micro_batches, plan_batches
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.messages import TYPES
from minillava.machine import matmul_speed
from minillava.model import Batch, kernels, set_trainable
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import instruction_record
from minillava.text import short_number
from minillava.training import checkpoints, stages
from minillava.training.features import Features

PRECISIONS, PARTS = ("float32", "mixed"), ("epochs", "memory", "growth")
GOALS = {"tiny": 2.5, "colab": 1.6}  # times as fast in the same precision
BEST_GOAL = 4.0  # small model: ours in the machine's best precision, against `Trainer` in its default, float32
MOST_MEMORY = 0.6  # of theirs, at the Colab-like shape
LARGE_MEMORY = 23.5e9  # bytes that `transformers` needs for the larger shape
DTYPES = {"float32": torch.float32, "mixed": torch.bfloat16}
TOKENS = {"tiny": stages.TOKENS_PER_CORE, "colab": 768}  # that ours computes at once; 768: two samples, for memory
MEAN, LR = (0.5, 0.5, 0.5), 1e-3


def samples_and_pixels(config, count):
    """`count` samples of the picture book for this shape, and its pictures' pixels by name."""
    V, size = config.language.vocab_size - 1, config.vision.image_size  # the last id is their placeholder of a patch
    tokenizer, samples, views = load_tokenizer(WEIGHTS / "llava"), [], {}
    for n, scene in enumerate(scenes("train", count)):
        s = encode(instruction_record(scene, TYPES[n % 3]), CHAT, tokenizer)
        samples.append(Sample(s.id, s.ids.clamp(max=V - 1), s.labels.clamp(max=V - 1), s.images))
        views[s.images[0]] = pixels([draw(scene, size)], Preparation(size, MEAN, MEAN))[0]
    return samples, views


class Rows(torch.utils.data.Dataset):
    """The samples as LlavaProcessor makes them, with a placeholder for every patch."""

    def __init__(self, samples, views, config):
        self.samples, self.views, self.config = samples, views, config

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, n):
        s, P = self.samples[n], self.config.vision.num_patches
        at = torch.arange(len(s.ids)).repeat_interleave(torch.where(s.ids == IMAGE, P, 1))
        ids = torch.where(s.ids == IMAGE, self.config.language.vocab_size - 1, s.ids)[at]
        return {"input_ids": ids, "labels": s.labels[at], "pixel_values": self.views[s.images[0]]}


def collate(rows):
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad([r["input_ids"] for r in rows], batch_first=True),
        "attention_mask": pad([torch.ones_like(r["input_ids"]) for r in rows], batch_first=True),
        "labels": pad([r["labels"] for r in rows], batch_first=True, padding_value=IGNORE),
        "pixel_values": torch.stack([r["pixel_values"] for r in rows]),
    }


class Uncached:
    """Features that are computed again in each step."""

    def __init__(self, model, views):
        self.model, self.views = model, views

    def __getitem__(self, name):
        return self.model.features(self.views[name][None].to(side.DEVICE))[0]


def our_epoch(model, samples, features, batch, precision, **more):
    settings = dict(batch_size=batch, steps=len(samples) // batch, lr=LR, dtype=DTYPES[precision])
    settings |= {"cores": stages.useful_cores(model)} | more
    # Nothing is saved, as with theirs.
    with tempfile.TemporaryDirectory() as folder, patch.object(checkpoints.Saver, "save"):
        stages.train_stage(model, 2, samples, features, Path(folder), **settings)


def their_epoch(model, rows, batch, precision):
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # it would decide the next epoch's precision
    with tempfile.TemporaryDirectory() as folder:
        settings = dict(per_device_train_batch_size=batch, max_steps=len(rows) // batch, learning_rate=LR)
        settings |= dict(weight_decay=0.0, lr_scheduler_type="cosine", warmup_steps=1, optim="adamw_torch_fused")
        settings |= dict(bf16=precision == "mixed", use_cpu=side.DEVICE == "cpu", remove_unused_columns=False)
        settings |= dict(save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no")
        settings = TrainingArguments(folder, **settings)
        Trainer(model, settings, train_dataset=rows, data_collator=collate).train()
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):  # of this precision
        vars(model).pop(name, None)


def without(trick, ours, samples, seen, views, batch, precision, tokens):
    """A function that trains one epoch of ours without this trick."""
    language, head = ours.language_model, ours.language_model.head
    labels = sum(int((s.labels != IGNORE).sum()) for s in samples)
    rows = round(sum(len(s.ids) + ours.config.vision.num_patches - 1 for s in samples) / labels)  # per label

    settings = dict(features=seen, precision=precision, tokens=tokens)
    settings |= {
        "features kept": dict(features=Uncached(ours, views)),
        "parts on cores of their own": dict(cores=1),
        "bfloat16": dict(precision="float32"),
    }.get(trick, {})
    replaced, attribute, replacement = {
        "batches of like lengths": (
            stages,
            "plan_batches",
            lambda lengths, *rest: plan_batches([0] * len(lengths), *rest),
        ),
        # the highest limit, which makes full parts and a rest
        "parts of like size": (dividing, "bisect_left", lambda limits, *_, **__: len(limits)),
        "matrices in few sizes": (
            kernels,
            "in_few_sizes",
            lambda embeds, target, wanted, longest: (embeds, target, wanted),
        ),
        "the vocabulary at labels only": (language, "head", lambda x: head(x.repeat(rows, 1))[: len(x)]),
    }.get(trick, (stages, "plan_batches", plan_batches))

    def epoch():
        with patch.object(replaced, attribute, replacement):
            our_epoch(ours, samples, batch=batch, **settings)

    return epoch


def setting(name, count):
    """(ours, theirs, `count` samples, their pictures, the pictures' features, the seconds that those took)."""
    ours, theirs = side.same_weights(name, torch.float32)
    samples, views = samples_and_pixels(ours.config, count)
    set_trainable(ours, 2)
    theirs.model.vision_tower.requires_grad_(False)
    theirs.model.multi_modal_projector.linear_2.requires_grad_(False)
    begun, pictures = time.perf_counter(), torch.stack(list(views.values()))
    found = torch.cat([ours.features(part.to(side.DEVICE)).cpu() for part in pictures.split(64)])
    seen = Features({n: i for i, n in enumerate(views)}, found)
    return ours, theirs, samples, views, seen, time.perf_counter() - begun


def size(name, options, most=False):
    """(samples, batch size) of a shape. most: for the larger one, the largest batch of theirs in LARGE_MEMORY."""
    return ((96 if options.quick else 256), 32) if name == "tiny" else (16, 8) if most else (10, 5)


@torch.no_grad()
def losses_of(model, theirs, samples, exact, rows):
    """(ours, theirs): the mean loss over all supervised tokens of the samples."""
    mine = other = count = 0.0
    for n in range(0, len(samples), 4):
        some = samples[n : n + 4]
        pictures = [[exact[name] for name in s.images] for s in some]
        loss, labels = model.loss(Batch([s.ids for s in some], [s.labels for s in some], pictures))
        padded = collate([rows[i] for i in range(n, n + len(some))])
        mine, count = mine + loss.item() * labels, count + labels
        other += theirs(**{k: v.to(side.DEVICE) for k, v in padded.items()}).loss.item() * labels
    return mine / count, other / count


def measure(name, precision, options):
    """Print and return the figures of an epoch of one shape in one precision."""
    count, batch = size(name, options)
    ours, theirs, samples, views, exact, look = setting(name, count)
    seen, rows = Features(exact.index, exact.values.bfloat16()), Rows(samples, views, ours.config)
    tokens = TOKENS[name]
    sides = {
        "ours": lambda: our_epoch(ours, samples, seen, batch, precision, tokens=tokens),
        "transformers": lambda: their_epoch(theirs, rows, batch, precision),
    }
    losses = {"before": losses_of(ours, theirs, samples[:4], exact, rows)}
    if abs(losses["before"][0] - losses["before"][1]) > 1e-3:
        raise SystemExit(f"{name}: {losses}")
    goals = {"transformers": GOALS[name]}
    if name == "tiny":  # both sides share the weights: each starts from the same
        start = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
        for way, work in sides.items():
            ours.load_state_dict(start)
            work()
            losses[f"after an epoch of {way}"] = losses_of(ours, theirs, samples, exact, rows)
        ours.load_state_dict(start)
        if precision == "mixed" and not options.quick:
            sides["Trainer as it comes"] = lambda: their_epoch(theirs, rows, batch, "float32")
            goals["Trainer as it comes"] = BEST_GOAL
    rounds = 1 if options.quick or name != "tiny" else 3
    times = side.time_in_turn(sides, rounds, warm_up=False)
    ratios = side.ratios_to_ours(times)
    side.print_times(f"{name}, {precision}: {count} samples, batches of {batch}", times, ratios, {}, goals)
    for when, (mine, other) in losses.items():
        print(f"  loss {when}: {mine:.4f} as ours computes it, {other:.4f} as transformers does")
    clock = {way: statistics.median(row[0] for row in rows) for way, rows in times.items()}
    first = clock["transformers"] / (clock["ours"] + look)
    print(f"  computing the features takes {look:.2f} s; with that in its first epoch ours is {first:.2f} x as fast")
    tricks = ["features kept", "the vocabulary at labels only"]
    if name == "tiny" and not options.quick:  # at the larger shape each takes minutes
        tricks += ["batches of like lengths", "parts on cores of their own", "parts of like size"]
        tricks += ["matrices in few sizes", "bfloat16"] if precision == "mixed" else []
    left_out = {}
    for trick in tricks:
        work = without(trick, ours, samples, seen, views, batch, precision, tokens)
        again = side.time_in_turn({"ours": sides["ours"], "without": work}, rounds, warm_up=False)
        left_out[trick] = clock_ratio, cpu_ratio = side.ratios_to_ours(again)["without"]
        print(f"  without {trick}: {clock_ratio:.2f} x as long ({cpu_ratio:.2f} in CPU time)", flush=True)
    lengths = [len(s.ids) + ours.config.vision.num_patches - 1 for s in samples]
    batches, drawn = (plan_batches(by, batch, len(samples) // batch, 0) for by in (lengths, [0] * len(lengths)))
    parts = [part for b in batches for part in micro_batches(lengths, b, tokens)]
    ways = {"random": drawn, "like lengths": batches, "in parts": parts}
    filled = {how: fill_rate(lengths, some) for how, some in ways.items()}
    print("  filled: " + ", ".join(f"{how} {100 * rate:.0f} %" for how, rate in filled.items()))
    scored = sum(int((s.labels != IGNORE).sum()) for s in samples) / count
    speed = sum(flops(ours.config, n, scored, 0, 2)["total"] for n in lengths) / clock["ours"]
    peak = matmul_speed(DTYPES[precision], side.DEVICE)
    product = f"{100 * speed / peak:.0f} % of a large product's {short_number(peak)}FLOP/s"
    print(f"  ours: {short_number(speed)}FLOP/s, {product}", flush=True)
    figures = {"samples": count, "batch": batch, "tokens at once": tokens, "goals": goals, "seconds": times}
    figures |= {"ratios": ratios, "loss": losses, "look": look, "first epoch": first, "without": left_out}
    return figures | {"filled": filled, "FLOP/s": speed, "matmul": peak}


def measure_memory(name, options):
    """Print and return each side's peak memory over two steps, weights included, and ours as a share of theirs."""
    used = {way: side.in_own_process(__file__, options, name, way) for way in ("ours", "transformers")}
    share = used["ours"] / used["transformers"]
    goal = f", goal {MOST_MEMORY:.0%}" if name == "colab" else ""
    mine, other = (f"{bytes / 1e9:.2f} GB" for bytes in used.values())
    print(f"\n{name}, float32: at most {mine}, transformers {other}: {share:.0%}{goal}", flush=True)
    return used | {"share": share}


def print_memory(name, way, options):
    """Print the bytes of one side's peak over two steps."""
    _, batch = size(name, options, most=True)
    ours, theirs, samples, views, seen, _ = setting(name, 2 * batch)
    rows, weights = Rows(samples, views, ours.config), sum(p.nbytes for p in ours.parameters())
    sides = {
        "ours": lambda: our_epoch(ours, samples, seen, batch, "float32", tokens=TOKENS[name]),
        "transformers": lambda: their_epoch(theirs, rows, batch, "float32"),
    }
    print(weights + side.memory_growth(sides[way]))


def main():
    options = side.arguments(__doc__, PRECISIONS, PARTS)
    if options.alone:
        return print_memory(*options.alone.split("/"), options)
    before = options.json and options.json.exists() and not options.quick
    found = json.loads(options.json.read_text())["results"] if before else {}
    for name in filter(GOALS.get, options.shapes):
        if name != "tiny" and side.free_memory() < LARGE_MEMORY:
            print(f"\n{name}: not measured, as less than {LARGE_MEMORY / 1e9:.0f} GB of memory is free")
            continue
        for precision in options.precisions if "epochs" in options.parts else ():
            found[f"epochs, {name}, {precision}"] = measure(name, precision, options)
        found |= {f"memory, {name}": measure_memory(name, options)} if "memory" in options.parts else {}
    if "growth" in options.parts:
        print("\nhow cost grows, tiny, float32")
        found["growth"] = growth(options)
    side.write_results(options, {"benchmark": "train", "results": found})


if __name__ == "__main__":
    main()

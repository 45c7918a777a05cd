"""An epoch of stage 2 beside `transformers`' LlavaForConditionalGeneration with its `Trainer`: same records, same weights.

Both sides train everything but the vision tower with fused AdamW, cosine and clipping, the same batch size and precision.
`transformers` is used as its users do: the vision tower looks at each picture in each step, batches are drawn at random and
padded, the vocabulary is scored everywhere. Before training both sides' loss on one batch must agree; after an epoch from
the same weights their losses on all records are printed beside each other.

Notable: where the factor comes from is measured by leaving out one trick at a time. Ours looks at the pictures once, and
what that costs is stated and counted to its first epoch. `memory`: the most that training holds, weights included, each
side in a process of its own. `growth`: seconds and memory for more samples and for longer ones, from the JSON file on.

    pip install -c constraints.txt -e ".[benchmarks]"                               # accelerate, which `Trainer` needs
    python benchmarks/train.py --quick                                              # under a minute, the small model only
    python benchmarks/train.py --parts epochs --shapes tiny --json benchmarks/results/train.json
    python benchmarks/train.py --parts epochs,memory --shapes colab --precisions float32 --json benchmarks/results/train.json
    python benchmarks/train.py --parts growth --json benchmarks/results/train.json  # what other parts wrote there stays
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

from minillava.commands import doctor
from minillava.costs.model import flops
from minillava.data import IGNORE, IMAGE
from minillava.data.images import pixels
from minillava.data.samples import Sample, divide, encode, fill_rate, plan
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.messages import TYPES
from minillava.model import Batch, set_trainable
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import instruct
from minillava.training import checkpoints, stages
from minillava.training.features import Features

PRECISIONS, PARTS = ("float32", "mixed"), ("epochs", "memory", "growth")
GOALS = {"tiny": 2.5, "colab": 1.6}  # times as fast in the same precision
BEST = 4.0  # the small model: ours in the machine's best precision, beside Trainer as it comes, in float32
MOST_MEMORY = 0.6  # of theirs, the Colab-like shape
ROOM = 23.5e9  # bytes that `transformers` takes for the larger shape
DTYPES = {"float32": torch.float32, "mixed": torch.bfloat16}
AT_ONCE = {"tiny": stages.AT_ONCE, "colab": 768}  # tokens that ours takes; of the larger shape two samples, for memory
MEAN, LR = (0.5, 0.5, 0.5), 1e-3


def school(name, config, count):
    """`count` samples of the picture book for this shape, and its pictures' pixels by name."""
    V, size = config.language.vocab_size - 1, config.vision.image_size  # the last id stands for a patch there
    tokenizer, samples, views = load_tokenizer(WEIGHTS / "llava"), [], {}
    for n, scene in enumerate(scenes("train", count)):
        s = encode(instruct(scene, TYPES[n % 3]), CHAT, tokenizer)
        samples.append(Sample(s.id, s.ids.clamp(max=V - 1), s.labels.clamp(max=V - 1), s.image))
        views[s.image] = pixels([draw(scene, size)], size, MEAN, MEAN)[0]
    return samples, views


class Rows(torch.utils.data.Dataset):
    """What LlavaProcessor makes of the samples: every patch a placeholder."""

    def __init__(self, samples, views, config):
        self.samples, self.views, self.config = samples, views, config

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, n):
        s, P = self.samples[n], self.config.vision.num_patches
        at = torch.arange(len(s.ids)).repeat_interleave(torch.where(s.ids == IMAGE, P, 1))
        ids = torch.where(s.ids == IMAGE, self.config.language.vocab_size - 1, s.ids)[at]
        return {"input_ids": ids, "labels": s.labels[at], "pixel_values": self.views[s.image]}


def collate(rows):
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad([r["input_ids"] for r in rows], batch_first=True),
        "attention_mask": pad([torch.ones_like(r["input_ids"]) for r in rows], batch_first=True),
        "labels": pad([r["labels"] for r in rows], batch_first=True, padding_value=IGNORE),
        "pixel_values": torch.stack([r["pixel_values"] for r in rows]),
    }


class Watched:
    """Features looked at in each step, as without a cache."""

    def __init__(self, model, views):
        self.model, self.views = model, views

    def __getitem__(self, name):
        return self.model.features(self.views[name][None].to(side.DEVICE))[0]


def our_epoch(model, samples, features, batch, precision, **more):
    dtype, more = DTYPES[precision], {"cores": stages.cores_apart(model)} | more
    with tempfile.TemporaryDirectory() as folder:
        steps = len(samples) // batch
        with patch.object(checkpoints, "save"):  # as with theirs, nothing is written
            stages.train_stage(model, 2, samples, features, Path(folder), batch_size=batch, steps=steps, lr=LR, dtype=dtype, **more)  # fmt: skip


def their_epoch(model, rows, batch, precision):
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # this, and what follows, would decide the next one's precision
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, per_device_train_batch_size=batch, max_steps=len(rows) // batch, learning_rate=LR, weight_decay=0.0,
            lr_scheduler_type="cosine", warmup_steps=1, bf16=precision == "mixed", use_cpu=side.DEVICE == "cpu",
            optim="adamw_torch_fused", save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no", remove_unused_columns=False,
        )  # fmt: skip
        Trainer(model, settings, train_dataset=rows, data_collator=collate).train()
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(model).pop(name, None)


def without(trick, ours, samples, seen, views, batch, precision, tokens):
    """One epoch of ours with one trick left out."""
    language, head = ours.language_model, ours.language_model.head

    def epoch(features=seen, precision=precision, tokens=tokens, **more):
        our_epoch(ours, samples, features, batch, precision, tokens=tokens, **more)

    def at_random():
        real = stages.plan
        stages.plan = lambda lengths, *rest: real([0] * len(lengths), *rest)
        epoch()
        stages.plan = real

    def scored_everywhere():  # as many rows more as have no label
        labels = sum(int((s.labels != IGNORE).sum()) for s in samples)
        more = round(sum(len(s.ids) + ours.config.vision.num_patches - 1 for s in samples) / labels)
        language.head = lambda hidden: head(hidden.repeat(more, 1))[: len(hidden)]
        epoch()
        del language.head

    def of_any_size():  # full ones and what is left
        def alone(lengths, chosen, tokens, packed, ranks):
            parts = divide(lengths, chosen, tokens, packed)
            return parts + [[]] * (-len(parts) % ranks)

        with patch.object(stages, "divide", alone):
            epoch()

    return {
        "features kept": lambda: epoch(features=Watched(ours, views)),
        "batches of like lengths": at_random,
        "parts on cores of their own": lambda: epoch(cores=1),
        "parts of like size": of_any_size,
        "the vocabulary at labels only": scored_everywhere,
        "bfloat16": lambda: epoch(precision="float32"),
    }[trick]


def setting(name, count):
    """Both models, `count` samples, their pictures, what the vision tower sees in them, and the seconds that took."""
    ours, theirs = side.twins(name, torch.float32)
    samples, views = school(name, ours.config, count)
    set_trainable(ours, 2)
    theirs.model.vision_tower.requires_grad_(False)
    theirs.model.multi_modal_projector.linear_2.requires_grad_(False)
    begun, pictures = time.perf_counter(), torch.stack(list(views.values()))
    found = torch.cat([ours.features(part.to(side.DEVICE)).cpu() for part in pictures.split(64)])
    seen = Features({n: i for i, n in enumerate(views)}, found)
    return ours, theirs, samples, views, seen, time.perf_counter() - begun


def size(name, options, most=False):
    """Samples and batch of a shape. most: for the larger one as many as `transformers` can take at once in ROOM."""
    return ((96 if options.quick else 256), 32) if name == "tiny" else (16, 8) if most else (10, 5)


@torch.no_grad()
def loss_of(model, theirs, samples, exact, rows):
    """The mean loss of both sides over all supervised tokens of the samples."""
    mine = other = count = 0.0
    for n in range(0, len(samples), 4):
        some = samples[n : n + 4]
        loss, labels = model.loss(Batch([s.ids for s in some], [s.labels for s in some], [[exact[s.image]] for s in some]))  # fmt: skip
        padded = collate([rows[i] for i in range(n, n + len(some))])
        mine, count = mine + loss.item() * labels, count + labels
        other += theirs(**{k: v.to(side.DEVICE) for k, v in padded.items()}).loss.item() * labels
    return mine / count, other / count


def measure(name, precision, options):
    count, batch = size(name, options)
    ours, theirs, samples, views, exact, look = setting(name, count)
    seen, rows = Features(exact.table, exact.values.bfloat16()), Rows(samples, views, ours.config)
    tokens = AT_ONCE[name]
    sides = {
        "ours": lambda: our_epoch(ours, samples, seen, batch, precision, tokens=tokens),
        "transformers": lambda: their_epoch(theirs, rows, batch, precision),
    }
    losses = {"before": loss_of(ours, theirs, samples[:4], exact, rows)}
    if abs(losses["before"][0] - losses["before"][1]) > 1e-3:
        raise SystemExit(f"{name}: {losses}")
    goals = {"transformers": GOALS[name]}
    if name == "tiny":  # the weights are both sides': each starts from the same
        start = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
        for way, work in sides.items():
            ours.load_state_dict(start)
            work()
            losses[f"after an epoch of {way}"] = loss_of(ours, theirs, samples, exact, rows)
        ours.load_state_dict(start)
        if precision == "mixed" and not options.quick:
            sides["Trainer as it comes"] = lambda: their_epoch(theirs, rows, batch, "float32")
            goals["Trainer as it comes"] = BEST
    rounds = 1 if options.quick or name != "tiny" else 3
    times = side.in_turn(sides, rounds, warm=False)
    ratios = side.compare(times)
    side.table(f"{name}, {precision}: {count} samples, batches of {batch}", times, ratios, {}, goals)
    for when, (mine, other) in losses.items():
        print(f"  loss {when}: {mine:.4f} as ours computes it, {other:.4f} as transformers does")
    clock = {way: statistics.median(row[0] for row in rows) for way, rows in times.items()}
    first = clock["transformers"] / (clock["ours"] + look)
    print(
        f"  looking at the pictures once takes {look:.2f} s; with that in its first epoch ours is {first:.2f} x as fast"
    )
    tricks = ["features kept", "the vocabulary at labels only"]
    if name == "tiny":  # of the larger shape each takes minutes
        tricks += ["batches of like lengths", "parts on cores of their own", "parts of like size"]
        tricks += ["bfloat16"] if precision == "mixed" else []
    left_out = {}
    for trick in tricks[: 2 if options.quick else None]:
        work = without(trick, ours, samples, seen, views, batch, precision, tokens)
        again = side.in_turn({"ours": sides["ours"], "without": work}, rounds, warm=False)
        left_out[trick] = side.compare(again)["without"]
        print(
            f"  without {trick}: {left_out[trick][0]:.2f} x as long ({left_out[trick][1]:.2f} in CPU time)", flush=True
        )
    lengths = [len(s.ids) + ours.config.vision.num_patches - 1 for s in samples]
    batches, drawn = (plan(by, batch, len(samples) // batch, 0) for by in (lengths, [0] * len(lengths)))
    parts = {packed: [part for b in batches for part in divide(lengths, b, tokens, packed)] for packed in (False, True)}
    filled = {"random": drawn, "like lengths": batches, "in parts": parts[False], "packed": parts[True]}
    filled = {how: fill_rate(lengths, some, how == "packed") for how, some in filled.items()}
    print("  filled: " + ", ".join(f"{how} {100 * rate:.0f} %" for how, rate in filled.items()))
    scored = sum(int((s.labels != IGNORE).sum()) for s in samples) / count
    speed = sum(flops(ours.config, n, scored, 0, 2)["total"] for n in lengths) / clock["ours"]
    peak = doctor.matmul_speed(DTYPES[precision], side.DEVICE)
    print(f"  {doctor.number(speed)}FLOP/s of the model, {100 * speed / peak:.0f} % of a large matrix product here ({doctor.number(peak)}FLOP/s)", flush=True)  # fmt: skip
    return {
        "samples": count, "batch": batch, "tokens at once": tokens, "goals": goals, "seconds": times, "ratios": ratios,
        "loss": losses, "look": look, "first epoch": first, "without": left_out, "filled": filled, "FLOP/s": speed,
        "matmul": peak,
    }  # fmt: skip


def memory(name, options):
    """The most that each side holds while it trains two steps, weights included, and the share of theirs that ours is."""
    used = {way: side.alone(__file__, options, name, way) for way in ("ours", "transformers")}
    share = used["ours"] / used["transformers"]
    goal = f", goal {MOST_MEMORY:.0%}" if name == "colab" else ""
    mine, other = (f"{bytes / 1e9:.2f} GB" for bytes in used.values())
    print(f"\n{name}, float32: at most {mine}, transformers {other}: {share:.0%}{goal}", flush=True)
    return used | {"share": share}


def memory_alone(name, way, options):
    """Bytes, printed."""
    _, batch = size(name, options, most=True)
    ours, theirs, samples, views, seen, _ = setting(name, 2 * batch)
    rows, weights = Rows(samples, views, ours.config), sum(p.nbytes for p in ours.parameters())
    sides = {
        "ours": lambda: our_epoch(ours, samples, seen, batch, "float32", tokens=AT_ONCE[name]),
        "transformers": lambda: their_epoch(theirs, rows, batch, "float32"),
    }
    print(weights + side.growth(sides[way]))


def main():
    options = side.arguments(__doc__, PRECISIONS, PARTS)
    if options.alone:
        return memory_alone(*options.alone.split("/"), options)
    before = options.json and options.json.exists() and not options.quick
    found = json.loads(options.json.read_text())["results"] if before else {}
    for name in filter(GOALS.get, options.shapes):
        if name != "tiny" and side.available() < ROOM:
            print(f"\n{name}: left out, as less than {ROOM / 1e9:.0f} GB of memory are free")
            continue
        for precision in options.precisions if "epochs" in options.parts else ():
            found[f"epochs, {name}, {precision}"] = measure(name, precision, options)
        found |= {f"memory, {name}": memory(name, options)} if "memory" in options.parts else {}
    if "growth" in options.parts:
        print("\nhow cost grows, tiny, float32")
        found["growth"] = growth(options)
    side.finish(options, {"benchmark": "train", "results": found})


if __name__ == "__main__":
    main()

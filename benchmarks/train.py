"""An epoch of stage 2 beside `transformers`' LlavaForConditionalGeneration with its `Trainer`: same records, same weights.

Both sides train everything but the eye with AdamW, cosine and clipping, the same batch size and precision. `transformers`
is used as its users do: the eye looks at each picture in each step, batches are drawn at random and padded, the
vocabulary is scored everywhere. Before training both sides' loss on one batch must agree.

Notable: where the factor comes from is measured by leaving out one trick at a time. Ours looks at the pictures once, and
what that costs is stated and counted to its first epoch. Then how cost grows with samples and with length, and memory.

    python benchmarks/train.py [--quick] [--json FILE] [--shapes tiny] [--precisions float32,mixed]
"""

import statistics
import tempfile
import time
from pathlib import Path

import side_by_side as side
import torch
from transformers import Trainer, TrainingArguments

from minillava import doctor
from minillava.data.images import pixels
from minillava.data.samples import Sample, divide, encode, fill_rate, plan
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.records import instruct
from minillava.datagen.teacher import TYPES
from minillava.model import IGNORE, IMAGE, Batch, set_trainable
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.training import stages
from minillava.training.features import Features

PRECISIONS = ("float32", "mixed")
GOALS = {"tiny": {"float32": 2.5, "mixed": 4.0}, "colab": {"float32": 1.6, "mixed": 1.6}}
MEAN = STD = (0.5, 0.5, 0.5)
LR = 1e-3


def school(name, config, count):
    """`count` samples of the picture book for this shape, and its pictures' pixels by name."""
    V, size = config.language.vocab_size - 1, config.vision.image_size  # the last id stands for a patch there
    tokenizer, samples, views = load_tokenizer(WEIGHTS / "llava"), [], {}
    for n, scene in enumerate(scenes("train", count)):
        s = encode(instruct(scene, TYPES[n % 3]), CHAT, tokenizer)
        samples.append(Sample(s.id, s.ids.clamp(max=V - 1), s.labels.clamp(max=V - 1), s.image))
        views[s.image] = pixels([draw(scene, size)], size, MEAN, STD)[0]
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
    dtype = torch.bfloat16 if precision == "mixed" else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        steps = len(samples) // batch
        stages.train_stage(model, 2, samples, features, Path(folder), batch_size=batch, steps=steps, lr=LR, dtype=dtype, **more)  # fmt: skip


def their_epoch(model, rows, batch, precision):
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder, per_device_train_batch_size=batch, max_steps=len(rows) // batch, learning_rate=LR, weight_decay=0.0,
            lr_scheduler_type="cosine", warmup_steps=1, bf16=precision == "mixed", use_cpu=side.DEVICE == "cpu",
            save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no", remove_unused_columns=False,
        )  # fmt: skip
        Trainer(model, settings, train_dataset=rows, data_collator=collate).train()


def without(trick, ours, samples, seen, views, batch, precision):
    """One epoch of ours with one trick left out."""
    if trick == "features kept":
        return lambda: our_epoch(ours, samples, Watched(ours, views), batch, precision)
    if trick == "batches of like lengths":
        real = stages.plan

        def run():
            stages.plan = lambda lengths, *rest: real([0] * len(lengths), *rest)
            our_epoch(ours, samples, seen, batch, precision)
            stages.plan = real

        return run
    if trick == "vocabulary scored at labels only":
        language, head = ours.language_model, ours.language_model.head

        def everywhere():  # as many rows more as have no label
            share = sum(int((s.labels != IGNORE).sum()) for s in samples) / sum(len(s.ids) + 63 for s in samples)
            language.head = lambda hidden: head(hidden.repeat(round(1 / share), 1))[: len(hidden)]
            our_epoch(ours, samples, seen, batch, precision)
            del language.head

        return everywhere
    return lambda: our_epoch(ours, samples, seen, batch, "float32")


def measure(name, precision, options):
    ours, theirs = side.twins(name, torch.float32)
    count, batch = ((96 if options.quick else 256), 32) if name == "tiny" else ((4 if options.quick else 16), 4)
    samples, views = school(name, ours.config, count)
    set_trainable(ours, 2)
    theirs.model.vision_tower.requires_grad_(False)
    theirs.model.multi_modal_projector.linear_2.requires_grad_(False)
    begun = time.perf_counter()
    with torch.no_grad():
        found = [
            ours.features(torch.stack(list(views.values()))[n : n + 64].to(side.DEVICE)) for n in range(0, count, 64)
        ]
    look = time.perf_counter() - begun
    seen = Features({image: n for n, image in enumerate(views)}, torch.cat(found).bfloat16())
    exact = Features(seen.table, torch.cat(found))
    rows, some = Rows(samples, views, ours.config), samples[:4]
    with torch.no_grad():
        one = ours.loss(Batch([s.ids for s in some], [s.labels for s in some], [[exact[s.image]] for s in some]))[
            0
        ].item()
        two = theirs(**{k: v.to(side.DEVICE) for k, v in collate([rows[n] for n in range(4)]).items()}).loss.item()
    if abs(one - two) > 1e-3:
        raise SystemExit(f"{name}: the losses differ: {one} and {two}")
    sides = {
        "ours": lambda: our_epoch(ours, samples, seen, batch, precision),
        "transformers": lambda: their_epoch(theirs, rows, batch, precision),
    }
    times = side.in_turn(sides, rounds=1 if options.quick else 2, warm=not options.quick)
    ratios = side.compare(times)
    side.table(f"{name}, {precision}: {count} samples, batches of {batch}, loss before {one:.4f} and {two:.4f}", times, ratios, {}, {"transformers": GOALS[name][precision]})  # fmt: skip
    clock = {way: statistics.median(row[0] for row in rows) for way, rows in times.items()}
    first = clock["transformers"] / (clock["ours"] + look)
    print(
        f"  looking at the pictures once takes {look:.2f} s; with that in the first epoch ours is {first:.2f} x as fast"
    )
    tricks = ["features kept", "batches of like lengths", "vocabulary scored at labels only"]
    tricks += ["bfloat16"] if precision == "mixed" else []
    left_out = {}
    for trick in tricks:
        again = side.in_turn({"ours": sides["ours"], "without": without(trick, ours, samples, seen, views, batch, precision)}, 1 if options.quick else 2, warm=False)  # fmt: skip
        left_out[trick] = side.compare(again)["without"]
        print(
            f"  without {trick}: {left_out[trick][0]:.2f} x as long ({left_out[trick][1]:.2f} in CPU time)", flush=True
        )
    P = ours.config.vision.num_patches
    lengths = [len(s.ids) + P - 1 for s in samples]
    batches = plan(lengths, batch, len(samples) // batch, 0)
    drawn = plan([0] * len(lengths), batch, len(samples) // batch, 0)
    parts = [part for b in batches for part in divide(lengths, b, 4096, packed=True)]
    filled = {"like lengths": fill_rate(lengths, batches), "random": fill_rate(lengths, drawn), "packed": fill_rate(lengths, parts, True)}  # fmt: skip
    print("  filled: " + ", ".join(f"{how} {100 * rate:.0f} %" for how, rate in filled.items()))
    peak = doctor.matmul_speed(torch.bfloat16 if precision == "mixed" else torch.float32, side.DEVICE)
    print(f"  a large matrix product here: {doctor.number(peak)}FLOP/s", flush=True)
    return {
        "shape": name, "precision": precision, "samples": count, "batch": batch, "seconds": times, "ratios": ratios,
        "look": look, "first epoch": first, "without": left_out, "filled": filled, "matmul": peak, "loss": [one, two],
    }  # fmt: skip


def growth(options):
    """Seconds and memory of the small model's training for more samples, and for longer ones."""
    ours, _ = side.twins("tiny", torch.float32)
    rows, P, D = [], ours.config.vision.num_patches, ours.config.vision.hidden_size
    base, unit = (32, 60) if options.quick else (128, 60)
    for what, times in (("samples", (1, 4, 16)), ("length", (1, 2, 4))):
        for by in times:
            count = base * (by if what == "samples" else 1)
            T = unit * (by if what == "length" else 1)
            ids = torch.randint(3, 800, (T,), generator=torch.Generator().manual_seed(0))
            ids[1] = IMAGE
            labels = torch.where(torch.arange(T) < T // 2, IGNORE, ids)
            samples = [Sample(str(n), ids, labels, "x") for n in range(count)]
            seen = Features({"x": 0}, torch.zeros(1, P, D, dtype=torch.bfloat16))
            used = []
            begun = time.perf_counter()
            used.append(side.growth(lambda samples=samples, seen=seen: our_epoch(ours, samples, seen, 16, "float32")))
            seconds = time.perf_counter() - begun
            rows.append({"what": what, "times": by, "seconds": seconds, "memory": used[0]})
            memory = f", memory +{used[0] / 1e6:.0f} MB" if used[0] is not None else ""
            print(f"  {by:2} x {what}: {seconds:.2f} s, {1000 * seconds / count:.1f} ms a sample{memory}", flush=True)
    return rows


def main():
    options = side.arguments(__doc__, PRECISIONS)
    if options.quick:
        options.shapes = options.shapes[:1]
    found = [
        measure(name, precision, options)
        for name in options.shapes
        if name in GOALS
        for precision in options.precisions
    ]
    print("\nhow cost grows, tiny, float32")
    grown = growth(options)
    side.finish(options, {"benchmark": "train", "goals": GOALS, "results": found, "growth": grown})


if __name__ == "__main__":
    main()

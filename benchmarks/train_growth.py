"""How the cost of training grows with the number of samples and with their length, for the small model.

Each row is measured in its own process, from reading the JSON file to the end of an epoch, with one picture per record.
Memory is what the process holds and the system cannot drop, so pages of mapped files are not counted. It should not
grow with the number of samples.

    python benchmarks/train_growth.py [--quick] [--json FILE]       # also: benchmarks/train.py --parts growth
"""

import json
import tempfile
import time
from pathlib import Path

import side_by_side as side
import torch

from minillava.data.images import Preparation
from minillava.data.stored import store_samples
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import instruction_record
from minillava.training.features import Features
from minillava.training.stages import train_stage


def growth(options):
    """Seconds and memory of the small model's training, for more samples and for longer ones."""
    rows = []
    series = {"samples": (1, 4)} if options.quick else {"samples": (1, 4, 16), "length": (1, 2, 4)}
    for what, factors in series.items():
        for factor in factors:
            row = {"what": what, "times": factor} | side.in_own_process(__file__, options, what, str(factor))
            rows.append(row)
            took = f"{row['seconds']:.2f} s, {1000 * row['seconds'] / row['samples']:.1f} ms per sample"
            size = f"{row['samples']} samples of {row['tokens']} tokens"
            print(f"  {factor:2} x {what}: {size}, {took}, memory +{row['memory'] / 1e6:.1f} MB", flush=True)
    return rows


def measure(what, factor, options):
    """From a JSON file to the end of an epoch: encode, compute features, train, all on the disk. Prints the figures."""
    count = (64 if options.quick else 256) * (factor if what == "samples" else 1)
    answer = "It is a car. " * 15 * (factor if what == "length" else 1)
    ours, _ = side.same_weights("tiny", torch.float32)
    tokenizer, size, held = load_tokenizer(WEIGHTS / "llava"), ours.config.vision.image_size, []
    P, some = ours.config.vision.num_patches, scenes("train", 16)

    def watch(*_):
        held.append(own_memory())

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for n, scene in enumerate(some):
            draw(scene, size).save(folder / f"{n:05}.png")
        with open(folder / "records.json", "w") as file:
            for n in range(count):  # a picture each, of sixteen drawings
                if n >= len(some):
                    (folder / f"{n:05}.png").hardlink_to(folder / f"{n % len(some):05}.png")
                record = instruction_record(some[n % len(some)], "complex") | {"id": str(n), "image": f"{n:05}.png"}
                record["conversations"] = record["conversations"][:1] + [{"from": "gpt", "value": answer}]
                file.write(("," if n else "[") + json.dumps(record))
            file.write("]")
        start, begun = own_memory(), time.perf_counter()
        samples = store_samples(
            folder / "records.json", folder, CHAT, tokenizer, 1000, P, folder / "kept", progress=watch
        )
        preparation = Preparation(size, (0.5,) * 3, (0.5,) * 3)
        seen = Features.cached(folder / "seen.safetensors", ours, folder, samples.pictures(), preparation, watch)
        settings = dict(batch_size=16, steps=count // 16, lr=1e-3, tokens=1024, dtype=torch.float32, progress=watch)
        train_stage(ours, 2, samples, seen, folder / "run", **settings)
        seconds, lengths = time.perf_counter() - begun, samples.lengths(P)
    row = {"samples": count, "tokens": sum(lengths) // count, "seconds": seconds, "memory": max(held) - start}
    print(json.dumps(row))


def own_memory():
    """Bytes that this process holds, without the pages of files; 0 where the system does not say."""
    path = Path("/proc/self/status")
    status = dict(line.split(":", 1) for line in path.read_text().splitlines()) if path.exists() else {}
    return int(status.get("RssAnon", "0 kB").split()[0]) * 1024


def main():
    options = side.arguments(__doc__, ("float32",))
    if options.alone:
        what, factor = options.alone.split("/")
        return measure(what, int(factor), options)
    side.write_results(options, {"benchmark": "train_growth", "results": growth(options)})


if __name__ == "__main__":
    main()

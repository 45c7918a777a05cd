"""A whole training step at the paper's size, stage 1 and stage 2: forward, backward and AdamW; ours and `transformers`.

Both sides have the same random weights, batch and vision features (as in `forward.py`), all in bfloat16. Stage 1 takes
the paper's 16 samples per GPU; stage 2 its 4, and 16, with recomputed activations on both sides.

One side is timed to its end before the other begins, as there is room for only one set of Adam's moments of a 7B model
(27 GB). Both losses must agree before any weight changes. Utilisation is the FLOPs that the step needs (recomputing not
counted) relative to a large matrix product on this machine. Peak memory includes weights and moments.

    python benchmarks/large.py --json benchmarks/results/large-gpu.json     # on a GPU of 80 GB: full-7b
    python benchmarks/large.py --quick                                      # anywhere: the small model, to see it run
"""

import statistics
import time

import forward
import side_by_side as side
import torch

from minillava.costs.model import flops
from minillava.machine import matmul_speed
from minillava.training.stages import recompute_activations

PRECISIONS = ("bfloat16",)
GOALS = {1: None, 2: 50}  # per cent of the large product
STEPS = ((1, 16), (2, 4), (2, 16))  # (stage, samples)


def time_steps(step, model, rounds):
    """(seconds of each step, peak bytes or None) of one side, with new moments."""
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, weight_decay=0.0, fused=True)
    if side.DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds + 1):  # the first creates the moments and is not counted
        side.synchronize()
        begun = time.perf_counter()
        step()
        adam.step()
        side.synchronize()
        seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() if side.DEVICE == "cuda" else None
    model.zero_grad(set_to_none=True)
    return seconds[1:], peak


def measure(name, stage, count, quick):
    """Print and return the figures of one stage with `count` samples."""
    ours, theirs, batch, padded = forward.setting(name, "bfloat16", stage, count)
    if stage == 2:
        recompute_activations(ours)
        theirs.activation_checkpointing_enable({"use_reentrant": False})
    sides = forward.steps(ours, theirs.train(), batch, padded, "bfloat16")
    losses = {way: step() for way, step in sides.items()}
    if abs(losses["ours"] - losses["transformers"]) > 0.05:
        raise SystemExit(f"{name}, stage {stage}: the losses differ: {losses}")
    ours.zero_grad(set_to_none=True), theirs.zero_grad(set_to_none=True)
    lengths = [len(ids) - 1 + ours.config.vision.num_patches for ids in batch.ids]
    scored = sum(int((labels[1:] != forward.IGNORE).sum()) for labels in batch.labels) / len(lengths)
    work = sum(flops(ours.config, n, scored, 0, stage)["total"] for n in lengths)
    peak, figures, median = matmul_speed(torch.bfloat16, side.DEVICE), {}, {}
    loss = f"loss {losses['ours']:.3f}, theirs {losses['transformers']:.3f}"
    print(f"\n{name}, stage {stage}: {len(lengths)} samples, {sum(lengths):,} tokens, {loss}")
    for way, model in (("ours", ours), ("transformers", theirs)):
        seconds, most = time_steps(sides[way], model, 2 if quick else 10)
        median[way] = took = statistics.median(seconds)
        speed, share = sum(lengths) / took, 100 * work / took / peak
        figures[way] = {"seconds": seconds, "tokens a second": speed, "utilisation": share, "peak memory": most}
        goal = f", goal {GOALS[stage]}" if GOALS[stage] and way == "ours" else ""
        memory = f", at most {most / 1e9:.1f} GB" if most else ""
        line = f"  {way:13}{took:8.3f} s per step, {speed:10,.0f} tokens/s, {share:4.0f} % of a large product"
        print(line + goal + memory, flush=True)
    ratio = median["transformers"] / median["ours"]
    print(f"  ours is {ratio:.2f} x as fast")
    figures |= dict(shape=name, stage=stage, samples=len(lengths), tokens=sum(lengths), loss=losses, matmul=peak)
    return figures | {"ratio": ratio}


def main():
    options = side.arguments(__doc__, PRECISIONS)
    shapes = ["tiny"] if options.quick else [s for s in options.shapes if s == "full-7b"] or options.shapes[:1]
    steps = STEPS[:2] if options.quick else STEPS
    found = [measure(name, stage, count, options.quick) for name in shapes for stage, count in steps]
    side.write_results(options, {"benchmark": "large", "goals": GOALS, "results": found})


if __name__ == "__main__":
    main()

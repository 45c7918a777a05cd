"""A whole training step at the paper's size, stage 1 and stage 2: forward, backward and AdamW, beside `transformers`.

Same random weights, same batch, features of the vision tower given to both sides as `forward.py` does, everything in bfloat16.
Stage 1 takes the paper's 16 samples a GPU; stage 2 its 4, and 16, with activations computed again on both sides.

Notable: a side is timed to its end before the other begins, as Adam's moments of a 7B are there only once (27 GB). Both
losses must agree before anything moves. Utilisation counts what the step needs, not what is computed again, over the
machine's own large matrix product; peak memory is everything, weights and moments too.

    python benchmarks/large.py --json benchmarks/results/large-gpu.json     # a GPU of 80 GB: full-7b
    python benchmarks/large.py --quick                                      # anywhere: the small model, to see that it runs
"""

import statistics
import time

import forward
import side_by_side as side
import torch

from minillava.commands import doctor
from minillava.costs.model import flops
from minillava.training.stages import recompute_activations

PRECISIONS = ("bfloat16",)
GOALS = {1: None, 2: 50}  # per cent of the large product, stage 2
STEPS = ((1, 16), (2, 4), (2, 16))  # (stage, samples)


def wait():
    if side.DEVICE == "cuda":
        torch.cuda.synchronize()


def timed(step, parts, rounds):
    """(seconds of each step, peak bytes or None): one side's, from its own fresh moments."""
    moving = [p for p in parts.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(moving, lr=1e-6, weight_decay=0.0, fused=True)
    if side.DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds + 1):  # the first makes the moments, and is not counted
        wait()
        begun = time.perf_counter()
        step()
        adam.step()
        wait()
        seconds.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() if side.DEVICE == "cuda" else None
    parts.zero_grad(set_to_none=True)
    return seconds[1:], peak


def measure(name, stage, count, quick):
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
    peak, figures = doctor.matmul_speed(torch.bfloat16, side.DEVICE), {}
    print(f"\n{name}, stage {stage}: {len(lengths)} samples, {sum(lengths):,} tokens, loss {losses['ours']:.3f}, theirs {losses['transformers']:.3f}")  # fmt: skip
    for way, model in (("ours", ours), ("transformers", theirs)):
        seconds, most = timed(sides[way], model, 2 if quick else 10)
        took = statistics.median(seconds)
        figures[way] = {"seconds": seconds, "tokens a second": sum(lengths) / took, "utilisation": 100 * work / took / peak, "peak memory": most}  # fmt: skip
        goal = f", goal {GOALS[stage]}" if GOALS[stage] and way == "ours" else ""
        print(f"  {way:13}{took:8.3f} s a step, {sum(lengths) / took:10,.0f} tokens/s, {100 * work / took / peak:4.0f} % of a large product{goal}"
              + (f", at most {most / 1e9:.1f} GB" if most else ""), flush=True)  # fmt: skip
    ratio = statistics.median(figures["transformers"]["seconds"]) / statistics.median(figures["ours"]["seconds"])
    print(f"  ours is {ratio:.2f} x as fast")
    return {"shape": name, "stage": stage, "samples": len(lengths), "tokens": sum(lengths), "loss": losses, "matmul": peak, "ratio": ratio} | figures  # fmt: skip


def main():
    options = side.arguments(__doc__, PRECISIONS)
    shapes = ["tiny"] if options.quick else [s for s in options.shapes if s == "full-7b"] or options.shapes[:1]
    steps = STEPS[:2] if options.quick else STEPS
    found = [measure(name, stage, count, options.quick) for name in shapes for stage, count in steps]
    side.finish(options, {"benchmark": "large", "goals": GOALS, "results": found})


if __name__ == "__main__":
    main()

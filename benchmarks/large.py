"""A whole training step at the paper's size, stage 1 and stage 2: forward, backward and AdamW; ours and `transformers`.

Both sides have the same random weights, batch and vision features (as in `forward.py`), all in bfloat16. Stage 1 takes
the paper's 16 samples per GPU. Stage 2 takes its 4 and more, with and without activations that are computed again, on
both sides alike. Ours is timed as it is and with its blocks compiled, as `minillava train` does at this size on one GPU.

One side is timed to its end before the next begins, as there is room for only one set of Adam's moments of a 7B model
(27 GB). All losses must agree before any weight changes. Utilisation is the FLOPs that the step needs (recomputing not
counted) relative to a large matrix product on this machine. Peak memory includes weights and moments; beside it stands
what `costs.model.memory` foresees.

    python benchmarks/large.py --json benchmarks/results/large-gpu.json     # on a GPU of 80 GB: full-7b
    python benchmarks/large.py --quick                                      # anywhere: the small model, to see it run
"""

import statistics
import time
from functools import lru_cache, partial
from unittest.mock import patch

import forward
import side_by_side as side
import torch

from minillava.costs.model import flops, memory
from minillava.machine import matmul_speed
from minillava.training.stages import compile_blocks, recompute_activations

PRECISIONS = ("bfloat16",)
GOALS = {1: None, 2: 60}  # per cent of the large product
STEPS = ((1, 16, False), (2, 4, True), (2, 8, False), (2, 16, True))  # (stage, samples, activations computed again)

weights = lru_cache(1)(side.same_weights)
speed_of_a_product = lru_cache(1)(lambda: matmul_speed(torch.bfloat16, side.DEVICE))


def time_steps(step, model, rounds):
    """(seconds of each step, peak bytes or None) of one side, with new moments."""
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, weight_decay=0.0, fused=True)
    if side.DEVICE == "cuda":
        torch.cuda.empty_cache()
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


def compile_here(model):
    """Compiled blocks; on a CPU, where perhaps no C++ compiler is, they are only traced."""
    backend = "inductor" if side.DEVICE == "cuda" else "eager"
    with patch.object(torch, "compile", partial(torch.compile, backend=backend)):
        compile_blocks(model)


def prepare(ours, theirs, compiled, again):
    """Set both sides to keep activations or to compute them again, and ours to compiled blocks or plain ones."""
    for block in ours.language_model.layers:
        vars(block).pop("forward", None)  # what an earlier call put there
    if compiled:
        compile_here(ours)
    if again:
        recompute_activations(ours)
        theirs.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        theirs.gradient_checkpointing_disable()


def measure(name, precision, stage, count, again, rounds, ways=("ours compiled", "ours", "transformers")):
    """Print and return the figures of one stage with `count` samples. ways: which sides are timed."""
    ours, theirs, batch, padded = forward.setting(name, precision, stage, count, weights)
    sides = forward.steps(ours, theirs.train(), batch, padded, precision)
    lengths = [len(ids) - 1 + ours.config.vision.num_patches for ids in batch.ids]
    scored = sum(int((labels[1:] != forward.IGNORE).sum()) for labels in batch.labels) / len(lengths)
    work = sum(flops(ours.config, n, scored, 0, stage)["total"] for n in lengths)
    needs = partial(memory, ours.config, stage, len(lengths), max(lengths), scored, precision, again, parts=1)
    figures, losses, median, peak = {}, {}, {}, speed_of_a_product()
    kept = "activations computed again" if again else "activations kept"
    print(f"\n{name}, {precision}, stage {stage}: {len(lengths)} samples, {sum(lengths):,} tokens, {kept}", flush=True)
    for way in ways:  # before any weight changes
        prepare(ours, theirs, way == "ours compiled", again)
        losses[way] = sides["transformers" if way == "transformers" else "ours"]()
        ours.zero_grad(set_to_none=True), theirs.zero_grad(set_to_none=True)
    if max(losses.values()) - min(losses.values()) > 0.05:
        raise ValueError(f"{name}, stage {stage}: the losses differ: {losses}")
    for way in ways:
        who, model = ("transformers", theirs) if way == "transformers" else ("ours", ours)
        prepare(ours, theirs, way == "ours compiled", again)
        seconds, most = time_steps(sides[who], model, rounds)
        median[way] = took = statistics.median(seconds)
        speed, share = sum(lengths) / took, 100 * work / took / peak
        figures[way] = {"seconds": seconds, "tokens a second": speed, "utilisation": share, "peak memory": most}
        foreseen = needs(compiled=way == "ours compiled")["total"]
        figures[way]["foreseen memory"] = foreseen
        goal = f", goal {GOALS[stage]}" if GOALS[stage] and who == "ours" else ""
        used = f", {most / 1e9:.1f} GB (foreseen {foreseen / 1e9:.1f})" if most else ""
        line = f"  {way:14}{took:8.3f} s per step, {speed:10,.0f} tokens/s, {share:4.0f} % of a large product"
        print(line + goal + used, flush=True)
    figures |= dict(shape=name, precision=precision, stage=stage, samples=len(lengths), tokens=sum(lengths))
    figures |= {"activations": kept, "loss": losses, "matmul": peak}
    return figures | {"ratios": {way: median["transformers"] / median[way] for way in ways if "transformers" in ways}}


def main():
    options = side.arguments(__doc__, PRECISIONS)
    shapes = ["tiny"] if options.quick else [s for s in options.shapes if s == "full-7b"] or options.shapes[:1]
    steps, rounds = (STEPS[:2], 2) if options.quick else (STEPS, 10)
    found = [measure(name, "bfloat16", *step, rounds) for name in shapes for step in steps]
    side.write_results(options, {"benchmark": "large", "goals": GOALS, "results": found})


if __name__ == "__main__":
    main()

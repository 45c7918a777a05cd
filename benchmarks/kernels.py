"""What each quick form of `model/kernels.py` is worth: the same work with it and without it, in one process, in turn.

    norm         the norm alone, forward and backward, on as many tokens as a step has
        plain        `language.normalise` as it is written there
    attention    a step of stage 2, forward and backward (forward.py's batch, in one piece, on one thread)
        plain        `vision.attend` as it is written there
        no norm      `language.normalise` as it is written there
        fused        in bfloat16: PyTorch's fused kernel
    new sizes    in bfloat16 on a CPU: steps on batches of sizes that this process has not met
        plain        every size as it comes
    beginnings   90 questions about 30 pictures (generate.py's), greedy
        beside       each row's beginning copied beside its own keys for each token that is written
        copied       each row's beginning copied into its own slots, once

In bfloat16 training runs under autocast; norm and answers have everything in it.

    python benchmarks/kernels.py [--quick] [--json FILE] [--shapes tiny] [--precisions float32,bfloat16]
"""

import importlib
from unittest.mock import patch

import side_by_side as side
import torch
import torch.nn.functional as F
from forward import samples
from generate import PRECISIONS, questions

from minillava.costs.model import SHAPES
from minillava.model import Batch, Cache, Llava, attend, generate, kernels, language, set_trainable

answering = importlib.import_module("minillava.model.generate")  # the package exports the function under the same name


def fused(q, k, v, mask=None, causal=False):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def any_size(embeds, target, wanted, longest):
    """As `kernels.in_few_sizes`."""
    return embeds, target, wanted


def beside(q, k, v, allowed, first_k, first_v, first_seen, place, most):
    """As `kernels.attend_behind`."""
    group = place // most
    k, v = torch.cat([first_k[group], k], dim=2), torch.cat([first_v[group], v], dim=2)
    return attend(q, k, v, torch.cat([first_seen[group][:, None, None], allowed], dim=-1))


def copied(config, batch, slots, device, dtype, begin=None, groups=None):
    """As `Cache`, without a beginning: what it holds is in the first slots of each row."""
    first = begin.length if begin else 0
    cache = Cache(config, batch, first + slots, device, dtype)
    if begin:
        for mine, theirs in zip(cache.keys + cache.values, begin.keys + begin.values, strict=True):
            mine[:, :, :first] = theirs[groups]
        cache.seen[:, :first], cache.length = begin.seen[groups], first
    return cache


def instead(module, name, form, work):
    """The work with another form of one function."""

    def run():
        with patch.object(module, name, form):
            return work()

    return run


def norm(name, precision, options):
    """({side: norms of a step's tokens}, rounds)."""
    D, dtype = SHAPES[name].language.hidden_size, PRECISIONS[precision]
    x = torch.randn(32, 160, D, dtype=dtype, device=side.DEVICE, requires_grad=True)
    g = torch.randn_like(x)

    def of(form):
        return lambda: [torch.autograd.grad(form(x, 1e-6), x, g) for _ in range(10)]

    return {"ours": of(language.normalise), "plain": of(language.normalise.__wrapped__)}, 5 if options.quick else 30


def training(name, precision):
    """(a step of stage 2 on one batch or a part of it, the samples in that batch)."""
    model = Llava(SHAPES[name]).to(side.DEVICE)
    set_trainable(model, 2)
    chosen, vision = samples(name, model.config), model.config.vision
    features = [torch.randn(vision.num_patches, vision.hidden_size, device=side.DEVICE) for _ in chosen]

    def step(count=None, cut=0):
        """On the first `count` samples; cut: tokens that are left out at the end of each."""
        rows = range(len(chosen))[:count]
        batch = Batch(
            [chosen[i][0][: len(chosen[i][0]) - cut] for i in rows],
            [chosen[i][1][: len(chosen[i][1]) - cut] for i in rows],
            [[features[i]] for i in rows],
        )
        model.zero_grad(set_to_none=True)
        with torch.autocast(side.DEVICE, torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = model.loss(batch)
        loss.backward()

    return step, len(chosen)


def attention(name, precision, options):
    """({side: a training step}, rounds)."""
    step, _ = training(name, precision)
    sides = {
        "ours": step,
        "plain": instead(language, "attend", attend.__wrapped__, step),
        "no norm": instead(language, "normalise", language.normalise.__wrapped__, step),
    }
    if precision == "bfloat16":
        sides["fused"] = instead(kernels, "attend_in_bfloat16", fused, step)
    return sides, 5 if options.quick else 20


def new_sizes(name, precision, options):
    """({side: a step on a batch of a new size}, rounds): every size once, the same for both sides."""
    step, count = training(name, precision)
    sizes = [(some, cut) for cut in range(12) for some in range(count // 2, count)]
    sizes = [sizes[i] for i in torch.randperm(len(sizes)).tolist()]

    def of_each():
        each = iter(sizes)

        def next_step():
            step(*next(each))

        return next_step

    rounds = 10 if options.quick else len(sizes) - 1  # the first one is not counted
    return {"ours": of_each(), "plain": instead(kernels, "in_few_sizes", any_size, of_each())}, rounds


def beginnings(name, precision, options):
    """({side: all answers}, rounds)."""
    torch.set_default_dtype(PRECISIONS[precision])
    model = Llava(SHAPES[name]).to(side.DEVICE).eval()
    torch.set_default_dtype(torch.float32)
    prompts, shown, lengths = questions(model.config, 3 if options.quick else 30)
    shape = model.config.vision.num_patches, model.config.vision.hidden_size
    features = torch.randn(len(prompts), *shape, dtype=PRECISIONS[precision], device=side.DEVICE)

    def answers():
        return generate(model, prompts, [[features[i]] for i in shown], lengths)

    sides = {
        "ours": answers,
        "beside": instead(kernels, "attend_behind", beside, answers),
        "copied": instead(answering, "Cache", copied, answers),
    }
    return sides, 3 if options.quick else 9


def measure(name, precision, options):
    found = {}
    for part in (norm, attention, new_sizes, beginnings):
        if part is new_sizes and (precision == "float32" or side.DEVICE != "cpu"):
            continue
        torch.manual_seed(0)
        sides, rounds = part(name, precision, options)
        times = side.time_in_turn(sides, rounds)
        ratios = side.ratios_to_ours(times)
        side.print_times(f"{part.__name__}: {name}, {precision}", times, ratios, {}, {})
        found[part.__name__] = {"seconds": times, "ratios": ratios}
    return {"shape": name, "precision": precision} | found


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = side.arguments(__doc__, tuple(PRECISIONS))
    results = [measure(name, precision, options) for name in options.shapes for precision in options.precisions]
    side.write_results(options, {"benchmark": "kernels", "results": results})

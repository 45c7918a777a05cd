"""What each quick form of `model/kernels.py` is worth: the same work with it and without it, in one process, in turn.

    attention    a step of stage 2, forward and backward (forward.py's batch, in one piece, on one thread)
        plain        `vision.attend` as it is written there
        fused        PyTorch's fused kernel, in training in bfloat16 on a CPU as well
    beginnings   90 questions about 30 pictures (generate.py's), greedy
        beside       each row's beginning copied beside its own keys for each token that is written
        copied       each row's beginning copied into its own slots, once

In bfloat16 training runs under autocast, answers with all weights in it.

Notable: what gains less than 10 % here is deleted. Memory is that of keys and values, which follows from their shapes.

    python benchmarks/kernels.py [--quick] [--json FILE] [--shapes tiny] [--precisions float32,bfloat16]
"""

import importlib
from unittest.mock import patch

import side_by_side as side
import torch
import torch.nn.functional as F
from forward import samples
from generate import PRECISIONS, questions

from minillava.commands import doctor
from minillava.model import Batch, Cache, Llava, attend, generate, kernels, language, set_trainable

answering = importlib.import_module("minillava.model.generate")  # the package exports the function under the same name


def fused(q, k, v, mask=None, causal=False):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


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


def attention(name, precision, options):
    """{side: a training step}, and how many rounds are worth it."""
    model = Llava(doctor.shapes()[name]).to(side.DEVICE)
    set_trainable(model, 2)
    chosen = samples(name, model.config)
    shape = model.config.vision.num_patches, model.config.vision.hidden_size
    features = [[torch.randn(shape, device=side.DEVICE)] for _ in chosen]
    batch = Batch([ids for ids, _ in chosen], [labels for _, labels in chosen], features)

    def step():
        model.zero_grad(set_to_none=True)
        with torch.autocast(side.DEVICE, torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = model.loss(batch)
        loss.backward()

    sides = {"ours": step, "plain": instead(language, "attend", attend.__wrapped__, step)}
    if precision == "bfloat16":
        sides["fused"] = instead(kernels, "attend_in_bfloat16", fused, step)
    return sides, 5 if options.quick else 20


def beginnings(name, precision, options):
    """{side: all answers}, and how many rounds are worth it."""
    torch.set_default_dtype(PRECISIONS[precision])
    model = Llava(doctor.shapes()[name]).to(side.DEVICE).eval()
    torch.set_default_dtype(torch.float32)
    prompts, shown, lengths = questions(model.config, 3 if options.quick else 30)
    shape = model.config.vision.num_patches, model.config.vision.hidden_size
    features = torch.randn(len(prompts), *shape, dtype=PRECISIONS[precision], device=side.DEVICE)
    work = lambda: generate(model, prompts, [[features[i]] for i in shown], lengths)  # noqa: E731
    sides = {
        "ours": work,
        "beside": instead(kernels, "attend_behind", beside, work),
        "copied": instead(answering, "Cache", copied, work),
    }
    return sides, 3 if options.quick else 9


def measure(name, precision, options):
    found = {}
    for what in (attention, beginnings):
        torch.manual_seed(0)
        sides, rounds = what(name, precision, options)
        times = side.in_turn(sides, rounds)
        ratios = side.compare(times)
        side.table(f"{what.__name__}: {name}, {precision}", times, ratios, {}, {})
        found[what.__name__] = {"seconds": times, "ratios": ratios}
    return {"shape": name, "precision": precision} | found


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = side.arguments(__doc__, tuple(PRECISIONS))
    results = [measure(name, precision, options) for name in options.shapes for precision in options.precisions]
    side.finish(options, {"benchmark": "kernels", "results": results})

"""Whether this package computes on a GPU what it computes on a CPU, and how far results differ in each precision.

Tests hold these equalities on a CPU. Here the same ones are measured on the GPU: against `transformers` on equal
weights, between two ways to the same result (with and without a cache, recomputed or not, resumed or not), and against
float32 on the CPU. Each check yields rows: what was compared, the precision, the difference, the tolerance that was
fixed before the first run, and whether it held. A check that raises becomes a row too, and the next one runs.

Differences are relative unless a note says otherwise: for numbers the largest one, for gradients and updates the norm.

    python benchmarks/gpu_right.py --json benchmarks/results/right-gpu.json    # about a minute on one large GPU
    python benchmarks/gpu_right.py --dry       # on the CPU with small sizes; ends with status 1 if a row does not hold

The file of --json is written after every check. Checks that are in it are skipped, also those that raised: a new file
runs all of them again. --seconds N starts no further check after N seconds. There is no --quick: --dry takes its place.
"""

import argparse
import copy
import importlib
import math
import os
import sys
import time
import traceback
import warnings
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic algorithms need it before CUDA starts

import environment
import forward
import gpu_right_training as training
import side_by_side as side
import torch
import torch.nn.functional as F
import transformers
from gpu_differences import HALF, MIXED, VALUE, apart, beside, gradients, norm_apart, our_loss, row, setting
from torch.distributed.checkpoint.api import CheckpointException
from torch.nn.attention import SDPBackend, sdpa_kernel

from minillava.chat import Chat
from minillava.data.samples import prompt_ids
from minillava.files import read_json, write_json
from minillava.judging.answers import vision_features
from minillava.machine import describe_machine
from minillava.model import Cache, attend, generate, kernels, language
from minillava.model.formats.published import llava_names
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.scenes.questions import questions
from minillava.training.stages import compile_blocks, recompute_activations

answering = importlib.import_module("minillava.model.generate")  # the package exports the function under the same name


def forward_passes(shape):
    """Ours beside `transformers` in the same precision, and beside float32 (at tiny: on the CPU)."""
    for weights, precisions in (("float32", MIXED), ("bfloat16", ("bfloat16",))):
        ours, theirs, batch, padded = setting(shape, weights)
        exact = copy.deepcopy(ours).float().to("cpu" if shape == "tiny" else side.DEVICE)
        reference = gradients("float32", our_loss, exact, batch)
        name_of = llava_names(theirs.state_dict())
        for precision in precisions:
            mine = gradients(precision, our_loss, ours, batch)
            loss, found = gradients(precision, forward.their_loss, theirs, *padded)
            other = loss, {name: found[name_of(name)] for name in mine[1]}
            yield from beside(f"{shape}, ours and transformers", precision, mine, other)
            far = norm_apart(other[1], reference[1])
            where = "CPU" if shape == "tiny" else "same device"
            what, said = f"{shape}, ours and float32 on the {where}", f"; transformers {far:.1e}"
            yield from beside(what, precision, mine, reference, said)


def two_ways(way, shape, dry):
    """A batch with activations computed again, or with compiled blocks; and the same batch as it is."""
    ours, _, batch, _ = setting(shape, "float32")
    # Compiling takes a while. On a CPU it needs the plain norm: torch 2.11 loses gradients of a custom Function.
    norm = language.normalise.__wrapped__ if dry and way == "compiled" else language.normalise
    for precision in ("bfloat16 autocast",) if way == "compiled" else MIXED[::2] if dry else MIXED:
        other = copy.deepcopy(ours)
        if way == "recomputed":
            recompute_activations(other)
        else:
            with patch.object(torch, "compile", partial(torch.compile, backend="eager" if dry else "inductor")):
                compile_blocks(other)
        with patch.object(language, "normalise", norm):
            mine = gradients(precision, our_loss, other, batch)
            yield from beside(f"{shape}, {way} and not", precision, mine, gradients(precision, our_loss, ours, batch))


def asked(count, device, dtype):
    """Three questions about each of so many drawn scenes, for the shipped LLaVA: (model, `generate`, prompts, features)."""
    some, chat = scenes("dev", count), Chat(WEIGHTS / "llava", device=device, dtype=dtype)
    seen = vision_features(chat.model, chat.preparation, [draw(scene, 96) for scene in some])
    prompts, features = [], []
    for scene, picture in zip(some, seen, strict=True):
        every = questions(scene)
        for question in every[:: max(1, len(every) // 3)][:3]:
            prompts.append(prompt_ids(f"<image>\n{question.text}", chat.template, chat.tokenizer))
            features.append([picture])
    stop = {"stop": [chat.template.stop], "tokenizer": chat.tokenizer}
    return chat.model, partial(generate, chat.model, max_new_tokens=24, **stop), prompts, features


def answers(dry):
    """The shipped LLaVA's answers: batched, one by one, without sharing beginnings, without a cache, on the CPU."""
    count = 2 if dry else 10
    _, write, *given = asked(count, "cpu", torch.float32)
    on_cpu = write(*given)
    for precision, dtype in ({"float32": torch.float32} | HALF).items():
        model, write, prompts, features = asked(count, side.DEVICE, dtype)
        together = write(prompts, features)
        ways = {"on the CPU in float32": on_cpu, "one by one": [write([p], [f])[0] for p, f in zip(prompts, features)]}
        with patch.object(answering, "_shared", lambda ids, _: ([*range(len(ids))], [0] * len(ids))):
            ways["without shared beginnings"] = write(prompts, features)
        few = 0 if precision == "float32" else 0.1  # near-ties, which rounding decides
        for what, others in ways.items():
            same = sum(a == b for a, b in zip(together, others, strict=True))
            said = f"{same} of {len(prompts)} answers equal"
            yield row(f"answers in a batch and {what}", precision, 1 - same / len(prompts), few, said)
        some = [one for one in zip(prompts, features, together) if one[2]][:6]
        far = max(apart(logits(model, *one, True), logits(model, *one, False)) for one in some)
        yield row("logits with a cache and without", precision, far, VALUE[precision])


@torch.inference_mode()
def logits(model, ids, features, answer, cached):
    """The scores (N, V) of every token of an answer, token by token with a cache, or read at once."""
    lm, answer = model.language_model, torch.tensor(answer, device=model.projector.weight.device)
    embeds, _, _ = model.splice_batch([ids], [features])
    T = embeds.shape[1]
    if not cached:
        return lm.head(lm(torch.cat([embeds, lm.embed(answer[None, :-1])], 1))[0, T - 1 :])
    cache = Cache(model.config.language, 1, T + len(answer), embeds.device, embeds.dtype)
    hidden = [lm(embeds, cache=cache)[:, -1]]
    hidden += [lm(lm.embed(token.view(1, 1)), cache=cache)[:, -1] for token in answer[:-1]]
    return lm.head(torch.cat(hidden))


def measured(form, inputs, plain, g):
    """(by how much value and gradients of a form differ from those of the plain one in float32, the value).

    Where the form raises, as a backend does that cannot, it is (why, None).
    """

    def both(work, kind):
        given = [x.detach().to(kind).requires_grad_() for x in inputs]
        out = work(*given)
        return [out.detach(), *torch.autograd.grad(out, given, g.to(kind))]

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            mine = both(form, inputs[0].dtype)
        except RuntimeError as error:
            side.synchronize()  # raises again after an error of the GPU itself
            every = [f"{warning.message}".split(" (Triggered")[0] for warning in said]
            reasons = [one for one in every if not one.endswith(("disabled.", "because:"))] or [str(error)]
            return f"no ({'; '.join(reasons):.120})", None
    return max(apart(*pair) for pair in zip(mine, both(plain, torch.float32), strict=True)), mine[0]


def attention(dry):
    """Each backend alone through `attend`, and what PyTorch chooses, beside the formula in float32."""
    B, H, T = (1, 2, 24) if dry else (2, 8, 512)
    kinds = SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH
    for (name, dtype), d in product(HALF.items(), (64, 128)):
        make = partial(torch.randn, device=side.DEVICE, dtype=dtype)
        q, k, v, g = make(4, B, H, T, d)
        place = torch.arange(T, device=side.DEVICE)
        # a third is padding on the left, as `LanguageModel` masks it
        padded = (place <= place[:, None]) & (place >= T // 3) | (place == place[:, None])
        for how, where in {"all": {}, "causal": {"causal": True}, "padded": {"mask": padded}}.items():
            form, plain = (partial(work, **where) for work in (attend, attend.__wrapped__))
            forms = form, (q, k, v), plain, g
            found = {"default": measured(*forms)}
            for kind in kinds:
                with sdpa_kernel(kind):
                    found[kind.name.split("_")[0].lower()] = measured(*forms)
            ran = {backend: result for backend, result in found.items() if result[1] is not None}
            same = [backend for backend, (_, out) in ran.items() if torch.equal(out, ran["default"][1])]
            said = "; ".join(f"{b} {far:.1e}" if b in ran else f"{b} {far}" for b, (far, _) in found.items())
            said, far = f"equal bits: {', '.join(same)}; {said}", max(far for far, _ in ran.values())
            yield row(f"attention, {how}, d {d}", name, far, VALUE[name], said)
        k, v = make(2, B, H // 2, T, d)
        shared = partial(F.scaled_dot_product_attention, is_causal=True, enable_gqa=True)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            alone = measured(shared, (q, k, v), partial(attend.__wrapped__, causal=True), g)
        ours = measured(partial(attend, causal=True), (q, k, v), partial(attend.__wrapped__, causal=True), g)
        for what, (far, out) in {"flash with enable_gqa": alone, "attend": ours}.items():
            far, said = (0, far) if out is None else (far, "runs")
            yield row(f"attention, shared keys, d {d}, {what}", name, far, VALUE[name], said)


def kernel_forms(dry):
    """The quick forms of kernels.py, and PyTorch's own norm, beside the plain forms in float32."""
    for name, dtype in ({"float32": torch.float32} | HALF).items():
        x, g = torch.randn(2, 8 if dry else 4096, 128 if dry else 4096, device=side.DEVICE).to(dtype)
        theirs = partial(F.rms_norm, normalized_shape=x.shape[-1:], eps=1e-6)
        ours, plain = (partial(work, eps=1e-6) for work in (kernels.normalise, language.normalise.__wrapped__))
        for what, form in {"kernels.normalise": ours, "torch's rms_norm": theirs}.items():
            far, _ = measured(form, [x], plain, g)
            yield row(f"{what} and the formula", name, far, VALUE[name], "value and gradient")
        make = partial(torch.randn, device=side.DEVICE, dtype=dtype)
        G, most, H, S, d = 4, 3, 4, 60, 64
        place = torch.tensor([0, 1, 3, 4, 5, 6, 9, 11], device=side.DEVICE)  # of eight rows in four groups
        B, group = len(place), place // most
        q, (k, v), (first_k, first_v) = make(B, 2 * H, 1, d), make(2, B, H, S // 2, d), make(2, G, H, S, d)
        seen = torch.arange(S, device=side.DEVICE) >= torch.arange(G, device=side.DEVICE)[:, None]
        allowed = (torch.arange(S // 2, device=side.DEVICE) >= place[:, None] % 5)[:, None, None]
        mine = kernels.attend_behind(q, k, v, allowed, first_k, first_v, seen, place, most)
        whole = [torch.cat([a[group], b], 2).float() for a, b in ((first_k, k), (first_v, v))]
        exact = attend.__wrapped__(q.float(), *whole, torch.cat([seen[group][:, None, None], allowed], -1))
        yield row("kernels.attend_behind and the formula", name, apart(mine, exact), VALUE[name], "value")


def checks(dry):
    """{name: a function that yields rows}, the most valuable first."""
    large, muon = "tiny" if dry else "colab", training.MUON  # nothing is smaller than the shipped model
    found = {f"forward passes, {shape}": partial(forward_passes, shape) for shape in ("tiny", large)}
    found |= {work.__name__: partial(work, dry) for work in (answers, attention, kernel_forms, training.one_update)}
    found |= {"resumed, Adam": partial(training.resumed, 0.0, False, dry)}
    found |= {"resumed, Muon": partial(training.resumed, muon, False, dry)}
    found |= {"resumed, Adam, deterministic": partial(training.resumed, 0.0, True, dry)}
    found |= {"float16, Adam": partial(training.float16, 0.0, dry)}
    found |= {f"recomputed, {large}": partial(two_ways, "recomputed", large, dry)}
    found |= {"sharded": partial(training.sharded, dry), "float16, Muon": partial(training.float16, muon, dry)}
    return found | {f"compiled, {large}": partial(two_ways, "compiled", large, dry)}


def run(name, work):
    """(rows, whether the GPU still answers) of one check; what it raises becomes a row."""
    rows = []
    try:
        for one in work():
            rows.append(one)
            show(one)
    except (Exception, CheckpointException):  # any (this one is no Exception): the next check does not depend on it
        said = " | ".join(line.strip() for line in traceback.format_exc().splitlines()[-5:])
        rows.append(dict(check=name, precision="", difference=None, tolerance=None, ok=False, note=f"raised: {said}"))
        show(rows[-1])
    try:
        side.synchronize()
        return rows, True
    except RuntimeError:
        return rows, False


def show(one):
    """Print a line of the table."""
    difference = "-" if one["difference"] is None else f"{one['difference']:.1e}"
    tolerance = "-" if one["tolerance"] is None else f"{one['tolerance']:.0e}"
    print(
        f"{one['check']:58} {one['precision']:18} {difference:>8} {tolerance:>6}",
        f"{'equal' if one['ok'] else 'DIFFERS':8} {one['note']}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, skip the checks that it holds")
    parser.add_argument("--dry", action="store_true", help="on the CPU with small sizes, to see that all of it runs")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no further check after so many seconds")
    options, begun = parser.parse_args(), time.monotonic()
    if options.dry:
        side.DEVICE, forward.TINY_BATCH = "cpu", 4
        torch.set_num_threads(1)
    elif side.DEVICE == "cpu":
        parser.error("no GPU here; --dry runs it on the CPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found = read_json(options.json) if options.json and options.json.exists() else {"checks": {}}
    found |= {"dry": options.dry, "transformers": transformers.__version__}
    found["machine"] = environment.describe_machine() | describe_machine() | {"cuda": torch.version.cuda}
    for name, work in checks(options.dry).items():
        if name in found["checks"] or time.monotonic() - begun > options.seconds:
            continue
        torch.manual_seed(0)
        start = time.monotonic()
        rows, answers_still = run(name, work)
        found["checks"][name] = {"seconds": round(time.monotonic() - start, 2), "rows": rows}
        print(f"  {name}: {found['checks'][name]['seconds']} s", flush=True)
        if options.json:
            write_json(options.json, found)
        if not answers_still and options.json:  # after an error of the GPU itself only a new process can use it
            left = options.seconds - (time.monotonic() - begun)
            os.execv(sys.executable, [sys.executable, *sys.argv, "--seconds", str(left)])
    rows = [one for check in found["checks"].values() for one in check["rows"]]
    left = [name for name in checks(options.dry) if name not in found["checks"]]
    print(f"{sum(one['ok'] for one in rows)} of {len(rows)} rows hold; not run: {', '.join(left) or 'none'}")
    return 1 if options.dry and (left or not all(one["ok"] for one in rows)) else 0


if __name__ == "__main__":
    sys.exit(main())

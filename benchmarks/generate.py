"""Answering 90 questions about 30 pictures (the shape of LLaVA-Bench), beside `transformers` with the same weights.

Three ways to the same tokens, each from pixels to ids, greedy, in the same precision:

    ours         one batch; every picture is read once for its three questions; a finished row leaves the batch
    batched      LlavaForConditionalGeneration.generate, all prompts in one batch, padded on the left
    one by one   the same, one prompt at a time, which is what most scripts do

Notable: weights are random, so nothing would end an answer; each has a length of its own from a seed (short for
conversation, long for detail and reasoning), which a stopping criterion gives to `transformers` as well. In its batch a
finished row goes on costing, as there always. One by one costs the sum of its questions, so where 90 take long it is
timed on every tenth and scaled; the results say so.

    python benchmarks/generate.py [--quick] [--json FILE] [--shapes tiny,colab] [--precisions float32,bfloat16]
"""

import statistics

import side_by_side as side
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from minillava.costs.estimate import short_number
from minillava.costs.model import flops
from minillava.data import IMAGE
from minillava.machine import matmul_speed
from minillava.model import generate

PICTURES = 30
HEAD = 30  # tokens of the system message and "Human: ", the same in all prompts
KINDS = {"conversation": (12, 24), "detail": (48, 80), "complex": (48, 80)}  # tokens of an answer, from and to
GOALS = {"one by one": 5.0, "batched": 1.5}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Lengths(StoppingCriteria):
    """Each row ends at a length of its own."""

    def __init__(self, begun, lengths):
        self.ends = begun + torch.tensor(lengths, device=side.DEVICE)

    def __call__(self, ids, scores, **_):
        return ids.shape[1] >= self.ends


def questions(config, pictures):
    """Prompts with `IMAGE`, which picture each is about, and how long its answer gets."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda low, high: int(torch.randint(low, high + 1, (1,), generator=generator))  # noqa: E731
    words = lambda count: torch.randint(3, config.language.vocab_size - 1, (count,), generator=generator)  # noqa: E731
    head, prompts, shown, lengths = words(HEAD), [], [], []
    for picture in range(pictures):
        for low, high in KINDS.values():
            prompts.append(torch.cat([head, torch.tensor([IMAGE]), words(draw(8, 32))]))
            shown.append(picture)
            lengths.append(draw(low, high))
    return prompts, shown, lengths


def answer_ours(model, pixels, prompts, shown, lengths):
    features = model.features(pixels)
    return generate(model, prompts, [[features[i]] for i in shown], lengths)


def answer_theirs(model, pixels, prompts, shown, lengths, P):
    place = model.config.image_token_id
    spread = [torch.cat([torch.full((P,), place) if i == IMAGE else i.view(1) for i in ids]) for ids in prompts]
    longest = max(map(len, spread))
    ids, mask = torch.zeros(len(spread), longest, dtype=torch.long), torch.zeros(len(spread), longest, dtype=torch.long)
    for row, tokens in enumerate(spread):
        ids[row, longest - len(tokens) :], mask[row, longest - len(tokens) :] = tokens, 1
    out = model.generate(
        input_ids=ids.to(side.DEVICE), attention_mask=mask.to(side.DEVICE), pixel_values=pixels[shown], do_sample=False,
        max_new_tokens=max(lengths), eos_token_id=None, pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([Lengths(longest, lengths)]),
    )  # fmt: skip
    return [row[longest : longest + n].tolist() for row, n in zip(out, lengths, strict=True)]


def setting(name, precision, pictures):
    """Both models, and what they are asked: pixels, prompts, which picture each is about, how long its answer gets."""
    ours, theirs = side.twins(name, PRECISIONS[precision])
    size = ours.config.vision.image_size
    pixels = torch.randn(pictures, 3, size, size, generator=torch.Generator().manual_seed(1))
    return ours, theirs, (pixels.to(side.DEVICE, PRECISIONS[precision]), *questions(ours.config, pictures))


def work_of(config, asked):
    """FLOPs of answering where nothing is computed twice: what the questions about one picture share counts once."""
    _, prompts, shown, lengths = asked
    shared = HEAD + config.vision.num_patches
    once = flops(config, shared, 0, 1)["total"]
    others = flops(config, shared, 0, 0)["total"]
    read = [
        len(prompt) - 1 + config.vision.num_patches + length - 1
        for prompt, length in zip(prompts, lengths, strict=True)
    ]
    each = (flops(config, tokens, length, 0)["total"] - others for tokens, length in zip(read, lengths, strict=True))
    return len(set(shown)) * once + sum(each)


def sides_of(ours, theirs, asked, few):
    pixels, prompts, shown, lengths = asked
    P = ours.config.vision.num_patches
    return {
        "ours": lambda: answer_ours(ours, *asked),
        "batched": lambda: answer_theirs(theirs, *asked, P),
        "one by one": lambda: [
            answer_theirs(theirs, pixels, [prompts[i]], [shown[i]], [lengths[i]], P)[0] for i in few
        ],
    }


def measure(name, precision, options):
    small = name == "tiny"
    ours, theirs, asked = setting(name, precision, PICTURES if small or not options.quick else 2)
    if options.quick and not small:
        asked = (*asked[:3], [1 + n // 8 for n in asked[3]])
    few = range(0, len(asked[1]), 1 if small or side.DEVICE == "cuda" else 2 if options.quick else 10)
    sides, scale = sides_of(ours, theirs, asked, few), len(asked[1]) / len(few)
    same = sum(a == b for a, b in zip(sides["ours"](), sides["batched"](), strict=True)) if small else None
    times = side.in_turn(sides, rounds=(3 if options.quick else 7) if small else 1 if options.quick else 2, warm=False)
    times["one by one"] = [(clock * scale, cpu * scale) for clock, cpu in times["one by one"]]
    ratios, memory = side.compare(times), {}
    if not options.quick:
        memory = {way: side.alone(__file__, options, name, precision, way) for way in sides}
    questions, tokens = len(asked[1]), sum(asked[3])
    what = f"{name}, {precision}: {questions} questions about {len(asked[0])} pictures, {tokens} tokens written"
    side.table(what + (f"; one by one from {len(few)}" if scale > 1 else ""), times, ratios, memory, GOALS)
    speed = work_of(ours.config, asked) / statistics.median(row[0] for row in times["ours"])
    peak = matmul_speed(PRECISIONS[precision], side.DEVICE)
    print(
        f"  ours: {short_number(speed)}FLOP/s of what is needed, {100 * speed / peak:.0f} % of a large product's {short_number(peak)}FLOP/s"
    )
    if same is not None:
        print(f"  the same tokens as `transformers` in {same} of {questions} answers")
    return {
        "shape": name, "precision": precision, "questions": questions, "tokens": tokens, "timed one by one": len(few),
        "seconds": times, "ratios": ratios, "peak memory": memory, "same answers": same, "FLOP/s": speed, "matmul": peak,
    }  # fmt: skip


def alone(name, precision, way):
    """One way's answers, for its memory beside the weights. Beyond tiny: reading and the first 8 tokens of each answer."""
    ours, theirs, asked = setting(name, precision, PICTURES)
    if name != "tiny":
        asked = (*asked[:3], [8] * len(asked[3]))
    return sides_of(ours, theirs, asked, [0])[way]


if __name__ == "__main__":
    side.run("generate", __doc__, PRECISIONS, GOALS, measure, alone)

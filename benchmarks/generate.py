"""Answering 90 questions about 30 pictures (as in LLaVA-Bench), compared with `transformers` on the same weights.

Three ways to the same tokens, each from pixels to ids, greedy, in the same precision:

    ours         one batch; each picture is read once for its three questions; a finished row leaves the batch
    batched      LlavaForConditionalGeneration.generate, all prompts in one batch, padded on the left
    one by one   the same, one prompt at a time, which is what most scripts do

The weights are random, so no answer would end by itself. Each has its own length from a seed (short for conversation,
long for detail and reasoning); `transformers` gets it as a stopping criterion. A finished row in its batch still costs
time. One by one costs the sum of its questions; where 90 take long, every tenth is timed and the sum is scaled, which
the results say.

    python benchmarks/generate.py [--quick] [--json FILE] [--shapes tiny,colab] [--precisions float32,bfloat16]
"""

import statistics
from functools import partial

import side_by_side as side
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from minillava.costs.model import flops
from minillava.data import IMAGE
from minillava.machine import matmul_speed
from minillava.model import generate
from minillava.text import short_number

PICTURES = 30
HEAD = 30  # tokens of the system message and "Human: ", equal in all prompts
ANSWERS = {"conversation": (12, 24), "detail": (48, 80), "complex": (48, 80)}  # tokens, from and to
GOALS = {"one by one": 5.0, "batched": 1.5}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Lengths(StoppingCriteria):
    """Each row ends at its own length."""

    def __init__(self, begun, lengths):
        self.ends = begun + torch.tensor(lengths, device=side.DEVICE)

    def __call__(self, ids, scores, **_):
        return ids.shape[1] >= self.ends


def questions(config, pictures):
    """(prompts with `IMAGE`, the number of each one's picture, the length of each answer)."""
    random = partial(torch.randint, generator=torch.Generator().manual_seed(0))

    def words(count):
        return random(3, config.language.vocab_size - 1, (count,))

    head, prompts, shown, lengths = words(HEAD), [], [], []
    for picture in range(pictures):
        for low, high in ANSWERS.values():
            prompts.append(torch.cat([head, torch.tensor([IMAGE]), words(int(random(8, 33, (1,))))]))
            shown.append(picture)
            lengths.append(int(random(low, high + 1, (1,))))
    return prompts, shown, lengths


def answer_ours(model, pixels, prompts, shown, lengths):
    features = model.features(pixels)
    return generate(model, prompts, [[features[i]] for i in shown], lengths)


def answer_theirs(model, pixels, prompts, shown, lengths, P):
    patches = torch.full((P,), model.config.image_token_id)
    rows = [torch.cat([patches if i == IMAGE else i.view(1) for i in ids]) for ids in prompts]
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True, padding_side="left")
    ids, mask = pad(rows).to(side.DEVICE), pad([torch.ones_like(row) for row in rows]).to(side.DEVICE)
    longest = ids.shape[1]
    settings = dict(max_new_tokens=max(lengths), do_sample=False, eos_token_id=None, pad_token_id=0)
    settings["stopping_criteria"] = StoppingCriteriaList([Lengths(longest, lengths)])
    out = model.generate(input_ids=ids, attention_mask=mask, pixel_values=pixels[shown], **settings)
    return [row[longest : longest + n].tolist() for row, n in zip(out, lengths, strict=True)]


def setting(name, precision, pictures):
    """(our model, theirs, (pixels, *questions))."""
    ours, theirs = side.same_weights(name, PRECISIONS[precision])
    size = ours.config.vision.image_size
    pixels = torch.randn(pictures, 3, size, size, generator=torch.Generator().manual_seed(1))
    return ours, theirs, (pixels.to(side.DEVICE, PRECISIONS[precision]), *questions(ours.config, pictures))


def flops_of(config, asked):
    """FLOPs of answering when nothing is computed twice: what the questions about one picture share counts once."""
    _, prompts, shown, lengths = asked
    P = config.vision.num_patches
    once, others = (flops(config, HEAD + P, 0, pictures)["total"] for pictures in (1, 0))
    each = (
        flops(config, len(prompt) - 1 + P + length - 1, length, 0)["total"] - others
        for prompt, length in zip(prompts, lengths, strict=True)
    )
    return len(set(shown)) * once + sum(each)


def sides_of(ours, theirs, asked, timed):
    """{way: its work}. timed: the numbers of the questions that are asked one by one."""
    pixels, prompts, shown, lengths = asked
    P = ours.config.vision.num_patches

    def one_by_one():
        return [answer_theirs(theirs, pixels, [prompts[i]], [shown[i]], [lengths[i]], P)[0] for i in timed]

    batched, mine = partial(answer_theirs, theirs, *asked, P), partial(answer_ours, ours, *asked)
    return {"ours": mine, "batched": batched, "one by one": one_by_one}


def measure(name, precision, options):
    """Print and return the figures of one shape and precision."""
    small = name == "tiny"
    ours, theirs, asked = setting(name, precision, PICTURES if small or not options.quick else 2)
    if options.quick and not small:
        asked = (*asked[:3], [1 + n // 8 for n in asked[3]])
    timed = range(0, len(asked[1]), 1 if small or side.DEVICE == "cuda" else 2 if options.quick else 10)
    sides, scale = sides_of(ours, theirs, asked, timed), len(asked[1]) / len(timed)
    same = sum(a == b for a, b in zip(sides["ours"](), sides["batched"](), strict=True)) if small else None
    rounds = (3 if options.quick else 7) if small else 1 if options.quick else 2
    times = side.time_in_turn(sides, rounds, warm_up=False)
    times["one by one"] = [(clock * scale, cpu * scale) for clock, cpu in times["one by one"]]
    ratios, memory = side.ratios_to_ours(times), {}
    if not options.quick:
        memory = {way: side.in_own_process(__file__, options, name, precision, way) for way in sides}
    count, tokens = len(asked[1]), sum(asked[3])
    title = f"{name}, {precision}: {count} questions about {len(asked[0])} pictures, {tokens} tokens written"
    title += f"; one by one scaled from {len(timed)}" if scale > 1 else ""
    side.print_times(title, times, ratios, memory, GOALS)
    speed = flops_of(ours.config, asked) / statistics.median(row[0] for row in times["ours"])
    peak = matmul_speed(PRECISIONS[precision], side.DEVICE)
    product = f"{100 * speed / peak:.0f} % of a large product's {short_number(peak)}FLOP/s"
    print(f"  ours: {short_number(speed)}FLOP/s of what is needed, {product}")
    if same is not None:
        print(f"  the same tokens as `transformers` in {same} of {count} answers")
    figures = dict(shape=name, precision=precision, questions=count, tokens=tokens)
    figures |= {"timed one by one": len(timed), "seconds": times, "ratios": ratios, "peak memory": memory}
    return figures | {"same answers": same, "FLOP/s": speed, "matmul": peak}


def work_of_way(name, precision, way):
    """One way's work, whose memory growth is measured; beyond tiny only the first 8 tokens of each answer."""
    ours, theirs, asked = setting(name, precision, PICTURES)
    if name != "tiny":
        asked = (*asked[:3], [8] * len(asked[3]))
    return sides_of(ours, theirs, asked, [0])[way]


if __name__ == "__main__":
    side.run("generate", __doc__, PRECISIONS, GOALS, measure, work_of_way)

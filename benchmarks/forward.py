"""A training step of stage 2 (forward and backward), beside `transformers`' Llama with the same weights and batches.

Both sides get the same token ids, labels and features of the vision tower: `transformers` as LlavaForConditionalGeneration does
it, each patch a placeholder, its features through the projector into the embeddings, then its Llama with labels, in its
default attention. Ours scores the vocabulary only where there is a label and keeps no others' scores. It takes the batch
as `minillava train` does: on a CPU a small model's in parts, each on a core of its own; beside it, in one piece.

Notable: at tiny the samples are the project's own records, batched by length as training does; at the other shapes ids
are random, lengths as in instruction data. Losses must agree. Peak memory is measured in a process of its own for each
side, beside what `costs.memory` says on paper; speed beside the machine's own large matrix product.

    python benchmarks/forward.py [--quick] [--json FILE] [--shapes tiny,colab] [--precisions float32,mixed]
"""

import statistics
from functools import partial

import side_by_side as side
import torch

from minillava.commands import doctor
from minillava.costs.model import flops, memory
from minillava.data import IGNORE, IMAGE
from minillava.data.samples import divide, encode, plan
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.messages import TYPES
from minillava.model import Batch, set_trainable
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.standins.records import instruct
from minillava.training import stages
from minillava.training.loop import accumulate_gradients
from minillava.training.optim import adam

GOALS = {"transformers": 1.5}
PRECISIONS = ("float32", "mixed") if side.DEVICE == "cpu" else ("float32", "mixed", "bfloat16")
BATCH = {"tiny": 32}  # the others: 4, the paper's on each GPU


def samples(name, config, count=4):
    """(ids, labels) of one batch of stage 2; at the tiny shape always BATCH of them."""
    if name == "tiny":
        tokenizer = load_tokenizer(WEIGHTS / "llava")
        made = [encode(instruct(s, kind), CHAT, tokenizer) for s in scenes("train", 200) for kind in TYPES]
        V = config.language.vocab_size - 1  # the last one stands for a patch in `transformers`
        made = [(s.ids.clamp(max=V - 1), s.labels.clamp(max=V - 1)) for s in made]
        return [made[i] for i in plan([len(ids) for ids, _ in made], BATCH[name], 1, seed=0)[0]]
    generator, chosen = torch.Generator().manual_seed(0), []
    for _ in range(count):
        asked, answer = (int(torch.randint(*span, (1,), generator=generator)) for span in ((40, 70), (40, 160)))
        ids = torch.randint(3, config.language.vocab_size - 1, (asked + 1 + answer,), generator=generator)
        ids[30] = IMAGE
        chosen.append((ids, torch.where(torch.arange(len(ids)) <= asked, IGNORE, ids)))
    return chosen


def setting(name, precision, stage=2, count=4):
    """Both models, ready to train in a stage, and one batch of `count` samples in both forms."""
    ours, theirs = side.twins(name, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    config, P = ours.config, ours.config.vision.num_patches
    set_trainable(ours, stage)
    theirs.model.vision_tower.requires_grad_(False)
    theirs.model.language_model.requires_grad_(stage == 2)
    theirs.lm_head.requires_grad_(stage == 2)
    # Our W is one matrix; there, the identity behind it is not trained either.
    theirs.model.multi_modal_projector.linear_2.requires_grad_(False)
    chosen, generator = samples(name, config, count), torch.Generator().manual_seed(1)
    weight = ours.projector.weight
    features = [
        torch.randn(P, config.vision.hidden_size, generator=generator).to(weight.device, weight.dtype) for _ in chosen
    ]
    batch = Batch([i for i, _ in chosen], [labels for _, labels in chosen], [[f] for f in features])
    rows = []
    for ids, labels in chosen:
        at = [n for n, i in enumerate(ids.tolist()) for _ in range(P if i == IMAGE else 1)]
        rows.append((torch.where(ids == IMAGE, config.language.vocab_size - 1, ids)[at], labels[at]))
    longest = max(len(ids) for ids, _ in rows)
    ids, labels = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), IGNORE)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, (i, target) in enumerate(rows):
        ids[row, : len(i)], labels[row, : len(i)], mask[row, : len(i)] = i, target, 1
    padded = [x.to(side.DEVICE) for x in (ids, labels, mask)]
    return ours, theirs, batch, (*padded, torch.cat(features))


def divided(ours, batch):
    """The batch as `minillava train` takes it: a small model's in parts on cores of their own, others in one piece."""
    cores = stages.useful_cores(ours)
    tokens = stages.TOKENS_PER_CORE if cores > 1 else 0
    lengths = [len(ids) - 1 + ours.config.vision.num_patches for ids in batch.ids]
    parts = divide(lengths, list(range(len(lengths))), tokens, ranks=cores)
    return cores, [Batch(*([of[i] for i in part] for of in (batch.ids, batch.labels, batch.features))) for part in parts if part]  # fmt: skip


def steps(ours, theirs, batch, padded, precision):
    """{side: a forward and backward pass that returns the loss}."""
    ids, labels, mask, features = padded
    nothing, total = adam([ours], 0.0), sum(int((t[1:] != IGNORE).sum()) for t in batch.labels)
    cores, parts = divided(ours, batch)

    def low():
        return torch.autocast(side.DEVICE, torch.bfloat16, enabled=precision == "mixed")

    def loss_of(part):
        with low():
            loss, count = ours.loss(part)
        return loss * count / total

    def our_step():
        ours.zero_grad(set_to_none=True)
        return accumulate_gradients(ours, nothing, [partial(loss_of, part) for part in parts], cores)

    def in_one_piece():
        ours.zero_grad(set_to_none=True)
        return accumulate_gradients(ours, nothing, loss_of(batch))

    def their_step():
        theirs.zero_grad(set_to_none=True)
        with low():
            embeds = theirs.get_input_embeddings()(ids)
            patches = theirs.model.multi_modal_projector(features).to(embeds.dtype)
            embeds = embeds.masked_scatter((ids == theirs.config.image_token_id)[..., None], patches)
            loss = theirs(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss
        loss.backward()
        return loss.item()

    return {"ours": our_step, "transformers": their_step} | ({"ours in one piece": in_one_piece} if cores > 1 else {})


def measure(name, precision, options):
    ours, theirs, batch, padded = setting(name, precision)
    sides = steps(ours, theirs, batch, padded, precision)
    losses = {way: step() for way, step in sides.items()}
    if abs(losses["ours"] - losses["transformers"]) > (1e-3 if precision == "float32" else 0.05):
        raise SystemExit(f"{name}, {precision}: the losses differ: {losses}")
    small = name == "tiny"
    times = side.in_turn(sides, rounds=(5 if options.quick else 20) if small else 1 if options.quick else 5)
    ratios, P = side.compare(times), ours.config.vision.num_patches
    lengths = [len(ids) - 1 + P for ids in batch.ids]
    longest, count = max(lengths), sum(int((t[1:] != IGNORE).sum()) for t in batch.labels)
    each = [flops(ours.config, n, count / len(lengths), 1, 2) for n in lengths]
    work = sum(parts["total"] - parts["vision_tower"] for parts in each)
    speed = work / statistics.median(row[0] for row in times["ours"])
    low = torch.float32 if precision == "float32" else torch.bfloat16
    peak = doctor.matmul_speed(low, side.DEVICE)
    used = {} if options.quick else {way: side.alone(__file__, options, name, precision, way) for way in sides}
    paper = memory(ours.config, 2, len(lengths), longest, count / len(lengths), precision, fused=precision == "float32" or side.DEVICE == "cuda")  # fmt: skip
    expected = paper["total"] - paper["optimizer"] - sum(p.numel() * p.element_size() for p in ours.parameters())
    filled = sum(lengths) / longest / len(lengths)
    what = f"{name}, {precision}: {len(lengths)} samples of up to {longest} tokens ({100 * filled:.0f} % filled), {count} with a label"
    side.table(what, times, ratios, used, GOALS)
    print(f"  ours: {doctor.number(speed)}FLOP/s, {100 * speed / peak:.0f} % of a large product's {doctor.number(peak)}FLOP/s; "
          f"memory on paper {expected / 1e6:.0f} MB; loss {losses['ours']:.4f}, theirs {losses['transformers']:.4f}", flush=True)  # fmt: skip
    return {
        "shape": name, "precision": precision, "samples": len(lengths), "tokens": longest, "filled": filled,
        "labels": count, "seconds": times, "ratios": ratios, "peak memory": used, "memory on paper": expected,
        "FLOP/s": speed, "matmul": peak, "loss": losses,
    }  # fmt: skip


def alone(name, precision, way):
    """One side's step, for its memory beside the weights: gradients and what is kept for them."""
    return steps(*setting(name, precision), precision)[way]


if __name__ == "__main__":
    side.run("forward", __doc__, PRECISIONS, GOALS, measure, alone)

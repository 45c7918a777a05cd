"""A training step of stage 2 (forward and backward), compared with `transformers`' Llama on equal weights and batches.

Both sides get the same token ids, labels and vision features. `transformers` works as LlavaForConditionalGeneration
does: each patch is a placeholder token, projected features replace the placeholders' embeddings, then comes its Llama
with labels, with its default attention. Ours scores the vocabulary only where there is a label. It divides the batch as
`minillava train` does: for a small model on a CPU into parts, each on one core; this is also measured in one piece.

At tiny the samples are the project's own records, batched by length as in training. At the other shapes ids are random
and lengths as in instruction data. Losses must agree. Each side's peak memory is measured in its own process, and
printed with the estimate of `costs.memory`; the speed is printed with that of a large matrix product on this machine.

    python benchmarks/forward.py [--quick] [--json FILE] [--shapes tiny,colab] [--precisions float32,mixed]
"""

import statistics
from functools import lru_cache, partial

import side_by_side as side
import torch

from minillava.costs.model import flops, memory
from minillava.data import IGNORE, IMAGE
from minillava.data.samples import encode, micro_batches, plan_batches
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.messages import TYPES
from minillava.machine import matmul_speed
from minillava.model import Batch, set_trainable
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.standins.records import instruction_record
from minillava.text import short_number
from minillava.training import stages
from minillava.training.loop import accumulate_gradients
from minillava.training.optim import adam

GOALS = {"transformers": 1.5}
PRECISIONS = ("float32", "mixed") if side.DEVICE == "cpu" else ("float32", "mixed", "bfloat16")
TINY_BATCH = 32  # other shapes: 4, the paper's per GPU


@lru_cache
def samples(name, config, count=4):
    """(ids, labels) of each sample of one batch of stage 2; at the tiny shape always TINY_BATCH samples."""
    if name == "tiny":
        tokenizer = load_tokenizer(WEIGHTS / "llava")
        made = [encode(instruction_record(s, kind), CHAT, tokenizer) for s in scenes("train", 200) for kind in TYPES]
        V = config.language.vocab_size - 1  # the last id stands for a patch in `transformers`
        made = [(s.ids.clamp(max=V - 1), s.labels.clamp(max=V - 1)) for s in made]
        return [made[i] for i in plan_batches([len(ids) for ids, _ in made], TINY_BATCH, 1, seed=0)[0]]
    generator, chosen = torch.Generator().manual_seed(0), []
    for _ in range(count):
        asked, answered = (int(torch.randint(*span, (1,), generator=generator)) for span in ((40, 70), (40, 160)))
        ids = torch.randint(3, config.language.vocab_size - 1, (asked + 1 + answered,), generator=generator)
        ids[30] = IMAGE
        chosen.append((ids, torch.where(torch.arange(len(ids)) <= asked, IGNORE, ids)))
    return chosen


def setting(name, precision, stage=2, count=4, weights=side.same_weights):
    """(our model, theirs, our batch, their padded batch): both ready to train in a stage, on the same samples."""
    ours, theirs = weights(name, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    config, P = ours.config, ours.config.vision.num_patches
    set_trainable(ours, stage)
    theirs.model.vision_tower.requires_grad_(False)
    theirs.model.language_model.requires_grad_(stage == 2)
    theirs.lm_head.requires_grad_(stage == 2)
    # Our W is one matrix; the identity that follows it in theirs is not trained either.
    theirs.model.multi_modal_projector.linear_2.requires_grad_(False)
    chosen, generator = samples(name, config, count), torch.Generator().manual_seed(1)
    random = [torch.randn(P, config.vision.hidden_size, generator=generator) for _ in chosen]
    features = [feature.to(ours.projector.weight) for feature in random]
    batch = Batch([i for i, _ in chosen], [labels for _, labels in chosen], [[f] for f in features])
    rows = []
    for ids, labels in chosen:
        at = [n for n, i in enumerate(ids.tolist()) for _ in range(P if i == IMAGE else 1)]
        rows.append((torch.where(ids == IMAGE, config.language.vocab_size - 1, ids)[at], labels[at]))
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    ids, labels = pad([ids for ids, _ in rows]), pad([labels for _, labels in rows], padding_value=IGNORE)
    mask = pad([torch.ones_like(ids) for ids, _ in rows])
    padded = [x.to(side.DEVICE) for x in (ids, labels, mask)]
    return ours, theirs, batch, (*padded, torch.cat(features))


def divided(ours, batch):
    """(cores, parts of the batch) as in `minillava train`: for a small model one core per part, else one piece."""
    cores = stages.useful_cores(ours)
    tokens = stages.TOKENS_PER_CORE if cores > 1 else 0
    lengths = [len(ids) - 1 + ours.config.vision.num_patches for ids in batch.ids]
    parts = micro_batches(lengths, list(range(len(lengths))), tokens, ranks=cores)
    fields = batch.ids, batch.labels, batch.features
    return cores, [Batch(*([field[i] for i in part] for field in fields)) for part in parts if part]


def their_loss(theirs, ids, labels, mask, features):
    """The loss of `transformers` on a padded batch of `setting`, from features as `LlavaForConditionalGeneration` does."""
    embeds = theirs.get_input_embeddings()(ids)
    patches = theirs.model.multi_modal_projector(features).to(embeds.dtype)
    embeds = embeds.masked_scatter((ids == theirs.config.image_token_id)[..., None], patches)
    return theirs(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss


def steps(ours, theirs, batch, padded, precision):
    """{side: a forward and backward pass that returns the loss}."""
    optimizer, total = adam([ours], 0.0), sum(int((t[1:] != IGNORE).sum()) for t in batch.labels)
    cores, parts = divided(ours, batch)

    def autocast():
        return torch.autocast(side.DEVICE, torch.bfloat16, enabled=precision == "mixed")

    def loss_of(part):
        with autocast():
            loss, count = ours.loss(part)
        return loss * count / total

    def our_step():
        ours.zero_grad(set_to_none=True)
        return accumulate_gradients(ours, optimizer, [partial(loss_of, part) for part in parts], cores)

    def in_one_piece():
        ours.zero_grad(set_to_none=True)
        return accumulate_gradients(ours, optimizer, loss_of(batch))

    def their_step():
        theirs.zero_grad(set_to_none=True)
        with autocast():
            loss = their_loss(theirs, *padded)
        loss.backward()
        return loss.item()

    return {"ours": our_step, "transformers": their_step} | ({"ours in one piece": in_one_piece} if cores > 1 else {})


def measure(name, precision, options):
    """Print and return the figures of one shape and precision."""
    ours, theirs, batch, padded = setting(name, precision)
    sides = steps(ours, theirs, batch, padded, precision)
    losses = {way: step() for way, step in sides.items()}
    if abs(losses["ours"] - losses["transformers"]) > (1e-3 if precision == "float32" else 0.05):
        raise SystemExit(f"{name}, {precision}: the losses differ: {losses}")
    rounds = (5 if options.quick else 20) if name == "tiny" else 1 if options.quick else 5
    times = side.time_in_turn(sides, rounds)
    ratios, P = side.ratios_to_ours(times), ours.config.vision.num_patches
    lengths = [len(ids) - 1 + P for ids in batch.ids]
    longest, count = max(lengths), sum(int((t[1:] != IGNORE).sum()) for t in batch.labels)
    each = [flops(ours.config, n, count / len(lengths), 1, 2) for n in lengths]
    work = sum(parts["total"] - parts["vision_tower"] for parts in each)
    speed = work / statistics.median(row[0] for row in times["ours"])
    peak = matmul_speed(torch.float32 if precision == "float32" else torch.bfloat16, side.DEVICE)
    used = {} if options.quick else {way: side.in_own_process(__file__, options, name, precision, way) for way in sides}
    fused = precision == "float32" or side.DEVICE == "cuda"
    sizes = ours.config, 2, len(lengths), longest, count / len(lengths), precision
    estimate = memory(*sizes, fused=fused, parts=len(divided(ours, batch)[1]))
    weights = sum(p.numel() * p.element_size() for p in ours.parameters())
    expected = estimate["total"] - estimate["optimizer"] - weights
    filled = sum(lengths) / longest / len(lengths)
    what = f"{len(lengths)} samples of up to {longest} tokens ({100 * filled:.0f} % filled), {count} with a label"
    side.print_times(f"{name}, {precision}: {what}", times, ratios, used, GOALS)
    product = f"{100 * speed / peak:.0f} % of a large product's {short_number(peak)}FLOP/s"
    print(f"  ours: {short_number(speed)}FLOP/s, {product}; memory on paper {expected / 1e6:.0f} MB")
    print(f"  loss {losses['ours']:.4f}, theirs {losses['transformers']:.4f}", flush=True)
    figures = dict(shape=name, precision=precision, samples=len(lengths), tokens=longest, filled=filled, labels=count)
    figures |= {"seconds": times, "ratios": ratios, "peak memory": used, "memory on paper": expected}
    return figures | {"FLOP/s": speed, "matmul": peak, "loss": losses}


def step_of(name, precision, way):
    """One side's step, whose memory growth is measured: gradients and what is kept for them."""
    return steps(*setting(name, precision), precision)[way]


if __name__ == "__main__":
    side.run("forward", __doc__, PRECISIONS, GOALS, measure, step_of)

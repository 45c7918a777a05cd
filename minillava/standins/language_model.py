"""Make the stand-in for Vicuna: a small Llama that follows instructions and knows the picture book's world, from text only.

Notable: it has never seen a picture. A scene comes to it as words - captions, notes, or a table of things - and it is
asked what the teacher asks (`standins/teacher.py`). What helps training only, and is not Llama's recipe: Muon, keys that
start equal to queries ("mimetic"), a curriculum (`lesson`), and a long RoPE base, which the config states (LOG.md).

    python -m minillava.standins.weights --only language model
"""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from minillava.data import IGNORE
from minillava.data.samples import Sample, encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import train_tokenizer
from minillava.datagen.messages import TYPES
from minillava.machine import bar, compute_dtype, follow
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.scenes.captions import SIDE, captions, noun, onto, phrase
from minillava.scenes.compose import compose, scenes
from minillava.scenes.questions import EXACT, group, questions
from minillava.scenes.world import COLOURS, KINDS, PLACES, Scene
from minillava.standins.records import instruct
from minillava.standins.teacher import BRIEF_QUESTIONS, brief, teach
from minillava.training.evaluation import with_evaluation
from minillava.training.loop import fit
from minillava.training.optim import muon
from minillava.training.parallel import Prefetch

BATCH = 32
TURNS = 8  # questions about one scene: they share the reading of it
LATE = 0.7  # from here on, as a share of the steps, look-ups are asked more often: they are learnt last (LOG.md)
SECOND = 2000  # steps of a second course, all of it of the late kind, with a schedule of its own
LOOKUPS = ("colour", "side", "count", "relation")


def notes(scene: Scene, rng: random.Random) -> str:
    """The scene as notes in any order, one thing a line: `a red car on the left`."""
    lines = [f"{phrase(scene, i)} {SIDE[t.side]}" for i, t in enumerate(scene.things)]
    return "\n".join([*rng.sample(lines, len(lines)), PLACES[scene.place]])


def as_table(scene: Scene, rng: random.Random) -> str:
    """The scene as a table in any order, bare words: `car red left`, `cup white left on table`."""
    lines = []
    for t in scene.things:
        on = [onto(t, scene.things[t.on]), scene.things[t.on].kind] if t.on is not None else []
        lines.append(
            " ".join([t.kind, t.colour, t.side, *([t.doing] if t.doing else []), *on, *(["up"] if t.air else [])])
        )
    return "\n".join([scene.place, *rng.sample(lines, len(lines))])


TOLD = {
    "captions": lambda scene, rng: "\n".join(captions(scene)),
    "notes": notes,
    "table": as_table,
}


def ask(scene: Scene, rng: random.Random, kinds: tuple[str, ...], lookups: int = 1) -> list[tuple[str, str]]:
    """`TURNS` questions of these kinds with their answers, as balanced within a kind as the scene allows.

    lookups: how many times as often those of LOOKUPS are asked.
    """
    pool = {}
    for q in questions(scene):
        if q.kind in kinds:
            pool.setdefault(q.kind, {}).setdefault(group(q), []).append(q)
    # an absent colour of a thing that is there is the harder "no": half of them
    near = [q for q in pool.get("existence", {}).get("no", []) if any(c in q.text.split() for c in COLOURS)]
    # two scenes in three have nothing odd, so the third is asked about it twice as often
    weights = [lookups if kind in LOOKUPS else 2 if kind == "odd" and scene.odd else 1 for kind in pool]
    chosen = {}
    while len(chosen) < TURNS:
        kind = rng.choices(list(pool), weights)[0]
        key = rng.choice(list(pool[kind]))
        some = near if near and (kind, key) == ("existence", "no") and rng.random() < 0.5 else pool[kind][key]
        q = rng.choice(some)
        chosen[q.text] = q.answer
    return list(chosen.items())


def told_record(name: str, told: str, pairs: list[tuple[str, str]]) -> dict:
    """A text-only instruction record: the scene in words stands before the first question."""
    turns = []
    for n, (question, answer) in enumerate(pairs):
        turns += [
            {"from": "human", "value": question if n else f"{told}\n{question}"},
            {"from": "gpt", "value": answer},
        ]
    return {"id": name, "conversations": turns}


def taught(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """What the teacher writes about the scene, of one of its types, or a brief description."""
    kind = rng.choices((*TYPES, "brief"), (2, 4, 1, 2))[0]
    if kind == "brief":
        return [(rng.choice(BRIEF_QUESTIONS), brief(scene))]
    values = [t["value"].replace("<image>", "").strip() for t in instruct(scene, kind)["conversations"]]
    return list(zip(values[::2], values[1::2]))


def lesson(step: int, steps: int, seed: int, done: int = 0) -> list[dict]:
    """The records of one step: half questions of all kinds, half what the teacher writes; the first scenes are small.

    Descriptions are what look-up grows from: every word of one is copied from somewhere in the scene's words. Questions
    alone left the model at their form for a thousand steps (LOG.md).
    """
    way = 1.0 if done else step / steps
    step += done
    rng = random.Random(f"brain {seed} {step}")
    most = 2 if way < 0.06 else 3 if way < 0.15 else 9
    asked, lookups = (0.5, 1) if way < LATE else (0.75, 3)
    out, index = [], 10_000_000 * (seed + 1) + 1000 * step
    while len(out) < BATCH:
        scene = compose("train", index)
        index += 1
        if len(scene.things) > most:
            continue
        how = rng.choice(("captions", "captions", "notes", "table"))
        pairs = ask(scene, rng, EXACT, lookups) if rng.random() < asked else taught(scene, rng)
        out.append(told_record(f"{scene.id}-{how}", TOLD[how](scene, rng), pairs))
    return out


def corpus(count: int):
    """Text to train the tokenizer on: everything that people, teacher and template write."""
    rng = random.Random("corpus")
    yield from (" ".join((*KINDS, *COLOURS, *SIDE.values(), *(noun(t) for t in s.things))) for s in scenes("train", 50))
    for scene in scenes("train", count):
        told, pairs = rng.choice(list(TOLD.values()))(scene, rng), taught(scene, rng) + ask(scene, rng, EXACT)
        yield from (text for text, _ in CHAT.segments([(told, None)]))
        yield from (text for text, _ in CHAT.segments(pairs))
        yield teach("detail", captions(scene), seed=scene.id)


def pad(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids, labels (B, T), padded on the right."""
    ids = torch.nn.utils.rnn.pad_sequence([s.ids for s in samples], batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence([s.labels for s in samples], batch_first=True, padding_value=IGNORE)
    return ids, labels


def batch(step: int, steps: int, seed: int, tokenizer, done: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and labels (B, T) of one step."""
    return pad([encode(record, CHAT, tokenizer) for record in lesson(step, steps, seed, done)])


def make(seed: int, width: int = 128, layers: int = 4):
    """The untrained language model and its tokenizer."""
    tokenizer = train_tokenizer(corpus(2000), 1000)
    config = LanguageConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 8 // 3 // 16 * 16, num_layers=layers,
        num_heads=width // 32, rope_theta=1e7, max_position=1024,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LanguageModel(config)
    with torch.no_grad():
        for layer in model.layers:  # mimetic: a token first attends to tokens like itself
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model, tokenizer


def train(
    folder: Path, steps: int, measure: Callable, seed: int = 0, lr: float = 3e-3, width: int = 128, second: int = 0
):
    """Train the stand-in, measured on the way (gates.jsonl); goes on where `folder` stands. Returns it and its tokenizer.

    second: steps of a second course in `folder`/second, of the late lessons alone, at two thirds of the rate.
    """
    model, tokenizer = make(seed, width)
    course(model, tokenizer, folder, 0, steps, measure, seed, lr)
    if second:
        course(model, tokenizer, folder / "second", steps, second, measure, seed, lr * 2 / 3)
    return model, tokenizer


def course(model, tokenizer, folder: Path, done: int, steps: int, measure: Callable, seed: int, lr: float) -> None:
    """`steps` steps with a warm-up and a cosine of their own, after `done` steps of an earlier course."""
    optimizer, dtype = muon([model], lr=lr, lr_adam=lr / 2), compute_dtype("cpu")
    make = partial(batch, steps=steps, seed=seed, tokenizer=tokenizer, done=done)
    batches = Prefetch(make, steps)

    def loss_at(step):
        ids, labels = batches(step)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            hidden = model(model.embed(ids[:, :-1]))  # (B, T-1, D)
            target = labels[:, 1:]
            logits = model.head(hidden[target != IGNORE])  # (supervised, V)
        return torch.nn.functional.cross_entropy(logits.float(), target[target != IGNORE])

    recipe = {"stand-in": "language_model", "seed": seed, "steps": steps, "lr": lr, "width": model.config.hidden_size}
    if done:
        recipe["done"] = done
    with bar(steps, "step", "language_model") as progress:
        watch = with_evaluation(follow(progress), model, lambda: measure(model, tokenizer), folder)
        fit(model, optimizer, loss_at, steps, folder, recipe, watch)

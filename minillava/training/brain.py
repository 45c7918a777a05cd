"""Make the stand-in for Vicuna: a small Llama that follows instructions and knows the picture book's world, from text only.

Notable: it has never seen a picture. A scene comes to it as words - captions, notes, or a map with a word in each cell -
and it is asked what the teacher asks (`datagen/teacher.py`). What helps training only, and is not Llama's recipe: Muon,
keys that start equal to queries ("mimetic"), and a long RoPE base, which the config states (LOG.md).

    python -m minillava.weights --only brain
"""

import random
from functools import partial
from pathlib import Path

import torch

from minillava.data import IGNORE
from minillava.data.samples import Sample, encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import train_tokenizer
from minillava.datagen.questions import questions
from minillava.datagen.records import instruct
from minillava.datagen.teacher import BRIEF_QUESTIONS, brief, teach
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.scenes.captions import SIDE, captions, heads, noun, phrase
from minillava.scenes.compose import compose, scenes
from minillava.scenes.world import COLOURS, KINDS, SIDES, Scene
from minillava.training.loop import Ahead, bar, compute_dtype, fit, follow
from minillava.training.optim import muon

BATCH = 32
GRID = 8
GROUND = {"park": "grass", "street": "road", "lake": "water", "room": "floor", "beach": "sand"}


def notes(scene: Scene) -> str:
    """The scene as notes, one line a side: `left: a red car; a kite in the sky`."""
    lines = []
    for side in SIDES:
        here = [phrase(scene, i) for i in heads(scene) if scene.things[i].side == side]
        lines.append(f"{side}: {'; '.join(here) or 'nothing'}")
    return f"place: {scene.place}\n" + "\n".join(lines)


def chart(scene: Scene, rng: random.Random) -> str:
    """The scene as a map in words, 8 rows of 8: sky or ground, or one word of what is there (its kind or its colour)."""
    rows = []
    for r in range(GRID):
        cells = []
        for c in range(GRID):
            x, y = (2 * c + 1) * 500 // GRID, (2 * r + 1) * 500 // GRID
            over = [t for t in scene.things if t.box[0] <= x < t.box[2] and t.box[1] <= y < t.box[3]]
            empty = ("wall" if scene.place == "room" else "sky") if r < GRID // 2 else GROUND[scene.place]
            cells.append(rng.choice((over[-1].kind, over[-1].colour)) if over else empty)
        rows.append(" ".join(cells))
    return "\n".join(rows)


def look_up(scene: Scene, rng: random.Random) -> dict:
    """Eight questions on colour, side and existence about notes: what the curriculum begins with."""
    pool = [q for q in questions(scene) if q.kind in ("colour", "side")]
    there = {key: [q for q in questions(scene) if q.kind == "existence" and q.key == key] for key in ("yes", "no")}
    turns = []
    for _ in range(8):
        q = rng.choice(pool if pool and rng.random() < 2 / 3 else there[rng.choice(("yes", "no"))])
        turns += [{"from": "human", "value": q.text}, {"from": "gpt", "value": q.answer}]
    turns[0]["value"] = f"{notes(scene)}\n{turns[0]['value']}"
    return {"id": f"{scene.id}-look-up", "conversations": turns}


def text_record(scene: Scene, rng: random.Random) -> dict:
    """One text-only instruction record: the scene in words, then what the teacher asks about it."""
    how = rng.choice(("captions", "captions", "notes", "map", "map"))
    told = chart(scene, rng) if how == "map" else notes(scene) if how == "notes" else "\n".join(captions(scene))
    kind = rng.choices(("conversation", "detail", "complex", "brief"), (6, 1, 2, 1))[0]
    if kind == "brief":
        turns = [{"from": "human", "value": rng.choice(BRIEF_QUESTIONS)}, {"from": "gpt", "value": brief(scene)}]
    else:
        turns = [dict(t) for t in instruct(scene, kind)["conversations"]]
    turns[0]["value"] = f"{told}\n{turns[0]['value'].replace('<image>', '').strip()}"
    return {"id": f"{scene.id}-{how}-{kind}", "conversations": turns}


def lesson(step: int, steps: int, seed: int) -> list[dict]:
    """The records of one step. The first 40 % of the way is look-up only, with 1, then 2, then 3, then any number of
    things; after that a third of the steps still is. Without this curriculum look-up does not come (LOG.md)."""
    rng, way = random.Random(f"brain {seed} {step}"), step / steps
    narrow = way < 0.4 or rng.random() < 1 / 3
    most = 1 if way < 0.05 else 2 if way < 0.15 else 3 if way < 0.25 else 9
    out, index = [], 10_000_000 * (seed + 1) + 1000 * step
    while len(out) < BATCH:
        scene = compose("train", index)
        index += 1
        if len(scene.things) <= most:
            out.append(look_up(scene, rng) if narrow else text_record(scene, rng))
    return out


def corpus(count: int):
    """Text to train the tokenizer on: everything that people, teacher and template write."""
    rng = random.Random("corpus")
    yield from (" ".join((*KINDS, *COLOURS, *SIDE.values(), *(noun(t) for t in s.things))) for s in scenes("train", 50))
    for scene in scenes("train", count):
        record = text_record(scene, rng)
        values = [t["value"] for t in record["conversations"]]
        yield from (text for text, _ in CHAT.segments(list(zip(values[::2], values[1::2]))))
        yield teach("detail", captions(scene), seed=scene.id)


def pad(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids, labels (B, T), padded on the right."""
    ids = torch.nn.utils.rnn.pad_sequence([s.ids for s in samples], batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence([s.labels for s in samples], batch_first=True, padding_value=IGNORE)
    return ids, labels


def batch(step: int, steps: int, seed: int, tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and labels (B, T) of one step."""
    return pad([encode(record, CHAT, tokenizer) for record in lesson(step, steps, seed)])


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


def train(folder: Path, steps: int, seed: int = 0, lr: float = 2e-3):
    """Train the stand-in; goes on where `folder` stands."""
    model, tokenizer = make(seed)
    optimizer, dtype = muon([model], lr=lr, lr_adam=lr), compute_dtype()
    batches = Ahead(partial(batch, steps=steps, seed=seed, tokenizer=tokenizer), steps)

    def loss_at(step):
        ids, labels = batches(step)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            hidden = model(model.embed(ids[:, :-1]))  # (B, T-1, D)
            target = labels[:, 1:]
            logits = model.head(hidden[target != IGNORE])  # (supervised, V)
        return torch.nn.functional.cross_entropy(logits.float(), target[target != IGNORE])

    with bar(steps, "step", "brain") as progress:
        fit(
            model,
            optimizer,
            loss_at,
            steps,
            folder,
            {"stand-in": "brain", "seed": seed, "steps": steps, "lr": lr},
            follow(progress),
        )
    return model, tokenizer

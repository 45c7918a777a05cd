"""Train the stand-in for Vicuna: a small Llama that follows instructions and knows the picture book, from text only.

It has never seen a picture. It reads a scene as words (captions, notes, or a table of things) and is asked what the
teacher asks (`standins/teacher.py`).

Notable: four things only help training and are not Llama's recipe (LOG.md): Muon, keys that start equal to the queries
("mimetic"), a curriculum (`curriculum_records`), and a large RoPE base, which the config states.

    python -m minillava.standins.weights --only language_model
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
from minillava.machine import compute_dtype, loss_reporter, progress_bar
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.scenes.captions import SIDE_PHRASES, captions, noun, phrase, preposition
from minillava.scenes.compose import compose, scenes
from minillava.scenes.questions import EXACT_KINDS, answer_group, questions
from minillava.scenes.world import COLOURS, KINDS, PLACES, Scene, Thing
from minillava.standins.evaluation import with_evaluation
from minillava.standins.records import instruction_record
from minillava.standins.teacher import BRIEF_QUESTIONS, brief_description, teacher_reply
from minillava.training.loop import fit
from minillava.training.optim import muon
from minillava.training.parallel import Prefetch

SEED, BATCH_SIZE, LR = 0, 32, 3e-3
QUESTIONS_PER_SCENE = 8  # the model reads the scene once for all of them
LATE_PHASE = 0.7  # after this share of the steps look-ups are asked more often, as they are learnt last (LOG.md)
SECOND_STEPS = 2000  # steps of a second phase, which has only late batches and a schedule of its own
LOOKUP_KINDS = ("colour", "side", "count", "relation")  # answered by looking a word up in the scene's words


def as_notes(scene: Scene, rng: random.Random) -> str:
    """The scene as notes in random order, one thing per line: `a red car on the left`."""
    lines = [f"{phrase(scene, i)} {SIDE_PHRASES[t.side]}" for i, t in enumerate(scene.things)]
    return "\n".join([*rng.sample(lines, len(lines)), PLACES[scene.place]])


def table_line(scene: Scene, thing: Thing) -> str:
    """A thing in single words: `cup white left on table`."""
    on = [preposition(thing, scene.things[thing.on]), scene.things[thing.on].kind] if thing.on is not None else []
    doing = [thing.doing] if thing.doing else []
    return " ".join([thing.kind, thing.colour, thing.side, *doing, *on, *["up"] * thing.air])


def as_table(scene: Scene, rng: random.Random) -> str:
    """The scene as a table in random order, one thing per line (`table_line`); the first line is the place."""
    lines = [table_line(scene, thing) for thing in scene.things]
    return "\n".join([scene.place, *rng.sample(lines, len(lines))])


SCENE_FORMATS = {"captions": lambda scene, rng: "\n".join(captions(scene)), "notes": as_notes, "table": as_table}


def choose_questions(
    scene: Scene, rng: random.Random, kinds: tuple[str, ...], lookups: int = 1
) -> list[tuple[str, str]]:
    """QUESTIONS_PER_SCENE (question, answer) pairs of these kinds, balanced within a kind where the scene allows it.

    lookups: how many times as often LOOKUP_KINDS are asked.
    """
    pool = {}
    for q in questions(scene):
        if q.kind in kinds:
            pool.setdefault(q.kind, {}).setdefault(answer_group(q), []).append(q)
    # The harder "no" is for a thing that is there in another colour: half of the answers "no".
    near = [q for q in pool.get("existence", {}).get("no", []) if any(c in q.text.split() for c in COLOURS)]
    # Two scenes in three have nothing odd, so the third is asked about it twice as often.
    weights = [lookups if kind in LOOKUP_KINDS else 2 if kind == "odd" and scene.odd else 1 for kind in pool]
    chosen = {}
    while len(chosen) < QUESTIONS_PER_SCENE:
        kind = rng.choices(list(pool), weights)[0]
        key = rng.choice(list(pool[kind]))
        some = near if near and (kind, key) == ("existence", "no") and rng.random() < 0.5 else pool[kind][key]
        q = rng.choice(some)
        chosen[q.text] = q.answer
    return list(chosen.items())


def text_record(name: str, told: str, pairs: list[tuple[str, str]]) -> dict:
    """A text-only instruction record, with the scene in words before the first question."""
    turns = []
    for n, (question, answer) in enumerate(pairs):
        turns.append({"from": "human", "value": question if n else f"{told}\n{question}"})
        turns.append({"from": "gpt", "value": answer})
    return {"id": name, "conversations": turns}


def teacher_turns(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """(question, answer) pairs that the teacher writes about the scene, of one of its types, or a brief description."""
    kind = rng.choices((*TYPES, "brief"), (2, 4, 1, 2))[0]
    if kind == "brief":
        return [(rng.choice(BRIEF_QUESTIONS), brief_description(scene))]
    values = [t["value"].replace("<image>", "").strip() for t in instruction_record(scene, kind)["conversations"]]
    return list(zip(values[::2], values[1::2]))


def curriculum_records(step: int, steps: int, seed: int, done: int = 0) -> list[dict]:
    """The records of one step: half of them questions, half what the teacher writes. The first scenes are small.

    done: steps of an earlier phase; then all batches are late ones. Descriptions teach the model to look up words, as
    each of their words is copied from the scene's words. With questions alone it learnt only the form of the answers
    for a thousand steps (LOG.md).
    """
    progress = 1.0 if done else step / steps
    step += done
    rng = random.Random(f"brain {seed} {step}")
    most = 2 if progress < 0.06 else 3 if progress < 0.15 else 9  # things in a scene
    asked, lookups = (0.5, 1) if progress < LATE_PHASE else (0.75, 3)
    out, index = [], 10_000_000 * (seed + 1) + 1000 * step
    while len(out) < BATCH_SIZE:
        scene = compose("train", index)
        index += 1
        if len(scene.things) > most:
            continue
        how = rng.choice(("captions", "captions", "notes", "table"))
        if rng.random() < asked:
            pairs = choose_questions(scene, rng, EXACT_KINDS, lookups)
        else:
            pairs = teacher_turns(scene, rng)
        out.append(text_record(f"{scene.id}-{how}", SCENE_FORMATS[how](scene, rng), pairs))
    return out


def tokenizer_texts(count: int):
    """Texts to train the tokenizer on: what annotators, the teacher and the template write."""
    rng = random.Random("corpus")
    for scene in scenes("train", 50):
        yield " ".join((*KINDS, *COLOURS, *SIDE_PHRASES.values(), *(noun(t) for t in scene.things)))
    for scene in scenes("train", count):
        told = rng.choice(list(SCENE_FORMATS.values()))(scene, rng)
        pairs = teacher_turns(scene, rng) + choose_questions(scene, rng, EXACT_KINDS)
        yield from (text for text, _ in CHAT.segments([(told, None)]))
        yield from (text for text, _ in CHAT.segments(pairs))
        yield teacher_reply("detail", captions(scene), seed=scene.id)


def pad_batch(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and labels, (B, T) each, padded on the right."""
    ids = torch.nn.utils.rnn.pad_sequence([s.ids for s in samples], batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence([s.labels for s in samples], batch_first=True, padding_value=IGNORE)
    return ids, labels


def make_batch(step: int, steps: int, seed: int, tokenizer, done: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and labels of one step, (B, T) each."""
    return pad_batch([encode(record, CHAT, tokenizer) for record in curriculum_records(step, steps, seed, done)])


def untrained(width: int, layers: int = 4):
    """The untrained language model and its tokenizer."""
    tokenizer = train_tokenizer(tokenizer_texts(2000), 1000)
    sizes = dict(hidden_size=width, intermediate_size=width * 8 // 3 // 16 * 16, num_heads=width // 32)
    config = LanguageConfig(len(tokenizer), **sizes, num_layers=layers, rope_theta=1e7, max_position=1024)
    torch.manual_seed(SEED)
    model = LanguageModel(config)
    with torch.no_grad():
        for layer in model.layers:  # mimetic: at the start a token attends to tokens like itself
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
    return model, tokenizer


def train(folder: Path, steps: int, measure: Callable, width: int):
    """Train the model in `folder`, or resume there. Returns it and its tokenizer. measure: figures for gates.jsonl.

    A second phase in `folder`/second has only late batches, at two thirds of the learning rate.
    """
    model, tokenizer = untrained(width)
    train_phase(model, tokenizer, folder, 0, steps, measure, LR)
    train_phase(model, tokenizer, folder / "second", steps, SECOND_STEPS, measure, LR * 2 / 3)
    return model, tokenizer


def train_phase(model, tokenizer, folder: Path, done: int, steps: int, measure: Callable, lr: float) -> None:
    """`steps` steps with a warm-up and a cosine schedule of their own, after `done` steps of an earlier phase."""
    optimizer, dtype = muon([model], lr=lr, lr_adam=lr / 2), compute_dtype("cpu")
    batches = Prefetch(partial(make_batch, steps=steps, seed=SEED, tokenizer=tokenizer, done=done), steps)

    def loss_at(step):
        ids, labels = batches(step)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            hidden = model(model.embed(ids[:, :-1]))  # (B, T-1, D)
            target = labels[:, 1:]
            logits = model.head(hidden[target != IGNORE])  # (supervised, V)
        return torch.nn.functional.cross_entropy(logits.float(), target[target != IGNORE])

    recipe = {"stand-in": "language_model", "seed": SEED, "steps": steps, "lr": lr, "width": model.config.hidden_size}
    if done:
        recipe["done"] = done
    with progress_bar(steps, "step", "language_model") as progress:
        watch = with_evaluation(loss_reporter(progress), model, lambda: measure(model, tokenizer), folder)
        fit(model, optimizer, loss_at, steps, folder, recipe, watch)

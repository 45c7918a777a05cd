"""Train the stand-in for Vicuna: a small Llama that follows instructions and knows the picture book, from text only.

It has never seen a picture. It reads scenes as words and is asked what the teacher asks (`standins/text_lessons.py`), in
nine courses. After the second, letters of choices and the quiz's headings become tokens (`grow`).

Notable: four things only help training and are not Llama's recipe (LOG.md): Muon, keys that start equal to the queries
("mimetic"), a curriculum, and a large RoPE base, which the config states.

    python -m minillava.standins.weights --only language_model
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from minillava.data import IGNORE
from minillava.data.samples import Sample, encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import grow_tokenizer, train_tokenizer
from minillava.machine import compute_dtype, loss_reporter, progress_bar
from minillava.model import kernels
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.scenes.captions import SIDE_PHRASES, captions, noun
from minillava.scenes.compose import scenes
from minillava.scenes.questions import EXACT_KINDS
from minillava.scenes.world import COLOURS, KINDS
from minillava.standins.evaluation import with_evaluation
from minillava.standins.teacher import teacher_reply
from minillava.standins.text_lessons import (
    COURSES,
    SCENE_FORMATS,
    Lesson,
    choose_questions,
    curriculum_records,
    lessons,
    teacher_turns,
)
from minillava.training.loop import fit
from minillava.training.optim import muon
from minillava.training.parallel import Prefetch

SEED, LR, LATER_LR = 0, 3e-3, 2e-3
SECOND_STEPS = 2000  # steps of the second course, which has only late batches
NEW_TOKENS = ("LECTURE", "SOLUTION", "ANSWER", "BECAUSE")
APART = r"[A-H](?=[.)])"  # a choice's letter is a token of its own, in "(B)" as in "B."


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


def make_batch(step: int, lessons_at: Callable[[int], list[Lesson]], tokenizer) -> list[tuple]:
    """For each lesson of a step: its share of the loss, ids (B, T) and labels (B, T)."""
    out = []
    for share, some, last in lessons_at(step):
        samples = [encode(record, CHAT, tokenizer) for record in some]
        out.append((share, *pad_batch([only_last(sample, last) if last else sample for sample in samples])))
    return out


def only_last(sample: Sample, last: int) -> Sample:
    """The sample with loss on the last tokens that carry it, and on no others."""
    kept = (sample.labels != IGNORE).nonzero()[-last:, 0]
    labels = torch.full_like(sample.labels, IGNORE)
    labels[kept] = sample.labels[kept]
    return replace(sample, labels=labels)


def early_lessons(step: int, steps: int, done: int) -> list[Lesson]:
    """The one lesson of a step of the first two courses."""
    return [Lesson(1.0, curriculum_records(step, steps, SEED, done))]


def later_lessons(step: int, steps: int, groups: dict) -> list[Lesson]:
    """The lessons of a step of the later courses."""
    return lessons(groups, step, steps, SEED)


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


@torch.no_grad()
def grow(model: LanguageModel, tokenizer):
    """Both with NEW_TOKENS, and letters apart. A new token's row is the mean of the rows of its parts before."""
    parts = [tokenizer(word, add_special_tokens=False).input_ids for word in NEW_TOKENS]
    tokenizer = grow_tokenizer(tokenizer, NEW_TOKENS, APART)
    grown = LanguageModel(replace(model.config, vocab_size=len(tokenizer)))
    for name, tensor in model.state_dict().items():
        if len(tensor) == model.config.vocab_size:
            tensor = torch.cat([tensor, torch.stack([tensor[ids].mean(dim=0) for ids in parts])])
        grown.get_parameter(name).copy_(tensor)
    return grown, tokenizer


def train(folder: Path, steps: int, measure: Callable, width: int):
    """Train the model in `folder`, or resume there. Returns it and its tokenizer. measure: figures for gates.jsonl."""
    model, tokenizer = untrained(width)
    train_course(model, tokenizer, folder, steps, partial(early_lessons, steps=steps, done=0), measure, LR)
    late = partial(early_lessons, steps=SECOND_STEPS, done=steps)
    train_course(model, tokenizer, folder / "second", SECOND_STEPS, late, measure, LATER_LR)
    model, tokenizer = grow(model, tokenizer)
    for name, (count, groups) in COURSES.items():
        some = partial(later_lessons, steps=count, groups=groups)
        train_course(model, tokenizer, folder / name, count, some, measure, LATER_LR)
    return model, tokenizer


def train_course(
    model, tokenizer, folder: Path, steps: int, lessons_at: Callable, measure: Callable, lr: float
) -> None:
    """`steps` steps with a warm-up and a cosine schedule of their own."""
    optimizer, dtype = muon([model], lr=lr, lr_adam=lr / 2), compute_dtype("cpu")
    batches = Prefetch(partial(make_batch, lessons_at=lessons_at, tokenizer=tokenizer), steps)

    def loss_at(step):
        total = 0.0
        for share, ids, labels in batches(step):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                embeds, target = model.embed(ids[:, :-1]), labels[:, 1:]  # (B, T-1, D) and (B, T-1)
                most = model.config.max_position
                embeds, target, wanted = kernels.in_few_sizes(embeds, target, target != IGNORE, most)
                logits = model.head(model(embeds)[wanted])  # (supervised or added, V)
            loss = torch.nn.functional.cross_entropy(logits.float(), target[wanted], ignore_index=IGNORE)
            total = total + share * loss
        return total

    recipe = {"stand-in": f"language_model/{folder.name}", "seed": SEED, "steps": steps, "lr": lr}
    recipe["width"] = model.config.hidden_size
    with progress_bar(steps, "step", folder.name) as progress:
        watch = with_evaluation(loss_reporter(progress), model, lambda: measure(model, tokenizer), folder)
        fit(model, optimizer, loss_at, steps, folder, recipe, watch)

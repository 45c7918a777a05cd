"""Ask a model questions about pictures: batched answers, the exact-match score, and its controls.

Notable: every score is taken three times - with the picture, with a blank one, with another scene's - because a model
that answers as well without looking has not looked.
"""

from collections import defaultdict

import torch

from minillava.data.samples import prompt
from minillava.data.template import Template
from minillava.datagen.questions import EXACT, Question, right
from minillava.model import Llava, generate

BATCH = 64


def answer(
    model: Llava, tokenizer, template: Template, asked: list[tuple[str, torch.Tensor]], max_new_tokens: int = 120
) -> list[str]:
    """Answers to (question, features (P, Dv)) pairs, at temperature 0, the image before the question."""
    stop = [tokenizer.encode(template.stop, add_special_tokens=False)]
    order = sorted(range(len(asked)), key=lambda i: len(asked[i][0]))
    texts = [""] * len(asked)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        prompts = [prompt(f"<image>\n{asked[i][0]}", template, tokenizer) for i in chosen]
        made = generate(model, prompts, [[asked[i][1]] for i in chosen], max_new_tokens, stop)
        for i, ids in zip(chosen, made):
            texts[i] = tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()
    return texts


def exact_match(items: list[tuple[str, Question]], answers: list[str]) -> dict[str, float]:
    """Accuracy in per cent of each kind of question, and `all`: the mean over kinds. items: (picture, question)."""
    hits = defaultdict(list)
    for (_, question), text in zip(items, answers, strict=True):
        hits[question.kind].append(right(question, text))
    scores = {kind: round(100 * sum(hits[kind]) / len(hits[kind]), 1) for kind in EXACT if hits[kind]}
    return scores | {"all": round(sum(scores.values()) / len(scores), 1)}


def shuffled(names: list[str]) -> list[str]:
    """For each picture another one: the list turned by half its length, past any picture that stays in place."""
    turn = len(names) // 2
    return [next(n for n in (names * 2)[i + turn : i + turn + len(names)] if n != name) for i, name in enumerate(names)]

"""Ask a model questions about pictures: batched answers, the exact-match score, and its controls.

Notable: every score is taken four times - with the picture, with a blank one, with another scene's, and with the words
alone - because a model that answers as well without looking has not looked (`LOOKS`).
"""

from collections.abc import Callable

import torch
from PIL import Image

from minillava.data.images import pixels
from minillava.data.samples import prompt
from minillava.data.template import Template
from minillava.model import Llava, generate

BATCH = 64
BLANK = "blank.png"


def answer(
    model: Llava, tokenizer, template: Template, asked: list[tuple[str, torch.Tensor | None]], max_new_tokens: int = 120
) -> list[str]:
    """Answers to (question, features (P, Dv)) pairs, at temperature 0, the image before the question; None: text only."""
    stop = [tokenizer.encode(template.stop, add_special_tokens=False)]
    order = sorted(range(len(asked)), key=lambda i: len(asked[i][0]))
    texts = [""] * len(asked)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        pictures = [[] if asked[i][1] is None else [asked[i][1]] for i in chosen]
        texts_of = [f"<image>\n{asked[i][0]}" if seen else asked[i][0] for i, seen in zip(chosen, pictures)]
        made = generate(model, [prompt(t, template, tokenizer) for t in texts_of], pictures, max_new_tokens, stop)
        for i, ids in zip(chosen, made):
            texts[i] = tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()
    return texts


def blank_picture(size: int) -> Image.Image:
    """The blank picture of the controls: one grey of the picture book's own, size x size."""
    return Image.new("RGB", (size, size), (178, 188, 190))


def shuffled(names: list[str]) -> list[str]:
    """For each picture another one: the list turned by half its length, past any picture that stays in place."""
    turn = len(names) // 2
    return [next(n for n in (names * 2)[i + turn : i + turn + len(names)] if n != name) for i, name in enumerate(names)]


# Control -> which picture each question is shown, of those it is about; None: no picture, the words alone.
CONDITIONS: dict[str, Callable[[list[str]], list[str | None]]] = {
    "": lambda names: names,
    "-blank": lambda names: [BLANK] * len(names),
    "-shuffled": shuffled,
    "-text": lambda names: [None] * len(names),
}


@torch.no_grad()
def vision_features(model: Llava, normal: tuple, pictures: list[Image.Image]) -> torch.Tensor:
    """Zv of pictures, (N, P, Dv), 64 at a time."""
    size, weight = model.config.vision.image_size, model.vision_tower.pre_layrnorm.weight
    parts = [pixels(pictures[i : i + 64], size, *normal) for i in range(0, len(pictures), 64)]
    return torch.cat([model.features(part.to(weight.device, weight.dtype)) for part in parts])

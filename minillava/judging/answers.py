"""Ask a model questions about pictures, with the right picture and without it (section 5).

A model that answers as well without the right picture has not used it. And Eq. 2 allows the picture on either side of
the question. So every score is taken under the five `CONDITIONS`: with the question's own picture where it usually
stands and on the other side, with a blank one, with another question's, and with the words alone.
"""

from collections.abc import Callable, Sequence

import torch
from PIL import Image

from minillava.data.images import Preparation, pixels
from minillava.data.samples import encode_segments
from minillava.data.template import Template
from minillava.model import Llava, generate_text
from minillava.model.generate import digest

BATCH = 64
BLANK = "blank.png"
OTHER_ORDER = "-other-order"  # a chat has its picture before the question, ScienceQA after it; here it is turned round


def answer(
    model: Llava,
    tokenizer,
    template: Template,
    asked: Sequence[tuple[str, torch.Tensor | None]],
    max_new_tokens: int = 120,
    after: bool = False,
) -> list[str]:
    """Answers to (question, features (P, Dv) or None) pairs at temperature 0. after: the picture's place in Eq. 2."""
    form = "{}\n<image>" if after else "<image>\n{}"
    texts = [question if features is None else form.format(question) for question, features in asked]
    pictures = [[] if features is None else [features] for _, features in asked]
    segments = [template.segments([(text, None)]) for text in texts]
    return answer_segments(model, tokenizer, template, segments, pictures, max_new_tokens)


def answer_segments(
    model: Llava, tokenizer, template: Template, prompts: list, pictures: list, max_new_tokens: int
) -> list[str]:
    """What the model writes after each prompt, at temperature 0; `BATCH` prompts of similar length at a time.

    prompts: the segments of each (`Template.segments`). pictures: for each prompt a list of features (P, Dv). Prompts
    that begin with the same picture stand together, so that it is read once.
    """
    sizes = [sum(len(text) for text, _ in segments) for segments in prompts]
    first = [digest(shown[0]) if shown else b"" for shown in pictures]
    longest = {}
    for size, picture in zip(sizes, first):
        longest[picture] = max(size, longest.get(picture, 0))
    order = sorted(range(len(prompts)), key=lambda i: (longest[first[i]], first[i], sizes[i]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        ids = [torch.tensor(encode_segments(prompts[i], tokenizer)[0]) for i in batch]  # (T,) each
        shown = [pictures[i] for i in batch]
        written = generate_text(model, tokenizer, ids, shown, max_new_tokens, [template.stop])
        for i, text in zip(batch, written):
            answers[i] = text.strip()
    return answers


def blank_picture(size: int) -> Image.Image:
    """The blank picture of the controls, size x size, in one of the picture book's greys."""
    return Image.new("RGB", (size, size), (178, 188, 190))


def shuffled(names: list[str]) -> list[str]:
    """For each picture another one: the list rotated by half its length, or further past pictures of the same name."""
    turn = len(names) // 2
    return [next(n for n in (names * 2)[i + turn : i + turn + len(names)] if n != name) for i, name in enumerate(names)]


# Tag of the condition -> from the questions' own pictures, the pictures to show instead; None: the words alone.
CONDITIONS: dict[str, Callable[[list[str]], list[str | None]]] = {
    "": lambda names: names,
    OTHER_ORDER: lambda names: names,  # what differs is the place: `answer(..., after=True)`
    "-blank": lambda names: [BLANK] * len(names),
    "-shuffled": shuffled,
    "-text": lambda names: [None] * len(names),
}


@torch.no_grad()
def vision_features(model: Llava, preparation: Preparation, pictures: list[Image.Image]) -> torch.Tensor:
    """Zv of pictures, (N, P, Dv), 64 at a time. preparation: what the vision tower expects of them."""
    weight = model.vision_tower.pre_layrnorm.weight
    parts = [pixels(pictures[i : i + 64], preparation) for i in range(0, len(pictures), 64)]
    return torch.cat([model.features(part.to(weight.device, weight.dtype)) for part in parts])

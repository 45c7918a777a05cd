"""A LLaVA answers ScienceQA (section 5.2): in two steps where its reasons end in `###`, as the paper's own code did.

Notable: under QCM-LEPA the model writes lecture and solution and then its stop sign, which `###` is; so the answer is asked
for in a second step, behind the reasons and `ANSWER:`. That is why every one of the released answers has a letter. Under the
other formats one step is enough.
"""

import torch

from minillava.data.samples import encode_segments
from minillava.data.scienceqa import Problem, question_text
from minillava.data.template import Template
from minillava.model import Llava, generate

BATCH = 64
MAX_REASONS, MAX_LETTER = 160, 8  # most tokens of each step (the authors: 1024 and 64)
AUTHORS_JOINT = " ###\nANSWER:"  # what the authors' script put between the steps (facts B7)
TRAINED_JOINT = (
    "\n###\nANSWER:"  # what stands there in training; the small model's tokenizer tells a space from a line break
)


def two_step(reasons: str, letter: str) -> str:
    """The text of an answer in two steps, as the authors' script wrote it: the letter in the form that is read."""
    return f"{reasons}\n The answer is {letter}"


def _generate(model, tokenizer, template, segments, pictures, most) -> list[str]:
    stop = [tokenizer.encode(template.stop, add_special_tokens=False)]
    order, texts = sorted(range(len(segments)), key=lambda i: sum(len(t) for t, _ in segments[i])), [""] * len(segments)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        prompts = [torch.tensor(encode_segments(segments[i], tokenizer)[0]) for i in chosen]
        for i, ids in zip(chosen, generate(model, prompts, [pictures[i] for i in chosen], most, stop)):
            texts[i] = tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()
    return texts


def answer_problems(
    model: Llava, tokenizer, template: Template, problems: list[Problem], features: list[torch.Tensor | None], format: str, joint: str = TRAINED_JOINT, reasons: int | None = None
) -> list[str]:  # fmt: skip
    """Answers to problems, each with its picture's features (P, Dv) or None, at temperature 0; texts for `read_answer`.

    format: the one the model was trained under (`FORMATS`). joint: what stands between the two steps of QCM-LEPA.
    reasons: most tokens of the first step; the authors' 1,024 for the real ScienceQA, else REASONS.
    """
    pictures = [[] if seen is None else [seen] for seen in features]
    asked = [question_text(p) + ("\n<image>" if seen else "") for p, seen in zip(problems, pictures)]
    segments = [template.segments([(text, None)]) for text in asked]
    first = _generate(model, tokenizer, template, segments, pictures, reasons or MAX_REASONS)
    if format != "QCM-LEPA":
        return first
    again = [[*s, (reasons + joint, False)] for s, reasons in zip(segments, first)]
    second = _generate(model, tokenizer, template, again, pictures, MAX_LETTER)
    return [two_step(reasons, letter) for reasons, letter in zip(first, second)]

"""A LLaVA answers ScienceQA (section 5.2), in two steps where the paper's own code took two.

Under QCM-LEPA the model writes lecture and solution and then `###`, which is also its stop. So a second step asks for
the letter, after the reasons and `ANSWER:`; that is why every released answer has one. Other formats need one step.
"""

import torch

from minillava.data.scienceqa import Problem, question_text
from minillava.data.template import Template
from minillava.judging.answers import answer_segments
from minillava.model import Llava

MAX_REASONS, MAX_LETTER = 160, 8  # tokens of each step (the authors: 1024 and 64)
AUTHORS_JOINT = " ###\nANSWER:"  # what the authors' script put between the steps (facts B7)
TRAINED_JOINT = "\n###\nANSWER:"  # what training has there; the small model's tokenizer tells a space from a line break


def two_step(reasons: str, letter: str) -> str:
    """An answer of two steps in the form that the authors' script wrote and `read_answer` reads."""
    return f"{reasons}\n The answer is {letter}"


def answer_problems(
    model: Llava, tokenizer, template: Template, problems: list[Problem], features: list[torch.Tensor | None],
    format: str, joint: str = TRAINED_JOINT, reasons: int | None = None, first: bool = False,
) -> list[str]:  # fmt: skip
    """Answers at temperature 0, as texts for `read_answer`. features: for each problem its picture's (P, Dv), or None.

    format: the one the model was trained on (`FORMATS`). joint: the text between the two steps of QCM-LEPA.
    reasons: the most tokens of the first step; the authors take 1,024 for the real ScienceQA. Default: MAX_REASONS.
    first: the picture before the question, and not after it as in training (Eq. 2 allows both).
    """
    pictures = [[] if picture is None else [picture] for picture in features]
    form = "<image>\n{}" if first else "{}\n<image>"
    texts = map(question_text, problems)
    questions = [form.format(text) if picture else text for text, picture in zip(texts, pictures)]
    prompts = [template.segments([(question, None)]) for question in questions]
    first = answer_segments(model, tokenizer, template, prompts, pictures, reasons or MAX_REASONS)
    if format != "QCM-LEPA":
        return first
    prompts = [[*prompt, (template.lead + text + joint, False)] for prompt, text in zip(prompts, first)]
    letters = answer_segments(model, tokenizer, template, prompts, pictures, MAX_LETTER)
    return [two_step(*pair) for pair in zip(first, letters)]

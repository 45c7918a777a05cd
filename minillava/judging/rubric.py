"""The judge's prompt (section 5.1): rubrics in `rule.json`'s format, and the layout of context, question and answers.

The wording is this project's own, the format is the authors': a file that maps a category to a role and a prompt.
Theirs works unchanged (`--rule rule.json`). The rubric of a question without boxes is `llava_bench_CATEGORY`
(In-the-Wild).

    python -m minillava.judging.rubric > rule.json
"""

import json
from collections.abc import Sequence
from pathlib import Path

from minillava.files import FileError, read_json
from minillava.judging.bench import CATEGORIES, Item

SYSTEM = "You check the quality of answers, carefully and exactly."
NO_BOXES = "llava_bench_"  # prefix of the rubrics for a context without boxes
_PROMPT = """\
Two assistants answered the question above, which somebody asked about a picture. You do not see the picture; the \
context tells you what it shows: {told}
Judge how helpful, how relevant, how accurate and how detailed each answer is, and give each assistant one overall \
score from 1 to 10, where more is better.
Begin with a line that holds nothing but the two scores, that of Assistant 1 and then that of Assistant 2, \
with a space between them.
From the next line on, give your reasons at length. Neither the order of the answers nor their mere length may \
sway you."""
_BOXES = """sentences that each describe all of it, and the box of every object as (x1, y1, x2, y2), from 0 to 1, \
where x runs to the right and y downwards."""
_SENTENCES = "a few sentences that describe it."
RULES = {
    prefix + category: {"role": "Assistant", "prompt": _PROMPT.format(told=told)}
    for prefix, told in (("", _BOXES), (NO_BOXES, _SENTENCES))
    for category in CATEGORIES
}


def read_rules(path: Path) -> dict[str, dict]:
    """The rubrics of a rule.json: category -> {"role", "prompt"}. Raises FileError naming file and rubric."""
    rules = read_json(path)
    if not isinstance(rules, dict) or not rules:
        raise FileError(f"{path}: expected an object that maps a category to its role and prompt")
    for name, rule in rules.items():
        if not isinstance(rule, dict) or not all(isinstance(rule.get(k), str) and rule[k] for k in ("role", "prompt")):
            raise FileError(f"{path}: the rubric {name!r} needs `role` and `prompt`, both text")
    return rules


def rubric_of(item: Item) -> str:
    """The name of a question's rubric: its category, or llava_bench_CATEGORY if its context has no boxes."""
    boxes = "\n\n" in item.context
    return item.category if boxes or item.category.startswith(NO_BOXES) else NO_BOXES + item.category


def review_messages(item: Item, answers: Sequence[str], rule: dict) -> list[dict]:
    """The messages that ask for one review (facts B6): context, question, both answers, and the rubric's prompt."""
    role = rule["role"]
    parts = [("Context", item.context), ("Question", item.text)]
    text = "".join(f"[{name}]\n{value}\n\n" for name, value in parts)
    for n, answer in enumerate(answers, 1):
        text += f"[{role} {n}]\n{answer}\n\n[End of {role} {n}]\n\n"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{text}[System]\n{rule['prompt']}\n\n"}]


if __name__ == "__main__":
    print(json.dumps(RULES, indent=1))

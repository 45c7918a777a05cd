"""The picture book's LLaVA-Bench: held-out scenes x conversation, detail, complex, and the exact-match questions."""

import random
from collections import Counter

from minillava.datagen.messages import context
from minillava.files import FileError
from minillava.judging.bench import CATEGORIES, Item
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes
from minillava.scenes.questions import EXACT_KINDS, Question, balanced_questions, is_reasoning, questions
from minillava.scenes.world import Scene
from minillava.standins.judge import RULE_ID, review
from minillava.standins.teacher import DETAIL_QUESTIONS, detailed_description, read_context

# The kinds of question -> how many different answers each has here, all things taken as one.
ANSWER_COUNTS = {"existence": 2, "colour": 8, "count": 4, "place": 5, "side": 3, "relation": 4, "odd": 2, "doing": 1, "use": 2, "doors": 2}  # fmt: skip
ANSWERED_BY_A_THING = (
    "odd",
    "relation",
    "use",
    "doing",
)  # the kinds that are answered with a thing, or with what somebody does
SPLIT_OF = {"coco": "bench", "wild": "wild"}


def build_bench(name: str, count: int) -> list[Item]:
    """`count` scenes x three questions, the answers as even as the scenes allow. name: `coco` or `wild`.

    A larger benchmark begins with the smaller. Raises KeyError for another name.
    """
    items, used = [], {category: Counter() for category in CATEGORIES}
    for n, scene in enumerate(scenes(SPLIT_OF[name], count)):
        rng, record = random.Random(f"bench {scene.id}"), caps_boxes(scene)
        text = context(record["captions"], [(i["category"], i["bbox"]) for i in record["instances"]])
        told = read_context(text, scene.id)
        known = questions(told)
        conv = _pick(rng, [q for q in known if q.kind in (*EXACT_KINDS, "doing") and not is_reasoning(q)], used["conv"])
        reasoning = _pick(rng, [q for q in known if is_reasoning(q)], used["complex"])
        asked = (
            (conv.text, conv.answer),
            (rng.choice(DETAIL_QUESTIONS), detailed_description(told)),
            (reasoning.text, reasoning.answer),
        )
        for k, (question, answer) in enumerate(asked):
            items.append(Item(3 * n + k, record["image"], question, CATEGORIES[k], text, answer))
    return items


def exact_questions(split: str, count: int, per_kind: int) -> list[tuple[Scene, Question]]:
    """Balanced exact-match questions over the first `count` scenes of a split."""
    return balanced_questions(scenes(split, count), per_kind)


def _slot(question: Question) -> tuple[str, str]:
    """Its kind, and the answer that is to be no more frequent than the kind's others."""
    plain = question.kind not in ANSWERED_BY_A_THING or question.key in ("yes", "no", "nothing")
    return question.kind, question.key if plain else "a thing"


def _pick(rng: random.Random, pool: list[Question], used: Counter) -> Question:
    """A question of the kind and answer that fewest were drawn of so far, so that no habit of answering is worth much:
    most scenes offer many questions whose answer is "nothing" or "outdoors", and few others."""
    slots = sorted({_slot(q) for q in pool})
    least = min(used[s] * ANSWER_COUNTS[s[0]] for s in slots)
    slot = rng.choice([s for s in slots if used[s] * ANSWER_COUNTS[s[0]] == least])
    used[slot] += 1
    key = rng.choice(sorted({q.key for q in pool if _slot(q) == slot}))
    return rng.choice([q for q in pool if _slot(q) == slot and q.key == key])


def judge_answers(items: list[Item], answers: dict[int, str], model_id: str) -> list[dict]:
    """One review a question, in the authors' row format plus the judge's id. Raises FileError for a missing answer."""
    missing = [i.question_id for i in items if i.question_id not in answers]
    if missing:
        raise FileError(f"{model_id}: no answer to question {missing[0]} ({len(missing)} missing in all)")
    rows = []
    for item in items:
        content = review(item.context, item.text, [item.reference, answers[item.question_id]])
        scores = [float(v) for v in content.partition("\n")[0].split()]
        rows.append({"id": len(rows), "question_id": item.question_id, "answer1_id": "teacher", "answer2_id": model_id,
                     "category": item.category, "content": content, "tuple": scores, "judge": RULE_ID})  # fmt: skip
    return rows

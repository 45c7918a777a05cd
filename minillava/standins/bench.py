"""The picture book's LLaVA-Bench (section 5.1): three questions per held-out scene; and the exact-match questions."""

import random
from collections import Counter

from minillava.datagen.messages import context
from minillava.files import FileError
from minillava.judging.bench import CATEGORIES, Item
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes
from minillava.scenes.questions import EXACT_KINDS, Question, answer_group, balanced_questions, is_reasoning, questions
from minillava.scenes.world import Scene
from minillava.standins.judge import RULE_ID, review
from minillava.standins.teacher import DETAIL_QUESTIONS, detailed_description, read_context

# Kind of question -> how many different answers it has, all things counted as one answer.
ANSWER_COUNTS = {"existence": 2, "colour": 8, "count": 4, "place": 5, "side": 3, "relation": 4}
ANSWER_COUNTS |= {"odd": 2, "doing": 1, "use": 2, "doors": 2}
SPLIT_OF = {"coco": "bench", "wild": "wild"}


def build_bench(name: str, count: int) -> list[Item]:
    """Three questions for each of `count` scenes, the answers as balanced as the scenes allow. name: `coco` or `wild`.

    A larger benchmark begins with the smaller one. Raises KeyError for another name.
    """
    items, used = [], {category: Counter() for category in CATEGORIES}
    for n, scene in enumerate(scenes(SPLIT_OF[name], count)):
        rng, record = random.Random(f"bench {scene.id}"), caps_boxes(scene)
        text = context(record["captions"], [(i["category"], i["bbox"]) for i in record["instances"]])
        told = read_context(text, scene.id)
        known = questions(told)
        conv = _pick(rng, [q for q in known if q.kind in (*EXACT_KINDS, "doing") and not is_reasoning(q)], used["conv"])
        reasoning = _pick(rng, [q for q in known if is_reasoning(q)], used["complex"])
        detail = rng.choice(DETAIL_QUESTIONS), detailed_description(told)
        asked = (conv.text, conv.answer), detail, (reasoning.text, reasoning.answer)
        for k, (question, answer) in enumerate(asked):
            items.append(Item(3 * n + k, record["image"], question, CATEGORIES[k], text, answer))
    return items


def exact_questions(split: str, count: int, per_kind: int) -> list[tuple[Scene, Question]]:
    """Balanced exact-match questions about the first `count` scenes of a split."""
    return balanced_questions(scenes(split, count), per_kind)


def _pick(rng: random.Random, pool: list[Question], used: Counter) -> Question:
    """A question whose kind and answer have been drawn least so far, so that answering by habit earns little: in most
    scenes the answer to most questions is "nothing" or "outdoors"."""
    slots = {}
    for q in pool:
        slots.setdefault((q.kind, answer_group(q)), []).append(q)
    drawn = {slot: used[slot] * ANSWER_COUNTS[slot[0]] for slot in sorted(slots)}
    slot = rng.choice([slot for slot, times in drawn.items() if times == min(drawn.values())])
    used[slot] += 1
    key = rng.choice(sorted({q.key for q in slots[slot]}))
    return rng.choice([q for q in slots[slot] if q.key == key])


def judge_answers(items: list[Item], answers: dict[int, str], model_id: str) -> list[dict]:
    """One review per question: the authors' rows, and the judge's id. Raises FileError where an answer is missing."""
    missing = [i.question_id for i in items if i.question_id not in answers]
    if missing:
        raise FileError(f"{model_id}: no answer to question {missing[0]} ({len(missing)} missing in all)")
    rows = []
    for item in items:
        content = review(item.context, item.text, [item.reference, answers[item.question_id]])
        scores = [float(v) for v in content.partition("\n")[0].split()]
        row = {"id": len(rows), "question_id": item.question_id, "answer1_id": "teacher", "answer2_id": model_id}
        rows.append(row | {"category": item.category, "content": content, "tuple": scores, "judge": RULE_ID})
    return rows

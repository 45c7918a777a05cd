"""Records of the picture book's scenes, written by the offline teacher; and their captions as a web page has them."""

import random

from minillava.data.records import IMAGE_TOKEN, make_record
from minillava.datagen.messages import USES_BOXES
from minillava.datagen.replies import read_pairs
from minillava.scenes.captions import boxes, captions
from minillava.scenes.questions import answer_group, questions
from minillava.scenes.world import COLOURS, Scene
from minillava.standins.teacher import BRIEF_QUESTIONS, DETAIL_QUESTIONS, teacher_reply


def instruction_record(scene: Scene, kind: str, seed: int = 0) -> dict:
    """The record of one response type for one scene, written by the offline teacher from captions and boxes."""
    rng = random.Random(f"record {kind} {scene.id} {seed}")
    reply = teacher_reply(kind, captions(scene), boxes(scene) if USES_BOXES[kind] else (), f"{scene.id} {seed}")
    pairs = [(question or rng.choice(DETAIL_QUESTIONS), answer) for question, answer in read_pairs(kind, reply)]
    return make_record(f"{scene.id}-{kind}", f"{scene.id}.png", pairs, rng)


def caption_record(scene: Scene, seed: int = 0) -> dict:
    """A record for stage 1: a brief question, and one of the scene's captions unchanged (section 4.2)."""
    rng = random.Random(f"pair {scene.id} {seed}")
    pair = (rng.choice(BRIEF_QUESTIONS), rng.choice(captions(scene)))
    return make_record(f"{scene.id}-caption", f"{scene.id}.png", [pair], rng)


def in_turns(record: dict, turns: int) -> list[dict]:
    """Its questions in records of at most so many, each with the picture before or after its first one (Eq. 2).

    Of a whole conversation only the first question can stand before the picture.
    """
    texts = [turn["value"].replace(IMAGE_TOKEN, "").strip() for turn in record["conversations"]]
    pairs, rng = list(zip(texts[::2], texts[1::2])), random.Random(f"turns {record['id']}")
    parts = [pairs[n : n + turns] for n in range(0, len(pairs), turns)]
    return [make_record(f"{record['id']}-{n}", record["image"], part, rng) for n, part in enumerate(parts)]


def one_question(scene: Scene, rng: random.Random, weights: dict[str, float]) -> tuple[str, str]:
    """A (question, answer) pair. weights: kind -> how often; each answer of a kind is as likely as the others."""
    pool = {}
    for q in questions(scene):
        if q.kind in weights:
            pool.setdefault(q.kind, {}).setdefault(answer_group(q), []).append(q)
    kind = rng.choices(list(pool), [weights[kind] for kind in pool])[0]
    some = pool[kind][rng.choice(list(pool[kind]))]
    near = [q for q in some if kind == "existence" and any(c in q.text.split() for c in COLOURS)]
    q = rng.choice(near if near and rng.random() < 0.5 else some)
    return q.text, q.answer


def question_record(scene: Scene, number: int, weights: dict[str, float], after: float = 0.5) -> dict:
    """A record of one question about a picture. weights: as in `one_question`. after: how often it is asked first."""
    rng, name = random.Random(f"question {scene.id} {number}"), f"{scene.id}.png"
    question, answer = one_question(scene, rng, weights)
    value = f"{question}\n{IMAGE_TOKEN}" if rng.random() < after else f"{IMAGE_TOKEN}\n{question}"
    turns = [{"from": "human", "value": value}, {"from": "gpt", "value": answer}]
    return {"id": f"{scene.id}-question-{number}", "image": name, "conversations": turns}


def interleaved(records: list[dict], each: int) -> list[dict]:
    """Caption records, `each` to a record, as a web page has them: a picture, its caption, the next; no questions."""
    out = []
    for some in zip(*[iter(records)] * each):
        turns = [turn for r in some for turn in ({"from": "human", "value": IMAGE_TOKEN}, r["conversations"][1])]
        out.append({"id": f"{some[0]['id']}-{each}", "image": [r["image"] for r in some], "conversations": turns})
    return out

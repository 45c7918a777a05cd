"""Records of the picture book's scenes, written by the offline teacher; and their captions as a web page has them."""

import random

from minillava.data.records import IMAGE_TOKEN, make_record
from minillava.datagen.messages import USES_BOXES
from minillava.datagen.replies import read_pairs
from minillava.scenes.captions import boxes, captions
from minillava.scenes.world import Scene
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


def interleaved(records: list[dict], each: int) -> list[dict]:
    """Caption records, `each` to a record, as a web page has them: a picture, its caption, the next; no questions."""
    out = []
    for some in zip(*[iter(records)] * each):
        turns = [turn for r in some for turn in ({"from": "human", "value": IMAGE_TOKEN}, r["conversations"][1])]
        out.append({"id": f"{some[0]['id']}-{each}", "image": [r["image"] for r in some], "conversations": turns})
    return out

"""Records of the picture book's scenes, written by the offline teacher."""

import random

from minillava.data.records import RecordError, make_record
from minillava.datagen.messages import USES_BOXES
from minillava.scenes.captions import boxes, captions
from minillava.scenes.world import Scene
from minillava.standins.teacher import BRIEF_QUESTIONS, DETAIL_QUESTIONS, teacher_reply


def instruction_record(scene: Scene, kind: str, seed: int = 0) -> dict:
    """The record of one response type for one scene, written by the offline teacher from captions and boxes."""
    rng = random.Random(f"record {kind} {scene.id} {seed}")
    reply = teacher_reply(kind, captions(scene), boxes(scene) if USES_BOXES[kind] else (), f"{scene.id} {seed}")
    return make_record(f"{scene.id}-{kind}", f"{scene.id}.png", parse_reply(kind, reply, scene.id, rng), rng)


def caption_record(scene: Scene, seed: int = 0) -> dict:
    """A record for stage 1: a brief question, and one of the scene's captions unchanged (section 4.2)."""
    rng = random.Random(f"pair {scene.id} {seed}")
    pair = (rng.choice(BRIEF_QUESTIONS), rng.choice(captions(scene)))
    return make_record(f"{scene.id}-caption", f"{scene.id}.png", [pair], rng)


def parse_reply(kind: str, reply: str, name: str, rng: random.Random) -> list[tuple[str, str]]:
    """(question, answer) pairs of a teacher's reply. A reply of type `detail` is only an answer; its question is drawn.

    Raises RecordError when questions and answers do not alternate, or when one is empty.
    """
    if kind == "detail":
        pairs = [(rng.choice(DETAIL_QUESTIONS), reply.strip())]
    else:
        blocks = [b.strip() for b in reply.strip().split("\n===\n")]
        heads, bodies = zip(*((b.partition("\n")[0].strip(), b.partition("\n")[2].strip()) for b in blocks))
        if heads != ("Question:", "Answer:") * (len(blocks) // 2):
            expected = "expected Question: and Answer: in turn, split by ==="
            raise RecordError(f"{name}: the reply's blocks are {list(heads)}; {expected}")
        pairs = list(zip(bodies[::2], bodies[1::2]))
    for question, answer in pairs:
        if not question or not answer:
            raise RecordError(f"{name}: an empty {'answer' if question else 'question'} in the reply")
    return pairs

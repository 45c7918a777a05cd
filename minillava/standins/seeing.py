"""Records from which a real language model may learn to see the picture book: `minillava generate --source questions`.

Most are one question about one picture, half of them asked before it. A few describe or reason. One in nine is text
alone, SmolLM2's own answers from before it was trained, so that it forgets less.

    python -c "from minillava.standins.seeing import *; print(seeing_records(6)[0])"
"""

import random
from pathlib import Path

from minillava.data.records import write_records
from minillava.files import read_jsonl
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw_file
from minillava.standins.records import instruction_record, question_record

SHIPPED = WEIGHTS.parent / "real"  # own_answers.jsonl, projector.safetensors and the adapter's files
SIZE = 96  # of the pictures, as the shipped vision tower knows them
# Kind of question -> how often, among the records of one question.
SINGLE = {"existence": 4, "colour": 2, "side": 2, "place": 0.5, "count": 2, "relation": 2, "odd": 1}
QUESTIONS, OTHERS = 3, 6  # single questions of each picture; a description and a reasoning record for so many pictures
OWN_EVERY = 1000  # pictures for each copy of the own answers


def seeing_records(pictures: int) -> list[dict]:
    """Records about the first training scenes, and text alone, shuffled."""
    some = scenes("train", pictures)
    records = [question_record(scene, n, SINGLE) for scene in some for n in range(QUESTIONS)]
    records += [instruction_record(scene, "detail") for scene in some[::OTHERS]]
    records += [instruction_record(scene, "complex") for scene in some[OTHERS // 2 :: OTHERS]]
    for n, row in enumerate(read_jsonl(SHIPPED / "own_answers.jsonl")):
        turns = [{"from": "human", "value": row["question"]}, {"from": "gpt", "value": row["answer"]}]
        copies = max(1, pictures // OWN_EVERY)
        records += [{"id": f"own-{n}-{copy}", "conversations": turns} for copy in range(copies)]
    random.Random(0).shuffle(records)
    return records


def write_seeing(pictures: int, out: Path) -> int:
    """The records as OUT/stage2.json, their pictures in OUT/images. Returns how many records there are."""
    for scene in scenes("train", pictures):
        draw_file(scene, out / "images" / f"{scene.id}.png", SIZE)
    records = seeing_records(pictures)
    write_records(records, out / "stage2.json")
    return len(records)

"""Instruction records in the authors' JSON: the form of every dataset, and of what a teacher's reply becomes.

A record has one image token, in its first human turn, before or after the question at random (Eq. 2). Its place is
fixed in the record, as in the authors' files. A record that breaks the format is an error that names it.

    {"id": "train-000000", "image": "train-000000.png", "conversations": [{"from": "human", "value": "..."}, ...]}
"""

import json
import random
from collections.abc import Iterable
from pathlib import Path

from minillava.errors import UserError
from minillava.files import atomic_write

IMAGE_TOKEN = "<image>"  # the place of a record's picture


class RecordError(UserError):
    """A record that breaks the format; the message names it."""


def make_record(name: str, image: str, pairs: list[tuple[str, str]], rng: random.Random) -> dict:
    """One record from (question, answer) pairs; the image is before or after the first question at random (Eq. 2)."""
    turns = []
    for n, (question, answer) in enumerate(pairs):
        if n == 0:
            question = f"{IMAGE_TOKEN}\n{question}" if rng.random() < 0.5 else f"{question}\n{IMAGE_TOKEN}"
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns}


def check_record(record: dict) -> None:
    """Raise RecordError, naming the record, unless it has the authors' format (facts: C)."""
    name = record.get("id") if isinstance(record, dict) else None
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(name, str) or not isinstance(turns, list) or not turns or len(turns) % 2:
        raise RecordError(f"record {name!r}: needs a string `id` and `conversations` of human and gpt turns in pairs")
    for n, turn in enumerate(turns):
        expected = ("human", "gpt")[n % 2]
        text = turn.get("value") if isinstance(turn, dict) and turn.get("from") == expected else None
        if not isinstance(text, str) or not text.strip():
            raise RecordError(f"record {name}: turn {n} must be a {expected} turn with text")
    images = [t["value"].count(IMAGE_TOKEN) for t in turns]
    expected = 1 if "image" in record else 0
    if sum(images) != expected or images[0] != expected:
        raise RecordError(f"record {name}: {sum(images)} {IMAGE_TOKEN} tokens, expected {expected}, in the first turn")


def write_records(records: Iterable[dict], path: Path) -> int:
    """Write records as one JSON list, whole or not at all, with one record in memory. Returns their number."""
    count = 0
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(("," if count else "[") + "\n " + json.dumps(record, indent=1).replace("\n", "\n "))
            count += 1
        file.write("\n]" if count else "[]")
    return count


def read_records(path: Path) -> list[dict]:
    """The records of a LLaVA JSON file, each checked. Raises RecordError naming the file or the record."""
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not a JSON file of records ({error})") from error
    if not isinstance(records, list):
        raise RecordError(f"{path}: expected a list of records, found {type(records).__name__}")
    for record in records:
        check_record(record)
    return records


def points_outside(image: str) -> bool:
    """Whether a record's image path is empty or could point outside the image folder, judged by its text alone."""
    return not image or Path(image).is_absolute() or ".." in Path(image).parts or "\\" in image or "\0" in image

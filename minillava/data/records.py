"""Instruction records in the authors' JSON: what a teacher's reply becomes, and what every dataset is read from.

Notable: one image token in the first human turn, before or after the question at random (Eq. 2), baked into the record
as in the authors' files; a record that breaks the format is refused with its id and what is wrong.

    {"id": "train-000000", "image": "train-000000.png", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}
"""

import json
import random
from collections.abc import Iterable
from pathlib import Path

from minillava.errors import UserError
from minillava.files import whole

IMAGE_TOKEN = "<image>"  # where a record's picture stands; a caption that is nothing else is empty


class RecordError(UserError):
    """A record or reply that breaks the format; the message names it."""


def make_record(name: str, image: str, pairs: list[tuple[str, str]], rng: random.Random) -> dict:
    """One record; the image stands before or after the first question at random (Eq. 2)."""
    turns = []
    for n, (question, answer) in enumerate(pairs):
        if n == 0:
            question = f"{IMAGE_TOKEN}\n{question}" if rng.random() < 0.5 else f"{question}\n{IMAGE_TOKEN}"
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns}


def _is_text(value) -> bool:
    return isinstance(value, str) and bool(value.strip())


def check_record(record: dict) -> None:
    """Raise RecordError, naming the record, unless it is of the authors' format (facts: C)."""
    name = record.get("id") if isinstance(record, dict) else None
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(name, str) or not isinstance(turns, list) or not turns or len(turns) % 2:
        raise RecordError(f"record {name!r}: needs a string `id` and `conversations` of human and gpt turns in pairs")
    for n, turn in enumerate(turns):
        expected = ("human", "gpt")[n % 2]
        if not isinstance(turn, dict) or turn.get("from") != expected or not _is_text(turn.get("value")):
            raise RecordError(f"record {name}: turn {n} must be a {expected} turn with text")
    images = [t["value"].count(IMAGE_TOKEN) for t in turns]
    expected = 1 if "image" in record else 0
    if sum(images) != expected or images[0] != expected:
        raise RecordError(f"record {name}: {sum(images)} {IMAGE_TOKEN} tokens, expected {expected}, in the first turn")


def write_records(records: Iterable[dict], path: Path) -> int:
    """All records as one JSON list, one after another, whole or not at all; returns how many they are."""
    count = 0
    with whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(("," if count else "[") + "\n " + json.dumps(record, indent=1).replace("\n", "\n "))
            count += 1
        file.write("\n]" if count else "[]")
    return count


def read_records(path: Path) -> list[dict]:
    """The records of a LLaVA JSON file, each checked. Raises RecordError with the file and what is wrong."""
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not a JSON file of records ({error})") from error
    if not isinstance(records, list):
        raise RecordError(f"{path}: expected a list of records, found {type(records).__name__}")
    for record in records:
        check_record(record)
    return records


def leaves(image: str) -> bool:
    """Whether a relative path could lead out of its folder, by its words alone."""
    return not image or Path(image).is_absolute() or ".." in Path(image).parts or "\\" in image or "\0" in image

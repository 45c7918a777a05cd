"""Instruction records: the one form that everything here reads, and how the field's other forms become it.

    {"id": "train-000000", "image": "train-000000.png", "conversations": [{"from": "human", "value": "..."}, ...]}

Human and gpt turns alternate. `<image>` is the place of a picture, in any human turn; `image` is a list where a record
has several pictures, and absent where it has none. The records made here have one picture, before or after the first
question at random (Eq. 2). Its place is fixed in the record, as in the authors' files.

`normalise` reads the forms of LLaVA, ShareGPT, LLaMA-Factory, ms-swift and TRL. It says what it changed, and refuses
what cannot become a record without guessing.
"""

import json
import random
import re
from collections.abc import Iterable
from pathlib import Path

from minillava.errors import UserError
from minillava.files import REPEATED, atomic_write

IMAGE_TOKEN = "<image>"  # the place of a picture
ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}
TURNS = ("conversations", "messages")  # where the turns are
FORM = "other keys, roles or parts of messages become `conversations`"
SYSTEM = "a system message is left out"
HALF = re.compile("[\ud800-\udfff]")  # half of a character (a lone surrogate), which UTF-8 and tokenizers refuse


class RecordError(UserError):
    """A record that breaks the format; the message names it."""


def make_record(name: str, image: str, pairs: list[tuple[str, str]], rng: random.Random) -> dict:
    """One record from (question, answer) pairs; the image is before or after the first question at random (Eq. 2)."""
    turns = []
    for n, (question, answer) in enumerate(pairs):
        if n == 0:
            question = f"{IMAGE_TOKEN}\n{question}" if rng.random() < 0.5 else f"{question}\n{IMAGE_TOKEN}"
        turns += [{"from": "human", "value": whole(question)}, {"from": "gpt", "value": whole(answer)}]
    return {"id": name, "image": image, "conversations": turns}


def write_records(records: Iterable[dict], path: Path) -> int:
    """Write records as one JSON list, whole or not at all, with one record in memory. Returns their number."""
    count = 0
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(("," if count else "[") + "\n " + json.dumps(record, indent=1).replace("\n", "\n "))
            count += 1
        file.write("\n]" if count else "[]")
    return count


def points_outside(image: str) -> bool:
    """Whether a record's image path is empty or could point outside the image folder, judged by its text alone."""
    return not image or Path(image).is_absolute() or ".." in Path(image).parts or "\\" in image or "\0" in image


def pictures_of(record: dict) -> list[str]:
    """The pictures of a record in reading order; none, one or several."""
    image = record.get("image")
    return image if isinstance(image, list) else [] if image is None else [image]


def whole(text: str) -> str:
    """The text with a U+FFFD for each half of a character; two halves that belong together become the character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if HALF.search(text) else text


def normalise(raw: object, number: int = 0) -> tuple[dict, list[str]]:
    """A record of any form as a record of ours, and what was changed; without changes, `raw` itself.

    number: its place in the file, which names a record without an id. A system message is left out, because all samples
    have the template's. Turns before the first question are skipped, and so is a last question without an answer. A
    picture without `<image>` goes first in the first question. Other keys are kept as they are.
    Raises RecordError with the cause alone, which is the same text for all records with this fault.
    """
    lists = [raw[key] for key in TURNS if isinstance(raw.get(key), list)] if isinstance(raw, dict) else []
    given = next(filter(None, lists), [])
    if not given or not all(isinstance(turn, dict) for turn in given):
        raise RecordError("not a JSON object with a list of turns in `conversations` or `messages`")
    if any(REPEATED in some for some in (raw, *given)):
        raise RecordError("a key appears twice, with different values")
    if any(raw.get(key) for key in ("video", "videos", "audio", "audios")):
        raise RecordError("video or sound, which LLaVA does not read")
    if raw.get("history") or raw.get("objects") or any(turn.get("tool_calls") for turn in given):
        raise RecordError("`history`, `objects` or `tool_calls`, which are not read here")
    if any(some and some != given for some in lists):
        raise RecordError("different turns in `conversations` and `messages`")
    changes = {SYSTEM} if raw.get("system") else set()
    turns, inside = [], []  # (role, text); the names of pictures inside messages
    for turn in given:
        role, value = turn.get("from") or turn.get("role"), turn.get("value")
        if not isinstance(role, str) or role not in ROLES:
            raise RecordError("a turn is neither human's nor gpt's")
        if ROLES[role] == "gpt" and (turn.get("loss") is False or turn.get("weight") == 0):
            raise RecordError("an answer that is not to be learned (`loss`, `weight`)")
        parts = turn.get("content") if value is None else value
        text = _joined(parts, inside, changes) if isinstance(parts, list) else _text(parts, changes)
        ours = given is raw.get("conversations") and turn.get("from") in ("human", "gpt", "system")
        if not ours or value is None or isinstance(parts, list):
            changes.add(FORM)
        turns.append((ROLES[role], _clean(text, changes)))
    texts = _paired(turns, changes)
    pictures, places = _pictures(raw, inside, changes), sum(text.count(IMAGE_TOKEN) for text in texts)
    if pictures and not places:
        texts[0] = f"{IMAGE_TOKEN}\n" * len(pictures) + texts[0]
        changes.add("a picture without `<image>` in the text goes first")
    elif len(pictures) != places:
        raise RecordError("`<image>` appears more or less often than there are pictures")
    name = _clean(_name(raw.get("id"), number, changes), changes)
    if not changes:
        return raw, []
    record = {"id": name} | ({"image": pictures if len(pictures) > 1 else pictures[0]} if pictures else {})
    record["conversations"] = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
    read = {*record, *TURNS, "image", "images", "system"}
    return record | {key: value for key, value in raw.items() if key not in read}, sorted(changes)


def _text(value: object, changes: set[str]) -> str:
    """The text of a turn, or of a part of a message."""
    if _is_number(value):
        changes.add("a turn that is a number becomes text")
        return str(value)
    if value is not None and not isinstance(value, str):
        raise RecordError("a turn that is not text")
    return value or ""


def _joined(parts: list, inside: list, changes: set[str]) -> str:
    """The text of a message in parts: pictures become `<image>`, and their names go to `inside`."""
    texts = []
    for part in parts:
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("image", "image_url"):
            inside.append(part.get(kind) or part.get("path") or part.get("url"))
        elif kind != "text":
            raise RecordError("a part of a message is neither text nor a picture")
        texts.append(_text(part.get("text"), changes) if kind == "text" else IMAGE_TOKEN)
    return "\n".join(filter(None, texts))


def _clean(text: str, changes: set[str]) -> str:
    """The text with line feeds alone at its lines' ends, and without halves of characters."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    changes |= {"line ends become line feeds"} if lines != text else set()
    changes |= {"half a character (a lone surrogate) becomes U+FFFD"} if HALF.search(text) else set()
    return whole(lines)


def _paired(turns: list[tuple[str, str]], changes: set[str]) -> list[str]:
    """The texts from the first question to the last answer. Raises RecordError unless they alternate and have text."""
    dropped = []
    while turns and turns[0][0] != "human":
        changes.add(SYSTEM if turns[0][0] == "system" else "turns before the first question are left out")
        dropped.append(turns.pop(0)[1])
    if turns and turns[-1][0] == "human":
        changes.add("a last question without an answer is left out")
        dropped.append(turns.pop()[1])
    texts = [text for _, text in turns]
    if not turns or len(turns) % 2 or any(role != ("human", "gpt")[n % 2] for n, (role, _) in enumerate(turns)):
        raise RecordError("no question and answer, or turns that do not alternate")
    if not all(text.strip() for text in texts):
        raise RecordError("an empty question or answer")
    if any(IMAGE_TOKEN in text for text in dropped + texts[1::2]):
        raise RecordError("`<image>` in an answer, or in a turn that is left out")
    return texts


def _pictures(raw: dict, inside: list, changes: set[str]) -> list[str]:
    """The names of a record's pictures, wherever they stand."""
    found = []
    for value in (raw.get("image"), raw.get("images"), inside):
        some = value if isinstance(value, list) else [value]
        some = [next((p[k] for k in ("path", "url") if p.get(k)), p) if isinstance(p, dict) else p for p in some]
        some = [p for p in some if p is not None and p != "" and p == p]  # pandas writes NaN for nothing
        if some and found and some != found:
            raise RecordError("different pictures under several keys")
        found = found or some
    if not all(isinstance(name, str) and not HALF.search(name) for name in found):
        raise RecordError("the name of a picture is not text")
    if any(map(points_outside, found)):
        raise RecordError("a picture outside the image folder")
    if not found and ("image" in raw or "images" in raw):
        changes.add("an empty `image` means no picture")
    elif found and raw.get("image") != (found if len(found) > 1 else found[0]):
        changes.add("pictures in a list, in `images` or inside messages go to `image`")
    return found


def _name(value: object, number: int, changes: set[str]) -> str:
    """A record's id as text; its number where it has none that can be used."""
    if isinstance(value, str):
        return value
    if not _is_number(value):
        what = "without an id" if value is None else "whose id is neither a text nor a number"
        changes.add(f"a record {what} gets its number")
        return f"number {number}"
    changes.add("an id that is a number becomes text")
    return str(int(value) if value == int(value) else value)


def _is_number(value: object) -> bool:
    """Whether it is a number that a person may have written."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300

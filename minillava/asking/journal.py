"""Requests and replies on disk, so that nothing is lost and nothing is paid for twice.

Two append-only files: `replies.jsonl` has one line per finished request, written when the reply arrives and then
fsynced; `asked.jsonl` has a line before every attempt and one after each that cost nothing. An attempt with neither a
reply nor such a line (a time-out, a kill in mid-flight) may have been billed and counts as spent. An incomplete last
line, left by a kill, is cut off. One process at a time. A file of `ROOM` bytes is given up when the disk is full, so
that replies to requests already sent, which are paid for, can still be kept.

    python -c "from minillava.asking import Journal; j = Journal('asked'); print(len(j.replies), j.spent)"
"""

import json
import os
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from minillava.asking.errors import AskingError
from minillava.asking.reading import final_text, finish_of
from minillava.asking.request import MOST_TOKENS, Reply
from minillava.files import flush_to_disk

REPLIES, ASKED = "replies.jsonl", "asked.jsonl"
ROOM = 4 * 1024 * 1024  # bytes, for replies to requests already sent


class Cost(NamedTuple):
    """Tokens and US dollars. usd: None without a known price; a sum leaves it out."""

    prompt: int = 0
    completion: int = 0
    usd: float | None = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.prompt + other.prompt, self.completion + other.completion, self.usd + (other.usd or 0.0))

    def __sub__(self, other: "Cost") -> "Cost":
        return self + Cost(-other.prompt, -other.completion, -(other.usd or 0.0))

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion


class JsonLines:
    """An append-only file with one JSON object per line. Opening it cuts off an incomplete last line (`truncated`).

    Raises AskingError naming the file when it cannot be read or written, and the line when an earlier one is broken.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            new = not self.path.exists()
            as_is = getattr(os, "O_BINARY", 0)  # on Windows, where each line break would become two bytes
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | as_is, 0o644)
            if new:
                flush_to_disk(self.path.parent)
            data = self.path.read_bytes()
        except OSError as error:
            raise AskingError(f"{self.path}: cannot be opened for writing ({error.strerror})") from error
        self.rows, self.size = _parse(data, self.path)
        self.truncated = self.size < len(data)
        if self.truncated:
            os.ftruncate(self.file, self.size)

    def append(self, *rows: dict) -> None:
        """Write lines, all or none. They survive a kill of this process at once, and a power cut after `sync`."""
        data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        try:
            written = os.write(self.file, data)
            if written != len(data):
                os.ftruncate(self.file, self.size)
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise AskingError(f"{self.path}: cannot be written ({error.strerror}); what is in it is kept") from error
        self.size += len(data)

    def close(self) -> None:
        os.close(self.file)


def _parse(data: bytes, path: Path) -> tuple[list[dict], int]:
    """The rows of a file, and how many of its bytes are complete lines."""
    rows, size, lines = [], 0, data.split(b"\n")[:-1]  # after the last line break is nothing, or an incomplete line
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
            if not isinstance(row, dict | None):
                raise ValueError
        except (ValueError, RecursionError):
            if number == len(lines):  # a kill or a power cut interrupted its writing
                break
            raise AskingError(f"{path}: line {number} is not JSON; remove that line, then run again") from None
        rows += [] if row is None else [row]
        size += len(line) + 1
    return rows, size


def read_replies(path: Path) -> dict[str, Reply]:
    """The replies of a recorded `replies.jsonl` by key, without locking or changing it, to replay in a notebook.

    Raises AskingError naming file and line.
    """
    try:
        rows, _ = _parse(Path(path).read_bytes(), Path(path))
    except OSError as error:
        raise AskingError(f"{path}: cannot be read ({error.strerror})") from error
    return dict(_reply(row, Path(path)) for row in rows)


def _is_usd(value: object) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value < MOST_TOKENS)


def _reply(row: dict, path: Path) -> tuple[str, Reply]:
    kinds = {"key": str, "text": str, "finish": str, "model": str, "prompt_tokens": int, "completion_tokens": int}
    wrong = [name for name, kind in kinds.items() if type(row.get(name)) is not kind]
    wrong += ["refusal"] * (not isinstance(row.get("refusal"), str | None)) + ["usd"] * (not _is_usd(row.get("usd")))
    if wrong:
        raise AskingError(f"{path}: a line has no valid {wrong[0]!r}; this is not a file of replies")
    not_sent = tuple(map(str, row.get("not_sent") or ())) if isinstance(row.get("not_sent"), list | None) else ()
    text = final_text(row["text"])  # an older version kept thoughts
    reply = {name: row[name] for name in kinds if name != "key"} | {"text": text, "refusal": row.get("refusal")}
    return row["key"], Reply(**reply | {"finish": finish_of(row["finish"]) or row["finish"]}, not_sent=not_sent)


def _attempt(row: dict, path: Path) -> tuple[str, Cost | None]:
    """(key, cost) of a line of asked.jsonl; None: the attempt cost nothing."""
    cost = row.get("free", row.get("most"))
    known = isinstance(cost, list) and [type(n) for n in cost[:2]] == [int, int] and len(cost) == 3 and _is_usd(cost[2])
    if type(row.get("key")) is not str or not (known or (cost is None and "free" in row)):
        raise AskingError(f"{path}: {json.dumps(row)[:80]} does not belong here; remove that line, then run again")
    return row["key"], Cost(*cost) if cost else None


class Journal:
    """The replies of one folder. `with Journal(folder) as journal:` holds its lock; a second process gets AskingError.

    replies: key -> Reply. spent: the cost of everything so far, in which each attempt of unknown outcome (`unsettled`)
    counts with the most that it can have cost. truncated: an incomplete last reply was cut off.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(self.folder / ".lock")
            self.lock.acquire(timeout=0)
        except Timeout:
            raise AskingError(f"{self.folder}: another process is at work in this folder; wait for it") from None
        except (OSError, NotImplementedError) as error:
            raise AskingError(f"{self.folder}: cannot be written to ({error})") from error
        try:
            self._replies, self._asked = JsonLines(self.folder / REPLIES), JsonLines(self.folder / ASKED)
            replies = [_reply(row, self._replies.path) for row in self._replies.rows]
            self.replies = {key: reply for key, reply in replies if reply.usable}  # the others are asked again
            self.spent, self.unsettled, self._full = Cost(), 0, False
            self._count()
        except AskingError:
            self.lock.release()
            raise
        self.truncated = self._replies.truncated

    def _count(self) -> None:
        attempts: dict[str, list[Cost]] = defaultdict(list)  # by key, the most that each open attempt can have cost
        for row in self._asked.rows:
            key, cost = _attempt(row, self._asked.path)
            if "free" in row:
                self.spent += cost or Cost()
                del attempts[key][-1:]
            else:
                attempts[key].append(cost)
        for row in self._replies.rows:
            self.spent += Cost(row["prompt_tokens"], row["completion_tokens"], row.get("usd"))
            del attempts[row["key"]][-1:]
        for most in chain.from_iterable(attempts.values()):
            self.attempt_lost(most)
        self._asked.rows = self._replies.rows = []

    def keep_room(self) -> None:
        """Set disk space aside for replies to requests already sent. Raises AskingError when there is none."""
        try:
            with open(self.folder / ".room", "wb") as file:
                file.write(bytes(ROOM))  # written, because a hole in a file takes no space
        except OSError as error:
            (self.folder / ".room").unlink(missing_ok=True)
            raise AskingError(f"{self.folder}: no room for the replies ({error.strerror}); nothing was sent") from error

    def _append(self, file: JsonLines, row: dict) -> None:
        """Write a line, if need be into the space set aside."""
        try:
            file.append(row)
        except AskingError:
            if not (self.folder / ".room").exists():
                raise
            (self.folder / ".room").unlink()
            self._full = True
            file.append(row)

    def begin_attempt(self, key: str, most: Cost) -> None:
        """Note that an attempt is about to be sent. most: what it can cost at the most."""
        if not self._full:
            self._append(self._asked, {"key": key, "most": most})
        if self._full:
            raise AskingError(f"{self.folder}: the disk is full (No space left on device); the replies so far are kept")

    def attempt_lost(self, most: Cost) -> None:
        """The last attempt got no answer and may have been billed: count the most it can cost as spent."""
        self.spent += most
        self.unsettled += 1

    def attempt_settled(self, key: str, cost: Cost | None = None) -> None:
        """Note that the last attempt brought no usable reply, and that it cost nothing or exactly `cost`."""
        self._append(self._asked, {"key": key, "free": cost})
        self.spent += cost or Cost()

    def add(self, key: str, reply: Reply, usd: float | None, **more) -> None:
        """Keep a reply. `more` goes into the same line (a name, where it came from). Durable after `sync`."""
        self._append(self._replies, {"key": key, **more, **reply.row(), "usd": usd})
        self.replies[key] = reply
        self.spent += Cost(reply.prompt_tokens, reply.completion_tokens, usd)

    def sync(self) -> None:
        try:
            os.fsync(self._replies.file)
        except OSError as error:
            raise AskingError(f"{self._replies.path}: cannot be written to disk ({error.strerror})") from error

    def close(self) -> None:
        (self.folder / ".room").unlink(missing_ok=True)
        self.sync()
        self._replies.close()
        self._asked.close()
        self.lock.release()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self.close()

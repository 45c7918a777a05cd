"""The files of section 5: JSONL read and written whole, and the error that names file and line.

Notable: what makes a whole file useless is a `BenchError`; a single bad row is an `Excluded`, which is named, counted
and left out, so that one bad row neither stops an evaluation nor slips into a mean.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from minillava.errors import UserError


class BenchError(UserError):
    """Files of a benchmark that cannot be used, or do not fit together; the message names file, line or question."""


@dataclass(frozen=True)
class Excluded:
    """One row that was left out: what it is called, and why."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


def write_jsonl(rows: list[dict], path: Path) -> None:
    """Rows as JSONL, written beside and renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    beside.replace(path)


def _text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not UTF-8 text ({error.reason})") from error


def read_jsonl(path: Path) -> list[dict]:
    """The rows of a JSONL file; blank lines are skipped. Raises BenchError naming file and line."""
    rows = []
    for n, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also a number of too many digits, or lists in lists in lists
            raise BenchError(f"{path}, line {n}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BenchError(f"{path}, line {n}: expected a JSON object, found {type(row).__name__}")
        rows.append(row)
    return rows


def read_json(path: Path) -> object:
    """The value of a JSON file. Raises BenchError naming it."""
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: not JSON ({error})") from error


def is_id(value: object) -> bool:
    """Whether a question or a picture can be called so: by a number or a text. (True would be taken for 1.)"""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def table(rows: list[dict], path: Path, key: str) -> dict:
    """Rows by their `key`. Raises BenchError for a row without it, for one that is no id, and for one that stands twice."""
    out = {}
    for n, row in enumerate(rows, 1):
        if key not in row:
            raise BenchError(f"{path}, row {n}: no {key!r}; it has {', '.join(sorted(row)) or 'nothing'}")
        if not is_id(row[key]):
            raise BenchError(f"{path}, row {n}: the {key} {str(row[key])[:60]} is neither a number nor a text")
        if row[key] in out:
            raise BenchError(f"{path}: the {key} {row[key]!r} stands twice")
        out[row[key]] = row
    return out

"""Files of records from elsewhere: read one record at a time, and what was taken, changed and left out in one table.

A dataset of 158,000 records has a few bad ones, and one reading finds them all. A file is a JSON list, or JSON lines
with one record each; memory does not grow with its size.

    python -c "from minillava.data.valid import *; print(len(read_records('data_samples/detail.json')))"
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from minillava.data.records import REPEATED, TURNS, RecordError, normalise
from minillava.files import parse_json, too_deep
from minillava.text import aligned, printable

READ_CHUNK = 1 << 20  # characters read at a time
MAX_RECORD = 16 << 20  # characters per record
EXAMPLES = 3  # records named for each cause


class Tally:
    """How many records were read, and for each cause how many were changed or left out, with examples.

    bad: those that count against an allowance. log(record, cause, detail): called for each record that is left out.
    """

    def __init__(self, log: Callable[[str, str, str], None] = lambda *a: None):
        self.read = self.changed = self.left_out = self.bad = 0
        self.causes: dict[str, list] = {}  # "changed: ..." or "left out: ..." -> [count, examples]
        self.log = log

    def change(self, name: str, causes: Iterable[str]) -> None:
        """Count the causes for which one record was changed."""
        for cause in causes:
            self._count(f"changed: {cause}", name)
        self.changed += bool(causes)

    def leave_out(self, name: str, cause: str, detail: str = "", bad: bool = True) -> None:
        """Count one record that is left out. detail: what an example shows instead of the record's name."""
        self._count(f"left out: {cause}", detail or name)
        self.left_out, self.bad = self.left_out + 1, self.bad + bad
        self.log(name, cause, detail)

    def _count(self, cause: str, example: str) -> None:
        count = self.causes.setdefault(cause, [0, []])
        count[0] += 1
        if len(count[1]) < EXAMPLES:
            count[1].append(printable(" ".join(example[:40].split())))

    def table(self, path: Path) -> str:
        """What was taken, changed and left out of a file, for people."""
        taken = self.read - self.left_out
        rows = [(path.name, "records", "for example"), ("taken", f"{taken:,}", "")]
        rows += [(cause, f"{count:,}", ", ".join(some)) for cause, (count, some) in sorted(self.causes.items())]
        width = max(len(row[2]) for row in rows)
        return aligned([(*row[:2], row[2].ljust(width)) for row in rows])


def each_record(path: Path, chunk: int = READ_CHUNK) -> Iterator:
    """The values of a JSON list, or of JSON lines, one by one, with one chunk or line in memory. Raises RecordError.

    A line that is not JSON comes as its text.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(chunk).lstrip()
            while not text and (more := file.read(chunk)):
                text = more.lstrip()
            if text.startswith("["):
                yield from _of_list(file, text, path, chunk)
            elif text.startswith("{"):
                file.seek(0)
                yield from _of_lines(file, path)
            else:
                raise RecordError(f"{path}: expected a JSON list of records, or one record per line")
    except UnicodeDecodeError as error:
        why = "UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else f"not UTF-8 ({error.reason})"
        raise RecordError(f"{path}: not a JSON file of records: it is {why}; save it as UTF-8") from error


def _of_list(file, text: str, path: Path, chunk: int) -> Iterator:
    decoder, at, count = json.JSONDecoder(object_pairs_hook=_object), 1, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if text[at : at + 1] == "]":
            if text[at + 1 :].strip() or file.read(chunk).strip():
                raise RecordError(f"{path}: more than one list; there is text after the first {count} records")
            return
        try:
            record, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:  # perhaps the record continues in the next chunk
            more = file.read(chunk) if len(text) - at <= MAX_RECORD else ""
            if not more:
                spot = getattr(error, "pos", at)
                where = f"after {count} records, at {text[max(at, spot - 40) : spot + 20]!r}"
                raise RecordError(f"{path}: not JSON {where} ({getattr(error, 'msg', error)})") from error
            text, at = text[at:] + more, 0
            continue
        count += 1
        yield None if too_deep(record) else record  # `valid_records` leaves it out


def _of_lines(file, path: Path) -> Iterator:
    lines = (line for line in iter(lambda: file.readline(MAX_RECORD), "") if line.strip())
    for n, line in enumerate(lines):
        try:
            value = parse_json(line, object_pairs_hook=_object)
        except ValueError:
            value = line
        if n == 0 and not (isinstance(value, dict) and any(key in value for key in TURNS)):
            some = f"its keys are {', '.join(map(repr, value))[:200]}" if isinstance(value, dict) else "over many lines"
            advice = "expected a JSON list of records, or one record per line; save the list of records alone"
            raise RecordError(f"{path}: begins with one object ({some}); {advice}")
        yield value


def _object(pairs: list[tuple]) -> dict:
    """A JSON object. Of a key that appears twice Python keeps the last value; where they differ, REPEATED says so."""
    found = dict(pairs)
    if len(found) < len(pairs) and any(found[key] != value for key, value in pairs):
        found[REPEATED] = True
    return found


def valid_records(records: Iterable, tally: Tally) -> Iterator[dict]:
    """The records that `normalise` can read, one by one; `tally` counts the changes and the others."""
    for number, raw in enumerate(records):
        tally.read += 1
        try:
            record, changes = normalise(raw, number)
        except RecordError as error:
            name = raw.get("id") if isinstance(raw, dict) else None
            tally.leave_out(f"number {number}" if name is None else str(name), str(error))
        else:
            tally.change(record["id"], changes)
            yield record


def read_records(path: Path) -> list[dict]:
    """The records of a file, as `normalise` reads them; changes are shown. Raises RecordError unless all are valid."""
    tally = Tally()
    records = list(valid_records(each_record(path), tally))
    if tally.bad:
        raise RecordError(f"{path}: {tally.bad:,} of {tally.read:,} records cannot be used\n{tally.table(Path(path))}")
    if tally.changed:
        print(tally.table(Path(path)), file=sys.stderr)
    return records

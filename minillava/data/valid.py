"""Files of records from elsewhere: read one record at a time, and what was taken, changed and left out in one table.

A dataset of 158,000 records has a few bad ones, and one reading finds them all. A file is a JSON list, or JSON lines
with one record each; memory does not grow with its size.

    python -c "from minillava.data.valid import *; print(len(read_records('data_samples/detail.json')))"
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from minillava.data.records import TURNS, RecordError, normalise
from minillava.files import READ_CHUNK, each_value
from minillava.text import aligned, printable

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
    """The values of a JSON list, or of JSON lines, one by one (`files.each_value`). Raises FileError."""
    return each_value(path, TURNS, chunk)


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

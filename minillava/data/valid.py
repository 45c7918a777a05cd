"""Records from elsewhere, read and checked one by one: the valid ones, and the reason for each of the others.

A dataset of 158,000 records has a few bad ones, and one reading finds them all. A file is read one record at a time, so
memory does not grow with its size.

    problems = []; count = sum(1 for _ in valid_records(each_record("stage2.json"), problems)); print(listed(problems))
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from minillava.data.records import RecordError, check_record, points_outside

READ_CHUNK = 1 << 20  # characters read at a time
MAX_RECORD = 16 << 20  # characters per record


def each_record(path: Path, chunk: int = READ_CHUNK) -> Iterator:
    """The values of a JSON list one by one, with one chunk of the file in memory. Raises RecordError."""
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8") as file:
        try:
            text, at, count = file.read(chunk).lstrip(), 1, 0
            if not text.startswith("["):
                raise RecordError(f"{path}: expected a JSON list of records")
            while True:
                while at < len(text) and text[at] in " \t\r\n,":
                    at += 1
                if text[at : at + 1] == "]":
                    return
                try:
                    record, at = decoder.raw_decode(text, at)
                except json.JSONDecodeError as error:  # perhaps the record continues in the next chunk
                    more = file.read(chunk) if len(text) - at <= MAX_RECORD else ""
                    if not more:
                        raise RecordError(f"{path}: not JSON after {count} records ({error.msg})") from error
                    text, at = text[at:] + more, 0
                    continue
                count += 1
                yield record
        except UnicodeDecodeError as error:
            raise RecordError(f"{path}: not a JSON file of records ({error})") from error


def check_untrusted(record) -> None:
    """Raise RecordError, naming it, unless a record has the authors' format and its picture is in the image folder."""
    check_record(record)
    image = record.get("image")
    if "image" in record and (not isinstance(image, str) or points_outside(image)):
        raise RecordError(f"record {record['id']}: the image path {image!r} is missing or outside the image folder")


def valid_records(records: Iterable, problems: list[str]) -> Iterator[dict]:
    """The records that `check_untrusted` accepts, one by one; `problems` gets one line for each of the others."""
    for number, record in enumerate(records):
        try:
            check_untrusted(record)
        except RecordError as error:
            problems.append(f"number {number}: {error}")
        else:
            yield record

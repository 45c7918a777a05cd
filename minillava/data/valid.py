"""Records from elsewhere, read and checked one by one: the good ones, and what is wrong with the others.

Notable: a dataset of 158,000 records has a few bad ones; all of them are found in one reading, the first ten are named,
the rest counted. A file is read a record at a time, so memory does not grow with it.

    problems = []; count = sum(1 for _ in good(each_record("stage2.json"), problems)); print(listed(problems))
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from minillava.data.records import RecordError, check_record, leaves

NAMED = 10  # problems that are named
CHUNK = 1 << 20  # characters of the file that are read at once
LARGEST = 16 << 20  # characters of one record


def each_record(path: Path, chunk: int = CHUNK) -> Iterator:
    """The values of a JSON list one after another, a chunk of the file in memory. Raises RecordError for another form."""
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8") as file:
        try:
            text, at, begun = file.read(chunk).lstrip(), 1, 0
            if not text.startswith("["):
                raise RecordError(f"{path}: expected a JSON list of records")
            while True:
                while at < len(text) and text[at] in " \t\r\n,":
                    at += 1
                if text[at : at + 1] == "]":
                    return
                try:
                    record, at = decoder.raw_decode(text, at)
                except json.JSONDecodeError as error:  # perhaps only because the record goes on in the next chunk
                    more = file.read(chunk) if len(text) - at <= LARGEST else ""
                    if not more:
                        raise RecordError(f"{path}: not JSON after {begun} records ({error.msg})") from error
                    text, at = text[at:] + more, 0
                    continue
                begun += 1
                yield record
        except UnicodeDecodeError as error:
            raise RecordError(f"{path}: not a JSON file of records ({error})") from error


def check(record) -> None:
    """Raise RecordError, naming it, unless a record is of the authors' format and its picture lies within its folder."""
    check_record(record)
    image = record.get("image")
    if "image" in record and (not isinstance(image, str) or leaves(image)):
        raise RecordError(f"record {record['id']}: the image path {image!r} is none, or leaves the image folder")


def good(records: Iterable, problems: list[str]) -> Iterator[dict]:
    """The records of the authors' format, one after another; a line for each of the others goes into `problems`."""
    for number, record in enumerate(records):
        try:
            check(record)
        except RecordError as error:
            problems.append(f"number {number}: {error}")
        else:
            yield record

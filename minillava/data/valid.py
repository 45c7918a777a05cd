"""Records from elsewhere, checked one by one: the good ones, and what is wrong with the others.

Notable: a dataset of 158,000 records has a few bad ones; all of them are found in one reading, the first ten are named,
the rest counted.

    good, problems = validate(json.loads(text)); print(listed(problems))
"""

from minillava.datagen.pictures import leaves
from minillava.datagen.records import RecordError, check_record

NAMED = 10  # problems that are named


def check(record) -> None:
    """Raise RecordError, naming it, unless a record is of the authors' format and its picture lies within its folder."""
    check_record(record)
    image = record.get("image")
    if "image" in record and (not isinstance(image, str) or leaves(image)):
        raise RecordError(f"record {record['id']}: the image path {image!r} is none, or leaves the image folder")


def validate(records: list) -> tuple[list[dict], list[str]]:
    """The records of the authors' format, and a line for each of the others."""
    good, problems = [], []
    for number, record in enumerate(records):
        try:
            check(record)
            good.append(record)
        except RecordError as error:
            problems.append(f"number {number}: {error}")
    return good, problems


def listed(problems: list[str]) -> str:
    """The first ten, a line each, and how many more there are."""
    more = len(problems) - NAMED
    return "\n".join(f"  {line}" for line in problems[:NAMED]) + (f"\n  and {more:,} more" if more > 0 else "")

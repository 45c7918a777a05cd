"""The Batch form of the API: half the price, answers within a day. Write its input files, read its output files.

Notable: `custom_id` is the key of the request, so replies may come back in any order and in any number of files, and
land in the same journal as if they had been asked one by one: same parser, same records, nothing asked twice.

    python -c "from minillava.asking import *; print(write_batch([chat('gpt-4o', [{'role': 'user', 'content': 'Hi'}])], '/tmp/batch'))"
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from minillava.asking.journal import Journal
from minillava.asking.money import BATCH, Price
from minillava.asking.request import AskingError, BadReply, key, read_reply
from minillava.files import write_text

URL = "/v1/chat/completions"
MOST_LINES, MOST_BYTES = 50_000, 190_000_000  # of one input file; the API takes 50,000 lines and 200 MB


def write_batch(bodies: list[dict], folder: Path) -> list[Path]:
    """Write requests, each different one once, as batch input files `batch-000.jsonl`, ... Returns their paths.

    Each is written beside and renamed. Raises AskingError when the folder cannot be written to.
    """
    folder, paths, lines, size = Path(folder), [], [], 0
    unique = list({key(body): body for body in bodies}.items())
    try:
        for n, (name, body) in enumerate(unique):
            lines.append(json.dumps({"custom_id": name, "method": "POST", "url": URL, "body": body}) + "\n")
            size += len(lines[-1])
            if n + 1 == len(unique) or len(lines) == MOST_LINES or size > MOST_BYTES:
                path = folder / f"batch-{len(paths):03d}.jsonl"
                write_text(path, "".join(lines))
                paths, lines, size = [*paths, path], [], 0
    except OSError as error:
        raise AskingError(f"{folder}: cannot be written to ({error.strerror})") from error
    return paths


@dataclass
class Taken:
    """What came out of batch output files. failures: key -> reason; unknown: custom_ids that were not asked for."""

    replies: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def read_batch(paths: list[Path], bodies: list[dict], journal: Journal, price: Price | None = None) -> Taken:
    """File the replies of batch output (and error) files in the journal, at the batch price. bodies: what was asked.

    A reply that is there already is not filed again. Raises AskingError naming the file and line of what is not a batch
    output line; what stands before it is kept.
    """
    asked, taken = {key(body): body for body in bodies}, Taken()
    try:
        for path in paths:
            with open(path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        _take(_row(line, path, number), asked, journal, price, taken)
    except OSError as error:
        raise AskingError(f"{error.filename}: cannot be read ({error.strerror})") from error
    finally:
        journal.sync()
    taken.failures = {k: why for k, why in taken.failures.items() if k not in journal.replies}
    return taken


def _row(line: bytes, path: Path, number: int) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str) or "response" not in row:
        raise AskingError(f"{path}: line {number} is not a line of batch output (`custom_id`, `response`, `error`)")
    return row


def _take(row: dict, asked: dict[str, dict], journal: Journal, price: Price | None, taken: Taken) -> None:
    name, response = row["custom_id"], row["response"]
    if name not in asked:
        taken.unknown.append(name)
    elif name in journal.replies:
        taken.reused += 1
    elif not isinstance(response, dict) or response.get("status_code") != 200:
        said = row.get("error") or (response.get("body") if isinstance(response, dict) else None) or {}
        said = said.get("error", said) if isinstance(said, dict) else {}
        taken.failures[name] = f"batch: {said.get('message') or said.get('code') or 'no response'}"
    else:
        try:
            reply = read_reply(response.get("body"), asked[name])
        except BadReply as error:
            taken.failures[name] = f"batch: {error}"
            return
        usd = price.of(reply.prompt_tokens, reply.completion_tokens) * BATCH if price else None
        journal.keep(name, reply, usd, batch=True)
        taken.replies += 1

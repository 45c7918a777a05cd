"""The Batch API: half the price, answers within a day. Write its input files, read its output files.

`custom_id` is the key of the request, so replies may come back in any order and in any number of files. They go into
the same journal as if they had been asked one by one: same parser, same records, nothing asked twice.

    python -c "from minillava.asking import *; write_batch([chat_request('gpt-4o', [])], 'batch')"
"""

import json
from pathlib import Path

from minillava.asking.ask import Outcome
from minillava.asking.errors import AskingError, BadReply, Rejected, Unbilled
from minillava.asking.journal import Journal
from minillava.asking.money import BATCH_SHARE, Price
from minillava.asking.reading import error_words, read_reply
from minillava.asking.request import request_key
from minillava.files import write_text

URL = "/v1/chat/completions"
MAX_LINES, MAX_BYTES = 50_000, 190_000_000  # per input file; the API takes 50,000 lines and 200 MB


def write_batch(bodies: list[dict], folder: Path) -> list[Path]:
    """Write each different request once, into batch input files `batch-000.jsonl`, ... Returns their paths.

    Raises AskingError when the folder cannot be written to.
    """
    folder, paths, lines, size = Path(folder), [], [], 0
    unique = list({request_key(body): body for body in bodies}.items())
    try:
        for n, (name, body) in enumerate(unique):
            lines.append(json.dumps({"custom_id": name, "method": "POST", "url": URL, "body": body}) + "\n")
            size += len(lines[-1])
            if n + 1 == len(unique) or len(lines) == MAX_LINES or size > MAX_BYTES:
                path = folder / f"batch-{len(paths):03d}.jsonl"
                write_text(path, "".join(lines))
                paths, lines, size = [*paths, path], [], 0
    except OSError as error:
        raise AskingError(f"{folder}: cannot be written to ({error.strerror})") from error
    return paths


def read_batch(paths: list[Path], bodies: list[dict], journal: Journal, price: Price | None = None) -> Outcome:
    """Put the replies of batch output (and error) files into the journal, at the batch price. bodies: what was asked.

    Replies that the journal has are not added again. Raises AskingError naming file and line where a line is not batch
    output; the replies before it are kept.
    """
    asked, before = {request_key(body): body for body in bodies}, journal.spent
    outcome = Outcome(reused=len(asked.keys() & journal.replies.keys()))
    try:
        for path in paths:
            with open(path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        _add(_row(line, path, number), asked, journal, price, outcome)
    except OSError as error:
        raise AskingError(f"{error.filename}: cannot be read ({error.strerror})") from error
    finally:
        journal.sync()
    return outcome.finish(asked, journal, before)


def _row(line: bytes, path: Path, number: int) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str) or "response" not in row:
        raise AskingError(f"{path}: line {number} is not a line of batch output (`custom_id`, `response`, `error`)")
    return row


def _add(row: dict, asked: dict[str, dict], journal: Journal, price: Price | None, outcome: Outcome) -> None:
    name, response = row["custom_id"], row["response"] if isinstance(row["response"], dict) else {}
    if name not in asked:
        outcome.unknown += 1
    elif name in journal.replies:
        return
    elif response.get("status_code") != 200:
        said = row.get("error") or response.get("body")
        outcome.failures[name] = f"batch: {error_words(said) if said else 'no response'}"
    else:
        try:
            reply = read_reply(response.get("body"), asked[name])
        except (BadReply, Rejected, Unbilled, AskingError) as error:
            outcome.failures[name] = f"batch: {error}"
            return
        usd = price.of(reply.prompt_tokens, reply.completion_tokens) * BATCH_SHARE if price else None
        journal.add(name, reply, usd, batch=True)

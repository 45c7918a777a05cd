"""Which tasks pass on this machine: one small file, written by `check`, read by `minillava progress`. Nothing is sent.

Notable: what counts is the last check of a task. MINILLAVA_PROGRESS names another file than ~/.minillava/progress.json.
"""

import json
import os
from pathlib import Path

from minillava.errors import UserError
from minillava.files import write_json


class ProgressError(UserError):
    """A file of progress that cannot be read; the message names it."""


def path() -> Path:
    """Where it is kept."""
    return Path(os.environ.get("MINILLAVA_PROGRESS") or Path.home() / ".minillava" / "progress.json")


def read() -> dict[str, bool]:
    """Task id -> whether its last check passed. A file that is not JSON of that form raises ProgressError, naming it."""
    home = path()
    if not home.exists():
        return {}
    try:
        found = json.loads(home.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not all(isinstance(v, bool) for v in found.values()):
            raise ValueError("not task ids with true or false")
    except ValueError as error:
        raise ProgressError(f"{home}: not a file of progress ({error}); delete it to begin again") from error
    return found


def note(task_id: str, passed: bool) -> None:
    """Keep what became of a check. Where nothing can be written, that is said, and the check goes on."""
    home = path()
    try:
        write_json(home, dict(sorted((read() | {task_id: passed}).items())))
    except OSError as error:
        print(f"(progress is not kept: {home}: {error.strerror})")

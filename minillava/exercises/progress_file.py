"""The file of progress: which tasks pass on this machine. `check` writes it, `minillava progress` reads it.

The last check of a task counts. Nothing is sent anywhere. The file is MINILLAVA_PROGRESS or ~/.minillava/progress.json.
"""

import json
import os
from pathlib import Path

from minillava.errors import UserError
from minillava.files import write_json


class ProgressError(UserError):
    """A file of progress that cannot be read; the message names it."""


def progress_path() -> Path:
    """Where the file is."""
    return Path(os.environ.get("MINILLAVA_PROGRESS") or Path.home() / ".minillava" / "progress.json")


def read_progress() -> dict[str, bool]:
    """Task id -> whether its last check passed. Raises ProgressError for a file of another form, naming it."""
    home = progress_path()
    if not home.exists():
        return {}
    try:
        found = json.loads(home.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not all(isinstance(v, bool) for v in found.values()):
            raise ValueError("not task ids with true or false")
    except ValueError as error:
        raise ProgressError(f"{home}: not a file of progress ({error}); delete it to begin again") from error
    return found


def note_check(task_id: str, passed: bool) -> None:
    """Store the outcome of a check. When the file cannot be written, print that and return."""
    home = progress_path()
    try:
        write_json(home, dict(sorted((read_progress() | {task_id: passed}).items())))
    except OSError as error:
        print(f"(progress is not kept: {home}: {error.strerror})")

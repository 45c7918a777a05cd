"""The file of progress: which tasks pass on this machine. `check` writes it, `minillava progress` reads it.

The last check of a task counts. Nothing is sent anywhere. The file is MINILLAVA_PROGRESS or ~/.minillava/progress.json.
"""

import os
from pathlib import Path

from minillava.files import FileError, read_json, write_json


def progress_path() -> Path:
    return Path(os.environ.get("MINILLAVA_PROGRESS") or Path.home() / ".minillava" / "progress.json")


def read_progress() -> dict[str, bool]:
    """Task id -> whether its last check passed. Raises FileError for a file of another form, naming it."""
    home = progress_path()
    found = read_json(home) if home.exists() else {}
    if not isinstance(found, dict) or not all(isinstance(v, bool) for v in found.values()):
        raise FileError(f"{home}: not task ids with true or false; delete it to begin again")
    return found


def note_check(task_id: str, passed: bool) -> None:
    """Store the outcome of a check. When the file cannot be written, print that and return."""
    home = progress_path()
    try:
        write_json(home, dict(sorted((read_progress() | {task_id: passed}).items())))
    except OSError as error:
        print(f"(progress is not kept: {home}: {error.strerror})")

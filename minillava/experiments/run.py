"""One run in one folder: its recipe, its lock, which steps are done and how long each took.

Notable: a step is done once; started again, a run skips what is done and refuses a folder that holds another recipe.
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from minillava.errors import UserError
from minillava.scales import WEIGHTS, Scale


class RunError(UserError):
    """A run that cannot start or go on; the message says what to do."""


class Run:
    """One run of the paper in one folder: its recipe, its lock, which steps are done and how long each took."""

    def __init__(self, folder: Path, scale: Scale, seeds: int, weights: Path = WEIGHTS):
        self.folder, self.scale, self.weights = Path(folder), scale, Path(weights)
        self.seeds = list(range(seeds))
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"{self.folder} is a file; name a folder with --out")
        for part in ("vision_tower", "language_model"):
            if not (self.weights / part / "model.safetensors").is_file():
                raise RunError(
                    f"{self.weights / part}: no weights here; `make weights` trains them, or check out the whole repository"
                )
        digests = [
            hashlib.sha256((self.weights / p / "model.safetensors").read_bytes()).hexdigest()[:16]
            for p in ("vision_tower", "language_model")
        ]
        self.recipe = {"scale": scale.recipe(), "weights": digests}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.folder / ".lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{self.folder}: another run is at work in this folder; wait for it or name another with --out"
            ) from None
        self.state = {"recipe": self.recipe, "seconds": {}}
        if (self.folder / "state.json").exists():
            self.state = json.loads((self.folder / "state.json").read_text())
            if self.state["recipe"] != self.recipe:
                self.lock.release()
                raise RunError(
                    f"{self.folder} holds a run of another recipe; remove it (rm -r {self.folder}) or name another with --out"
                )

    def do(self, name: str, what: str, work: Callable[[], None]) -> None:
        """Do a step once, and note how long it took (over interruptions)."""
        if name in self.state["seconds"]:
            print(f"· {what}: done before")
            return
        print(f"· {what}", flush=True)
        part, start = self.folder / f".{name}.seconds", time.monotonic()
        before = float(part.read_text()) if part.exists() else 0.0
        try:
            work()
        except BaseException:
            part.write_text(str(before + time.monotonic() - start))
            raise
        part.unlink(missing_ok=True)
        self.state["seconds"][name] = round(before + time.monotonic() - start, 1)
        beside = self.folder / "state.part"
        beside.write_text(json.dumps(self.state, indent=1))
        beside.replace(self.folder / "state.json")

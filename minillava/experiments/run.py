"""One run in one folder: its recipe, its lock, the steps that are done, and trainings side by side in processes.

Notable: a step is done once. Started again, a run skips what is done, resumes what was interrupted, and refuses a
folder that holds another recipe. A training is done once the file `done` is in its folder. Ctrl-C asks the trainings to
stop and waits until each has saved, so the same call resumes them. When the run is killed, they end too.
"""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from minillava.errors import UserError
from minillava.files import FileError, read_checked, write_checked
from minillava.machine import progress_bar
from minillava.scales import WEIGHTS

ANSWERING = 40  # answering once at the end of a job is counted as the time of so many training steps
STOP = []  # in a worker: the event that asks it to stop


class RunError(UserError):
    """A run that cannot start or resume; the message says what to do."""


def slug(name: str) -> str:
    """The name of a row or table as it stands in file names."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


class Run:
    """A run of one recipe. scale: all that it depends on beside the weights (`scales.Scale`, `science.QuizScale`)."""

    def __init__(self, folder: Path, scale, seeds: int, weights: Path = WEIGHTS):
        """Take the folder's lock, until `with` ends or `lock.release()`. Raises RunError."""
        self.folder, self.scale, self.weights, self.seeds = Path(folder), scale, Path(weights), list(range(seeds))
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"{self.folder} is a file; name a folder with --out")
        files = [self.weights / part / "model.safetensors" for part in ("vision_tower", "language_model")]
        for path in (path for path in files if not path.is_file()):
            advice = "`make weights` trains them, or check out the whole repository"
            raise RunError(f"{path.parent}: no weights here; {advice}")
        digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files]
        self.recipe = {"scale": asdict(scale), "weights": digests}
        (self.folder / "figures").mkdir(parents=True, exist_ok=True)
        self.lock, other = FileLock(self.folder / ".lock"), "name another with --out"
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"{self.folder}: another run is at work in this folder; wait for it or {other}") from None
        state = self.folder / "state.json"
        self.state = {"recipe": self.recipe, "seconds": {}, "interrupted": {}}
        try:
            self.state |= read_checked(state) if state.exists() else {}
        except FileError as error:
            self.lock.release()
            raise RunError(f"{error}; remove it, and the same command resumes") from error
        if self.state["recipe"] != self.recipe:
            self.lock.release()
            raise RunError(f"{self.folder} holds a run of another recipe; remove it (rm -r {self.folder}) or {other}")

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_) -> None:
        self.lock.release()

    def __getstate__(self) -> dict:
        """What a worker process gets: everything but the lock."""
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def home(self, seed: int, row: str) -> Path:
        """The folder of one training: of a row, or of a stage 1."""
        return self.folder / f"seed-{seed}" / slug(row)

    def do(self, name: str, what: str, work: Callable[[], None], made: Iterable[Path] = ()) -> None:
        """Do a step once, and note how long it took, interruptions included.

        made: the files that it makes; while one is missing, the step is done again.
        """
        if name in self.state["seconds"] and all(path.exists() for path in made):
            print(f"· {what}: done before")
            return
        print(f"· {what}", flush=True)
        start = time.monotonic() - self.state["interrupted"].pop(name, 0.0)
        try:
            work()
            self.state["seconds"][name] = round(time.monotonic() - start, 1)
        except BaseException:
            self.state["interrupted"][name] = time.monotonic() - start
            raise
        finally:
            write_checked(self.folder / "state.json", self.state)


@dataclass(frozen=True)
class Job:
    """Work in a folder of its own. work: can be pickled. steps: how many lines of metrics.jsonl it writes.

    asks: how often it answers after that.
    """

    home: Path
    steps: int
    work: Callable[[], None]
    asks: int = 1

    @property
    def size(self) -> int:
        return self.steps + ANSWERING * self.asks

    @property
    def done(self) -> Path:
        return self.home / "done"

    def __call__(self) -> None:
        self.work()
        self.done.touch()


def listen(stop, alone: bool) -> None:
    """A worker has one core, unless its job is alone; it leaves Ctrl-C and the like to the run, and ends when the run does."""
    if not alone:
        torch.set_num_threads(1)
    for kind in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        signal.signal(kind, signal.SIG_IGN)
    STOP.append(stop)
    threading.Thread(target=lambda: parent_process().join() or os._exit(1), daemon=True).start()


def still_wanted(*_) -> None:
    """Called by a job between steps. Raises KeyboardInterrupt where the run has asked it to stop."""
    if STOP and STOP[0].is_set():
        raise KeyboardInterrupt


def side_by_side(jobs: list[Job]) -> None:
    """Run the jobs that are not done, as many at a time as there are cores (at most 4), the longest first.

    Raises what a job raised, when the others have stopped.
    """
    todo = sorted((job for job in jobs if not job.done.exists()), key=lambda job: -job.size)
    files, context = [job.home / "metrics.jsonl" for job in jobs], get_context("spawn")
    stop, workers = context.Event(), max(1, min(len(todo), os.cpu_count() or 1, 4))
    with (
        progress_bar(sum(job.size for job in jobs), "step") as progress,
        ProcessPoolExecutor(workers, context, initializer=listen, initargs=(stop, len(jobs) == 1)) as pool,
    ):
        running = {pool.submit(job) for job in todo}
        try:
            while running:
                ended, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for one in ended:
                    one.result()
                steps = sum(file.read_bytes().count(b"\n") for file in files if file.exists())
                answered = sum(ANSWERING * job.asks for job in jobs if job.done.exists())
                progress.update(max(0, steps + answered - progress.n))
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

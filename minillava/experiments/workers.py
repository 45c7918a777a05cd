"""Trainings side by side, each in a process of its own on one core, with one progress bar.

Notable: a job is done once the file `done` is in its folder, and is then not started again. Ctrl-C asks the jobs to
stop and waits until each has saved its training, so the same call resumes them. When the run is killed, they end too.
"""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch

from minillava.machine import progress_bar

ANSWERING = 40  # answering at the end of a job is counted as the time of so many training steps
STOP = []  # in a worker: the event that asks it to stop


@dataclass(frozen=True)
class Job:
    """Work in a folder of its own. work: can be pickled. steps: how many lines of metrics.jsonl it writes."""

    home: Path
    steps: int
    work: Callable[[], None]

    @property
    def done(self) -> Path:
        return self.home / "done"

    def __call__(self) -> None:
        self.work()
        self.done.touch()


def listen(stop, alone: bool) -> None:
    """A worker has one core, unless its job is alone; it leaves Ctrl-C to the run, and ends when the run does."""
    if not alone:
        torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
    todo = sorted((job for job in jobs if not job.done.exists()), key=lambda job: -job.steps)
    files, context = [job.home / "metrics.jsonl" for job in jobs], get_context("spawn")
    stop, workers = context.Event(), max(1, min(len(todo), os.cpu_count() or 1, 4))
    with (
        progress_bar(sum(job.steps + ANSWERING for job in jobs), "step") as progress,
        ProcessPoolExecutor(workers, context, initializer=listen, initargs=(stop, len(jobs) == 1)) as pool,
    ):
        running = {pool.submit(job) for job in todo}
        try:
            while running:
                ended, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for one in ended:
                    one.result()
                steps = sum(file.read_bytes().count(b"\n") for file in files if file.exists())
                progress.update(max(0, steps + ANSWERING * sum(job.done.exists() for job in jobs) - progress.n))
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

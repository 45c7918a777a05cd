"""Trainings side by side, each in a process of its own on one core, with one progress bar.

Notable: a job has a folder; it is done once `done` lies there, and is not started again. Ctrl-C asks the jobs to stop and
waits until each has saved its training, so the same call goes on; where the run is killed its workers go with it.
"""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from pathlib import Path

from minillava.machine import progress_bar

ANSWERING = 40  # answering at the end of a job is counted as the time of so many training steps
STOP = []  # in a worker: the event that asks it to stop


def listen(stop) -> None:
    """A worker leaves Ctrl-C to the run, which asks it to stop: it then saves its training and ends without noise.

    Where the run is killed, its workers go with it, also idle ones, so that the next run may take over.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    STOP.append(stop)
    threading.Thread(target=lambda: parent_process().join() or os._exit(1), daemon=True).start()


def still_wanted(*_) -> None:
    """Called by a job between steps. Raises KeyboardInterrupt where the run has asked it to stop."""
    if STOP and STOP[0].is_set():
        raise KeyboardInterrupt


def side_by_side(jobs: dict[Path, tuple[Callable, ...]], steps: dict[Path, int]) -> None:
    """Run the jobs that are not done, as many at a time as there are cores (at most 4), the longest first.

    jobs: folder -> (function, *arguments), all picklable; the function writes `done` into its folder at its end. steps: how
    many lines of metrics.jsonl each writes. Raises what a job raised.
    """
    todo = sorted((home for home in jobs if not (home / "done").exists()), key=lambda home: -steps[home])
    with progress_bar(sum(steps.values()) + ANSWERING * len(jobs), "step") as progress:
        context = get_context("spawn")
        stop = context.Event()
        workers = max(1, min(len(todo), (os.cpu_count() or 1), 4))
        with ProcessPoolExecutor(workers, mp_context=context, initializer=listen, initargs=(stop,)) as pool:
            running = [pool.submit(*jobs[home]) for home in todo]
            try:
                while not all(j.done() for j in running) and not any(j.done() and j.exception() for j in running):
                    wait(running, timeout=1.0)
                    files = [home / "metrics.jsonl" for home in jobs]
                    done = sum(f.read_bytes().count(b"\n") for f in files if f.exists())
                    progress.update(
                        max(0, done + sum(ANSWERING for home in jobs if (home / "done").exists()) - progress.n)
                    )
            finally:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
        for job in running:
            if not job.cancelled() and job.exception():
                raise job.exception()

"""Trainings that end in SIGKILL, for test_training_engine.py, which starts them as processes of their own.

They are not forked from pytest: its process has OpenMP threads by then, and a child that inherits their locks without
the threads waits for ever.
"""

import os
import signal

import toy

from minillava.training import checkpoints, loop


def _quiet():
    loop.SAVE_SECONDS = 0.0
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(folder, stop, steps):
    """Killed after step `stop` of `steps`."""
    _quiet()
    toy.train(folder, lambda step, *_: step == stop and _die(), steps=steps)


def inside(folder, where, times):
    """Killed in the call number times + 1 of the checkpoints' function `where`."""
    _quiet()
    count, work = [], getattr(checkpoints, where)

    def die(path):
        count.append(path)
        if len(count) > times:
            _die()
        return work(path)

    setattr(checkpoints, where, die)
    toy.train(folder)

"""Trainings that end in SIGKILL. test_training_engine.py starts each in another process.

They are not forked from pytest: its process has OpenMP threads by then, and a child that inherits their locks but not
the threads would wait for ever.
"""

import os
import signal

import toy

from minillava import files
from minillava.training import checkpoints


def _quiet():
    checkpoints.SAVE_SECONDS = 0.0
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(folder, stop, steps):
    """Train and be killed after step `stop` of `steps`."""
    _quiet()
    toy.train(folder, lambda step, *_: step == stop and _die(), steps=steps)


def inside(folder, module, where, times):
    """Train and be killed in call number times + 1 of the function `where` of a module."""
    _quiet()
    module = {"files": files, "checkpoints": checkpoints}[module]
    calls, work = [], getattr(module, where)

    def die(path):
        calls.append(path)
        if len(calls) > times:
            _die()
        return work(path)

    setattr(module, where, die)
    toy.train(folder)

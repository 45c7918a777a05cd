"""How a task is checked: several cases, the package as oracle, and a mistake that is recognised is called by its name.

Notable: a mistake is known by what it gives. Each task carries wrong versions of its function; where an answer gives what
one of them gives in every case, the check says which mistake that is. Cases are made from a seed: an instructor's hidden
check takes another one, so an answer that was copied from the shown cases fails there.

Try it: `check("08.1", lambda Zv, W, b: Zv @ W)`.
"""

import contextlib
import copy
import importlib.util
import io
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from minillava.exercises.compare import Raised, difference, one_line
from minillava.exercises.progress_file import note_check

EXERCISES = Path(__file__).parents[2] / "exercises"
STARS = {1: "★", 2: "★★", 3: "★★★"}


@dataclass(frozen=True)
class Task:
    """One task. id: `08.2`, the second of exercise 08. stars: 1 recall, 2 re-implement, 3 vary the paper.

    cases: seed -> the arguments of each call, a tuple a case. oracle: what is right; where it raises, so must the answer.
    mistakes: (a wrong version, the sentence that names it) pairs, likeliest first. hints: level by level. draw:
    (got, wanted) of a case -> figure, where a picture helps, or an error where an answer's form does not allow it. tolerance: of floats, beside the largest one wanted.
    """

    id: str
    stars: int
    title: str
    cases: Callable[[int], list[tuple]]
    oracle: Callable
    mistakes: tuple[tuple[Callable, str], ...]
    hints: tuple[str, ...]
    draw: Callable | None = None
    tolerance: float = 1e-4

    def __str__(self) -> str:
        return f"{self.id} {STARS[self.stars]} {self.title}"


class NotYet(AssertionError):
    """An answer that is not right yet; the message says in which case, what it gave, what was wanted, and why perhaps."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]  # what a notebook shows: the message alone


class Unsolved(NotYet):
    """A task that nobody has begun."""


def exercise_numbers() -> list[str]:
    """The exercises there are, `02` first."""
    return sorted(path.stem[2:] for path in (EXERCISES / "tasks").glob("ex[0-9][0-9].py"))


def tasks_of(number: str) -> dict[str, Task]:
    """The tasks of one exercise by id. Raises KeyError for an exercise that is not there."""
    if number not in exercise_numbers():
        raise KeyError(f"there is no exercise {number!r}; there are {', '.join(exercise_numbers())}")
    return {task.id: task for task in _module(number).TASKS}


@lru_cache
def _module(number: str):
    """exercises/tasks/exNN.py, loaded by its path: it stands beside the notebooks it checks, outside the package."""
    path = EXERCISES / "tasks" / f"ex{number}.py"
    spec = importlib.util.spec_from_file_location(f"minillava_exercise_{number}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def find_task(task_id: str) -> Task:
    """A task by its id. Raises KeyError, naming those that are there."""
    some = tasks_of(str(task_id)[:2])
    if task_id not in some:
        raise KeyError(f"there is no task {task_id!r}; exercise {task_id[:2]} has {', '.join(some)}")
    return some[task_id]


@contextlib.contextmanager
def _anywhere() -> Iterator[None]:
    """The same verdict wherever the notebook works: tensors are made on the CPU and gradients flow, whatever it has set."""
    with torch.device("cpu"), torch.enable_grad():
        yield


def run_cases(fn: Callable, cases: list[tuple]) -> list:
    """What `fn` gives in each case, or the error it raises as a `Raised`. Each call gets its own copy, and the same luck."""
    given = []
    for case in cases:
        mine = copy.deepcopy(case)
        torch.manual_seed(0)
        random.seed(0)
        try:
            given.append(fn(*mine))
        except NotImplementedError:
            raise
        except Exception as error:  # whatever a learner's code does wrong is a result here
            given.append(Raised(error))
    return given


@_anywhere()
def check(task_id: str, fn: Callable, seed: int = 0) -> None:
    """Hold an answer against the package. Prints that it is right, or raises NotYet, or Unsolved where it is still a stub.

    seed: of the cases. What became of it is kept for `minillava progress`, on this machine only.
    """
    task = find_task(task_id)
    cases = task.cases(seed)
    try:
        got = run_cases(fn, cases)
    except NotImplementedError:
        note_check(task.id, False)
        raise Unsolved(
            f'{task}: nothing here yet, so nothing is wrong yet. Fill in the cell above; hint("{task.id}", 1) is a first push.'
        ) from None
    wanted = run_cases(task.oracle, cases)
    why = [difference(g, w, task.tolerance) for g, w in zip(got, wanted)]
    bad = next((n for n, reason in enumerate(why) if reason), None)
    if task.draw and seed == 0 and not isinstance(got[bad or 0], Raised):
        _display(task.draw, got[bad or 0], wanted[bad or 0])
    note_check(task.id, bad is None)
    if bad is None:
        print(f"{task}: right, in {len(cases)} cases of {len(cases)}.")
        return
    right = sum(reason is None for reason in why)
    raise NotYet(
        f"{task}: not yet ({right} cases of {len(cases)} are right).\n"
        f"Case {bad + 1}, {_call(fn, cases[bad])}\n"
        f"  got     {one_line(got[bad])}\n"
        f"  wanted  {one_line(wanted[bad])}\n"
        f"  {why[bad]}\n"
        f"{_diagnosis(task, cases, got, wanted)}\n"
        f'hint("{task.id}", 1) says more.'
    ) from (got[bad].error if isinstance(got[bad], Raised) else None)


def _call(fn: Callable, case: tuple) -> str:
    name = getattr(fn, "__name__", "your function")
    return f"{name}({', '.join(one_line(value) for value in case)})"


def _diagnosis(task: Task, cases: list[tuple], got: list, wanted: list) -> str:
    """The mistake whose results these are, in all cases or at least in those that are wrong; else the two likeliest."""
    if all(g is None for g in got):
        return "It gives back nothing: is there a `return`?"
    same = lambda a, b: difference(a, b, task.tolerance) is None  # noqa: E731
    tried = [(run_cases(wrong, cases), says) for wrong, says in task.mistakes]
    for theirs, says in tried:
        if all(map(same, got, theirs)) and not all(map(same, theirs, wanted)):
            return f"This is what comes out when {says}"
    bad = [n for n, (g, w) in enumerate(zip(got, wanted)) if not same(g, w)]
    for theirs, says in tried:  # any error for any other: which one comes depends on how the same mistake is written
        alike = (same(got[n], theirs[n]) or isinstance(got[n], Raised) and isinstance(theirs[n], Raised) for n in bad)
        if all(alike) and not all(isinstance(t, Raised) for t in theirs):
            return f"What is wrong is what comes out when {says}"
    likely = "\n".join(f"  - {says}" for _, says in task.mistakes[:2])
    return f"Often it is one of these:\n{likely}"


def _display(draw: Callable, got, wanted) -> None:
    """The picture of an answer beside the target, in a notebook; elsewhere none is made."""
    from IPython import get_ipython
    from IPython.display import Image, display

    if get_ipython() is None:
        return
    png = io.BytesIO()
    try:
        draw(got, wanted).savefig(png, format="png", dpi=80)
    except Exception:  # an answer of a form that cannot be drawn: the words below say what is wrong with it
        return
    display(Image(png.getvalue()))


def hint(task_id: str, level: int = 1) -> None:
    """Print one hint more of a task; behind the last one stands where the solution is."""
    task = find_task(task_id)
    if level < 1:
        raise ValueError(f"level {level}: hints begin at 1")
    if level <= len(task.hints):
        more = f'  (hint("{task_id}", {level + 1}) goes on)'
        print(f"{task}, hint {level} of {len(task.hints)}: {task.hints[level - 1]}\n{more}")
        return
    home = next((EXERCISES / "solutions").glob(f"ex{re.sub(r'[.].*', '', task_id)}_*.ipynb"), None)
    where = f"exercises/solutions/{home.name}" if home else "exercises/solutions"
    print(f"{task}: no more hints. One way to do it: {where}")

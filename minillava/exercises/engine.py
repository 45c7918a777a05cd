"""How a task is checked: on several cases, with the package as oracle. A known mistake is recognised and named.

Notable: a mistake is recognised by its results. Each task has wrong versions of its function. When an answer gives the
same results as one of them in every case, the check says which mistake that is. Cases are made from a seed. An
instructor's hidden check takes another seed, so an answer that only reproduces the visible cases fails there.

Try it: `check("08.1", lambda Zv, W, b: Zv @ W)`.
"""

import contextlib
import copy
import inspect
import io
import os
import random
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from minillava.exercises.compare import Raised, difference, one_line
from minillava.figures.puzzles import grids
from minillava.files import FileError, read_json, write_json

EXERCISES = Path(__file__).parents[2] / "exercises"


@dataclass(frozen=True)
class Task:
    """One task. id: `08.2` is the second task of exercise 08, `08.2a` the first puzzle before it.

    stars: 0 a puzzle, 1 recall, 2 re-implement, 3 vary the paper. The oracle's arguments name what a puzzle draws.
    cases: seed -> arguments of each call, one tuple per case. oracle: the right function; where it raises, an answer
    has to raise too. mistakes: (wrong version, the sentence that names it), likeliest first. hints: one per level.
    draw: (got, wanted) of a case -> figure, or an error. tolerance: for floats, relative to the largest one wanted.
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
        return f"{self.id} {'★' * self.stars or '(puzzle)'} {self.title}"


class NotYet(AssertionError):
    """An answer that is not right yet. The message tells the case, what the answer gave, what was wanted, and why."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]  # a notebook displays only the message


class Unsolved(NotYet):
    """A task that is still a stub."""


def exercise_numbers() -> list[str]:
    """The numbers of all exercises, `02` first."""
    return sorted(path.stem[2:] for path in (EXERCISES / "tasks").glob("ex[0-9][0-9].py"))


@lru_cache
def tasks_of(number: str) -> dict[str, Task]:
    """The tasks of one exercise by id. Raises KeyError, naming the exercises, for an unknown one."""
    if number not in exercise_numbers():
        raise KeyError(f"there is no exercise {number!r}; there are {', '.join(exercise_numbers())}")
    # exercises/tasks/exNN.py is outside the package, near the notebooks that it checks.
    return {task.id: task for task in runpy.run_path(f"{EXERCISES}/tasks/ex{number}.py")["TASKS"]}


def find_task(task_id: str) -> Task:
    """A task by its id. Raises KeyError, naming the tasks of its exercise, for an unknown one."""
    some = tasks_of(str(task_id)[:2])
    if task_id not in some:
        raise KeyError(f"there is no task {task_id!r}; exercise {task_id[:2]} has {', '.join(some)}")
    return some[task_id]


@contextlib.contextmanager
def _anywhere() -> Iterator[None]:
    """Make a check independent of the notebook's settings: tensors are made on the CPU, and gradients are recorded."""
    with torch.device("cpu"), torch.enable_grad():
        yield


def run_cases(fn: Callable, cases: list[tuple]) -> list:
    """The result of `fn` in each case, or a `Raised` error. Each call gets a copy of its case, and the same seed."""
    results = []
    for case in cases:
        arguments = copy.deepcopy(case)
        torch.manual_seed(0)
        random.seed(0)
        try:
            results.append(fn(*arguments))
        except NotImplementedError:
            raise
        except Exception as error:  # any error in a learner's code is a result here
            results.append(Raised(error))
    return results


@_anywhere()
def check(task_id: str, fn: Callable, seed: int = 0) -> None:
    """Compare an answer with the package. Prints that it is right, raises NotYet, or raises Unsolved for a stub.

    seed: of the cases. The outcome is stored on this machine for `minillava progress`.
    """
    task = find_task(task_id)
    cases = task.cases(seed)
    try:
        got = run_cases(fn, cases)
    except NotImplementedError:
        note_check(task.id, False)
        advice = f'Fill in the cell above; hint("{task.id}", 1) helps you to begin.'
        raise Unsolved(f"{task}: nothing here yet, so nothing is wrong yet. {advice}") from None
    wanted = run_cases(task.oracle, cases)
    why = [difference(g, w, task.tolerance) for g, w in zip(got, wanted)]
    bad = next((n for n, reason in enumerate(why) if reason), None)
    if seed == 0 and not isinstance(got[bad or 0], Raised):
        if task.draw:
            _display(task.draw, got[bad or 0], wanted[bad or 0])
        if not task.stars:
            _display(_drawn, task, cases[bad or 0], {"target": wanted[bad or 0], "yours": got[bad or 0]})
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
    """The mistake that gives these results in all cases, or in all cases that are wrong; else the two likeliest."""
    if all(g is None for g in got):
        return "It gives back nothing: is there a `return`?"

    def same(a, b):
        return difference(a, b, task.tolerance) is None

    tried = [(run_cases(wrong, cases), says) for wrong, says in task.mistakes]
    for theirs, says in tried:
        if all(map(same, got, theirs)) and not all(map(same, theirs, wanted)):
            return f"This is what comes out when {says}"
    bad = [n for n, (g, w) in enumerate(zip(got, wanted)) if not same(g, w)]
    for theirs, says in tried:  # any error counts as any other, as it depends on how the same mistake is written
        alike = (same(got[n], theirs[n]) or isinstance(got[n], Raised) and isinstance(theirs[n], Raised) for n in bad)
        if all(alike) and not all(isinstance(t, Raised) for t in theirs):
            return f"What is wrong is what comes out when {says}"
    likely = "\n".join(f"  - {says}" for _, says in task.mistakes[:2])
    return f"Often it is one of these:\n{likely}"


def show(puzzle_id: str) -> None:
    """In a notebook, draw the first case of a puzzle: what its function gets, and the target."""
    task = find_task(puzzle_id)
    case = task.cases(0)[0]
    _display(_drawn, task, case, {"target": run_cases(task.oracle, [case])[0]})


def _drawn(task: Task, case: tuple, results: dict):
    return grids(dict(zip(inspect.signature(task.oracle).parameters, case, strict=True)) | results)


def _display(draw: Callable, *what) -> None:
    """In a notebook, display the picture that `draw` makes."""
    from IPython import get_ipython
    from IPython.display import Image, display

    if get_ipython() is None:
        return
    png = io.BytesIO()
    try:
        draw(*what).savefig(png, format="png", dpi=80)
    except Exception:  # the answer's form cannot be drawn; the message says what is wrong with it
        return
    display(Image(png.getvalue()))


def hint(task_id: str, level: int = 1) -> None:
    """Print one hint of a task; after the last one, where the solution is. Raises ValueError for a level below 1."""
    task = find_task(task_id)
    if level < 1:
        raise ValueError(f"level {level}: hints begin at 1")
    if level <= len(task.hints):
        print(f"{task}, hint {level} of {len(task.hints)}: {task.hints[level - 1]}")
        print(f'  (hint("{task_id}", {level + 1}) says more)')
        return
    (solution,) = (EXERCISES / "solutions").glob(f"ex{task_id[:2]}_*.ipynb")
    print(f"{task}: no more hints. One way to do it: exercises/solutions/{solution.name}")


def progress_path() -> Path:
    """The file of progress. It says which tasks pass on this machine, and nothing is sent anywhere."""
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


def progress() -> str:
    """The page of `minillava progress`: one line per exercise, one mark per task (● passes, ○ tried, · not begun)."""
    known, lines, done, count, solved, asked = read_progress(), [], 0, 0, 0, 0
    if not exercise_numbers():
        return "no exercises here: they are in this project's repository and not in its wheel"
    for number in exercise_numbers():
        puzzles = [t for t in tasks_of(number).values() if not t.stars]
        some = [t for t in tasks_of(number).values() if t.stars]
        solved, asked = solved + sum(known.get(t.id, False) for t in puzzles), asked + len(puzzles)
        marks = [{True: "●", False: "○"}.get(known.get(t.id), "·") for t in some]
        lines.append(f"{number}  " + "   ".join(f"{m} {'★' * t.stars} {t.title}" for m, t in zip(marks, some)))
        done, count = done + marks.count("●"), count + len(marks)
    total = f"{done} of {count} tasks and {solved} of {asked} puzzles pass here."
    return "\n".join([*lines, "", f"{total}  ● passes   ○ tried   · not begun"])

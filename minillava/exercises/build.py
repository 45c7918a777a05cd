"""The student's notebooks from the solutions: what lies between the marks is taken out, and all outputs.

Notable: the marks and the stub are nbgrader's own, and every cell carries its metadata, so an instructor can work with the
same files (exercises/INSTRUCTORS.md). Nobody needs nbgrader for the exercises or to build them.

    python -m minillava.exercises exercises
"""

import copy
import json
import re
from pathlib import Path

SOLUTION = ("### BEGIN SOLUTION", "### END SOLUTION")
HIDDEN = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")  # nbgrader's


class ExerciseError(ValueError):
    """An exercise whose marks or metadata do not fit; the message names the file and the cell."""


def _without(lines: list[str], marks: tuple[str, str], stub: tuple[str, ...], name: str) -> list[str]:
    """The lines, each region between the marks replaced by the stub at the region's indentation."""
    out, inside = [], False
    for line in lines:
        if line.strip() in marks:
            if inside != (line.strip() == marks[1]):
                raise ExerciseError(f"{name}: {line.strip()} without its other half")
            inside = not inside
            indent = re.match(r"\s*", line)[0]
            out += [indent + text for text in stub] if inside else []
        elif not inside:
            out.append(line)
    if inside:
        raise ExerciseError(f"{name}: {marks[0]} without {marks[1]}")
    return out


def student_version(solution: dict, name: str = "exercise") -> dict:
    """The student's notebook of a solution's. Raises ExerciseError."""
    notebook = copy.deepcopy(solution)
    for n, cell in enumerate(notebook["cells"]):
        where = f"{name}, cell {n}"
        if "nbgrader" not in cell["metadata"]:
            raise ExerciseError(f"{where}: no nbgrader metadata")
        lines = _without("".join(cell["source"]).split("\n"), HIDDEN, (), where)
        if cell["metadata"]["nbgrader"]["solution"]:
            bare = _without(lines, SOLUTION, STUB, where)
            if bare == lines:
                raise ExerciseError(f"{where}: a solution cell without {SOLUTION[0]}")
            lines = bare
        cell["source"] = "\n".join(lines).rstrip("\n").splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    return notebook


def read_notebook(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def build_exercises(folder: Path) -> list[Path]:
    """Write the student's file of every solution in `folder`/solutions; returns them."""
    made = []
    for source in sorted((folder / "solutions").glob("ex*.ipynb")):
        target = folder / source.name
        target.write_text(
            json.dumps(student_version(read_notebook(source), source.name), indent=1, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )
        made.append(target)
    return made

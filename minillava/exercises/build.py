"""Make the students' notebooks from the solutions: the text between the marks is removed, and so are all outputs.

The marks, the stub and the cells' metadata are nbgrader's own, so instructors can use it on the same files
(exercises/INSTRUCTORS.md). Neither the exercises nor this module need nbgrader.

    python -m minillava.exercises.build
"""

import copy
import json
import re
from pathlib import Path

SOLUTION = ("### BEGIN SOLUTION", "### END SOLUTION")
HIDDEN = ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")


class ExerciseError(ValueError):
    """An exercise with wrong marks or metadata; the message names the file and the cell."""


def _without(lines: list[str], marks: tuple[str, str], stub: tuple[str, ...], name: str) -> list[str]:
    """The lines with the stub, at the same indentation, instead of every region between the marks."""
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
    """The student's notebook made from a solution. Raises ExerciseError."""
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


def write_notebook(notebook: dict, path: Path) -> None:
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def build_exercises(folder: Path) -> list[Path]:
    """Write the student's notebook of every solution in `folder`/solutions. Returns their paths."""
    made = []
    for source in sorted((folder / "solutions").glob("ex*.ipynb")):
        notebook = student_version(read_notebook(source), source.name)
        made.append(folder / source.name)
        write_notebook(notebook, made[-1])
    return made


if __name__ == "__main__":
    print(*build_exercises(Path("exercises")), sep="\n")

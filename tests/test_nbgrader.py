"""The instructor's way of exercises/INSTRUCTORS.md from beginning to end, where nbgrader is installed: five students, their marks."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minillava.exercises import engine
from minillava.exercises.build import STUB, read_notebook

pytest.importorskip("nbgrader")

FOLDER = Path(__file__).parents[1] / "exercises"
NAME = "ex08_the_translator.ipynb"


def edited(notebook, changes):
    """A copy of a notebook, its cells' sources by grade_id replaced."""
    notebook = json.loads(json.dumps(notebook))
    for cell in notebook["cells"]:
        name = cell["metadata"]["nbgrader"]["grade_id"]
        cell["source"] = changes.get(name, cell["source"])
    return notebook


def hard_coded():
    """Task 1 answered by what the shown cases give."""
    task = engine.find_task("08.1")
    known = {tuple(case[0].shape): task.oracle(*case).tolist() for case in task.cases(0)}
    return f"import torch\n\nKNOWN = {known}\n\n\ndef translate(Zv, W, b):\n    return torch.tensor(KNOWN[tuple(Zv.shape)])"


@pytest.mark.timeout(900)
def test_each_student_gets_what_is_deserved(tmp_path):
    from nbgrader.api import Gradebook

    shutil.copy(FOLDER / "nbgrader_config.py", tmp_path)
    (tmp_path / "source" / "ex08").mkdir(parents=True)
    shutil.copy(FOLDER / "solutions" / NAME, tmp_path / "source" / "ex08")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it starts alembic by name
    env = os.environ | {"PATH": path, "MINILLAVA_SCALE": "tiny", "MINILLAVA_PROGRESS": str(tmp_path / "progress.json")}

    def nbgrader(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]

    nbgrader("generate_assignment", "ex08", "--create")
    released, student = read_notebook(tmp_path / "release" / "ex08" / NAME), read_notebook(FOLDER / NAME)
    sources = lambda notebook: ["".join(c["source"]).rstrip("\n") for c in notebook["cells"]]  # noqa: E731
    assert sources(released) == sources(student) and any(STUB[0] in source for source in sources(released))
    shutil.copytree(FOLDER / "solutions", tmp_path / "source" / "all", ignore=shutil.ignore_patterns(".*"))
    nbgrader("generate_assignment", "all", "--create")
    for one in sorted((tmp_path / "release" / "all").glob("*.ipynb")):
        assert sources(read_notebook(one)) == sources(read_notebook(FOLDER / one.name)), one.name

    answers = {c["metadata"]["nbgrader"]["grade_id"]: "".join(c["source"]) for c in read_notebook(FOLDER / "solutions" / NAME)["cells"]}  # fmt: skip
    solved = {name: source for name, source in answers.items() if name.endswith("-answer")}
    wrong = solved["ex08-2-answer"].replace("translate(picture, W, b)", "translate(picture[1:], W, b)")
    submitted = {
        "right": edited(released, solved),
        "unsolved": released,
        "wrong": edited(released, solved | {"ex08-2-answer": wrong}),
        "hard-coded": edited(released, solved | {"ex08-1-answer": hard_coded()}),
        "tampered": edited(released, {f"ex08-{n}-check": "pass" for n in (1, 2, 3)}),
    }
    for who, notebook in submitted.items():
        home = tmp_path / "submitted" / who / "ex08"
        home.mkdir(parents=True)
        (home / NAME).write_text(json.dumps(notebook))
    nbgrader("autograde", "ex08", "--create")
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        marks = {who: book.find_submission("ex08", who).score for who in submitted}
        assert book.find_assignment("ex08").max_score == 6
    # whoever hard-codes task 1 has a task 2 that calls it
    assert marks == {"right": 6, "unsolved": 0, "wrong": 4, "hard-coded": 3, "tampered": 0}
    nbgrader("generate_feedback", "ex08")
    assert len(list((tmp_path / "feedback").glob("*/ex08/*.html"))) == len(submitted)
    nbgrader("export")
    rows = list(csv.DictReader((tmp_path / "grades.csv").open()))
    assert {row["student_id"]: float(row["score"]) for row in rows if row["assignment"] == "ex08"} == marks

"""Notebooks are committed executed, checked by nbval, small, and run anywhere: what is not so is listed here."""

import copy
import json
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
CHECKED = "nbval-check-output"
PATHS = re.compile(r"""\.\./|["'(](?:/[A-Za-z~]|~/|[A-Za-z]:\\)|\bfile://""")  # `../`, "/home", "~/", "C:\\"
EXERCISE = re.compile(r"(?<=\]\()\.\./exercises/ex\d\d_\w+\.ipynb(?=\))")  # a link that GitHub and JupyterLab follow
INSTALL = re.compile(r"^\s*[!%]\s*(?:\S*python\S* -m )?(?:pip|uv|conda)\b", re.MULTILINE)


def problems(notebook, size):
    """What a notebook breaks of the house rules, in words. size: of its file, in bytes."""
    found, code = [], [c for c in notebook["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    if size > 300 * 1024:
        found.append(f"{size // 1024} KB, more than 300")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        found.append("the kernelspec is not python3")
    checked = [c for c in code if CHECKED in c["metadata"].get("tags", [])]
    if len(checked) < 3:
        found.append(f"{len(checked)} cells are tagged {CHECKED}, fewer than 3")
    for n, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        path = PATHS.search(EXERCISE.sub("", source))
        if path and cell.get("id") != "set-up":  # it knows Kaggle's folder; tests/test_colab.py holds it
            found.append(f"cell {n}: a path that is absolute or begins with ../: {path[0]!r}")
        if cell not in code:
            continue
        if cell["execution_count"] is None:
            found.append(f"cell {n}: not executed")
        if cell in checked and not cell["outputs"]:
            found.append(f"cell {n}: tagged {CHECKED}, but has no output")
        if any(o["output_type"] == "error" for o in cell["outputs"]):
            found.append(f"cell {n}: ended in an error")
        if any(len(json.dumps(o)) > 100 * 1024 for o in cell["outputs"]):
            found.append(f"cell {n}: an output of more than 100 KB")
        if cell is not code[0] and INSTALL.search(source):
            found.append(f"cell {n}: installs something outside the set-up cell")
        if len(source.strip().splitlines()) > 30:
            found.append(f"cell {n}: {len(source.strip().splitlines())} lines of code, more than 30")
    counts = [c["execution_count"] for c in code if c["execution_count"] is not None]
    if counts != sorted(counts):
        found.append("cells were not executed from top to bottom")
    return found


PARTS = {
    "objectives": r"^\*\*After this notebook you can\*\*\n\n1\. ",
    "recall": r"^\*\*Recall\*\*(.|\n)*<details><summary>Answers</summary>",
    "predict": r"\*\*Predict\*\*|\*\*predict\*\*",
    "what you should see": r"^\*\*What you should see\*\*",
    "deviations": r"^## Deviations from the paper\n\n\| paper \| here",
    "card": r"^## The cards?\b(.|\n)*^> \*\*.*\*\*: ",
    "way on": r"^## (The way on|Go on\?)$",
}


def lacks(notebook, number):
    """The parts of a lesson that a notebook does not have. 00 comes first, and has nothing to recall."""
    text = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    missing = [part for part, pattern in PARTS.items() if not re.search(pattern, text, re.MULTILINE)]
    return [part for part in missing if (part, number) != ("recall", "00")]


def test_the_course_begins_with_00_start_here():
    assert (FOLDER / "00_start_here.ipynb").is_file()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_executed_checked_small_and_runs_anywhere(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert problems(notebook, path.stat().st_size) == []
    assert lacks(notebook, path.name[:2]) == []


# the guard itself


def cell(source, text="3", **changes):
    output = {"output_type": "stream", "name": "stdout", "text": text}
    return {"cell_type": "code", "source": source, "outputs": [output], "execution_count": 1, "metadata": {"tags": [CHECKED]}} | changes  # fmt: skip


GOOD = {
    "metadata": {"kernelspec": {"name": "python3"}},
    "cells": [
        cell("%pip install -q minillava"),
        {
            "cell_type": "markdown",
            "source": "# 3 / 4 of [it](https://a.b), [b](../exercises/ex08_a.ipynb)",
            "metadata": {},
        },
        cell("print(6 / 2, 'a/b')"),
        cell("print(1 + 2)"),
        cell("", execution_count=None, outputs=[]),  # an empty cell at the end, as editors leave it
    ],
}
ERROR = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}


def change(n, **changes):
    return lambda notebook: notebook["cells"][n].update(changes)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (change(2, metadata={}), "2 cells are tagged"),
        (change(2, outputs=[]), "cell 2: tagged nbval-check-output, but has no output"),
        (change(2, execution_count=None), "cell 2: not executed"),
        (change(2, execution_count=9), "not executed from top to bottom"),
        (change(3, outputs=[ERROR]), "cell 3: ended in an error"),
        (change(3, outputs=[{"output_type": "stream", "name": "stdout", "text": "x" * 110_000}]), "more than 100 KB"),
        (change(3, source="\n".join(["x = 1"] * 31)), "cell 3: 31 lines"),
        (change(3, source="!pip install torch"), "cell 3: installs"),
        (change(3, source="x = 1\n  %pip install torch"), "cell 3: installs"),
        (change(3, source="!python -m pip install torch"), "cell 3: installs"),
        (change(3, source="open('/home/me/a.png')"), "cell 3: a path"),
        (change(3, source='open("~/a.png")'), "cell 3: a path"),
        (change(3, source="open('../data_samples/a.png')"), "cell 3: a path"),
        (change(3, source=r"open('C:\a.png')"), "cell 3: a path"),
        (change(1, source="![a](/srv/a.png)"), "cell 1: a path"),
        (change(1, source="[a](../exercises/solutions/ex08_a.ipynb)"), "cell 1: a path"),
        (change(1, source="open('../exercises/ex08_a.ipynb')"), "cell 1: a path"),
        (lambda notebook: notebook["metadata"].update(kernelspec={"name": "venv"}), "the kernelspec is not python3"),
    ],
)
def test_the_guard_sees_what_is_wrong(spoil, message):
    notebook = copy.deepcopy(GOOD)
    assert problems(notebook, 1000) == []
    spoil(notebook)
    assert len(problems(notebook, 1000)) == 1 and message in problems(notebook, 1000)[0]


def test_the_guard_sees_a_large_file():
    assert problems(GOOD, 301 * 1024) == ["301 KB, more than 300"]


def test_the_guard_sees_each_part_that_is_missing():
    path = FOLDER / "03_the_architecture.ipynb"
    for part, pattern in PARTS.items():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for one in notebook["cells"]:
            one["source"] = re.sub(pattern, "", "".join(one["source"]), flags=re.MULTILINE)
        assert lacks(notebook, "03") == [part] and lacks(notebook, "00") == [p for p in [part] if p != "recall"]

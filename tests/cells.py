"""Run a notebook's code cells in this process, one after another, and compare what checked cells print, as nbval does.

HF_ENDPOINT=URL MINILLAVA_SCALE=colab python cells.py 03 04     # with a stand-in of the hub; nothing is compared
"""

import ast
import io
import json
import os
import re
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib
import torch
from IPython.lib.pretty import pretty

FOLDER = Path(__file__).parents[1] / "notebooks"
CHECKED = "nbval-check-output"
# Smaller constants for notebooks 11, 12, 14 and 15, where a run only shows that they work with other models.
FEWER = [
    ("PAIRS = 6000", "PAIRS = 256"), ("PROBLEMS, TEST = 2400, 210", "PROBLEMS, TEST = 64, 28"),
    ("PICTURES = 3000", "PICTURES = 400"), ("PICTURES = 600", "PICTURES = 64"), ("SCENES = 30", "SCENES = 4"),
    ('"bench", 30', '"bench", 2'), ('"bench", 20', '"bench", 2'), ("STEPS = 50", "STEPS = 2"),
    ("BATCH = 12", "BATCH = 4"), ('"steps": 20', '"steps": 2'), ('"steps": 30', '"steps": 2'),
    ('"steps": 40', '"steps": 2'),
]  # fmt: skip


class Failed(AssertionError):
    """A cell raised an error, or its checked output differs. cell: its number, from 0."""

    def __init__(self, name, cell, why):
        super().__init__(f"{name}, cell {cell}: {why}")
        self.cell = cell


def notebook(number):
    """The path of the notebook with this number, such as "03"."""
    return next(FOLDER.glob(f"{number}_*.ipynb"))


def expected(cell):
    """(what a stored cell printed, [its last value as text])."""
    printed = "".join("".join(o["text"]) for o in cell["outputs"] if o.get("name") == "stdout")
    values = ["".join(o["data"]["text/plain"]) for o in cell["outputs"] if o["output_type"] == "execute_result"]
    return printed, values


def execute(source, names):
    """(what it printed, [its last value as text]) of one cell's source."""
    tree = ast.parse("\n".join("" if re.match(r"\s*[%!]", line) else line for line in source.splitlines()))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as out:
        exec(compile(tree, "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    return out.getvalue(), [] if value is None else [pretty(value)]


@torch.enable_grad()  # a notebook that switches gradients off does so only for itself
def run(path, compare=True, only=(), instead=()):
    """Run a notebook's code cells; returns what each printed. Raises Failed at the first that prints something else.

    only: run only the cells that contain one of these texts, where others take minutes and are not needed. instead:
    (text, its replacement) pairs.
    """
    matplotlib.use("Agg")
    names, printed = {"__name__": "__main__"}, []
    for n, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        for text, other in instead:
            source = source.replace(text, other)
        if cell["cell_type"] != "code" or (only and not any(text in source for text in only)):
            continue
        try:
            got = execute(source, names)
        except Exception as error:
            raise Failed(path.name, n, f"{type(error).__name__}: {error}") from error
        if compare and CHECKED in cell["metadata"].get("tags", []) and got != expected(cell):
            raise Failed(path.name, n, f"{got} instead of {expected(cell)}")
        printed.append(got[0])
    return printed


if __name__ == "__main__":
    from minillava.fetch import hub

    torch.set_num_threads(1)
    Real, url = hub.Endpoints, os.environ["HF_ENDPOINT"]
    hub.Endpoints = lambda **more: Real(url, f"{url}/coco", **more)
    for number in sys.argv[1:]:
        begun = time.monotonic()
        said = run(notebook(number), compare=False, instead=FEWER)[0].strip()
        print(number, said, f"[{time.monotonic() - begun:.0f} s]", flush=True)

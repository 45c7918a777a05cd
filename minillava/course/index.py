"""The course's index: which notebook cells cover each item of the paper, and which names of the package they use.

No part of the index is written by hand. A code cell that covers an item has a tag such as `paper:Table 2`. The names of
the package are those that the cell uses and that its notebook imported from minillava. `make test` compares
notebooks/README.md with this, so it cannot become wrong when a cell moves or a function gets another name.

    python -m minillava.course.index    # in the project's folder: README.md, links, set-up cells, diagrams, exercises
"""

import ast
import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from minillava.course.colab import HIDDEN, LINKS, links, on_colab, set_up_cell
from minillava.exercises.build import build_exercises, read_notebook, write_notebook
from minillava.figures import diagrams, model_diagrams
from minillava.paper import EQUATIONS, STRUCTURE

TAG = "paper:"
ITEMS = STRUCTURE | EQUATIONS
DIAGRAM = re.compile(r"(model_)?diagrams\.\w+\(.*\)")  # the last line of a cell that shows one
SET_UP = "set-up"  # the id of the cell that `add_set_up` writes
EXERCISE = re.compile(
    r"(\(\.\./exercises/(ex\d\d_\w+\.ipynb)\))(?: \(\[on Colab\]\([^)]*\)\))?"
)  # link, perhaps Colab's
README = """# The course

Written by `python -m minillava.course.index` and held by a test; do not edit it.
Each notebook runs by itself, in any order, offline. `make lab` opens the first.
Its new words stand at its top; all of them, English and Chinese: [glossary](glossary.md).

| notebook | pass | read | run |
|---|---|---|---|
{notebooks}
## From the paper to the code

Cells are counted from 0, markdown included.

| of the paper | what it is | where | in the package |
|---|---|---|---|
{items}"""


class CourseError(ValueError):
    """A notebook with a wrong tag or without its opening card; the message names the notebook and the cell."""


@dataclass(frozen=True)
class CoveringCell:
    """A cell that covers an item. cell: its number, from 0. heading: the last one above it. symbols: of the package."""

    notebook: str
    cell: int
    heading: str
    symbols: tuple[str, ...]


def _imports(tree: ast.Module) -> dict[str, str]:
    """Name in the notebook -> full name in the package."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minillava":
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def symbols(tree: ast.Module, known: dict[str, str]) -> tuple[str, ...]:
    """The package's symbols that a cell uses, in order: imported names, and `paper.TABLES` of an imported module."""
    used = {}
    for node in ast.walk(tree):  # an attribute before the name in it
        name = node.value if isinstance(node, ast.Attribute) else node
        if isinstance(name, ast.Name) and name.id in known:
            full = known[name.id]
            module = name is not node and full.count(".") == 1  # `from minillava import paper`, then paper.TABLES
            used.setdefault((name.lineno, name.col_offset), f"{full}.{node.attr}" if module else full)
    return tuple(dict.fromkeys(used[place] for place in sorted(used)))


def cells_of(path: Path) -> dict[str, list[CoveringCell]]:
    """Item -> the cells of one notebook that cover it. Raises CourseError for a tag that names no item of the paper."""
    known, heading, out = {}, "", {}
    for n, cell in enumerate(read_notebook(path)["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heads = re.findall(r"^#+ (.+)$", source, re.MULTILINE)
            heading = heads[-1] if heads else heading
            continue
        tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith(("%", "!"))))
        known |= _imports(tree)
        for tag in cell["metadata"].get("tags", []):
            if not tag.startswith(TAG):
                continue
            item = tag.removeprefix(TAG)
            if item not in ITEMS:
                raise CourseError(f"{path.name}, cell {n}: {tag!r} names no item; there are: {', '.join(ITEMS)}")
            out.setdefault(item, []).append(CoveringCell(path.name, n, heading, symbols(tree, known)))
    return out


def coverage(folder: Path) -> dict[str, list[CoveringCell]]:
    """Item of the paper, in its order -> the cells that cover it, in all notebooks of a folder."""
    found = [cells_of(path) for path in sorted(Path(folder).glob("[0-9][0-9]*_*.ipynb"))]
    return {item: [cell for one in found for cell in one.get(item, [])] for item in ITEMS}


def opening_card(path: Path) -> tuple[str, str, str, str]:
    """(title, pass, time to read, time to run) from a notebook's first cell. Raises CourseError."""
    first = "".join(read_notebook(path)["cells"][0]["source"]).splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in first if line.startswith("|")]
    if not first[0].startswith("# ") or len(rows) < 3 or rows[0][:3] != ["pass", "read", "run"]:
        raise CourseError(f"{path.name}: its first cell is not an opening card (title; pass, read, run, ...)")
    return first[0].removeprefix("# "), *rows[2][:3]


def readme(folder: Path) -> str:
    """notebooks/README.md: the notebooks, and for each item of the paper its cells and the package's symbols."""
    notebooks = ""
    for path in sorted(Path(folder).glob("[0-9][0-9]*_*.ipynb")):
        title, *rest = opening_card(path)
        notebooks += f"| [{title}]({path.name}) | {' | '.join(rest)} |\n"
    items = ""
    for item, cells in coverage(folder).items():
        where = "<br>".join(f"[{c.notebook.split('_')[0]}]({c.notebook}), cell {c.cell}: {c.heading}" for c in cells)
        names = dict.fromkeys(f"`{name.removeprefix('minillava.')}`" for c in cells for name in c.symbols)
        items += f"| {item} | {ITEMS[item].meaning} | {where} | {', '.join(names)} |\n"
    return README.format(notebooks=notebooks, items=items)


def add_set_up(path: Path) -> None:
    """Put the links to Colab and Kaggle under a notebook's title, and the set-up cell below; keep the rest as it is."""
    notebook, folder = read_notebook(path), "notebooks" if path.parent.name == "notebooks" else "exercises"
    opening, *cells = notebook["cells"]
    title, *rest = [line for line in "".join(opening["source"]).splitlines() if not line.startswith(LINKS)]
    text = "\n".join([title, "", links(path.name, folder), "", "\n".join(rest).strip("\n")])
    opening["source"] = text.splitlines(keepends=True)
    new = {"cell_type": "code", "execution_count": None, "id": SET_UP, "metadata": {}, "outputs": []}
    set_up = next((c for c in cells if c.get("id") == SET_UP), new)
    set_up["metadata"] |= HIDDEN
    set_up["source"] = set_up_cell().splitlines(keepends=True)
    notebook["cells"] = [opening, set_up, *(c for c in cells if c is not set_up)]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            cell["source"] = [
                EXERCISE.sub(lambda m: m[1] + on_colab(m[2], "exercises"), line) for line in cell["source"]
            ]
    write_notebook(notebook, path)


def redraw(path: Path) -> None:
    """Store each diagram of a notebook as its line draws it now, without running the notebook."""
    notebook = read_notebook(path)
    for cell in (c for c in notebook["cells"] if c["cell_type"] == "code"):
        line = "".join(cell["source"]).rpartition("\n")[2]
        if DIAGRAM.fullmatch(line):
            drawn = eval(line, {"diagrams": diagrams, "model_diagrams": model_diagrams})
            data = {"image/svg+xml": drawn._repr_svg_(), "text/html": drawn._repr_html_(), "text/plain": repr(drawn)}
            output = {"data": {kind: [text] for kind, text in data.items()}, "execution_count": cell["execution_count"]}
            cell["outputs"] = [output | {"metadata": {}, "output_type": "execute_result"}]
    write_notebook(notebook, path)


def shrink_figures(path: Path) -> None:
    """Reduce the stored figures of a notebook to 128 colours: they look the same at a third of the size."""
    notebook = read_notebook(path)
    for output in (o for cell in notebook["cells"] for o in cell.get("outputs", [])):
        if png := output.get("data", {}).get("image/png"):
            made, image = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(png)))
            if image.mode == "P":  # done before
                continue
            image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(made, "png", optimize=True)
            if made.tell() < len(base64.b64decode(png)):
                output["data"]["image/png"] = base64.b64encode(made.getvalue()).decode() + "\n"
    write_notebook(notebook, path)


if __name__ == "__main__":
    course, exercises = Path("notebooks"), Path("exercises")
    for notebook in sorted(course.glob("*.ipynb")):
        add_set_up(notebook)
        redraw(notebook)
        shrink_figures(notebook)
    for notebook in sorted((exercises / "solutions").glob("*.ipynb")):
        add_set_up(notebook)
    build_exercises(exercises)
    (course / "README.md").write_text(readme(course), encoding="utf-8")

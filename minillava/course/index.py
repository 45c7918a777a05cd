"""The course's index: which cell of which notebook covers each item of the paper, and which parts of the package it shows.

Notable: nothing in it is written by hand. A code cell that covers an item carries a tag such as `paper:Table 2`; the parts of
the package are the names that the cell uses and that its notebook imported from minillava. `make test` holds
notebooks/README.md against this, so a moved cell or a renamed function cannot leave it wrong.

    python -m minillava.course.index notebooks    # writes notebooks/README.md, badges, set-up cells; stores figures smaller
"""

import ast
import base64
import io
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from minillava.course.colab import CELL, badge, colab_url
from minillava.paper import EQUATIONS, STRUCTURE

TAG = "paper:"
ITEMS = (*STRUCTURE, *EQUATIONS)
SET_UP = "set-up"  # the id of the cell that `furnish` writes
NEXT_HEADING = "## The way on\n\n"
NOTEBOOKS = 17  # notebooks 00 to 16 together cover every item


class CourseError(ValueError):
    """A notebook whose tags do not fit; the message names the notebook and the cell."""


@dataclass(frozen=True)
class CoveringCell:
    """One cell that covers an item. cell: its number from 0. heading: the last one above it. symbols: of the package."""

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
    """The package's symbols that a cell uses, in order: `paper.TABLES` of an imported module, or an imported name."""
    used, parents = {}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            parents[id(node.value)] = node.attr
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in known:
            full = known[node.id]
            module = full.count(".") == 1 and id(node) in parents  # `from minillava import paper`, then paper.TABLES
            used[(node.lineno, node.col_offset)] = f"{full}.{parents[id(node)]}" if module else full
    return tuple(dict.fromkeys(used[place] for place in sorted(used)))


def cells_of(path: Path) -> dict[str, list[CoveringCell]]:
    """Item -> the cells of one notebook that cover it. Raises CourseError for a tag that names no item of the paper."""
    notebook, known, heading, out = json.loads(path.read_text(encoding="utf-8")), {}, "", {}
    for n, cell in enumerate(notebook["cells"]):
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
    """Every item of the paper, in its order, -> the cells that cover it, over all notebooks of a folder."""
    found = [cells_of(path) for path in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))]
    return {item: [cell for one in found for cell in one.get(item, [])] for item in ITEMS}


def missing_items(folder: Path) -> list[str]:
    """The items that no cell covers yet."""
    return [item for item, cells in coverage(folder).items() if not cells]


def is_complete(folder: Path) -> bool:
    """Whether all planned notebooks are there, so that nothing may be missing."""
    return len(list(Path(folder).glob("[01][0-9]_*.ipynb"))) >= NOTEBOOKS


def opening_card(path: Path) -> tuple[str, str, str, str]:
    """(title, pass, time to read, time to run) from a notebook's opening card."""
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in first if line.startswith("|")]
    if not first[0].startswith("# ") or len(rows) < 3 or rows[0][:3] != ["pass", "read", "run"]:
        raise CourseError(f"{path.name}: its first cell is not an opening card (title; pass, read, run, ...)")
    return first[0].removeprefix("# "), *rows[2][:3]


def readme(folder: Path) -> str:
    """notebooks/README.md: the notebooks, and the map from paper item to cell to package symbol."""
    paths = sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))
    lines = ["# The course", "", "Written by `python -m minillava.course.index notebooks` and held by a test; do not edit it.",
             "Each notebook runs by itself, in any order, offline. `make lab` opens the first.", "",
             "| notebook | pass | read | run |", "|---|---|---|---|"]  # fmt: skip
    for path in paths:
        title, *rest = opening_card(path)
        lines.append(f"| [{title}]({path.name}) | {' | '.join(rest)} |")
    lines += ["", "## From the paper to the code", "", "Cells are counted from 0, markdown included.", "",
              "| of the paper | what it is | where | in the package |", "|---|---|---|---|"]  # fmt: skip
    for item, shown in coverage(folder).items():
        if not shown:
            continue
        fact = STRUCTURE[item] if item in STRUCTURE else EQUATIONS[item]
        where = "<br>".join(f"[{s.notebook[:2]}]({s.notebook}), cell {s.cell}: {s.heading}" for s in shown)
        names = dict.fromkeys(name.removeprefix("minillava.") for s in shown for name in s.symbols)
        lines.append(f"| {item} | {fact.meaning} | {where} | {', '.join(f'`{n}`' for n in names)} |")
    if gaps := missing_items(folder):
        lines += ["", "## Not covered yet", "", "Items of the paper that no notebook shows so far:", ""]
        lines += [f"- {item}: {(STRUCTURE[item] if item in STRUCTURE else EQUATIONS[item]).meaning}" for item in gaps]
    return "\n".join(lines) + "\n"


def link_exercise(text: str, path: Path) -> str:
    """The text of a notebook's way on with a link to its exercise: where it is named, else in a sentence in front."""
    number, file = path.name[:2], f"ex{path.name}"
    link = f"[Exercise {number}](../exercises/{file}) ([on Colab]({colab_url(file, 'exercises')}))"
    if link in text or not (path.parents[1] / "exercises" / file).is_file():
        return text
    named = f"Exercise {number}"
    if named in text:
        return text.replace(named, link, 1)
    return text.replace(NEXT_HEADING, f"{NEXT_HEADING}{link} goes with this notebook. ", 1)


def add_set_up(path: Path) -> None:
    """Give a notebook its badge under the title, after the opening card the set-up cell with the dial (colab.CELL), and
    under "The way on" a link to its exercise, where there is one.

    What stands there already stays. A new cell is shown as executed here, for that is what it does here: it prints the
    scale. The counts of the cells below it move by one.
    """
    from minillava.course.dial import dial  # torch; nothing else here needs it

    notebook = json.loads(path.read_text(encoding="utf-8"))
    opening, *cells = notebook["cells"]
    title, *rest = [
        line for line in "".join(opening["source"]).splitlines() if not line.startswith("[![Open in Colab]")
    ]
    text = "\n".join([title, "", badge(path.name), "", "\n".join(rest).strip("\n")])
    opening["source"] = text.splitlines(keepends=True)
    old = [c for c in cells if c.get("id") == SET_UP]
    if [("".join(c["source"]), cells.index(c)) for c in old] != [(CELL, 0)]:
        cells, said = [c for c in cells if c.get("id") != SET_UP], []
        for cell in cells if not old else []:
            if cell.get("execution_count"):
                cell["execution_count"] += 1
        dial(say=said.append)
        shown = {"name": "stdout", "output_type": "stream", "text": [said[0] + "\n"]}
        cells.insert(0, {"cell_type": "code", "execution_count": 1, "id": SET_UP, "metadata": {}, "outputs": [shown],
                         "source": CELL.splitlines(keepends=True)})  # fmt: skip
    for cell in cells:
        if cell["cell_type"] == "markdown" and NEXT_HEADING in "".join(cell["source"]):
            cell["source"] = link_exercise("".join(cell["source"]), path).splitlines(keepends=True)
    notebook["cells"] = [opening, *cells]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def shrink_figures(path: Path) -> None:
    """Store the figures of an executed notebook with 256 colours: a third of the size, alike to look at."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for output in (o for cell in notebook["cells"] for o in cell.get("outputs", [])):
        if png := output.get("data", {}).get("image/png"):
            made, image = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
            image.quantize(256, dither=Image.Dither.NONE).save(made, "png", optimize=True)
            if made.tell() < len(base64.b64decode(png)):
                output["data"]["image/png"] = base64.b64encode(made.getvalue()).decode() + "\n"
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for notebook in sorted(folder.glob("*.ipynb")):
        add_set_up(notebook)
        shrink_figures(notebook)
    (folder / "README.md").write_text(readme(folder), encoding="utf-8")

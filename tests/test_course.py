"""The course's index is generated: it lists what the notebooks' tags say, and only names that exist."""

import importlib
import json
from pathlib import Path

import pytest

from minillava.course import index as course

FOLDER = Path(__file__).parents[1] / "notebooks"
CARD = "# 00 · Title\n\n| pass | read | run | needs |\n|---|---|---|---|\n| first | 1 minute | 2 minutes | nothing |"


def cell(source, *tags, kind="code"):
    return {"cell_type": kind, "source": source, "metadata": {"tags": list(tags)}, "outputs": []}


def notebook(folder, *cells, name="00_title.ipynb"):
    text = json.dumps({"cells": [cell(CARD, kind="markdown"), *cells], "metadata": {}})
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def find(symbol):
    """The object with a full name. Raises AttributeError or ModuleNotFoundError."""
    module, found, rest = symbol.split("."), None, []
    for n in range(len(module), 0, -1):
        try:
            found, rest = importlib.import_module(".".join(module[:n])), module[n:]
            break
        except ModuleNotFoundError:
            continue
    for name in rest:
        found = getattr(found, name)
    return found


def test_the_readme_is_what_the_notebooks_say():
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == course.readme(FOLDER), (
        "run: python -m minillava.course.index"
    )


def test_every_symbol_of_the_index_exists():
    found = [one for cells in course.coverage(FOLDER).values() for one in cells]
    assert len(found) > 30
    for symbol in {symbol for one in found for symbol in one.symbols}:
        find(symbol)


def test_the_notebooks_cover_the_whole_paper():
    assert all(course.coverage(FOLDER).values())


def test_a_tagged_cell_is_listed_with_its_heading_and_what_it_uses(tmp_path):
    notebook(
        tmp_path,
        cell("%matplotlib inline\nfrom minillava import paper\nfrom minillava.chat import Chat as Talk"),
        cell("## The table", kind="markdown"),
        cell("print(paper.TABLES, Talk, len('x'))", "paper:Table 4", "nbval-check-output"),
    )
    (one,) = course.coverage(tmp_path)["Table 4"]
    assert (one.notebook, one.cell, one.heading) == ("00_title.ipynb", 3, "The table")
    assert one.symbols == ("minillava.paper.TABLES", "minillava.chat.Chat")
    text = course.readme(tmp_path)
    assert "| [00 · Title](00_title.ipynb) | first | 1 minute | 2 minutes |" in text
    assert "cell 3: The table | `paper.TABLES`, `chat.Chat` |" in text


def test_a_tag_that_names_nothing_and_a_missing_card_are_errors(tmp_path):
    path = notebook(tmp_path, cell("1", "paper:Table 99"))
    with pytest.raises(course.CourseError, match="00_title.ipynb, cell 1: 'paper:Table 99'"):
        course.coverage(tmp_path)
    path.write_text(json.dumps({"cells": [cell("# A", kind="markdown")]}))
    with pytest.raises(course.CourseError, match="not an opening card"):
        course.opening_card(path)


def test_figures_are_stored_smaller_and_nothing_else_changes(tmp_path):
    import base64
    import io

    from PIL import Image

    made = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(made, "png")
    png = base64.b64encode(made.getvalue()).decode()
    path = notebook(tmp_path, cell("1") | {"outputs": [{"data": {"image/png": png, "text/plain": "<Figure>"}}]})
    before = json.loads(path.read_text())
    course.shrink_figures(path)
    after = json.loads(path.read_text())
    data = after["cells"][1]["outputs"][0]["data"]
    assert len(data["image/png"]) < len(png) and data["text/plain"] == "<Figure>"
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size == (64, 64)
    before["cells"][1]["outputs"][0]["data"].pop("image/png"), data.pop("image/png")
    assert after == before

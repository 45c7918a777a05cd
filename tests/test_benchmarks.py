"""The benchmarks' page and results: every script is described, and no results file names the machine."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import environment

    yield environment
    del sys.modules["environment"]


def test_the_page_names_exactly_the_scripts_that_exist():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:benchmarks/)?([a-z_]+\.py)", page))
    assert named == {path.name for path in SCRIPTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_says_how_to_run_it_and_takes_quick_and_json(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body):
        said = ast.get_docstring(tree)
        assert f"python benchmarks/{path.name}" in said and "--quick" in said and "--json" in said


def test_figures_are_kept_with_the_machine_and_without_its_name(environment, tmp_path):
    path, machine = tmp_path / "new" / "figures.json", environment.describe_machine()
    environment.write_results(path, {"machine": machine, "seconds": 1.5})
    assert json.loads(path.read_text()) == {"machine": machine, "seconds": 1.5} and machine["cores"] >= 1
    assert machine.keys() == {"model", "cores", "python", "load"}
    environment.write_results(None, {})


@pytest.mark.parametrize("path", sorted((FOLDER / "results").glob("*.json")), ids=lambda path: path.stem)
def test_figures_that_are_kept_say_what_they_were_taken_on(path):
    kept = json.loads(path.read_text())
    assert kept["machine"]["cores"] and not kept.get("quick"), "figures of --quick are not to be quoted"

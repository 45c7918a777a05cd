"""The benchmarks' page and results: every script is described, and no results file names the machine."""

import ast
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

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
def test_every_script_says_how_to_run_it_and_takes_quick_or_dry_and_json(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body):
        said = ast.get_docstring(tree)
        assert f"python benchmarks/{path.name}" in said and "--json" in said
        assert "--quick" in said or "--dry" in said


def test_a_fault_that_changed_something_is_seen(environment, tmp_path):
    import faults

    whole, one, two = tmp_path / "whole", np.ones(3), np.full(3, 2.0)
    files = {
        "records.json": "[1]",
        "replies.jsonl": '{"a": 1}\n{"b": 2}\n',
        "report.json": '{"seconds": 1, "score": 5}',
    }
    step = whole / "checkpoints" / "step-2" / "shard.safetensors"
    step.parent.mkdir(parents=True)
    for name, text in files.items():
        (whole / name).write_text(text)
    step.write_bytes(save({"weights": one, "random/0/python": one}))
    wanted = faults.made(whole)

    (whole / "replies.jsonl").write_text('{"b": 2}\n{"a": 1}\n')
    (whole / "report.json").write_text('{"seconds": 9, "score": 5}')
    (whole / "asked.jsonl").write_text("{}")
    step.write_bytes(save({"weights": one, "random/0/python": two}))
    assert faults.compare(wanted, faults.made(whole)) == ([], [])

    (whole / "records.json").unlink()
    (whole / "replies.jsonl").write_text('{"b": 2}\n{"a": 3}\n')
    (whole / "report.json").write_text('{"seconds": 9, "score": 6}')
    (whole / ".records.json.tmp").write_text("")
    step.write_bytes(save({"weights": two}))
    lost, other = faults.compare(wanted, faults.made(whole))
    assert lost == ["records.json is missing"] and len(other) == 4


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

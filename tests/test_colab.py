"""The set-up cell on a simulated Colab: what it fetches and installs, what it does not touch; every notebook has it."""

import importlib.metadata
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from minillava.asking.client import find_api_key
from minillava.course import colab
from minillava.course import index as course

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
HERE = {"torch": "2.9.1+cu126", "numpy": "2.2.6", "transformers": "4.57", "minillava": "0.1.0"}


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    """A simulated Colab. .commands: that were run. .here: installed versions. .code: what a command returns."""
    runtime = types.SimpleNamespace(commands=[], here=dict(HERE), code=0, kept="")

    def run(command, check=False):
        runtime.commands.append([str(part) for part in command])
        if command[0] == "git":
            Path(command[-1]).mkdir()
        if "--constraint" in command:
            runtime.kept = Path(command[command.index("--constraint") + 1]).read_text()
            runtime.here |= {"minillava": "0.1.0", "transformers": "5.1"}
        return subprocess.CompletedProcess(command, runtime.code)

    def distributions():
        return [types.SimpleNamespace(name=name, version=version) for name, version in runtime.here.items()]

    monkeypatch.setattr(subprocess, "run", run)
    modules = {"torch": ["torch"], "transformers": ["transformers"], "numpy": ["numpy"]}
    known = types.SimpleNamespace(distributions=distributions, packages_distributions=lambda: modules)
    fake = types.SimpleNamespace(metadata=known, invalidate_caches=lambda: None)
    monkeypatch.setattr(colab, "importlib", fake)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MINILLAVA_SCALE", "tiny")
    monkeypatch.chdir(tmp_path)
    return runtime


def test_elsewhere_the_cell_only_sets_the_dial(runtime, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab")
    before, names = list(sys.path), {}
    exec(colab.CELL, names)
    assert names["scale"].name == "tiny" and runtime.commands == [] and sys.path == before


def test_on_colab_it_fetches_the_project_once_and_is_safe_to_run_again(runtime, tmp_path):
    del runtime.here["minillava"]
    for _ in range(2):
        exec(colab.CELL, {})
    home = str(tmp_path / "minillava-course")
    clone, install = runtime.commands
    assert clone == ["git", "clone", "-q", "--depth=1", f"https://github.com/{colab.REPOSITORY}", home]
    assert install[1:4] == ["-m", "pip", "install"] and install[-2:] == ["--editable", f"{home}[notebooks,api,real]"]
    assert sys.path.count(home) == 1 and sys.path[0] == home


def test_pip_installs_what_is_missing_and_torch_stays(runtime, capsys):
    del runtime.here["minillava"]
    colab.set_up("home")
    (command,) = runtime.commands
    assert command[-2:] == ["--editable", "home[notebooks,api,real]"] and "--upgrade" not in command
    assert runtime.kept.splitlines() == ["torch==2.9.1+cu126", "numpy==2.2.6"]
    said = capsys.readouterr().out
    assert "transformers is in use: Runtime > Restart session" in said and "torch" not in said


def test_a_failing_pip_is_an_error_that_says_what_to_do(runtime):
    del runtime.here["minillava"]
    runtime.code = 1
    with pytest.raises(RuntimeError, match="pip could not install.*choose a newer runtime.*run this cell again"):
        colab.set_up("home")


def test_the_projects_requirements_have_no_upper_bounds_and_no_jupyterlab_for_colab():
    wanted = [Requirement(line) for line in importlib.metadata.requires("minillava")]
    assert len(wanted) > 10 and {part.operator for one in wanted for part in one.specifier} == {">="}
    pyproject = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")
    (notebooks,) = [line for line in pyproject.splitlines() if line.startswith("notebooks = ")]
    assert "ipywidgets" in notebooks and "jupyterlab" not in notebooks


def test_the_cell_and_its_module_run_on_python_3_10():
    for source in (colab.CELL, Path(colab.__file__).read_text()):
        compile(source, "cell", "exec", flags=0, dont_inherit=True)
        __import__("ast").parse(source, feature_version=(3, 10))


def test_the_key_comes_from_the_environment_then_from_colabs_secrets(monkeypatch):
    class Missing(Exception):
        pass

    userdata = types.SimpleNamespace(SecretNotFoundError=Missing, NotebookAccessError=Missing)
    userdata.get = {"OPENAI_API_KEY": "from-colab"}.__getitem__
    google, inside = types.ModuleType("google"), types.ModuleType("google.colab")
    google.colab, inside.userdata = inside, userdata
    for name, module in (("google", google), ("google.colab", inside)):
        module.__spec__ = types.SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert find_api_key("https://api.openai.com/v1").reveal() == "from-colab"
    monkeypatch.setenv("OPENAI_API_KEY", "from-here")
    assert find_api_key("https://api.openai.com/v1").reveal() == "from-here"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_notebook_has_its_badge_and_the_same_set_up_cell(path):
    opening, first, *rest = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert colab.badge(path.name) in "".join(opening["source"]).splitlines()
    assert "".join(first["source"]) == colab.CELL and first["cell_type"] == "code", (
        "run: python -m minillava.course.index notebooks"
    )
    assert "scale tiny" in "".join(first["outputs"][0]["text"])


def test_add_set_up_adds_badge_and_cell_once_and_keeps_the_rest(tmp_path):
    path = tmp_path / "00_title.ipynb"
    code = {"cell_type": "code", "id": "a", "source": "1", "metadata": {}, "outputs": [], "execution_count": 1}
    card = {"cell_type": "markdown", "id": "b", "source": "# 00 · Title\n\nText", "metadata": {}}
    path.write_text(json.dumps({"cells": [card, code], "metadata": {}}))
    course.add_set_up(path)
    made = path.read_text()
    opening, first, last = json.loads(made)["cells"]
    assert "".join(opening["source"]) == f"# 00 · Title\n\n{colab.badge(path.name)}\n\nText"
    assert "".join(first["source"]) == colab.CELL and last == code
    course.add_set_up(path)
    assert path.read_text() == made
    path.write_text(made.replace("git", "tig"))
    course.add_set_up(path)
    assert path.read_text() == made


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_notebook_links_to_its_exercise(path):
    text = "".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    there = (path.parents[1] / "exercises" / f"ex{path.name}").is_file()
    assert there == (path.name[:2] not in ("00", "01", "05", "17"))
    file = f"ex{path.name}"
    link = f"[Exercise {path.name[:2]}](../exercises/{file}) ([on Colab]({colab.colab_url(file, 'exercises')}))"
    assert there == (link in text), f"its last cell needs: {link}"

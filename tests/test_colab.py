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
HERE = {"torch": "2.9.1+cu126", "numpy": "2.2.6", "transformers": "5.1", "pillow": "11.3", "openai": "2.8"}
HERE |= {"minillava": "0.1.0"}
NEEDS = ["torch>=2.9", "numpy>=2", "transformers>=5", "pillow>=11.3", 'jupyterlab>=4.4; extra == "course"',
         'openai>=2; extra == "api"', 'pytest>=8; extra == "tests"']  # fmt: skip


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    """A simulated Colab. .commands: that were run. .here: installed versions. .code: what a command returns."""
    runtime = types.SimpleNamespace(commands=[], here=dict(HERE), code=0, kept="")

    def run(command, check=False):
        runtime.commands.append([str(part) for part in command])
        if command[0] == "git":
            Path(command[-1]).mkdir()
        if "--editable" in command:
            runtime.here["minillava"] = "0.1.0"
        if "--constraint" in command:
            runtime.kept = Path(command[command.index("--constraint") + 1]).read_text()
        return subprocess.CompletedProcess(command, runtime.code)

    def version(name):
        if name not in runtime.here:
            raise importlib.metadata.PackageNotFoundError(name)
        return runtime.here[name]

    monkeypatch.setattr(subprocess, "run", run)
    known = types.SimpleNamespace(
        version=version, requires=lambda name: NEEDS, PackageNotFoundError=importlib.metadata.PackageNotFoundError
    )
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
    assert install[1:4] == ["-m", "pip", "install"] and install[-3:] == ["--no-deps", "--editable", home]
    assert sys.path.count(home) == 1 and sys.path[0] == home


def test_only_what_is_missing_or_too_old_is_installed_and_torch_stays(runtime, capsys):
    runtime.here |= {"transformers": "4.57"}
    del runtime.here["openai"]
    colab.set_up("home")
    (command,) = runtime.commands
    assert command[-2:] == ["transformers>=5", "openai>=2"] and "--constraint" in command
    assert runtime.kept.splitlines() == ["torch==2.9.1+cu126", "numpy==2.2.6"]
    assert not any(part.startswith(("torch", "numpy", "jupyterlab", "pytest")) for part in command)
    assert "Restart session" in capsys.readouterr().out  # transformers is loaded in this process


def test_an_old_torch_and_a_failing_pip_are_errors_that_say_what_to_do(runtime):
    runtime.here["torch"] = "2.5"
    with pytest.raises(RuntimeError, match="no torch>=2.9; choose a newer one"):
        colab.set_up("home")
    assert runtime.commands == []
    runtime.here |= {"torch": "2.9", "transformers": "4.1"}
    runtime.code = 1
    with pytest.raises(RuntimeError, match="pip could not install.*transformers>=5.*run this cell again"):
        colab.set_up("home")


def test_the_projects_own_requirements_have_no_upper_bounds_and_are_met_here():
    wanted = importlib.metadata.requires("minillava")
    assert len(wanted) > 10
    assert {part.operator for line in wanted for part in Requirement(line).specifier} == {">="}
    assert colab.unmet_requirements(wanted) == {}
    assert colab.unmet_requirements(["surely-not-there>=1"]) == {"surely-not-there": "surely-not-there>=1"}


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
    assert there == (path.name[:2] not in ("00", "01", "05"))
    file = f"ex{path.name}"
    link = f"[Exercise {path.name[:2]}](../exercises/{file}) ([on Colab]({colab.colab_url(file, 'exercises')}))"
    assert there == (link in text), f"its last cell needs: {link}"

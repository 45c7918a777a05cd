"""The set-up cell on a simulated Colab and Kaggle: whose code it runs, what it installs, what it does not touch."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import types
from functools import partial
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from minillava.asking.client import find_api_key
from minillava.course import colab
from minillava.course import index as course

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
ALL = [*NOTEBOOKS, *sorted((ROOT / "exercises").rglob("ex*.ipynb"))]
RELEASE = "someone/minillava@v1.0"
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


@pytest.mark.parametrize("release", ["", RELEASE])
def test_elsewhere_the_cell_only_sets_the_dial(runtime, monkeypatch, release):
    monkeypatch.delitem(sys.modules, "google.colab")
    before, names = list(sys.path), {}
    exec(colab.set_up_cell(release), names)
    assert names["scale"].name == "tiny" and runtime.commands == [] and sys.path == before


def test_on_colab_it_clones_the_release_at_its_tag_once_and_is_safe_to_run_again(runtime, tmp_path):
    del runtime.here["minillava"]
    for _ in range(2):
        exec(colab.set_up_cell(RELEASE), {})
    home = str(tmp_path / "minillava-course")
    clone, install = runtime.commands
    assert clone == ["git", "clone", "-q", "--depth=1", "--branch=v1.0", "https://github.com/someone/minillava", home]
    assert install[1:4] == ["-m", "pip", "install"] and install[-2:] == ["--editable", f"{home}[notebooks,api,real]"]
    assert sys.path.count(home) == 1 and sys.path[0] == home


@pytest.mark.parametrize("service", ["colab", "kaggle"])
@pytest.mark.parametrize("brought", ["zip", "clone"])
def test_without_a_release_nobodys_code_runs_until_the_project_is_brought(
    runtime, monkeypatch, tmp_path, service, brought
):
    del runtime.here["minillava"]
    if service == "kaggle":
        monkeypatch.delitem(sys.modules, "google.colab")
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    before = list(sys.path)
    with pytest.raises(SystemExit, match="fetches nothing.*upload its zip.*or clone a copy that you trust"):
        exec(colab.set_up_cell(""), {})
    assert runtime.commands == [] and sys.path == before and list(tmp_path.iterdir()) == []
    home = tmp_path / "minillava-course"
    project = (home if brought == "clone" else tmp_path / "made" / "minillava-main") / "minillava" / "course"
    project.mkdir(parents=True)
    (project / "colab.py").touch()
    if brought == "zip":
        shutil.make_archive(str(tmp_path / "project"), "zip", tmp_path / "made")
        shutil.rmtree(tmp_path / "made")
    exec(colab.set_up_cell(""), {})
    assert (home / "minillava" / "course" / "colab.py").is_file() and sys.path[0] == str(home)
    assert [command[-1] for command in runtime.commands] == [f"{home}[notebooks,api,real]"]


@pytest.mark.parametrize("release", ["someone/minillava", "minillava@v1", "someone/minillava@main", "a/b@v1; rm -r ."])
def test_a_release_without_owner_or_version_is_refused(release):
    for make in (colab.set_up_cell, lambda release: colab.links("00.ipynb", "notebooks", release)):
        with pytest.raises(ValueError, match="owner/name@tag"):
            make(release)


def test_the_links_are_text_and_name_the_release_or_say_that_there_is_none():
    with_one = colab.links("00_start_here.ipynb", "notebooks", RELEASE)
    assert with_one.count("someone/minillava/blob/v1.0/notebooks/00_start_here.ipynb") == 2 and RELEASE in with_one
    none = colab.links("00_start_here.ipynb", "notebooks", "")
    assert "no release is published" in none and "http" not in none
    assert "![" not in with_one + none  # a picture shows nothing offline


def test_no_repository_is_named_that_nobody_vouches_for():
    files = [*ALL, *(p for p in ROOT.glob("*") if p.suffix in (".md", ".toml", ".yml")), ROOT / "Makefile"]
    files += [p for room in ("minillava", ".github", "benchmarks", "findings") for p in (ROOT / room).rglob("*.*")]
    own = [p for p in files if p.is_file() and p.suffix not in (".pyc", ".png")]
    assert len(own) > 200
    assert [str(p) for p in own if "github.com/minillava" in p.read_text(encoding="utf-8")] == []


def test_pip_installs_what_is_missing_and_torch_stays(runtime, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", types.ModuleType("transformers"))  # in use
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


def shipped():
    """{runtime: {package: version}} of colab.txt."""
    made = {}
    for line in (ROOT / "tests" / "colab.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            made[line.strip("[]")] = packages = {}
        elif line and not line.startswith("#"):
            packages.update([line.split("==")])
    return made


@pytest.mark.parametrize("runtime", shipped())
def test_pip_has_nothing_to_change_on_colab(runtime):
    """Everything that the set-up cell asks for is met by what is there, so nothing there can break."""
    there = shipped()[runtime]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = re.search(r"\{home\}\[([\w,]+)\]", Path(colab.__file__).read_text(encoding="utf-8"))[1].split(",")
    wanted = [*project["dependencies"], *(line for name in asked for line in project["optional-dependencies"][name])]
    assert (
        len(wanted) == len(there) - 1
        and there["python"] in Requirement(f"python{project['requires-python']}").specifier
    )
    for one in map(Requirement, wanted):
        assert there[one.name].partition("+")[0] in one.specifier, f"{one}: {runtime} has {there[one.name]}"


def test_the_cell_and_its_module_run_on_python_3_10():
    for source in (colab.set_up_cell(""), colab.set_up_cell(RELEASE), Path(colab.__file__).read_text()):
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


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_notebook_has_its_links_and_the_same_set_up_cell_folded(path):
    opening, *cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    folder = "notebooks" if path in NOTEBOOKS else "exercises"
    assert colab.links(path.name, folder) in "".join(opening["source"]).splitlines()
    (first,) = [cell for cell in cells if cell["id"] == course.SET_UP]
    assert "".join(first["source"]) == colab.set_up_cell(), "run: python -m minillava.course.index"
    assert first["cell_type"] == "code" and colab.HIDDEN.items() <= first["metadata"].items()
    if path in NOTEBOOKS:
        assert first is cells[0] and "scale tiny" in "".join(first["outputs"][0]["text"])


def test_add_set_up_adds_links_and_cell_once_and_keeps_the_rest(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "02_title.ipynb"
    code = {"cell_type": "code", "id": "a", "source": "1", "metadata": {}, "outputs": [], "execution_count": 1}
    card = {"cell_type": "markdown", "id": "b", "source": "# 02 · Title\n\nText", "metadata": {}}
    link = {"cell_type": "markdown", "id": "c", "source": ["**[Exercise 02](../exercises/ex02_title.ipynb)**: do."]}
    path.write_text(json.dumps({"cells": [card, code, link | {"metadata": {}}], "metadata": {}}))
    course.add_set_up(path)
    made = path.read_text()
    opening, first, second, last = json.loads(made)["cells"]
    assert "".join(opening["source"]) == f"# 02 · Title\n\n{colab.links(path.name)}\n\nText"
    assert "".join(first["source"]) == colab.set_up_cell() and second == code and last["source"] == link["source"]
    course.add_set_up(path)
    assert path.read_text() == made
    path.write_text(made.replace("shutil", "lituhs"))
    course.add_set_up(path)
    assert path.read_text() == made

    with monkeypatch.context() as changed:  # a release is named, and taken back
        for name in ("links", "on_colab", "set_up_cell"):
            changed.setattr(course, name, partial(getattr(colab, name), release=RELEASE))
        for _ in range(2):
            course.add_set_up(path)
        opening, first, _, last = json.loads(path.read_text())["cells"]
        assert colab.links(path.name, "notebooks", RELEASE) in "".join(opening["source"])
        assert "--branch=v1.0" in "".join(first["source"])
        address = "https://colab.research.google.com/github/someone/minillava/blob/v1.0/exercises/ex02_title.ipynb"
        assert last["source"] == [f"**[Exercise 02](../exercises/ex02_title.ipynb) ([on Colab]({address}))**: do."]
    course.add_set_up(path)
    assert path.read_text() == made


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_notebook_links_to_its_exercise(path):
    text = "".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    there = (path.parents[1] / "exercises" / f"ex{path.name}").is_file()
    number = path.name.split("_")[0]
    assert there == (number not in ("00", "01", "05", "05b", "10b", "17"))
    file = f"ex{path.name}"
    link = f"[Exercise {number}](../exercises/{file}){colab.on_colab(file, 'exercises')}"
    assert there == (link in text), f"its last cell needs: {link}"

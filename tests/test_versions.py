"""One list of exact versions: `uv sync` takes what pip takes. `python tests/test_versions.py` copies a changed list."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONSTRAINTS, PROJECT = ROOT / "constraints.txt", ROOT / "pyproject.toml"
BLOCK = re.compile(r"^constraint-dependencies = \[\n.*?^\]\n", re.MULTILINE | re.DOTALL)


def block():
    """pyproject.toml's copy of constraints.txt."""
    lines = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return "constraint-dependencies = [\n" + "".join(f'    "{line}",\n' for line in lines) + "]\n"


def test_uv_and_pip_take_the_same_versions():
    assert BLOCK.findall(PROJECT.read_text(encoding="utf-8")) == [block()], "run: python tests/test_versions.py"
    assert block().count("==") > 150


def test_every_way_to_install_asks_for_the_same_extras():
    project = PROJECT.read_text(encoding="utf-8")
    (extras,) = re.findall(r'^dev = \["minillava\[([\w,]+)\]"\]', project, re.MULTILINE)
    for name in ("Makefile", "environment.yml", ".github/workflows/test.yml", "README.md"):
        found = re.findall(r"\.\[([\w,]+)\]", (ROOT / name).read_text(encoding="utf-8"))
        assert extras in found, name


def test_the_workflow_and_the_container_are_readable_and_run_what_is_here():
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))["jobs"]
    systems = [jobs["test"]["strategy"]["matrix"]["os"], jobs["windows"]["runs-on"], jobs["uv"]["runs-on"]]
    assert systems == [["ubuntu-latest", "macos-latest"], "windows-latest", "ubuntu-latest"]
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"] == "make .venv/.installed"


if __name__ == "__main__":
    text = PROJECT.read_text(encoding="utf-8")
    PROJECT.write_text(BLOCK.sub(lambda _: block(), text), encoding="utf-8", newline="\n")

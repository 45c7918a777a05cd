"""The house: the paper's rooms stand on nothing of the toy world, imports go one way, and what must be read stays small."""

import ast
import subprocess
import sys
from collections import deque
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import minillava

ROOT = Path(minillava.__file__).parent
PAPER = ("data", "model", "datagen", "training", "judging", "asking", "chat")
FORBIDDEN = ("scenes", "standins", "experiments", "figures", "course", "commands")
# Rooms and single modules, from the ground up: each imports only what stands before it, and itself.
FLOORS = [
    {"errors", "text"},
    {"paper"},
    {"later", "scales", "machine", "files"},
    {"curves"},
    {"asking", "data", "scenes"},
    {"model", "fetch"},
    {"datagen"},
    {"training", "costs"},
    {"judging"},
    {"chat"},
    {"standins"},
    {"figures"},
    {"experiments", "exercises", "serving"},
    {"course"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
# What one need not read to understand LLaVA: other people's formats, quick forms, disk, many processes.
NOT_TAUGHT = ("model/formats/", "model/kernels.py", "training/checkpoints.py", "training/parallel.py", "data/stored.py")
NOT_TAUGHT += ("training/lora.py", "training/parity.py", "datagen/export.py")  # not in the paper


def imports():
    """{module: the minillava modules it imports}, read from the source without running it."""
    found = {}
    for path in ROOT.rglob("*.py"):
        names = [*path.relative_to(ROOT).with_suffix("").parts]
        module = ".".join(names[:-1] if names[-1] == "__init__" else names)
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                full = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                full = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            else:
                continue
            found[module] |= {n.removeprefix("minillava.") for n in full if n.startswith("minillava.")}
    return {module: {n for n in names if n in found} - {module} for module, names in found.items()}


GRAPH = imports()


def room(module):
    return module.split(".")[0]


def chain(start, rooms):
    """The shortest chain of imports from a module into one of the rooms, or None."""
    queue, seen = deque([[start]]), {start}
    while queue:
        path = queue.popleft()
        if room(path[-1]) in rooms:
            return path
        for other in sorted(GRAPH[path[-1]] - seen):
            seen.add(other)
            queue.append([*path, other])


def lines_of(paths):
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


@pytest.mark.parametrize("module", sorted(m for m in GRAPH if room(m) in PAPER))
def test_the_papers_rooms_reach_nothing_of_the_toy_world(module):
    found = chain(module, FORBIDDEN)
    assert not found, " -> ".join(found)


@pytest.mark.parametrize("name", PAPER)
def test_importing_a_room_of_the_paper_loads_nothing_of_the_toy_world(name):
    modules = [m for m in sorted(GRAPH) if room(m) == name]
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module('minillava.' + m)\nprint(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert f"minillava.{name}" in out
    assert not [m for m in out if m.startswith(tuple(f"minillava.{other}" for other in FORBIDDEN))]


def test_a_chain_into_the_toy_world_is_found(monkeypatch):
    monkeypatch.setitem(GRAPH, "data.images", {"data", "errors"})
    monkeypatch.setitem(GRAPH, "data", {"scenes.world"})
    assert chain("data.images", FORBIDDEN) == ["data.images", "data", "scenes.world"]


def test_imports_go_one_way_and_in_no_circle():
    rank = {name: n for n, rooms in enumerate(FLOORS) for name in rooms}
    assert set(map(room, GRAPH)) - {""} == set(rank)
    for module, used in GRAPH.items():
        for other in used:
            same = room(other) == room(module)
            assert same or rank[room(other)] < rank[room(module)], f"{module} imports {other}"
    # A package's __init__ may offer what its modules make, so a module and its own package may meet.
    packages = {m for m in GRAPH if (ROOT / m.replace(".", "/")).is_dir()}
    apart = {m: {o for o in used if not m.startswith(f"{o}.")} for m, used in GRAPH.items() if m}
    assert packages
    assert list(TopologicalSorter(apart).static_order())


def test_what_must_be_read_to_understand_llava_is_at_most_6000_lines():
    paths = [p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0].removesuffix(".py") in PAPER]
    paths = [p for p in paths if not p.relative_to(ROOT).as_posix().startswith((*NOT_TAUGHT, "asking/"))]
    assert 3000 < lines_of(paths) <= 6000
    assert lines_of(ROOT / "model" / f"{name}.py" for name in ("vision", "rope", "language", "llava")) <= 800


def test_modules_are_read_in_one_sitting_and_the_top_of_the_package_in_one_glance():
    long = {str(p.relative_to(ROOT)): lines_of([p]) for p in ROOT.rglob("*.py") if lines_of([p]) > 300}
    assert not long
    assert len(list(ROOT.glob("*.py"))) <= 12
    assert lines_of(ROOT.rglob("*.py")) <= 26_000

"""The exercises: students' files are the stripped solutions, stubs are recognised, solutions pass, mistakes are named.

A mutant is a solution with one piece of text replaced by what a learner might write (tests/mutants). A test run prints
at its end how many were caught.
"""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from minillava.course.colab import links, set_up_cell
from minillava.data import IGNORE, IMAGE
from minillava.exercises import NotYet, Unsolved, check, engine, hint, progress, show
from minillava.exercises.build import HIDDEN, SOLUTION, ExerciseError, build_exercises, read_notebook, student_version
from minillava.exercises.compare import Raised, difference
from minillava.figures.puzzles import grids
from minillava.files import FileError
from minillava.scales import WEIGHTS

FOLDER = Path(__file__).parents[1] / "exercises"
SOLUTIONS = sorted((FOLDER / "solutions").glob("ex*.ipynb"))
NAMES = [path.stem for path in SOLUTIONS]
MUTANTS = [
    pytest.param(number, *mutant, id=f"{mutant[0]}-{n}")
    for number in engine.exercise_numbers()
    for n, mutant in enumerate(importlib.import_module(f"mutants.ex{number}").MUTANTS)
]


@pytest.fixture(autouse=True)
def kept_apart(monkeypatch, tmp_path):
    monkeypatch.setenv("MINILLAVA_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setenv("MINILLAVA_SCALE", "tiny")


def kind(cell):
    marks = cell["metadata"]["nbgrader"]
    return "answer" if marks["solution"] else "check" if marks["grade"] else cell["cell_type"]


def cells(notebook, *kinds):
    return ["".join(c["source"]) for c in notebook["cells"] if kind(c) in kinds]


def solved(number, upto=None, old="", new=""):
    """The names that a solution's answers define, and a task's check cell. In its answer `old` becomes `new`."""
    (path,) = (FOLDER / "solutions").glob(f"ex{number}_*.ipynb")
    names, begun = {}, False
    for cell in read_notebook(path)["cells"]:
        source = "".join(cell["source"])
        if kind(cell) == "check" and f'"{upto}"' in source:
            return names, source
        if kind(cell) == "answer":
            begun = True
            if _task_of(path, cell) == upto and old:
                assert old in source, f"{upto}: {old!r} is not in the solution"
                source = source.replace(old, new)
        if kind(cell) == "answer" or (kind(cell) == "code" and not begun):  # cells below that measure are not needed
            exec(compile(source, f"ex{number}", "exec"), names)
    raise AssertionError(f"no check of {upto}")


def _task_of(path, cell):
    return f"{path.name[2:4]}.{cell['metadata']['nbgrader']['grade_id'].split('-')[1]}"


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_a_students_file_is_its_solution_without_the_answers(path):
    student = read_notebook(FOLDER / path.name)
    assert student == student_version(read_notebook(path)), "run: python -m minillava.exercises.build"
    text = json.dumps(student, ensure_ascii=False)
    assert not any(mark in text for mark in SOLUTION + HIDDEN)
    for source in cells(read_notebook(path), "answer"):
        body = re.search(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, re.S)[1]
        lines = [line.strip() for line in body.splitlines() if len(line.strip()) > 25]
        assert not any(json.dumps(line)[1:-1] in text for line in lines)


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_every_cell_has_nbgraders_metadata_and_the_first_two_set_up(path):
    notebook, number = read_notebook(path), path.name[2:4]
    ids = [c["metadata"]["nbgrader"]["grade_id"] for c in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(
        c["metadata"]["nbgrader"]["schema_version"] == 3 for c in notebook["cells"]
    )
    assert links(path.name, "exercises") in "".join(notebook["cells"][0]["source"])
    assert "".join(notebook["cells"][1]["source"]) == set_up_cell()
    some = engine.tasks_of(number)
    checked = [re.findall(rf'check\("({number}\.\d[ab]?)"', source)[0] for source in cells(notebook, "check")]
    assert checked == list(some) and len(cells(notebook, "answer")) == len(some) >= 5
    stars = [t.stars for t in some.values() if t.stars]
    assert stars[:3] == [1, 2, 3] or number == "16" and stars == [2, 2, 3, 3]  # the capstone asks for no recall
    points = [c["metadata"]["nbgrader"]["points"] for c in notebook["cells"] if kind(c) == "check"]
    assert points == [t.stars for t in some.values()]
    assert all(len(t.cases(0)) >= 3 for t in some.values())
    assert all(len(t.hints) >= 1 + (t.stars > 0) and len(t.mistakes) >= 2 + (t.stars > 0) for t in some.values())


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_two_puzzles_of_five_lines_lead_to_each_task_of_two_stars_and_are_shown_first(path):
    notebook, number = read_notebook(path), path.name[2:4]
    order = list(engine.tasks_of(number))
    puzzles = [task for task in engine.tasks_of(number).values() if not task.stars]
    before = [order[n - 2 : n] for n, t in enumerate(order) if engine.find_task(t).stars == 2]
    assert sum(before, []) == [t.id for t in puzzles] and all(t[-1] in "ab" for pair in before for t in pair)
    sources = ["".join(c["source"]) for c in notebook["cells"]]
    for task in puzzles:
        place = sources.index(f'show("{task.id}")')
        body = re.search(r"### BEGIN SOLUTION\n(.*?)\n *### END SOLUTION", sources[place + 1], re.S)[1]
        assert len(body.splitlines()) <= 5, body
        arguments = re.search(r"def \w+\((.*)\):", sources[place + 1])[1].split(", ")
        assert arguments == list(inspect.signature(task.oracle).parameters)  # these names stand in the drawing


@pytest.mark.parametrize(("path", "following"), list(zip(SOLUTIONS, SOLUTIONS[1:])), ids=NAMES[:-1])
def test_an_exercise_links_to_the_next(path, following):
    title = cells(read_notebook(following), "markdown")[0].splitlines()[0].removeprefix("# ")
    assert f"[{title}]({following.name})" in cells(read_notebook(path), "markdown")[-1]


def test_the_page_of_the_exercises_names_every_task():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in SOLUTIONS:
        titles = " · ".join(task.title for task in engine.tasks_of(path.name[2:4]).values() if task.stars)
        assert f"| [{path.stem[5:].replace('_', ' ')}]({path.name}) | {titles} |" in page


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_a_stub_is_recognised_kindly(path):
    names = {"check": check, "hint": hint, "torch": torch}  # the cells that draw are not needed
    student = read_notebook(FOLDER / path.name)
    for cell in student["cells"]:
        source = "".join(cell["source"])
        if kind(cell) == "answer":
            exec(source, names)
        if kind(cell) == "check":
            with pytest.raises(Unsolved, match="nothing is wrong yet"):
                exec(source, names)


@pytest.mark.parametrize("task_id", [t for number in engine.exercise_numbers() for t in engine.tasks_of(number)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_oracle_passes_and_every_known_mistake_is_recognised(task_id, seed):
    task = engine.find_task(task_id)
    check(task_id, task.oracle, seed)
    errors = [w.error for w in engine.run_cases(task.oracle, task.cases(seed)) if isinstance(w, Raised)]
    assert all(isinstance(error, ValueError) for error in errors) and len(errors) < len(task.cases(seed)), errors
    for wrong, says in task.mistakes:
        with pytest.raises(NotYet) as failed:
            check(task_id, wrong, seed)
        assert f"comes out when {says}" in str(failed.value), str(failed.value)


@pytest.mark.parametrize(("number", "task_id", "old", "new", "says"), MUTANTS)
def test_a_mistake_is_caught_and_named(number, task_id, old, new, says, record_property):
    record_property("mutant", f"{task_id}: {new}")
    names, source = solved(number, task_id, old, new)
    with pytest.raises(NotYet) as failed:
        exec(source, names)
    assert says in str(failed.value), str(failed.value)


def test_every_task_has_three_mutants_and_every_puzzle_two():
    found = [param.values[1] for param in MUTANTS]
    every = [t for number in engine.exercise_numbers() for t in engine.tasks_of(number).values()]
    assert not [t.id for t in every if found.count(t.id) < 2 + (t.stars > 0)]


@pytest.mark.skipif(not WEIGHTS.exists(), reason="no weights")
def test_another_seed_asks_for_something_else():
    """An answer that only reproduces the visible cases fails on the hidden ones."""
    for number in engine.exercise_numbers():
        for task in engine.tasks_of(number).values():
            visible = iter(engine.run_cases(task.oracle, task.cases(0)))

            def parrot(*a, visible=visible):
                given = next(visible)
                if isinstance(given, Raised):
                    raise given.error
                return given

            with pytest.raises(NotYet):
                check(task.id, parrot, seed=1)


def test_a_check_says_what_it_got_and_wanted(capsys):
    with pytest.raises(NotYet) as failed:
        check("08.1", lambda Zv, W, b: Zv[..., :4])
    said = str(failed.value)
    assert "got     tensor (4, 4)" in said and "wanted  tensor (4, 4)" in said and "Often it is one of these" in said
    assert failed.value._render_traceback_() == [said]
    with pytest.raises(NotYet, match="is there a `return`"):
        check("08.1", lambda Zv, W, b: None)
    with pytest.raises(NotYet, match="ZeroDivisionError.*\n.*\n.*an error where there should be a result"):
        check("08.1", lambda Zv, W, b: 1 / 0)
    with pytest.raises(NotYet, match="no error"):
        check("08.3", lambda Zv, k: engine.find_task("08.3").oracle(Zv, k) if len(Zv) not in (12, 25) else Zv)
    with pytest.raises(KeyError, match="there is no task '08.9'; exercise 08 has 08.1"):
        check("08.9", len)
    with pytest.raises(KeyError, match="there is no exercise '99'"):
        hint("99.1")
    hint("08.1", 1), hint("08.1", 9)
    said = capsys.readouterr().out
    assert "hint 1 of 2" in said and "exercises/solutions/ex08_the_translator.ipynb" in said
    with pytest.raises(ValueError, match="begin at 1"):
        hint("08.1", 0)


def test_a_verdict_does_not_depend_on_the_notebooks_settings(capsys):
    """A default device that is not the CPU, and gradients switched off."""
    with torch.device("meta"), torch.no_grad():
        for number in engine.exercise_numbers():
            for task in engine.tasks_of(number).values():
                check(task.id, task.oracle)
        with pytest.raises(NotYet, match="the bias is left out"):
            check("08.1", lambda Zv, W, b: Zv @ W.T)
        assert torch.zeros(1).device.type == "meta" and not torch.is_grad_enabled()
    assert torch.zeros(1).device.type == "cpu" and "right, in 4 cases of 4" in capsys.readouterr().out


def test_a_mistake_is_named_when_only_some_cases_show_it_or_the_error_is_another():
    right, no_stop = (engine.find_task("04.3").oracle, lambda *a: [(t, on and t != "###") for t, on in right(*a)])
    with pytest.raises(NotYet, match="What is wrong is what comes out when the stop carries no loss"):
        check("04.3", lambda s, p, learn: (no_stop if learn == "answers" and len(p) == 1 else right)(s, p, learn))
    with pytest.raises(NotYet, match="What is wrong is what comes out when temperature 0"):
        check("07.3", lambda x, t, p, u: engine.find_task("07.3").oracle(x, t, p, u) if t else [][0])


DRAWN = [t.id for n in engine.exercise_numbers() for t in engine.tasks_of(n).values() if t.draw or not t.stars]


@pytest.mark.parametrize("task_id", DRAWN)
def test_every_answer_that_can_be_drawn_gets_a_picture(task_id, monkeypatch):
    import IPython
    import IPython.display

    pictures, task = [], engine.find_task(task_id)
    monkeypatch.setattr(IPython, "get_ipython", lambda: True)
    monkeypatch.setattr(IPython.display, "display", pictures.append)
    check(task_id, task.oracle)
    check(task_id, task.oracle, seed=1)  # a hidden case is not displayed
    assert [picture.data[:4] for picture in pictures] == [b"\x89PNG"]
    for wrong, _ in task.mistakes:
        with pytest.raises(NotYet):
            check(task_id, wrong)
    for odd in (
        None,
        "seven",
        torch.zeros(2, 3, 4, 5),
        [object()],
    ):  # forms that cannot be drawn; the message says what is wrong
        with pytest.raises(NotYet):
            check(task_id, lambda *a, odd=odd: odd)


@pytest.mark.parametrize("task_id", [t for t in DRAWN if t[-1] in "ab"])
def test_a_puzzle_is_shown_with_each_input_and_its_target_and_each_number_in_a_cell(task_id, monkeypatch):
    import IPython
    import IPython.display

    pictures, figures, task = [], [], engine.find_task(task_id)
    monkeypatch.setattr(IPython, "get_ipython", lambda: True)
    monkeypatch.setattr(IPython.display, "display", pictures.append)
    monkeypatch.setattr(engine, "grids", lambda values: figures.append(grids(values)) or figures[-1])
    show(task_id)
    (axis,) = figures[0].axes
    said = [text.get_text() for text in axis.texts]
    for name in [*inspect.signature(task.oracle).parameters, "target"]:
        assert any(text.split(" (")[0] == name for text in said), (name, said)
    assert len(pictures) == 1 and pictures[0].data[:4] == b"\x89PNG" and figures[0].get_size_inches()[0] < 15
    renderer = FigureCanvasAgg(figures[0]).get_renderer()
    boxes = [patch.get_window_extent(renderer) for patch in axis.patches]
    words = [text.get_window_extent(renderer) for text in axis.texts if text.get_ha() == "center"]
    assert len(words) == len(boxes) and all(w.width <= b.width for w, b in zip(words, boxes))


def test_a_drawing_tells_numbers_yes_and_no_images_and_labels_without_loss():
    values = {"a": torch.tensor([[1, -2], [IMAGE, IGNORE]]), "b": [True, 0.5], "c": "a b", "d": {7: 2}, "target": 3}
    said = [text.get_text() for text in grids(values).axes[0].texts]
    assert said == "a (2, 2)|1|-2|image|ignore|b|yes|0.5|c|a|␣|b|d|7:|2|target|3".split("|")
    cube = grids({"x": torch.arange(8).reshape(2, 2, 2)}).axes[0]
    assert len(cube.patches) == 8 and cube.patches[4].get_x() > cube.patches[1].get_x() + 1  # a table per slice
    below = grids({"ids": torch.tensor([10, 11, 12]), "target": torch.tensor([11, 12, IGNORE])}).axes[0].patches
    assert [p.get_x() for p in below[:3]] == [p.get_x() for p in below[3:]] and below[3].get_y() > below[0].get_y()


def test_progress_is_the_last_check_of_each_task(tmp_path, capsys, monkeypatch):
    assert "0 of" in progress()
    check("08.1", engine.find_task("08.1").oracle)
    with pytest.raises(NotYet):
        check("08.2", lambda *a: 0)
    page = progress()
    assert "● ★ Eq. 1   ○ ★★ The splice   · ★★★" in page and page.splitlines()[-1].startswith("1 of ")
    check("08.2a", engine.find_task("08.2a").oracle)
    assert "1 of 43 tasks and 1 of 30 puzzles" in progress()
    with pytest.raises(NotYet):
        check("08.1", lambda *a: 0)
    assert "○ ★ Eq. 1" in progress()
    (tmp_path / "progress.json").unlink()
    first = read_notebook(FOLDER.parent / "notebooks" / "00_start_here.ipynb")
    stored = [o["text"] for c in first["cells"] for o in c.get("outputs", []) if "not begun" in str(o)]
    assert ["".join(text) for text in stored] == [progress() + "\n"], "run notebook 00 again"
    for text, message in (("[1", "progress.json: not JSON"), ("[1]", "progress.json: not task ids.*delete it")):
        (tmp_path / "progress.json").write_text(text)
        with pytest.raises(FileError, match=message):
            progress()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINILLAVA_PROGRESS", str(tmp_path / "file" / "p.json"))
    check("08.1", engine.find_task("08.1").oracle)
    assert "progress is not kept" in capsys.readouterr().out


def test_values_are_compared_within_the_precision_of_float32():
    third, nan = torch.tensor([1 / 3, 2.0]), float("nan")
    alike = ((third + 2e-5, third), ([1, (2.0,)], (1, [2.0])), ({"a": 1}, {"a": 1}), ("a", "a"), (nan, nan))
    alike += ((torch.tensor(2.0), 2.0), (35073024.0, 35073025), (torch.tensor(5), 5), (1.00001, 1.0))
    for got, want in alike:
        assert difference(got, want) is None, (got, want)
    for got, want in ((True, 1), (1, True), (5.1, 5), (third, third.long()), (torch.tensor([nan, 2.0]), third)):
        assert difference(got, want), (got, want)
    for got, want, says in (
        (third + torch.tensor([0, 1.0]), third, "50% of the numbers"),
        (third[:, None], third, "the shape is (2, 1)"),
        (1.0, third, "float where a tensor"),
        ([1, [3.0]], [1, [2.0]], "at [1][0]: 3 is not 2"),
        ({"a": 2}, {"a": 1}, "at ['a']"),
        ({}, {"a": 1}, "keys"),
        ([1], [1, 2], "1 entries, not 2"),
        (35073024, 35073025, "35073024 is not 35073025"),
    ):
        assert says in difference(got, want), (got, want)


def test_wrong_marks_and_metadata_are_named(tmp_path):
    cell = {"cell_type": "code", "metadata": {"nbgrader": {"solution": True}}, "source": ["x = 1"]}
    with pytest.raises(ExerciseError, match="exercise, cell 0: a solution cell without ### BEGIN SOLUTION"):
        student_version({"cells": [cell]})
    with pytest.raises(ExerciseError, match="without ### END SOLUTION"):
        student_version({"cells": [cell | {"source": ["### BEGIN SOLUTION"]}]})
    with pytest.raises(ExerciseError, match="without its other half"):
        student_version({"cells": [cell | {"source": ["### END SOLUTION"]}]})
    with pytest.raises(ExerciseError, match="no nbgrader metadata"):
        student_version({"cells": [cell | {"metadata": {}}]})
    (tmp_path / "solutions").mkdir()
    solution = (FOLDER / "solutions" / "ex08_the_translator.ipynb").read_text()
    (tmp_path / "solutions" / "ex08_x.ipynb").write_text(solution)
    assert build_exercises(tmp_path) == [tmp_path / "ex08_x.ipynb"]
    assert len(read_notebook(tmp_path / "ex08_x.ipynb")["cells"]) > 8

"""The Chinese edition: nothing missing, nothing stale, the same numbers, code, formulas, links and terms."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from minillava.course import chinese
from minillava.course.chinese import (
    STALE,
    TranslationError,
    chinese_notebook,
    english_notebooks,
    mismatches,
    unsaid_terms,
)
from minillava.course.terms import CELL, TERMS
from minillava.exercises.build import read_notebook, write_notebook
from minillava.exercises.engine import tasks_of

ROOT = Path(__file__).parents[1]
PATHS = english_notebooks(ROOT)


def english_by_key(path):
    """Key of a file of translations -> its English text; the hints of a task joined by line breaks."""
    cells = [c for c in read_notebook(path)["cells"] if c["cell_type"] == "markdown" and c["id"] != CELL]
    texts = {cell["id"]: chinese.english_text(cell) for cell in cells}
    if path.name.startswith("ex"):
        texts |= {name: "\n".join(task.hints) for name, task in tasks_of(path.name[2:4]).items() if task.hints}
    return texts


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_cell_is_translated_and_says_the_same(path):
    english, found = english_by_key(path), chinese.translations(path)
    assert chinese_notebook(path)[1] == []
    assert list(found) == list(english), "the keys stand in the order of the cells"
    wrong = {}
    for key, entry in found.items():
        lines = entry.get("text") or entry["hints"]
        terms = unsaid_terms(english[key], "\n".join(lines)) if "text" in entry else []  # hints are half code
        if why := mismatches(english[key], "\n".join(lines)) + terms:
            wrong[key] = why
        if "hints" in entry:
            assert len(lines) == len(tasks_of(path.name[2:4])[key].hints)
    assert wrong == {}


def unrendered(text):
    """Texts in which marks of bold are left over: next to Chinese punctuation CommonMark does not see where they end."""
    inline = [token for token in MarkdownIt().enable("table").parse(text) if token.type == "inline"]
    return [part.content for token in inline for part in token.children if part.type == "text" and "**" in part.content]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_bold_is_bold(path):
    found = chinese.translations(path)
    texts = {key: "\n".join(entry["text"]) for key, entry in found.items() if "text" in entry}
    assert {key: bad for key, text in texts.items() if (bad := unrendered(text))} == {}


def test_bold_that_ends_in_punctuation_is_found():
    assert (
        unrendered("**你应该看到：**每个词") == ["**你应该看到：**每个词"]
        and unrendered("**你应该看到**：每个词") == []
    )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_code_and_outputs_are_the_english_ones(path):
    ours, theirs = chinese_notebook(path)[0], read_notebook(path)
    assert [c["id"] for c in ours["cells"]] == [c["id"] for c in theirs["cells"]]
    for our, their in zip(ours["cells"], theirs["cells"]):
        if their["cell_type"] == "code":
            assert json.dumps(our) == json.dumps(their)
    assert ours["metadata"] == theirs["metadata"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    built = {p.parent / "zh" / p.name for p in PATHS}
    for cell in chinese_notebook(path)[0]["cells"]:
        if cell["cell_type"] == "markdown":
            for target in chinese.LINK.findall("".join(cell["source"])):
                full = Path(re.sub("#.*", "", str(path.parent / "zh" / target)))
                resolved = Path(*full.parts).resolve()
                assert resolved in {p.resolve() for p in built} or resolved.exists(), target


def test_nbval_runs_one_edition(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("notebooks", "notebooks/zh"):
        (tmp_path / folder).mkdir()
        shutil.copy(ROOT / "notebooks" / "01_the_problem.ipynb", tmp_path / folder)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval-lax",
        "notebooks",
    ]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "notebooks/01_the_problem.ipynb" in listed and "zh" not in listed, listed[-1000:]


@pytest.fixture
def course(tmp_path):
    """A course of one notebook and its translations."""
    (tmp_path / "notebooks" / "zh").mkdir(parents=True)
    (tmp_path / "exercises" / "zh").mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "01_the_problem.ipynb", tmp_path / "notebooks")
    shutil.copy(ROOT / "notebooks" / "zh" / "01.json", tmp_path / "notebooks" / "zh")
    return tmp_path


def change(path, what):
    data = read_notebook(path)
    what(data)
    write_notebook(data, path)


def test_a_changed_cell_is_shown_in_english_and_listed(course):
    path = course / "notebooks" / "01_the_problem.ipynb"
    at = next(n for n, c in enumerate(read_notebook(path)["cells"]) if n > 3 and c["cell_type"] == "markdown")
    change(path, lambda notebook: notebook["cells"][at]["source"].append("\nAnd one more sentence."))
    problems = chinese.build(course)
    made = read_notebook(course / "notebooks" / "zh" / path.name)["cells"][at]
    text = "".join(made["source"])
    assert text.startswith(STALE) and "And one more sentence." in text
    assert len(problems) == 1 and made["id"] in problems[0] and "01.json" in problems[0]
    assert f"translate cell {at} of {path.name}" in problems[0]
    # the digest that is printed makes it current again
    new = re.search(r"[0-9a-f]{64}", problems[0])[0]
    change(course / "notebooks" / "zh" / "01.json", lambda found: found[made["id"]].update(sha256=new))
    assert chinese.build(course) == []


def test_hints_that_have_changed_are_left_out_and_listed(course):
    shutil.copy(ROOT / "exercises" / "ex04_the_sequence.ipynb", course / "exercises")
    source = course / "exercises" / "zh" / "04.json"
    shutil.copy(ROOT / "exercises" / "zh" / "04.json", source)
    change(source, lambda found: found["04.1"].update(sha256="old"))
    change(course / "notebooks" / "zh" / "01.json", lambda found: found.update(nobody=found["c00"]))
    first, second = chinese.build(course)
    assert "nobody" in first and "04.json: 04.1: its hints are new" in second
    made = read_notebook(course / "exercises" / "zh" / "ex04_the_sequence.ipynb")["cells"]
    assert "提示" not in "".join(next(cell["source"] for cell in made if cell["id"] == "c03"))
    new = re.search(r"[0-9a-f]{64}", second)[0]
    change(source, lambda found: found["04.1"].update(sha256=new))
    assert chinese.build(course) == [first]


def test_links_are_those_of_the_chinese_edition():
    made = chinese.LINK.sub(
        chinese.to_chinese_edition,
        "[a](02_x.ipynb#p) [b](../exercises/ex04_y.ipynb#p) [c](glossary.md) [d](https://e.org/f.ipynb) [g](#h)",
    )
    assert made == (
        "[a](02_x.ipynb#p) [b](../../exercises/zh/ex04_y.ipynb#p) [c](../glossary.md) [d](https://e.org/f.ipynb) [g](#h)"
    )


def test_new_words_and_the_line_on_where_to_open_are_made(monkeypatch):
    monkeypatch.setattr(chinese, "links", lambda name, folder: f"open {folder}/{name}")
    made = chinese_notebook(ROOT / "notebooks" / "01_the_problem.ipynb")[0]["cells"]
    assert "".join(made[0]["source"]).split("\n\n")[1] == "open notebooks/zh/01_the_problem.ipynb"
    (words,) = ["".join(cell["source"]) for cell in made if cell["id"] == CELL]
    assert (
        words.startswith("**本章新词**（[全部词汇](../glossary.md)）") and "| **captioner** | 图像描述模型 |" in words
    )


def test_a_new_cell_and_a_removed_one_are_listed(course):
    source = course / "notebooks" / "zh" / "01.json"
    gone = next(iter(read_notebook(source)))
    change(source, lambda found: found.update({"nobody": found.pop(gone)}))
    problems = chinese.build(course)
    assert len(problems) == 2 and gone in problems[0] and "has no translation" in problems[0]
    assert "nobody" in problems[1] and "remove it" in problems[1]


@pytest.mark.parametrize(
    "entry",
    [
        {"text": ["x"]},
        {"sha256": "x", "text": "a string"},
        {"sha256": "x", "hints": ["of a cell"]},
        ["x"],
        {"sha256": "x", "text": ["x"], "note": "x"},
    ],
    ids=("no hash", "a string", "hints", "a list", "more"),
)
def test_an_entry_of_another_form_is_refused_by_name(course, entry):
    source = course / "notebooks" / "zh" / "01.json"
    change(source, lambda found: found.update(c00=entry))
    with pytest.raises(TranslationError, match=r"01\.json.*c00.*sha256"):
        chinese.build(course)


def test_a_file_and_a_folder_of_another_form_are_refused_by_name(course, tmp_path):
    (course / "notebooks" / "zh" / "01.json").write_text("[]", encoding="utf-8")
    with pytest.raises(TranslationError, match=r"01\.json must hold an object"):
        chinese.build(course)
    with pytest.raises(TranslationError, match="has no notebooks"):
        chinese.build(tmp_path / "site-packages")


@pytest.mark.parametrize(
    ("english", "wrong", "why"),
    [
        ("85.1 % of 90", "90 的 85.2 %", "lacks numbers: 85.1"),
        ("see `W`", "见 `w`", "lacks code: `W`"),
        ("$H_v = W Z_v$", "$H_v = W Z$", "lacks formulas"),
        ("[it](05_the_results.ipynb)", "[它](06_the_eye.ipynb)", "lacks links: 05_the_results.ipynb"),
        ("the vision tower", "视觉塔", "without 视觉编码器"),
        ("two tokens", "两个令牌", "without 词元"),
        ("two pictures", "2 张图片", "adds numbers: 2"),
        ("run\n\n    make lab", "运行\n\n    make labs", "lacks code:     make lab"),
        ("$$\na = b\n$$", "$$\na = c\n$$", "lacks formulas"),
    ],
)
def test_what_a_translation_must_keep(english, wrong, why):
    assert any(why in line for line in mismatches(english, wrong) + unsaid_terms(english, wrong))


def test_a_number_inside_code_or_a_formula_is_counted_there():
    assert chinese.kept("`w2` $x_3$ [4](5.md) 6")["numbers"] == {"4": 1, "6": 1}


def test_what_may_differ():
    english = "In **stage 1** only $W$ trains: 595K pairs ([03](03_the_architecture.ipynb)), `lr` 0.002."
    assert (
        mismatches(english, "**第一阶段**只训练 $W$：595K 对（[03](03_the_architecture.ipynb)），`lr` 为 0.002。") == []
    )


def test_a_stage_may_be_said_in_a_word_and_a_month_in_digits():
    assert (
        mismatches("Only stage 1 trains $W$, and Stage 2 all", "只有第一阶段训练 $W$，第二阶段（stage 2）全部训练")
        == []
    )
    assert mismatches("Seen on 27 November 2026", "2026 年 11 月 27 日见到") == []


def test_every_term_has_a_form_that_can_stand_in_a_sentence():
    for term in TERMS:
        form = chinese.form(term.chinese)
        assert form and form in term.chinese and "：" not in form, term
    assert chinese.EVERYDAY <= {term.english for term in TERMS}


def test_a_task_shows_its_hints_folded_before_its_check():
    notebook, _ = chinese_notebook(ROOT / "exercises" / "ex04_the_sequence.ipynb")
    text = next("".join(c["source"]) for c in notebook["cells"] if c["id"] == "c03")
    assert text.count("<summary>提示") == len(tasks_of("04")["04.1"].hints)
    second = next("".join(c["source"]) for c in notebook["cells"] if c["id"] == "c06")
    assert r"text.split('\<image>')" in second, "a hint is plain text, and no HTML"
    assert chinese.plain("*all* of `a_b`, not <c_d>") == r"\*all\* of `a_b`, not \<c\_d>"
    everywhere = "".join("".join(cell["source"]) for cell in notebook["cells"])
    assert everywhere.count("<summary>提示") == sum(len(task.hints) for task in tasks_of("04").values())
    bad = [c["id"] for c in notebook["cells"] if c["cell_type"] == "code" and "提示" in "".join(c["source"])]
    assert bad == []

"""What a lesson is made of: diagrams, new words, the paper's equations and pages, numbers before verdicts, plain English.

A lint that some notebooks do not pass yet names them in `NOT_YET`, and one that passes after all must leave the list.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from minillava.course.index import redraw
from minillava.course.terms import CELL, TERMS, glossary, new_words
from minillava.paper import ARCHITECTURE, EQUATIONS, STRUCTURE

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {path.name.split("_")[0]: path for path in sorted(FOLDER.glob("[0-9][0-9]*_*.ipynb"))}
BUILDING = [f"{n:02d}" for n in range(6, 17)]  # the third pass
ARXIV = "https://arxiv.org/abs/2304.08485"
ENDS = ("00", "05", "16")  # the last notebook of each pass
WRITTEN = {"00": ["Eq. 1"], "03": ["Eq. 1"], "04": ["Eq. 2", "Eq. 3"], "09": ["Eq. 3"]}
NOT_YET = {"numbers": set(), "english": set(), "cells": set(), "minutes": set()}

SAID = re.compile(r"^(?!    ).*\b(True|False)\b", re.MULTILINE)  # an indented line shows a line of code

COUNTED = (
    "patches|pixels|vectors?|numbers?|rows?|lines?|tokens?|bytes|dollars|hours|minutes|seconds|steps?|samples?|words?|"
    "questions?|pictures?|times|runs?|entry|entries|boxes|captions?|records?|answers?|GB|MB|bits|dial|seeds?"
)
UNITS = (
    "side|picture|step|record|patch|row|token|second|minute|hour|turn|sample|question|type|device|head|layer|box|line|"
    "number|notebook|GPU|pixel|word|column|scene|pair|request|stage|kind|caption|place|position|parameter"
)
IDIOMS = {  # what a reader whose first language is not English reads twice -> what we write
    r"\bhangs? on\b": "depends on",
    r"\bholds? of\b": "is true of",
    r"\bdear\b": "expensive",
    r"\black(?:s|ed|ing)?\b": "has no, or is missing",
    r"\bso:": "in this way:",
    rf"(?<!\[[\"'])\b(?:{COUNTED}) a (?:{UNITS})\b": "per",  # not of a key in a file of results
}


def cells(number):
    return json.loads(NOTEBOOKS[number].read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def prose(number):
    return "\n".join(source(cell) for cell in cells(number) if cell["cell_type"] == "markdown")


def printed(cell):
    values = ["".join(o["data"].get("text/plain", "")) for o in cell["outputs"] if "data" in o]
    return "".join("".join(o.get("text", "")) for o in cell["outputs"]) + "\n".join(values)


def is_verdict(cell):
    """Whether a cell is one that nbval compares and whose code a reader need not see."""
    folded = cell["metadata"].get("jupyter", {}).get("source_hidden") is True
    return folded and "nbval-check-output" in cell["metadata"].get("tags", [])


def verdicts_before_numbers(found):
    """Ids of cells that print True or False where a reader learns, or that have no number or picture before them."""
    wrong, before = [], None
    for cell in (c for c in found if c["cell_type"] == "code"):
        if is_verdict(cell):
            seen = before is not None and (
                re.search(r"\d", printed(before)) or any("data" in o for o in before["outputs"])
            )
            wrong += [] if seen else [f"{cell['id']}: no number before it"]
            continue
        wrong += [f"{cell['id']}: prints True or False"] if SAID.search(printed(cell)) else []
        before = cell
    return wrong


def idioms(found):
    """The idioms in a notebook's text and code, without the set-up cell, each with what we write in its place."""
    texts = [source(cell) for cell in found if cell.get("id") != "set-up"]
    return [f"{hit[0]!r}: {ours}" for text in texts for bad, ours in IDIOMS.items() for hit in re.finditer(bad, text)]


def held(lint, number, faults):
    """Hold a lint for a notebook: no faults, or listed in NOT_YET and faulty indeed."""
    if number in NOT_YET[lint]:
        assert faults, f"{number} passes now: take it out of NOT_YET"
    else:
        assert faults == []


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_numbers_come_before_verdicts(number):
    held("numbers", number, verdicts_before_numbers(cells(number)))


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_there_are_at_most_sixty_cells(number):
    count = len(cells(number))
    held("cells", number, [] if count <= 60 else [f"{count} cells"])


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_the_time_stated_is_true(number):
    """180 words per minute, 6 seconds per line of code that is not folded, half a minute per prediction."""
    shown = [c for c in cells(number) if c["id"] not in (CELL, "set-up")]
    text = "\n".join(source(c) for c in shown if c["cell_type"] == "markdown")
    open_code = [c for c in shown if c["cell_type"] == "code" and "jupyter" not in c["metadata"]]
    lines = sum(len(source(c).splitlines()) for c in open_code)
    takes = len(text.split()) / 180 + lines / 10 + len(re.findall(r"\*\*[Pp]redict\*\*", text)) / 2
    stated = int(re.search(r"\| (\d+) minutes \|", source(cells(number)[0]))[1])
    held("minutes", number, [] if abs(stated - takes) <= max(6, 0.15 * takes) else [f"{stated} stated, {takes:.0f}"])


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_the_english_is_plain(number):
    held("english", number, idioms(cells(number)))


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_there_is_a_diagram_and_in_chapters_that_build_there_are_two(number):
    drawn = [c for c in cells(number) if any("image/svg+xml" in o.get("data", {}) for o in c.get("outputs", []))]
    assert len(drawn) >= (2 if number in BUILDING else 1)
    assert all(re.search(r"^(model_)?diagrams\.\w+\(.*\)$", source(c), re.MULTILINE) for c in drawn)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_stored_diagram_is_what_its_line_draws(tmp_path, number):
    copy = tmp_path / NOTEBOOKS[number].name
    shutil.copy(NOTEBOOKS[number], copy)
    redraw(copy)
    assert copy.read_text(encoding="utf-8") == NOTEBOOKS[number].read_text(encoding="utf-8"), (
        "run: python -m minillava.course.index"
    )


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_new_words_come_from_the_table(number):
    stored = [source(cell) for cell in cells(number) if cell.get("id") == CELL]
    assert stored == [new_words(number)], "run: python -m minillava.course.terms notebooks"


def test_the_glossary_is_up_to_date_and_complete():
    text = (FOLDER / "glossary.md").read_text(encoding="utf-8")
    assert text == glossary(), "run: python -m minillava.course.terms notebooks"
    assert text.count("\n| ") == len(TERMS) + 1


def test_every_term_is_in_both_languages_once_and_no_notebook_has_too_many():
    assert len({term.english for term in TERMS}) == len(TERMS) >= 80
    for term in TERMS:
        assert term.notebook in NOTEBOOKS
        assert re.search("[\u4e00-\u9fff]", term.chinese) and re.search("[\u4e00-\u9fff]", term.meaning_in_chinese)
        assert 10 < len(term.meaning) < 90 and len(term.meaning_in_chinese) < 40
    assert all(1 <= sum(term.notebook == number for term in TERMS) <= 10 for number in NOTEBOOKS)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_new_word_is_used_in_its_notebook(number):
    text = "\n".join(source(cell) for cell in cells(number) if cell.get("id") != CELL).lower()
    words = [term.english.lower() for term in TERMS if term.notebook == number]
    assert [word for word in words if not re.search(rf"\b{re.escape(word)}", text)] == []


@pytest.mark.parametrize("number", WRITTEN)
def test_an_equation_is_written_as_the_paper_has_it_and_its_symbols_are_explained(number):
    text, code = prose(number), "\n".join(source(c) for c in cells(number) if c["cell_type"] == "code")
    for name in WRITTEN[number]:
        assert f"$${EQUATIONS[name].value}$$" in text, name
        table = text.split(f"$${EQUATIONS[name].value}$$")[1].strip().split("\n\n")[0]
        symbols = re.findall(r"^\| \$(.+?)\$ \|", table, re.MULTILINE)
        assert len(symbols) >= 4, "each symbol has a row"
        assert all(symbol.split("(")[0].rstrip("^t") in EQUATIONS[name].value for symbol in symbols if symbol != "L")
        for variable in re.findall(r"`([\w.]+)(?:\[.*?\])?`", table):
            assert variable in code, f"{variable} is not in the notebook"


@pytest.mark.parametrize("number", [n for n, names in WRITTEN.items() if "Eq. 1" in names])
def test_the_shapes_beside_equation_1_are_the_papers(number):
    S, P, Dv, D = (ARCHITECTURE[n].value for n in ("image_size", "patch_tokens", "vision", "widths"))
    rows = re.findall(r"^\| \$(\w)_?(\w?)\$ \|.*\| \(([\d, ]+)\) \|$", prose(number), re.MULTILINE)
    shapes = {a + b: tuple(map(int, shape.split(", "))) for a, b, shape in rows}
    assert shapes == {"Xv": (3, S, S), "Zv": (P, Dv["width"]), "W": (D["13B"], Dv["width"]), "Hv": (P, D["13B"])}


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_it_links_to_the_paper_and_names_only_pages_that_hold_what_it_says(number):
    text = prose(number)
    assert ARXIV in text
    found = re.findall(r"Now (?:read|look at) (.+?),? pages? (\d+)(?: (?:to|and) (\d+))?\*\*", text)
    assert found or number in ("16", "17")
    for what, first, last in found:
        low, high = int(first), int(last or first)
        named = re.match(r"(?:the )?((?:section )?[\d.]+|(?:Table|Figure|Appendix) \w+|Fig\. \d|Abstract)", what)
        assert named, f"{what}: name a section, table, figure or appendix"
        key = named[1].replace("section ", "").replace("Fig. ", "Figure ")
        pages = next(fact.value for name, fact in STRUCTURE.items() if name == key or name.split(" ")[0] == key)
        assert pages.split("-")[0] == str(low) and pages.split("-")[-1] == str(high), f"{what}: p.{pages}"


def faults_of_questions(text):
    """What is wrong with the ten questions of a pass: each has three options, each option a reason, one is right."""
    asked = re.findall(r"^\*\*(\d+)\.\*\* .+?</details>$", text, re.MULTILINE | re.DOTALL)
    wrong = [] if asked == [str(n) for n in range(1, 11)] else [f"questions {asked}"]
    for block in re.findall(r"^\*\*\d+\.\*\* .+?</details>$", text, re.MULTILINE | re.DOTALL):
        options, folded = block.split("<details>")
        reasons = re.findall(r"^- ([A-C]): (\*\*right\*\*|no)\. \S.{10,}$", folded, re.MULTILINE)
        one_right = [said for _, said in reasons].count("**right**") == 1
        every = (
            re.findall(r"^- ([A-C])\. \S", options, re.MULTILINE) == [letter for letter, _ in reasons] == list("ABC")
        )
        wrong += [] if one_right and every else [options.splitlines()[0]]
    return wrong


@pytest.mark.parametrize("number", ENDS)
def test_a_pass_ends_with_ten_questions_and_a_talk_with_its_points(number):
    text = prose(number)
    assert faults_of_questions(text.split("## Ten questions")[1].split("\n## ")[0]) == []
    talk = text.split("## Explain it to your lab in two minutes")[1].split("\n## ")[0]
    assert len(re.findall(r"^\| .+ \| .+ \|$", talk, re.MULTILINE)) == 5


# the guards themselves


def code(text, printed="", hidden=False, id="c"):
    meta = {"tags": ["nbval-check-output"], "jupyter": {"source_hidden": True}} if hidden else {}
    outputs = [{"output_type": "stream", "name": "stdout", "text": printed}]
    return {"cell_type": "code", "id": id, "source": text, "metadata": meta, "outputs": outputs}


def test_the_guards_see_verdicts_without_numbers_and_idioms():
    number, verdict = code("print(1)", "gap 1e-7"), code("print(a == b)", "equal: True", hidden=True, id="v")
    assert verdicts_before_numbers([number, verdict]) == []
    assert verdicts_before_numbers([code("", "no figure"), verdict]) == ["v: no number before it"]
    assert verdicts_before_numbers([verdict | {"metadata": {}}]) == ["v: prints True or False"]
    bad = "It hangs on W, holds of us, is dear, lacks a name, so: 14 pixels a side."
    assert len(idioms([code(bad)])) == 6 and idioms([code("It turns a picture into 14 pixels per side.")]) == []


def test_the_guard_sees_an_option_without_its_reason_and_two_right_ones():
    text = prose("00").split("## Ten questions")[1].split("\n## ")[0]
    assert faults_of_questions(text) == []
    assert len(faults_of_questions(re.sub(r"^- B: .*\n", "", text, count=1, flags=re.MULTILINE))) == 1
    assert len(faults_of_questions(text.replace(": no.", ": **right**.", 1))) == 1
    assert faults_of_questions(text.replace("**10.**", "**11.**")) != []

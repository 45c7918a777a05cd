"""The site's pages before the builder sees them: nothing missing, links lead somewhere, outputs as stored."""

import base64
import json
import os
import re
from pathlib import Path
from statistics import median

import pytest

from minillava.course import site, site_pages
from minillava.course.sheets import SheetError, write_sheets
from minillava.course.site import Edition, SiteError, chapters, pages_of, relink, write_sources
from minillava.course.site_pages import notebook_page, terms_in, weights_page
from minillava.exercises.build import read_notebook
from minillava.exercises.engine import tasks_of
from minillava.files import read_json

ROOT = Path(__file__).parents[1]
PNG = base64.b64encode(b"a picture").decode()


def an_edition(tmp_path, chinese=False):
    return Edition(ROOT, tmp_path / "pages", chinese, chapters(ROOT, chinese), chapters(ROOT, not chinese))


@pytest.fixture(scope="module", params=[False, True], ids=["English", "Chinese"])
def written(request, tmp_path_factory):
    """An edition whose Markdown is written."""
    edition = an_edition(tmp_path_factory.mktemp("site"), request.param)
    write_sources(edition)
    return edition


def test_every_notebook_and_exercise_has_a_page_in_both_editions():
    english, chinese = (set(pages_of(chapters(ROOT, edition)).values()) for edition in (False, True))
    for folder in ("notebooks", "exercises"):
        for path in (ROOT / folder).glob("*.ipynb"):
            assert f"{folder}/{path.stem}" in english & chinese
    assert [*chapters(ROOT, False)][:4] == ["First pass", "Second pass", "Third pass", "After the three"]
    assert chinese <= english
    reading = [page for title in site.PASSES.values() for page in chapters(ROOT, False)[title]]
    assert reading == sorted(reading) and [*chapters(ROOT, False)["First pass"]] == ["notebooks/00_start_here"]
    assert "notebooks/06_the_eye" in chapters(ROOT, True)["Third pass"]
    assert [*chapters(ROOT, False)["Exercises"]][:3] == [
        f"exercises/{n}" for n in ("README", "INSTRUCTORS", "ex02_the_data")
    ]
    assert [*chapters(ROOT, True)["About the course"]] == ["README", "notebooks/glossary"]


def test_every_relative_link_of_a_written_page_leads_to_a_page_or_a_file(written):
    pages = [*written.folder.rglob("*.md")]
    assert len(pages) == len(pages_of(written.chapters)) + 1
    for page in pages:
        text = re.sub(
            r"^(`{3,}).*?^\1|`[^`\n]+`|<pre.*?</pre>", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
        )
        for target in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", text):
            assert (page.parent / target).is_file(), (page, target)


def test_the_front_page_names_every_page_and_each_page_its_twin(written):
    front = (written.folder / "index.md").read_text("utf-8")
    for page in pages_of(written.chapters).values():
        assert re.search(rf"^(.*<)?{page}>?$", front, re.MULTILINE), page
    twin = (written.folder / "notebooks" / "08_the_translator.md").read_text("utf-8")
    there = "../../notebooks" if written.chinese else "../zh/notebooks"
    lang, name, caption = ("en", "English", "第三遍") if written.chinese else ("zh", "中文版", "Third pass")
    assert f'href="{there}/08_the_translator.html" lang="{lang}">{name}</a>' in twin.split("\n\n")[1]
    assert "](notebooks/00_start_here.md)**" in front and "\n![" in front and f"\n:caption: {caption}\n" in front
    if written.chinese:
        assert re.search("^# .*[\u4e00-\u9fff]", twin)
        assert all(f'<a href="../{page}.html">' in front for page in site.IN_ENGLISH)
    else:
        for page in ("LOG", "README"):  # without a twin, and with a link of its own
            assert 'class="edition"' not in (written.folder / f"{page}.md").read_text("utf-8")


def test_what_an_earlier_build_left_is_gone(tmp_path):
    edition = an_edition(tmp_path)._replace(chapters={"About the course": {"LOG": ROOT / "LOG.md"}})
    edition.folder.mkdir()
    (edition.folder / "old.md").touch()
    write_sources(edition)
    assert sorted(path.name for path in edition.folder.glob("*.md")) == ["LOG.md", "index.md"]


def test_an_exercise_has_its_pictures_and_hints_and_not_its_solution(written):
    for path in (ROOT / "exercises").glob("ex*.ipynb"):
        text = (written.folder / "exercises" / f"{path.stem}.md").read_text("utf-8")
        cells = read_notebook(path)["cells"]
        shown = sum("".join(cell["source"]).startswith("show(") for cell in cells)
        assert text.count("![") == shown, path
        assert text.count("# YOUR CODE HERE") == sum(
            "".join(cell["source"]).count("# YOUR CODE HERE") for cell in cells
        )
        assert "BEGIN" not in text
        hints = sum(len(task.hints) for task in tasks_of(path.stem[2:4]).values())
        assert text.count("<summary>提示" if written.chinese else "<summary>Hint") == hints, path
        assert not re.search("<summary>Hint" if written.chinese else "<summary>提示|<summary>Hint 0", text)
    assert written.chinese or r"\<image>" in (written.folder / "exercises" / "ex04_the_sequence.md").read_text("utf-8")


def test_links_go_to_pages_of_the_edition_then_to_the_other_then_to_copies(tmp_path):
    edition = an_edition(tmp_path, chinese=True)
    source, page = ROOT / "notebooks" / "zh" / "05_the_results.ipynb", "notebooks/05_the_results"
    made = {text: relink(text, page, source, edition) for text in (
        "[a](06_the_eye.ipynb#x)", "[b](../../exercises/zh/ex06_the_eye.ipynb)", "[c](../../docs/field-guide.md)",
        "[d](../../LICENSE)", "[e](https://example.org/x.md)", "`[f](none.md)`", "```\n[g](none.md)\n```", "[h](../../docs)",
        "[i](../../docs/field-guide.md#x)", "![j](../../site/_static/icon.svg)", "[![k](../../site/_static/icon.svg)](06_the_eye.ipynb)",
    )}  # fmt: skip
    assert [*made.values()] == [
        "[a](06_the_eye.md#x)", "[b](../exercises/ex06_the_eye.md)", '<a href="../../docs/field-guide.html">c</a>',
        "[d](../LICENSE)", "[e](https://example.org/x.md)", "`[f](none.md)`", "```\n[g](none.md)\n```", "h",
        '<a href="../../docs/field-guide.html#x">i</a>', "![j](../site/_static/icon.svg)",
        "[![k](../site/_static/icon.svg)](06_the_eye.md)",
    ]  # fmt: skip
    assert (edition.folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    outside = tmp_path / "outside.md"
    outside.touch()
    for wrong in ("none.md", os.path.relpath(outside, source.parent)):
        with pytest.raises(SiteError, match="leads to no file of the project"):
            relink(f"[x]({wrong})", page, source, edition)


def code(source, *outputs, **metadata):
    return {"cell_type": "code", "id": "c", "source": [source], "outputs": [*outputs], "metadata": metadata}


def test_a_page_shows_the_stored_outputs(tmp_path):
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "(a widget)"}
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Zero\n", "\n", "## One & all\n", "\n", f"{site_pages.LINKS}none"]},
        code("print(1 < 2)", {"output_type": "stream", "text": ["<b>\n", "\n", "a     b\n"]}),
        code("figure()", {"output_type": "execute_result", "data": {"image/png": PNG, "text/plain": "<Figure>"}}),
        code("diagram()", {"output_type": "execute_result", "data": {"image/svg+xml": ["<svg>\n", "\n", "</svg>"]}}),
        code("show()", {"output_type": "execute_result", "data": {"text/markdown": "**1.** x", "text/plain": "y"}}),
        code("# @title A check\nassert True", {"output_type": "execute_result", "data": widget}, jupyter={"source_hidden": True}),
    ]  # fmt: skip
    text = notebook_page({"cells": cells}, "99_x", tmp_path / "figures", chinese=False)
    assert site_pages.LINKS not in text and "`````python\nprint(1 < 2)\n`````" in text
    assert '<pre class="output">&lt;b&gt;\n\na     b</pre>' in text
    assert "![Figure: One all](figures/99_x-2.png)" in text
    assert (tmp_path / "figures" / "99_x-2.png").read_bytes() == b"a picture"
    assert '<figure class="diagram"><svg>  </svg></figure>' in text  # no line is empty, or Markdown would end it there
    assert "show()\n`````\n\n**1.** x\n\n" in text
    assert "<summary>A check</summary>\n\n`````python\nassert True\n`````\n\n</details>" in text
    assert '<pre class="output prose">(a widget)</pre>' in text
    assert len([*(tmp_path / "figures").iterdir()]) == 1 and "<Figure>" not in text and "\ny\n" not in text

    cells[1] |= {"id": site_pages.SET_UP, "metadata": {"jupyter": {"source_hidden": True}}}
    cells[1]["outputs"][0]["text"] = ["x    y " * 20]
    cells[-1]["source"] = ["# @title A check of the numbers above\nassert True"]
    text = notebook_page({"cells": cells}, "99_x", tmp_path / "figures", chinese=True)
    assert "<summary>代码</summary>" in text and "<summary>核对上面的数字</summary>" in text
    folded = re.search("<details>.*?</details>", text, re.DOTALL)[0]
    assert "print(1 < 2)" in folded and '<pre class="output prose">x    y' in folded  # the set-up with all it prints
    assert "![图: One all](figures/99_x-2.png)" in text


def test_two_figures_of_a_page_are_two_files(tmp_path):
    two = [{"output_type": "display_data", "data": {"image/png": base64.b64encode(n).decode()}} for n in (b"1", b"2")]
    text = notebook_page({"cells": [code("a()", *two), code("b()", two[0])]}, "99_x", tmp_path, chinese=False)
    files = [tmp_path.parent / name for name in re.findall(r"\]\(([^)]+)\)", text)]
    assert [file.read_bytes() for file in files] == [b"1", b"2", b"1"]


@pytest.mark.parametrize(
    "text, chapter, chinese, found",
    [
        ("A vision tower, and vision towers", "00", False, ["vision tower"]),
        ("Tokens of a vocabulary", "05", False, ["Tokens", "vocabulary"]),
        ("the record has a head", "05", False, []),
        ("the record has a head, and patches", "02", False, ["record", "patches"]),
        ("coco and COCO", "02", False, ["COCO"]),
        ("视觉编码器和语言模型，视觉编码器", "00", True, ["视觉编码器", "语言模型"]),
        ("视觉很重要，视觉 Transformer 也是", "06", True, ["视觉 Transformer"]),
    ],
)
def test_a_term_is_found_once_and_an_everyday_word_only_in_its_chapter(text, chapter, chinese, found):
    assert [text[start:end] for start, end, _ in terms_in(text, chapter, chinese, set())] == found
    assert terms_in(text, chapter, chinese, {term.english for term in site_pages.TERMS}) == []


def test_tables_hold_what_the_files_hold():
    text = weights_page(ROOT / "data_samples" / "weights")
    for path in (ROOT / "data_samples" / "weights").glob("*/gates.jsonl"):
        for row in map(json.loads, path.read_text("utf-8").splitlines()):
            name, scores = next((name, scores) for name, scores in row.items() if name != "step")
            assert f"| {row['step']:,} | {name} | " + " | ".join(f"{score:,.3g}" for score in scores.values()) in text
        card = read_json(path.parent / "card.json")
        assert f"## {path.parent.name}\n" in text and f"It took {card['minutes']} minutes." in text
    text = site_pages.benchmarks_page(ROOT / "benchmarks" / "results")
    data = json.loads((ROOT / "benchmarks" / "results" / "generate.json").read_text("utf-8"))
    asking, concepts = (read_json(ROOT / "benchmarks" / "results" / f"{name}.json") for name in ("asking", "concepts"))
    wall, cpu_s = (median(asking["plain"][name]) for name in ("wall_s", "cpu_s"))
    assert f"| plain | {wall:,.3g} | {cpu_s:,.3g} |" in text and "| client | seconds by the clock |" in text
    assert f"| pandas | {concepts['pandas']['seconds']:,.3g} |" in text and "| gpu" not in text
    verbs = read_json(ROOT / "benchmarks" / "results" / "memory.json")["verbs"]
    for verb, sizes in verbs.items():
        assert f"| {verb} | {sizes['little']['peak']:,} | {sizes['worst']['peak']:,} |" in text
    for fault in read_json(ROOT / "benchmarks" / "results" / "faults.json")["faults"]:
        assert f"| {fault['verb']} | {fault['fault']} | {fault['folders']} |" in text
    clock, cpu = data["results"][0]["ratios"]["batched"]
    assert f"| generate | tiny, float32 | batched | {clock:.3g} | {cpu:.3g} | {data['goals']['batched']} |" in text


@pytest.mark.parametrize("chinese", [False, True])
def test_what_stands_beside_the_book_is_named_in_the_readers_language_where_it_is_there(tmp_path, chinese):
    edition, up = an_edition(tmp_path, chinese), "../" * chinese
    assert "sheets/" not in site.front_page(edition)
    lang = "zh" if chinese else "en"
    for name in (
        "ask/index.html",
        "sheets/slides.en.html",
        "sheets/slides.zh.html",
    ):  # a machine without a font: no PDF
        (tmp_path / "extra" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "extra" / name).touch()
    front = site.front_page(edition)
    found = dict(re.findall(r'<a href="([^"]+)">([^<]+)</a>', front))
    assert [*found] == [f"{up}ask/index.html?lang={lang}", f"{up}sheets/slides.{lang}.html"]
    assert all(chinese == bool(re.search("[\u4e00-\u9fff]", name)) for name in found.values())


def test_any_string_of_a_chinese_text_is_found():
    extension = pytest.importorskip("minillava.course.site_extension", reason="the builder is not installed: make site")
    words = extension.SearchBoth({}).split("LLaVA 的视觉编码器 is a vision tower")
    assert {"LLaVA", "vision", "视觉", "觉编", "编码", "码器", "的视", "器"} <= set(words)


def test_a_release_brings_the_line_that_says_where_to_open_a_notebook(monkeypatch, tmp_path):
    cell = {
        "cell_type": "markdown",
        "id": "a",
        "metadata": {},
        "source": [f"# One\n\n{site_pages.LINKS}open ([on Colab](x))"],
    }
    assert "on Colab" not in notebook_page({"cells": [cell]}, "99_x", tmp_path, chinese=False)
    monkeypatch.setattr(site_pages, "RELEASE", "owner/name@v1")
    assert "on Colab" in notebook_page({"cells": [cell]}, "99_x", tmp_path, chinese=False)


def test_the_workflow_publishes_what_make_site_writes():
    yaml = pytest.importorskip("yaml")
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text("utf-8"))["jobs"]["site"]["steps"]
    assert any(step.get("run", "").startswith("make site") for step in steps)
    assert {"path": "build/site/html"} in [step.get("with") for step in steps]
    assert "build/site" in Path(site.__file__).read_text("utf-8")
    assert all(re.search(r"@v\d+$", step["uses"]) for step in steps if "uses" in step)


@pytest.mark.parametrize(
    "font, statuses, wanted", [(True, (0, 0), 0), (False, (0, 0), 1), (True, (1, 0), 1), (True, (0, 1), 1)]
)
def test_a_build_goes_on_without_a_font_and_remembers_what_was_wrong(
    monkeypatch, tmp_path, capsys, font, statuses, wanted
):
    def write_sheets(folder, root):
        if not font:
            raise SheetError("no font")

    def run_sphinx(edition, out):
        out.mkdir(parents=True)
        built.append((edition.chinese, out, edition.folder.is_dir()))
        return statuses[edition.chinese]

    built, asked = [], []
    monkeypatch.setattr(site, "write_sources", lambda edition: edition.folder.mkdir())
    for name, stand_in in (("write_sheets", write_sheets), ("run_sphinx", run_sphinx), ("copy_ask", asked.append)):
        monkeypatch.setattr(site, name, stand_in)
    monkeypatch.setattr(site, "find_spec", lambda name: True)
    assert site.build(ROOT, tmp_path) == wanted
    assert ("no font" in capsys.readouterr().out) == (not font)
    html = tmp_path / "html"
    assert built == [(False, html, True), (True, html / "zh", True)] and asked == [tmp_path / "extra"]
    assert (html / "ask" / "index.html").is_file() and (html / "_static" / "book.js").is_file()


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path):
    pytest.importorskip("sphinx", reason="the builder is not installed: make site")
    edition = an_edition(tmp_path)
    edition.folder.mkdir()
    for text, status in (("# One", 0), ("# One\n\n[x](none.md)", 1)):
        (edition.folder / "index.md").write_text(text, encoding="utf-8")
        assert site.run_sphinx(edition, tmp_path / "html") == status


def test_without_the_builder_one_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(site, "find_spec", lambda name: None)
    with pytest.raises(SiteError, match="Python 3.11"):
        site.build(ROOT, tmp_path)


def test_another_folder_is_refused_by_name(tmp_path):
    with pytest.raises(SiteError, match=f"{re.escape(str(tmp_path))}.*project's folder"):
        site.build(tmp_path, tmp_path / "out")
    with pytest.raises(SheetError, match="project's folder"):
        write_sheets(tmp_path / "sheets-out", tmp_path)
    assert list(tmp_path.iterdir()) == []

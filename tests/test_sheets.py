"""The two sheets: both languages say the same numbers, all from paper.py; one page; 45 minutes; nothing fetched."""

import base64
import io
import re
from collections import Counter
from html import escape, unescape
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from unicodedata import normalize

import pytest
from PIL import Image

from minillava import paper
from minillava.course import sheets
from minillava.course.chinese import mismatches, unsaid_terms
from minillava.course.sheet_texts import (
    LANGUAGES,
    SCENE,
    Block,
    Filler,
    Line,
    SheetError,
    blocks,
    chart,
    facts,
    in_language,
)
from minillava.files import read_json
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw

ROOT = Path(__file__).parents[1]
TEXTS = ROOT / "sheets"
KNOWN = facts(ROOT)
WORDS = sheets.read_words(TEXTS / "words.txt")
# Names that hold a digit; any other digit of a text has to come from a fact.
NAMES = re.compile(
    r"GPT-4|LLaVA-1\.5|BLIP-2|ViT-L/14|CC3M|(?:Tables?|表) \d(?:(?:, | and |、)\d)*|(?:Eqs?\.|公式) \d(?:(?:, |、)\d)*"
    r"|(?:Fig\.|图) \d|[Ss]tage \d|Sections? \d(?: and \d)?|第 \d 节(?:和第 \d 节)?|notebooks/\S+"
)


def texts(name):
    return blocks(TEXTS / f"{name}.txt", KNOWN)


def pairs(name):
    """(English, Chinese) of every title and line."""
    said = [said for b in texts(name) for said in (b.head, *(line.said for line in b.lines))]
    return [(english, chinese) for english, chinese in said if english != chinese]


def built(folder, language):
    pytest.importorskip("typst")
    try:
        data = sheets.page_data(texts("paper"), KNOWN, language, WORDS if language == "zh" else {})
    except SheetError as error:
        pytest.skip(str(error))
    sheets.write_page(folder / "page.pdf", data, TEXTS / "paper.typ")
    return (folder / "page.pdf").read_bytes()


def deck(language):
    pytest.importorskip("typst")
    skeleton = (TEXTS / "slides.html").read_text(encoding="utf-8")
    return sheets.slides_page(texts("slides"), KNOWN, language, WORDS if language == "zh" else {}, skeleton)


@pytest.mark.parametrize("name", ["paper", "slides"])
def test_both_languages_say_the_same_numbers_and_the_courses_terms(name):
    for english, chinese in pairs(name):
        found = mismatches(english, chinese) + unsaid_terms(english.replace("bf16", ""), chinese)  # a recipe's own word
        assert not found, (english, chinese)


@pytest.mark.parametrize("name", ["paper", "slides"])
def test_no_number_is_typed_into_a_text(name):
    for line in (TEXTS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        plain = re.sub(r"^# \S+ |^[!%=] \w+$|\{[^}]*\}", "", line)
        assert not re.search(r"\d", NAMES.sub("", plain)), line


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_pages_numbers_are_the_papers(language, monkeypatch):
    monkeypatch.setattr(sheets, "font", lambda language: "any")
    data = sheets.page_data(texts("paper"), KNOWN, language, {})
    assert [row["value"] for row in data["bars"]["t4"]] == [paper.TABLE_4.value(r, "All") for r in paper.TABLE_4.rows]
    shown = {row["name"]: row["shown"] for row in data["bars"]["t7"]}
    assert all(float(shown[row]) == paper.TABLE_7.value(row, "Avg") for row in shown) and len(shown) > 3
    for name, rows in data["bars"].items():
        values = [row["value"] for row in rows]
        assert values == sorted(values, reverse=True) and [row["best"] for row in rows].index(True) == 0, name
        assert sum(row["best"] for row in rows) == 1
    mean, spread = paper.TABLE_5.value("LLaVA", "All")
    assert data["bars"]["t5"][0]["shown"] == f"{mean}\xa0±\xa0{spread}"
    assert [kind["count"] for kind in data["types"]] == ["58K", "23K", "77K"] and data["lang"] == language
    assert "product" in data["formulas"][2] and "randomly" in data["formulas"][1]
    one, two, quiz = paper.RECIPES.values()
    rates, batches = data["recipes"][2:4]
    assert [float(rate.strip("†")) for rate in rates] == [r.learning_rate for r in (one, two, quiz)]
    assert [int(batch.strip("†")) for batch in batches] == [r.global_batch for r in (one, two, quiz)]
    assert rates[0] == "2e-3" and data["recipes"][5][0] == f"{one.steps:,}"
    assert "†" in rates[2] and "†" not in rates[0]  # the paper does not state ScienceQA's
    said = str([data[name]["lines"] for name in ("question", "percent", "open", "after", "traps")])
    for number in (paper.IDENTITY["chat_headline"], paper.IDENTITY["science_headline"], paper.DATA["rare_below"]):
        assert str(number.value) in said + data["percent"]["head"]


def test_the_facts_are_those_of_the_paper_and_of_our_runs():
    results = ROOT / "data_samples" / "results"
    report = read_json(results / "report.json")
    assert {row: round(points) for row, points in KNOWN["lead"].items()} == {"BLIP-2": 29, "OpenFlamingo": 48}
    assert round(KNOWN["little"], 1) == 6.7 and KNOWN["wrong_sums"] == 4 and KNOWN["d8"]["No stage 1"]["Avg"] == -5.11
    assert KNOWN["right"]["picture"] == report["vqa"] and KNOWN["right"]["blank"] == report["vqa_blank"]
    full = report["tables"][0]["rows"][0]["All"]
    first, *others = chart("ours", KNOWN, {})
    assert first["shown"] == f"{full['ours']}\xa0±\xa0{full['spread']} ({paper.TABLE_4.value('Full data', 'All')})"
    assert first["theirs"] == paper.TABLE_4.value("Full data", "All") and others[-1]["theirs"] is None
    answers = [one for one in read_json(results / "ten-pictures.json") if one["scene"] == f"bench-{SCENE:06}"]
    assert KNOWN["said"] == {one["question"]: one["answer"] for one in answers} != {}


def test_a_number_has_a_form_and_a_phrase_is_a_whole_word():
    assert Filler().format("{:K} {:e} {} {:+}", 158000, 2e-3, (84.4, 0.2), -5.11) == "158K 2e-3 84.4\xa0±\xa00.2 -5.11"
    assert (
        in_language("or reorder blank paper", {"or": "或", "blank": "白", "blank paper": "白纸"}) == "或 reorder 白纸"
    )


def test_what_means_something_to_the_layout_is_escaped(monkeypatch):
    monkeypatch.setattr(sheets, "font", lambda language: "any")
    page = sheets.page_data([Block("x", ("*a_b* #c", ""), [])], KNOWN, "en", {})
    assert page["x"]["head"] == r"*a\_b* \#c"
    assert sheets.marked("*a* < b") == "<b>a</b> &lt; b"


def test_a_changed_table_changes_both_languages(monkeypatch):
    monkeypatch.setitem(paper.TABLE_4.rows, "Detail + Complex", (1.5, 2.5, 3.5, 44.4))
    changed = blocks(TEXTS / "paper.txt", facts(ROOT))
    traps = next(b for b in changed if b.name == "traps").lines[0].said
    assert all("44.4" in text for text in traps)
    assert chart("t4", facts(ROOT), {})[1]["value"] == 44.4


def test_the_lecture_takes_45_minutes_and_says_so_otherwise():
    said = texts("slides")
    assert sum(int(b.name) for b in said) == 45 and 20 <= len(said) <= 25
    assert all(any(line.mark == ">" for line in b.lines) for b in said)
    with pytest.raises(SheetError, match="minutes"):
        sheets.slides_page(said[1:], KNOWN, "en", {}, "")
    with pytest.raises(SheetError, match="begins with '&'"):
        sheets.slide(Block("1", ("A", "B"), [Line("&", ("x", "y"))]), 1, KNOWN, "en", {})


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_slides_show_their_texts_charts_picture_and_clock(language):
    page, said, n = deck(language), texts("slides"), LANGUAGES.index(language)
    lines = {mark: [line.said[n] for b in said for line in b.lines if line.mark == mark] for mark in "->?%"}
    assert page.startswith(f'<!doctype html>\n<html lang="{("en", "zh-CN")[n]}">')
    assert f"<title>{escape(said[0].head[n])}</title>" in page
    for text in lines["-"]:
        assert f"<li>{sheets.marked(text)}</li>" in page
    for text in lines[">"]:
        assert re.search(rf"<aside>(<p>.*</p>)?<p>{re.escape(sheets.marked(text))}</p>", page), text
    for text in lines["?"]:
        asked, told = re.split("[:：]", text, maxsplit=1)
        assert re.search(
            rf"<details><summary>{re.escape(asked)}.</summary>{re.escape(sheets.marked(told))}</details>", page
        )
    for name in lines["%"]:
        for row in chart(name, KNOWN, WORDS if language == "zh" else {}):
            mark = rf'<u style="left:{row["theirs"]}%"></u>' if row["theirs"] else ""
            bar = rf'<i style="width:{row["value"]}%;background:[^"]+"></i>{mark}<td>{re.escape(row["shown"])}'
            assert re.search(rf"<th>{re.escape(row['name'])}<td>{bar}", page), row
    minutes = [int(b.name) for b in said]
    clock = [(str(m), ("min", "分钟")[n], str(passed)) for m, passed in zip(minutes, accumulate(minutes))]
    assert re.findall(r"<footer>(\d+) (\S+) · (\d+) / 45</footer>", page) == clock
    (slide,) = [one for one in page.split("<section>") if "<img" in one]
    assert slide.index("<h2>") < slide.index("<img") < slide.index("<ul>")
    with Image.open(io.BytesIO(base64.b64decode(re.search('base64,([^"]+)', slide)[1]))) as picture:
        assert picture.tobytes() == draw(compose("bench", SCENE), 512).tobytes()
    assert set(re.findall(r'viewBox="\d+ (\d+) ', page)) == {str(sheets.TOP)}  # without the drawings' own titles
    formulas = "".join(re.findall(r"<math.*?</math>", page, re.DOTALL))
    formulas = normalize("NFKC", re.sub(r"\s", "", unescape(re.sub("<[^>]+>", "", formulas))))
    for part in ("=W⋅Zv,Zv=g(Xv)", ("randomly[Xq1,Xv]or[", "随机[Xq1,Xv]或[")[n], "=∏i=1Lpθ(xi|Xv,Xinstruct,<i,Xa,<i)"):
        assert part in formulas


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_paper_is_on_one_page_with_text_that_can_be_selected(language, tmp_path):
    pdf = built(tmp_path, language)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1
    fonts = len(re.findall(rb"/FontFile\d?\b", pdf))
    assert 2 <= fonts <= len(re.findall(rb"/ToUnicode\b", pdf))  # embedded, and each glyph has its letter
    assert built(tmp_path, language) == pdf


def test_a_text_that_is_too_long_for_the_page_is_refused(tmp_path):
    pytest.importorskip("typst")
    data = sheets.page_data(texts("paper"), KNOWN, "en", {})
    data["traps"]["lines"] *= 4
    with pytest.raises(SheetError, match="more than one page"):
        sheets.write_page(tmp_path / "page.pdf", data, TEXTS / "paper.typ")
    assert not list(tmp_path.iterdir())


def test_the_slides_need_no_other_file_and_both_languages_show_the_same_numbers():
    shown = {}
    for language in LANGUAGES:
        page = deck(language)
        assert not re.search(
            r"https?://(?!www\.w3\.org/)|@import|<link(?! rel=.icon. href=.data:)|<iframe|url\(|<script[^>]+src", page
        )
        assert page.count("<section>") == page.count("<aside>") == len(texts("slides"))
        assert page.count("<math") == 3 and page.count("<svg") > 8
        body = unescape(re.sub(r"<script.*|<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))
        shown[language] = Counter(re.findall(r"\d[\d.,]*\d|\d", re.sub(r"[Ss]tage \d", "", body)))
    assert shown["en"] == shown["zh"]


def test_no_english_word_is_left_in_a_chinese_diagram(monkeypatch):
    monkeypatch.setattr(sheets, "font", lambda language: "any")
    data = sheets.page_data(texts("paper"), KNOWN, "zh", WORDS)
    page = deck("zh") + data["fig_1"] + "".join(f">{trains}</text>" for trains in data["recipes"][1])
    names = "Xv Xq Xa Zv Hv Hq LLaVA GPT CLIP COCO CC Instruct ScienceQA Human Assistant image What is this cat IGNORE".split()
    for text in re.findall(r">([^<]+)</text>", page):
        assert not [w for w in re.findall(r"[A-Za-z]{2,}", unescape(text)) if w not in names], text


def test_every_phrase_of_the_diagrams_is_used(monkeypatch):
    monkeypatch.setattr(sheets, "font", lambda language: "any")
    shown = unescape(deck("zh") + str(sheets.page_data(texts("paper"), KNOWN, "zh", WORDS)))
    assert [english for english, chinese in WORDS.items() if chinese not in shown] == []


def test_a_wrong_line_is_named(tmp_path):
    path = tmp_path / "paper.txt"
    for line, what in (
        ("- {t4[Full][All]} || x", "Full"),
        ("- a || b || c", "write"),
        ("- {data[none]} || x", "none"),
        ("# 1 || A", "write"),
    ):
        path.write_text(f"# title || A || B\n{line}\n", encoding="utf-8")
        with pytest.raises(SheetError, match=rf"paper\.txt, line 2: .*{what}"):
            blocks(path, KNOWN)
    path.write_text("- x || y\n", encoding="utf-8")
    with pytest.raises(SheetError, match=r"paper\.txt, line 1: .*write"):
        blocks(path, KNOWN)


def test_the_first_font_of_the_list_that_is_there_is_used(monkeypatch):
    there = SimpleNamespace(families=lambda: [sheets.FONTS[5], sheets.FONTS[2]])
    monkeypatch.setattr(sheets, "typst", lambda: SimpleNamespace(Fonts=lambda: there))
    assert sheets.font("zh") == sheets.FONTS[2]


def test_without_a_chinese_font_the_error_says_what_to_install_and_the_rest_is_there(monkeypatch, tmp_path):
    pytest.importorskip("typst")
    monkeypatch.setattr(sheets, "FONTS", ("no such font",))
    with pytest.raises(SheetError, match="apt install fonts-noto-cjk"):
        sheets.write_sheets(tmp_path, ROOT)
    for language in LANGUAGES:
        assert (tmp_path / f"slides.{language}.html").read_text(encoding="utf-8") == deck(language)
    (tmp_path / "again").mkdir()
    assert (tmp_path / "paper.en.pdf").read_bytes() == built(tmp_path / "again", "en")
    assert len([*tmp_path.glob("*.*")]) == 3


def test_all_four_files_are_written_and_named(tmp_path):
    wanted = {language: built(tmp_path, language) for language in LANGUAGES}
    written = sheets.write_sheets(tmp_path / "out", ROOT)
    assert sorted(written) == sorted((tmp_path / "out").iterdir()) and len(written) == 4
    for language, page in wanted.items():
        assert (tmp_path / "out" / f"paper.{language}.pdf").read_bytes() == page

"""The two sheets: both languages say the same numbers, all from paper.py; one page; 45 minutes; nothing fetched."""

import re
from collections import Counter
from html import unescape
from pathlib import Path

import pytest

from minillava import paper
from minillava.course import sheets
from minillava.course.chinese import mismatches, unsaid_terms
from minillava.course.sheet_texts import LANGUAGES, SheetError, blocks, chart, facts

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
    one, two, quiz = paper.RECIPES.values()
    rates, batches = data["recipes"][2:4]
    assert [float(rate.strip("†")) for rate in rates] == [r.learning_rate for r in (one, two, quiz)]
    assert [int(batch.strip("†")) for batch in batches] == [r.global_batch for r in (one, two, quiz)]
    assert "†" in rates[2] and "†" not in rates[0]  # the paper does not state ScienceQA's
    said = str([data[name]["lines"] for name in ("question", "percent", "open", "after", "traps")])
    for number in (paper.IDENTITY["chat_headline"], paper.IDENTITY["science_headline"], paper.DATA["rare_below"]):
        assert str(number.value) in said + data["percent"]["head"]


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


def test_no_english_word_is_left_in_a_chinese_diagram():
    page = deck("zh")
    names = "Xv Xq Xa Zv Hv Hq LLaVA GPT CLIP COCO CC Instruct ScienceQA Human Assistant image What is this cat IGNORE".split()
    for text in re.findall(r">([^<]+)</text>", page):
        assert not [w for w in re.findall(r"[A-Za-z]{2,}", unescape(text)) if w not in names], text


def test_every_phrase_of_the_diagrams_is_used(monkeypatch):
    monkeypatch.setattr(sheets, "font", lambda language: "any")
    shown = unescape(deck("zh") + str(sheets.page_data(texts("paper"), KNOWN, "zh", WORDS)))
    assert [english for english, chinese in WORDS.items() if chinese not in shown] == []


def test_a_wrong_line_is_named(tmp_path):
    path = tmp_path / "paper.txt"
    for line, what in (("- {t4[Full][All]} || x", "Full"), ("- a || b || c", "write"), ("- {data[none]} || x", "none")):
        path.write_text(f"# title || A || B\n{line}\n", encoding="utf-8")
        with pytest.raises(SheetError, match=rf"paper\.txt, line 2: .*{what}"):
            blocks(path, KNOWN)


def test_without_a_chinese_font_the_error_says_what_to_install(monkeypatch):
    pytest.importorskip("typst")
    monkeypatch.setattr(sheets, "FONTS", ("no such font",))
    assert sheets.font("en")
    with pytest.raises(SheetError, match="apt install fonts-noto-cjk"):
        sheets.font("zh")

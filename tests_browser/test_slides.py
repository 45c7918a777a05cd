"""The lecture's slides in headless Chromium: keys, a phone, paper, light and dark, no request and no error.

make test-browser      # skips where no Chromium or no Typst is installed
"""

import re
from pathlib import Path

import pytest
from pages import WIDE, listened

from minillava.course import sheets
from minillava.course.sheet_texts import LANGUAGES, blocks, facts

ROOT = Path(__file__).parents[1]
HERE = "() => [...document.querySelectorAll('section')].findIndex(s => Math.abs(s.getBoundingClientRect().top) < 2)"
COLOURS = "() => ['back', 'ink'].map(n => getComputedStyle(document.documentElement)[n == 'ink' ? 'color' : 'backgroundColor'])"


@pytest.fixture(scope="module", params=LANGUAGES)
def deck(request, tmp_path_factory):
    """(file, number of slides) of one language."""
    pytest.importorskip("typst")
    texts, known = ROOT / "sheets", facts(ROOT)
    said = blocks(texts / "slides.txt", known)
    words = sheets.read_words(texts / "words.txt") if request.param == "zh" else {}
    skeleton = (texts / "slides.html").read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("slides") / "slides.html"
    path.write_text(sheets.slides_page(said, known, request.param, words, skeleton), encoding="utf-8")
    return path, len(said)


def opened(browser, path, **options):
    page, wrong = listened(browser, "file:", **options)
    page.goto(path.as_uri())
    return page, wrong


def test_keys_move_show_notes_and_change_colours(browser, deck):
    page, heard = opened(browser, deck[0], viewport={"width": 1280, "height": 720}, color_scheme="light")
    moves = (("ArrowRight", 1), ("PageDown", 2), ("ArrowLeft", 1), ("End", deck[1] - 1), ("Home", 0), (" ", 1))
    for key, slide in (*moves, ("ArrowDown", 2), ("ArrowUp", 1), ("Control+ArrowRight", 1), ("PageUp", 0)):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
        assert page.evaluate(HERE) == slide, key
    assert not page.locator("aside").first.is_visible()
    page.keyboard.press("n")
    assert page.locator("aside").first.is_visible()
    light = page.evaluate(COLOURS)
    page.keyboard.press("d")
    assert page.evaluate(COLOURS) != light
    page.goto("about:blank")
    page.goto(f"{deck[0].as_uri()}#3")
    page.wait_for_timeout(100)
    assert page.evaluate(HERE) == 2
    page.evaluate("document.querySelector('summary').scrollIntoView()")
    page.wait_for_timeout(100)
    slide = page.evaluate(HERE)
    page.locator("summary").first.press(" ")
    assert page.locator("details").first.get_attribute("open") is not None and page.evaluate(HERE) == slide
    assert heard == []
    page.close()


def test_every_slide_fits_a_projector_and_a_phone_and_one_sheet_of_paper(browser, deck):
    page, _ = opened(browser, deck[0], viewport={"width": 1280, "height": 720})
    tall = page.evaluate("() => [...document.querySelectorAll('section')].filter(s => s.offsetHeight > 721).length")
    assert tall == 0
    printed = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == deck[1]
    assert page.locator("details[open]").count() == page.locator("details").count() > 0
    page.emulate_media(media="print")
    assert page.locator("aside").first.is_visible()
    page.close()
    page, heard = opened(browser, deck[0], viewport={"width": 390, "height": 844})
    assert page.evaluate(WIDE) == 0 and heard == []
    page.close()

"""The site in headless Chromium: every page, its links, search in both languages, both themes, a phone, the keyboard.

    make test-browser      # skips where no Chromium or no builder is installed; BROWSER_PICTURES=FOLDER keeps pictures

Notable: the site is built once, from nothing, and served from this machine. Every page is opened at a phone's width.
"""

from pathlib import Path
from urllib.parse import quote, unquote, urldefrag

import pytest
from pages import CONTRAST, WIDE, keep, listened, serving

ROOT = Path(__file__).parents[1]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1300, "height": 900}
SAMPLE = ("index", "notebooks/00_start_here", "exercises/ex04_the_sequence", "data_samples/results/gates", "zh/notebooks/06_the_eye", "search")  # fmt: skip
PLACES = "() => [[...document.querySelectorAll('a[href], link[href]')].map(e => e.href), [...document.querySelectorAll('[id]')].map(e => e.id)]"


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The folder of the built site."""
    pytest.importorskip("furo", reason="the builder is not installed: pip install 'minillava[site]'")
    from minillava.course.site import build

    out = tmp_path_factory.mktemp("site")
    assert build(ROOT, out) == 0
    return out / "html"


@pytest.fixture(scope="module")
def address(html):
    with serving(html) as here:
        yield here


@pytest.fixture
def page(address, browser, request):
    """A page that fails its test when it reports an error or asks anybody but its server."""
    page, wrong = listened(browser, address, viewport=DESK, **getattr(request, "param", {}))
    yield page
    page.close()
    assert wrong == []


def test_every_page_opens_fits_a_phone_and_its_links_lead_somewhere(page, address, html):
    page.set_viewport_size(PHONE)
    names = sorted(path.relative_to(html).as_posix() for path in html.rglob("*.html"))
    links, ids, wide = {}, {}, {}
    for name in names:
        page.goto(f"{address}{name}")
        links[name], ids[name] = page.evaluate(PLACES)
        wide[name] = page.evaluate(WIDE)
        assert page.locator(":is(a, h1, h2, h3, code, table, pre) dfn").count() == 0, name
    assert len(names) > 80 and {name for name, over in wide.items() if over > 0} == set()
    dead = set()
    for name, targets in links.items():
        for target in targets:
            file, at = urldefrag(target)
            file = unquote(file.removeprefix(address).partition("?")[0]) or "index.html"
            if not target.startswith(address):
                assert target.startswith(("https://", "http://", "data:")), (name, target)
            elif not (html / file).is_file() or (at and file in ids and unquote(at) not in ids[file]):
                dead.add((name, target))
    assert dead == set()


@pytest.mark.parametrize("edition, word", [("", "logarithm"), ("", "tuned"), ("zh/", "视觉编码器"), ("zh/", "眼"), ("", "视觉编码器")])  # fmt: skip
def test_search_finds_a_word(page, address, edition, word):
    page.goto(f"{address}{edition}index.html")
    page.fill("input[name=q]", word)
    page.press("input[name=q]", "Enter")
    page.wait_for_selector("#search-results li a")
    page.wait_for_function("() => /\\d/.test(document.querySelector('.search-summary').textContent)")
    found = page.locator("#search-results li a").first.get_attribute("href")
    page.goto(f"{address}{edition}{found}")
    text = page.locator("article").text_content()
    assert (word if word != "tuned" else "tun") in text


def test_search_finds_nothing_where_nothing_is(page, address):
    page.goto(f"{address}zh/search.html?q={quote('编视码觉器')}")
    page.wait_for_function("() => document.querySelector('.search-summary')?.textContent.length > 10")
    assert page.locator("#search-results li a").count() == 0


@pytest.mark.parametrize("page", [{"color_scheme": s} for s in ("light", "dark")], ids=("light", "dark"), indirect=True)
def test_every_text_of_a_sample_can_be_read_in_both_themes(page, address, request):
    for name in SAMPLE:
        page.goto(f"{address}{name}.html" + "?q=vision" * (name == "search"))
        if name == "search":
            page.wait_for_selector("#search-results li a")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        least, text = page.evaluate(CONTRAST)
        assert least >= 4.5, (name, least, text)
        keep(page, f"site-{name.replace('/', '-')}-{request.node.callspec.id}")


def test_a_diagram_follows_the_theme_that_the_reader_chose(page, address):
    page.goto(f"{address}notebooks/00_start_here.html")
    paper = "getComputedStyle(document.querySelector('figure.diagram rect')).fill"
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    for _ in range(3):  # the button goes from the system's theme to light and dark
        page.locator(".theme-toggle-content button").click()
        if page.evaluate("document.body.dataset.theme") == "dark":
            assert page.evaluate(paper) == "rgb(30, 30, 38)"
            return
    raise AssertionError("no dark theme")


def test_the_keyboard_reaches_the_text_a_terms_meaning_and_the_order_of_a_table(page, address):
    page.goto(f"{address}notebooks/00_start_here.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Skip to content"
    page.keyboard.press("Enter")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "DFN":
            break
    shown = "getComputedStyle(document.querySelector('dfn'), '::after').content"
    meaning = page.locator("dfn").first.get_attribute("aria-description")
    assert page.evaluate("document.activeElement === document.querySelector('dfn')")
    assert len(meaning) > 10 and meaning in page.evaluate(shown)
    page.keyboard.press("Escape")
    assert page.evaluate(shown) == "none"
    page.hover("dfn >> nth=0")
    assert meaning in page.evaluate(shown)

    page.set_viewport_size(PHONE)
    page.locator(".nav-overlay-icon").focus()
    assert page.evaluate("document.querySelector('.sidebar-drawer').getBoundingClientRect().right") <= 0
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.sidebar-drawer').getBoundingClientRect().left >= 0")
    page.set_viewport_size(DESK)

    page.goto(f"{address}results/benchmarks.html")
    head = page.locator("article table").first.locator("th").nth(3)
    column = "[...document.querySelector('article table').tBodies[0].rows].map(r => parseFloat(r.cells[3].textContent))"
    before = page.evaluate(column)
    head.locator("button").focus()
    for order, wanted in (("ascending", sorted(before)), ("descending", sorted(before)[::-1])):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == order and page.evaluate(column) == wanted != before
    keep(page, "site-sorted")
    cells = "n => [...document.querySelectorAll('article table')[n].tBodies[0].rows].map(r => r.cells[r.cells.length - 1].innerText)"
    for table, key in (
        (0, lambda goal: (not goal, goal and float(goal))),
        (3, lambda peak: int(peak.replace(",", ""))),
    ):
        head = page.locator("article table").nth(table).locator("th").last
        head.locator("button").click()
        goals = page.evaluate(cells, table)
        assert (
            goals == sorted(goals, key=key)
            and page.locator("article table").nth(table).locator("[aria-sort]").count() == 1
        )
    head = page.locator("article table").first.locator("th").last
    head.locator("button").click()
    assert page.evaluate(cells, 0)[0] != "" == page.evaluate(cells, 0)[-1]  # empty cells last, also downwards
    for name, sortable in (("data_samples/results/report", True), ("notebooks/01_the_problem", False)):
        page.goto(f"{address}{name}.html")
        assert (page.locator("article th button").count() > 0) == sortable


def test_it_can_be_read_from_the_disk_without_a_server(browser, html):
    page, wrong = browser.new_page(viewport=DESK), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda sent: wrong.append(sent.url))
    page.goto((html / "zh" / "notebooks" / "03_the_architecture.html").as_uri())
    assert page.locator("figure.diagram svg").count() > 1 and page.locator("math").count() > 1
    assert page.locator("div.math > math").count() and page.locator("p > math").count()
    assert {"本页内容", "下一页", "上一页"} <= set(page.locator("body").inner_text().split())
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
    page.close()
    assert wrong == []

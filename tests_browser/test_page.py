"""The chat page of `minillava serve` in headless Chromium: a picture, an answer, where it looked, the blank beside it.

    make test-browser      # skips where no Chromium or no server is installed

Notable: pictures of the page (BROWSER_PICTURES=FOLDER) show it light and dark, and as wide as a phone.
"""

import base64
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pages import CONTRAST, WIDE, keep, listened
from PIL import Image

PICTURES = Path(__file__).parents[1] / "data_samples" / "pictures"
QUESTIONS = ("What is on the left?", "What is odd in this picture?")


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("uvicorn", reason="the server is not installed: pip install 'minillava[serve]'")
    command = [sys.executable, "-m", "minillava", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().split(" is at ")[1].split()[0]
        finally:
            server.terminate()


@pytest.fixture
def page(address, browser, request):
    """A page that fails its test when it reports an error or asks anybody but its server."""
    how = getattr(request, "param", {})
    page, page.wrong = listened(browser, address, viewport={"width": 1100, "height": 900}, **how)
    page.goto(address)
    idle(page)
    yield page
    page.close()


def idle(page):
    """Wait until the page waits for nobody. (Playwright's own waiting is code from a string, which the page forbids.)"""
    end = time.monotonic() + 60
    while page.evaluate("model === '' || stopping !== null"):
        assert time.monotonic() < end
        time.sleep(0.05)


def ask(page, question):
    page.fill("#question", question)
    page.press("#question", "Enter")
    idle(page)


@pytest.mark.parametrize(
    "page", [{"color_scheme": scheme} for scheme in ("light", "dark")], ids=("light", "dark"), indirect=True
)
def test_a_conversation_its_blank_twin_and_where_it_looked(page, request):
    page.set_input_files("#file", PICTURES / "train-000000.png")
    idle(page)
    assert "train-000000.png" in page.get_attribute("#picture", "alt")
    sent = []
    page.on("request", lambda one: one.method == "POST" and sent.append((one.url, json.loads(one.post_data))))
    for question in QUESTIONS:
        ask(page, question)
    seen = page.locator(".answer p").all_inner_texts()
    assert len(seen) == 2 and all(seen)

    page.get_by_role("button", name="The same, picture blanked").last.click()
    idle(page)
    assert page.locator(".answer h2").all_inner_texts() == ["with the picture", "with the picture blanked"] * 2
    four = page.locator(".answer p").all_inner_texts()
    assert four[::2] == seen and all(four) and page.get_by_role("button", name="blanked").count() == 0
    first, *_, last = [body["messages"] for url, body in sent]
    url = [part["image_url"]["url"] for part in (*first[0]["content"], *last[0]["content"]) if part["type"] != "text"]
    assert url[0] != url[1] and [m["content"] for m in last[1:]] == [four[1], QUESTIONS[1]]  # its own earlier answer

    page.get_by_role("button", name="Where it looked").last.click()
    idle(page)
    canvas, said = page.locator(".where canvas"), page.locator(".where p").first
    shown = {(page.evaluate("document.querySelector('.where canvas').toDataURL()"), said.inner_text())}
    assert re.search(r"\d+ % of the attention on the picture", said.inner_text())
    assert "as the model sees it" in canvas.get_attribute("aria-label")
    page.keyboard.press("Tab")  # from "the whole answer" to its first word
    page.keyboard.press("Enter")
    shown.add((page.evaluate("document.querySelector('.where canvas').toDataURL()"), said.inner_text()))
    assert len(shown) == 2 and page.locator(".tokens [aria-pressed=true]").count() == 1
    words = page.locator(".tokens button").all_inner_texts()[1:]
    assert "".join(words) == seen[1].replace(" ", "")
    least, text = page.evaluate(CONTRAST)
    assert least >= 4.5, text
    keep(page, f"page-{request.node.callspec.id}", full_page=True)

    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate(WIDE) <= 0
    keep(page, f"page-phone-{request.node.callspec.id}", full_page=True)
    assert page.wrong == []


def test_by_keyboard_alone(page):
    page.set_input_files("#file", PICTURES / "train-000001.png")  # the system's dialog is out of reach
    idle(page)
    assert page.evaluate("document.activeElement.id") == "question"
    page.keyboard.type(QUESTIONS[0])
    page.keyboard.press("Enter")
    idle(page)
    assert page.evaluate("document.activeElement.id") == "question"
    for name in ("Where it looked", "The same, picture blanked"):
        for _ in range(12):
            page.keyboard.press("Shift+Tab")
            if page.evaluate("document.activeElement.textContent") == name:
                break
        page.keyboard.press("Enter")
        idle(page)
    assert page.locator(".where canvas").count() == 1 and page.locator(".answer").count() == 2
    assert page.locator("img:not([alt]), canvas:not([aria-label])").count() == 0
    assert page.wrong == []


def test_a_picture_is_dropped_and_a_bad_one_is_named(page, tmp_path):
    drop = """([name, data]) => {
        const files = new DataTransfer()
        files.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name, {type: 'image/png'}))
        document.getElementById('drop').dispatchEvent(new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true}))
    }"""
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.png")
    whole = (tmp_path / "red.png").read_bytes()
    for name, data in (("red.png", whole), ("torn.png", whole[:40]), ("none.txt", b"no picture")):
        page.evaluate(drop, [name, base64.b64encode(data).decode()])
        idle(page)
        assert name in page.get_attribute("#picture", "alt")
        page.fill("#question", QUESTIONS[0])
        page.press("#question", "Enter")
        idle(page)
        problem = page.inner_text("#problem")
        assert (page.locator("li").count(), problem == "") == ((1, True) if name == "red.png" else (0, False))
        assert name == "red.png" or "not a picture that can be read" in problem
    keep(page, "page-problem", full_page=True)
    assert all("400" in text for text in page.wrong)  # the console lists what was refused


def test_stop_ends_an_answer_and_the_page_goes_on(page):
    page.set_input_files("#file", PICTURES / "train-000000.png")
    idle(page)
    page.fill("#question", "Describe this picture in detail.")
    page.press("#question", "Enter")
    page.click("#stop")
    idle(page)
    assert page.inner_text("#problem") == "Stopped." and page.locator("li").count() == 0
    ask(page, QUESTIONS[0])
    assert page.inner_text("#problem") == "" and page.locator(".answer p").inner_text()

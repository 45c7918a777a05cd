"""The page "ask the small LLaVA" in headless Chromium: 50 answers are Python's token for token, on the same pixels.

    make test-browser      # skips where no Chromium is installed

Notable: the page draws with a canvas, whose edges are not Pillow's bit for bit. So Python is asked about the pixels that
the page read back. Pictures of the page (BROWSER_PICTURES=FOLDER) show it light and dark, and as wide as a phone.
"""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import CONTRAST, WIDE, keep, listened, serving
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from minillava.chat import Chat
from minillava.course.ask import EXAMPLES, asked, copy_ask, example
from minillava.data.samples import prompt_ids
from minillava.data.tokenizer import load_tokenizer
from minillava.judging.answers import blank_picture
from minillava.model import generate
from minillava.scales import WEIGHTS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.scenes.questions import EXACT_KINDS, questions
from minillava.standins.teacher import DETAIL_QUESTIONS

ROOT = Path(__file__).parents[1]
# The first and last row of the canvas that differ from `window.empty`, as parts of its height; first call: [1, 0].
ROWS = """() => {
    const { width, height } = document.querySelector("#canvas"), pen = document.querySelector("#canvas").getContext("2d")
    const now = pen.getImageData(0, 0, width, height).data
    window.empty ??= now
    const rows = [...now.keys()].filter(i => now[i] !== empty[i]).map(i => Math.floor(i / 4 / width) / height)
    return rows.length ? [rows[0], rows.at(-1)] : [1, 0]
}"""
# From now on `window.sent` keeps what the worker is asked.
SPY = """() => {
    const send = Worker.prototype.postMessage
    window.sent = []
    Worker.prototype.postMessage = function (asked, ...more) { sent.push(asked); send.call(this, asked, ...more) }
}"""
MOST_BYTES = 4_000_000  # before the first answer
ODD_TEXTS = (
    "", " ", "a  b\n\n c\t", "\x85x\u2028y\ufeffz\xa0", "naïve café, 中文，标点。", "\U0001f600\U0001f468\u200d\U0001f469", "x²¾Ⅷ٣",
    "it's we'll'd 'S", "a</s>b<s><pad>###<image>\n", "####### \u0301e", "12345 67.8",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "site" / "ask", site / "ask")
    copy_ask(site)
    return site


@pytest.fixture(scope="module")
def address(folder):
    with serving(folder) as here:
        yield f"{here}ask/"


@pytest.fixture
def page(address, browser, request):
    """A page after its first answer. It fails its test when it reports an error or asks another host."""
    how = getattr(request, "param", {})
    page, wrong = listened(browser, address, viewport={"width": 1100, "height": 900}, **how)
    page.goto(address)
    answered(page, 1)
    yield page
    page.close()
    assert wrong == []


def answered(page, count):
    page.wait_for_function(f"document.querySelectorAll('#answers li:not([aria-busy])').length === {count}")


@pytest.mark.timeout(1800)
def test_fifty_answers_are_pythons_token_for_token(page):
    chat, rng, far = Chat(WEIGHTS / "llava"), random.Random("ask"), []
    for number, scene in enumerate(scenes("bench", 50)):
        shown = example(scene) if number < EXAMPLES else example(scene) | {"file": None}
        kind = EXACT_KINDS[number % len(EXACT_KINDS)]
        texts = [q.text for q in questions(scene) if q.kind == kind] or [
            DETAIL_QUESTIONS[number % len(DETAIL_QUESTIONS)]
        ]
        text, place = rng.choice(texts), ("first", "last")[number // 2 % 2]
        flat = page.evaluate("scene => minillava.draw(scene)", shown)
        said = page.evaluate(
            "([bytes, ...asked]) => minillava.answer(Uint8ClampedArray.from(bytes), ...asked)", [flat, text, place]
        )

        size = chat.preparation.size
        seen = np.array(flat, dtype=np.uint8).reshape(size, size, 4)
        assert (seen[..., 3] == 255).all()
        far.append(np.abs(seen[..., :3] - np.asarray(draw(scene, size), dtype=float)).mean())
        chat.look(Image.fromarray(np.ascontiguousarray(seen[..., :3])))
        asked = f"<image>\n{text}" if place == "first" else f"{text}\n<image>"
        ids = prompt_ids(asked, chat.template, chat.tokenizer)
        want = generate(chat.model, [ids], [[chat.features]], 120, [chat.template.stop], tokenizer=chat.tokenizer)[0]
        assert said["ids"] == want, (scene.id, text, place)
        assert said["text"] == chat.tokenizer.decode(want).strip() != ""
    assert max(far[:EXAMPLES]) == 0  # Python's own pictures, bit for bit
    assert 0 < max(far[EXAMPLES:]) < 3, far  # of 255: the canvas draws nearly the same


def test_features_and_logits_are_pythons_to_rounding_also_for_a_second_question(page):
    chat, (scene,) = Chat(WEIGHTS / "llava"), scenes("bench", 1)
    chat.look(draw(scene, chat.preparation.size))
    model, prompts = chat.model, []
    for question in ("Is anything unusual here?", "Is anything odd?"):  # the second one is read from "odd" on
        prompts.append(prompt_ids(f"<image>\n{question}", chat.template, chat.tokenizer).tolist())
    got = page.evaluate(
        """async ([bytes, prompts]) => {
            const { Llava, Session, pixels, readWeights } = await import("./llava.js")
            const get = async (name, how) => (await fetch(`model/${name}`))[how]()
            const weights = readWeights(await get("model.safetensors", "arrayBuffer"))
            const model = new Llava(await get("llava.json", "json"), weights), session = new Session(model.config.language)
            const features = model.features(pixels(bytes, await get("preprocessor_config.json", "json"))), logits = []
            const head = model.head.bind(model)
            model.head = hidden => (logits.push([...head(hidden)]), head(hidden))
            const answers = prompts.map(ids => [...model.generate(ids, features, 8, session)])
            return { features: [...features], logits, answers }
        }""",
        [page.evaluate("scene => minillava.draw(scene)", example(scene)), prompts],
    )
    assert np.abs(np.reshape(got["features"], chat.features.shape) - chat.features.numpy()).max() < 1e-4
    want = []
    for ids, answer in zip(prompts, got["answers"], strict=True):
        embeds, _ = model.splice(torch.tensor(ids + answer), [chat.features])  # (T, D)
        with torch.inference_mode():
            want.append(model.language_model.head(model.language_model(embeds[None]))[0, -9:-1])  # (8, V)
    assert np.abs(np.array(got["logits"]) - torch.cat(want).numpy()).max() < 1e-3


def test_opened_from_the_disk_the_page_says_that_it_needs_a_server(browser, folder):
    page = browser.new_page()
    page.goto((folder / "ask" / "index.html").as_uri())
    assert "python -m http.server" in page.inner_text("#problem")
    page.close()


def ids_in_page(page, tokenizer, texts):
    """The ids and the decoded text of each text, by tokenizer.js."""
    return page.evaluate(
        """async ([tokenizer, texts]) => {
            const { Tokenizer } = await import("./tokenizer.js"), one = new Tokenizer(tokenizer)
            return texts.map(text => [one.encode(text), one.decode(one.encode(text))])
        }""",
        [json.loads(tokenizer.to_str()), texts],
    )


def course_texts():
    paths = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "data_samples").glob("*.json*")]
    notebooks = [*(ROOT / "notebooks").rglob("*.ipynb"), *(ROOT / "exercises").rglob("*.ipynb")]
    translations = [*(ROOT / "notebooks").rglob("*.json"), *(ROOT / "exercises").rglob("*.json")]
    texts = [path.read_text(encoding="utf-8") for path in (*paths, *translations)]
    texts += ["".join(cell["source"]) for path in notebooks for cell in json.loads(path.read_text("utf-8"))["cells"]]
    return [*texts, *ODD_TEXTS]


def test_the_tokenizer_is_the_pythons_on_all_texts_of_the_course(page):
    tokenizer, texts = load_tokenizer(WEIGHTS / "llava"), course_texts()
    assert len(texts) > 500
    for text, (ids, back) in zip(texts, ids_in_page(page, tokenizer.backend_tokenizer, texts), strict=True):
        assert ids == tokenizer.encode(text, add_special_tokens=False), text
        assert back == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_the_tokenizer_reads_splits_and_added_tokens_and_refuses_what_it_does_not_know(page):
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"\p{Han}|\d|[^\s\d]+(?=\s\S)|\s+(?!\S)"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    texts = [text for text in course_texts() if len(text) < 3000]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<pad>", "<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(texts[::5], trainer)
    tokenizer.add_tokens(["<image>", "<image>s", "没有$", "##"])
    tokenizer.add_special_tokens(["<|end|>"])
    texts += ["a<image>sb <image>", "我没有$ 12 34", "x<|end|>###<s>##\n"]
    wanted = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert ids_in_page(page, tokenizer, texts) == [[ids, tokenizer.decode(ids)] for ids in wanted]
    assert tokenizer.token_to_id("<image>s") in wanted[-3] and tokenizer.token_to_id("没有$") in wanted[-2]

    for wrong in (pre_tokenizers.Split(Regex(r"\w+"), "isolated"), pre_tokenizers.Split(Regex("a"), "removed")):
        tokenizer.pre_tokenizer = wrong
        with pytest.raises(Exception, match="tokenizer.js does not write out"):
            ids_in_page(page, tokenizer, ["a"])


@pytest.mark.parametrize(
    "page", [{"color_scheme": scheme} for scheme in ("light", "dark")], ids=("light", "dark"), indirect=True
)
def test_a_scene_is_built_moved_asked_about_and_shown_in_two_languages(page, request):
    def listed(*names):
        script = "names => [...document.querySelectorAll('#things .name')].map(one => one.textContent).join() === names.join()"
        page.wait_for_function(script, arg=names)

    page.click("#clear")
    listed()
    page.select_option("#place", "park")
    page.wait_for_function("document.querySelector('#canvas').ariaLabel === 'park'")
    page.evaluate(ROWS)
    page.select_option("#kind", "ball")
    page.check("#air")
    page.locator("#sides").get_by_role("button", name="middle").click()
    page.wait_for_function("document.activeElement.textContent.includes('ball')")
    top, foot = page.evaluate(ROWS)
    assert top < 0.11 and foot < 0.5  # in the air
    for key, times, at in (("ArrowDown", 5, (top + 0.1, foot + 0.1)), ("ArrowUp", 20, (0, foot - top))):
        for _ in range(times):
            page.keyboard.press(key)
        page.wait_for_timeout(100)
        assert page.evaluate(ROWS) == pytest.approx(at, abs=0.02), key  # and never out of the picture
    page.uncheck("#air")
    page.get_by_role("button", name="take away").click()
    listed()

    for kind, colour, side in (("table", "blue", "left"), ("cow", "red", "left"), ("person", "green", "right")):
        page.select_option("#kind", kind)
        page.select_option("#colour", colour)
        if kind == "person":
            page.select_option("#doing", "fishing")
        page.locator("#sides").get_by_role("button", name=side).click()
        page.wait_for_function(f"document.activeElement.textContent.includes('{kind}')")
    listed("blue table, left", "red cow, left", "person in green, fishing, right")
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.activeElement.textContent.endsWith('middle')")
    box = page.locator("#canvas").bounding_box()
    # the cow, which stands on the table
    page.mouse.move(box["x"] + box["width"] * 0.17, box["y"] + box["height"] * 0.58)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.8, steps=3)
    page.mouse.up()
    listed("blue table, left", "person in green, fishing, middle", "red cow, right")
    page.get_by_role("button", name="take away: blue table, left").click()
    page.wait_for_function("document.activeElement.textContent.startsWith('person')")  # the next one
    assert page.get_attribute("#canvas", "aria-label") == "park; person in green, fishing, middle; red cow, right"

    suggested = asked()
    texts = [*suggested[""], suggested["person"][0], suggested["cow"][1]]
    assert page.locator("#asked button").all_inner_texts() == texts

    page.evaluate(SPY)
    page.check("[name=order][value=last]")
    page.fill("#question", "What is the person doing?")
    page.press("#question", "Enter")
    answered(page, 2)
    assert page.evaluate("document.activeElement.id") == "question"
    first = page.locator("#answers li").first
    assert first.locator("h3:visible").all_inner_texts() == ["with the picture", "with the picture blanked"]
    assert all(first.locator(".answer p").all_inner_texts())
    assert first.locator(".time:visible").inner_text().startswith("question, then picture; ")
    sent = page.evaluate("sent.map(({ bytes, question, place }) => [[...bytes], question, place])")
    assert [tuple(how) for _, *how in sent] == [("What is the person doing?", "last")] * 2
    assert {tuple(sent[1][0][n : n + 3]) for n in range(0, len(sent[1][0]), 4)} == {blank_picture(1).getpixel((0, 0))}
    answers = [
        page.evaluate("([bytes, ...how]) => minillava.answer(Uint8ClampedArray.from(bytes), ...how)", one)
        for one in sent
    ]
    assert first.locator(".answer p").all_inner_texts() == [one["text"] for one in answers]
    assert answers[0]["text"] != answers[1]["text"]
    seen = page.evaluate("[...document.querySelectorAll('#answers canvas')].map(one => one.toDataURL())")
    assert len(seen) == 4 and len(set(seen)) == 3  # two pictures, and the blank one twice

    page.locator("#examples button").nth(4).click()
    page.wait_for_function("document.querySelectorAll('#examples [aria-pressed=true]').length === 1")
    text = page.locator("#asked button").last.inner_text()
    page.locator("#asked button").last.click()
    answered(page, 3)
    assert first.locator("p").first.inner_text() == text
    page.locator("#things .name").first.press("ArrowRight")  # from here on the page draws it
    page.wait_for_function("document.querySelectorAll('#examples [aria-pressed=true]').length === 0")

    least, text = page.evaluate(CONTRAST)
    assert least >= 4.5, text
    bare = "img:not([alt]), canvas:not([aria-label], [aria-hidden]), select:not([aria-label], label *), input:not(#question, label *)"
    assert page.locator(bare).count() == 0
    keep(page, f"ask-{request.node.callspec.id}", full_page=True)
    page.get_by_role("button", name="中文").click()
    page.wait_for_function("document.documentElement.lang === 'zh'")
    assert page.locator("[lang=en]:not(.kept):visible").count() == 0 and page.url.endswith("?lang=zh")
    said = [page.title(), page.get_attribute("#canvas", "aria-label"), *page.locator("#things .name").all_inner_texts()]
    for text in said + page.locator("option").all_inner_texts():
        assert any("\u4e00" <= letter <= "\u9fff" for letter in text) and "undefined" not in text, text
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate(WIDE) <= 0
    keep(page, f"ask-phone-{request.node.callspec.id}", full_page=True)
    assert page.locator("[data-lang][aria-pressed=true]").all_inner_texts() == ["中文"]
    page.reload()
    answered(page, 1)
    assert page.evaluate("document.documentElement.lang") == "zh"


def test_a_question_that_cannot_be_asked_is_refused_and_the_page_goes_on(page):
    script = """async question => {
        window.bytes ??= document.querySelector('#answers canvas').getContext('2d').getImageData(0, 0, 96, 96).data
        return (await minillava.answer(window.bytes, question, 'first')).text
    }"""
    want = page.evaluate(script, "Where is this?")
    page.evaluate(script, "How many fish are there?")
    with pytest.raises(Exception, match="(?i)the question is too long.*问题太长"):
        page.evaluate(script, "Where is this? " * 300)
    assert page.evaluate(script, "Where is this?") == want  # nothing of the long one is taken for read
    for question, shown in (("What is <image>?", True), ("Where is this?", False)):
        page.fill("#question", question)
        page.click("#send")
        page.wait_for_function("!document.getElementById('send').disabled")
        assert ("<image>" in page.inner_text("#problem")) == shown
        assert page.locator("#answers li").count() == 2 - shown


def test_the_first_answer_needs_at_most_4_mb_and_a_missing_file_is_named(browser, address, folder):
    def count(reply):
        if reply.url.startswith(address):
            sizes[reply.url] = int(reply.headers["content-length"])

    page, sizes = browser.new_page(), {}
    page.on("response", count)
    page.goto(address)
    answered(page, 1)
    assert (folder / "ask" / "model" / "model.safetensors").stat().st_size < sum(sizes.values()) < MOST_BYTES
    print(f"{sum(sizes.values()):,} bytes in {len(sizes)} files;", page.inner_text("#first"))

    page.remove_listener("response", count)
    page.route("**/model.safetensors", lambda route: route.fulfill(status=404))
    page.goto(address)
    page.wait_for_function("document.getElementById('problem').textContent.includes('model.safetensors: 404')")
    page.close()

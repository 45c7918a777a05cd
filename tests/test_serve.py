"""The server: answers are `chat`'s whoever else asks, rows come and go, what is refused is named, memory is bounded."""

import asyncio
import base64
import copy
import http.client
import io
import json
import queue
import random
import re
import signal
import subprocess
import sys
import threading
import time
from zlib import crc32

import pytest
import torch
from PIL import Image

from minillava import cli, scales
from minillava.chat import Chat
from minillava.data.images import pixels
from minillava.figures.model import looks
from minillava.judging.answers import answer
from minillava.model import generate_text
from minillava.model.generate import Stop
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw

openai = pytest.importorskip("openai", reason="the client is not installed: pip install 'minillava[api]'")
uvicorn = pytest.importorskip("uvicorn", reason="the server is not installed: pip install 'minillava[serve]'")

from minillava.commands.serve import SETTINGS, listen  # noqa: E402
from minillava.serving import app as app_module  # noqa: E402
from minillava.serving.app import Service, app  # noqa: E402
from minillava.serving.reading import read_request  # noqa: E402
from minillava.serving.rows import WAITING, Busy, Row, Rows, Writer  # noqa: E402

WEIGHTS = scales.WEIGHTS / "llava"
QUESTIONS = (
    "Describe this picture in detail.",
    "What is odd in this picture?",
    "What is on the left?",
    "Where is this?",
)
PICTURES = [draw(scene, 96) for scene in scenes("dev", 6)]


@pytest.fixture(scope="module")
def chat():
    return Chat(WEIGHTS)


@pytest.fixture(scope="module")
def service(chat):
    """A server in a thread of its own; `service.port` is where."""
    service = Service(copy.copy(chat), "llava", 16)
    with listen("127.0.0.1", 0) as at:
        service.port = at.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app(service), **SETTINGS))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        yield service
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive() and not service.writer.is_alive()


@pytest.fixture
def client(service):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{service.port}/v1", api_key="none", max_retries=0) as client:
        yield client


def data(image, kind="png"):
    held = io.BytesIO()
    image.save(held, kind)
    return held.getvalue()


def address(content):
    content = content if isinstance(content, bytes) else data(content)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def messages(picture, *texts):
    """Texts in turn of the user and the model; the picture is a part after the first text, as in OpenAI's examples."""
    made = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    if picture is not None:
        url = picture if isinstance(picture, str) else address(picture)
        parts = [{"type": "text", "text": texts[0]}, {"type": "image_url", "image_url": {"url": url}}]
        made[0]["content"] = parts
    return made


def raw(service, method, path, body=None, **headers):
    """(status, headers, body) of a request as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    said = reply.status, dict(reply.getheaders()), reply.read()
    connection.close()
    return said


def post(service, body, path="/v1/chat/completions", **headers):
    status, _, said = raw(service, "POST", path, body if isinstance(body, bytes) else json.dumps(body), **headers)
    return status, json.loads(said)


# what is answered


def test_answers_of_many_clients_at_once_are_those_of_chat(service, chat, monkeypatch):
    """Each client asks twice, the second question after the first answer, each time whole and streamed."""
    step, together = Rows.step, []
    monkeypatch.setattr(Rows, "step", lambda rows: (together.append(len(rows.rows)), step(rows)))

    async def talk(client, picture, question):
        said, texts = [], []
        for text in (question, "What is on the right?"):
            texts.append(text)
            reply = await client.chat.completions.create(model="llava", messages=messages(picture, *texts))
            streamed = await client.chat.completions.create(
                model="llava", messages=messages(picture, *texts), stream=True, stream_options={"include_usage": True}
            )
            events = [event async for event in streamed]
            pieces = [event.choices[0].delta.content or "" for event in events if event.choices]
            assert "".join(pieces) == reply.choices[0].message.content and events[-1].usage == reply.usage
            assert reply.choices[0].finish_reason == events[-2].choices[0].finish_reason == "stop"
            assert len(pieces) > 4
            texts.append(reply.choices[0].message.content)
            said.append(texts[-1])
        return said

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{service.port}/v1", api_key="none") as client:
            asked = [talk(client, picture, question) for picture in PICTURES for question in QUESTIONS]
            return await asyncio.gather(*asked)

    said, expected = asyncio.run(all_of_them()), []
    for picture in PICTURES:
        for question in QUESTIONS:
            chat.look(picture)
            expected.append([chat.ask(question), chat.ask("What is on the right?")])
    assert said == expected and len({str(one) for one in said}) > 12
    assert max(together) == 16  # as many as `most`, of 24 clients


def test_draws_limits_and_questions_without_a_picture(client, chat):
    chat.look(PICTURES[0])
    how = {"temperature": 4.0, "top_p": 0.99, "seed": 2}
    expected = chat.ask(QUESTIONS[0], max_new_tokens=20, **how)
    for limit in ("max_tokens", "max_completion_tokens"):
        made = client.chat.completions.create(
            model="llava", messages=messages(PICTURES[0], QUESTIONS[0]), **how, **{limit: 20}
        )
        assert made.choices[0].message.content == expected and made.choices[0].finish_reason == "length"
        assert made.usage.completion_tokens == 20
    assert expected != chat.ask(QUESTIONS[0], max_new_tokens=20)
    made = client.chat.completions.create(model="llava", messages=messages(None, "Where is a boat?"), n=1, user="me")
    (alone,) = answer(chat.model, chat.tokenizer, chat.template, [("Where is a boat?", None)])
    assert made.choices[0].message.content == alone and made.usage.prompt_tokens < 64  # no patches


def test_the_one_model_is_listed(client):
    assert [model.id for model in client.models.list()] == ["llava"]


def test_where_it_looked_is_what_the_figures_show(service, chat):
    chat.look(PICTURES[1])
    first, second = chat.ask(QUESTIONS[0]), chat.ask(QUESTIONS[1])
    for texts, expected in (
        ((QUESTIONS[0], first), looks(chat, QUESTIONS[0], first)),
        ((QUESTIONS[0], first, QUESTIONS[1], second), looks(chat, QUESTIONS[1], second, chat.turns[:1])),
    ):
        status, found = post(service, {"model": "llava", "messages": messages(PICTURES[1], *texts)}, "/where")
        assert status == 200 and [one["token"] for one in found["tokens"]] == [one.token for one in expected]
        assert found["side"] == 8
        for one, look in zip(found["tokens"], expected, strict=True):
            assert torch.allclose(torch.tensor(one["map"]), look.map.flatten(), atol=1e-6)
            assert one["share"] == pytest.approx(look.share, abs=1e-6)
    seen = Image.open(io.BytesIO(base64.b64decode(found["picture"].partition(",")[2])))
    assert seen.size == (384, 384) and seen.resize((96, 96), Image.Resampling.BOX).getpixel((5, 5)) == pytest.approx(
        PICTURES[1].getpixel((5, 5)), abs=4
    )


# rows


def test_rows_join_and_leave_at_any_token_and_say_what_each_says_alone(chat):
    """As random a coming and going as one likes changes no token, and the cache holds no more than the rows need."""
    service, rng, rows = Service(copy.copy(chat), "llava", 4), random.Random(0), Rows(chat.model)
    asked, expected, made, most = [], [], [], 0
    for n in range(24):
        body = {"model": "llava", "messages": messages(PICTURES[n % 6], QUESTIONS[n % 4]), "max_tokens": rng.choice((3, 11, 60)), "stream": n % 2 == 0}  # fmt: skip
        one = read_request(body, "llava")
        view = pixels([PICTURES[n % 6]], chat.preparation)
        row = service.row(one, view, lambda text, finished, n=n: said[n].append(text))
        features = list(chat.model.features(view))
        (alone,) = generate_text(chat.model, chat.tokenizer, [row.ids], [features], row.room, [chat.template.stop])
        asked.append(row)
        expected.append(alone.strip())
    said, waiting = [[] for _ in asked], list(asked)
    while waiting or rows.rows:
        new = [waiting.pop(0) for _ in range(min(len(waiting), rng.choice((0, 0, 0, 1, 2))))]
        if new:
            rows.join(new)
            tokens = max(row.length + len(row.answer) for row in rows.rows)
            most = max(most, rows.cache.length - tokens)
        if rows.rows:
            rows.step()
            made.append(len(rows.rows))
    assert ["".join(pieces) for pieces in said] == expected and max(made) > 3
    assert most == 0, "slots in which no row has a token"
    assert rows.cache is None


@pytest.mark.parametrize("streams", [True, False])
def test_blanks_around_an_answer_are_left_out_and_half_a_stop_is_held_back(chat, streams):
    said, body = [], {"model": "llava", "messages": messages(None, "Why?"), "stream": streams}
    ends = Stop(["###"], chat.tokenizer)
    row = Row(None, None, 9, 99, ends, lambda *piece: said.append(piece), read_request(body, "llava"))
    ids = [i for text in ("  ", "A cat", " # or", "   ", "##", "#") for i in chat.tokenizer.encode(text)]
    for token in ids:
        row.take(token)
    assert "".join(text for text, _ in said) == "A cat # or" and said[-1][1] == row.finished == "stop"
    assert [finished for _, finished in said[:-1]] == [None] * (len(said) - 1) and (len(said) > 2) == streams


def test_what_waits_is_bounded(chat):
    writer = Writer(chat.model, 1)
    for _ in range(WAITING):
        writer.add(object())
    with pytest.raises(Busy, match=f"{WAITING} requests wait already"):
        writer.add(object())


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
def test_a_client_that_goes_away_frees_its_row(service, chat, monkeypatch, streams):
    monkeypatch.setattr(service, "ends", Stop(["never said"], chat.tokenizer))
    rows, made = [], Row.take

    def take(row, token):  # 900 tokens at this speed take a minute
        rows.append(row)
        time.sleep(0.06)
        made(row, token)

    monkeypatch.setattr(Row, "take", take)
    body = {"model": "llava", "messages": messages(PICTURES[0], QUESTIONS[0]), "max_tokens": 900, "stream": streams}
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    while len(rows) < 3:
        time.sleep(0.01)
    connection.close()
    end = time.monotonic() + 20
    while service.writer.rows.rows and time.monotonic() < end:
        time.sleep(0.01)
    assert service.writer.rows.rows == [] and len(rows[0].answer) < 300
    monkeypatch.undo()
    assert post(service, body | {"stream": False, "max_tokens": 3})[0] == 200


def test_a_bug_is_told_to_every_client_and_the_server_goes_on(service, client, monkeypatch, caplog):
    monkeypatch.setattr(Rows, "step", lambda rows: {}["a bug"])
    for streams in (False, True):
        with pytest.raises(openai.APIError, match="the answer failed"):
            list(client.chat.completions.create(model="llava", messages=messages(None, "Why?"), stream=streams))
    monkeypatch.undo()
    assert client.chat.completions.create(model="llava", messages=messages(None, "Why?")).choices
    assert "a bug" in caplog.text


# what is refused


@pytest.mark.parametrize(
    "more, said, param",
    [
        ({"temperature": "hot"}, "`temperature` must be a number", "temperature"),
        ({"temperature": 1e-9}, "`temperature` must be 0, or 1e-06 or above", "temperature"),
        ({"temperature": float("nan")}, "`temperature`", "temperature"),
        ({"top_p": 0}, "`top_p` must be a number from 1e-06 to 1", "top_p"),
        ({"max_tokens": 0}, "`max_tokens` must be a whole number of at least 1", "max_tokens"),
        ({"max_completion_tokens": 2.5}, "`max_completion_tokens`", "max_completion_tokens"),
        ({"seed": -1}, "`seed` must be a whole number from 0 to 4294967295", "seed"),
        ({"stream": "yes"}, "`stream` must be true or false", "stream"),
        ({"n": 2}, "`n` is not supported", "n"),
        ({"stop": ["."]}, "`stop` is not supported", "stop"),
        ({"tools": [{}]}, "`tools` is not supported", "tools"),
        ({"\ud83d": 1}, "`?` is not supported", "?"),
        ({"stream_options": []}, "`stream_options` must be an object", "stream_options"),
        ({"messages": []}, "`messages` must be a list", "messages"),
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "the role 'system' is not supported", "messages[0]"),
        ({"messages": [{"role": "assistant", "content": "Yes."}]}, "expected a message of the role 'user'", "messages[0]"),
        ({"messages": messages(None, "Why?", "So.")}, "the last message must be the user's", "messages"),
        ({"messages": messages(None, "  ")}, "an empty question", "messages[0]"),
        ({"messages": messages(None, "<image> Why?")}, "cannot be part of a text", "messages[0]"),
        ({"messages": messages(None, "\ud800")}, "not valid text", "messages[0]"),
        ({"messages": messages(None, "why " * 2000)}, "into the 1024 tokens that the model reads", "messages"),
        ({"messages": messages(None, "w" * 1_000_000)}, "does not fit into the 1024 tokens", "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "content[0]: expected", "messages[0].content[0]"),
        ({"messages": messages("http://127.0.0.1:9/a.png", "Why?")}, "never fetched", "messages[0].content[1].image_url.url"),
        ({"messages": messages("data:image/png;base64,?", "Why?")}, "not base64", "messages[0].content[1].image_url.url"),
        ({"messages": messages(address(b"text"), "Why?")}, "not a picture that can be read", "messages[0]"),
        ({"messages": messages(address(data(PICTURES[0])[:900]), "Why?")}, "not a picture that can be read", "messages[0]"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_request_is_named(service, more, said, param):
    status, answer = post(service, {"model": "llava", "messages": messages(None, "Why?")} | more)
    error = answer["error"]
    assert status == 400 and said in error["message"] and error["param"] == param
    assert error["type"] == "invalid_request_error"


def test_the_clients_errors_are_its_own(client, service):
    with pytest.raises(openai.NotFoundError, match="no model 'gpt' here; this is 'llava'") as error:
        client.chat.completions.create(model="gpt", messages=messages(None, "Why?"))
    assert error.value.code == "model_not_found"
    two = [*messages(PICTURES[0], "Why?", "So."), *messages(PICTURES[0], "Where?")]
    with pytest.raises(openai.BadRequestError, match="one picture can be shown, in the first message"):
        client.chat.completions.create(model="llava", messages=two)
    with pytest.raises(openai.NotFoundError, match="POST /v1/embeddings: Not Found"):
        client.embeddings.create(model="llava", input="a")
    assert post(service, b"{")[0] == 400 and "not JSON" in post(service, b"\xff{")[1]["error"]["message"]
    assert "levels deep" in post(service, b"[" * 50_000)[1]["error"]["message"]
    assert "more than 100,000 values" in post(service, b"[" + b"[]," * 60_000)[1]["error"]["message"]
    assert "expected a JSON object" in post(service, b"[]")[1]["error"]["message"]
    assert raw(service, "GET", "/v1/chat/completions")[0] == 405
    status, answer = post(service, {"model": "llava", "messages": messages(PICTURES[0], "Why?")}, "/where")
    assert status == 400 and "the answer as the last one" in answer["error"]["message"]


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(service):
    huge = bytearray(data(Image.new("1", (1, 1))))
    huge[16:24] = (20_000).to_bytes(4, "big") * 2
    huge[29:33] = crc32(huge[12:29]).to_bytes(4, "big")
    status, answer = post(service, {"model": "llava", "messages": messages(address(bytes(huge)), "Why?")})
    assert status == 400 and "more than 89,000,000" in answer["error"]["message"]
    assert answer["error"]["code"] == "invalid_image"


def test_too_large_a_request_is_refused(client, monkeypatch):
    monkeypatch.setattr(app_module, "MAX_BODY", 100_000)
    with pytest.raises(openai.APIStatusError, match="more than 100,000 bytes") as error:
        client.chat.completions.create(model="llava", messages=messages(None, "why " * 100_000))
    assert error.value.status_code == 413


def test_large_requests_wait_for_one_another_and_small_ones_do_not(service):
    held = []
    for _ in range(app_module.LARGE):
        held.append(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60))
        held[-1].request("POST", "/v1/chat/completions", b"{", {"Content-Length": str(app_module.SMALL + 1)})
    body = {"model": "llava", "messages": messages(None, "Why?")}
    large, said = json.dumps(body).encode() + b" " * app_module.SMALL, []
    while service.large._value:
        time.sleep(0.01)
    thread = threading.Thread(target=lambda: said.append(post(service, large)[0]))
    thread.start()
    assert post(service, body)[0] == 200 and said == []
    held.pop().close()
    thread.join(60)
    assert said == [200]
    for connection in held:
        connection.close()


def test_too_many_requests_are_told_to_come_again(service, client, monkeypatch):
    monkeypatch.setattr(service.writer, "waiting", queue.Queue(1))
    service.writer.add(object())
    with pytest.raises(openai.InternalServerError, match="requests wait already") as error:
        client.chat.completions.create(model="llava", messages=messages(None, "Why?"))
    assert error.value.status_code == 503 and error.value.response.headers["retry-after"] == "1"


def test_a_request_that_does_not_arrive_is_given_up(service, monkeypatch):
    monkeypatch.setattr(app_module, "MAX_SECONDS", 0.2)
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    connection.request("POST", "/v1/chat/completions", b"{", {"Content-Length": "100"})
    reply = connection.getresponse()
    assert reply.status == 408 and b"did not arrive" in reply.read()
    connection.close()


def test_only_this_server_and_its_own_page_may_ask(service):
    own = f"127.0.0.1:{service.port}"
    for headers, expected in (
        ({}, 200),
        ({"Host": f"LOCALHOST:{service.port}"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": f"evil.example:{service.port}"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": f"http://{own}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
    ):
        status, sent, _ = raw(service, "GET", "/v1/models", None, **headers)
        assert status == expected, headers
        assert not [name for name in sent if name.lower().startswith("access-control")]
    assert raw(service, "OPTIONS", "/v1/chat/completions", None, Origin="http://evil.example")[0] == 403


# the page and the command


def test_the_page_needs_nothing_but_this_server(service):
    status, sent, page = raw(service, "GET", "/")
    text = page.decode()
    assert (
        status == 200
        and not re.findall(r"(?:https?:)?//[a-z]", text)
        and not re.findall(r"<(?:script|link)[^>]*src", text)
    )
    assert "default-src 'none'" in sent["content-security-policy"]
    assert "innerHTML" not in text and "document.write" not in text
    blank = Image.open(io.BytesIO(raw(service, "GET", "/blank.png")[2]))
    assert blank.size == (96, 96) and len(blank.getcolors()) == 1


def test_a_port_in_use_and_missing_weights_end_in_one_line(capsys, tmp_path, monkeypatch):
    with listen("127.0.0.1", 0) as at:
        monkeypatch.setattr("minillava.commands.serve.Chat", lambda *_: pytest.fail("weights were read first"))
        for port in (at.getsockname()[1], 70_000):
            assert cli.main(["serve", "--port", str(port)]) == 2
            said = capsys.readouterr().err
            assert f"cannot listen on 127.0.0.1:{port}" in said and "--port" in said and said.count("\n") == 1
        monkeypatch.undo()
    assert cli.main(["serve", str(tmp_path / "nothing"), "--port", "0"]) == 2
    assert str(tmp_path / "nothing") in capsys.readouterr().err
    assert cli.main(["serve", "--most", "0"]) == 2 and "--most" in capsys.readouterr().err


SLOW = """import sys, time
from minillava import cli
from minillava.serving.rows import Rows
step = Rows.step
Rows.step = lambda self: (time.sleep(0.5), step(self))
sys.exit(cli.main(sys.argv[1:]))"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent otherwise on Windows")
@pytest.mark.usefixtures("heeded")
def test_ctrl_c_ends_slow_answers_at_the_next_token_and_their_clients_hear_of_it():
    command = [sys.executable, "-c", SLOW, "serve", str(WEIGHTS), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        url = re.search(r"llava is at (http://127.0.0.1:\d+) ", server.stdout.readline())[1]
        asked = {"model": "llava", "messages": [{"role": "user", "content": "Describe a park in detail."}]}
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            pieces = client.chat.completions.create(**asked, stream=True)
            next(piece for piece in pieces if piece.choices[0].delta.content)  # it is being written
            server.send_signal(signal.SIGINT)
            with pytest.raises(openai.APIError, match="the server was stopped"):
                list(pieces)
        out, err = server.communicate(timeout=60)
    assert server.returncode == 0 and out.endswith("Stopped.\n") and err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent otherwise on Windows")
@pytest.mark.usefixtures("heeded")
def test_the_command_says_where_it_is_answers_and_stops_on_ctrl_c():
    command = [sys.executable, "-m", "minillava", "serve", str(WEIGHTS), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        url = re.search(r"llava is at (http://127.0.0.1:\d+) ", server.stdout.readline())[1]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-secret", max_retries=3) as client:
            assert client.models.list().data[0].id == "llava"
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
    assert server.returncode == 0 and out.endswith("Stopped.\n") and err == ""

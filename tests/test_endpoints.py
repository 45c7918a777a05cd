"""Endpoints as they behave: thoughts, reasons to finish, errors in every form, refused fields, rate limits, secrets."""

import asyncio
import errno
import http.client
import json
import os
import random
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from minillava.asking import (  # fmt: skip
    AskingError,
    BadReply,
    Budget,
    Journal,
    Rejected,
    ask_all,
    chat_request,
    final_text,
    loop,
    read_reply,
    request_key,
)
from minillava.asking import journal as journal_module
from minillava.asking import server as server_module
from minillava.asking.ask import Outcome
from minillava.asking.client import MOST_SECONDS, Client
from minillava.asking.errors import RateLimited, Unbilled
from minillava.asking.loop import AskingRun
from minillava.asking.money import NO_LIMIT
from minillava.asking.reading import error_words, problem
from minillava.asking.server import completion
from tests.faulty import Faulty, bodies, faulty

pytestmark = pytest.mark.usefixtures("no_key")
BODY = chat_request("small", [{"role": "user", "content": "question"}], 50, 0.5)


@pytest.fixture
def server():
    with faulty() as server:
        yield server


def run(server, folder, requests, **more):
    with Journal(folder) as journal:
        return ask_all(requests, Client("small", server.url, 5.0), journal, progress=False, **{"backoff": 0.01, **more})


def said(message, finish="stop", **more):
    return {"model": "small", "choices": [{"message": message, "finish_reason": finish} | more]}


# thoughts

TAGS = [("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<THINK>", "</THINK>"), ("<thought>", "</thought>"), ("<reasoning>", "</reasoning>"),
        ("<seed:think>", "</seed:think>"), ('<think time="3">', "</think >"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"),
        ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|channel>thought\n", "<channel|>")]  # fmt: skip
PLAIN = st.text("abc .,\n?:89", max_size=30)


@pytest.mark.parametrize("tags", TAGS)
@given(thought=PLAIN, second=PLAIN, answer=PLAIN)
def test_a_thought_in_any_tags_is_never_part_of_the_text(tags, thought, second, answer):
    opened, closed = tags
    assert final_text(f"{opened}{thought}{closed}{answer}") == answer.strip()
    assert final_text(f"\n {opened}{thought}{closed}\n{opened}{second}{closed}{answer}") == answer.strip()
    assert final_text(f"{thought}{closed}{answer}") == answer.strip()  # the prompt had the opening tag
    assert final_text(f"{opened}{thought}{opened}{second}{closed}{answer}") == answer.strip()
    assert final_text(f"{opened}{thought}{opened}{second}{closed}{thought}{closed}{answer}") == answer.strip()
    assert final_text(f"{opened}{thought}") == final_text(f"{answer}{opened}{thought}") == ""  # it never ends
    assert final_text(answer) == answer


@given(thought=PLAIN, answer=PLAIN)
def test_of_several_channels_only_the_final_one_is_the_text(thought, answer):
    begin = f"<|channel|>analysis<|message|>{thought}<|end|>"
    for end in ("", "<|return|>", "<|end|>"):
        assert final_text(f"{begin}<|start|>assistant<|channel|>final<|message|>{answer}{end}") == answer.strip()
    assert (
        final_text(f"{begin}<|start|>assistant<|channel|>final <|constrain|>json<|message|>{answer}") == answer.strip()
    )
    assert final_text(begin) == final_text(begin.removesuffix("<|end|>")) == ""
    assert final_text(f"{begin}<|start|>assistant<|channel|>commentary<|message|>{thought}") == ""
    assert final_text(f"analysisThe {thought}assistantfinal{answer}") == answer.strip() and final_text(f"analysisWe {thought}") == ""  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [
        {"content": "A cat."}, {"content": "A cat.", "reasoning": "A dog?"}, {"content": "A cat.", "reasoning_content": "A dog?", "refusal": None},
        {"content": "A cat.", "reasoning_details": [{"type": "reasoning.text", "text": "A dog?"}]}, {"content": "<think>A dog?</think>A cat."},
        {"content": [{"type": "text", "text": "A cat."}]}, {"content": ["A ", "cat."]}, {"content": [{"text": "A "}, {"type": "output_text", "text": "cat."}]},
        {"content": {"type": "text", "text": "A cat."}},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "A dog?"}]}, {"type": "text", "text": "A cat."}]},
        {"content": [{"type": "thinking", "thinking": "A dog?"}, {"type": "text", "text": "A cat."}]},
        {"content": [{"type": "reasoning", "text": "A dog?"}, {"type": "reasoning_text", "text": "A dog?"}, {"type": "text", "text": "A cat."}]},
        {"content": [{"type": "redacted_thinking", "data": "x"}, None, 7, {"type": ["text"], "text": "no"}, {"type": "text", "text": "A cat."}]},
    ],
)  # fmt: skip
def test_a_reply_is_read_in_every_shape_and_without_its_reasoning(message):
    reply = read_reply(said(message), BODY)
    assert (reply.text, reply.finish, reply.refusal) == ("A cat.", "stop", None)
    assert reply.prompt_tokens >= len("question") and reply.completion_tokens >= len("A cat.")


def test_a_completion_without_a_message_is_read_and_a_refusal_too():
    assert read_reply({"choices": [{"text": "A cat.", "finish_reason": "stop"}]}, BODY).text == "A cat."
    assert read_reply(said("A cat."), BODY).text == "A cat."
    assert read_reply(said({"content": None, "refusal": "I will not."}), BODY).refusal == "I will not."
    assert read_reply(said({"content": [{"type": "refusal", "refusal": "No."}]}, None), BODY).refusal == "No."


# reasons to finish


@pytest.mark.parametrize("reason", ["stop", "STOP", "end_turn", "eos", "eos_token", "stop_sequence", "completed", "COMPLETE", "finished"])  # fmt: skip
def test_what_means_finished_is_a_reply(reason):
    assert read_reply(said({"content": "A cat."}, reason), BODY).finish == "stop"


@pytest.mark.parametrize("reason, finish", [("length", "length"), ("max_tokens", "length"), ("MAX_TOKENS", "length"), ("model_length", "length"),
    ("content_filter", "content_filter"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter")])  # fmt: skip
def test_a_reply_that_was_cut_off_or_filtered_says_so(reason, finish):
    assert read_reply(said({"content": "A cat"}, reason), BODY).finish == finish
    assert read_reply(said({"content": None}, reason), BODY).text == ""


@pytest.mark.parametrize("reason", [None, "error", "abort", "insufficient_system_resource", "cancelled", "tool_calls", "unknown", "", 7, ["stop"]])  # fmt: skip
def test_what_does_not_mean_finished_is_no_reply(server, tmp_path, reason):
    with pytest.raises(BadReply, match="the reply is not finished .finish_reason: "):
        read_reply(said({"content": "A cat"}, reason), BODY)
    with pytest.raises(BadReply, match="not finished"):
        read_reply({"choices": [{"message": {"content": "A cat"}}]}, BODY)
    server.fault = lambda body, n: ("json", said({"content": "A half"}, reason)) if n == 1 else None
    outcome = run(server, tmp_path, bodies(2))
    assert [r.text for r in outcome.replies.values()] == ["Re: question 0", "Re: question 1"] and outcome.retries == 2


@pytest.mark.parametrize("message", [{"content": ""}, {"content": " \n"}, {"content": None, "reasoning_content": "Hm"}, {"content": "", "reasoning": "Hm"},
    {"content": "<think>Hm"}, {"content": "<think>Hm</think>\n"}, {"content": []}, {"content": [{"type": "thinking", "thinking": "Hm"}]}])  # fmt: skip
def test_an_empty_reply_is_asked_again_and_not_kept(server, tmp_path, message):
    server.fault = lambda body, n: ("json", said(message)) if n == 1 else None
    outcome = run(server, tmp_path, bodies(2))
    assert len(outcome.replies) == 2 and outcome.retries == 2
    server.fault = lambda body, n: ("json", said(message))
    outcome = run(server, tmp_path / "always", bodies(1))
    assert "no text in the reply" in outcome.failures.popitem()[1] and not outcome.replies
    with Journal(tmp_path / "always") as journal:
        assert not journal.replies


def test_a_journal_of_an_older_version_gives_final_texts_and_no_unfinished_reply(tmp_path):
    row = {"finish": "stop", "model": "m", "prompt_tokens": 1, "completion_tokens": 2}
    rows = [{"key": "a", "text": "<think>A dog?</think>A cat."}, {"key": "b", "text": ""}, {"key": "c", "text": "A c", "finish": "error"},
            {"key": "d", "text": "A cat.", "finish": "eos"}, {"key": "e", "text": "", "finish": "length"}]  # fmt: skip
    (tmp_path / "replies.jsonl").write_text("".join(json.dumps(row | r) + "\n" for r in rows))
    with Journal(tmp_path) as journal:
        assert {k: (r.text, r.finish) for k, r in journal.replies.items()} == {"a": ("A cat.", "stop"), "d": ("A cat.", "stop"), "e": ("", "length")}  # fmt: skip
        assert journal.spent.completion == 10  # all were paid for


# errors, also with status 200

ERRORS = [
    ({"error": {"message": "Rate limit exceeded", "code": 429}}, 429, "Rate limit exceeded"),
    ({"error": {"message": "Slow down", "code": "429"}}, 429, "Slow down"),
    ({"error": {"message": "Slow down", "type": "rate_limit_error"}}, 429, "Slow down"),
    ({"error": {"message": "Provider returned error", "code": 502, "metadata": {"provider_name": "Acme", "raw": "it broke"}}}, 502, "Acme"),
    ({"choices": None, "error": {"message": "Upstream context window exceeded: 9000 > 8192", "type": "upstream"}}, 400, "9000 > 8192"),
    ({"error": "the model is overloaded"}, 503, "overloaded"),
    ({"error": {"message": "Overloaded", "type": "overloaded_error"}}, 503, "Overloaded"),
    ({"error": [{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED"}}]}, 429, "current quota"),
    ({"error": {"code": 400, "message": "bad prompt"}}, 400, "bad prompt"),
    ({"error": {"message": "wrong key", "code": 401}}, 401, "wrong key"),
    ({"error": {"message": "no such model", "code": 404}}, 404, "no such model"),
    ({"error": {"message": "Pay first", "code": "insufficient_quota"}}, 402, "Pay first"),
    ({"choices": [{"message": {"content": "A c"}, "finish_reason": "error", "error": {"code": 502, "message": "Upstream disconnected"}}]}, 502, "disconnected"),
    ({"choices": [{"message": {"content": "A cat."}, "finish_reason": "stop"}], "error": {"code": 500, "message": "oh"}}, 500, "oh"),
]  # fmt: skip


@pytest.mark.parametrize("answer, status, words", ERRORS)
def test_an_error_inside_an_answer_is_what_it_says(answer, status, words):
    kind = RateLimited if status == 429 else Unbilled if status >= 500 else Rejected if status == 400 else AskingError
    with pytest.raises(kind, match=rf"HTTP {status}: .*{words}"):
        read_reply(answer, BODY)


def test_an_error_of_unknown_kind_may_have_been_billed_and_its_words_are_kept():
    for error in (
        {"message": "Strange"},
        "Strange",
        ["Strange"],
        {"detail": "Strange"},
        {"code": 7, "message": "Strange"},
    ):
        with pytest.raises(BadReply, match="the endpoint reports an error: Strange"):
            read_reply({"error": error}, BODY)


@pytest.mark.parametrize(
    "body, words",
    [
        ([{"error": {"code": 400, "message": "API key not valid."}}], "API key not valid."),
        ({"detail": [{"type": "value_error", "loc": ["body", "max_tokens"], "msg": "Input should be at most 512"}]}, "body.max_tokens: Input should be at most 512"),
        ({"detail": "Not Found"}, "Not Found"), ({"error": "registry.example/m does not support chat"}, "does not support chat"),
        ({"object": "error", "message": "This model's maximum context length is 2048 tokens.", "code": 400}, "maximum context length is 2048"),
        ("404 page not found", "404 page not found"), ({"statusCode": 401, "message": "Access denied"}, "Access denied"),
        ("<html><head><style>b {}</style></head><body><h1>503 Service Temporarily Unavailable</h1></body></html>", "503 Service Temporarily Unavailable"),
        ({"error": {"message": "\x1b[31mred\x1b[0m\x07 \u202eback"}}, "?[31mred?[0m? ?back"), ({"errors": [{"title": "Too long"}]}, "Too long"),
        ({"strange": 1}, '{"strange": 1}'), ([], "[]"), ("", ""),
    ],
)  # fmt: skip
def test_the_words_of_an_error_reach_the_user_whatever_its_form(server, tmp_path, body, words):
    assert words in error_words(body) and "\x1b" not in error_words(body)
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    server.fault = lambda request, n: ("body", 400, data)
    failure = run(server, tmp_path, bodies(1)).failures.popitem()[1]
    assert words in failure and failure.startswith("HTTP 400: ")


@pytest.mark.parametrize("text, wait", [('"retryDelay": "2s"', 2), ("Please try again in 1.5 s.", 1.5), ("Please try again in 20ms.", 0.02), ("Retry after 7 seconds", 7), ("later", None)])  # fmt: skip
def test_the_wait_that_an_errors_words_ask_for_is_read(text, wait):
    assert problem({"error": {"message": text, "code": 429}}).wait == wait


@pytest.mark.parametrize("fault", [("raw", json.dumps({"error": {"code": 429, "message": "slow"}}).encode()), ("raw", json.dumps({"error": {"code": 502}}).encode())])  # fmt: skip
def test_an_error_with_status_200_that_says_try_again_costs_nothing(server, tmp_path, fault):
    server.fault = lambda body, n: fault if n < 3 else None
    requests = bodies(4)
    outcome = run(server, tmp_path, requests, budget=Budget(tokens=sum(sum(loop.most_tokens(b)) for b in requests)))  # fmt: skip
    assert len(outcome.replies) == 4 and not outcome.failures


@pytest.mark.parametrize("content", [b"", b"\n\n\n", b'data: {"choices": []}\n\ndata: [DONE]\n\n', b'"text"', b"[1]"])
def test_a_blank_body_and_what_is_no_object_are_asked_again_after_a_wait(server, tmp_path, content):
    server.fault = lambda body, n: ("raw", content) if n == 1 else None
    began = time.monotonic()
    assert len(run(server, tmp_path, bodies(1), backoff=0.2).replies) == 1 and time.monotonic() - began > 0.3


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["stop", "<think>", "</think>", "error", "text", "429"]),
                    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from("message content text type error code finish_reason refusal usage model detail loc".split()), v, max_size=3), max_leaves=10)  # fmt: skip


@given(st.fixed_dictionaries({}, optional=dict.fromkeys("choices error usage model message".split(), JSON)), JSON, JSON)
def test_any_json_value_in_any_field_of_a_reply_gives_a_text_or_an_error_in_words(answer, message, finish):
    for value in (answer, message, answer | said(message, finish), said({"content": message}, finish), answer | said({"content": finish}, "stop")):  # fmt: skip
        try:
            reply = read_reply(value, BODY)
        except (BadReply, Unbilled, Rejected, AskingError) as error:
            assert str(error).strip()
        else:
            assert reply.usable and "<think>" not in reply.text and isinstance(reply.model, str)
            json.dumps(reply.row())
    assert isinstance(error_words(message), str) and isinstance(problem(message), Exception)


# fields that a model does not take

REFUSALS = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "max_completion_tokens": "Unrecognized request argument supplied: max_completion_tokens",
    "temperature": "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
    "seed": {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
}


@pytest.mark.parametrize("names", [["max_tokens"], ["temperature"], ["seed"], ["max_tokens", "temperature"], ["temperature", "seed"], ["max_completion_tokens"]])  # fmt: skip
def test_a_field_that_the_model_refuses_is_left_out_for_the_rest_of_the_run_and_not_recorded_as_sent(tmp_path, names):
    model, sent = "o3" if "max_completion_tokens" in names else "small", []

    def reply(body):
        sent.append(body)
        for name in names:
            if name in body:
                raise Rejected(json.dumps(REFUSALS[name]) if isinstance(REFUSALS[name], dict) else REFUSALS[name])
        return completion(body, "A cat.")

    requests = [chat_request(model, [{"role": "user", "content": str(n)}], 50, 0.2, seed=1) for n in range(12)]
    with faulty(reply) as server:
        outcome = run(server, tmp_path, requests, concurrency=1)
        assert len(outcome.replies) == 12 and len(sent) == 12 + len(names), outcome.failures
        limits = {"max_tokens", "max_completion_tokens"}
        assert {r.not_sent for r in outcome.replies.values()} == {tuple(n for n in requests[0] if n in set(names) - limits)}  # fmt: skip
        assert all(len(limits & body.keys()) == 1 for body in sent), "a request without a limit"
        assert run(server, tmp_path, requests).reused == 12 and len(sent) == 12 + len(names)
    with Journal(tmp_path) as journal:
        assert journal.replies == outcome.replies and not journal.unsettled


@pytest.mark.parametrize("words", ["max_tokens: Input should be at most 512", "max_tokens is too large: 50", "Unsupported image", "temperature must be below 2",
                                   "This model does not support max_tokens and does not support max_completion_tokens"])  # fmt: skip
def test_a_refusal_that_names_no_field_to_leave_out_is_a_failure_with_its_words(tmp_path, words):
    sent = []

    def reply(body):
        sent.append(body)
        raise Rejected(words)

    with faulty(reply) as server:
        outcome = run(server, tmp_path, bodies(1, temperature=0.5))
    assert words in outcome.failures.popitem()[1] and len(sent) <= 2


# rate limits


class FakeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    def __init__(self):
        super().__init__()
        self.now, select = 0.0, self._selector.select

        def jump(timeout):
            self.now += 1e-6 + (timeout or 0.0)
            return select(0 if timeout else timeout)

        self._selector.select = jump

    def time(self):
        return self.now


class Bucket:
    """An endpoint with a token bucket: `rate` requests per second, `burst` at once; `named`: its 429 say how long to wait."""

    model = endpoint = "bucket"

    def __init__(self, rate, burst, named=True, latency=0.05):
        self.rate, self.burst, self.named, self.latency = rate, burst, named, latency
        self.tokens, self.at, self.refused = burst, 0.0, 0

    async def open(self):
        pass

    async def close(self):
        pass

    async def complete(self, body, name):
        await asyncio.sleep(0.005)
        now = asyncio.get_running_loop().time()
        self.tokens, self.at = min(self.burst, self.tokens + (now - self.at) * self.rate), now
        if self.tokens < 1:
            self.refused += 1
            raise RateLimited("HTTP 429: slow", (1 - self.tokens) / self.rate + 1e-4 if self.named else None)
        self.tokens -= 1
        await asyncio.sleep(self.latency * random.uniform(0.5, 1.5))
        return completion(body, "A cat.")


def simulate(folder, client, count, concurrency=16):
    """(seconds, outcome) of asking `count` requests, on a clock that jumps."""
    random.seed(0)
    requests, outcome, clock = bodies(count), Outcome(), FakeLoop()
    with Journal(folder) as journal, tqdm(disable=True) as bar:
        journal.sync = lambda: None
        asking = AskingRun([(request_key(b), b, "") for b in requests], client, journal, NO_LIMIT, None, concurrency, 0.5, bar, outcome)  # fmt: skip
        clock.run_until_complete(asking.run())
        outcome.replies = dict(journal.replies)
        del journal.sync
    clock.close()
    return clock.now, outcome


@pytest.mark.parametrize(
    "rate, burst, count, named, most",
    [(20, 20, 2000, True, 1.05), (20, 20, 2000, False, 1.05), (20, 5, 2000, True, 1.05), (20, 1, 400, True, 1.15), (2, 2, 100, True, 1.05), (10, 10, 36, True, 1.15), (200, 200, 2000, False, 1.05)],
)  # fmt: skip
def test_a_rate_limit_is_used_nearly_fully_and_no_request_fails(tmp_path, rate, burst, count, named, most):
    client = Bucket(rate, burst, named)
    seconds, outcome = simulate(tmp_path, client, count)
    assert len(outcome.replies) == count and not outcome.failures and not outcome.stopped
    assert seconds <= most * (count - burst) / rate, f"{seconds:.1f} s, at best {(count - burst) / rate:.1f}"
    assert client.refused < (0.25 if rate >= 20 else 0.8) * count + 30


@pytest.mark.parametrize("asks, most", [(None, 130), (2.0, 95), (200.0, 500)])
def test_an_endpoint_that_never_answers_is_given_up_however_long_it_asks_to_wait(tmp_path, asks, most):
    class Never(Bucket):
        async def complete(self, body, name):
            raise RateLimited("HTTP 429: never", asks)

    seconds, outcome = simulate(tmp_path, Never(1, 1), 40)
    assert "has answered nothing else" in outcome.stopped and not outcome.failures and 90 <= seconds < most


def test_a_limit_per_minute_is_waited_for(tmp_path):
    class Window(Bucket):
        async def complete(self, body, name):
            now = asyncio.get_running_loop().time()
            minute = int(now // 60)
            self.tokens, self.at = (60, minute) if minute != self.at else (self.tokens, minute)
            if self.tokens < 1:
                raise RateLimited("HTTP 429: 60 per minute", 60 - now % 60)
            self.tokens -= 1
            return completion(body, "A cat.")

    seconds, outcome = simulate(tmp_path, Window(60, 60), 200)
    assert len(outcome.replies) == 200 and not outcome.stopped and seconds < 240


def test_without_a_limit_nothing_is_held_back(tmp_path):
    seconds, outcome = simulate(tmp_path, Bucket(1e9, 1e9), 400)
    assert len(outcome.replies) == 400 and seconds < 1.3 * 400 * 0.055 / 16


@pytest.mark.parametrize("asked", ["0", "-1", "Mon, 01 Jan 2001 00:00:00 GMT", "nan"])
def test_a_wait_that_is_none_does_not_skip_the_back_off(server, tmp_path, monkeypatch, asked):
    monkeypatch.setattr(loop, "PATIENCE", 0.5)
    server.fault = lambda body, n: ("status", 429, {"Retry-After": asked})
    outcome = run(server, tmp_path, bodies(3), backoff=0.05)
    assert "has answered nothing else" in outcome.stopped and len(server.asked) < 30 and not outcome.failures


@pytest.mark.parametrize(
    "asked", ["1e400", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 99999999 23:59:59 GMT", "1e18"]
)
def test_a_wait_far_in_the_future_ends_the_run_and_keeps_the_replies_in_flight(server, tmp_path, asked):
    server.delay = lambda body: 0.3 if "question 0" not in body["messages"][0]["content"] else 0.1
    server.fault = lambda body, n: ("status", 429, {"Retry-After": asked}) if body["messages"][0]["content"] == "question 0" else None  # fmt: skip
    outcome = run(server, tmp_path, bodies(16))
    assert "asks to wait" in outcome.stopped and len(outcome.replies) == 15 == len(server.billed)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), -float("inf"), 1e9])
def test_a_time_that_is_no_limit_is_refused(timeout):
    with pytest.raises(AskingError, match="--timeout .*: expected more than 0 and at most 86,400 seconds"):
        Client("m", "http://127.0.0.1:1/v1", timeout)
    assert Client("m", "http://127.0.0.1:1/v1", MOST_SECONDS)


# nothing paid twice


def test_whatever_goes_wrong_with_one_request_the_others_in_flight_are_kept(server, tmp_path):
    server.delay = 0.3
    client = Client("small", server.url, 5.0)
    complete, calls = client.complete, []

    async def breaks(body, name):
        calls.append(name)
        if len(calls) == 8:
            raise ZeroDivisionError("a bug")
        return await complete(body, name)

    client.complete = breaks
    with Journal(tmp_path) as journal:
        with pytest.raises(ZeroDivisionError):
            ask_all(bodies(40), client, journal, progress=False)
        assert 7 <= len(journal.replies) == len(server.billed)


def test_a_full_disk_loses_no_reply_that_is_paid_for(server, tmp_path, monkeypatch):
    """The disk is full as soon as 16 requests are in flight; only what is deleted makes room."""
    server.delay, write, room = 0.3, os.write, tmp_path / ".room"

    def full(file, data):
        if len(server.asked) >= 16 and room.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AskingError, match="the disk is full .No space left on device"):
        run(server, tmp_path, bodies(40))
    monkeypatch.undo()
    assert len(server.asked) == 16
    assert len(run(server, tmp_path, bodies(40)).replies) == 40
    assert all(n == 1 for n in server.billed.values()) and not room.exists()


def test_without_room_for_the_replies_nothing_is_sent(server, tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "ROOM", 1 << 62)
    with pytest.raises((AskingError, MemoryError, OverflowError)):
        run(server, tmp_path, bodies(3))
    assert not server.asked


# secrets

KEY, PASSWORD, QUERY, STEP = "sk-never-to-be-seen-0123", "pass-never-seen", "query-never-seen-77", "step-never-seen-42"


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
@pytest.mark.parametrize("form", ["message", "text", "list", "reply"])
def test_no_secret_that_a_server_quotes_is_written_anywhere(tmp_path, monkeypatch, capfd, status, form):
    monkeypatch.setattr(loop, "PATIENCE", 0.1)
    monkeypatch.setattr(loop, "ATTEMPTS", 2)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    seen = []

    class Quotes(Faulty):
        def answer(self, body):
            text = f"{self.path} {dict(self.headers)} {self.server.whole} {KEY} {PASSWORD} \x1b[31m"
            seen.append(text)
            what = {"message": {"error": {"message": text}}, "text": text.encode(), "list": [[text]], "reply": completion(body, text)}[form]  # fmt: skip
            self.send(status, what)

    server = server_module.serve(lambda body: None, handler=Quotes)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    server.whole = f"http://me:{PASSWORD}@127.0.0.1:{server.server_port}/{STEP}/v1?token={QUERY}"
    words = ""
    with Journal(tmp_path) as journal:
        client = Client("small", server.whole, 5.0)
        try:
            outcome = ask_all(bodies(2), client, journal, backoff=0.01)
            words = str(outcome)
        except AskingError as error:
            words = str(error)
        words += repr(client) + str(vars(client))
    server.shutdown()
    server.server_close()
    written = words + "".join(capfd.readouterr()) + "".join(p.read_text() for p in tmp_path.iterdir())
    assert seen and all(s in seen[0] for s in (KEY, PASSWORD, QUERY, STEP)) and "Basic" in seen[0]
    assert not [s for s in (KEY, PASSWORD, QUERY, STEP, "bWU6cGFzcy1uZXZlci1zZWVu") if s in written], written[:600]
    assert form == "reply" or "\x1b" not in written


def test_a_reply_keeps_the_words_that_only_resemble_an_address(server, tmp_path):
    server.url = server.url.replace("/v1", "/openai/deployments/picture-4o/v1?api-version=2024-10-21")
    server.reply = lambda body: completion(body, "openai deployments picture-4o v1 2024-10-21 none")
    (reply,) = run(server, tmp_path, bodies(1)).replies.values()
    assert reply.text == "openai deployments picture-4o v1 2024-10-21 none"


# our own server


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "", "99999999999", "9" * 40, "١"])
def test_a_length_that_is_none_is_refused_at_once(server, length):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as wire:
        wire.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        assert wire.recv(100).startswith((b"HTTP/1.1 411", b"HTTP/1.1 413"))
        while wire.recv(1000):
            pass  # it hangs up


@pytest.mark.parametrize(
    "begins", [b"", b"POST /v1/chat/compl", b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 900\r\n\r\n{"]
)
def test_a_client_that_is_too_slow_is_dropped(monkeypatch, begins):
    monkeypatch.setattr(server_module, "MAX_SECONDS", 0.4)
    with faulty() as server, socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as wire:
        began = time.monotonic()
        wire.sendall(begins)
        try:
            while time.monotonic() - began < 4:
                wire.sendall(b"x" if begins else b"")  # a trickle
                wire.settimeout(0.1)
                try:
                    if not wire.recv(100):
                        break
                except TimeoutError:
                    pass
        except OSError:
            pass
        assert time.monotonic() - began < 3
        link = http.client.HTTPConnection("127.0.0.1", server.server_port)  # and others are served
        link.request("GET", "/v1/models")
        assert link.getresponse().status == 200
        link.close()


def test_a_reply_that_takes_long_is_not_cut_off(monkeypatch, tmp_path):
    monkeypatch.setattr(server_module, "MAX_SECONDS", 0.2)
    with faulty(delay=0.8) as server:
        assert len(run(server, tmp_path, bodies(2)).replies) == 2


def test_captions_that_would_take_minutes_are_refused():
    from minillava.standins.teacher import offline_reply

    messages = [
        {"role": "system", "content": "Write a conversation."},
        {"role": "user", "content": "A red car. " * 20_000},
    ]
    with pytest.raises(Rejected, match="220,000 characters; the offline teacher reads 5,000"):
        offline_reply({"model": "m", "messages": messages, "max_tokens": 9})

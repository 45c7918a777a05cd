"""Asking an API: whatever the endpoint does, nothing is lost or paid for twice, the key stays secret, the budget holds."""

import asyncio
import datetime
import email.utils
import errno
import http.client
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest

from minillava import asking
from minillava.asking import (
    AskingError,
    BadReply,
    Budget,
    Journal,
    Price,
    ask_all,
    chat_request,
    confirm,
    estimate_cost,
    loop,
    money,
    read_batch,
    read_replies,
    read_reply,
    request_key,
    write_batch,
)
from minillava.asking import journal as journal_module
from minillava.asking.client import Client, find_api_key, retry_after
from minillava.asking.server import completion, serve
from tests.faulty import SAYS_429, SAYS_500, bodies, faulty

KEY = "sk-never-to-be-seen-0123456789"
CHEAP = Price(1.0, 2.0)
pytestmark = pytest.mark.usefixtures("no_key")


@pytest.fixture
def server():
    with faulty() as server:
        yield server


def run(server, folder, requests, timeout=5.0, **more):
    more = {"progress": False, "backoff": 0.01, **more}
    with Journal(folder) as journal:
        return ask_all(requests, Client("small", server.url, timeout), journal, **more)


def texts(outcome, requests):
    return [outcome.replies[request_key(b)].text if request_key(b) in outcome.replies else None for b in requests]


def expected(requests):
    return ["Re: " + b["messages"][-1]["content"] for b in requests]


# requests and replies


def test_the_key_of_a_request_depends_on_every_field_but_not_on_their_order():
    body = chat_request("m", [{"role": "user", "content": "a"}], max_tokens=5, temperature=0.2)
    assert request_key(dict(reversed(body.items()))) == request_key(body) and len(request_key(body)) == 32
    others = [chat_request("n", body["messages"], 5, 0.2), chat_request("m", body["messages"], 6, 0.2), chat_request("m", body["messages"], 5, 0.3),
              chat_request("m", body["messages"], 5), chat_request("m", [{"role": "system", "content": "a"}], 5, 0.2), body | {"seed": 1}]  # fmt: skip
    assert len({request_key(b) for b in [body, *others]}) == 7


def test_reasoning_models_get_the_token_limit_field_they_accept():
    assert chat_request("o3-mini", [], 9, 0.2) == {"model": "o3-mini", "messages": [], "max_completion_tokens": 9}
    assert (
        chat_request("gpt-5-mini", [], 9)["max_completion_tokens"] == 9
        and chat_request("olmo", [], 9, 0.2)["max_tokens"] == 9
    )


@pytest.mark.parametrize(
    "answer, message",
    [
        ("<html>", "not a JSON object"),
        ({}, "no choices"),
        ({"choices": []}, "no choices"),
        ({"choices": ["x"]}, "no choices"),
        ({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, "no text"),
        ({"choices": [{"message": None}]}, "no text"),
        ({"choices": [{"message": {"content": 7}}]}, "no text"),
    ],
)
def test_an_answer_without_a_reply_is_an_error_with_its_tokens(answer, message):
    with pytest.raises(BadReply, match=message):
        read_reply(answer, bodies(1)[0])
    if isinstance(answer, dict):
        with pytest.raises(BadReply) as error:
            read_reply(answer | {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}, bodies(1)[0])
        assert error.value.tokens == (3, 4)


def test_cut_off_refused_and_filtered_replies_are_replies_that_say_so():
    body = bodies(1)[0]
    assert read_reply(completion(body, "half", "length"), body).finish == "length"
    assert read_reply(completion(body, "", refusal="I cannot."), body).refusal == "I cannot."
    filtered = {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}
    assert read_reply(filtered, body).finish == "content_filter"


def test_an_upper_bound_replaces_missing_token_counts():
    body = bodies(1)[0]
    answer = completion(body, "some text")
    for usage in (
        None,
        {},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
    ):
        reply = read_reply(answer | {"usage": usage}, body)
        assert reply.prompt_tokens >= len("question 0") and reply.completion_tokens >= len("some text")


# it asks


def test_every_request_is_answered_once_and_a_second_run_asks_nothing(server, tmp_path):
    requests = bodies(30)
    first = run(server, tmp_path, requests + requests[:5])
    assert texts(first, requests) == expected(requests) and not first.failures and not first.stopped
    assert len(server.asked) == 30 and set(server.attempts) == {request_key(b) for b in requests}
    again = run(server, tmp_path, requests)
    assert texts(again, requests) == expected(requests) and again.reused == 30 and again.spent.tokens == 0
    assert len(server.asked) == 30
    more = run(server, tmp_path, bodies(31))
    assert more.reused == 30 and len(server.asked) == 31


def test_replies_that_arrive_in_another_order_belong_to_their_requests(server, tmp_path):
    server.delay = lambda body: 0.05 * (int(body["messages"][-1]["content"].split()[1]) % 3)
    requests = bodies(24)
    assert texts(run(server, tmp_path, requests), requests) == expected(requests)
    rows = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert [r["key"] for r in rows] != [request_key(b) for b in requests], "they did not arrive in another order"


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_concurrency_is_bounded(server, tmp_path, concurrency):
    server.delay = 0.02
    run(server, tmp_path, bodies(20), concurrency=concurrency)
    assert server.busiest <= concurrency and (server.busiest > 1) == (concurrency > 1)


def test_the_journal_has_one_line_per_finished_request_and_can_be_replayed(server, tmp_path):
    requests = bodies(12)
    with Journal(tmp_path) as journal:
        ask_all(requests, Client("small", server.url), journal, price=CHEAP, names=[f"n{i}" for i in range(12)], progress=False)  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert sorted(r["name"] for r in rows) == sorted(f"n{i}" for i in range(12))
    assert all(r["usd"] == pytest.approx(CHEAP.of(r["prompt_tokens"], r["completion_tokens"])) for r in rows)
    replayed = read_replies(tmp_path / "replies.jsonl")
    assert [replayed[request_key(b)].text for b in requests] == expected(requests)


def test_it_works_inside_a_running_event_loop_as_in_a_notebook(server, tmp_path):
    async def cell():
        return run(server, tmp_path, bodies(3))

    assert len(asyncio.run(cell()).replies) == 3


def test_progress_rate_and_cost_are_shown_while_it_asks(server, tmp_path, capfd):
    server.fault = lambda body, n: SAYS_500 if n == 1 and body["messages"][0]["content"] == "question 3" else (
        ("status", 400, {}) if body["messages"][0]["content"] == "question 5" else None
    )  # fmt: skip
    outcome = run(server, tmp_path, bodies(12), price=CHEAP, progress=True)
    said = capfd.readouterr().err
    assert "11/12" in said and "reply/s" in said and f"${outcome.spent.usd:.4f}" in said, said
    assert "1 retried" in said and "1 failed" in said
    run(server, tmp_path / "more", bodies(2), progress=True)
    assert " tokens" in capfd.readouterr().err  # without a price


# faults of the endpoint


@pytest.mark.parametrize(
    "fault",
    [SAYS_429, SAYS_500, ("status", 503, {}), ("status", 408, {}), "reset", ("raw", b"{broken"), ("raw", b"<html>", "text/html"),
     ("raw", b"\xff\xfe"), ("raw", b""), ("raw", b"[]"), ("raw", b"[" * 100_000), ("json", {"choices": []}), ("json", {"choices": None})],
)  # fmt: skip
def test_a_request_that_fails_once_is_asked_again(server, tmp_path, fault):
    server.fault = lambda body, n: fault if n == 1 and "3" in body["messages"][0]["content"] else None
    requests = bodies(8)
    outcome = run(server, tmp_path, requests)
    assert texts(outcome, requests) == expected(requests) and outcome.retries == 1 and not outcome.failures
    assert server.attempts[request_key(requests[3])] == 2


def test_a_time_out_is_asked_again(server, tmp_path):
    server.fault = lambda body, n: "hang" if n == 1 and "1" in body["messages"][0]["content"] else None
    outcome = run(server, tmp_path, bodies(3), timeout=0.3)
    assert len(outcome.replies) == 3 and outcome.retries == 1


def test_an_answer_that_trickles_in_for_ever_times_out(tmp_path):
    def drip(body):
        time.sleep(0.6)
        return completion(body, "late")

    with faulty(reply=drip) as server:
        began = time.monotonic()
        outcome = run(server, tmp_path, bodies(1), timeout=0.15)
    assert time.monotonic() - began < 3 and "no answer within 0.15 s (3 attempts)" in outcome.failures.popitem()[1]


@pytest.mark.parametrize(
    "fault, attempts, message",
    [
        (SAYS_500, loop.ATTEMPTS, "HTTP 500: made to fail with 500 (7 attempts)"),
        ("reset", loop.PAID_ATTEMPTS, "the connection broke off (3 attempts)"),
        (("raw", b"{broken"), loop.PAID_ATTEMPTS, "not a JSON answer"),
        (("json", {"choices": []}), loop.PAID_ATTEMPTS, "no choices"),
        (("status", 400, {}), 1, "HTTP 400: made to fail"),
        (("status", 422, {}), 1, "HTTP 422"),
    ],
)
def test_a_lasting_fault_is_a_failure_with_its_reason_and_the_next_run_asks_again(
    server, tmp_path, fault, attempts, message
):
    server.fault = lambda body, n: fault if "1" in body["messages"][0]["content"] else None
    requests = bodies(4)
    outcome = run(server, tmp_path, requests, backoff=0.001)
    assert (
        list(outcome.failures) == [request_key(requests[1])] and message in outcome.failures[request_key(requests[1])]
    )
    assert server.attempts[request_key(requests[1])] == attempts and len(outcome.replies) == 3
    server.fault = lambda body, n: None
    assert texts(run(server, tmp_path, requests), requests) == expected(requests)


def test_a_wait_that_the_server_asks_for_is_kept_by_all_workers(server, tmp_path):
    server.fault = lambda body, n: (
        ("status", 429, {"Retry-After": "0.4"}) if n == 1 and len(server.asked) <= 1 else None
    )
    outcome = run(server, tmp_path, bodies(6), concurrency=2)
    first, *rest = [when for when, _ in server.asked]
    assert len(outcome.replies) == 6 and outcome.retries == 1
    assert sum(when - first > 0.38 for when in rest) >= 5, "somebody did not wait"


def test_an_endpoint_that_says_nothing_but_429_ends_the_run_and_no_request_has_failed(server, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "PATIENCE", 0.3)
    server.fault = lambda body, n: SAYS_429 if "1" in body["messages"][0]["content"] else None
    outcome = run(server, tmp_path, bodies(4))
    assert "has answered nothing else for" in outcome.stopped and "HTTP 429" in outcome.stopped
    assert len(outcome.replies) == 3 and not outcome.failures


def test_a_wait_that_is_too_long_ends_the_run_and_says_so(server, tmp_path):
    server.fault = lambda body, n: ("status", 429, {"Retry-After": "3600"})
    outcome = run(server, tmp_path, bodies(5), concurrency=1)
    assert "asks to wait 3600 s" in outcome.stopped and not outcome.replies and len(server.asked) == 1


def test_retry_after_is_read_in_all_its_forms():
    assert retry_after({"retry-after": "7"}) == 7 and retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    date = email.utils.format_datetime(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=30))
    assert 25 < retry_after({"retry-after": date}) <= 30
    past = email.utils.format_datetime(datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc))
    for nothing in ({}, *({"retry-after": text} for text in ("soon", "0", "-5", "nan", "", past, "Mon, 99 Foo 1"))):
        assert retry_after(nothing) is None, nothing
    for far in ("1e400", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 99999999 23:59:59 GMT"):
        assert retry_after({"retry-after": far}) > loop.MAX_WAIT, far


@pytest.mark.parametrize(
    "fault, message",
    [
        (("status", 401, {}), "the key is refused .HTTP 401"),
        (("status", 403, {}), "not allowed .HTTP 403"),
        (("status", 404, {}), "no such model or address .HTTP 404"),
        (("status", 307, {"Location": "http://127.0.0.1:9/v1"}), "sends to another address, .* .HTTP 307"),
    ],
)
def test_where_no_request_can_succeed_the_run_ends_at_once(server, tmp_path, fault, message):
    server.fault = lambda body, n: fault if n and body["messages"][0]["content"] == "question 2" else None
    with pytest.raises(AskingError, match=message):
        run(server, tmp_path, bodies(20), concurrency=1)
    assert len(server.asked) == 3 and len(Journal(tmp_path).replies) == 2


def test_an_account_without_credit_ends_the_run_at_once(server, tmp_path, monkeypatch):
    from tests import faulty as module

    monkeypatch.setattr(module, "error_body", lambda m: {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})  # fmt: skip
    server.fault = lambda body, n: SAYS_429
    with pytest.raises(AskingError, match="no credit left"):
        run(server, tmp_path, bodies(5), concurrency=1)
    assert len(server.asked) == 1


def test_an_endpoint_that_fails_every_request_is_given_up(server, tmp_path):
    server.fault = lambda body, n: ("status", 400, {})
    with pytest.raises(AskingError, match="10 requests failed one after another; the last: HTTP 400"):
        run(server, tmp_path, bodies(200), concurrency=4)
    assert len(server.asked) < 20


def test_an_endpoint_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "ATTEMPTS", 2)
    with Journal(tmp_path) as journal:
        outcome = ask_all(bodies(2), Client("small", "http://127.0.0.1:9/v1"), journal, backoff=0.01, progress=False)
        assert "no connection to 127.0.0.1 (2 attempts)" in outcome.failures.popitem()[1]
        assert journal.spent.tokens == 0


def test_all_sorts_of_faults_at_once_lose_and_double_nothing(server, tmp_path):
    faults = [SAYS_429, SAYS_500, "reset", ("raw", b"{"), ("json", {"choices": []}), None, None, None]
    server.fault = lambda body, n: (
        faults[hash((body["messages"][0]["content"].split()[1] * 7, n)) % 8] if n < 3 else None
    )
    requests = bodies(80)
    outcome = run(server, tmp_path, requests, concurrency=16, backoff=0.001)
    assert texts(outcome, requests) == expected(requests) and outcome.retries > 20
    rows = (tmp_path / "replies.jsonl").read_text().splitlines()
    assert len(rows) == 80 and all(n == 1 for n in server.billed.values()) and len(server.billed) == 80


# budget and cost


def test_prices_are_per_million_tokens_and_can_be_given():
    assert money.price_of("gpt-4o").of(1_000_000, 2_000_000) == 22.5
    assert money.price_of("gpt-4o", "1,2.5") == Price(1, 2.5) and money.price_of("home-made") is None
    for wrong in ("1", "a,b", "-1,2", "1,2,3", "nan,1"):
        with pytest.raises(AskingError, match="--price"):
            money.price_of("gpt-4o", wrong)


def test_the_estimate_is_about_and_at_most(server, tmp_path):
    requests = bodies(10)
    guess = estimate_cost(requests, CHEAP, reply=6)
    spent = run(server, tmp_path, requests, price=CHEAP).spent
    assert 0.5 < guess.about.usd / spent.usd < 2 and guess.most.usd > spent.usd and guess.requests == 10
    assert "price unknown" in str(estimate_cost(requests, None)) and "10 requests" in str(guess)


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("limit", [{"usd": 0.002}, {"tokens": 900}])
def test_the_budget_is_never_exceeded_and_used_as_far_as_it_goes(server, tmp_path, limit, concurrency):
    budget, requests = Budget(**limit), bodies(200)
    server.delay = 0.002
    outcome = run(server, tmp_path, requests, budget=budget, price=CHEAP, concurrency=concurrency)
    assert "would be exceeded" in outcome.stopped and 0 < len(outcome.replies) < 200 and not outcome.failures
    with Journal(tmp_path) as journal:
        spent, most = journal.spent, loop.most_tokens(requests[-1])
        worst = CHEAP.of(*most) if "usd" in limit else sum(most)
        used, full = (spent.usd, budget.usd) if "usd" in limit else (spent.tokens, budget.tokens)
        assert full - worst < used <= full
    asked = len(server.asked)
    assert "exceeded" in run(server, tmp_path, requests, budget=budget, price=CHEAP).stopped
    assert len(server.asked) == asked, "a second run has no new budget"


def test_a_request_that_may_have_been_billed_counts_as_spent_and_one_that_was_not_does_not(server, tmp_path):
    requests = bodies(1)
    server.fault = lambda body, n: {1: SAYS_500, 2: "reset", 3: SAYS_429, 4: ("raw", b"{")}.get(n)
    outcome = run(server, tmp_path, requests, price=CHEAP, backoff=0.001)
    worst, reply = CHEAP.of(*loop.most_tokens(requests[0])), outcome.replies[request_key(requests[0])]
    paid = CHEAP.of(reply.prompt_tokens, reply.completion_tokens)
    assert outcome.spent.usd == pytest.approx(2 * worst + paid)
    with Journal(tmp_path) as journal:
        assert journal.spent.usd == pytest.approx(2 * worst + paid) and journal.unsettled == 1


def test_a_budget_in_dollars_needs_a_price(server, tmp_path):
    with pytest.raises(AskingError, match="no price is known for small.*--price"):
        run(server, tmp_path, bodies(1), budget=Budget(usd=1))
    assert not server.asked


def test_nothing_is_sent_without_consent(monkeypatch, capsys):
    guess = estimate_cost(bodies(3), CHEAP)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(AskingError, match="--yes"):
        confirm(guess, Budget(usd=1), "small at x")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    confirm(guess, Budget(usd=1), "small at x")
    assert "small at x: 3 requests" in (said := capsys.readouterr().out) and "budget: $1.00" in said
    for answer in ("n\n", "\n", "yeah, no\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        with pytest.raises(AskingError, match="nothing was sent"):
            confirm(guess, Budget(), "small at x")
    confirm(guess, Budget(), "small at x", yes=True)


# the journal


def test_an_incomplete_last_line_is_cut_off_and_its_request_asked_again(server, tmp_path):
    requests = bodies(6)
    run(server, tmp_path, requests)
    whole = (tmp_path / "replies.jsonl").read_bytes()
    for cut in (1, 2, 30, len(whole.splitlines(keepends=True)[-1]) - 1):
        (tmp_path / "replies.jsonl").write_bytes(whole[:-cut])
        (tmp_path / "asked.jsonl").write_bytes((tmp_path / "asked.jsonl").read_bytes()[:-7])
        with Journal(tmp_path) as journal:
            assert journal.truncated and len(journal.replies) == 5
        outcome = run(server, tmp_path, requests)
        assert texts(outcome, requests) == expected(requests) and outcome.reused == 5
        with Journal(tmp_path) as journal:  # the incomplete line is gone, not joined to the next one
            assert not journal.truncated and len(journal.replies) == 6
        assert len((tmp_path / "replies.jsonl").read_bytes().splitlines()) == 6
        whole = (tmp_path / "replies.jsonl").read_bytes()


@pytest.mark.parametrize("tail", [b"\0" * 40, b"[" * 100_000, b"\xff\xfe{", b'"text"\n', b'{"key": 1'])
def test_rubbish_at_the_end_is_cut_off(server, tmp_path, tail):
    run(server, tmp_path, bodies(2))
    with open(tmp_path / "replies.jsonl", "ab") as file:
        file.write(tail)
    with Journal(tmp_path) as journal:
        assert journal.truncated and len(journal.replies) == 2
    assert len(run(server, tmp_path, bodies(3)).replies) == 3
    with Journal(tmp_path) as journal:
        assert not journal.truncated and len(journal.replies) == 3


def test_rubbish_in_the_middle_is_named_and_nothing_is_touched(server, tmp_path):
    run(server, tmp_path, bodies(4))
    path = tmp_path / "replies.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"rubbish\n", *lines[1:]]))
    before = path.read_bytes()
    with pytest.raises(AskingError, match="replies.jsonl: line 2 is not JSON"):
        Journal(tmp_path)
    assert path.read_bytes() == before
    with pytest.raises(AskingError, match="line 2"):
        read_replies(path)
    path.write_bytes(b"".join(lines))
    assert len(Journal(tmp_path).replies) == 4, "the lock was not let go"


def test_a_file_without_valid_replies_is_named(tmp_path):
    whole = {"key": "k", "text": "t", "finish": "stop", "model": "m", "prompt_tokens": 1, "completion_tokens": 2}
    for name, value in [*((name, []) for name in whole), ("usd", "much"), ("usd", 10**400), ("refusal", 5)]:
        (tmp_path / "replies.jsonl").write_text(json.dumps(whole | {name: value}) + "\n")
        for reader in (Journal, lambda folder: read_replies(folder / "replies.jsonl")):
            with pytest.raises(AskingError, match=f"replies.jsonl: .*'{name}'"):
                reader(tmp_path)
    (tmp_path / "replies.jsonl").write_text(json.dumps(whole) + "\n")
    for row in ({}, {"key": []}, {"key": "k"}, {"key": "k", "most": None}, {"key": "k", "most": [1, 2]},
                {"key": "k", "free": 3}, {"key": "k", "free": [1, "2", 0.1]}):  # fmt: skip
        (tmp_path / "asked.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(AskingError, match="asked.jsonl: .*; remove"):
            Journal(tmp_path)
    (tmp_path / "asked.jsonl").unlink()
    with Journal(tmp_path) as journal:  # the lock was let go each time
        assert list(journal.replies) == ["k"]
    with pytest.raises(AskingError, match="none.jsonl: cannot be read"):
        read_replies(tmp_path / "none.jsonl")


def test_a_second_process_is_refused(server, tmp_path):
    with Journal(tmp_path), pytest.raises(AskingError, match="another process is at work in this folder"):
        Journal(tmp_path)
    run(server, tmp_path, bodies(1))


@pytest.mark.parametrize("room", [0, 5])
def test_a_full_disk_ends_the_run_with_a_clear_error_and_asks_nothing_it_cannot_keep(
    server, tmp_path, monkeypatch, room
):
    run(server, tmp_path, bodies(3))
    kept, write, written = (tmp_path / "replies.jsonl").read_bytes(), os.write, []

    def full(file, data):
        if len(written) >= room and data.startswith(b'{"key"'):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(data)
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AskingError, match="jsonl: cannot be written .No space left on device.*is kept"):
        run(server, tmp_path, bodies(20), concurrency=1)
    monkeypatch.undo()
    assert (tmp_path / "replies.jsonl").read_bytes().startswith(kept)
    asked = len(server.asked)
    assert asked - 3 <= (room + 1) // 2
    with Journal(tmp_path) as journal:
        assert len(journal.replies) >= asked - 1
    assert len(run(server, tmp_path, bodies(20)).replies) == 20


def test_a_line_that_only_partly_fits_is_taken_back(tmp_path, monkeypatch):
    write = os.write
    with Journal(tmp_path) as journal:
        journal.begin_attempt("a", (1, 1, None))
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
        with pytest.raises(AskingError, match="No space left"):
            journal.begin_attempt("b", (1, 1, None))
        monkeypatch.undo()
        journal.begin_attempt("c", (1, 1, None))
    assert [json.loads(line)["key"] for line in (tmp_path / "asked.jsonl").read_text().splitlines()] == ["a", "c"]


@pytest.mark.parametrize("folder", ["/proc/minillava", "{file}/below", "{file}"])
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(AskingError, match="cannot be written to"):
        Journal(folder.format(file=tmp_path / "file"))


@pytest.mark.usefixtures("heeded")
def test_every_reply_is_synced_to_disk_before_ask_all_returns(server, tmp_path, monkeypatch):
    order, fsync, append = [], os.fsync, journal_module.JsonLines.append
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("sync"), fsync(file)))
    monkeypatch.setattr(journal_module.JsonLines, "append", lambda self, *rows: (append(self, *rows), order.append("text" in rows[0]))[0])  # fmt: skip
    with Journal(tmp_path) as journal:
        server.delay = 0.02
        ask_all(bodies(20), Client("small", server.url), journal, progress=False, concurrency=2)
    kept = [n for n, what in enumerate(order) if what is True]
    assert len(kept) == 20 and "sync" in order[kept[-1] :]
    assert order[kept[0] : kept[-1]].count("sync") >= 3  # and on the way, not only in the end


# stopping


def interrupt():
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_stops_sending_keeps_requests_in_flight_and_the_next_run_resumes(server, tmp_path):
    requests, server.delay = bodies(40), 0.05
    server.fault = lambda body, n: interrupt() if len(server.asked) == 9 else None
    with pytest.raises(KeyboardInterrupt):
        run(server, tmp_path, requests, concurrency=4)
    done = len(server.asked)
    with Journal(tmp_path) as journal:
        assert 4 <= done < 40 and len(journal.replies) == done and journal.unsettled == 0
    server.delay, server.fault = 0, lambda body, n: None
    assert texts(run(server, tmp_path, requests), requests) == expected(requests)
    assert all(n == 1 for n in server.attempts.values())


def test_a_second_ctrl_c_drops_hanging_requests(server, tmp_path):
    def hang(body, n):
        if len(server.asked) == 4:
            interrupt()
            threading.Timer(0.3, interrupt).start()
        return "hang"

    server.fault = hang
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(server, tmp_path, bodies(4), timeout=15)
    assert time.monotonic() - began < 5
    with Journal(tmp_path) as journal:
        assert journal.unsettled == 4, "they may have been billed"


# the key


def test_the_key_comes_from_the_environment_and_is_asked_for(monkeypatch):
    with pytest.raises(AskingError, match="set the environment variable OPENAI_API_KEY"):
        Client("gpt-4o")
    assert find_api_key("http://127.0.0.1:1/v1").reveal() == find_api_key("https://me:pass@host/v1").reveal() == "none"
    monkeypatch.setenv("OPENAI_API_KEY", f"  {KEY}\n")
    assert Client("gpt-4o")._key.reveal() == KEY
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a b")
    with pytest.raises(AskingError) as error:
        Client("gpt-4o")
    assert "sk-a b" not in str(error.value)


def test_in_colab_the_key_comes_from_its_secrets(monkeypatch, tmp_path):
    (tmp_path / "google" / "colab").mkdir(parents=True)
    (tmp_path / "google" / "__init__.py").touch()
    (tmp_path / "google" / "colab" / "__init__.py").touch()
    source = "class SecretNotFoundError(Exception): pass\nclass NotebookAccessError(Exception): pass\nanswer = None\n"
    source += "def get(name):\n    if answer is None: raise SecretNotFoundError(name)\n    return answer\n"
    (tmp_path / "google" / "colab" / "userdata.py").write_text(source)
    for name in [m for m in sys.modules if m == "google" or m.startswith("google.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AskingError, match="in Colab: a secret of that name"):
        find_api_key("https://api.openai.com/v1")
    from google.colab import userdata

    monkeypatch.setattr(userdata, "answer", KEY)
    assert find_api_key("https://api.openai.com/v1").reveal() == KEY
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")  # Colab's module is there, but nobody answers it
    with pytest.raises(AskingError, match="no key"):
        find_api_key("https://api.openai.com/v1")
    for name in [m for m in sys.modules if m == "google" or m.startswith("google.")]:
        del sys.modules[name]  # monkeypatch would put them back, and later tests would take this for Colab


@pytest.mark.parametrize("fault", [("status", 401, {}, "Incorrect API key provided: {}"), ("status", 400, {}, "no {}"), "reset", ("raw", b"{"), SAYS_500])  # fmt: skip
@pytest.mark.parametrize("query", ["", "?api-version=2024-10-21"])
def test_no_log_traceback_or_file_ever_holds_the_key(server, tmp_path, monkeypatch, caplog, capfd, fault, query):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(loop, "ATTEMPTS", 2)
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "openai._base_client", "httpx2", "aiohttp.client", "aiohttp.internal", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    server.fault = lambda body, n: (*fault[:3], fault[3].format(KEY)) if fault[0] == "status" and fault[3:] else fault
    said = ""
    with Journal(tmp_path) as journal:
        client = Client("small", server.url + query, 5.0)
        try:
            outcome = ask_all(bodies(2), client, journal, backoff=0.001)
            said = str(outcome)
        except AskingError as error:
            whole = traceback.TracebackException.from_exception(error, capture_locals=True)
            said = "".join(whole.format()) + repr(error.__context__)
        said += repr(client) + str(vars(client)) + client.endpoint
    said += caplog.text + "".join(capfd.readouterr()) + "".join(p.read_text() for p in tmp_path.iterdir())
    assert len(server.headers) and any(KEY in str(h) for h in server.headers), "the key was not even sent"
    assert KEY not in said


def test_an_azure_style_address_sends_its_version_and_its_header(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.url = server.url.replace("/v1", "/openai/deployments/mine?api-version=2024-10-21")
    assert len(run(server, tmp_path, bodies(1)).replies) == 1
    assert server.paths == ["/openai/deployments/mine/chat/completions?api-version=2024-10-21"]
    assert server.headers[0]["api-key"] == KEY and "secret" not in repr(Client("m", "https://u:secret@host/v1"))


def test_a_name_and_password_in_the_address_are_sent_but_never_shown(server, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(loop, "PAID_ATTEMPTS", 1)
    server.url, server.fault = server.url.replace("http://", "http://me:p%40ss@"), lambda body, n: "reset"
    outcome = run(server, tmp_path, bodies(1))
    assert "Basic bWU6cEBzcw==" in server.headers[0].values()
    assert not any(said in str(outcome) + "".join(capfd.readouterr()) for said in ("p%40ss", "p@ss", "bWU6cEBzcw"))


@pytest.mark.parametrize("url", ["api.openai.com", "ftp://host/v1", "http://", "file:///etc", "http://a..b/v1", "http://host:abc/v1", "http://host:99999/v1", "http://[::1/v1"])  # fmt: skip
def test_an_invalid_address_is_refused(url):
    with pytest.raises(AskingError, match="--base-url: expected something like"):
        Client("m", url)


# batch files


def output(body, status=200, answer=None, **more):
    response = {"status_code": status, "request_id": "r", "body": answer if answer is not None else completion(body, "Re: " + body["messages"][-1]["content"])}  # fmt: skip
    return {"id": "b", "custom_id": request_key(body), "response": response, "error": None, **more}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_a_batch_is_written_in_the_apis_form_and_split_at_its_limits(tmp_path, monkeypatch):
    requests = bodies(7)
    monkeypatch.setattr(asking.batch, "MAX_LINES", 3)
    paths = write_batch(requests + requests[:2], tmp_path)
    rows = [[json.loads(line) for line in p.read_text().splitlines()] for p in paths]
    assert [p.name for p in paths] == ["batch-000.jsonl", "batch-001.jsonl", "batch-002.jsonl"]
    assert [len(r) for r in rows] == [3, 3, 1] and sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in paths]
    assert [r["body"] for part in rows for r in part] == requests
    assert all(r["url"] == "/v1/chat/completions" and r["method"] == "POST" and r["custom_id"] == request_key(r["body"]) for part in rows for r in part)  # fmt: skip
    with pytest.raises(AskingError, match="cannot be written to"):
        write_batch(requests, "/proc/minillava")


def test_batch_output_in_any_order_is_the_same_as_asking_one_by_one(server, tmp_path):
    requests = bodies(6)
    path = write_lines(tmp_path / "output.jsonl", [output(b) for b in reversed(requests)])
    with Journal(tmp_path / "batch") as journal:
        taken = read_batch([path], requests, journal, CHEAP)
        assert len(taken.replies) == 6 and not taken.failures and not taken.unknown
        batched, cost = dict(journal.replies), journal.spent.usd
        assert read_batch([path], requests, journal, CHEAP).reused == 6
    direct = run(server, tmp_path / "direct", requests, price=CHEAP)
    assert batched == direct.replies and cost == pytest.approx(direct.spent.usd / 2)
    assert run(server, tmp_path / "batch", requests).reused == 6


def test_what_failed_in_a_batch_is_named_and_what_was_never_asked_is_counted(tmp_path):
    a, b, c, d, e = requests = bodies(5)
    rows = [
        output(a),
        output(b, 429, {"error": {"message": "slow down"}}),
        {"custom_id": request_key(c), "response": None, "error": {"code": "batch_expired", "message": "too late"}},
        output(d, answer={"choices": []}),
        output(chat_request("other", [{"role": "user", "content": "x"}])),
        output(e, 500, {"error": {"message": "crash"}}),
        output(e),
    ]
    with Journal(tmp_path / "j") as journal:
        taken = read_batch([write_lines(tmp_path / "o.jsonl", rows)], requests, journal)
    assert taken.failures == {
        request_key(b): "batch: slow down",
        request_key(c): "batch: too late",
        request_key(d): "batch: no choices in the reply",
    }
    assert taken.unknown == 1 and len(taken.replies) == 2


@pytest.mark.parametrize(
    "response", [None, [1], True, 1.5, "x", {}, {"status_code": 200}, {"status_code": 200, "body": [1]}]
)
def test_an_odd_response_in_a_batch_is_a_failure_of_its_request_alone(tmp_path, response):
    a, b = requests = bodies(2)
    rows = [output(a) | {"response": response}, output(b)]
    with Journal(tmp_path / "j") as journal:
        taken = read_batch([write_lines(tmp_path / "o.jsonl", rows)], requests, journal)
        assert list(taken.failures) == [request_key(a)] and taken.failures[request_key(a)].startswith("batch: ")
        assert list(journal.replies) == [request_key(b)]


@pytest.mark.parametrize("line", ["{", "[]", "[" * 100_000, '{"id": 1}', '{"custom_id": 7, "response": {}}', "\x00"])
def test_a_line_that_is_not_batch_output_is_named(tmp_path, line):
    a = bodies(1)[0]
    (tmp_path / "o.jsonl").write_text(json.dumps(output(a)) + "\n" + line + "\n")
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(AskingError, match="o.jsonl: line 2 is not a line of batch output"):
            read_batch([tmp_path / "o.jsonl"], [a], journal)
        assert len(journal.replies) == 1
        with pytest.raises(AskingError, match="none.jsonl: cannot be read"):
            read_batch([tmp_path / "none.jsonl"], [a], journal)


# the server


@pytest.mark.parametrize(
    "body, message",
    [
        (b"{", "Expecting"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "expected a JSON object"),
        (b'{"model": "m"}', "`messages` must be a list"),
        (b'{"model": "m", "messages": [{"role": "user"}]}', "messages.0. must have"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": true}', "streaming is not offered"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": "9"}', "`max_tokens` must be"),
    ],
)
def test_the_server_says_what_is_wrong_with_a_request(server, body, message):
    link = http.client.HTTPConnection("127.0.0.1", server.server_port)
    link.request("POST", "/v1/chat/completions", body)
    answer = link.getresponse()
    said = json.loads(answer.read())["error"]["message"]
    assert answer.status == 400 and re.search(message, said)
    for method, path, status in (("GET", "/v1/models", 200), ("GET", "/", 404), ("POST", "/v1/embeddings", 404)):
        link.request(method, path)
        answer = link.getresponse()
        answer.read()
        assert answer.status == status


def test_the_server_is_on_loopback_and_a_taken_port_is_named(server):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(AskingError, match="cannot listen on 127.0.0.1.*--port"):
        serve(lambda body: completion(body, ""), server.server_port)


def test_asking_is_light_until_a_client_is_made():
    code = "import sys, minillava.asking; print({'openai', 'torch', 'httpx2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"

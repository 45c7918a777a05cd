"""Instruction data through the real client: nothing is lost or billed twice, and every way gives the same records."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from minillava import cli
from minillava.asking import AskingError, Budget, Journal, Price, Rejected, request_key, server
from minillava.commands.generate import mixture
from minillava.data.images import open_picture
from minillava.data.records import normalise
from minillava.data.scienceqa import read_problems, science_record
from minillava.data.valid import read_records
from minillava.datagen import replies
from minillava.datagen.generate import (
    ALL_TYPES,
    FAILED,
    Settings,
    generate,
    plan_records,
    request_text,
    write_requests,
)
from minillava.datagen.messages import (
    BRIEF_INSTRUCTIONS,
    DETAILED_INSTRUCTIONS,
    PROMPT_FOLDERS,
    PROMPTS,
    TYPES,
    PromptError,
    context,
    messages,
    read_prompt,
)
from minillava.datagen.pictures import LeftOut, Picture
from minillava.datagen.sources import read_source
from minillava.datagen.statistics import statistics
from minillava.datagen.teachers import OFFLINE_MODEL, RecordedTeacher, openai_teacher
from minillava.figures import data as figures_data
from minillava.files import write_jsonl
from minillava.scales import WEIGHTS
from minillava.scenes.captions import boxes, captions
from minillava.scenes.compose import compose, scenes
from minillava.standins.pictures import PICTURE_BOOK
from minillava.standins.quiz import quiz
from minillava.standins.teacher import REFUSAL, OfflineTeacher, offline_reply, response_type
from minillava.standins.vision_tower import TINY_CLIP
from tests.faulty import SAYS_429, SAYS_500, faulty

pytestmark = pytest.mark.usefixtures("no_key")
ALL = Settings(types=ALL_TYPES)
FILES = ("conversation.json", "detail.json", "complex.json", "caption.json", "instruct.json", "quarantine.jsonl")


@pytest.fixture
def teacher_server():
    with faulty(reply=offline_reply) as running:
        yield running


def book(n, split="train"):
    return [Picture(s.id, f"{s.id}.png", tuple(captions(s)), tuple(boxes(s))) for s in scenes(split, n)]


def made(out, files=FILES):
    return {name: (out / name).read_bytes() for name in files}


def online(server, timeout=10.0):
    return openai_teacher(OFFLINE_MODEL, server.url, timeout)


def texts(record):
    """The turns of a record, without the image token."""
    return [turn["value"].replace("<image>", "").strip() for turn in record["conversations"]]


def batch_row(request):
    """The line of a batch output file that answers a line of its input file."""
    response = {"status_code": 200, "body": offline_reply(request["body"])}
    return {"custom_id": request["custom_id"], "response": response, "error": None}


def run(pictures, teacher, out, settings=ALL, **more):
    return generate(pictures, teacher, out, settings, progress=False, backoff=0.001, **more)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The files of an uninterrupted offline run over twelve pictures."""
    out = tmp_path_factory.mktemp("reference")
    assert run(book(12), OfflineTeacher(), out).complete
    return made(out)


# messages


def test_messages_are_system_then_pairs_then_the_query():
    for kind, folder in PROMPT_FOLDERS.items():
        prompt = read_prompt(PROMPTS / folder)
        turns = messages(prompt, "the query")
        assert [t["role"] for t in turns] == ["system", *("user", "assistant") * len(prompt.shots), "user"]
        assert turns[0]["content"] == prompt.system and turns[-1]["content"] == "the query"
        assert [(u["content"], a["content"]) for u, a in zip(turns[1::2], turns[2::2])] == list(prompt.shots)
        assert len(prompt.shots) == {"conversation": 2}.get(kind, 3)


def test_the_shipped_few_shots_are_this_projects_scenes_in_the_expected_form():
    scene_of = {
        "conversation": (900005, 900010),
        "detail": (900002, 900007, 900019),
        "complex": (900003, 900005, 900023),
    }
    for kind, folder in PROMPT_FOLDERS.items():
        shots = read_prompt(PROMPTS / folder).shots
        for (shown, reply), number in zip(shots, scene_of[kind], strict=True):
            scene = compose("train", number)
            assert shown == context(captions(scene), boxes(scene) if kind != "conversation" else ())
            count = len(replies.read_pairs(kind, reply)) if kind == "conversation" else 1
            assert len(replies.checked_pairs(kind, reply)) == count
        assert response_type(messages(read_prompt(PROMPTS / folder), "x")) == kind


def test_the_authors_prompt_folders_work_unchanged(real, tmp_path):
    folders = {"conversation": (2, 0), "detail": (3, 33)}
    for kind, (shots, drawn) in folders.items():
        prompt = read_prompt(real("prompts") / PROMPT_FOLDERS[kind])
        assert len(prompt.shots) == shots and all(len(c.split("\n\n")[0].split("\n")) == 5 for c, _ in prompt.shots)
        assert sum(c.count("]") for c, _ in prompt.shots) == drawn
        assert response_type(messages(prompt, "x")) == kind
    settings = Settings(types=("conversation", "detail"), prompts=real("prompts"))
    assert run(book(4), OfflineTeacher(), tmp_path, settings).made == {"conversation": 4, "detail": 4}
    with pytest.raises(PromptError, match="complex_reasoning: no such prompt folder"):
        plan_records(book(1), Settings(prompts=real("prompts")))


def test_no_prompt_copies_the_authors_wording(real):
    theirs = " ".join(p.read_text() for p in real("prompts").rglob("*.txt"))
    ours = [p.read_text() for p in PROMPTS.rglob("*.txt")]

    def runs(text, n=7):
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    assert len(ours) == 19 and not runs(theirs) & set().union(*map(runs, ours))


def test_there_are_as_many_instructions_for_descriptions_as_in_the_paper():
    from minillava.paper import DATA

    assert (len(set(BRIEF_INSTRUCTIONS)), len(set(DETAILED_INSTRUCTIONS))) == tuple(DATA["instructions"].value.values())


def test_by_default_conversation_gets_captions_only():
    pictures = book(3)
    for settings in (Settings(), Settings(boxes=TYPES), Settings(boxes=())):
        for item in plan_records(pictures, settings):
            shown = item.body["messages"][-1]["content"]
            boxes = item.picture.boxes if item.kind in settings.boxes else ()
            assert shown == context(list(item.picture.captions), boxes)
            assert ("]" in shown) == (item.kind in settings.boxes)
    assert Settings().boxes == ("detail", "complex")


@pytest.mark.parametrize("wrong, message", [
    ({"types": ("poem",)}, "--types poem: choose from conversation, detail, complex, caption"), ({"types": ()}, "at least one"),
    ({"types": ("detail", "detail")}, "name each type once"), ({"boxes": ("caption",)}, "--boxes caption"),
    ({"max_tokens": 0}, "--max-tokens 0"),
])  # fmt: skip
def test_invalid_settings_are_named(wrong, message):
    with pytest.raises(AskingError, match=message):
        Settings(**wrong)


@pytest.mark.parametrize("change, message", [
    (lambda d: (d / "000_conv.txt").unlink(), "000_caps.txt needs 000_conv.txt"),
    (lambda d: (d / "000_caps.txt").unlink(), "000_conv.txt needs 000_caps.txt"),
    (lambda d: (d / "system_message.txt").unlink(), "system_message.txt: cannot be read"),
    (lambda d: (d / "system_message.txt").write_text(" \n"), "system_message.txt: empty"),
    (lambda d: (d / "000_caps.txt").write_bytes(b"\xff\xfe"), "000_caps.txt: not UTF-8"),
])  # fmt: skip
def test_an_incomplete_prompt_folder_is_named(tmp_path, change, message):
    for path in (PROMPTS / "conversation").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path)
    with pytest.raises(PromptError, match=message) as error:
        read_prompt(tmp_path)
    assert str(tmp_path) in str(error.value)


# records


def test_records_are_of_the_authors_format_with_the_image_on_both_sides(tmp_path):
    assert run(book(60), OfflineTeacher(), tmp_path).complete
    records = [r for name in FILES[:4] for r in read_records(tmp_path / name)]
    assert len(records) == 240 == len({r["id"] for r in records})
    for record in records:
        assert normalise(record)[1] == []
    first = [r["conversations"][0]["value"] for r in records]
    assert 90 < sum(t.startswith("<image>\n") for t in first) < 150 and all(t.count("<image>") == 1 for t in first)
    asked = {kind: {texts(r)[0] for r in read_records(tmp_path / f"{kind}.json")} for kind in ALL_TYPES}
    assert asked["detail"] <= set(DETAILED_INSTRUCTIONS) and asked["caption"] <= set(BRIEF_INSTRUCTIONS)
    assert len(asked["detail"]) > 10
    assert read_records(tmp_path / "instruct.json") == records[:180]
    for record, picture in zip(read_records(tmp_path / "caption.json"), book(60)):
        assert record["conversations"][1]["value"] in picture.captions


def test_the_seed_affects_only_the_place_of_the_image_and_the_instruction(tmp_path):
    for seed, folder in ((0, "a"), (0, "b"), (1, "c")):
        run(book(12), OfflineTeacher(), tmp_path / folder, Settings(types=("conversation", "detail"), seed=seed))
    a, b, c = (read_records(tmp_path / f / "instruct.json") for f in "abc")
    assert a == b != c
    assert list(map(texts, a[:12])) == list(map(texts, c[:12]))


def test_an_image_token_in_a_caption_does_not_break_the_record(tmp_path):
    picture = Picture("p", "p.png", ("a cat <image> in a park",))
    run([picture], OfflineTeacher(), tmp_path, Settings(types=("caption",)))
    assert read_records(tmp_path / "caption.json")[0]["conversations"][1]["value"] == "a cat   in a park"


@pytest.mark.parametrize("question, answer, empty", [("What?", "<image>", "answer"), ("<image>", "A car.", "question")])
def test_a_turn_with_only_an_image_token_is_empty(tmp_path, question, answer, empty):
    class Telling(OfflineTeacher):
        async def complete(self, body, name):
            return server.completion(body, f"Question:\n{question}\n===\nAnswer:\n{answer}")

    summary = run(book(1), Telling(), tmp_path, Settings(types=("complex",)))
    assert summary.quarantined == {replies.EMPTY: 1}
    assert f"turn 1 has no {empty}" in (tmp_path / "quarantine.jsonl").read_text()
    assert read_records(tmp_path / "complex.json") == []


# every way gives the same records


def test_the_real_client_gives_the_same_records_and_a_second_run_costs_nothing(teacher_server, tmp_path, reference):
    summary = run(book(12), online(teacher_server), tmp_path, concurrency=8)
    assert summary.complete and made(tmp_path) == reference and summary.asked == 36
    bodies = [item.body for item in plan_records(book(12), ALL) if item.body]
    assert set(teacher_server.attempts) == {request_key(b) for b in bodies} and set(
        teacher_server.attempts.values()
    ) == {1}
    again = run(book(12), online(teacher_server), tmp_path)
    assert (again.asked, again.reused, again.tokens) == (0, 36, {"prompt": 0, "completion": 0})
    assert len(teacher_server.asked) == 36 and made(tmp_path) == reference


def test_batch_files_and_recordings_give_the_same_records(tmp_path, reference):
    paths, count = write_requests(book(12), tmp_path / "a", ALL)
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    assert count == len(rows) == 36
    random.Random(0).shuffle(rows)
    write_jsonl(map(batch_row, rows[:20]), tmp_path / "one")
    write_jsonl(map(batch_row, rows[20:]), tmp_path / "two")
    partly = run(book(12), OfflineTeacher(), tmp_path / "a", batch=[tmp_path / "one"])
    assert not partly.complete and partly.not_asked == 16 and partly.asked == 20
    assert run(book(12), OfflineTeacher(), tmp_path / "a", batch=[tmp_path / "two"]).complete
    assert made(tmp_path / "a") == reference
    summary = run(book(12), RecordedTeacher(tmp_path / "a" / "replies.jsonl"), tmp_path / "b")
    assert summary.complete and made(tmp_path / "b") == reference
    stranger = run(
        book(13)[12:], RecordedTeacher(tmp_path / "a" / "replies.jsonl"), tmp_path / "c", Settings(types=("detail",))
    )
    quarantine = (tmp_path / "c" / "quarantine.jsonl").read_text()
    assert stranger.quarantined == {FAILED: 1} and "not among the recorded replies" in quarantine


def test_the_shipped_replies_are_replayed_without_a_key(capsys, tmp_path):
    shipped = WEIGHTS.parent
    source = ["--source", shipped / "caps_boxes.jsonl", "--images", shipped / "pictures"]
    status, out, _ = command(capsys, "generate", *source, "--out", tmp_path, "--replay", shipped / "replies.jsonl")
    assert status == 0 and "36 of 36 records of 12 pictures" in out


def test_failed_and_unknown_batch_replies_are_counted(tmp_path):
    paths, _ = write_requests(book(2), tmp_path / "a", Settings(types=("detail",)))
    rows = [json.loads(line) for line in paths[0].read_text().splitlines()]
    failed = {"status_code": 400, "body": {"error": {"message": "too long"}}}
    output = [batch_row(rows[0]) | {"response": failed}, batch_row(rows[1]) | {"custom_id": "of-another-run"}]
    write_jsonl(output, tmp_path / "o")
    summary = run(book(2), OfflineTeacher(), tmp_path / "a", Settings(types=("detail",)), batch=[tmp_path / "o"])
    assert (summary.quarantined, summary.not_asked, summary.unknown) == ({FAILED: 1}, 1, 1)
    assert "never asked for" in str(summary)


# failures are counted


def test_every_bad_reply_is_in_the_quarantine_file_with_its_reason(tmp_path):
    given = {
        0: ("A plain text without form.", "stop", None),
        1: ("Question:\nWhat?\n===\nAnswer:\nA car", "length", None),
        2: ("", "stop", "I will not."),
        3: ("Question:\nWhat?\n===\nAnswer:\nThe caption says a car.", "stop", None),
        4: ("Question:\nWhat?\n===\nAnswer:\nA.\n===\nQuestion:\nWhat?\n===\nAnswer:\nB.", "stop", None),
        5: ("Question:\nWhat?\n===\nAnswer:\n", "stop", None),
        6: ("Question:\nWhat?\n===\nAnswer:\nA red car.", "stop", None),
    }
    pictures = book(8)
    order = {p.captions[0] + p.captions[1]: n for n, p in enumerate(pictures)}

    def number(body):
        return order["".join(body["messages"][-1]["content"].split("\n")[:2])]

    def reply(body):
        return server.completion(body, *given.get(number(body), given[6]))

    def fault(body, attempt):
        return ("status", 400, {}) if number(body) == 7 else None

    settings, problems = Settings(types=("conversation",)), [LeftOut("f.csv", "line 9", "no captions")]
    with faulty(reply=reply, fault=fault) as running:
        summary = run(pictures, online(running), tmp_path, settings, problems=problems)
    assert summary.made == {"conversation": 1} and summary.left_out == 1 and not summary.complete
    assert summary.quarantined == dict.fromkeys((*replies.REASONS, FAILED), 1)
    rows = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert Counter(r["stage"] for r in rows) == {"reply": 6, "request": 1, "source": 1}
    assert all(r["reply"] == given[int(r["id"].split("-")[1])][0] for r in rows if r["stage"] == "reply")
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["made"] == summary.made and written["quarantined"] == summary.quarantined and not written["complete"]
    assert sum(summary.made.values()) + sum(summary.quarantined.values()) + summary.not_asked == summary.wanted


def test_the_offline_teacher_declines_pictures_it_does_not_know(tmp_path):
    summary = run([Picture("p", "p.png", ("A donut shop.",))], OfflineTeacher(), tmp_path, Settings())
    assert summary.quarantined == {replies.REFUSED: 3} and REFUSAL in (tmp_path / "quarantine.jsonl").read_text()


def test_the_offline_teacher_takes_its_task_from_the_messages_alone():
    systems = ("Design a conversation.", "A detailed description.", "A reasoning question.")
    for kind, text in zip(TYPES, systems):
        assert response_type([{"role": "system", "content": text}]) == kind
    body = plan_records(book(1), Settings(types=("detail",)))[0].body
    assert offline_reply(body) == offline_reply(dict(body))
    assert offline_reply(body | {"max_tokens": 3})["choices"][0]["finish_reason"] == "length"
    for wrong, message in (
        ([{"role": "user", "content": "a cat"}], "no few-shot example"),
        ([{"role": "system", "content": "describe"}], "no user message"),
        ([{"role": "system", "content": "describe"}, {"role": "user", "content": "a cat\n\ncat: 1"}], "not a box line"),
    ):
        with pytest.raises(server.Rejected, match=message):
            offline_reply({"model": "m", "messages": wrong})


@pytest.mark.parametrize("concurrency", [1, 12])
def test_faults_change_no_record_and_bill_nothing_twice(teacher_server, tmp_path, reference, concurrency):
    faults = [SAYS_429, SAYS_500, "reset", ("raw", b"{"), ("json", {"choices": []}), ("raw", b"<html>", "text/html")]
    rng = random.Random(0)
    teacher_server.fault = lambda body, n: rng.choice(faults) if n < 3 and rng.random() < 0.5 else None
    teacher_server.delay = lambda body: 0.003 * rng.random()
    summary = run(book(12), online(teacher_server), tmp_path, concurrency=concurrency)
    assert summary.complete and made(tmp_path) == reference and summary.retries > 10
    assert len(teacher_server.billed) == 36 and set(teacher_server.billed.values()) == {1}


def test_a_budget_stops_before_it_is_exceeded_and_a_higher_one_resumes(teacher_server, tmp_path, reference):
    price = Price(10.0, 10.0)
    summary = run(book(12), online(teacher_server), tmp_path, price=price, budget=Budget(usd=0.3))
    assert 0 < summary.asked < 36 and summary.usd_in_all <= 0.3 and "budget of $0.30" in summary.stopped
    assert summary.not_asked == 36 - summary.asked and "not asked" in str(summary)
    summary = run(book(12), online(teacher_server), tmp_path, price=price, budget=Budget(usd=30))
    assert summary.complete and made(tmp_path) == reference and set(teacher_server.attempts.values()) == {1}


@pytest.mark.parametrize("stop", ["budget", "failures"])
def test_an_incomplete_run_with_other_settings_overwrites_no_record(teacher_server, tmp_path, reference, stop):
    assert run(book(12), online(teacher_server), tmp_path).complete
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json*") if path.name not in ("replies.jsonl", "asked.jsonl")}  # fmt: skip
    teacher_server.fault = lambda body, n: ("status", 400, {}) if stop == "failures" and n and "seed" not in body and len(teacher_server.asked) % 5 else None  # fmt: skip
    more = {"price": Price(10.0, 10.0), "budget": Budget(usd=0.3)} if stop == "budget" else {}
    with pytest.raises(AskingError, match=r"holds 12 records of a run with other settings .*nothing was overwritten"):
        run(book(12), online(teacher_server), tmp_path, Settings(types=ALL_TYPES, max_tokens=900), **more)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    teacher_server.fault = lambda body, n: None
    summary = run(book(12), online(teacher_server), tmp_path, Settings(types=ALL_TYPES, max_tokens=900))
    assert summary.complete and summary.settings["max_tokens"] == 900 and set(teacher_server.billed.values()) == {1}


def test_a_setting_that_was_not_sent_is_not_recorded_as_sent(tmp_path):
    def reply(body):
        if "temperature" in body:
            raise Rejected("Unsupported value: 'temperature' does not support 0.7 with this model.")
        return offline_reply(body)

    with faulty(reply=reply) as teacher_server:
        for asked in (9, 0):
            summary = run(book(3), online(teacher_server), tmp_path, Settings(model="m", temperature=0.7))
            assert summary.complete and summary.asked == asked and summary.not_sent == ["temperature"]
            assert json.loads((tmp_path / "summary.json").read_text())["settings"]["temperature"] is None
            assert "not sent, because the model does not take it: temperature" in str(summary)
        summary = run(book(3), online(teacher_server), tmp_path / "o", Settings(model="o3", temperature=0.7))
    assert summary.not_sent == ["temperature"] and summary.settings["temperature"] is None


def test_a_draft_in_a_thought_never_becomes_a_turn(tmp_path, reference):
    def reply(body):
        answer = offline_reply(body)
        message = answer["choices"][0]["message"]
        message["content"] = f"<think>\nQuestion: Is there a dog?\nAnswer: Maybe.\n</think>\n\n{message['content']}"
        return answer

    with faulty(reply=reply) as teacher_server:
        assert run(book(12), online(teacher_server), tmp_path).complete and made(tmp_path) == reference


def test_a_second_process_on_the_same_folder_is_refused(tmp_path):
    with Journal(tmp_path), pytest.raises(AskingError, match="another process is at work"):
        run(book(1), OfflineTeacher(), tmp_path)


@pytest.mark.parametrize("how", ["open", "write_text"])
def test_a_full_disk_while_results_are_written_loses_no_reply(tmp_path, monkeypatch, reference, how):
    write = getattr(Path, how)

    def full(path, *args, **kwargs):
        if ".part" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, *args, **kwargs)

    monkeypatch.setattr(Path, how, full)
    with pytest.raises(AskingError, match="cannot be written .No space left on device.; the replies are kept"):
        run(book(12), OfflineTeacher(), tmp_path)
    monkeypatch.undo()
    summary = run(book(12), OfflineTeacher(), tmp_path)
    assert summary.complete and summary.asked == 0 and made(tmp_path) == reference


# killed


def life(url, out):
    """The process to kill: everything from the plan to the files, as the command does it."""
    run(book(16), openai_teacher(OFFLINE_MODEL, url, 10.0), Path(out), concurrency=4)


def test_a_hundred_kills_at_random_moments_change_nothing_in_the_result(teacher_server, tmp_path):
    assert run(book(16), OfflineTeacher(), tmp_path / "reference").complete
    expected, rng, spawn = made(tmp_path / "reference"), random.Random(1), multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload(["minillava.asking.client", "minillava.datagen.generate", "tests.test_generate_data"])
    teacher_server.delay = 0.003
    process = spawn.Process(target=life, args=(teacher_server.url, tmp_path / "whole"))
    process.start()
    process.join()
    assert process.exitcode == 0 and made(tmp_path / "whole") == expected
    teacher_server.forget()
    kills, folder, at_kill = 0, 0, Counter()
    while kills < 100:
        out = tmp_path / str(folder)
        process = spawn.Process(target=life, args=(teacher_server.url, out))
        process.start()
        # After a few more requests and some milliseconds, as a share of the time would depend on how busy it is here.
        until = sum(teacher_server.attempts.values()) + rng.randint(0, 4)
        while process.is_alive() and sum(teacher_server.attempts.values()) < until:
            time.sleep(0.001)
        process.join(rng.uniform(0.0, 0.02))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            there = (out / "replies.jsonl").read_bytes().count(b"\n") if (out / "replies.jsonl").exists() else 0
            at_kill["nothing yet" if not there else "all answered" if there >= 48 else "between"] += 1
            # a request in the journal is never sent again: count how often each was sent so far
            done = (
                [json.loads(line)["key"] for line in (out / "replies.jsonl").read_bytes().split(b"\n")[:-1]]
                if there
                else []
            )
            before = {name: teacher_server.attempts[name] for name in done}
            assert len(done) == len(set(done)), "a reply is there twice"
            if kills % 20 == 0:
                time.sleep(0.02)  # requests on their way have arrived
                before = {name: teacher_server.attempts[name] for name in done}
                run(book(16), openai_teacher(OFFLINE_MODEL, teacher_server.url, 10.0), out, concurrency=4)
                assert all(teacher_server.attempts[name] == n for name, n in before.items()), "asked again"
                assert made(out) == expected and set(teacher_server.billed.values()) == {1}
                folder += 1
                teacher_server.forget()
        else:
            assert process.exitcode == 0 and made(out) == expected and set(teacher_server.billed.values()) == {1}
            folder += 1
            teacher_server.forget()
    print(at_kill)
    assert at_kill["between"] > 30, at_kill


# the command


@pytest.fixture(autouse=True)
def undrawn(monkeypatch, request):
    """Drawing takes longer than all the rest, so only the first test of the command does it."""
    if "command_makes_everything" not in request.node.name:
        monkeypatch.setattr(
            figures_data, "statistics_figure", lambda found: type("F", (), {"savefig": lambda *_: None})
        )


def command(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def write_book(folder, n=3):
    """Write caps.jsonl and pictures; the arguments to generate from them."""
    (folder / "images").mkdir()
    rows = []
    for p in book(n):
        (folder / "images" / p.image).write_bytes(b"png")
        instances = [{"category": k, "bbox": b} for k, b in p.boxes]
        rows.append({"id": p.id, "image": p.image, "captions": p.captions, "instances": instances})
    write_jsonl(rows, folder / "caps.jsonl")
    return ["generate", "--source", folder / "caps.jsonl", "--images", folder / "images", "--out", folder / "out"]


def by_api(folder, url, n=3):
    """Like `write_book`, with the API at `url` as teacher. The last argument is --yes."""
    return [*write_book(folder, n), "--teacher", "openai", "--base-url", url, "--model", OFFLINE_MODEL, "--yes"]


def test_the_command_makes_everything_offline_and_ends_with_0(capsys, tmp_path):
    status, out, _ = command(
        capsys,
        "generate",
        "--source",
        PICTURE_BOOK,
        "--limit",
        3,
        "--types",
        ",".join(ALL_TYPES),
        "--out",
        tmp_path / "o",
    )
    assert status == 0 and "12 of 12 records of 3 pictures" in out
    names = {p.name for p in (tmp_path / "o").iterdir()}
    assert names >= {*FILES, "summary.json", "statistics.json", "statistics.png", "pictures"}
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["complete"]
    side = open_picture(next((tmp_path / "o" / "pictures").iterdir())).width
    assert f"{side} pixels per side" in out and f"drawings of {TINY_CLIP.image_size}" in out


def test_a_record_left_out_is_named_and_ends_with_1(capsys, tmp_path):
    arguments = write_book(tmp_path)
    (tmp_path / "images" / "train-000001.png").unlink()
    status, out, err = command(capsys, *arguments)
    assert status == 1 and "caps.jsonl: line 2: no picture 'train-000001.png'" in err
    assert "6 of 6 records of 2 pictures" in out and "left out of the source: 1 records" in out


def test_a_dry_run_prints_the_exact_messages_and_sends_nothing(capsys, tmp_path, teacher_server, monkeypatch):
    arguments = by_api(tmp_path, teacher_server.url)[:-1]
    status, out, err = command(capsys, *arguments, "--dry-run")
    pictures, _ = read_source(tmp_path / "caps.jsonl", tmp_path / "images")
    assert status == 0 and not teacher_server.asked and not (tmp_path / "out").exists()
    for item in plan_records(pictures, Settings()):
        assert request_text(item) in out and all(m["content"] in out for m in item.body["messages"])
    assert out.count("##### train-") == 9 and "nothing was sent; it would be 9 requests" in err
    seen = []
    teacher_server.reply = lambda body: (seen.append(body), offline_reply(body))[1]
    assert command(capsys, *arguments, "--yes")[0] == 0
    assert sorted(map(request_key, seen)) == sorted(request_key(i.body) for i in plan_records(pictures, Settings()))


def test_without_consent_nothing_is_sent(capsys, tmp_path, teacher_server):
    arguments = by_api(tmp_path, teacher_server.url)[:-1]
    status, out, err = command(capsys, *arguments)
    assert status == 2 and "add --yes" in err and "9 requests" in out and not teacher_server.asked
    status, out, _ = command(capsys, *arguments, "--yes", "--price", "1,2", "--budget", "0.012")
    assert status == 1 and "not asked" in out and "budget of $0.012" in out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["usd_in_all"] <= 0.012
    assert command(capsys, *arguments, "--yes")[0] == 0


def test_batch_files_by_command(capsys, tmp_path):
    arguments = write_book(tmp_path)
    status, out, _ = command(capsys, *arguments, "--write-batch")
    assert status == 0 and "9 requests in 1 files" in out and not (tmp_path / "out" / "detail.json").exists()
    rows = [json.loads(line) for line in (tmp_path / "out" / "batch" / "batch-000.jsonl").read_text().splitlines()]
    write_jsonl(map(batch_row, rows), tmp_path / "o")
    assert command(capsys, *arguments, "--read-batch", tmp_path / "o")[0] == 0
    assert "0 requests in 0 files" in command(capsys, *arguments, "--write-batch")[1]


def test_a_lasting_fault_ends_with_1_and_the_next_run_completes(capsys, tmp_path, teacher_server):
    arguments = by_api(tmp_path, teacher_server.url)
    victim = request_key(plan_records(read_source(tmp_path / "caps.jsonl", tmp_path / "images")[0], Settings())[4].body)
    teacher_server.fault = lambda body, n: ("status", 400, {}) if request_key(body) == victim else None
    status, out, _ = command(capsys, *arguments)
    assert status == 1 and f"quarantined: 1 (1 {FAILED})" in out
    teacher_server.fault = lambda body, n: None
    status, out, _ = command(capsys, *arguments)
    assert status == 0 and "asked 1, reused 8" in out


@pytest.mark.parametrize("arguments, message", [
    (("--source", "none.jsonl"), "--images: name the folder"), (("--source", "none.jsonl", "--images", "."), "none.jsonl: cannot be read"),
    (("--source", PICTURE_BOOK, "--types", "poem"), "--types poem"), (("--source", PICTURE_BOOK, "--prompts", "none"), "none/conversation: no such prompt folder"),
    (("--source", PICTURE_BOOK, "--limit", "0"), "--limit 0"), (("--source", f"{PICTURE_BOOK}:none"), "no such split"),
    (("--source", PICTURE_BOOK, "--teacher", "openai"), "no key: set the environment variable OPENAI_API_KEY"),
    (("--source", PICTURE_BOOK, "--teacher", "openai", "--base-url", "nowhere"), "--base-url: expected something like"),
    (("--source", PICTURE_BOOK, "--teacher", "openai", "--price", "cheap"), "--price cheap"),
    (("--source", PICTURE_BOOK, "--teacher", "openai", "--base-url", "http://127.0.0.1:9", "--model", "x", "--budget", "1", "--yes"), "no price is known for x"),
    (("--source", PICTURE_BOOK, "--concurrency", "0"), "--concurrency 0"), (("--source", PICTURE_BOOK, "--replay", "none"), "none: cannot be read"),
    (("--source", PICTURE_BOOK, "--read-batch", "none"), "none: cannot be read"),
])  # fmt: skip
def test_a_users_mistake_gives_an_error_of_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = command(
        capsys, "generate", *arguments, *(() if "--limit" in arguments else ("--limit", "1")), "--out", "out"
    )
    assert status == 2 and message in err and "Traceback" not in err, err


def test_an_output_that_is_a_file_is_named(capsys, tmp_path):
    (tmp_path / "file").touch()
    status, _, err = command(capsys, "generate", "--source", PICTURE_BOOK, "--limit", 1, "--out", tmp_path / "file")
    assert status == 2 and "is a file; name a folder with --out" in err


# what `minillava train` reads


def test_the_training_mixture_has_the_papers_proportions_in_every_part():
    per_type = {kind: [{"id": f"{n}-{kind}"} for n in range(154)] for kind in TYPES}
    mixed, said = mixture(per_type, 154)
    kinds = [record["id"].partition("-")[2] for record in mixed]
    assert Counter(kinds) == {"conversation": 116, "detail": 46, "complex": 154} and "wanted" not in said
    for kind, count in Counter(kinds[:158]).items():
        assert abs(count - {"conversation": 58, "detail": 23, "complex": 77}[kind]) <= 1
    few = mixture(per_type | {"complex": per_type["complex"][:9]}, 154)
    assert len(few[0]) == 116 + 46 + 9 and few[1] == "116 conversation, 46 detail, 9 complex (154 wanted)"
    assert [r["id"] for r in mixture({"detail": per_type["detail"], "caption": []}, 3)[0]] == [
        "0-detail",
        "1-detail",
        "2-detail",
    ]


def test_a_stopped_run_that_is_completed_has_the_same_training_files_and_a_link_to_the_pictures(capsys, tmp_path):
    arguments, files = write_book(tmp_path), ("stage1.json", "stage2.json")
    assert command(capsys, *arguments)[0] == 0
    whole, out = made(tmp_path / "out", files), tmp_path / "out"
    assert read_records(out / "stage1.json") == run_captions(tmp_path) and len(read_records(out / "stage2.json")) == 7
    assert (out / "images").is_symlink() and (out / "images" / "train-000001.png").read_bytes() == b"png"
    replies = (out / "replies.jsonl").read_text().splitlines(keepends=True)
    for path in out.iterdir():
        path.unlink()
    (out / "replies.jsonl").write_text("".join(replies[:5]))
    assert command(capsys, *arguments)[0] == 0 and made(out, files) == whole
    moved = (tmp_path / "images").rename(tmp_path / "moved")
    assert command(capsys, *(moved if a == tmp_path / "images" else a for a in arguments))[0] == 0
    assert (out / "images").resolve() == moved.resolve() and made(out, files) == whole


def run_captions(folder):
    pictures, _ = read_source(folder / "caps.jsonl", folder / "images")
    run(pictures, OfflineTeacher(), folder / "captions", Settings(types=("caption",)))
    return read_records(folder / "captions" / "caption.json")


def test_a_folder_of_images_that_is_there_stays_and_training_is_told_of_the_right_one(capsys, tmp_path):
    arguments, mine = write_book(tmp_path), tmp_path / "out" / "images"
    mine.mkdir(parents=True)
    status, said, _ = command(capsys, *arguments, "--types", "caption")
    assert status == 0 and mine.is_dir() and not mine.is_symlink() and not (tmp_path / "out" / "stage2.json").exists()
    assert f"train {tmp_path / 'out'} --images {tmp_path / 'images'}" in said
    arguments[arguments.index(tmp_path / "out")] = tmp_path
    assert f"train {tmp_path}\n" in command(capsys, *arguments)[1] and not (tmp_path / "images").is_symlink()


def test_a_quiz_is_written_as_training_and_answering_read_it(capsys, tmp_path):
    out = tmp_path / "q"
    assert command(capsys, "generate", "--source", "quiz:val", "--limit", 4, "--out", out)[0] == 0
    problems = quiz("val", 4)
    assert read_records(out / "stage2.json") == [science_record(p, "QCM-LEPA") for p in problems]
    assert list(read_problems(out, "val").values()) == problems
    assert {p.image for p in problems if p.image} == {str(p.relative_to(out / "images")) for p in out.rglob("*.png")}
    for wrong in (("quiz:none",), ("quiz", "--limit", 0), ("quiz", "--dry-run"), ("quiz", "--images", tmp_path)):
        status, _, error = command(capsys, "generate", "--out", tmp_path / "no", "--source", *wrong)
        assert status == 2 and "quiz" in error and not (tmp_path / "no").exists()


def test_a_failure_to_write_statistics_or_another_form_is_named_and_the_records_are_kept(capsys, tmp_path, monkeypatch):
    arguments = write_book(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures_data, "statistics_figure", lambda found: type("F", (), {"savefig": full}))
    status, _, err = command(capsys, *arguments)
    assert status == 2 and "out: the statistics cannot be written (No space left on device)" in err
    assert len(read_records(tmp_path / "out" / "instruct.json")) == 9
    monkeypatch.setattr(figures_data, "statistics_figure", lambda found: type("F", (), {"savefig": lambda *_: None}))
    (tmp_path / "out" / "parquet").touch()
    status, _, err = command(capsys, *arguments, "--format", "parquet")
    assert status == 2 and "out/parquet" in err and "Traceback" not in err


@pytest.mark.usefixtures("heeded")
def test_the_server_command_answers_the_real_client_and_ctrl_c_ends_it(capsys, tmp_path):
    call = [sys.executable, "-m", "minillava", "serve-teacher", "--port", "0"]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://127.0.0.1:\d+/v1", process.stdout.readline())[0]
        arguments = by_api(tmp_path, url)
        assert command(capsys, *arguments)[0] == 0
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "Stopped." in out and "Traceback" not in err


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_stops_the_command_cleanly_and_the_same_command_resumes(capsys, tmp_path, teacher_server):
    arguments = [*by_api(tmp_path, teacher_server.url, 12), "--concurrency", "2"]
    teacher_server.delay = 0.05
    teacher_server.fault = lambda b, n: os.kill(os.getpid(), signal.SIGINT) if len(teacher_server.asked) == 7 else None
    status, _, err = command(capsys, *arguments)
    assert status == 130 and "the same command" in err and "Traceback" not in err
    done = len(teacher_server.asked)
    assert 0 < done < 36
    teacher_server.delay, teacher_server.fault = 0, lambda b, n: None
    status, out, _ = command(capsys, *arguments)
    assert status == 0 and f"asked {36 - done}, reused {done}" in out and set(teacher_server.attempts.values()) == {1}


def test_the_key_is_in_no_file_and_is_not_printed(capsys, tmp_path, teacher_server, monkeypatch):
    secret = "sk-never-to-be-seen-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    teacher_server.fault = lambda body, n: (
        ("status", 400, {}, f"no {secret}") if n == 1 and len(teacher_server.asked) % 3 == 0 else None
    )
    arguments = by_api(tmp_path, teacher_server.url)
    status, out, err = command(capsys, *arguments)
    assert status == 1 and any(secret in str(h) for h in teacher_server.headers)
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert secret not in out + err and "***" in (tmp_path / "out" / "quarantine.jsonl").read_text()


def test_generating_needs_neither_torch_nor_transformers():
    code = "import sys, minillava.datagen.generate, minillava.commands.generate, minillava.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "openai", "datasets", "matplotlib"} & set(loaded)


# statistics


def test_statistics_count_records_words_nouns_and_verbs():
    def record(n, *values):
        turns = [{"from": ("human", "gpt")[i % 2], "value": v} for i, v in enumerate(values)]
        return {"id": str(n), "image": f"{n % 2}.png", "conversations": turns}

    talk = record(0, "<image>\nWhat is red?", "The two dogs sit on a car.", "Where?", "A dog sits in a park.")
    answers = {1: "A car stands in a park.", 3: "A dog."}
    details = [record(n, "Describe it.\n<image>", answer) for n, answer in answers.items()]
    found = statistics({"conversation": [talk], "detail": details})
    assert list(found["conversation"].row().values()) == [1, 1, 2, 2, 6.5, 6.5]
    assert (found["all"].records, found["all"].pictures, found["all"].turns) == (3, 2, 4)
    assert found["all"].nouns == [("dog", 3), ("car", 2), ("park", 2)]
    assert dict(found["all"].verbs) == {"sit": 2, "describe": 2, "stand": 1}
    assert statistics({"detail": []})["all"].row()["records"] == 0

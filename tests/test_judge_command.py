"""`minillava judge`: the authors' files unchanged, any judge behind one interface, nothing paid twice, bad input named."""

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from minillava import cli
from minillava.asking.server import completion, serve
from minillava.data.scienceqa import LETTERS, question_text, read_problems, write_problems
from minillava.files import FileError, read_jsonl, write_jsonl
from minillava.judging import rubric
from minillava.judging.bench import load_bench, write_bench
from minillava.judging.judges import ApiJudge, both_orders, match_answers, review_rows
from minillava.judging.pope import build_pope
from minillava.judging.reviews import read_reviews
from minillava.scales import WEIGHTS
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes
from minillava.standins.bench import build_bench
from minillava.standins.judge import RULE_ID, OfflineJudge
from minillava.standins.quiz import quiz

pytestmark = pytest.mark.usefixtures("no_key")


@pytest.fixture(scope="module")
def items():
    return build_bench("coco", 4)


@pytest.fixture
def bench(items, tmp_path):
    write_bench(items, tmp_path / "bench")
    write_jsonl(answers_of(items), tmp_path / "answers.jsonl")
    return tmp_path


def answers_of(items, text="It is a red car."):
    return [{"question_id": i.question_id, "prompt": i.text, "text": text, "answer_id": f"a{i.question_id}", "model_id": "m", "metadata": {}} for i in items]  # fmt: skip


@pytest.fixture
def api():
    """A judge behind an API: `asked` holds the bodies; `say` may be set to a function from a body to a text."""

    def reply(body):
        server.asked.append(body)
        return completion(body, server.say(body))

    server = serve(reply)
    server.asked, server.say = [], lambda body: "8 6\nThe first says more."
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield server
    server.shutdown()
    server.server_close()


def command(capsys, *arguments):
    """(status, what it printed, what it complained)."""
    status = cli.main(["judge", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def judge_bench(capsys, folder, *more):
    return command(capsys, "bench", "--bench", folder / "bench", "--answers", folder / "answers.jsonl", "--out", folder / "out", *more)  # fmt: skip


# reviews


def test_reviews_of_several_files_are_scored_and_left_out_rows_set_the_status(capsys, tmp_path):
    rows = [
        {"question_id": n, "category": c, "content": f"8 {s}\nwhy", "judge": "j"}
        for n, (c, s) in enumerate((("conv", 4), ("detail", 6)))
    ]
    write_jsonl(rows, tmp_path / "a.jsonl")
    write_jsonl([*rows, {"question_id": 9, "content": "I cannot."}], tmp_path / "b.jsonl")
    status, out, _ = command(capsys, "reviews", tmp_path / "a.jsonl")
    assert status == 0 and "2 reviews used, 0 left out; judge: j" in out
    assert [line.split()[:2] for line in out.splitlines()[2:5]] == [
        ["conv", "50.0"],
        ["detail", "75.0"],
        ["all", "62.5"],
    ]
    status, out, _ = command(capsys, "reviews", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--runs", "--json")
    value = json.loads(out)
    assert status == 1 and value["runs"]["all"] == {"mean": 62.5, "std": 0.0, "questions": 2}
    assert value["files"][1]["excluded"] == [{"name": "question 9", "why": "no scores in the review"}]
    assert value["files"][0]["scores"]["all"]["relative"] == 62.5 and value["files"][0]["judges"] == ["j"]


@pytest.mark.parametrize(
    "rows, more, message",
    [
        ([], (), "the file is empty"),
        ([{"question_id": 1, "content": "no"}], (), "no review in it can be used"),
        ([{"question_id": 1, "content": "8 8"}], ("--agree",), "--agree compares two judges"),
        ([{"question_id": 1, "content": "8 8"}], ("--runs",), "at least two files"),
    ],
)
def test_reviews_that_cannot_be_scored_end_with_status_2(capsys, tmp_path, rows, more, message):
    write_jsonl(rows, tmp_path / "a.jsonl")
    status, out, err = command(capsys, "reviews", tmp_path / "a.jsonl", *more)
    assert status == 2 and message in err and not out
    assert command(capsys, "reviews", tmp_path / "none.jsonl")[0] == 2


def test_the_real_reviews_by_command(capsys, real):
    status, out, _ = command(capsys, "reviews", real("reviews/llava-v1.5-13b-eval1.jsonl"), "--json")
    scores = json.loads(out)["files"][0]["scores"]
    assert status == 0 and {k: v["relative"] for k, v in scores.items()} == {
        "conv": 74.7,
        "detail": 52.6,
        "complex": 82.8,
        "all": 72.8,
    }


# scienceqa


def test_scienceqa_by_command(capsys, tmp_path):
    asked = "Which?\nA. x\nB. y"
    labels = [{"id": str(n), "conversations": [{"value": asked}, {"value": "A"}]} for n in range(4)]
    texts = {"0": "The answer is A.", "1": "The answer is C.", "2": "hm", "3": "The answer is B."}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "results.json").write_text(json.dumps({"results": {"0": 0, "1": 0, "2": 1, "3": 1}, "outputs": texts}))
    (tmp_path / "expert.json").write_text(json.dumps({"outputs": dict.fromkeys(texts, "The answer is A.")}))
    (tmp_path / "again.json").write_text(json.dumps({"outputs": {"3": "The answer is A."}}))
    files = "scienceqa", tmp_path / "results.json", tmp_path / "labels.json"
    status, out, _ = command(capsys, *files)
    assert (
        status == 0
        and "read strictly 25.00 25.00 1 of 4" in " ".join(out.split())
        and "file's own indices  50.00" in out
    )
    assert "2 answers without a letter" in out and "problem 1: says C, but has only 2 choices" in out
    assert "problem 1: index 0, a guess that is right" in out and "problem 2: index 1, a guess that is wrong" in out
    status, out, _ = command(
        capsys, *files, "--json", "--guess", 1, "--expert", tmp_path / "expert.json", "--again", tmp_path / "again.json"
    )
    value = json.loads(out)
    assert {n: r["Avg"]["right"] for n, r in value["ensembles"]["rows"].items()} == {
        "LLaVA": 1,
        "expert": 4,
        "complement": 4,
        "judge": 4,
    }
    assert value["guesses"].keys() == {"1", "2"} and value["guess_seed"] == 1
    _, out, _ = command(capsys, *files, "--controls", tmp_path / "expert.json")
    assert any(line.split() == ["expert", "100.00", "100.00", "4", "of", "4"] for line in out.splitlines())
    (tmp_path / "results.json").write_text(json.dumps({"outputs": {"0": "The answer is A."}}))
    status, out, _ = command(capsys, *files)
    assert status == 1 and "Left out, 3:\n  problem 1: no answer" in out
    (tmp_path / "labels.json").write_text("{")
    assert command(capsys, *files)[0] == 2


def test_the_real_scienceqa_answers_by_command(capsys, real):
    status, out, _ = command(
        capsys, "scienceqa", real("scienceqa/test_sqa_llava_13b_v0.json"), real("scienceqa/llava_test_CQM-A.json")
    )
    assert status == 0 and "90.90  3,855 of 4,241" in out and "90.92  3,856 of 4,241" in out
    assert "89.49" in out and "88.00" in out and "90.66" in out and "problem 3247: says D" in out


def test_an_expert_behind_an_api_is_asked_once_and_again_only_where_the_two_differ(capsys, tmp_path, api):
    problems = {p.id: p for split in ("train", "test") for p in quiz(split, 30)}
    write_problems(list(problems.values()), tmp_path / "quiz")
    test = read_problems(tmp_path / "quiz", "test")
    wrong = {n: f"The answer is {LETTERS[(p.answer + 1) % len(p.choices)]}." for n, p in test.items()}
    llava = {n: f"The answer is {p.letter}." if k % 3 else wrong[n] for k, (n, p) in enumerate(test.items())}
    write_jsonl([{"question_id": n, "text": t} for n, t in llava.items()], tmp_path / "answers.jsonl")

    def say(body):
        asked = body["messages"][-1]["content"]
        problem = next(p for p in test.values() if question_text(p) in asked)
        return (
            f"The answer is {problem.letter}."
            if "[Assistant 2]" in asked or problem.image is None
            else wrong[problem.id]
        )

    api.say = say
    files = (
        "scienceqa",
        tmp_path / "answers.jsonl",
        tmp_path / "quiz",
        "--ask",
        "gpt-4o",
        "--base-url",
        api.url,
        "--json",
    )
    assert command(capsys, *files)[0] == 2  # no --out
    more = ("--out", tmp_path / "asked", "--shots", tmp_path / "quiz")
    assert "add --yes" in command(capsys, *files, *more)[2] and not api.asked
    status, out, _ = command(capsys, *files, *more, "--yes")
    value = json.loads(out)["ensembles"]
    unsaved = [n for n, p in test.items() if p.image and llava[n] == wrong[n]]  # both wrong alike: nobody asks again
    assert status == 0 and unsaved and value["rows"]["judge"]["Avg"]["right"] == 30 - len(unsaved)
    second = [b for b in api.asked if "[Assistant 2]" in b["messages"][-1]["content"]]
    assert len(second) == value["counts"]["differ"] and len(api.asked) == 30 + len(second)
    first = [b for b in api.asked if b not in second]
    assert {len(b["messages"]) for b in first} == {6}  # system, two solved examples of the train split, the question
    assert all(
        p.solution not in str(b) for b in first for p in test.values() if p.solution not in str(b["messages"][:5])
    )
    again = command(capsys, *files, *more, "--yes")
    assert again[0] == 0 and json.loads(again[1])["ensembles"] == value and len(api.asked) == 30 + len(second)
    replayed = command(
        capsys,
        *files[:3],
        "--json",
        "--expert",
        tmp_path / "asked" / "expert.jsonl",
        "--again",
        tmp_path / "asked" / "again.jsonl",
    )
    assert json.loads(replayed[1])["ensembles"] == value  # its answers, as files


# pope


def test_pope_by_command(capsys, tmp_path):
    rows = build_pope([caps_boxes(s) for s in scenes("bench", 6)])
    write_jsonl(rows, tmp_path / "questions.jsonl")
    write_jsonl([{"question_id": r["question_id"], "text": "Yes."} for r in rows], tmp_path / "answers.jsonl")
    status, out, _ = command(capsys, "pope", tmp_path / "answers.jsonl", tmp_path / "questions.jsonl")
    assert status == 0 and [line.split()[0] for line in out.splitlines()[1:]] == [
        "random",
        "popular",
        "adversarial",
        "all",
    ]
    assert out.splitlines()[4].split()[1:6] == ["50.00", "50.00", "100.00", "66.67", "100.00"]
    write_jsonl([{"question_id": r["question_id"], "text": r["label"]} for r in rows], tmp_path / "blank.jsonl")
    files = tmp_path / "answers.jsonl", tmp_path / "questions.jsonl"
    status, out, _ = command(capsys, "pope", *files, "--controls", tmp_path / "blank.jsonl")
    assert status == 0 and out.splitlines()[5].split()[:4] == ["blank,", "all", "100.00", "100.00"]
    write_jsonl(
        [
            {"question_id": rows[0]["question_id"], "text": "Red."},
            {"question_id": rows[1]["question_id"], "text": "No"},
        ],
        tmp_path / "answers.jsonl",
    )
    status, out, _ = command(capsys, "pope", tmp_path / "answers.jsonl", tmp_path / "questions.jsonl", "--json")
    assert status == 1 and json.loads(out)["excluded"][0] == "question 0 (random): neither yes nor no: 'Red.'"


# the benchmark's files


def test_the_authors_coco_benchmark_is_read_as_it_is(real):
    names = ("qa90_questions.jsonl", "caps_boxes_coco2014_val_80.jsonl", "qa90_gpt4_answer.jsonl")
    items = load_bench(*(real(f"llava_bench_coco/{name}") for name in names))
    assert len(items) == 90 and len({i.image for i in items}) == 30
    assert {c: sum(i.category == c for i in items) for c in ("conv", "detail", "complex")} == dict.fromkeys(
        ("conv", "detail", "complex"), 30
    )
    for item in items:
        captions, _, boxes = item.context.partition("\n\n")
        assert len(captions.strip().split("\n")) >= 5 and item.reference
        assert all(line.endswith("]") and ": [0." in line for line in boxes.split("\n") if line)
    rules = rubric.read_rules(real("llava_bench_coco/rule.json"))
    assert {rubric.rubric_of(i) for i in items} <= rules.keys() and rubric.RULES.keys() <= rules.keys()


def wild(folder, caption="A mountain and the sea."):
    """LLaVA-Bench (In-the-Wild) in miniature: one context a picture, several questions on it."""
    asked = [
        {"question_id": n, "image": "001.jpg", "text": f"Question {n}?", "category": c}
        for n, c in enumerate(("conv", "detail", "complex"))
    ]
    write_jsonl(asked, folder / "questions.jsonl")
    write_jsonl(
        [{"id": "001", "image": "001.jpg", "caption": caption}, {"id": "002", "image": "002.jpg", "caption": "x"}],
        folder / "context.jsonl",
    )
    write_jsonl(
        [
            {
                "question_id": r["question_id"],
                "prompt": r["text"],
                "text": "It is.",
                "answer_id": "x",
                "model_id": "gpt-4",
            }
            for r in asked
        ],
        folder / "answers_gpt4.jsonl",
    )
    return [folder / f"{n}.jsonl" for n in ("questions", "context", "answers_gpt4")]


def test_the_in_the_wild_benchmark_s_form_is_read_and_has_rubrics_of_its_own(tmp_path):
    items = load_bench(*wild(tmp_path))
    assert [(i.category, i.context, i.reference) for i in items] == [
        (c, "A mountain and the sea.", "It is.") for c in ("conv", "detail", "complex")
    ]
    assert [rubric.rubric_of(i) for i in items] == ["llava_bench_conv", "llava_bench_detail", "llava_bench_complex"]
    assert load_bench(*wild(tmp_path, ["One.", "Two."]))[0].context == "One.\nTwo."


@pytest.mark.parametrize(
    "file, change, message",
    [
        ("context", lambda rows: rows[1:], "context.jsonl: no context for '001.jpg'"),
        ("context", lambda rows: [{"id": "001", "image": "001.jpg"}], "'001.jpg' has none of `context`, `captions`, `caption`"),
        ("context", lambda rows: rows * 2, "the image '001.jpg' stands twice"),
        ("questions", lambda rows: [], "no questions in it"),
        ("questions", lambda rows: [{k: v for k, v in r.items() if k != "category"} for r in rows], "question 0 has no 'category'"),
        ("answers_gpt4", lambda rows: [{**r, "text": ""} for r in rows], "no reference answer to question 0"),
        ("answers_gpt4", lambda rows: rows[:2], "answers_gpt4.jsonl does not hold the questions of .*: 1 missing, such as 2"),
    ],
)  # fmt: skip
def test_files_of_a_benchmark_that_do_not_fit_are_named(tmp_path, file, change, message):
    paths = wild(tmp_path)
    write_jsonl(change(read_jsonl(tmp_path / f"{file}.jsonl")), tmp_path / f"{file}.jsonl")
    with pytest.raises(FileError, match=message):
        load_bench(*paths)


# what the judge is given


def test_the_shipped_rubric_is_the_project_s_own_and_can_be_copied_and_changed(tmp_path):
    shipped = WEIGHTS.parent / "bench" / "rule.json"
    assert rubric.read_rules(shipped) == rubric.RULES and len(rubric.RULES) == 6
    for text, message in (
        ("[]", "expected an object"),
        ('{"conv": {"role": "A"}}', "the rubric 'conv' needs"),
        ("{", "not JSON"),
    ):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(FileError, match=f"r.json: {message}"):
            rubric.read_rules(tmp_path / "r.json")


def test_the_judge_s_message_letter_for_letter(items):
    item = replace(items[0], context="A cat.\n\ncat: [0.1, 0.2, 0.3, 0.4]", text="What is it?")
    system, user = rubric.review_messages(item, ["one", "two"], {"role": "Helper", "prompt": "Score them."})
    assert system == {"role": "system", "content": rubric.SYSTEM} and user["role"] == "user"
    assert user["content"] == (
        "[Context]\nA cat.\n\ncat: [0.1, 0.2, 0.3, 0.4]\n\n[Question]\nWhat is it?\n\n[Helper 1]\none\n\n[End of Helper 1]\n\n"
        "[Helper 2]\ntwo\n\n[End of Helper 2]\n\n[System]\nScore them.\n\n"
    )  # fmt: skip


def test_answers_are_matched_to_questions_by_id_not_by_order(items, tmp_path):
    cases, bad = match_answers(items, answers_of(items)[::-1], tmp_path)
    assert (
        [c.item for c in cases] == items
        and [c.answer_id for c in cases] == [f"a{i.question_id}" for i in items]
        and not bad
    )


def test_answers_that_match_no_question_are_named_counted_and_left_out(items, tmp_path):
    rows = answers_of(items)
    rows[0]["text"], rows[1]["text"] = " \n", None
    rows[2]["prompt"] = "What is the capital of France?"
    rows[3]["prompt"] = f"<image>\n{items[3].text}"  # as some scripts write it: the same question
    cases, bad = match_answers(
        items, [*rows[:5], rows[5], rows[5], *rows[6:-1], {"question_id": 77, "text": "x"}, {"text": "x"}], tmp_path
    )
    assert [str(e) for e in bad] == [
        "question 77: not a question of this benchmark", "row 14: not a question of this benchmark", "question 0: an empty answer",
        "question 1: an empty answer", "question 2: the answer is to another question, 'What is the capital of France?'",
        "question 5: answered 2 times", "question 11: no answer",
    ]  # fmt: skip
    assert [c.item.question_id for c in cases] == [3, 4, 6, 7, 8, 9, 10]
    rows = answers_of(items)
    rows[4]["image"], rows[6]["image"] = "elsewhere.png", items[6].image
    assert [str(e) for e in match_answers(items, rows, tmp_path)[1]] == [
        "question 4: the answer is about another picture, 'elsewhere.png'"
    ]


def test_an_answer_file_of_another_benchmark_is_an_error(items, tmp_path):
    for rows in (
        answers_of([replace(i, question_id=i.question_id + 500) for i in items]),
        answers_of([replace(i, text="Why?") for i in items]),
        answers_of(build_bench("wild", 4)),  # the same ids, and a few of the same questions about other pictures
        [],
    ):
        with pytest.raises(FileError, match="a.jsonl: .*another benchmark"):
            match_answers(items, rows, tmp_path / "a.jsonl")


# judging


def test_the_offline_judge_by_command_writes_rows_of_the_authors_form_with_its_id(capsys, bench, items):
    status, out, err = judge_bench(capsys, bench, "--both-orders")
    rows = read_jsonl(bench / "out" / "reviews.jsonl")
    assert status == 0 and not err and len(rows) == 24 and {r["judge"] for r in rows} == {RULE_ID}
    assert {"id", "question_id", "answer1_id", "answer2_id", "category", "content", "tuple", "judge"} <= rows[0].keys()
    assert (rows[0]["answer1_id"], rows[0]["answer2_id"]) == ("reference", "a0") and (
        rows[12]["answer1_id"],
        rows[12]["swapped"],
    ) == ("a0", True)
    assert rows[12]["tuple"] == rows[0]["tuple"][::-1]  # the rule has no favourite place
    assert "+0.00 points" in out and "all" in out
    assert command(capsys, "reviews", bench / "out" / "reviews.jsonl")[0] == 0
    status, _, err = judge_bench(capsys, bench, "--runs", 3)
    assert status == 2 and "says the same each time" in err


def test_controls_are_judged_like_the_answers_and_shown_beside_them(capsys, bench, items):
    own = [row | {"text": item.reference} for row, item in zip(answers_of(items), items)]
    write_jsonl(own, bench / "answers.jsonl")
    write_jsonl(answers_of(items, "I like music."), bench / "blank.jsonl")
    write_jsonl(own[:-1], bench / "text.jsonl")
    files = [bench / f"{name}.jsonl" for name in ("blank", "text")]
    status, out, _ = judge_bench(capsys, bench, "--controls", *files)
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert status == 1 and "text, question 11: no answer" in out  # one answer is missing in a control
    assert rows["text"] == ["100.0"] * 4 and max(map(float, rows["blank"])) < 30
    status, out, _ = judge_bench(capsys, bench, "--json", "--controls", files[0])
    assert status == 0 and json.loads(out)["controls"]["blank"]["all"]["questions"] == 12
    assert len(read_reviews(bench / "out" / "reviews-of-blank.jsonl").used) == 12
    (bench / "more").mkdir()
    write_jsonl(own, bench / "more" / "blank.jsonl")
    status, _, err = judge_bench(capsys, bench, "--controls", files[0], bench / "more" / "blank.jsonl")
    assert status == 2 and "two files are called blank" in err


def test_a_judge_s_own_quality_by_command(capsys, api, tmp_path):
    status, out, _ = command(capsys, "quality", "--scenes", 12)
    assert status == 0 and "better first" in out and "missed, right but terse" in out
    status, out, _ = command(capsys, "quality", "--scenes", 12, "--json")
    assert (
        json.loads(out)["better first"] > 95
        and {"way", "answers", "share", "misses"} <= json.loads(out)["ways"][0].keys()
    )
    live = ("quality", "--scenes", 2, "--judge", "gpt-4o", "--base-url", api.url, "--yes")
    assert command(capsys, *live)[0] == 2  # --out is missing
    status, out, err = command(capsys, *live, "--json", "--out", tmp_path)
    value = json.loads(out)  # it prefers the first answer, whichever it is
    asked = sum(w["answers"] for w in value["ways"])
    assert status == 0 and len(api.asked) <= asked <= len(api.asked) + 3 and "requests" in err  # a few are alike
    assert 20 < value["better first"] < 80


def test_left_out_answers_are_named_by_the_command_and_set_its_status(capsys, bench, items):
    rows = answers_of(items)
    rows[0]["text"] = ""
    write_jsonl(rows[:-1], bench / "answers.jsonl")
    status, out, _ = judge_bench(capsys, bench)
    assert status == 1 and "Left out, 2:\n  question 0: an empty answer\n  question 11: no answer" in out
    status, out, _ = judge_bench(capsys, bench, "--json")
    assert status == 1 and [e["name"] for e in json.loads(out)["excluded"]] == ["question 0", "question 11"]
    write_jsonl([], bench / "answers.jsonl")
    status, _, err = judge_bench(capsys, bench)
    assert status == 2 and "of another benchmark?" in err
    assert command(capsys, "bench", "--answers", bench / "answers.jsonl", "--out", bench / "o")[0] == 2


def test_an_api_s_judge_is_asked_once_and_a_second_command_costs_nothing(capsys, bench, api):
    more = ("--judge", "gpt-4o", "--base-url", api.url, "--yes", "--runs", 2, "--both-orders")
    status, out, _ = judge_bench(capsys, bench, *more)
    assert status == 0 and len(api.asked) == 48 and "48 requests" in out and "about $" in out
    assert {b["temperature"] for b in api.asked} == {0.2} and {b["max_tokens"] for b in api.asked} == {1024}
    rows = read_jsonl(bench / "out" / "reviews-run-2.jsonl")
    assert len(rows) == 24 and rows[0]["tuple"] == [8, 6] and rows[0]["judge"] == "gpt-4o"
    reviews = read_reviews(bench / "out" / "reviews-run-1.jsonl").used
    assert {(r.reference, r.candidate) for r in reviews if not r.swapped} == {(8, 6)}
    assert {(r.reference, r.candidate) for r in reviews if r.swapped} == {(6, 8)}  # the first answer gets 8
    assert "+2.00 points" in out and "100 % of 12 questions" in out
    before = {p.name: p.read_bytes() for p in (bench / "out").glob("*.jsonl")}
    status, out, _ = judge_bench(capsys, bench, *more)
    assert (
        status == 0
        and len(api.asked) == 48
        and {p.name: p.read_bytes() for p in (bench / "out").glob("*.jsonl")} == before
    )


def test_a_judge_whose_reasoning_takes_its_limit_says_so_and_a_larger_one_asks_again(capsys, bench, api):
    reply, thinks = api.reply, 1500
    api.reply = lambda body: reply(body) if body["max_tokens"] > thinks else completion(body, "", "length")
    more = ("--judge", "gpt-4o", "--base-url", api.url, "--yes")
    status, out, _ = judge_bench(capsys, bench, *more)
    assert (
        status == 1 and "its reasoning took all of its limit of 1,024 tokens; judge with a larger --max-tokens" in out
    )
    asked = len(api.asked)
    assert judge_bench(capsys, bench, *more)[0] == 1 and len(api.asked) == asked, "the same limit was paid for twice"
    status, out, _ = judge_bench(capsys, bench, *more, "--max-tokens", 2000)
    assert status == 0 and len(api.asked) == asked + 12 and "0 left out" in out
    assert judge_bench(capsys, bench, *more, "--max-tokens", 0)[0] == 2


def test_scores_that_are_cut_off_are_not_read(capsys, bench, api):
    api.reply = lambda body: completion(body, "8 1", "length")
    status, out, _ = judge_bench(capsys, bench, "--judge", "gpt-4o", "--base-url", api.url, "--yes")
    assert status == 1 and "its scores were cut off at its limit of 1,024 tokens" in out
    api.reply = lambda body: completion(body, "8 9\nBoth are", "length")
    status, out, _ = judge_bench(capsys, bench, "--judge", "gpt-4", "--base-url", api.url, "--yes")
    assert status == 0 and "112.5" in out


def test_replies_that_cannot_be_read_are_kept_counted_and_left_out(capsys, bench, api):
    said = iter(["8 6 7", "I cannot say.", "0 12", "", "8 6", *["9 3"] * 20])
    api.say = lambda body: next(said)
    status, out, _ = judge_bench(capsys, bench, "--judge", "gpt-4o", "--base-url", api.url, "--yes", "--concurrency", 1)
    rows = read_jsonl(bench / "out" / "reviews.jsonl")
    assert status == 1 and [r["tuple"] for r in rows] == [None, None, None, [8, 6], *[[9, 3]] * 8]  # "" is asked again
    assert rows[0]["content"] == "8 6 7"  # paid for, so kept
    for why in (
        "question 0: 3 scores where two",
        "question 1: no scores",
        "question 2: scores outside",
    ):
        assert why in out, out
    # the journal holds all of them: nothing is asked again
    asked = len(api.asked)
    assert (
        judge_bench(capsys, bench, "--judge", "gpt-4o", "--base-url", api.url, "--yes")[0] == 1
        and len(api.asked) == asked
    )


def test_a_judge_stopped_by_its_budget_resumes(capsys, bench, api):
    more = ("--judge", "gpt-4o", "--base-url", api.url, "--yes", "--concurrency", 1)
    status, out, _ = judge_bench(capsys, bench, *more, "--budget", 0.02)
    first = len(api.asked)
    assert status == 1 and 0 < first < 12 and "Not everything was asked: the budget of $0.02 would be exceeded" in out
    assert len(read_jsonl(bench / "out" / "reviews.jsonl")) == first and f"question {first}: not asked" in out
    status, out, _ = judge_bench(capsys, bench, *more)
    assert status == 0 and len(api.asked) == 12 and len(read_jsonl(bench / "out" / "reviews.jsonl")) == 12


def test_the_cost_is_shown_first_and_nothing_is_sent_without_consent(capsys, bench, api):
    status, out, err = judge_bench(capsys, bench, "--judge", "gpt-4o", "--base-url", api.url)
    assert status == 2 and "--yes" in err and "12 requests" in out and not api.asked
    status, out, _ = judge_bench(capsys, bench, "--judge", "gpt-4o", "--dry-run")  # needs no key and no endpoint
    assert (
        status == 0 and "[Assistant 2]\nIt is a red car." in out and "12 requests" in out and "nothing was sent" in out
    )
    shutil.copy(bench / "answers.jsonl", bench / "blank.jsonl")  # the same answers: a control all the same
    both = ("--controls", bench / "blank.jsonl", "--runs", 2)
    assert "36 requests" in judge_bench(capsys, bench, "--judge", "gpt-4o", "--dry-run", *both)[1]
    status, out, err = judge_bench(capsys, bench, "--judge", "gpt-4o", "--yes")
    assert status == 2 and "OPENAI_API_KEY" in err


def test_a_category_without_a_rubric_is_named_and_not_asked(capsys, bench, api, items):
    (bench / "rule.json").write_text(json.dumps({k: v for k, v in rubric.RULES.items() if k != "detail"}))
    status, out, _ = judge_bench(
        capsys, bench, "--judge", "gpt-4o", "--base-url", api.url, "--yes", "--rule", bench / "rule.json"
    )
    assert status == 1 and len(api.asked) == 8 and "question 1: no rubric for 'detail'; there are conv, complex" in out
    assert all("Describe" not in b["messages"][1]["content"].split("[Question]")[1][:30] for b in api.asked)


def test_the_authors_rubric_can_be_dropped_in(real, bench, api, items):
    rules = rubric.read_rules(real("llava_bench_coco/rule.json"))

    class Nobody:
        model = endpoint = "gpt-4-0314"

    body = ApiJudge(Nobody(), bench / "r", rules).body(match_answers(items, answers_of(items), bench)[0][0])
    assert body["model"] == "gpt-4-0314" and body["messages"][1]["content"].endswith(
        f"[System]\n{rules['conv']['prompt']}\n\n"
    )


def test_a_context_that_the_rule_cannot_read_is_left_out_not_scored(items, tmp_path):
    cases, _ = match_answers([replace(items[0], context=""), items[1]], answers_of(items[:2]), tmp_path)
    (judged,) = OfflineJudge().review(cases)
    assert [str(e) for e in judged.excluded] == ["question 0: context: no captions to read"] and len(
        review_rows(judged)
    ) == 1
    assert [c.swapped for c in both_orders(cases)] == [False, False, True, True]


# odd values in fields


ODD = (None, [], [1], {}, {"a": 1}, True, 1.5, float("nan"), 10**400, "", "\ud800", "x\0")


def changes(rows):
    """The rows with every odd value in every field of the first, one after another: (what, rows)."""
    for field in rows[0]:
        for value in ODD:
            yield f"{field} = {str(value)[:20]!r}", [rows[0] | {field: value}, *rows[1:]]


def never_a_traceback(capsys, what, *arguments):
    """Status 0, 1 or 2; what was left out, or cannot be used, is said. An exception would be a bug."""
    status, out, err = command(capsys, *arguments)
    assert (status == 2 and err.startswith("minillava: ")) or (status in (0, 1) and out and not err), (
        what,
        status,
        err,
    )
    assert status != 1 or "eft out" in out, what
    return status


@pytest.mark.parametrize("file", ["answers", "bench/questions", "bench/context", "bench/reference", "out/reviews"])
def test_an_odd_value_in_a_field_of_a_benchmark_is_named_and_never_a_traceback(capsys, bench, file):
    judge_bench(capsys, bench)
    kept, path, ends = {p: p.read_bytes() for p in bench.rglob("*.jsonl")}, bench / f"{file}.jsonl", set()
    for what, rows in changes(read_jsonl(path)):
        write_jsonl(rows, path)
        verb = ("reviews", path) if file == "out/reviews" else (
            "bench", "--bench", bench / "bench", "--answers", bench / "answers.jsonl", "--controls", bench / "answers.jsonl", "--out", bench / "o",
        )  # fmt: skip
        ends.add(never_a_traceback(capsys, what, *verb))
        path.write_bytes(kept[path])
    assert ends & {1, 2}


def test_an_odd_value_in_a_context_of_boxes_is_named(capsys, tmp_path):
    rows = [caps_boxes(s) for s in scenes("bench", 3)]
    asked = [
        {"question_id": n, "image": r["image"], "text": "What is it?", "category": "conv"} for n, r in enumerate(rows)
    ]
    write_jsonl(asked, tmp_path / "q.jsonl")
    write_jsonl([{"question_id": n, "text": "A thing."} for n in range(3)], tmp_path / "a.jsonl")
    odd = [[7], [{"category": 1}], [{"category": "a", "bbox": [1, "b", 0, 1]}], [{"category": "a", "bbox": [1, 2, 3]}]]
    for what, some in [*changes(rows), *((f"{v}", [rows[0] | {"instances": v}, *rows[1:]]) for v in odd)]:
        write_jsonl(some, tmp_path / "c.jsonl")
        files = ("--questions", tmp_path / "q.jsonl", "--context", tmp_path / "c.jsonl", "--reference", tmp_path / "a.jsonl")  # fmt: skip
        status = never_a_traceback(
            capsys, what, "bench", *files, "--answers", tmp_path / "a.jsonl", "--out", tmp_path / "o"
        )
        assert status == 2 or not what.startswith(("instances = 'True", "captions = '[1]", "[")), what


def test_an_odd_value_in_a_field_of_pope_and_scienceqa_is_named(capsys, tmp_path):
    asked = build_pope([caps_boxes(s) for s in scenes("bench", 2)])
    said = [{"question_id": r["question_id"], "text": "Yes.", "category": r["category"]} for r in asked]
    problems = quiz("test", 4)
    write_problems(problems, tmp_path / "quiz")
    texts = [{"question_id": p.id, "text": "The answer is A."} for p in problems]
    for name, rows in (("asked", asked), ("said", said), ("texts", texts)):
        write_jsonl(rows, tmp_path / f"{name}.jsonl")
        for what, some in changes(rows):
            write_jsonl(some, tmp_path / "odd.jsonl")
            files = {n: tmp_path / f"{'odd' if n == name else n}.jsonl" for n in ("asked", "said")}
            verb = ("scienceqa", tmp_path / "odd.jsonl", tmp_path / "quiz") if name == "texts" else ("pope", files["said"], files["asked"])  # fmt: skip
            never_a_traceback(capsys, what, *verb)
    whole = {n: json.loads((tmp_path / "quiz" / f"{n}.json").read_text()) for n in ("problems", "pid_splits")}
    first = problems[0].id
    odd = [("problems", f"{field} = {str(v)[:20]!r}", whole["problems"] | {first: whole["problems"][first] | {field: v}}) for field in whole["problems"][first] for v in ODD]  # fmt: skip
    odd += [("pid_splits", f"{v!r}"[:20], value) for v in ODD for value in (v, whole["pid_splits"] | {"test": v}, whole["pid_splits"] | {"test": [v]})]  # fmt: skip
    for name, what, value in odd:
        (tmp_path / "quiz" / f"{name}.json").write_text(json.dumps(value))
        never_a_traceback(capsys, what, "scienceqa", tmp_path / "texts.jsonl", tmp_path / "quiz")
        (tmp_path / "quiz" / f"{name}.json").write_text(json.dumps(whole[name]))
    outputs = {p.id: "The answer is A." for p in problems}
    for part in ("outputs", "results"):
        for value in [*ODD, *({first: v} for v in ODD)]:
            results = {"outputs": outputs, "results": dict.fromkeys(outputs, 0)} | {part: value}
            (tmp_path / "r.json").write_text(json.dumps(results))
            never_a_traceback(capsys, f"{part} = {str(value)[:20]}", "scienceqa", tmp_path / "r.json", tmp_path / "quiz")  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"null", b"[]", b"[[]]", b'"x"', b"[" * 100_000, b"1" * 5000], ids=lambda b: repr(b[:6]))  # fmt: skip
def test_a_file_that_holds_something_else_is_named(capsys, bench, content):
    for name in ("f.json", "f.jsonl"):
        path = bench / name
        path.write_bytes(content)
        for verb in (("reviews", path), ("scienceqa", path, path), ("pope", path, path), ("pope", bench / "answers.jsonl", path),
                     ("bench", "--bench", bench / "bench", "--answers", path, "--out", bench / "o"),
                     ("bench", "--bench", bench / "bench", "--answers", bench / "answers.jsonl", "--judge", "gpt-4o", "--dry-run", "--rule", path, "--out", bench / "o")):  # fmt: skip
            assert never_a_traceback(capsys, verb, *verb) == 2, verb


def test_it_starts_without_torch():
    said = subprocess.run(
        [sys.executable, "-c", "import sys; from minillava import cli; cli.parser('judge'); print('torch' in sys.modules, 'openai' in sys.modules)"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout.split() == ["False", "False"], said.stderr


@pytest.mark.parametrize("count", [0, -3])
def test_the_quality_of_a_judge_needs_a_scene(capsys, count):
    assert cli.main(["judge", "quality", f"--scenes={count}"]) == 2
    assert f"--scenes {count}: at least 1 is needed" in capsys.readouterr().err

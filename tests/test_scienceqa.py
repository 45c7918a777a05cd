"""ScienceQA: prompts letter for letter, answers read strictly, Table 7's columns, the authors' released answers."""

import base64
import json
from dataclasses import replace

import pytest

from minillava import cli
from minillava.data.records import normalise
from minillava.data.scienceqa import (
    Problem,
    ScienceError,
    answer_text,
    parquet_pictures,
    question_text,
    read_labels,
    read_parquet,
    read_problems,
    science_record,
    write_problems,
)
from minillava.files import FileError, write_jsonl
from minillava.judging.scienceqa import (
    COLUMNS,
    AnswerError,
    evaluate,
    random_guesses,
    read_answer,
    read_predictions,
    read_results,
    score,
)

PLANT = Problem(
    "12", "Which  of these is a plant?", ("cat", "fern", "cup"), 1, "Ann looks\nout.", "12/image.png", "natural science", "biology",
    "plants", "find plants", "grade3", "Plants grow.\nThey are green.", "A fern is a plant.", split="test",
)  # fmt: skip
BARE = Problem("7", "Which is first?", ("b", "a"), 1, subject="language science", grade="grade9", split="train")

# the prompts, frozen


def test_the_papers_prompt_letter_for_letter():
    asked = "Which of these is a plant?\nContext: Ann looks\nout.\nOptions: (A) cat (B) fern (C) cup"
    answer = "LECTURE: Plants grow.\nThey are green.\nSOLUTION: A fern is a plant.\n###\nANSWER: B."
    assert question_text(PLANT) == asked and answer_text(PLANT, "QCM-LEPA") == answer
    assert question_text(BARE) == "Which is first?\nContext: N/A\nOptions: (A) b (B) a"
    assert answer_text(BARE, "QCM-LEPA") == "###\nANSWER: B."


def test_the_later_prompts_letter_for_letter():
    assert answer_text(PLANT, "QCM-LEA") == "Plants grow.\nThey are green. A fern is a plant. The answer is B."
    assert answer_text(PLANT, "QCM-ALE") == "The answer is B. BECAUSE: Plants grow.\nThey are green. A fern is a plant."
    assert answer_text(PLANT, "QCM-A") == "The answer is B."
    assert answer_text(BARE, "QCM-LEA") == answer_text(BARE, "QCM-ALE") == "The answer is B."
    with pytest.raises(ScienceError, match="no prompt format 'QCM-X'; there are QCM-LEPA"):
        answer_text(PLANT, "QCM-X")


def test_a_record_has_the_picture_after_the_question_if_the_problem_has_one():
    record = science_record(PLANT, "QCM-LEPA")
    assert record["image"] == "12/image.png" and record["id"] == "12"
    assert record["conversations"][0] == {"from": "human", "value": question_text(PLANT) + "\n<image>"}
    assert record["conversations"][1] == {"from": "gpt", "value": answer_text(PLANT, "QCM-LEPA")}
    assert "image" not in science_record(BARE, "QCM-A") and "<image>" not in str(science_record(BARE, "QCM-A"))
    for problem in (PLANT, BARE):
        assert normalise(science_record(problem, "QCM-LEA"))[1] == []


# the files


def test_written_problems_are_read_back_by_split_in_its_order(tmp_path):
    more = [replace(PLANT, id="3", image="3/image.png"), BARE, PLANT]
    write_problems(more, tmp_path)
    assert json.loads((tmp_path / "problems.json").read_text())["12"]["image"] == "image.png"  # as in the original
    assert list(read_problems(tmp_path, "test")) == ["3", "12"] and read_problems(tmp_path, "test")["12"] == PLANT
    assert read_problems(tmp_path / "problems.json") == {p.id: p for p in more}
    assert read_labels(tmp_path) == read_labels(tmp_path / "problems.json") == read_problems(tmp_path, "test")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda rows, splits: rows["12"].pop("choices"), "problem 12: not a record of problems.json"),
        (lambda rows, splits: rows["12"].update(answer=3), "problem 12: answer 3 to 3 choices"),
        (lambda rows, splits: rows.pop("12"), "no problem 12 of the split test"),
        (lambda rows, splits: splits.pop("test"), "no split 'test'; there are train, val"),
    ],
)
def test_a_file_of_problems_that_cannot_be_used_is_named(tmp_path, change, message):
    write_problems([PLANT, BARE], tmp_path)
    rows, splits = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("problems", "pid_splits"))
    change(rows, splits)
    (tmp_path / "problems.json").write_text(json.dumps(rows))
    (tmp_path / "pid_splits.json").write_text(json.dumps(splits))
    with pytest.raises(ScienceError, match=message):
        read_problems(tmp_path, "test")


def test_files_without_valid_problems_are_named(tmp_path):
    for text, message in (("{", "not JSON"), ("[]", "no problems"), ('[{"id": "4"}]', "4"), ("[3]", "number 0")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises((ScienceError, FileError), match=f"a.json: .*{message}"):
            read_labels(tmp_path / "a.json")
    twice = [{"id": "4", "conversations": [{"value": "Q?\nA. x\nB. y"}, {"value": "B"}]}] * 2
    (tmp_path / "e.json").write_text(json.dumps(twice))
    with pytest.raises(ScienceError, match="problem 4 appears twice"):
        read_labels(tmp_path / "e.json")
    for answer in ("C", "", "AB"):  # the last two are parts of the text "AB"
        turns = [twice[0]["conversations"][0], {"value": answer}]
        (tmp_path / "g.json").write_text(json.dumps([{"id": "4", "conversations": turns}]))
        with pytest.raises(ScienceError, match=f"problem 4: the right answer '{answer}' is not one of its 2 choices"):
            read_labels(tmp_path / "g.json")


def test_the_hubs_parquet_is_read_with_its_pictures(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
    )
    rows = []
    for problem in (PLANT, BARE):
        fields = "question answer hint task grade subject topic category skill lecture solution".split()
        image = {"bytes": png, "path": "image.png"} if problem.image else None
        rows.append({k: getattr(problem, k) for k in fields} | {"choices": list(problem.choices), "image": image})
    path = tmp_path / "test-00000-of-00001-f0e719df791966ff.parquet"
    pq.write_table(arrow.Table.from_pylist(rows), path)
    got = read_parquet(path)
    assert got["test-0"] == replace(PLANT, id="test-0", image="test-0/image.png")
    assert got["test-1"] == replace(BARE, id="test-1", split="test") and list(got) == ["test-0", "test-1"]
    assert list(parquet_pictures(path)) == [("test-0/image.png", png)]
    assert read_labels(path) == got
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(ScienceError, match="bad.parquet: not a parquet file"):
        read_parquet(tmp_path / "bad.parquet")


LABELS = [
    {"id": "4", "conversations": [{"from": "human", "value": "Which word?\nA line\nA. x\nB. y"}, {"from": "gpt", "value": "B"}]},
    {"id": "5", "image": "5/image.png", "conversations": [
        {"from": "human", "value": "<image>\nContext: First.\nA. Second.\nWhich?\nA. one\nB. two\nlines\nC. three"}, {"from": "gpt", "value": "A"}]},
    {"id": "6", "image": "6/image.png", "conversations": [{"from": "human", "value": "<image>\nWhat?\nA. no\nB. yes"}, {"from": "gpt", "value": "A"}]},
]  # fmt: skip


def test_the_authors_labels_are_read_with_context_and_choices(tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    four, five, six = read_labels(tmp_path / "labels.json").values()
    assert (four.question, four.choices, four.answer) == ("Which word?\nA line", ("x", "y"), 1)
    assert (four.hint, four.image) == ("", None)
    assert (five.question, five.hint, five.image) == ("Which?", "First.\nA. Second.", "5/image.png")
    assert five.choices == ("one", "two\nlines", "three") and five.answer == 0 and six.choices == ("no", "yes")
    inside = {c: [p.id for p in (four, five, six) if COLUMNS[c](p)] for c in ("TXT", "IMG", "NO", "NAT", "G1-6")}
    assert inside == {"TXT": ["5"], "IMG": ["5", "6"], "NO": ["4"], "NAT": [], "G1-6": []}


# answers


@pytest.mark.parametrize(
    "text, index",
    [
        ("LECTURE: x\n The answer is B.", 1), ("The answer is A. BECAUSE: it is.", 0), ("C", 2), ("B. a fern", 1), (" B \n", 1), ("B.", None),
        ("The answer is B. No: The answer is C.", None), ("The answer is B. Yes, The answer is B.", None), ("The answer is D.", None),
        ("The answer is b.", None), ("the answer is B", None), ("The answer is Bob.", None), ("fern", None), ("", None), ("A fern", None),
    ],
)  # fmt: skip
def test_an_answer_is_read_strictly(text, index):
    if index is None:
        with pytest.raises(AnswerError):
            read_answer(text, 3)
    else:
        assert read_answer(text, 3) == index


def test_why_an_answer_cannot_be_read():
    for text, why in (
        ("The answer is D.", "says D, but has only 3 choices, A to C"),
        ("hm", "no answer in 'hm'"),
        ("The answer is A. The answer is B.", r"2 answers \(A, B\)"),
    ):
        with pytest.raises(AnswerError, match=why):
            read_answer(text, 3)


def test_the_columns_of_table_7_count_each_question_where_it_belongs():
    a, b, c = PLANT, BARE, replace(PLANT, id="8", hint="", subject="social science", grade="grade12")
    got = score({p.id: p for p in (a, b, c)}, {"12": 1, "7": 0})
    right = {name: (v["right"], v["questions"]) for name, v in got.items()}
    subjects, contexts = {"NAT": (1, 1), "SOC": (0, 1), "LAN": (0, 1)}, {"TXT": (1, 1), "IMG": (1, 2), "NO": (0, 1)}
    assert right == subjects | contexts | {"G1-6": (1, 1), "G7-12": (0, 2), "Avg": (1, 3)}
    assert got["Avg"]["accuracy"] == 33.33 and "NAT" not in score({"7": b}, {})


def test_an_unreadable_answer_is_wrong_and_reported_and_a_guess_is_reproducible(tmp_path):
    problems = {str(n): replace(PLANT, id=str(n)) for n in range(40)}
    texts = {name: "The answer is B." if int(name) % 2 else "I cannot tell." for name in problems}
    found, failed = read_predictions(problems, texts)
    assert len(found) == len(failed) == 20 and score(problems, found)["Avg"]["accuracy"] == 50
    guesses = random_guesses(problems, failed, seed=3)
    assert guesses == random_guesses(problems, failed, seed=3) != random_guesses(problems, failed, seed=4)
    assert guesses.keys() == failed.keys() and set(guesses.values()) == {0, 1, 2}
    (tmp_path / "r.json").write_text(json.dumps({"outputs": texts}))
    out = evaluate(problems, read_results(tmp_path / "r.json"), seed=3)
    assert out["strict"]["Avg"]["right"] == 20 and len(out["failures"]) == 20
    assert out["guessed"]["Avg"]["right"] == 20 + sum(g == 1 for g in guesses.values())


def test_answers_that_do_not_join_are_named_and_left_out(tmp_path):
    problems = {"12": PLANT, "7": BARE}
    rows = [{"question_id": name, "text": text} for name, text in (("12", "B"), ("12", "A"), ("99", "A"), ("98", None))]
    rows.insert(3, {"text": "A"})
    write_jsonl(rows, tmp_path / "a.jsonl")
    out = evaluate(problems, read_results(tmp_path / "a.jsonl"))
    assert out["strict"]["Avg"] == {"accuracy": 100.0, "right": 1, "questions": 1}
    assert out["excluded"] == [
        "problem 12: occurs twice; the first was used",
        "row 4: no question_id",
        "problem 98: no answer text",
        "problem 7: no answer",
        "problem 99: an answer to no question here",
    ]
    write_jsonl(rows[2:3], tmp_path / "b.jsonl")
    with pytest.raises(ScienceError, match="questions"):
        evaluate(problems, read_results(tmp_path / "b.jsonl"))
    (tmp_path / "c.json").write_text('{"results": {}}')
    with pytest.raises(ScienceError, match="c.json: expected results with `outputs`"):
        read_results(tmp_path / "c.json")


def test_answers_to_other_problems_with_the_same_ids_are_left_out(tmp_path, capsys):
    problems = {str(n): replace(PLANT, id=str(n)) for n in range(4)}
    own = f"{question_text(PLANT)}\n<image>\nAnswer with the option's letter from the given choices directly."
    rows = [{"question_id": name, "text": "B", "prompt": own} for name in problems]
    rows[0]["prompt"] = question_text(replace(PLANT, choices=("cat", "oak", "cup")))
    write_jsonl(rows, tmp_path / "a.jsonl")
    out = evaluate(problems, read_results(tmp_path / "a.jsonl"))
    assert out["strict"]["Avg"] == {"accuracy": 100.0, "right": 3, "questions": 3} and len(out["excluded"]) == 1
    assert out["excluded"][0].startswith("problem 0: the answer is to another question, 'Which of these is a plant?")
    write_problems(list(problems.values()), tmp_path / "p")
    command = ["judge", "scienceqa", *map(str, (tmp_path / "a.jsonl", tmp_path / "p")), "--expert"]
    assert cli.main([*command, str(tmp_path / "a.jsonl")]) == 1  # of the problems that were answered
    write_jsonl([row | {"prompt": "Why?"} for row in rows], tmp_path / "b.jsonl")
    assert cli.main([*command, str(tmp_path / "b.jsonl")]) == 2
    assert "b.jsonl: problem 1: the answer is to another question, 'Why?' (3 such in all)" in capsys.readouterr().err
    with pytest.raises(ScienceError, match="4 of the 4 answers are not to the problem with their id"):
        evaluate(problems, read_results(tmp_path / "b.jsonl"))


def test_the_files_own_indices_are_scored_beside_the_strict_reading(tmp_path):
    value = {"results": {"12": 1, "7": 0}, "outputs": {"12": "The answer is D.", "7": "The answer is A."}}
    (tmp_path / "r.json").write_text(json.dumps(value))
    out = evaluate({"12": PLANT, "7": BARE}, read_results(tmp_path / "r.json"))
    assert out["stored"]["Avg"]["right"] == 1 and out["strict"]["Avg"]["right"] == 0
    assert out["differ"] == {
        "12": {"stored": 1, "read": None, "right": 1, "why": "says D, but has only 3 choices, A to C"}
    }


def test_the_released_answers_of_llava_13b_give_the_papers_scores(real):
    problems = read_labels(real("scienceqa/llava_test_CQM-A.json"))
    out = evaluate(problems, read_results(real("scienceqa/test_sqa_llava_13b_v0.json")))
    accuracy = {name: v["accuracy"] for name, v in out["stored"].items()}
    assert accuracy == {"TXT": 89.49, "IMG": 88.00, "NO": 90.66, "Avg": 90.92}
    assert out["stored"]["Avg"]["right"] == 3856
    assert out["strict"]["Avg"] == {"accuracy": 90.9, "right": 3855, "questions": 4241}
    assert list(out["failures"]) == list(out["differ"]) == ["3247"] and not out["excluded"]
    assert out["failures"]["3247"] == "says D, but has only 2 choices, A to B"

"""POPE: balanced and true questions, negatives as hard as their names say, measures by definition, files unchanged."""

import json
from collections import Counter

import pytest

from minillava.files import FileError, write_jsonl
from minillava.judging.pope import NEGATIVES, build_pope, evaluate, measures, read_questions, read_yes_no
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes


@pytest.fixture(scope="module")
def records():
    return [caps_boxes(s) for s in scenes("bench", 80)]


@pytest.fixture(scope="module")
def rows(records):
    return build_pope(records)


def test_half_of_the_questions_are_about_what_is_there_and_all_labels_are_true(records, rows):
    present = {r["image"]: {i["category"] for i in r["instances"]} for r in records}
    for row in rows:
        kind = row["text"].removesuffix("?").split()[-1]
        assert (kind in present[row["image"]]) == (row["label"] == "yes"), row
    labels = Counter((r["category"], r["label"]) for r in rows)
    assert len(set(labels.values())) == 1 and len(labels) == 6 and {r["category"] for r in rows} == set(NEGATIVES)
    assert [r["question_id"] for r in rows] == list(range(len(rows))) and rows == build_pope(records)
    asked = {
        c: [(r["image"], r["text"]) for r in rows if r["category"] == c and r["label"] == "yes"] for c in NEGATIVES
    }
    assert asked["random"] == asked["popular"] == asked["adversarial"]


def test_popular_negatives_are_frequent_and_adversarial_ones_occur_together_with_what_is_there(records, rows):
    kinds = [{i["category"] for i in r["instances"]} for r in records]
    often = Counter(k for of in kinds for k in of)
    of = {r["image"]: {i["category"] for i in r["instances"]} for r in records}

    def mean(category, value):
        said = [(of[r["image"]], r["text"].removesuffix("?").split()[-1]) for r in rows if r["category"] == category and r["label"] == "no"]  # fmt: skip
        return sum(value(there, kind) for there, kind in said) / len(said)

    together = lambda there, kind: sum(kind in k and bool(k & there) for k in kinds)  # noqa: E731
    frequent = {c: mean(c, lambda _, kind: often[kind]) for c in NEGATIVES}
    beside = {c: mean(c, together) for c in NEGATIVES}
    assert frequent["popular"] > 1.3 * frequent["random"] and frequent["popular"] >= frequent["adversarial"]
    assert beside["adversarial"] > beside["popular"] > beside["random"]


def test_a_model_that_always_says_yes_is_found_out_by_the_yes_rate(rows):
    out = evaluate(rows, [{"question_id": r["question_id"], "text": "Yes, there is."} for r in rows])
    assert out["scores"]["all"] | {"questions": 0} == {"accuracy": 50.0, "precision": 50.0, "recall": 100.0, "f1": 66.67, "yes": 100.0, "questions": 0}  # fmt: skip
    out = evaluate(rows, [{"question_id": r["question_id"], "text": r["label"].capitalize()} for r in rows])
    assert (
        all(s["accuracy"] == s["f1"] == 100 and s["yes"] == 50 for s in out["scores"].values()) and not out["excluded"]
    )


def test_the_measures_are_those_of_their_definitions():
    pairs = [("yes", "yes")] * 3 + [("yes", "no")] * 1 + [("no", "yes")] * 2 + [("no", "no")] * 4
    assert measures(pairs) == {
        "accuracy": 70.0,
        "precision": 60.0,
        "recall": 75.0,
        "f1": 66.67,
        "yes": 50.0,
        "questions": 10,
    }
    none = measures([("yes", "no"), ("no", "no")])
    assert none["precision"] == none["recall"] == none["f1"] == none["yes"] == 0 and none["accuracy"] == 50
    with pytest.raises(FileError, match="no answers"):
        measures([])


@pytest.mark.parametrize(
    "text, read",
    [
        ("Yes.", "yes"), ("yes, there is a car.", "yes"), ("No", "no"), ("No, there is no car.", "no"), ("There is no car.", "no"),
        ("There is a car in the picture. It is not red.", "yes"), ("There isn't a car.", "no"), ("The car is not there.", "no"),
        ("Red.", None), ("", None), ("A car.", None), ("It is nothing.", "no"),
    ],
)  # fmt: skip
def test_yes_and_no_are_read_from_the_first_sentence(text, read):
    assert read_yes_no(text) == read


def test_answers_that_match_no_question_are_named_counted_and_left_out(rows):
    some = rows[:6]
    answers = [{"question_id": r["question_id"], "text": "No."} for r in some[:2]]
    answers += [
        {"question_id": some[2]["question_id"], "text": "Red."},
        {"question_id": some[3]["question_id"], "text": " "},
    ]
    answers += [{"question_id": some[4]["question_id"], "text": "Yes"}] * 2 + [{"question_id": 999, "text": "Yes"}]
    out = evaluate(some, answers)
    assert out["scores"]["all"]["questions"] == 2
    assert out["excluded"] == [
        "question 2 (random): neither yes nor no: 'Red.'", "question 3 (random): an empty answer", "question 4 (random): answered 2 times",
        "question 5 (random): no answer", "question 999: not a question of this set",
    ]  # fmt: skip
    with pytest.raises(FileError, match="a file of another set"):
        evaluate(some, [{"question_id": 999, "text": "Yes"}])


def test_pope_s_own_files_are_read_as_they_are(tmp_path):
    """Label files named after their negatives with ids from 1; questions in one file of their own, without labels."""
    text = "Is there a {} in the image?"
    for category, kind, label in (("random", "cat", "no"), ("popular", "dog", "no")):
        write_jsonl([{"question_id": 1, "image": "a.jpg", "text": text.format("car"), "label": "yes"},
                     {"question_id": 2, "image": "a.jpg", "text": text.format(kind), "label": label}],
                    tmp_path / f"coco_pope_{category}.json")  # fmt: skip
    labels = sorted(tmp_path.glob("coco_pope_*.json"))
    assert Counter((r["category"], r["label"]) for r in read_questions(labels)) == {
        ("random", "yes"): 1, ("random", "no"): 1, ("popular", "yes"): 1, ("popular", "no"): 1}  # fmt: skip
    asked = [{"question_id": n, "image": "a.jpg", "text": text.format(k) + "\nAnswer with one word.", "category": "popular"} for n, k in enumerate(("car", "dog"))]  # fmt: skip
    write_jsonl(asked, tmp_path / "questions.jsonl")
    got = read_questions([tmp_path / "questions.jsonl", *labels])
    assert [(r["question_id"], r["category"], r["label"]) for r in got] == [(0, "popular", "yes"), (1, "popular", "no")]
    with pytest.raises(FileError, match="questions.jsonl: question 0 has no label"):
        read_questions([tmp_path / "questions.jsonl"])


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"question_id": 1, "text": "Is there a car?", "label": "maybe"}], "row 1: a question needs"),
        ([{"question_id": 1, "label": "yes"}], "row 1: a question needs"),
        ([{"question_id": 1, "text": "Is it?", "label": "yes"}] * 2, "the question_id 1 stands twice"),
    ],
)
def test_questions_that_cannot_be_used_are_named(tmp_path, rows, message):
    (tmp_path / "q_random.json").write_text(json.dumps(rows))
    with pytest.raises(FileError, match=message):
        read_questions([tmp_path / "q_random.json"])


def test_an_odd_number_of_questions_and_empty_pictures_are_refused(records):
    with pytest.raises(FileError, match="per_picture 3"):
        build_pope(records, per_picture=3)
    with pytest.raises(FileError, match="no picture shows anything"):
        build_pope([{"image": "a.png", "instances": []}])

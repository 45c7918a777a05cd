"""POPE: balanced and true questions, negatives as hard as their names say, measures by definition, files unchanged."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


SAYS = {
    "no": [
        "No", "No.", "no", "NO!", "**No**, there is only a cat on the bed.", "No; there is only a sofa.",
        "No - only a cat.", "No there is not", "I don't think there is a dog in the picture.",
        "There doesn't appear to be a dog, but there is a cat.", "There is neither a dog nor a fox.",
        "<think>Is there a dog? I see that there is a sofa</think>No", "Nope", "Nope, only a cat.", "Nah.",
        "There is no dog.", "There are no dogs in the image.", "There isn't a dog.", "There isn’t any dog.",
        "There are zero dogs.", "There are 0 dogs.", "No dog is visible.", "A dog is not visible.",
        "The dog is not there.", "I cannot see a dog.", "I can't see any dog.", "I can not see one.",
        "I do not see a dog in this image.", "None.", "None are visible.", "Nothing like that.", "It is nothing.",
        "Not at all.", "Absolutely not.", "Of course not.", "Not that I can see.", "I see no dog.",
        "In the picture, there is no dog.", "The answer is no.", "Answer: No", "A: no", "Well, no.",
        "Oh no, there is none.", "Hmm, no.", "I would say no.", "The image does not show a dog.",
        "The image shows no dog.", "I doubt there is a dog.", "The dog is missing.", "The picture lacks a dog.",
        "I am unable to see a dog.", "There seems to be no dog.", "There appears to be no dog here.",
        "I don't believe that there is a dog.", "It does not contain a dog.", "Is there a dog? No, there is not.",
        "False.", "Incorrect.", "_No_", "# No", "\"No\"", "[no]", "There is never a dog here.",
        "No, I don't see a dog. Yes is what I would say for a cat.", "No. There is a cat.",
        "The picture is of a kitchen.\nNo, there is no dog.", "I can see nothing but a sofa.", "There was no dog.",
        "It's not a dog, it's a cat.", "Final answer: no", "No!!", "no, sir", "There is not a single dog.",
        "There's no dog.", "There's not one.", "no dog", "The absence of a dog is clear.",
    ],
    "yes": [
        "Yes", "Yes.", "yes!", "YES", "**Yes**", "Yes, there is a dog.", "Yes; a brown one.", "Yeah", "Yep, a dog.",
        "Yes, there's no doubt.", "Yes, there is no doubt about it.", "Not only is there a dog, but yes, also a cat.",
        "Not only that, but yes.", "No doubt, there is a dog.", "Without a doubt, there is a dog.",
        "There is no doubt that there is a dog.", "There is a dog that is not brown.", "There is a dog with no collar.",
        "There is a dog with no collar.", "There's a dog.", "There are two dogs.", "There is one.", "I see a dog.",
        "I can see a dog on the left.", "There appears to be a dog.", "There seems to be a dog.", "A dog can be seen.",
        "A dog is visible.", "The dog is clearly visible.", "A dog is present.", "In the picture, there is a dog.",
        "The answer is yes.", "Answer: Yes", "Well, yes.", "Oh yes!", "I would say yes.", "I think there is a dog.",
        "I think that there is a dog.", "Certainly.", "Definitely!", "Of course.", "Absolutely.", "Correct.", "True",
        "Is there a dog? Yes.", "Yes, there is a dog. No other animals are there.", "Yes, and it is not brown.",
        "Yes, there is a dog, not a cat.", "<think>No dog? No.</think>Yes.",
        "The picture shows a garden.\nYes, there is a dog.", "It is.", "Indeed, there is a dog.",
        "There is a dog without a leash.", "Yes, I can't deny it.", "Yes, you can't miss it.",
        "There are dogs in the image.", "Final answer: yes", "There is also a dog.", "Sure.", "Hmm, yes.",
    ],
    None: [
        "", "Red.", "A car.", "dog", "Maybe.", "Perhaps there is a dog.", "There might be a dog.",
        "There could be a dog.", "I'm not sure.", "I am not sure if there is a dog.", "I don't know.", "I can't tell.",
        "I cannot say whether there is a dog.", "It is not clear.", "It's unclear.", "It is hard to say.",
        "Yes and no.", "Yes or no?", "Yes/No", "No. Yes.", "Yes. No.", "Yes, there is no dog.",
        "Yes, there are no dogs in the image.", "There is only a cat.", "Is there a dog?",
        "I can't say there isn't a dog.", "The image shows a kitchen.", "<think>There is no dog", "...", "?", "42",
        "No. Actually, yes, there is.", "Sí", "There may be a dog.",
    ],
}  # fmt: skip


@pytest.mark.parametrize("said, text", [(said, text) for said, texts in SAYS.items() for text in texts])
def test_yes_and_no_are_read_in_every_way_of_saying_them_and_nothing_is_guessed(said, text):
    assert read_yes_no(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "There is a cat in the image, but there is no dog.", "There are two cats. No dogs are visible.",
        "There is a cat on the couch, and no dog.", "I see a cat, but I do not see a dog.",
        "There is a cat, not a dog, on the sofa.", "A cat is present, but a dog is not.",
        "There are no dogs. There is a cat.", "There is no dog, but there is a cat.",
    ],
)  # fmt: skip
def test_where_one_thing_is_there_and_another_is_not_the_clause_that_names_it_counts(text):
    assert read_yes_no(text, "dog") == "no" and read_yes_no(text, "cat") == "yes" and read_yes_no(text) != "yes"
    question = {"question_id": 1, "label": "no", "category": "random", "text": "Is there a dog in the image?"}
    assert evaluate([question], [{"question_id": 1, "text": text}])["scores"]["all"]["accuracy"] == 100


@given(
    st.lists(
        st.sampled_from(
            "yes no not n't there is isn't a dog cat neither nor , . ; ** <think> </think> but don't I see".split()
        ),
        max_size=12,
    ),
    st.text(max_size=30),
)
def test_any_text_is_yes_or_no_or_unreadable(words, more):
    assert read_yes_no(" ".join(words) + more) in ("yes", "no", None)


def test_the_authors_rule_is_kept_beside_ours():
    questions = [{"question_id": n, "text": "Is there a dog?", "label": "no", "category": "random"} for n in range(4)]
    texts = ["**No**, only a cat.", "There isn't a dog.", "Red.", "No."]
    out = evaluate(questions, [{"question_id": n, "text": text} for n, text in enumerate(texts)])
    assert out["scores"]["all"]["accuracy"] == 100 and out["scores"]["all"]["questions"] == 3
    assert out["authors"]["accuracy"] == 25 and out["authors"]["questions"] == 4


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


def test_answers_to_other_questions_or_pictures_with_the_same_ids_are_left_out(rows):
    """8 of 22 prompts were other questions, and all 22 were scored."""
    some = rows[:22]
    answers = [
        {"question_id": r["question_id"], "text": r["label"], "prompt": f"<image>\n{r['text']}\nAnswer with one word."}
        for r in some
    ]
    assert evaluate(some, answers)["scores"]["all"] | {"yes": 0} == {
        "accuracy": 100, "precision": 100, "recall": 100, "f1": 100, "yes": 0, "questions": 22
    }  # fmt: skip
    for row in answers[:7]:
        row |= {"prompt": "Is there a zebra?", "text": "No."}
    answers[7]["image"] = "elsewhere.png"
    out = evaluate(some, answers)
    assert out["scores"]["all"]["questions"] == out["authors"]["questions"] == 14 and len(out["excluded"]) == 8
    assert "question 0 (random): the answer is to another question, 'Is there a zebra?'" in out["excluded"]
    assert "question 7 (random): the answer is about another picture, 'elsewhere.png'" in out["excluded"]
    for row in answers[:15]:
        row["prompt"] = "Is there a zebra?"
    with pytest.raises(FileError, match="15 of the 22 answers are not to the question with their id .*another set"):
        evaluate(some, answers)

"""Only what a review calls a score is read as one; reviews that cannot be read are counted, never averaged."""

import json
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillava.files import FileError, write_jsonl
from minillava.judging.reviews import (
    Review,
    ScoreError,
    agreement,
    position_bias,
    read_reviews,
    read_scores,
    relative_scores,
    scores_by_question,
    spread_over_runs,
)
from minillava.judging.scores import relative_score

FILES = ("review_gpt35_vicuna-13b.jsonl", "review_alpaca-13b_vicuna-13b.jsonl", "llava-v1.5-13b-eval1.jsonl")

# reading the scores


@pytest.mark.parametrize(
    "text",
    [
        "8 9", "8 9 \nBoth are good.", "8, 9", "8,9", "(8, 9)", "[8, 9]", "8/9", "8\t9\nwhy", "\n\n8 9\n", "**8 9**", "8 and 9", "8 - 9",
        "8/10 9/10", "8 out of 10, 9 out of 10", "8.0 9.0", "8 9. Both are good.", "8 9 Both are good, though 3 of 4 facts differ.",
        "Scores: 8 9", "Overall scores: 8, 9", '{"scores": [8, 9]}', "Assistant 1: 8\nAssistant 2: 9\nBoth are good.",
        "Assistant 1: 8, Assistant 2: 9", "**Assistant 1:** 8/10\n**Assistant 2:** 9/10", "1. Assistant 1: 8\n2. Assistant 2: 9",
        "It has 3 cars.\n\nScores:\nAssistant 1: 8\nAssistant 2: 9", "First I solve it: 3 + 4 = 7.\n\nScores:\n8 9",
        "x = 4\n\nI would give these scores:\n\nAssistant 1: 8 (one slip, 4 of 5)\nAssistant 2: 9 (no slip)\n\nAssistant 2 is better.",
        "The length is 17.9.\nIn conclusion, the scores are (8, 9) for Assistant 1 and Assistant 2, respectively.",
        "I rate Assistant 1 an 8 and Assistant 2 a 9.", "Assistant 2 gets a score of 9, while Assistant 1 gets a score of 8.",
        "Accuracy scores: 7 7\nDetail scores: 5 6\nOverall scores: 8 9",
    ],
)  # fmt: skip
def test_every_way_of_stating_scores_is_read(text):
    assert read_scores(text) == (8, 9)


CONSIDERS = "Let me compare. Answer 1 is short. Perhaps scores of 4 and 7. Hmm, that is too harsh on the first one."


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{CONSIDERS}\n</think>\n\n8 9\nBoth are good.", f"{CONSIDERS}</think>\n8 9\nBoth.", f"<thinking>{CONSIDERS}</thinking>8 9",
        f"<|channel|>analysis<|message|>{CONSIDERS}<|end|><|start|>assistant<|channel|>final<|message|>8 9\nBoth are good.",
        f"{CONSIDERS} The scores are 8 and 9.", "<think>The scores are 4 and 7.</think>\nScores: 8 9",
        "Maybe the scores are 4 and 7. The scores are 8 and 9.",
    ],
)  # fmt: skip
def test_the_verdict_counts_and_not_what_the_judge_considered(text):
    assert read_scores(text) == (8, 9)


@pytest.mark.parametrize(
    "text, why",
    [
        (f"<think>{CONSIDERS}", "nothing but the judge's thoughts"),
        (f"<think>{CONSIDERS}\n8 9\n", "nothing but the judge's thoughts"),
        (f"{CONSIDERS}\n\n8 9\nBoth.", "no scores"),
        ("I think the scores are 4 and 7.\n8 9\nBoth are good.", "several pairs of scores: 4 7 and 8 9"),
        (CONSIDERS, "no scores"),
    ],
)
def test_where_the_verdict_is_not_clear_nothing_is_guessed(text, why):
    with pytest.raises(ScoreError, match=why):
        read_scores(text)


@pytest.mark.parametrize("value", ["no", "false", "", 0.5, [], ["a"], {}, 7])
def test_swapped_is_true_or_false_and_nothing_else_counts_as_either(tmp_path, value):
    write_jsonl([row(1, "8 4", swapped=True), row(2, "8 4", swapped=False), row(3, "8 4", swapped=None), row(4, "8 4", swapped=value)], tmp_path / "r.jsonl")  # fmt: skip
    reviews = read_reviews(tmp_path / "r.jsonl")
    assert [(r.reference, r.candidate) for r in reviews.used] == [(4, 8), (8, 4), (8, 4)]
    assert "question 4: `swapped` must be true or false" in str(reviews.excluded[0])


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=6)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from("question_id content text tuple score category swapped judge reviewer_id".split()), JSON
    )
)
def test_any_value_in_any_field_of_a_review_is_used_or_excluded_in_words(tmp_path_factory, fields):
    path = tmp_path_factory.mktemp("reviews") / "r.jsonl"
    write_jsonl([row("good", "8 9"), fields], path)
    reviews = read_reviews(path)
    assert len(reviews.used) + len(reviews.excluded) == 2 and all(e.why for e in reviews.excluded)
    assert relative_scores(reviews.used, draws=2)["all"]["questions"] >= 1


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "an empty review"),
        (" \n\t\n", "an empty review"),
        ("Both answers are good.", "no scores"),
        ("There are 2 cars and 3 dogs.", "no scores"),
        ("2 cars and 3 dogs are there.", "no scores"),
        ("Assistant 1:\nx = 6\nAssistant 2:\nx = 7", "no scores"),
        ("I solve it first.\n\nAssistant 1: 6\nAssistant 2: 7\n\nBoth give the answer without steps.", "no scores"),
        ("The ends are (2, 2) and (8, 9).\n(8, 9)", "no scores"),
        ("In 2014 5 people took 3 photos.", "no scores"),
        ("Assistant 1 found 4 of 5 errors, Assistant 2 found 5.", "no scores"),
        ("Assistant 1: 3 cars\nAssistant 2: 4 cars", "no scores"),
        ("I like both.\n8 9", "no scores"),
        ("8", "1 score where two"),
        ("8/10", "1 score where two"),
        ("8 9 7\nwhy", "3 scores where two"),
        ("Scores: 8, 9, 7", "3 scores where two"),
        ("The scores are 8 9 7.", "3 scores where two"),
        ("0 5", "outside 1 to 10: 0 5"),
        ("5 11", "outside 1 to 10"),
        ("-1 -1", "outside 1 to 10"),
        ("80 90", "outside 1 to 10"),
        ("Accuracy scores: 7 7\nDetail scores: 5 6", "several pairs of scores: 7 7 and 5 6"),
    ],
)
def test_a_number_that_is_not_a_score_is_never_taken_for_one(text, why):
    with pytest.raises(ScoreError, match=why):
        read_scores(text)


@given(st.floats(1, 10).map(lambda v: round(v, 1)), st.floats(1, 10).map(lambda v: round(v, 1)), st.text("ab 12,.\n"))
def test_the_first_line_counts_whatever_follows(one, two, rest):
    assert read_scores(f"{one:g} {two:g}\n{rest}") == (one, two)


@given(st.text("Assistant 123,.:/()\n scored", max_size=60))
def test_any_text_gives_two_scores_in_range_or_a_reason(text):
    try:
        got = read_scores(text)
    except ScoreError as error:
        assert str(error)
    else:
        assert len(got) == 2 and all(1 <= v <= 10 for v in got)


@pytest.mark.parametrize("name", FILES)
def test_every_score_of_the_real_reviews_is_read_and_equals_the_stored_one(real, name):
    rows = [json.loads(line) for line in real(f"reviews/{name}").read_text().splitlines()]
    reviews = read_reviews(real(f"reviews/{name}"))
    assert len(reviews.used) == len(rows) == (60 if "llava" in name else 80)
    assert not reviews.excluded and not reviews.noticed
    for row, review in zip(rows, reviews.used, strict=True):
        assert [review.reference, review.candidate] == row.get("tuple", row.get("score"))


def test_without_its_first_line_a_real_review_is_unreadable_or_still_read_rightly(real):
    outcomes = []
    for name in FILES:
        for line in real(f"reviews/{name}").read_text().splitlines():
            row = json.loads(line)
            text, stored = row.get("content", row.get("text")), tuple(row.get("tuple", row.get("score")))
            if text[0].isdigit():
                try:
                    outcomes.append(read_scores(text.partition("\n")[2]) == stored)
                except ScoreError:
                    outcomes.append(None)
    assert len(outcomes) == 214 and outcomes.count(True) >= 5 and not outcomes.count(False)


def test_the_relative_scores_of_the_real_in_the_wild_reviews(real):
    got = relative_scores(read_reviews(real("reviews/llava-v1.5-13b-eval1.jsonl")).used)
    assert {name: s["relative"] for name, s in got.items()} == {
        "conv": 74.7,
        "detail": 52.6,
        "complex": 82.8,
        "all": 72.8,
    }
    assert {name: s["questions"] for name, s in got.items()} == {"conv": 17, "detail": 15, "complex": 28, "all": 60}


# files of reviews


def row(question, text, **more):
    return {"question_id": question, "content": text, "category": "conv", **more}


def test_what_cannot_be_used_is_named_counted_and_left_out_of_the_mean(tmp_path):
    rows = [
        row(0, "8 4\nwhy", tuple=[8.0, 4.0], judge="j"), row(1, "I cannot say.", tuple=[-1, -1]), row(2, "8 4 1"), row(3, "0 4"),
        row(0, "9 9"), {"content": "8 8"}, {"question_id": 9, "tuple": [8, 8]}, row(4, "10 5\nwhy", tuple=[10.0, 6.0]),
    ]  # fmt: skip
    write_jsonl(rows, tmp_path / "r.jsonl")
    reviews = read_reviews(tmp_path / "r.jsonl")
    assert [(r.question_id, r.reference, r.candidate) for r in reviews.used] == [(0, 8, 4), (4, 10, 5)]
    assert [str(e) for e in reviews.excluded] == [
        "question 1: no scores in the review", "question 2: 3 scores where two were asked for",
        "question 3: scores outside 1 to 10: 0 4", "question 0: occurs twice; the first was used", "row 6: no `question_id`",
        "question 9: no review text (`content` or `text`)",
    ]  # fmt: skip
    assert reviews.noticed == ["question 4: the text says 10 5, the row [10.0, 6.0]; the text counts"]
    assert relative_scores(reviews.used)["all"]["relative"] == 50.0 and reviews.used[0].judge == "j"


def test_a_file_without_any_usable_review_is_an_error_that_names_it(tmp_path):
    write_jsonl([row(0, "none")], tmp_path / "r.jsonl")
    with pytest.raises(FileError, match="r.jsonl: no review in it can be used; question 0: no scores"):
        read_reviews(tmp_path / "r.jsonl")
    (tmp_path / "e.jsonl").write_text("")
    with pytest.raises(FileError, match="e.jsonl.*the file is empty"):
        read_reviews(tmp_path / "e.jsonl")
    (tmp_path / "l.jsonl").write_text("[1, 2]\n")
    with pytest.raises(FileError, match="l.jsonl, line 1: expected a JSON object, found list"):
        read_reviews(tmp_path / "l.jsonl")


# what is computed from them


def made(values, swapped=False, category="conv"):
    return [Review(n, category, r, c, "j", swapped) for n, (r, c) in enumerate(values)]


def test_all_is_over_all_questions_and_not_the_mean_of_the_categories():
    reviews = made([(10, 10)]) + [Review(9 + n, "detail", 10, 5) for n in range(3)]
    got = relative_scores(reviews)
    assert got["conv"]["relative"] == 100 and got["detail"]["relative"] == 50 and got["all"]["relative"] == 62.5
    assert list(got) == ["conv", "detail", "all"] and got["all"]["questions"] == 4


def test_the_means_are_rounded_to_three_digits_before_they_are_divided():
    values = [(8.8, 4.5), (8.8, 4.5), (8.8, 4.9)]  # 4.6333 / 8.8 is 52.65..., 4.633 / 8.8 is 52.64...
    assert round(relative_score(values), 1) == 52.7 and relative_scores(made(values))["all"]["relative"] == 52.6


def test_a_judge_that_prefers_the_first_answer_is_found_out():
    rng = random.Random(0)
    fair = [(rng.choice((6, 7, 8)), rng.choice((6, 7, 8))) for _ in range(200)]
    plain = made([(r + 1, c) for r, c in fair])
    swapped = made([(r, c + 1) for r, c in fair], swapped=True)
    bias = position_bias(plain + swapped)
    assert bias["points"] == 1.0 and bias["questions"] == 200
    same = statistics.mean(abs(r - c) <= 1 for r, c in fair)
    assert bias["turned"] == pytest.approx(100 * same, abs=0.1)
    none = position_bias(made(fair) + made(fair, swapped=True))
    assert none["points"] == 0 and none["turned"] == 0 and position_bias(plain) is None
    assert scores_by_question(plain + swapped)[0] == (fair[0][0] + 0.5, fair[0][1] + 0.5)  # both orders make one pair


def test_several_runs_give_mean_and_standard_deviation_over_the_questions_they_share():
    runs = [made([(10, c)] * 5) for c in (4, 5, 6)]
    assert spread_over_runs(runs)["all"] == {"mean": 50.0, "std": 10.0, "questions": 5}
    assert spread_over_runs([runs[0], runs[1][:4]])["all"]["questions"] == 4
    for few in ([runs[0]], [runs[0], [Review(99, "conv", 1, 1)]]):
        with pytest.raises(FileError, match="at least two files on the same questions"):
            spread_over_runs(few)


def test_two_judges_are_compared_by_ranks_not_by_points():
    scipy = pytest.importorskip("scipy.stats")
    rng = random.Random(1)
    one = made([(rng.choice((7, 8, 9)), rng.choice((1, 3, 5, 7))) for _ in range(60)])
    two = made([(r.reference, min(10, r.candidate**2 / 7 + rng.choice((0, 1, 3)))) for r in one])
    got = agreement(one, two)
    expected = scipy.spearmanr([r.candidate for r in one], [r.candidate for r in two]).statistic
    assert got["candidate"] == round(expected, 3) and got["questions"] == 60 and 0.5 < got["candidate"] < 1
    assert agreement(one, made([(r.reference, r.candidate / 2 + 1) for r in one]))["candidate"] == 1.0
    assert agreement(one, made([(9, 5)] * 60))["candidate"] is None


def test_two_judges_are_compared_only_where_they_judged_mostly_the_same_questions():
    one, two = made([(8, n % 7 + 1) for n in range(60)]), made([(7, n % 5 + 1) for n in range(60)])
    assert agreement(one, two)["unshared"] == 0 and agreement(one[:50], two[5:])["unshared"] == 15
    for few in (one[:2], one[:29]):  # files of other benchmarks share a few ids
        with pytest.raises(FileError, match=f"at least 3 questions, and most of them; here are {len(few)} of 60"):
            agreement(few, two)

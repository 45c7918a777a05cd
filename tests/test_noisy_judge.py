"""The judge with known faults: the instruments find the faults that it has, and no others."""

import statistics

import pytest

from minillava.files import write_jsonl
from minillava.judging import reviews as instruments
from minillava.judging.judges import Case, both_orders, review_rows
from minillava.judging.reviews import ScoreError, position_bias, read_reviews, read_scores
from minillava.standins.bench import build_bench
from minillava.standins.judge import OfflineJudge
from minillava.standins.noisy_judge import SCORE_SCALE, SCORE_STEP, UNTIDY_LINES, NoisyJudge

# A candidate that gives the first sentence of each reference.
CASES = [Case(item, item.reference.split(". ")[0] + ".", "short") for item in build_bench("coco", 30)]


@pytest.fixture
def read(tmp_path):
    """The reviews of a run, through a file in the authors' format."""

    def through(judged):
        write_jsonl(review_rows(judged), tmp_path / "r.jsonl")
        return read_reviews(tmp_path / "r.jsonl")

    return through


def test_without_faults_it_is_the_rule_on_a_lower_scale(read):
    (judged,), (exact,) = NoisyJudge().review(CASES), OfflineJudge().review(CASES)
    noisy, rule = read(judged).used, read(exact).used
    for one, two in zip(noisy, rule, strict=True):
        assert one.category == two.category
        assert abs(one.candidate - max(1, SCORE_SCALE * two.candidate)) <= SCORE_STEP / 2 + 1e-9
    ours, theirs = (instruments.relative_scores(some)["all"]["relative"] for some in (noisy, rule))
    assert ours == pytest.approx(theirs, abs=2) and position_bias(noisy) is None


def test_its_noise_has_the_given_size_and_is_the_same_each_time(read):
    judge = NoisyJudge(noise=0.8)
    runs = [read(j).used for j in judge.review(CASES, runs=6)]
    spread = [statistics.stdev(run[n].reference for run in runs) for n in range(len(CASES))]
    assert statistics.mean(s**2 for s in spread) ** 0.5 == pytest.approx(0.8, abs=0.15)
    assert 0.2 < instruments.spread_over_runs(runs)["all"]["std"] < 2
    assert instruments.spread_over_runs([runs[0], runs[0]])["all"]["std"] == 0
    again = [read(j).used for j in judge.review(CASES, runs=2)]
    assert again == runs[:2] and runs[0] != runs[1]
    assert read(NoisyJudge(noise=0.8, seed=1).review(CASES)[0]).used != runs[0]


@pytest.mark.parametrize("taste", [0, 0.5, 2])
def test_reviews_in_both_orders_show_its_position_bias(read, taste):
    (judged,) = NoisyJudge(noise=0.3, taste=taste).review(both_orders(CASES))
    assert position_bias(read(judged).used)["points"] == pytest.approx(taste, abs=0.15)


def test_untidy_first_lines_are_read_except_those_without_scores(read):
    (judged,), (tidy,) = NoisyJudge(noise=0.4, untidy=1).review(CASES), NoisyJudge(noise=0.4).review(CASES)
    lines = [text.partition("\n")[0] for _, text, _ in judged.texts]
    silent = [text for _, text, _ in judged.texts if text.startswith(UNTIDY_LINES[-1])]
    reviews, expected = read(judged), {r.question_id: (r.reference, r.candidate) for r in read(tidy).used}
    assert len(reviews.excluded) == len(silent) > 5 and len(set(lines)) > 10
    for text in silent:
        with pytest.raises(ScoreError):
            read_scores(text)
    assert all((r.reference, r.candidate) == expected[r.question_id] for r in reviews.used)


def test_each_row_names_the_judge_and_its_faults():
    (judged,) = NoisyJudge(0.5, 0.25, 0.1, 3).review(CASES[:1])
    assert review_rows(judged)[0]["judge"] == "picture-book rule 2, noise 0.5, taste 0.25, untidy 0.1, seed 3"

"""Is one row better than another? The difference, its 95 % interval over questions, and a verdict (Tables 4, 5, 7, 8).

Both rows answered the same questions, so questions are drawn in pairs, and every seed counts. A difference "holds" only
if its interval is above zero and every seed agrees; with anything less, it "cannot be told" at this size.
"""

import random
import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "cannot be told"


def interval(seeds: Sequence[list], value: Callable[[list], float], draws: int = 1000) -> tuple[float, float]:
    """The 95 % interval, over questions, of a value's mean over seeds; a question is drawn with its rows of all seeds.

    The seeds answered the same questions, so their rows do not count as further questions. seeds: the rows of each, in
    the same order of questions. Raises ValueError unless all have the same length.
    """
    count = len(seeds[0])
    if any(len(rows) != count for rows in seeds):
        raise ValueError("rows are compared question by question, so all need the same questions")
    picks = _picks(count, draws)
    resampled = sorted(statistics.fmean(value([rows[i] for i in pick]) for rows in seeds) for pick in picks)
    return resampled[int(0.025 * draws)], resampled[int(0.975 * draws) - 1]


@lru_cache(maxsize=8)
def _picks(count: int, draws: int) -> list[list[int]]:
    """Which of `count` questions each resample draws; the same for every row, so drawn once."""
    rng = random.Random(0)
    return [rng.choices(range(count), k=count) for _ in range(draws)]


def paired_difference(seeds: Sequence[tuple[list, list]], value: Callable[[list], float], draws: int = 1000) -> dict:
    """value(better) - value(worse) as the mean over seeds, its 95 % interval over questions, and the verdict.

    seeds: (rows of the better, rows of the worse) for each seed, in the same order of questions. value: the score of a
    list of rows (a relative score, an accuracy). Raises ValueError unless all lists have the same length.
    """
    if any(len(a) != len(b) for a, b in seeds):
        raise ValueError("rows are compared question by question, so all need the same questions")

    def gap(rows: list[tuple]) -> float:
        return value([a for a, _ in rows]) - value([b for _, b in rows])

    both = [list(zip(a, b)) for a, b in seeds]
    gaps, (low, high) = [gap(rows) for rows in both], interval(both, gap, draws)
    verdict = HOLDS if low > 0 and min(gaps) > 0 else FAILS if high < 0 and max(gaps) < 0 else UNDECIDED
    return {"ours": round(statistics.mean(gaps), 1), "interval": [round(low, 1), round(high, 1)], "verdict": verdict}


def overall_verdict(verdicts: Sequence[str]) -> str:
    """The verdict on a claim that needs several comparisons: it fails if one fails, and holds if all hold."""
    return next((v for v in (FAILS, UNDECIDED, HOLDS) if v in verdicts), UNDECIDED)


def relative_score(pairs: Sequence[tuple[float, float]]) -> float:
    """100 * mean(candidate) / mean(reference): a ratio of means, not a mean of ratios (facts B6).

    pairs: (reference, candidate). Raises ValueError without pairs.
    """
    if not pairs:
        raise ValueError("no reviews to score")
    return 100 * sum(c for _, c in pairs) / sum(r for r, _ in pairs)


def bootstrap(pairs: Sequence[tuple[float, float]], draws: int = 1000) -> tuple[float, float]:
    """The 95 % interval of the relative score over questions, from `draws` resamples."""
    return interval([pairs], relative_score, draws)

"""Exercise 14, the judge: the relative score, its bootstrap interval, and the position bias."""

import random
import statistics
from fractions import Fraction

from minillava.exercises.cases import digits
from minillava.exercises.engine import Task
from minillava.judging.reviews import Review, position_bias
from minillava.judging.scores import relative_score


def _pairs(seed: int, count: int) -> list[tuple[int, int]]:
    draw = random.Random(f"pairs {seed} {count}")
    return [(draw.randint(4, 10), draw.randint(1, 10)) for _ in range(count)]


def _scored(seed):
    return [(_pairs(seed, n),) for n in (3, 10, 30)] + [([(8.5, 9)],), ([],)]


def _ratio(top, bottom, pairs):
    return 100 * top(pairs) / bottom(pairs)


def _resampled(seed):
    cases = []
    for count, draws in ((12, 200), (30, 400), (5, 100)):
        draw = random.Random(f"picks {seed} {count}")
        cases.append((_pairs(seed, count), [draw.choices(range(count), k=count) for _ in range(draws)]))
    return cases


def _between(score):
    """The interval of a score over resampled lists of pairs."""

    def interval(pairs, picks):
        scores = sorted(score([pairs[i] for i in pick]) for pick in picks)
        return scores[int(0.025 * len(scores))], scores[int(0.975 * len(scores)) - 1]

    return interval


def _normal(pairs, picks):
    scores = [relative_score([pairs[i] for i in pick]) for pick in picks]
    middle, spread = statistics.mean(scores), statistics.stdev(scores)
    return middle - 1.96 * spread, middle + 1.96 * spread


def _widest(pairs, picks):
    scores = [relative_score([pairs[i] for i in pick]) for pick in picks]
    return min(scores), max(scores)


def _half(pairs, picks):
    """Only the candidate's scores are resampled."""
    mean = statistics.mean(r for r, _ in pairs)
    return _between(lambda some: 100 * statistics.mean(c for _, c in some) / mean)(pairs, picks)


def _orders(seed):
    """Numbers of questions for which the package's rounding changes nothing."""
    cases = []
    for count, lost in ((5, 0), (10, 0), (20, 0), (12, 2)):
        draw = random.Random(f"orders {seed} {count}")
        plain, swapped = ({q: (draw.randint(3, 9), draw.randint(3, 9)) for q in range(count)} for _ in range(2))
        cases.append((plain, {q: v for q, v in swapped.items() if q >= lost}))
    return [*cases, ({1: (5, 6)}, {2: (6, 5)})]


def _bias(plain, swapped):
    reviews = [Review(q, "", first, second) for q, (first, second) in plain.items()]
    reviews += [Review(q, "", second, first, swapped=True) for q, (first, second) in swapped.items()]
    found = position_bias(reviews)
    return found and {name: found[name] for name in ("points", "turned")}


def _biased(points, turned):
    """A wrong version. points, turned: what one question adds to each figure, from (first, second) in both orders."""

    def bias(plain, swapped):
        both = [(plain[q], swapped[q]) for q in plain if q in swapped]
        if not both:
            return None
        exact = statistics.mean(Fraction(points(a, b)) for a, b in both)
        return {"points": float(exact), "turned": 100 * sum(turned(a, b) for a, b in both) / len(both)}

    return bias


def _lead(scores) -> int:
    return (scores[0] > scores[1]) - (scores[0] < scores[1])


_points = lambda a, b: Fraction((a[0] - a[1]) + (b[0] - b[1]), 2)  # noqa: E731
_turned = lambda a, b: _lead(a) != -_lead(b)  # noqa: E731


TASKS = (
    Task(
        "14.1", 1, "The relative score", _scored, relative_score,
        (
            (lambda pairs: statistics.mean(100 * c / r for r, c in pairs) if pairs else relative_score(pairs), "the mean of the ratios is taken. The paper's score is the ratio of the means: a question with a low reference must not weigh more."),
            (lambda pairs: _ratio(lambda p: sum(r for r, _ in p), lambda p: sum(c for _, c in p), pairs) if pairs else relative_score(pairs), "the reference is divided by the candidate. The reference is 100 %; it stands first in each pair."),
            (lambda pairs: relative_score(pairs) / 100, "it is no percentage."),
            (lambda pairs: relative_score(pairs) if pairs else 0.0, "no reviews count as 0. Nothing was measured, and that is a ValueError, never a score."),
        ),
        ("Each pair is (reference, candidate): text-only GPT-4's score, then the model's.",
         "Add up all candidates, add up all references, divide once, times 100."),
    ),
    Task(
        "14.2a", 0, "Draw anew", lambda seed: [(digits(9 * seed + n, N), digits(9 * seed + n + 5, K, N) % N) for n, (N, K) in enumerate(((4, 3), (3, 2), (5, 4)))],
        lambda values, picks: values[picks],
        (
            (lambda values, picks: values.sort().values[picks], "the values are sorted first: a pick then names another question."),
            (lambda values, picks: values[picks.T], "draws stand in columns. Each row of `picks` is one draw."),
        ),
        ("Numbers in the brackets are read as places, one by one, in any shape.",),
    ),
    Task(
        "14.2b", 0, "The ends of the middle", lambda seed: [(digits(9 * seed + n, N, below=90).tolist(), cut) for n, (N, cut) in enumerate(((6, 1), (8, 2), (5, 1)))],
        lambda scores, cut: (sorted(scores)[cut], sorted(scores)[len(scores) - cut - 1]),
        (
            (lambda scores, cut: (scores[cut], scores[len(scores) - cut - 1]), "the scores are not sorted."),
            (lambda scores, cut: (min(scores), max(scores)), "nothing is cut off: the smallest and the largest are the ends."),
            (lambda scores, cut: (sorted(scores)[cut], sorted(scores)[len(scores) - cut]), "one too few is cut off above. The last of N has the number N - 1."),
        ),
        ("Sort; leave out `cut` at each end; the first and the last of the rest.",),
    ),
    Task(
        "14.2", 2, "Its bootstrap interval", _resampled, _between(relative_score),
        (
            (_widest, "the smallest and the largest draw are the ends: a 100 % interval, which grows with the number of draws."),
            (_normal, "mean and 1.96 deviations are taken. Sort the draws and read the ends off: nothing has to be normal."),
            (_half, "only the candidate's scores are drawn anew. A question is drawn with both of its scores: they belong together."),
            (_between(lambda some: statistics.mean(100 * c / r for r, c in some)), "each draw is scored by the mean of ratios; take task 1's score."),
        ),
        ("Each entry of picks is one draw: which questions, some twice, some not at all.",
         "Score every draw with your relative_score, then sort.",
         "Of N sorted scores the ends are at int(0.025 * N) and int(0.975 * N) - 1."),
    ),
    Task(
        "14.3", 3, "What standing first is worth", _orders, _bias,
        (
            (_biased(lambda a, b: Fraction((a[0] - a[1]) - (b[0] - b[1]), 2), _turned), "the reference's lead is measured, not the first place's. In the second order the candidate stands first."),
            (_biased(_points, lambda a, b: a != (b[1], b[0])), "`turned` counts every change of a score. Only a change of the verdict counts: who is better, or that both are alike."),
            (_biased(_points, lambda a, b: _lead(a) != _lead(b)), "the verdicts are compared by place. The places have been exchanged: compare by who it is."),
            (_biased(lambda a, b: Fraction(a[0] - a[1]), _turned), "one order alone is read. What an answer is worth and what its place is worth can then not be told apart."),
        ),
        ("For each question judged in both orders: how far does the first answer lead, on average over the two orders?",
         "The verdict of an order is 1, 0 or -1 for the reference; in the second order the reference stands second.",
         "No question in both orders: there is nothing to say, so give back None."),
    ),
)  # fmt: skip

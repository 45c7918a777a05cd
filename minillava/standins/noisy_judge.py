"""A judge with known faults: the offline rule with noise, a position bias for the first answer, and untidy reviews.

Notable: it tests the instruments, not a model. Nobody has measured how noisy GPT-4 is on our questions, and we may not
ship its reviews. So what measures a judge's noise and position bias (`reviews.over_runs`, `reviews.position_bias`) and
what reads its scores (`reviews.read_scores`) is tried on a judge whose faults are known: they have to find its faults.

    NoisyJudge(noise=0.5, taste=0.5).review(both_orders(cases), runs=3)
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from minillava.judging.judges import Case, Judged
from minillava.judging.reviews import HIGHEST, LOWEST, read_scores
from minillava.standins.judge import RULE_ID, review

SCORE_SCALE = 0.85  # times the rule's scores, so that noise can raise them too; a ratio of means stays the same
SCORE_STEP = 0.5  # points: it gives whole and half points, as GPT-4 does
# First lines that do not follow the instructions. The last one states no scores.
UNTIDY_LINES = ("{0:g}, {1:g}", "{0:g} {1:g} ", "({0:g}, {1:g})", "**{0:g} {1:g}**", "Scores: {0:g} and {1:g}")
UNTIDY_LINES += ("Both answers have their merits.",)


@dataclass(frozen=True)
class NoisyJudge:
    """A judge with known faults.

    noise: standard deviation of each score, in points of ten. taste: its position bias, in points by which the second
    answer scores lower. untidy: the share of reviews whose first line is one of UNTIDY_LINES.
    """

    noise: float = 0.0
    taste: float = 0.0
    untidy: float = 0.0
    seed: int = 0

    @property
    def id(self) -> str:
        return f"{RULE_ID}, noise {self.noise:g}, taste {self.taste:g}, untidy {self.untidy:g}, seed {self.seed}"

    def _one(self, case: Case, run: int) -> str:
        rng = random.Random(f"{self.seed} {run} {case.name}")
        text = review(case.item.context, case.item.text, case.both)
        first, second = (SCORE_SCALE * s + rng.gauss(0, self.noise) for s in read_scores(text))
        both = [min(max(SCORE_STEP * round(s / SCORE_STEP), LOWEST), HIGHEST) for s in (first, second - self.taste)]
        line = rng.choice(UNTIDY_LINES) if rng.random() < self.untidy else "{0:g} {1:g}"
        return "\n".join([line.format(*both), *text.splitlines()[1:]])

    def review(self, cases: Sequence[Case], runs: int = 1) -> list[Judged]:
        """Reviews of all cases for each run, each with new noise. Raises ValueError for a context without captions."""
        return [Judged([(case, self._one(case, run), self.id) for case in cases]) for run in range(runs)]

"""A judge whose faults are known: the offline rule, made to waver, to favour the first place, and to write untidily.

Notable: it measures instruments, not models. How much GPT-4 wavers on our questions nobody has measured, and its reviews are
not ours to ship. So what measures a judge's noise and taste (`reviews.over_runs`, `reviews.position_bias`) and what reads its
words (`reviews.read_scores`) is tried on a judge that has the faults in a known amount: what was put in must come out.

    MoodyJudge(noise=0.5, taste=0.5).review(both_orders(cases), runs=3)
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from minillava.judging.judges import Case, Judged
from minillava.judging.reviews import HIGHEST, LOWEST, read_scores
from minillava.standins.judge import RULE_ID, review

SCORE_SCALE = 0.85  # of the rule's points, so that noise has room above; a ratio of means does not change by it
SCORE_STEP = 0.5  # points: it gives whole and half ones, as GPT-4 does
# First lines that are not as asked. The last states no scores.
UNTIDY_LINES = ("{0:g}, {1:g}", "{0:g} {1:g} ", "({0:g}, {1:g})", "**{0:g} {1:g}**", "Scores: {0:g} and {1:g}", "Both answers have their merits.")  # fmt: skip


@dataclass(frozen=True)
class NoisyJudge:
    """A judge with known faults. noise: standard deviation of each score, in points of ten. taste: points less for the
    answer that stands second. untidy: the share of reviews whose first line is one of UNTIDY. seed: of all its moods."""

    noise: float = 0.0
    taste: float = 0.0
    untidy: float = 0.0
    seed: int = 0

    @property
    def id(self) -> str:
        return f"{RULE_ID}, noise {self.noise:g}, taste {self.taste:g}, untidy {self.untidy:g}, seed {self.seed}"

    def _one(self, case: Case, run: int) -> str:
        mood = random.Random(f"{self.seed} {run} {case.name}")
        said = review(case.item.context, case.item.text, case.both)
        first, second = (SCORE_SCALE * s + mood.gauss(0, self.noise) for s in read_scores(said))
        both = [min(max(SCORE_STEP * round(s / SCORE_STEP), LOWEST), HIGHEST) for s in (first, second - self.taste)]
        line = mood.choice(UNTIDY_LINES) if mood.random() < self.untidy else "{0:g} {1:g}"
        return "\n".join([line.format(*both), *said.splitlines()[1:]])

    def review(self, cases: Sequence[Case], runs: int = 1) -> list[Judged]:
        """Its reviews of all cases, so many times over, each in another mood. Raises ValueError for a context without captions."""
        return [Judged([(case, self._one(case, run), self.id) for case in cases]) for run in range(runs)]

"""Is one row better than another? The difference, its 95 % interval over questions, and a verdict (Tables 4, 5, 7, 8).

Notable: both rows answered the same questions, so questions are drawn in pairs, and every seed counts. A difference "holds"
only when its interval lies above zero and every seed agrees; anything less "cannot be told" at this size.
"""

import random
import statistics
from collections.abc import Callable, Sequence

HOLDS, FAILS, UNTOLD = "holds", "does not hold", "cannot be told"


def paired(seeds: Sequence[tuple[list, list]], value: Callable[[list], float], draws: int = 1000) -> dict:
    """value(better) - value(worse), the mean over seeds, its 95 % interval over questions, and the verdict.

    seeds: (rows of the one, rows of the other) of each seed, in the same order of questions. value: what a list of rows is
    worth (a relative score, an accuracy). Raises ValueError unless all lists are of one length.
    """
    rng, count = random.Random(0), len(seeds[0][0])
    if any(len(rows) != count for pair in seeds for rows in pair):
        raise ValueError("rows are compared question by question, so all need the same questions")
    gaps, resampled = [value(a) - value(b) for a, b in seeds], []
    for _ in range(draws):
        pick = rng.choices(range(count), k=count)
        resampled.append(statistics.mean(value([a[i] for i in pick]) - value([b[i] for i in pick]) for a, b in seeds))
    resampled.sort()
    low, high = resampled[int(0.025 * draws)], resampled[int(0.975 * draws) - 1]
    verdict = HOLDS if low > 0 and min(gaps) > 0 else FAILS if high < 0 and max(gaps) < 0 else UNTOLD
    return {"ours": round(statistics.mean(gaps), 1), "interval": [round(low, 1), round(high, 1)], "verdict": verdict}


def together(verdicts: Sequence[str]) -> str:
    """The verdict on a claim that needs several comparisons: it fails where one fails, and holds where all hold."""
    return next((v for v in (FAILS, UNTOLD, HOLDS) if v in verdicts), UNTOLD)

"""How fast an endpoint takes requests: one clock for all workers, which a rate limit (HTTP 429) slows down.

Nothing is held back until the first 429. Then requests go out one by one, a little slower than the endpoint has lately
taken them, and gradually faster until the next 429. So a rate limit is used nearly fully, and few requests are refused.

    python -c "from minillava.asking.pace import Pace; print(Pace(0.0, 0.5).gap(now=0.0))"
"""

import random
from collections import deque

WINDOW = 2.0  # seconds over which the rate of taken requests is measured
SLOWER = 0.98  # the share of the rate that remains after a 429, at the most
LONGEST_WAIT = 30.0  # seconds between attempts, where the endpoint names no time


class Pace:
    """The clock. All times in seconds of one clock; `backoff`: the first wait where the endpoint names none."""

    def __init__(self, start: float, backoff: float):
        self.start, self.backoff = start, backoff
        self.next, self.slowed, self.rate, self.refused = start, start, float("inf"), 0
        self.taken: deque[float] = deque([start])
        self.last_taken, self.asked, self.settled = start, 0.0, False

    def gap(self, now: float) -> float:
        """The seconds from one request to the next. The rate grows with the time since it was reduced: it doubles every
        second at first, and grows slowly once it was reduced a second time."""
        since = min(max(0.0, now - self.slowed), 60.0)
        growth = 1 + 0.01 * since + 0.01 * since**3 if self.settled else 2**since
        return random.uniform(0.97, 1.03) / (self.rate * growth)

    def take(self, now: float) -> None:
        """A request was answered."""
        self.taken.append(now)
        self.last_taken, self.asked, self.refused = now, 0.0, 0

    def wait(self, now: float, seconds: float) -> None:
        """Nobody asks for some seconds."""
        self.next = max(self.next, now + seconds * random.uniform(1.0, 1.1))

    def slow(self, now: float, sent: float, asked: float | None) -> None:
        """A request that was sent at `sent` got a 429. asked: the seconds that the endpoint asks to wait."""
        self.asked = max(self.asked, asked or 0.0)
        if sent >= self.slowed or self.rate == float("inf"):  # the first 429 since the rate was reduced
            while len(self.taken) > 1 and self.taken[0] < now - WINDOW:
                self.taken.popleft()
            seconds = min(WINDOW, max(now - self.start, 0.1))
            gap, lately = self.gap(now), len(self.taken) / seconds
            self.settled = bool(gap)
            first = min(self.backoff, 2 * gap) if gap else self.backoff
            self.rate = min(SLOWER / gap, max(1.05 * lately, 0.7 / gap)) if gap else lately
            self.refused += 1
            self.next = now  # what the endpoint asks for may be sooner than the next turn
            self.wait(now, min(first * 2 ** (self.refused - 1), LONGEST_WAIT) if asked is None else asked)
            self.slowed = self.next
        elif asked is not None:
            self.wait(now, asked)

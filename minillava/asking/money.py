"""What asking costs: prices, an estimate before the first request, the user's consent, and the budget.

The budget is a promise, so it assumes the worst: a request is sent only if everything spent, everything in flight and
this request stay within it even when each costs the most it can.

    python -c "from minillava.asking import *; print(estimate_cost([chat_request('gpt-4o', [])], price_of('gpt-4o')))"
"""

import re
import sys
from dataclasses import dataclass

from minillava.asking.errors import AskingError
from minillava.asking.journal import Cost
from minillava.asking.request import likely_tokens, most_tokens

MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """US dollars per million prompt tokens and per million completion tokens."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / MILLION


# List prices from openai.com/api/pricing in 2026, for exactly these names. Prices change and dated models differ, so a
# model that is not listed needs `--price`.
PRICES = {
    "gpt-3.5-turbo": Price(0.50, 1.50),
    "gpt-4": Price(30.00, 60.00),
    "gpt-4-turbo": Price(10.00, 30.00),
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
}
BATCH_SHARE = 0.5  # the Batch API's share of the price


def price_of(model: str, given: str | None = None) -> Price | None:
    """The price of a model: `given`, "PROMPT,COMPLETION" in dollars per million tokens, or from the list, or None.

    Raises AskingError when `given` is not two numbers.
    """
    if given is None:
        return PRICES.get(model)
    if not re.fullmatch(r"\d+(\.\d+)?,\d+(\.\d+)?", given):
        raise AskingError(f"--price {given}: expected dollars per million prompt and completion tokens: 2.50,10")
    return Price(*map(float, given.split(",")))


@dataclass(frozen=True)
class Budget:
    """The most that the replies of one folder may cost, over all runs. None: no limit."""

    usd: float | None = None
    tokens: int | None = None

    def allows(self, cost: Cost) -> bool:
        fits = self.usd is None or cost.usd <= self.usd + 1e-9
        return fits and (self.tokens is None or cost.tokens <= self.tokens)

    def __str__(self) -> str:
        usd = [] if self.usd is None else [f"${self.usd:.2f}" if round(self.usd, 2) == self.usd else f"${self.usd:g}"]
        return " and ".join(usd + ([] if self.tokens is None else [f"{self.tokens:,} tokens"])) or "no limit"

    def check(self, price: Price | None, model: str) -> None:
        """Raise AskingError for a negative budget, or one in dollars for a model without a known price."""
        if self.usd is not None and price is None:
            raise AskingError(f"no price is known for {model}, so a budget in dollars cannot be kept; give --price")
        if (self.usd or 0) < 0 or (self.tokens or 0) < 0:
            raise AskingError("a budget cannot be negative")


NO_LIMIT = Budget()


@dataclass(frozen=True)
class Estimate:
    """What requests will cost. about: from text lengths; most: if every reply is as long as it may be."""

    requests: int
    about: Cost
    most: Cost
    priced: bool

    def __str__(self) -> str:
        tokens = f"about {self.about.prompt:,} prompt and {self.about.completion:,} completion tokens"
        usd = f"about ${self.about.usd:.2f}, at most ${self.most.usd:.2f}" if self.priced else "price unknown (--price)"
        return f"{self.requests:,} requests, {tokens}: {usd}"


def estimate_cost(bodies: list[dict], price: Price | None, reply: int | None = None) -> Estimate:
    """The estimate for requests. reply: the usual number of tokens of a reply; None: half the limit."""
    about, most, usd = Cost(), Cost(), price.of if price else lambda *_: None
    for body in bodies:
        prompt, limit = most_tokens(body)
        likely = sum(likely_tokens(m["content"]) + 4 for m in body["messages"]), min(limit, reply or limit // 2)
        about += Cost(*likely, usd(*likely))
        most += Cost(prompt, limit, usd(prompt, limit))
    return Estimate(len(bodies), about, most, price is not None)


def confirm(estimate: Estimate, budget: Budget, endpoint: str, yes: bool = False) -> None:
    """Show the estimate and ask whether to send. Raises AskingError unless the answer is yes."""
    print(f"{endpoint}: {estimate}; budget: {budget}", flush=True)
    if yes or not estimate.requests:
        return
    if not sys.stdin.isatty():
        raise AskingError("nobody is here to confirm the cost; add --yes (or --dry-run to see the messages)")
    if input("Send them? [y/N] ").strip().lower() not in ("y", "yes"):
        raise AskingError("nothing was sent")

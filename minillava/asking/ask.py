"""Ask many requests at once: each different request once, and none that the journal already answers.

The event loop (loop.py) runs in a thread of its own, so it also works in a notebook. Ctrl-C stops sending, waits for
the requests in flight, which are paid for, and keeps their replies.

    python -c "help('minillava.asking')"
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from minillava.asking.errors import AskingError
from minillava.asking.journal import Cost, Journal
from minillava.asking.loop import AskingRun
from minillava.asking.money import NO_LIMIT, Budget, Price, confirm, estimate_cost
from minillava.asking.request import Reply, request_key


class ChatClient(Protocol):
    """A model that can be asked: `client.Client`, or anything that answers offline in the same form."""

    model: str
    endpoint: str  # for people: the model and where it is, nothing secret

    async def open(self) -> None: ...

    async def complete(self, body: dict, name: str) -> object:
        """The JSON of a chat completion. Raises Unbilled, Lost, Rejected, BadReply; AskingError ends the run."""

    async def close(self) -> None: ...


@dataclass
class Outcome:
    """What became of the requests. replies, failures: by key. reused: how many the journal had answered before.
    stopped: why some were not sent; empty if all were. unknown: replies in a batch to requests that are not here."""

    replies: dict[str, Reply] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    retries: int = 0
    spent: Cost = Cost()  # in this call
    stopped: str = ""
    unknown: int = 0

    def finish(self, keys: Iterable[str], journal: Journal, before: Cost) -> "Outcome":
        """Fill in what the journal knows. before: what it had spent."""
        self.replies = {key: journal.replies[key] for key in keys if key in journal.replies}
        self.failures = {key: why for key, why in self.failures.items() if key not in self.replies}
        self.spent = journal.spent - before
        return self


def ask_all(bodies: list[dict], client: ChatClient, journal: Journal, budget: Budget = NO_LIMIT,
            price: Price | None = None, concurrency: int = 16, names: list[str] | None = None, progress: bool = True,
            backoff: float = 0.5) -> Outcome:  # fmt: skip
    """Ask what the journal does not answer, each different request once, and return the replies to all.

    names: of the requests, for people. price: of the client's model; None keeps replies without a cost. backoff: the
    first wait in seconds; it doubles with each attempt. Raises AskingError where continuing makes no sense (a wrong
    key, a full disk, ten failures in a row), and KeyboardInterrupt after Ctrl-C, both after every reply is on disk.
    """
    if concurrency < 1:
        raise AskingError(f"--concurrency {concurrency}: at least 1 is needed")
    budget.check(price, client.model)
    wanted: dict[str, tuple[dict, str]] = {}
    for n, body in enumerate(bodies):
        wanted.setdefault(request_key(body), (body, names[n] if names else str(n)))
    todo = [(k, *item) for k, item in wanted.items() if k not in journal.replies]
    before, outcome = journal.spent, Outcome(reused=len(wanted) - len(todo))
    if todo:
        bar = tqdm(total=len(wanted), initial=outcome.reused, unit="reply", disable=not progress, smoothing=0.1,
                   mininterval=0.2 if sys.stderr.isatty() else 20)  # fmt: skip
        with bar:
            _threaded(AskingRun(todo, client, journal, budget, price, concurrency, backoff, bar, outcome))
    return outcome.finish(wanted, journal, before)


def ask_with_consent(bodies: list[dict], names: list[str], usual_reply: int, folder: Path, client: ChatClient,
                     budget: Budget = NO_LIMIT, price: Price | None = None, concurrency: int = 16,
                     yes: bool = False) -> Outcome:  # fmt: skip
    """`ask_all` with a folder's journal, after showing what the missing replies will cost and asking whether to send.

    usual_reply: the likely tokens of a reply. yes: send without asking. Raises AskingError as `confirm`, `ask_all` do.
    """
    with Journal(folder) as journal:
        missing = [body for body in bodies if request_key(body) not in journal.replies]
        confirm(estimate_cost(missing, price, usual_reply), budget, client.endpoint, yes or not missing)
        return ask_all(bodies, client, journal, budget, price, concurrency, names)


def _threaded(asking: AskingRun) -> None:
    """Run it in a thread with its own loop. Ctrl-C asks it to stop; a second one drops the requests in flight."""
    presses = []

    def pressed(kind, _):  # a handler, because an exception could come at a bad moment
        if not presses:
            asking.call(asking.interrupt)
        elif kind == signal.SIGINT:  # not for a terminal that is closed meanwhile
            asking.call(asking.drop)
        presses.append(True)

    main = threading.current_thread() is threading.main_thread()  # only there does Ctrl-C arrive
    before = signal.signal(signal.SIGINT, pressed) if main else None
    try:
        with ThreadPoolExecutor(1, "asking") as pool:
            running = pool.submit(asyncio.run, asking.run())
            while not running.done():  # a signal that another thread received is handled when this one wakes
                wait([running], 0.1)
    finally:
        if main:
            signal.signal(signal.SIGINT, before or signal.default_int_handler)
    error = running.exception()
    if error and not isinstance(error, asyncio.CancelledError):
        raise error
    if presses:
        raise KeyboardInterrupt

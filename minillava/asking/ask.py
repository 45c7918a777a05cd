"""Ask many requests at once: each different one once, what the journal holds not at all.

Notable: the event loop (loop.py) runs in a thread of its own: it works in a notebook, and Ctrl-C stops sending, waits
for what is in flight (it is paid for), and keeps it.

    python -c "help('minillava.asking')"
"""

import asyncio
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from tqdm import tqdm

from minillava.asking.journal import Cost, Journal
from minillava.asking.loop import AskingRun
from minillava.asking.money import NO_LIMIT, Budget, Price
from minillava.asking.request import AskingError, Reply, request_key


class ChatClient(Protocol):
    """What can be asked: `client.Client`, or anything that answers offline in the same form."""

    model: str
    endpoint: str  # what people are told: the model and where it is, nothing secret

    async def open(self) -> None: ...

    async def complete(self, body: dict, name: str) -> object:
        """The JSON of a chat completion. Raises Unbilled, Lost, Rejected, BadReply; AskingError ends the run."""

    async def close(self) -> None: ...


@dataclass
class Outcome:
    """What became of the requests. replies, failures: by key. stopped: why not all were asked (`""`: all were)."""

    replies: dict[str, Reply] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    reused: int = 0  # were in the journal before
    retries: int = 0
    spent: Cost = field(default_factory=Cost)  # by this call
    stopped: str = ""


def ask_all(
    bodies: list[dict],
    teacher: ChatClient,
    journal: Journal,
    budget: Budget = NO_LIMIT,
    price: Price | None = None,
    concurrency: int = 16,
    names: list[str] | None = None,
    progress: bool = True,
    backoff: float = 0.5,
) -> Outcome:
    """Ask what the journal does not hold, each different request once, and return the replies of all.

    names: what each request is called in the journal's lines (for people; replies are found by key). price: of the
    teacher's model; None files replies without a cost. backoff: the first wait in seconds, doubled from attempt to attempt.
    A request that fails in the end is in `failures`; a budget reached, or an endpoint that asks for a long wait, in `stopped`.
    Raises AskingError where going on makes no sense (a wrong key, a full disk, ten failures in a row), and KeyboardInterrupt
    after Ctrl-C, both after all that was answered is on disk.
    """
    if concurrency < 1:
        raise AskingError(f"--concurrency {concurrency}: at least 1 is needed")
    budget.check(price, teacher.model)
    wanted: dict[str, tuple[dict, str]] = {}
    for n, body in enumerate(bodies):
        wanted.setdefault(request_key(body), (body, names[n] if names else str(n)))
    todo = [(k, *item) for k, item in wanted.items() if k not in journal.replies]
    before = Cost(journal.spent.prompt, journal.spent.completion, journal.spent.usd)
    outcome = Outcome(reused=len(wanted) - len(todo))
    if todo:
        bar = tqdm(total=len(wanted), initial=outcome.reused, unit="reply", disable=not progress, smoothing=0.1,
                   mininterval=0.2 if sys.stderr.isatty() else 20)  # fmt: skip
        with bar:
            _threaded(AskingRun(todo, teacher, journal, budget, price, concurrency, backoff, bar, outcome))
    outcome.replies = {k: journal.replies[k] for k in wanted if k in journal.replies}
    after = journal.spent
    outcome.spent = Cost(after.prompt - before.prompt, after.completion - before.completion, after.usd - before.usd)
    return outcome


def _threaded(asking: AskingRun) -> None:
    """Run it in a thread with a loop of its own; Ctrl-C asks it to stop, a second one drops what is in flight."""
    ended, failed, presses = threading.Event(), [], []

    def work():
        try:
            asyncio.run(asking.run())
        except BaseException as error:  # carried over to the caller's thread and raised there
            failed.append(error)
        finally:
            ended.set()

    def pressed(*_):  # a handler, not an exception: it cannot come at a bad moment
        asking.call(asking.drop if presses else asking.interrupt)
        presses.append(time.monotonic())

    main = threading.current_thread() is threading.main_thread()  # nowhere else does Ctrl-C arrive
    before = signal.signal(signal.SIGINT, pressed) if main else None
    try:
        thread = threading.Thread(target=work, name="asking", daemon=True)
        thread.start()
        while not ended.wait(0.1):  # a signal that another thread received is handled here, once this one wakes
            pass
        thread.join()
    finally:
        if main:
            signal.signal(signal.SIGINT, before or signal.default_int_handler)
    if failed and not isinstance(failed[0], asyncio.CancelledError):
        raise failed[0]
    if presses:
        raise KeyboardInterrupt

"""The event loop behind `ask_all`: bounded concurrency, retries, budget, journal, progress, a clean stop.

A reply is put into the journal before anything else is done with it, so whatever happens next, it is not asked again.
Failures are not in the journal, so the next run asks them again. Time-outs and resets may have been billed. They count
with the most they can have cost and are retried less often than a 500, which costs nothing. A rate limit (429) is no
failure: all wait (`pace.py`).

    python -c "from minillava.asking.loop import *; print(ATTEMPTS, PAID_ATTEMPTS)"
"""

import asyncio
import random
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from minillava.asking.errors import AskingError, BadReply, Lost, RateLimited, Rejected, Unbilled
from minillava.asking.journal import Cost
from minillava.asking.pace import Pace
from minillava.asking.reading import read_reply
from minillava.asking.request import Reply, most_tokens, request_key

ATTEMPTS = 7  # per request, where a failure costs nothing: waits of 0.5 + 1 + 2 + 4 + 8 + 16 s
PAID_ATTEMPTS = 3  # per request, where an attempt may have been billed
MAX_WAIT = 300.0  # seconds; an endpoint that asks for more ends the run
PATIENCE = 90.0  # seconds without any answer but 429, beside what it asks to wait, that end the run
MAX_FAILURES_IN_A_ROW = 10  # after that many, the fault is not in the requests
LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
NOT_TAKEN = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|not (?:permitted|allowed)|only the default", re.I
)


class AskingRun:
    """One call of `ask_all`, inside its event loop."""

    def __init__(self, todo, client, journal, budget, price, concurrency, backoff, bar, outcome):
        self.todo, self.workers = iter(todo), min(concurrency, len(todo))
        self.client, self.journal, self.budget, self.price, self.backoff = client, journal, budget, price, backoff
        self.bar, self.outcome = bar, outcome
        self.error: Exception | None = None
        self.reserved, self.in_flight, self.failures_in_a_row = Cost(), 0, 0
        self.not_taken: dict[str, str | None] = {}  # field that the endpoint does not take -> the one to send instead
        self.stopping, self.settled, self.unsynced = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.turn, self.started, self.tasks = asyncio.Lock(), threading.Event(), []

    def call(self, what: Callable[[], None]) -> None:
        """Call `what` in the loop, from another thread."""
        self.started.wait()
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(what)

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.started.set()
        self.pace = Pace(self.loop.time(), self.backoff)
        self.journal.keep_room()
        await self.client.open()
        syncing = asyncio.create_task(self.sync())
        self.tasks = [asyncio.create_task(self.work()) for _ in range(self.workers)]
        try:
            await asyncio.gather(*self.tasks)
        finally:
            syncing.cancel()
            await self.client.close()
            self.journal.sync()
        if self.error:
            raise self.error

    def interrupt(self) -> None:
        self.stop("stopped by Ctrl-C")  # first, as the terminal may be closed
        self.bar.write(f"Stopping after {self.in_flight} requests in flight (Ctrl-C again drops them)", sys.stderr)

    def drop(self) -> None:
        for task in self.tasks:
            task.cancel()

    def stop(self, reason: str | Exception) -> None:
        """Send nothing more, but wait for the requests in flight. An exception is raised at the end."""
        if isinstance(reason, Exception):
            self.error = self.error or reason
        self.outcome.stopped = self.outcome.stopped or str(reason)
        self.stopping.set()
        self.settled.set()

    async def sync(self) -> None:
        """fsync the lines written since the last time, many at once, in another thread."""
        while True:
            await self.unsynced.wait()
            self.unsynced.clear()
            try:
                await asyncio.to_thread(self.journal.sync)
            except AskingError as error:
                self.stop(error)

    async def work(self) -> None:
        while not self.stopping.is_set() and (item := next(self.todo, None)):
            try:
                failure = await self.ask(*item)
            except Exception as error:  # whatever it is: the replies to the others in flight are paid for
                self.stop(error)
                return
            if failure:
                self.outcome.failures[item[0]] = failure
                self.failures_in_a_row += 1
                self.show_progress(failed=True)
                if self.failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
                    what = f"{MAX_FAILURES_IN_A_ROW} requests failed one after another; the last: {failure}"
                    self.stop(AskingError(f"{self.client.endpoint}: {what}"))

    async def ask(self, name: str, body: dict, label: str) -> str | None:
        """Ask one request until it is answered or has failed for good. Returns why it failed, otherwise None."""
        most = self.cost(*most_tokens(body))
        reason, free, paid, wait = "", 0, 0, 0.0
        while free < ATTEMPTS and paid < PAID_ATTEMPTS:
            if reason:
                self.outcome.retries += 1
            await self.sleep(wait)
            await self.wait_for_turn()
            if self.stopping.is_set() or not await self.reserve(most):
                return None  # stopped, so it has not failed
            sent, at, wait = self.adapted(body), self.loop.time(), 0.0
            try:
                self.journal.begin_attempt(name, most)
                reply = read_reply(await self.client.complete(sent, name if sent == body else request_key(sent)), sent)
            except Unbilled as error:
                self.journal.attempt_settled(name)
                reason = str(error)
                if error.wait and error.wait > MAX_WAIT:
                    self.stop(f"the endpoint asks to wait {error.wait:.0f} s ({error}); run the same command then")
                    return None
                if isinstance(error, RateLimited):
                    self.slow_down(error, at)
                    continue
                free, wait = free + 1, error.wait or self.pause(free)
                if error.everyone:
                    self.pace.wait(self.loop.time(), wait)
                    wait = 0.0
            except Lost as error:
                paid, reason = paid + 1, str(error)
                self.journal.attempt_lost(most)
            except BadReply as error:
                paid, reason, wait = paid + 1, str(error), self.pause(2 * paid + 1)
                self.journal.attempt_settled(name, self.cost(*error.tokens) if error.tokens else most)
            except Rejected as error:
                self.journal.attempt_settled(name)
                reason = str(error)
                if not self.adapt(reason, sent):
                    return reason
            else:
                self.keep(name, label, replace(reply, not_sent=tuple(k for k in body if k not in {*sent, *LIMITS})))
                return None
            finally:
                self.release(most)
        return f"{reason} ({free + paid} attempts)"

    def cost(self, prompt: int, completion: int) -> Cost:
        return Cost(prompt, completion, self.price.of(prompt, completion) if self.price else None)

    def pause(self, failures: int) -> float:
        """The seconds to wait after some failures, where the endpoint names no time."""
        return self.backoff * 2**failures * random.uniform(0.75, 1.25)

    def keep(self, name: str, label: str, reply: Reply) -> None:
        """A reply has come: put it into the journal before anything else."""
        self.journal.add(name, reply, self.cost(reply.prompt_tokens, reply.completion_tokens).usd, name=label)
        self.unsynced.set()
        self.pace.take(self.loop.time())
        self.failures_in_a_row = 0
        self.show_progress()

    def adapted(self, body: dict) -> dict:
        """The request without the fields that the endpoint does not take."""
        names = {name: self.not_taken.get(name, name) for name in body}
        return {names[name]: value for name, value in body.items() if names[name]}

    def adapt(self, refusal: str, sent: dict) -> bool:
        """Whether a refusal names a field that can be left out, or a limit that has another name; then it will be."""
        named = [k for k in sent if k not in ("model", "messages") and re.search(rf"\b{k}\b", refusal)]
        named = [k for k in named if NOT_TAKEN.search(refusal) and LIMITS.get(k) not in self.not_taken]
        for name in named:
            if name not in self.not_taken:
                self.not_taken[name] = LIMITS.get(name)
                instead = f"with `{LIMITS[name]}` instead" if name in LIMITS else "without it"
                self.bar.write(f"{self.client.endpoint} does not take `{name}`; it is asked {instead}", sys.stderr)
        return bool(named)

    def slow_down(self, error: RateLimited, at: float) -> None:
        """All ask more slowly. An endpoint that says nothing but 429 for too long ends the run."""
        now = self.loop.time()
        self.pace.slow(now, at, error.wait)
        quiet = now - self.pace.last_taken
        if quiet > PATIENCE + self.pace.asked:
            self.stop(f"the endpoint has answered nothing else for {quiet:.0f} s: {error}; run the same command later")

    async def wait_for_turn(self) -> None:
        """Wait until the endpoint may be asked again: one after another, by one clock (`pace.py`)."""
        async with self.turn:
            while (wait := self.pace.next - self.loop.time()) > 0 and not self.stopping.is_set():
                await self.sleep(min(wait, 0.01))  # the next turn may come sooner
            now = self.loop.time()
            self.pace.next = now + self.pace.gap(now)

    async def sleep(self, seconds: float) -> None:
        """Sleep, but wake when the run is to stop."""
        if seconds > 0:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)

    async def reserve(self, most: Cost) -> bool:
        """Reserve the most that a request can cost; may wait for others to end. False, and a stop, if it cannot fit."""
        while True:
            if self.budget.allows(self.journal.spent + self.reserved + most):
                self.reserved, self.in_flight = self.reserved + most, self.in_flight + 1
                return True
            if not self.in_flight:
                self.stop(f"the budget of {self.budget} would be exceeded")
            if self.stopping.is_set():
                return False
            self.settled.clear()
            await self.settled.wait()

    def release(self, most: Cost) -> None:
        self.reserved, self.in_flight = self.reserved - most, self.in_flight - 1
        self.settled.set()

    def show_progress(self, failed: bool = False) -> None:
        spent = f"${self.journal.spent.usd:.4f}" if self.price else f"{self.journal.spent.tokens:,} tokens"
        counts = {"retried": self.outcome.retries, "failed": len(self.outcome.failures)}
        self.bar.set_postfix_str(", ".join([spent, *(f"{n} {what}" for what, n in counts.items() if n)]), refresh=False)
        self.bar.update(0 if failed else 1)

"""The event loop behind `ask_all`: bounded concurrency, retries, the budget, the journal, progress, a clean stop.

Notable: a reply is in the journal before anything else is done with it, so whatever happens then, it is not asked
again. What fails is not in the journal: the next run asks it again. Time-outs and resets may have been billed, so they
count at their worst and are tried again fewer times than a 429 or 500, which cost nothing.

    python -c "from minillava.asking.loop import *; print(ATTEMPTS, PAID_ATTEMPTS)"
"""

import asyncio
import random
import sys
import time
from collections.abc import Callable

from minillava.asking.journal import Cost
from minillava.asking.request import AskingError, BadReply, Lost, Rejected, Unbilled, most_tokens, read_reply

ATTEMPTS = 7  # of one request, where failing costs nothing: 0.5 + 1 + 2 + 4 + 8 + 16 s of waiting in all
PAID_ATTEMPTS = 3  # of one request, where an attempt may have been billed
MAX_WAIT = 300.0  # an endpoint that asks for more is left alone: run again later
MAX_FAILURES_IN_A_ROW = 10  # requests failed one after another: the fault is not theirs


class AskingRun:
    """One call of `ask_all`, inside its event loop."""

    def __init__(self, todo, teacher, journal, budget, price, concurrency, backoff, bar, outcome):
        self.todo, self.workers = iter(todo), min(concurrency, len(todo))
        self.teacher, self.journal, self.budget, self.price, self.backoff = teacher, journal, budget, price, backoff
        self.bar, self.outcome = bar, outcome
        self.error: AskingError | None = None
        self.held, self.in_flight, self.in_a_row, self.not_before = Cost(), 0, 0, 0.0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.early: list[Callable[[], None]] = []
        self.tasks: list[asyncio.Task] = []

    def call(self, what: Callable[[], None]) -> None:
        """Do something in the loop, from another thread; before the loop is there, as soon as it is."""
        if self.loop is None:
            self.early.append(what)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(what)

    async def run(self) -> None:
        self.stopping, self.settled, self.dirty = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.loop = asyncio.get_running_loop()
        await self.teacher.open()
        syncing = asyncio.create_task(self.sync())
        self.tasks = [asyncio.create_task(self.work()) for _ in range(self.workers)]
        for what in self.early:
            what()
        try:
            await asyncio.gather(*self.tasks)
        finally:
            syncing.cancel()
            await self.teacher.close()
            self.journal.sync()
        if self.error:
            raise self.error

    def interrupt(self) -> None:
        self.bar.write(
            f"Stopping: waiting for {self.in_flight} requests in flight (Ctrl-C again drops them)", sys.stderr
        )
        self.stop("stopped by Ctrl-C")

    def drop(self) -> None:
        for task in self.tasks:
            task.cancel()

    def stop(self, reason: str | AskingError) -> None:
        """Send nothing more; what is in flight is awaited. An AskingError is raised at the end."""
        if isinstance(reason, AskingError):
            self.error = self.error or reason
        self.outcome.stopped = self.outcome.stopped or str(reason)
        self.stopping.set()
        self.settled.set()

    async def sync(self) -> None:
        """fsync whatever was written since the last one, many lines at a time, away from the loop."""
        while True:
            await self.dirty.wait()
            self.dirty.clear()
            try:
                await asyncio.to_thread(self.journal.sync)
            except AskingError as error:
                self.stop(error)

    async def work(self) -> None:
        while not self.stopping.is_set() and (item := next(self.todo, None)):
            try:
                failure = await self.one(*item)
            except AskingError as error:
                self.stop(error)
                return
            if failure:
                self.outcome.failures[item[0]] = failure
                self.in_a_row += 1
                self.show(failed=True)
                if self.in_a_row >= MAX_FAILURES_IN_A_ROW:
                    self.stop(AskingError(f"{self.teacher.endpoint}: {MAX_FAILURES_IN_A_ROW} requests failed one after another; the last: {failure}"))  # fmt: skip

    async def one(self, name: str, body: dict, label: str) -> str | None:
        """Ask one request until it is answered or has failed; the reason of a failure, None otherwise."""
        prompt, completion = most_tokens(body)
        most = prompt, completion, self.price.of(prompt, completion) if self.price else None
        reason, free, paid = "", 0, 0
        while free < ATTEMPTS and paid < PAID_ATTEMPTS:
            if reason:
                self.outcome.retries += 1
            await self.gate()
            if self.stopping.is_set() or not await self.hold(most):
                return None  # not a failure: it was not asked to the end
            try:
                self.journal.asking(name, most)
                reply = read_reply(await self.teacher.complete(body, name), body)
            except Unbilled as error:
                free, reason = free + 1, str(error)
                self.journal.free(name)
                if (error.wait or 0) > MAX_WAIT:
                    self.stop(
                        f"the endpoint asks to wait {error.wait:.0f} s ({error}); run the same command again then"
                    )
                    return None
                wait = self.backoff * 2 ** (free - 1) * random.uniform(0.75, 1.25) if error.wait is None else error.wait
                if error.everyone:
                    self.not_before = max(self.not_before, time.monotonic() + wait)
                else:
                    await self.pause(wait)
            except Lost as error:
                paid, reason = paid + 1, str(error)
                self.journal.lost(most)
            except BadReply as error:
                paid, reason = paid + 1, str(error)
                tokens = error.tokens or most[:2]
                self.journal.free(name, (*tokens, self.price.of(*tokens) if self.price else None))
            except Rejected as error:
                self.journal.free(name)
                return str(error)
            else:
                usd = self.price.of(reply.prompt_tokens, reply.completion_tokens) if self.price else None
                self.journal.keep(name, reply, usd, name=label)
                self.dirty.set()
                self.in_a_row = 0
                self.show()
                return None
            finally:
                self.release(most)
        return f"{reason} ({free + paid} attempts)"

    async def gate(self) -> None:
        """Wait until the endpoint may be asked again."""
        while (wait := self.not_before - time.monotonic()) > 0 and not self.stopping.is_set():
            await self.pause(wait)

    async def pause(self, seconds: float) -> None:
        """Sleep, unless all is to stop."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except asyncio.TimeoutError:
            return

    async def hold(self, most: tuple[int, int, float | None]) -> bool:
        """Set aside what a request can cost. Waits for others to settle; False (and a stop) when it can never fit."""
        while True:
            after = Cost(self.held.prompt, self.held.completion, self.held.usd)
            after.add(*most)
            if self.budget.allows(self.journal.spent, after):
                self.held, self.in_flight = after, self.in_flight + 1
                return True
            if not self.in_flight:
                self.stop(f"the budget of {self.budget} would be exceeded")
            if self.stopping.is_set():
                return False
            self.settled.clear()
            await self.settled.wait()

    def release(self, most: tuple[int, int, float | None]) -> None:
        self.held.add(-most[0], -most[1], -(most[2] or 0.0))
        self.in_flight -= 1
        self.settled.set()

    def show(self, failed: bool = False) -> None:
        spent = f"${self.journal.spent.usd:.4f}" if self.price else f"{self.journal.spent.tokens:,} tokens"
        notes = [f"{n} {what}" for n, what in ((self.outcome.retries, "retried"), (len(self.outcome.failures), "failed")) if n]  # fmt: skip
        self.bar.set_postfix_str(", ".join([spent, *notes]), refresh=False)
        self.bar.update(0 if failed else 1)

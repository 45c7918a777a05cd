"""Answers that are written side by side: a request joins the others, and leaves them, between any two tokens.

Notable
- The tokens of a row do not depend on the rows beside it. They are those of `chat`, as decoding in a batch is equal to
  decoding one by one.
- One thread does all the model's work. New rows join every `JOIN_EVERY` tokens, as joining copies the others' cache.
- A row whose client has gone leaves at the next token. What waits is bounded by `WAITING`, what is written by `most`.

Try it: `rows = Rows(chat.model); rows.join([row]); rows.step()` until `row.finished`.

B batch, T tokens, P patches, S pixels per side, D width, V vocabulary.
"""

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

import torch

from minillava.errors import UserError
from minillava.model import Cache
from minillava.model.generate import Stop, choose, text_after
from minillava.serving.reading import Asked

JOIN_EVERY = 8  # tokens
READ = 16  # prompts at the same time: of 64 each takes 1.2 times as long on a CPU, and the others wait for them
WAITING = 256  # requests that wait for a place; more are refused


class Busy(UserError):
    """Too many requests wait already."""


class Row:
    """One answer. tell(text, finished): called with each new piece of it; finished is None, "stop" or "length", or, with
    no text, "error" or "stopped" (the server ends).

    ids: (T,) of the prompt. picture: (1, 3, S, S) as the vision tower takes it, or None. length: tokens of the prompt,
    patches too. room: the most tokens of the answer. ends: a `Stop`. asked: how the answer is chosen, and whether its
    text is told as it comes or only at the end.
    """

    def __init__(
        self,
        ids: torch.Tensor,
        picture: torch.Tensor | None,
        length: int,
        room: int,
        ends: Stop,
        tell: Callable[[str, str | None], None],
        asked: Asked,
    ):
        self.ids, self.picture, self.length, self.room, self.ends, self.tell = ids, picture, length, room, ends, tell
        self.asked, self.draw = asked, torch.Generator().manual_seed(asked.seed)
        self.answer, self.shown = [], ""
        self.finished: str | None = None
        self.gone = False  # its client no longer waits

    def usage(self) -> dict:
        """How many tokens it took, in the API's form."""
        said = len(self.answer)
        return {"prompt_tokens": self.length, "completion_tokens": said, "total_tokens": self.length + said}

    async def leave(self) -> None:
        """Nobody waits for this answer any more: its place becomes free at the next token."""
        self.gone = True

    def take(self, token: int) -> None:
        """The next token of the answer."""
        self.answer.append(token)
        if self.ends.reached(self.answer):
            self.finished = "stop"
        elif len(self.answer) == self.room:
            self.finished = "length"
        elif not self.asked.streams:
            return
        whole = self.ends.text_before if self.finished else self.ends.settled
        text = whole(self.answer).strip()
        new, self.shown = text_after(self.shown, text), text
        if new or self.finished:
            self.tell(new, self.finished)


class Rows:
    """The rows that are being written, of one model."""

    def __init__(self, model):
        self.model, self.rows = model, []
        self.cache = self.hidden = None  # of the tokens so far; (B, D), from which the next token is chosen

    @torch.inference_mode()
    def join(self, new: list[Row]) -> None:
        """Read the prompts of new rows, and go on with them and the others."""
        language, weight = self.model.language_model, self.model.vision_tower.pre_layrnorm.weight
        shown = [row.picture for row in new if row.picture is not None]
        features = []
        if shown:
            features = list(self.model.features(torch.cat(shown).to(weight.device, weight.dtype)))  # (P, Dv) each
        pictures = [[] if row.picture is None else [features.pop(0)] for row in new]
        embeds, _, mask = self.model.splice_batch([row.ids for row in new], pictures, pad="left")  # (B, T, D), (B, T)
        B, T, _ = embeds.shape
        room = max(row.room - len(row.answer) for row in [*self.rows, *new])
        cache = Cache(language.config, B, T + room, embeds.device, embeds.dtype)
        newest = torch.arange(1, B + 1, device=embeds.device) * T - 1
        hidden = language(embeds, mask=mask, cache=cache, wanted=newest)  # (B, D)
        if self.rows:
            self.cache.join(cache, room)
            self.hidden = torch.cat([self.hidden, hidden])
        else:
            self.cache, self.hidden = cache, hidden
        self.rows = self.rows + new

    @torch.inference_mode()
    def step(self) -> None:
        """One more token for each row. Rows that have ended, or whose client has gone, leave."""
        language = self.model.language_model
        scores = language.head(self.hidden)  # (B, V)
        tokens = choose(scores, 0, 1, [])  # (B,)
        for i, row in enumerate(self.rows):
            if row.asked.temperature:
                tokens[i] = choose(scores[i : i + 1], row.asked.temperature, row.asked.top_p, [row.draw])[0]
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.take(token)
        going = [i for i, row in enumerate(self.rows) if not (row.finished or row.gone)]
        if not going:
            self.rows, self.cache, self.hidden = [], None, None
            return
        if len(going) < len(self.rows):
            going = self.cache.keep(going)
            tokens, self.rows = tokens[going], [self.rows[i] for i in going]
        self.hidden = language(language.embed(tokens[:, None]), cache=self.cache)[:, -1]  # (B, D)


class Writer(threading.Thread):
    """The thread that writes all answers. most: rows at the same time."""

    def __init__(self, model, most: int):
        super().__init__(name="writer", daemon=True)
        self.rows, self.most, self.waiting = Rows(model), most, queue.Queue(WAITING)
        self.stopping = False

    def add(self, row: Row) -> None:
        """Let a row wait for its turn. Raises Busy."""
        try:
            self.waiting.put_nowait(row)
        except queue.Full:
            raise Busy(f"{WAITING} requests wait already; ask again later") from None
        if self.stopping:  # asked only now: what waited before that, the thread finds and tells
            raise Busy("the server is stopping")

    def end(self) -> None:
        """End the thread after the token at hand. All who still wait hear of it, so no connection stays open."""
        self.stopping = True
        with suppress(queue.Full):  # then it waits for nothing
            self.waiting.put_nowait(None)

    def run(self) -> None:
        self._write()
        while not self.waiting.empty():
            self.rows.rows.append(self.waiting.get())
        for row in filter(None, self.rows.rows):
            if not row.finished:
                row.tell("", "stopped")

    def _write(self) -> None:
        while not self.stopping:
            rows = self.rows
            new = self._new(wait=not rows.rows)
            try:
                if new:
                    rows.join(new)
                for _ in range(JOIN_EVERY):
                    if rows.rows and not self.stopping:
                        rows.step()
            except Exception:  # a bug, or memory that is full: every client hears of it, and the server goes on
                logging.getLogger(__name__).exception("answers failed")
                self.rows = Rows(rows.model)
                for row in {*rows.rows, *new}:
                    if not row.finished:
                        row.tell("", "error")

    def _new(self, wait: bool) -> list[Row]:
        """The rows that may join now. wait: until there is one."""
        found = []
        try:
            while len(found) < min(READ, self.most - len(self.rows.rows)):
                row = self.waiting.get(block=wait and not found)
                if row is None:
                    break
                if not row.gone:
                    found.append(row)
        except queue.Empty:
            pass
        return found

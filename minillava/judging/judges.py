"""The judges of section 5.1 behind one interface: a model at any OpenAI-compatible endpoint, and the offline rule.

Notable: what does not join (an answer too few, twice, empty, to another question) is left out before anything is asked,
and named. The API's judge goes through `minillava.asking`: every reply is in a journal before it is read, so a stopped
run goes on and nothing is paid for twice. A reply without two scores keeps its words in the file of reviews and has no
`tuple`; `reviews.read_reviews` then counts it as excluded.

    minillava judge bench --bench data_samples/bench/coco --answers answers.jsonl --out reviewed
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minillava.asking import (
    NO_LIMIT,
    Budget,
    ChatClient,
    Journal,
    Price,
    ask_all,
    chat_request,
    confirm,
    estimate_cost,
    request_key,
)
from minillava.files import Excluded, FileError, is_id
from minillava.judging.bench import Item
from minillava.judging.reviews import ScoreError, read_scores
from minillava.judging.rubric import RULES, review_messages, rubric_of


@dataclass(frozen=True)
class Case:
    """One review to be written: a question, the candidate's answer, and which of the two answers stands first."""

    item: Item
    answer: str
    answer_id: str
    swapped: bool = False

    @property
    def name(self) -> str:
        return f"question {self.item.question_id}" + (" (candidate first)" if self.swapped else "")

    @property
    def both(self) -> tuple[str, str]:
        pair = self.item.reference, self.answer
        return pair[::-1] if self.swapped else pair


def match_answers(items: list[Item], answers: list[dict], path: Path) -> tuple[list[Case], list[Excluded]]:
    """The questions that this file answers, and what is left out of it.

    answers: rows in the authors' format (question_id, text; prompt and answer_id where there are any). Left out: a missing
    or empty answer, an id that stands twice (no telling which counts), an answer to no question of the benchmark, or to
    another question (its `prompt` differs). Raises FileError where the file is of another benchmark: none of its ids is a
    question's here, or more of its prompts are of other questions than of these.
    """
    of = {item.question_id: item for item in items}
    times, rows, bad = Counter(), {}, []
    for n, row in enumerate(answers, 1):
        i = row.get("question_id")
        if not is_id(i) or i not in of:
            bad.append(Excluded(f"question {i}" if i is not None else f"row {n}", "not a question of this benchmark"))
        else:
            times[i] += 1
            rows[i] = row
    cases, others = [], 0
    for i, item in of.items():
        text, asked = rows.get(i, {}).get("text"), _question(rows.get(i, {}).get("prompt"))
        why = (
            "no answer" if i not in rows
            else f"answered {times[i]} times" if times[i] > 1
            else "an empty answer" if not isinstance(text, str) or not text.strip()
            else f"the answer is to another question, {asked!r}" if asked is not None and asked != _question(item.text)
            else ""
        )  # fmt: skip
        others += why.startswith("the answer is to another question")
        if why:
            bad.append(Excluded(f"question {i}", why))
        else:
            model = rows[i].get("model_id", Path(path).stem)
            cases.append(Case(item, text, str(rows[i].get("answer_id", f"{model}-{i}"))))
    if others > len(cases) or not cases:
        raise FileError(f"{path}: an answer file of another benchmark? {len(cases) or 'None'} of its {len(answers)} rows answer one of the {len(items)} questions; {bad[0]}")  # fmt: skip
    return cases, bad


def _question(text: object) -> str | None:
    """A prompt without its image token and spaces at the ends; None for what is no text."""
    return " ".join(text.replace("<image>", " ").split()) if isinstance(text, str) else None


@dataclass
class Judged:
    """What a judge said. texts: (case, the review, the id of who wrote it). excluded: what was not judged, and why.
    stopped: why not everything was asked, where it was not."""

    texts: list[tuple[Case, str, str]]
    excluded: list[Excluded] = field(default_factory=list)
    stopped: str = ""


class Judge(Protocol):
    id: str

    def review(self, cases: Sequence[Case], runs: int = 1) -> list[Judged]:
        """What the judge says of all cases, so many times over."""


class ApiJudge:
    """A model that reads context, question and answers, as text-only GPT-4 does in the paper.

    client: `asking.client.Client`, or anything with its four names. folder: of the journal. rules: of `rubric.read_rules`.
    Settings as in the authors' call (paper.JUDGE): temperature 0.2, 1,024 tokens. `review` raises AskingError where asking
    cannot go on; what was answered by then is in the journal.
    """

    def __init__(self, client: ChatClient, folder: Path, rules: dict | None = None, budget: Budget = NO_LIMIT,
                 price: Price | None = None, yes: bool = False, concurrency: int = 16, temperature: float = 0.2,
                 max_tokens: int = 1024):  # fmt: skip
        self.client, self.folder, self.rules = client, Path(folder), RULES if rules is None else rules
        self.budget, self.price, self.yes, self.concurrency = budget, price, yes, concurrency
        self.temperature, self.max_tokens = temperature, max_tokens
        self.id = client.model

    def body(self, case: Case, run: int = 0) -> dict:
        """The request for one review. A run after the first has a seed of its own, so that it is another request."""
        asked = review_messages(case.item, case.both, self.rules[rubric_of(case.item)])
        return chat_request(
            self.client.model, asked, self.max_tokens, self.temperature, **({"seed": run} if run else {})
        )

    def split(self, cases: Sequence[Case]) -> tuple[list[Case], list[Excluded]]:
        """The cases that have a rubric, and those that do not."""
        known = [c for c in cases if rubric_of(c.item) in self.rules]
        why = lambda c: f"no rubric for {rubric_of(c.item)!r}; there are {', '.join(self.rules)}"  # noqa: E731
        return known, [Excluded(c.name, why(c)) for c in cases if rubric_of(c.item) not in self.rules]

    def review(self, cases: Sequence[Case], runs: int = 1) -> list[Judged]:
        known, excluded = self.split(cases)
        asked = [(run, case, self.body(case, run)) for run in range(runs) for case in known]
        bodies = [body for _, _, body in asked]
        with Journal(self.folder) as journal:
            missing = [body for body in bodies if request_key(body) not in journal.replies]
            confirm(
                estimate_cost(missing, self.price, reply=250),
                self.budget,
                self.client.endpoint,
                self.yes or not missing,
            )
            names = [f"{case.name}, run {run + 1}" for run, case, _ in asked]
            outcome = ask_all(bodies, self.client, journal, self.budget, self.price, self.concurrency, names)
        out = [Judged([], [] if run else excluded, outcome.stopped) for run in range(runs)]
        for run, case, body in asked:
            reply, failure = outcome.replies.get(request_key(body)), outcome.failures.get(request_key(body))
            if reply and reply.text.strip():
                out[run].texts.append((case, reply.text, reply.model))
            else:
                declined = reply and f"the judge declined: {reply.refusal or reply.finish}"
                out[run].excluded.append(Excluded(case.name, declined or failure or f"not asked: {outcome.stopped}"))
        return out


def review_rows(judged: Judged) -> list[dict]:
    """The reviews as rows of the authors' format, with the judge's id; `tuple` is null where no two scores can be read."""
    rows = []
    for case, text, judge in judged.texts:
        try:
            scores = list(read_scores(text))
        except ScoreError:
            scores = None
        ids = ["reference", case.answer_id]
        first, second = ids[::-1] if case.swapped else ids
        row = {"id": len(rows) + 1, "question_id": case.item.question_id, "answer1_id": first, "answer2_id": second,
               "category": case.item.category, "content": text, "tuple": scores, "judge": judge}  # fmt: skip
        rows.append(row | ({"swapped": True} if case.swapped else {}))
    return rows


def both_orders(cases: Sequence[Case]) -> list[Case]:
    """Every case twice: as the authors have it, reference first, and with the candidate first (position bias)."""
    return [*cases, *(Case(c.item, c.answer, c.answer_id, swapped=True) for c in cases)]


def mean_words(cases: Sequence[Case]) -> dict[str, float]:
    """Mean words of the references and of the candidates: judges like length, so it is told beside a score."""
    words = lambda texts: round(statistics.mean(len(t.split()) for t in texts), 1)  # noqa: E731
    return {"reference": words(c.item.reference for c in cases), "candidate": words(c.answer for c in cases)}

"""The judges of section 5.1 behind one interface: a model at any OpenAI-compatible endpoint, and the offline rule.

Answers that cannot be matched to a question (missing, given twice, empty, to another question) are left out and named
before anything is asked. The API's judge keeps every reply in a journal (`minillava.asking`), so a stopped run resumes
and nothing is paid for twice. A reply without two scores has no `tuple` in the file of reviews and is excluded there.

    minillava judge bench --bench data_samples/bench/coco --answers answers.jsonl --out reviewed
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minillava.asking import ChatClient, Reply, ask_with_consent, chat_request, final_text, request_key
from minillava.files import Excluded, FileError, is_id
from minillava.judging.bench import Item, another_question
from minillava.judging.reviews import ScoreError, read_scores
from minillava.judging.rubric import RULES, review_messages, rubric_of


@dataclass(frozen=True)
class Case:
    """One review to write: a question, the candidate's answer, and whether it comes before the reference (swapped)."""

    item: Item
    answer: str
    answer_id: str
    swapped: bool = False

    @property
    def name(self) -> str:
        return f"question {self.item.question_id}" + (" (candidate first)" if self.swapped else "")

    @property
    def both(self) -> tuple[str, str]:
        """The two answers in the order in which the judge reads them."""
        pair = self.item.reference, self.answer
        return pair[::-1] if self.swapped else pair


def match_answers(items: list[Item], answers: list[dict], path: Path) -> tuple[list[Case], list[Excluded]]:
    """One case for each question that the file answers, and what is left out.

    answers: rows in the authors' format (question_id and text; optionally prompt and answer_id). Left out: missing and
    empty answers, ids that occur twice, answers to another question (unknown id, other `prompt` or `image`).
    Raises FileError for a file of another benchmark: no answer is left, or more prompts differ than agree.
    """
    known = {item.question_id: item for item in items}
    times, rows, excluded = Counter(), {}, []
    for n, row in enumerate(answers, 1):
        i = row.get("question_id")
        if not is_id(i) or i not in known:
            name = f"row {n}" if i is None else f"question {i}"
            excluded.append(Excluded(name, "not a question of this benchmark"))
        else:
            times[i] += 1
            rows[i] = row
    cases, others = [], 0
    for i, item in known.items():
        row = rows.get(i, {})
        text, other = row.get("text"), another_question(row, item.text, image=item.image)
        text = final_text(text) if isinstance(text, str) else None
        why = (
            "no answer" if i not in rows
            else f"answered {times[i]} times" if times[i] > 1
            else "an empty answer" if not text or not text.strip()
            else other
        )  # fmt: skip
        others += bool(other)
        if why:
            excluded.append(Excluded(f"question {i}", why))
        else:
            model = rows[i].get("model_id", Path(path).stem)
            cases.append(Case(item, text, str(rows[i].get("answer_id", f"{model}-{i}"))))
    if others > len(cases) or not cases:
        count = f"{len(cases) or 'None'} of its {len(answers)} rows answer one of the {len(items)} questions"
        raise FileError(f"{path}: is this an answer file of another benchmark? {count}; {excluded[0]}")
    return cases, excluded


@dataclass
class Judged:
    """What a judge wrote. texts: (case, review, the judge's id). excluded: what was not judged, and why.
    stopped: why some requests were not sent; empty if all were."""

    texts: list[tuple[Case, str, str]]
    excluded: list[Excluded] = field(default_factory=list)
    stopped: str = ""


class Judge(Protocol):
    id: str

    def review(self, cases: Sequence[Case], runs: int = 1) -> list[Judged]:
        """The judge's reviews of all cases, once per run."""


class ApiJudge:
    """A model that reads context, question and answers, as text-only GPT-4 does in the paper.

    folder: of the journal. rules: as from `rubric.read_rules`. temperature, max_tokens: the authors' (paper.JUDGE).
    terms: budget, price, concurrency and yes of `ask_with_consent`. `review` raises AskingError where asking cannot
    continue; the journal keeps the replies so far.
    """

    def __init__(
        self, client: ChatClient, folder: Path, rules: dict | None = None, temperature=0.2, max_tokens=1024, **terms
    ):
        self.client, self.folder, self.terms = client, Path(folder), terms
        self.rules = RULES if rules is None else rules
        self.temperature, self.max_tokens = temperature, max_tokens
        self.id = client.model

    def body(self, case: Case, run: int = 0) -> dict:
        """The request for one review. Each further run has its own seed, which makes it a different request."""
        messages = review_messages(case.item, case.both, self.rules[rubric_of(case.item)])
        seed = {"seed": run} if run else {}
        return chat_request(self.client.model, messages, self.max_tokens, self.temperature, **seed)

    def split(self, cases: Sequence[Case]) -> tuple[list[Case], list[Excluded]]:
        """The cases that have a rubric, and those that do not."""
        known, excluded = [], []
        for case in cases:
            if (name := rubric_of(case.item)) in self.rules:
                known.append(case)
            else:
                excluded.append(Excluded(case.name, f"no rubric for {name!r}; there are {', '.join(self.rules)}"))
        return known, excluded

    def review(self, cases: Sequence[Case], runs: int = 1) -> list[Judged]:
        known, excluded = self.split(cases)
        asked = [(run, case, self.body(case, run)) for run in range(runs) for case in known]
        names = [f"{case.name}, run {run + 1}" for run, case, _ in asked]
        bodies = [body for *_, body in asked]
        outcome = ask_with_consent(bodies, names, 250, self.folder, self.client, **self.terms)
        out = [Judged([], [] if run else excluded, outcome.stopped) for run in range(runs)]
        for run, case, body in asked:
            reply, failure = outcome.replies.get(request_key(body)), outcome.failures.get(request_key(body))
            why = _unusable(reply, self.max_tokens) if reply else failure or f"not asked: {outcome.stopped}"
            if why:
                out[run].excluded.append(Excluded(case.name, why))
            else:
                out[run].texts.append((case, reply.text, reply.model))
        return out


def _unusable(reply: Reply, max_tokens: int) -> str:
    """Why a reply is no review; empty if it is one. A first line that was cut off may have lost a digit of a score."""
    if reply.refusal or reply.finish == "content_filter":
        return f"the judge declined: {reply.refusal or reply.finish}"
    if reply.finish == "length" and "\n" not in reply.text.strip():
        what = "its scores were cut off at" if reply.text.strip() else "its reasoning took all of"
        return f"{what} its limit of {max_tokens:,} tokens; judge with a larger --max-tokens"
    return ""


def review_rows(judged: Judged) -> list[dict]:
    """The reviews as rows of the authors' format and the judge's id; `tuple` is null if two scores cannot be read."""
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
    """Every case twice: with the reference first, as the authors have it, and with the candidate first."""
    return [*cases, *(Case(c.item, c.answer, c.answer_id, swapped=True) for c in cases)]


def mean_words(cases: Sequence[Case]) -> dict[str, float]:
    """Mean number of words of references and candidates, which reports show because judges prefer longer answers."""
    texts = {"reference": [c.item.reference for c in cases], "candidate": [c.answer for c in cases]}
    return {side: round(statistics.mean(len(text.split()) for text in some), 1) for side, some in texts.items()}

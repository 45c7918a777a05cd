"""The offline judge: scores answers against a picture's context by a rule, and explains the scores (section 5.1).

It takes the place of text-only GPT-4 and gets what GPT-4 gets: captions and boxes, the question, and the answers. It
looks up every claim of an answer in what the context tells, and then asks whether the answer is to the question. The
score is the mean of four marks from 1 to 10: helpfulness, relevance, accuracy, level of detail. What is false of the
picture neither helps nor counts as detail.

Notable: the rule is frozen under the name `RULE_ID`, and any change to it makes a new version. (In version 1 a false
aside, "yes, a *red* car", lowered only accuracy.)

    from minillava.standins.judge import review
    print(review("a red car on the left, in a park", "What colour is the car?", ["The car is red.", "It is blue."]))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from minillava.files import Excluded, FileError
from minillava.judging.judges import Case, Judged
from minillava.scenes.questions import Question, is_correct, questions
from minillava.scenes.reading import claims, holds, mentions, sentences
from minillava.scenes.world import COLOURS, SIDES, Scene
from minillava.standins.teacher import read_context

RULE_ID = "picture-book rule 2"
FUNCTION_WORDS = set("a an the is are in on of to one can it this that there and be with here".split())


@dataclass(frozen=True)
class Marks:
    """The four marks of one answer, from 1 to 10 each, and the explanation."""

    helpfulness: float
    relevance: float
    accuracy: float
    detail: float
    why: str

    @property
    def score(self) -> float:
        return round((self.helpfulness + self.relevance + self.accuracy + self.detail) / 4, 1)


@lru_cache(maxsize=1024)
def _read(context: str) -> tuple[Scene, dict[str, Question]]:
    scene = read_context(context)
    return scene, {q.text: q for q in questions(scene)}


def _words(text: str) -> set[str]:
    return set(text.lower().replace(".", " ").replace(",", " ").split())


def _reason(asked: Question, answer: str) -> float:
    """The share of the words of the expected reason that an answer gives; 1 when the question expects no reason."""
    link = next((link for link in ("because", "so perhaps") if link in asked.answer), None)
    if not link:
        return 1.0
    wanted, given = (_words(text.partition(link)[2]) - FUNCTION_WORDS for text in (asked.answer, answer))
    return len(wanted & given) / len(wanted)


def _coverage(scene: Scene, answer: str) -> float:
    """The share of the scene's things that an answer names. A thing named without its colour counts half."""
    found = [m for s in sentences(answer) for m in mentions(s) if not m.denied]
    left, named = list(scene.things), 0.0
    for m in found:
        for thing in left:
            if thing.kind == m.kind and m.colour in (None, thing.colour):
                named += 1.0 if m.colour or not thing.colour else 0.5
                left.remove(thing)
                break
    return named / max(1, len(scene.things))


def claim_text(claim: tuple) -> str:
    """A claim (`scenes.reading.claims`) as text: `side bird purple right`."""
    return " ".join(str(v) for v in claim if v not in (None, False, True))


def marks(context: str, question: str, answer: str) -> Marks:
    """The marks for one answer. Raises ValueError when the context has no captions."""
    scene, known = _read(context)
    asked, stated = known.get(question), claims(answer)
    true = [c for c in stated if holds(c, scene)]
    false = [c for c in stated if c not in true]
    if not answer.strip() or answer.strip() == question.strip():
        return Marks(1, 1, 1, 1, "empty, or the question again")
    share = len(true) / len(stated) if stated else 0.0
    accuracy = 1 + 9 * share
    if asked:  # a question with a definite answer
        correct, reason = is_correct(asked, answer), _reason(asked, answer)
        sound = share if stated else 1.0  # "Red." states nothing but what was asked
        accuracy = 1 + 9 * sound if correct else min(accuracy, 4.0)
        helpfulness = 1 + 9 * correct * sound * (0.5 + 0.5 * reason)
        subjects = {m.kind for s in sentences(question) for m in mentions(s)} | {asked.key}
        said = {m.kind for s in sentences(answer) for m in mentions(s)} | _words(answer)
        typed = {"colour": set(COLOURS), "side": set(SIDES)}.get(asked.kind, {"yes", "no", "nothing"}) & said
        relevance = 10.0 if correct else 1 + 4.5 * bool(subjects & said) + 2.5 * bool(typed)
        whole = bool(true) or len(answer.split()) >= 4  # a sentence, not a single word
        detail = 1 + 9 * correct * sound * (0.4 + 0.6 * whole) * (0.5 + 0.5 * reason)
        why = f"asked for {asked.kind}: {'right' if correct else 'wrong'} (expected {asked.key}); reason {reason:.0%}"
    else:  # a description
        coverage = _coverage(scene, answer)
        wanted = 3 * len(scene.things) + 1  # three facts about each thing, and the place
        helpfulness = 1 + 9 * coverage * share
        relevance = 1 + 9 * bool(true)
        detail = 1 + 9 * min(1.0, 1.25 * len(true) / wanted)
        why = f"a description: names {coverage:.0%} of the things, {len(true)} facts right"
    if false:
        why += f"; not so: {', '.join(map(claim_text, false[:4]))}"
    return Marks(*(round(v, 2) for v in (helpfulness, relevance, accuracy, detail)), why)


def review(context: str, question: str, answers: Sequence[str]) -> str:
    """The review of two answers in GPT-4's format: a line with both scores, then the explanation."""
    both = [marks(context, question, answer) for answer in answers]
    lines = [" ".join(f"{m.score:g}" for m in both)]
    for n, m in enumerate(both, 1):
        parts = ", ".join(f"{k} {getattr(m, k):g}" for k in ("helpfulness", "relevance", "accuracy", "detail"))
        lines.append(f"Assistant {n}: {parts}. {m.why}.")
    return "\n".join(lines)


class OfflineJudge:
    """The rule as a judge. It gives the same reviews each time, so it refuses several runs (FileError)."""

    id = RULE_ID

    def review(self, cases: Sequence[Case], runs: int = 1) -> list[Judged]:
        if runs > 1:
            raise FileError(f"the judge {RULE_ID!r} says the same each time; several runs need a judge behind an API")
        out = Judged([])
        for case in cases:
            try:
                out.texts.append((case, review(case.item.context, case.item.text, case.both), RULE_ID))
            except ValueError as error:  # an unreadable context
                out.excluded.append(Excluded(case.name, str(error)))
        return [out]

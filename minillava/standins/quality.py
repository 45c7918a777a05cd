"""How good is the judge? It compares answers with spoilt copies of them: how often does it prefer the unspoilt one?

This needs no model and no person: a reference answer is true, and every way of spoiling makes it worse by construction.
It measures any judge (`judges.Judge`), also one behind an API. What the offline rule misses is printed. The rule is not
tuned to that, and was frozen before it judged any model's answers.

    minillava judge quality
"""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from minillava.judging.bench import Item
from minillava.judging.judges import Case, Judge
from minillava.judging.reviews import ScoreError, read_scores
from minillava.scenes.captions import SIDE_PHRASES
from minillava.scenes.questions import questions
from minillava.scenes.reading import mentions
from minillava.scenes.world import COLOURS, KINDS, SIDES
from minillava.standins.teacher import read_context
from minillava.text import aligned

OFF_TOPIC = ("I like music.", "Paris is in France.", "It will be fine tomorrow.", "Two and two make four.")
EXAMPLES = 5  # of misses, per way of spoiling


def change_colour(item: Item, rng: random.Random) -> str | None:
    """Another colour instead of one that is stated (but not in the reason, which is about the world)."""
    said = [c for c in COLOURS if c in item.reference.split("because")[0]]
    if not said or item.reference.startswith("No, there is no"):  # that may be true of the other colour as well
        return None
    return item.reference.replace(rng.choice(said), rng.choice([c for c in COLOURS if c not in item.reference]))


def change_side(item: Item, rng: random.Random) -> str | None:
    """Another side instead of one that is stated: on the left, in the middle, on the right."""
    said = [s for s in SIDE_PHRASES.values() if s in item.reference.split("because")[0]]
    if not said:
        return None
    right = rng.choice(said)
    return item.reference.replace(right, rng.choice([s for s in SIDE_PHRASES.values() if s != right]))


def add_object(item: Item, rng: random.Random) -> str:
    """A claim that something is there that is not."""
    there = {t.kind for t in read_context(item.context).things}
    kind = rng.choice([k for k in KINDS if k not in there])
    return f"{item.reference} There is a {rng.choice(list(COLOURS))} {kind} on the {rng.choice(SIDES)}."


def drop_object(item: Item, rng: random.Random) -> str | None:
    """A description without one of its things."""
    if item.category != "detail":
        return None
    parts = item.reference.split(". ")
    kinds = sorted({m.kind for part in parts for m in mentions(part.lower().split("because")[0])})
    dropped = rng.choice(kinds)
    rest = [p for p in parts if dropped not in {m.kind for m in mentions(p.lower().split("because")[0])}]
    return ". ".join(rest) if len(rest) > 1 else None


def only_the_word(item: Item, rng: random.Random) -> str | None:
    """Right, but only the word asked for; of a description, only its first sentence about a thing."""
    if item.category == "detail":
        parts = item.reference.split(". ")
        return parts[1].rstrip(".") + "." if len(parts) > 3 else None
    keys = [q.key for q in questions(read_context(item.context)) if q.text == item.text]
    return f"{keys[0].capitalize()}." if keys else None


def without_reason(item: Item, rng: random.Random) -> str | None:
    """A conclusion without its reason."""
    head, found, _ = item.reference.partition(", because ")
    return f"{head}." if found and item.category == "complex" else None


WAYS_TO_SPOIL: dict[str, Callable[[Item, random.Random], str | None]] = {
    "wrong colour": change_colour,
    "wrong side": change_side,
    "added object": add_object,
    "dropped object": drop_object,
    "off-topic": lambda item, rng: rng.choice(OFF_TOPIC),
    "empty": lambda item, rng: rng.choice(["", "   ", "\n"]),
    "copied question": lambda item, rng: item.text,
    "right but terse": only_the_word,
    "without the reason": without_reason,
}


@dataclass(frozen=True)
class WayResult:
    """What one way of spoiling shows. higher, same: in how many `answers` the unspoilt one scored higher or the same.
    gap: how many points higher, on average. misses: examples, each (question, unspoilt, spoilt, their scores)."""

    way: str
    answers: int
    higher: int
    same: int
    gap: float
    misses: tuple[tuple[str, str, str, str], ...]

    @property
    def share(self) -> float:
        """In how many per cent the unspoilt one scored higher."""
        return 100 * self.higher / self.answers


def measure_judge(judge: Judge, items: list[Item], seed: int = 0) -> list[WayResult]:
    """Spoil every item in every way it allows, and let the judge compare: one row per way. A review that cannot be read
    is a miss. The spoilt answer is the candidate; which answer stands first is random."""
    rng, cases = random.Random(f"spoil {seed}"), []
    for item in items:
        for way, spoil in WAYS_TO_SPOIL.items():
            text = spoil(item, rng)
            if text is not None and text.strip() != item.reference.strip():
                cases.append((way, Case(item, text, way, swapped=rng.random() < 0.5)))
    (judged,) = judge.review([case for _, case in cases])
    said = {id(case): text for case, text, _ in judged.texts}
    gaps, misses = defaultdict(list), defaultdict(list)
    for way, case in cases:
        try:
            first, second = read_scores(said.get(id(case), ""))
        except ScoreError:
            first = second = 0.0
        gap = (second - first) if case.swapped else first - second
        gaps[way].append(gap)
        if gap <= 0:
            scores = f"{first:g} {second:g}" + (" (spoilt first)" if case.swapped else "")
            misses[way].append((case.item.text, case.item.reference, case.answer, scores))
    rows = []
    for way, found in gaps.items():
        higher, same = sum(gap > 0 for gap in found), sum(gap == 0 for gap in found)
        gap = round(sum(found) / len(found), 2)
        rows.append(WayResult(way, len(found), higher, same, gap, tuple(misses[way][:EXAMPLES])))
    return rows


def overall_share(rows: list[WayResult]) -> float:
    """In how many per cent of all answers the judge scores the unspoilt one higher."""
    return 100 * sum(r.higher for r in rows) / sum(r.answers for r in rows)


def quality_table(rows: list[WayResult]) -> str:
    """The rows as a table, and examples of the misses."""
    table = [["spoilt by", "answers", "better first", "same", "points apart"]]
    table += [[r.way, str(r.answers), f"{r.share:.1f}%", str(r.same), f"{r.gap:.2f}"] for r in rows]
    table += [["all", str(sum(r.answers for r in rows)), f"{overall_share(rows):.1f}%", "", ""]]
    lines = [aligned(table), ""]
    for r in rows:
        lines += [f"missed, {r.way}: {q} | {good} | {bad!r} | {scores}" for q, good, bad, scores in r.misses]
    return "\n".join(lines)

"""Reviews by a judge: its two scores read from the text, the relative score, its interval, and how far judges agree.

A number is read as a score only where the text says so: alone on the first line, as the judge is asked to write it, or
next to words about scores. Other numbers (arithmetic, counts), a thinking model's thoughts, and scores that a sentence
only considers ("perhaps scores of 4 and 7") are ignored. A review that cannot be read is excluded and
counted, never averaged in: the authors' script puts -1 in its place, and -1 to -1 is 100 %.
Both of the authors' row formats are read: `content` with `tuple`, and `text` with `score`.

    minillava judge reviews FILE...
"""

import re
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from minillava.asking import final_text
from minillava.files import Excluded, FileError, is_id, read_jsonl
from minillava.judging.bench import CATEGORIES
from minillava.judging.scores import bootstrap, relative_score

LOWEST, HIGHEST = 1, 10
SCORE = r"(-?\d+(?:\.\d+)?)(?!\.?\d)(?:\s*/\s*10(?![\d.]*\d)|\s+out\s+of\s+10)?"
GAP = r"(?:\s*[,;/|&]\s*|\s+(?:and|to|vs\.?|[-–])\s+|\s+)"
SCORES = rf"[\[(]?\s*{SCORE}(?:{GAP}{SCORE})*\s*[\])]?"
SCORE_WORD = re.compile(r"\b(?:scor(?:e|es|ed|ing)|rat(?:e|es|ed|ing|ings))\b", re.I)
CONSIDERED = re.compile(
    r"\b(?:perhaps|maybe|might|could|probably|possibly|tentative(?:ly)?|initial(?:ly)?|first thought|hmm+|too \w+)\b",
    re.I,
)
FINAL_WORD = re.compile(r"\b(?:overall|final|finally|in total|conclusion)\b", re.I)
SCORES_LINE = re.compile(
    rf"(?i:(?:overall\s+)?(?:scores?|ratings?)\s*[:=]\s*)?{SCORES}\s*(?P<end>$|[.:;–-](?!\d)|(?<=\s)(?=[A-Z]))"
)
# `scores are (1, 5)`, `"scores": [8, 9]`, `scores for the two are 8 and 9`; labels are FIRST and SECOND by then
STATED = re.compile(
    rf"\b(?:scores|ratings)\b[^.\n\d]{{0,80}}?(?:\bare\b|\bis\b|\bof\b|[:=])\s*({SCORES})"
    r"(?=\s*(?:[.,;}]|$|for\b|respectively\b))", re.I,
)  # fmt: skip
LABEL = re.compile(r"\b(?:assistant|answer|response|ai|model)\s*[#(]?\s*(1|2|a|b|one|two)\b\)?", re.I)
PLACE_OF_LABEL = {"1": 0, "a": 0, "one": 0, "2": 1, "b": 1, "two": 1}
FIRST, SECOND = "\N{CIRCLED LATIN CAPITAL LETTER A}", "\N{CIRCLED LATIN CAPITAL LETTER B}"
LABELLED = re.compile(
    r"^\W*(?:\d[.)]\s*)?(?:(?:scores?|ratings?)\s*:\s*)?(?:(?:scores?|ratings?)\s+(?:for|of)\s+)?"
    rf"([{FIRST}{SECOND}])(?:'s)?\s*(?:scores?|ratings?)?\s*[:=-]\s*{SCORE}\s*(?:$|[(,;–-]|\.(?!\d))", re.I,
)  # fmt: skip
GIVEN = re.compile(
    rf"([{FIRST}{SECOND}])[^.\n\d{FIRST}{SECOND}]*?\b(?:(?:score|rating)\s+(?:of|is)|scores|scored|rated|an?|at)"
    rf"\s+{SCORE}(?=\s*(?:[.,;)]|$|and\b|while\b|whereas\b|but\b|for\b|[{FIRST}{SECOND}]))", re.I,
)  # fmt: skip


class ScoreError(ValueError):
    """A review whose two scores cannot be read; the message says why."""


def _numbers(text: str) -> list[float]:
    return [float(v) for v in re.findall(SCORE, text)]


def _stated(lines: list[str]) -> list[tuple[str, tuple[float, ...]]]:
    """Every statement of scores in a review, in order: (its line or sentence, the scores)."""
    found = []
    for n, line in enumerate(lines):
        above = lines[n - 1] if n else ""
        alone = SCORES_LINE.match(line)
        if alone and not alone["end"] and alone.end() == len(line) and SCORE_WORD.search(above):
            found.append((f"{above} {line}", tuple(_numbers(line))))
        found += [(_sentence(line, m.start()), tuple(_numbers(m[1]))) for m in STATED.finditer(line)]
        here, below = LABELLED.match(line), LABELLED.match(lines[n + 1]) if n + 1 < len(lines) else None
        if here and below and here[1] == FIRST and below[1] == SECOND:
            if n == 0 or SCORE_WORD.search(above) or (SCORE_WORD.search(line) and SCORE_WORD.search(lines[n + 1])):
                found.append((f"{above} {line}", (float(here[2]), float(below[2]))))
        labelled = dict(p for part in re.split(r"[,;]\s*(?=\S)", line) for p in LABELLED.findall(part))
        if labelled.keys() == {FIRST, SECOND} and (n == 0 or SCORE_WORD.search(f"{above} {line}")):
            found.append((f"{above} {line}", (float(labelled[FIRST]), float(labelled[SECOND]))))
        for sentence in re.split(r"(?<=[.!?])\s+(?=\D)", line):
            given = {m[1]: float(m[2]) for m in GIVEN.finditer(sentence)}
            if SCORE_WORD.search(sentence) and given.keys() == {FIRST, SECOND}:
                found.append((sentence, (given[FIRST], given[SECOND])))
    return [(where, scores) for where, scores in found if not CONSIDERED.search(where)]


def _sentence(line: str, at: int) -> str:
    """The sentence of a line at a position, and the one after it."""
    begin = max([m.end() for m in re.finditer(r"[.!?]\s", line[:at])], default=0)
    return re.match(r"(?:[^.!?]|[.!?](?!\s|$))*(?:[.!?]\s+[^.!?]*)?", line[begin:])[0]


def read_scores(text: str) -> tuple[float, float]:
    """The scores of answers 1 and 2 that a review's text states.

    Raises ScoreError for other than two scores, for several pairs if none is called overall or final, for scores
    outside 1 to 10, and for nothing but thoughts.
    """
    plain = re.sub(r"[*`_#]+", "", final_text(text))
    plain = LABEL.sub(lambda m: (FIRST, SECOND)[PLACE_OF_LABEL[m[1].lower()]], plain)
    lines = [" ".join(line.split()) for line in plain.splitlines() if line.strip()]
    if not lines:
        raise ScoreError("nothing but the judge's thoughts" if text.strip() else "an empty review")
    first, found = SCORES_LINE.match(lines[0]), []
    if first and (len(_numbers(first[0])) > 1 or first.end() == len(lines[0])):
        found = [tuple(_numbers(first[0]))]
    if not found:
        stated = _stated(lines)
        alone = [tuple(_numbers(line)) for line in lines if (m := SCORES_LINE.match(line)) and m.end() == len(line)]
        stated += [("", pair) for pair in alone if stated and len(pair) == 2]  # may contradict what is stated
        last = [scores for where, scores in stated if FINAL_WORD.search(where)]
        found = list(dict.fromkeys(last or [scores for _, scores in stated]))
    if not found:
        raise ScoreError("no scores in the review")
    if len(found) > 1:
        raise ScoreError(f"several pairs of scores: {' and '.join(' '.join(f'{v:g}' for v in pair) for pair in found)}")
    (scores,) = found
    if len(scores) != 2:
        raise ScoreError(f"{len(scores)} {'score' if len(scores) == 1 else 'scores'} where two were asked for")
    if not all(LOWEST <= v <= HIGHEST for v in scores):
        raise ScoreError(f"scores outside {LOWEST} to {HIGHEST}: {scores[0]:g} {scores[1]:g}")
    return scores


@dataclass(frozen=True)
class Review:
    """One usable review. reference, candidate: their scores, in either order of the answers. category: without its
    benchmark's prefix, or "". swapped: the candidate came first."""

    question_id: int | str
    category: str
    reference: float
    candidate: float
    judge: str = ""
    swapped: bool = False


@dataclass(frozen=True)
class Reviews:
    """A file of reviews: the usable ones, the excluded ones, and notes on rows that contradict their text."""

    path: Path
    used: list[Review]
    excluded: list[Excluded]
    noticed: list[str]


def _review(row: dict) -> tuple[Review, str]:
    """One row as a Review, with a note where its stored scores are not those of its text. Raises ScoreError."""
    text = row.get("content", row.get("text"))
    if not isinstance(text, str):
        raise ScoreError("no review text (`content` or `text`)")
    scores, stored, note = read_scores(text), row.get("tuple", row.get("score")), ""
    if stored is not None and stored != list(scores):
        note = f"the text says {scores[0]:g} {scores[1]:g}, the row {stored}; the text counts"
    category = str(row.get("category") or "").removeprefix("llava_bench_")
    swapped = row.get("swapped") or False
    if row.get("swapped") not in (None, True, False):
        raise ScoreError(f"`swapped` must be true or false, not {row['swapped']!r}")
    reference, candidate = scores[::-1] if swapped else scores
    judge = str(row.get("judge", row.get("reviewer_id", "")))
    return Review(row["question_id"], category, reference, candidate, judge, swapped), note


def read_reviews(path: Path) -> Reviews:
    """The reviews of a JSONL file. Raises FileError naming it if no row is a usable review."""
    used, excluded, noticed, seen = [], [], [], set()
    for n, row in enumerate(read_jsonl(path), 1):
        name = f"question {row['question_id']}" if "question_id" in row else f"row {n}"
        name += " (candidate first)" if row.get("swapped") is True else ""
        try:
            if "question_id" not in row:
                raise ScoreError("no `question_id`")
            if not is_id(row["question_id"]):
                raise ScoreError("its `question_id` is neither a number nor a text")
            review, note = _review(row)
            if (review.question_id, review.swapped) in seen:
                raise ScoreError("occurs twice; the first was used")
        except ScoreError as error:
            excluded.append(Excluded(name, str(error)))
            continue
        seen.add((review.question_id, review.swapped))
        used.append(review)
        noticed += [f"{name}: {note}"] if note else []
    if not used:
        what = f"; {excluded[0]}" if excluded else " (the file is empty)"
        raise FileError(f"{path}: no review in it can be used{what}")
    return Reviews(Path(path), used, excluded, noticed)


def scores_by_question(reviews: list[Review], category: str | None = None) -> dict:
    """question id -> (reference, candidate) scores; the mean of both orders where both were judged."""
    rows = defaultdict(list)
    for r in reviews:
        if category in (None, r.category):
            rows[r.question_id].append((r.reference, r.candidate))
    return {q: tuple(statistics.mean(side) for side in zip(*scores)) for q, scores in rows.items()}


def relative_scores(reviews: list[Review], draws: int = 1000) -> dict[str, dict]:
    """Per category and for `all` questions: relative score, its 95 % interval over questions, means, question count.

    `all` is over all questions, not the mean of the categories; the means are rounded to 3 digits before the division,
    as in the authors' script (facts B6). Raises ValueError without reviews.
    """
    place = {c: n for n, c in enumerate(CATEGORIES)}
    out, names = {}, sorted({r.category for r in reviews if r.category}, key=lambda c: (place.get(c, len(place)), c))
    for name in [*names, "all"]:
        of = list(scores_by_question(reviews, None if name == "all" else name).values())
        reference, candidate = (round(statistics.mean(side), 3) for side in zip(*of))
        out[name] = {
            "relative": round(relative_score([(reference, candidate)]), 1),
            "interval": [round(v, 1) for v in bootstrap(of, draws)],
            "reference": reference,
            "candidate": candidate,
            "questions": len(of),
        }
    return out


def _winner(review: Review) -> int:
    """1 if the candidate scores higher, -1 if the reference does, 0 if they are equal."""
    return (review.candidate > review.reference) - (review.candidate < review.reference)


def position_bias(reviews: list[Review]) -> dict | None:
    """How much being first is worth to an answer, over the questions judged in both orders; None if there are none.

    points: the mean of (first - second) over both orders; 0 for a judge without bias. turned: the share of the
    questions, in per cent, where the order decides which answer is better.
    """
    plain, swapped = ({r.question_id: r for r in reviews if r.swapped is way} for way in (False, True))
    both = [(plain[q], swapped[q]) for q in plain if q in swapped]
    if not both:
        return None
    gaps = [((a.reference - a.candidate) + (b.candidate - b.reference)) / 2 for a, b in both]
    turned = sum(_winner(a) != _winner(b) for a, b in both)
    points, turned = round(statistics.mean(gaps), 3), round(100 * turned / len(both), 1)
    return {"points": points, "turned": turned, "questions": len(both)}


def spread_over_runs(runs: list[list[Review]]) -> dict[str, dict]:
    """Mean and standard deviation of the relative score over runs of the model (of the judge, in Table 5's dagger row).

    Only the questions that every run could use count (`questions` says how many), so an unreadable reply does not
    change the spread. Raises FileError unless there are two runs that share most of their questions.
    """
    asked = [scores_by_question(run).keys() for run in runs]
    shared = set.intersection(*map(set, asked)) if runs else set()
    if len(runs) < 2 or 2 * len(shared) < max(map(len, asked)):
        what = f"these share {len(shared)} of {max(map(len, asked), default=0)}"
        raise FileError(f"a mean over runs needs at least two files on the same questions; {what}")
    each = [relative_scores([r for r in run if r.question_id in shared], draws=40) for run in runs]
    return {
        name: {
            "mean": round(statistics.mean(s[name]["relative"] for s in each), 1),
            "std": round(statistics.stdev(s[name]["relative"] for s in each), 1),
            "questions": each[0][name]["questions"],
        }
        for name in each[0]
    }


def _ranks(values: list[float]) -> list[float]:
    """Ranks from 1 for the smallest value; equal values share their mean rank."""
    count, below, rank = Counter(values), 0, {}
    for value in sorted(count):
        rank[value] = below + (count[value] + 1) / 2
        below += count[value]
    return [rank[v] for v in values]


def agreement(one: list[Review], two: list[Review]) -> dict:
    """Spearman's rank correlation of two judges, over questions that both judged, of the candidate's score and of its
    lead over the reference; None where a judge gave equal scores throughout. unshared: the questions of only one judge.
    Raises FileError for fewer than three shared questions, or where most are not shared."""
    a, b = scores_by_question(one), scores_by_question(two)
    both = [q for q in a if q in b]
    if len(both) < 3 or 2 * len(both) < max(len(a), len(b)):
        what = f"here are {len(both)} of {max(len(a), len(b))}"
        raise FileError(f"to compare two judges, both must have judged at least 3 questions, and most of them; {what}")
    out = {"questions": len(both), "unshared": len(a.keys() ^ b.keys())}
    for name, value in (("candidate", lambda pair: pair[1]), ("lead", lambda pair: pair[1] - pair[0])):
        ranks = [_ranks([value(judge[q]) for q in both]) for judge in (a, b)]
        flat = any(len(set(r)) == 1 for r in ranks)
        out[name] = None if flat else round(statistics.correlation(*ranks), 3)
    return out

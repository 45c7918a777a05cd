"""Statistics of records: counts per type, lengths, and the most frequent nouns and verbs (by the rules of `chunks.py`).

Nouns and verbs are those of questions and answers together, without the image token. `figures/data.py` draws them.

    from minillava.data.valid import read_records
    print(statistics({"detail": read_records("data_samples/detail.json")}))
"""

from collections import Counter
from dataclasses import dataclass, field
from statistics import mean, median

from minillava.datagen.chunks import VERBS, nouns_and_verbs

TOP_WORDS = 20  # nouns and verbs per type
PLURALS = (("ies", "y"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("sses", "ss"), ("s", ""))


@dataclass(frozen=True)
class Statistics:
    """Of one type, or of all. question_words, answer_words: words per text. nouns, verbs: (word, count), top first."""

    records: int
    pictures: int
    turns: int
    question_words: list[int] = field(repr=False)
    answer_words: list[int] = field(repr=False)
    nouns: list[tuple[str, int]] = ()
    verbs: list[tuple[str, int]] = ()

    def row(self) -> dict:
        """The figures as one row of a table."""
        return {
            "records": self.records,
            "pictures": self.pictures,
            "turns": self.turns,
            "words a question": round(mean(self.question_words), 1) if self.question_words else 0.0,
            "words an answer": round(mean(self.answer_words), 1) if self.answer_words else 0.0,
            "median words an answer": median(self.answer_words) if self.answer_words else 0,
        }


def _merge_plurals(nouns: Counter[str]) -> Counter[str]:
    """Count a plural with its singular (`dogs` with `dog`) if the singular occurs too."""
    out: Counter[str] = Counter()
    for noun, count in nouns.items():
        bases = [noun.removesuffix(end) + new for end, new in PLURALS if noun.endswith(end)]
        out[next((base for base in bases if base in nouns), noun)] += count
    return out


def statistics(records: dict[str, list[dict]], top: int = TOP_WORDS) -> dict[str, Statistics]:
    """Statistics of each type of records, and of `all` together. records: type -> LLaVA records."""
    out = {}
    for kind, some in [*records.items(), ("all", [r for rows in records.values() for r in rows])]:
        words: tuple[list[int], list[int]] = ([], [])  # per question, per answer
        nouns, verbs = Counter(), Counter()
        for record in some:
            for n, turn in enumerate(record["conversations"]):
                text = turn["value"].replace("<image>", " ").strip()
                words[n % 2].append(len(text.split()))
                found = nouns_and_verbs(text)
                nouns.update(found[0])
                verbs.update(v for v in found[1] if v in VERBS.values())
        pictures = {record["image"] for record in some if "image" in record}
        frequent = _merge_plurals(nouns).most_common(top), verbs.most_common(top)
        out[kind] = Statistics(len(some), len(pictures), len(words[1]), *words, *frequent)
    return out


def statistics_table(found: dict[str, Statistics]) -> list[list[str]]:
    """The rows of all types, for `text.aligned`."""
    rows = {kind: one.row() for kind, one in found.items()}
    names = list(next(iter(rows.values())))
    return [["", *names], *([kind, *(f"{row[n]:,}" for n in names)] for kind, row in rows.items())]

"""The concept filter of Appendix E: from millions of captions to a set that covers concepts evenly (Fig. 7).

It does what the paper says: count noun phrases, skip those with a frequency below 3, start from the rarest, take all
captions of a phrase or, above 100, a random 100 of them. The authors' code was never released. What the text leaves
open is an argument of `concept_filter` with a documented default (facts B2). Each phrase has its own random draw, so
the result does not depend on the order of the work.

    minillava filter captions.txt --out runs/filtered
"""

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from minillava.datagen.chunks import find_chunker, normalise
from minillava.errors import UserError
from minillava.files import atomic_write, read_json, write_text
from minillava.paper import DATA

RARE_BELOW, COMMON_ABOVE = DATA["rare_below"].value, DATA["common_above"].value  # 3 and 100


class CaptionError(UserError):
    """Captions that cannot be read or filtered; the message names the file or the setting and what is expected."""


@dataclass
class FilterResult:
    """The captions that the filter kept. kept: their indices, ascending. before, after: phrase -> frequency, in all
    captions and in the kept ones."""

    kept: list[int]
    before: dict[str, int]
    after: dict[str, int]
    captions: int
    chunker: str

    def counts(self) -> dict[str, int]:
        """The numbers behind Fig. 7 and the summary."""
        return {
            "captions": self.captions,
            "kept": len(self.kept),
            "phrases before": len(self.before),
            f"phrases before, at least {RARE_BELOW} times": sum(n >= RARE_BELOW for n in self.before.values()),
            "phrases after": len(self.after),
        }


def concept_filter(
    captions: Iterable[str],
    least: int = RARE_BELOW,
    most: int = COMMON_ABOVE,
    seed: int = 0,
    chunker: str = "auto",
    lower: bool = True,
    determiners: bool = False,
    occurrences: bool = False,
    pooled: bool = False,
    progress: bool = False,
) -> FilterResult:
    """Keep the captions that cover every concept that is not too rare, and no concept too often.

    least: phrases with a lower frequency are skipped. most: of phrases with a higher one, `most` captions are drawn.
    The paper leaves the rest open:
    chunker: `spacy` as in the paper, `rules` (`chunks.py`), or `auto`: spaCy if it is installed, else the rules.
    lower: whether phrases are compared in lower case. determiners: whether `a dog` and `the dog` differ.
    occurrences: whether a phrase counts twice if it is in a caption twice; by default a frequency is in captions.
    pooled: whether captions that rarer phrases brought in count toward a phrase's 100. By default 100 of all its
    captions are drawn, as the text says. Either way a caption is kept once.
    Raises ChunkerError; CaptionError for `least` or `most` below 1.
    """
    if least < 1 or most < 1:
        raise CaptionError(f"least {least}, most {most}: both must be at least 1")
    name, chunk = find_chunker(chunker)
    captions_of: dict[str, list[int]] = {}  # phrase -> indices of the captions with it
    times: Counter[str] = Counter()
    total = 0
    for found in tqdm(chunk(captions), unit="caption", unit_scale=True, disable=not progress):
        phrases = [normalise(phrase, lower, determiners) for phrase in found]
        for phrase in dict.fromkeys(phrases):
            captions_of.setdefault(phrase, []).append(total)
        if occurrences:
            times.update(phrases)
        total += 1
    frequency = times if occurrences else {phrase: len(some) for phrase, some in captions_of.items()}
    pool = bytearray(total)  # 1 for a kept caption
    rarest_first = sorted((n, phrase) for phrase, n in frequency.items() if n >= least)
    for n, phrase in rarest_first:
        chosen = captions_of[phrase]
        if n > most:
            rest = [c for c in chosen if not pool[c]] if pooled else chosen
            room = max(0, most - (len(chosen) - len(rest)))
            chosen = random.Random(f"concept {seed} {phrase}").sample(rest, min(len(rest), room))
        for caption in chosen:
            pool[caption] = 1
    kept = [caption for caption in range(total) if pool[caption]]
    after = {phrase: n for phrase, some in captions_of.items() if (n := sum(pool[c] for c in some))}
    return FilterResult(kept, dict(frequency), after, total, name)


# files


def read_captions(path: Path) -> tuple[list[str], list[str], list[str]]:
    """(captions, raw, problems) of a file: raw[i] is the unchanged row of captions[i]; a problem names an unusable row.

    A .txt has one caption per line, a .tsv (like CC3M's) a caption before the first tab, a .csv a column `caption`, a
    .json LLaVA records, whose first answer is the caption. Raises CaptionError.
    """
    path = Path(path)
    readers = {".txt": _by_line, ".tsv": _by_line, ".csv": _by_csv, ".json": _by_record}
    if path.suffix not in readers:
        raise CaptionError(f"{path}: not a file of captions; expected .txt, .tsv, .csv or .json")
    try:
        found = readers[path.suffix](path)
    except OSError as error:
        raise CaptionError(f"{path}: cannot be read ({error.strerror})") from error
    except csv.Error as error:
        raise CaptionError(f"{path}: not a CSV file ({error})") from error
    if not found[0]:
        raise CaptionError(f"{path}: there are no captions in it")
    return found


def _by_line(path: Path):
    captions, raw, problems = [], [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            problems.append(f"{path.name}: line {number}: not UTF-8")
            continue
        caption = text.partition("\t")[0].strip() if path.suffix == ".tsv" else text.strip()
        if caption:
            captions.append(caption)
            raw.append(text)
        elif text:
            problems.append(f"{path.name}: line {number}: no caption")
    return captions, raw, problems


def _by_csv(path: Path):
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if "caption" not in (reader.fieldnames or []):
        raise CaptionError(f"{path}: its columns are {reader.fieldnames}; expected a column `caption`")
    captions, raw, problems = [], [], []
    for row in reader:
        caption = (row["caption"] or "").strip()
        if not caption or None in row:
            why = "too many fields" if caption else "no caption"
            problems.append(f"{path.name}: line {reader.line_num}: {why}")
        elif any("\udc80" <= c <= "\udcff" for v in row.values() if v for c in v):
            problems.append(f"{path.name}: line {reader.line_num}: not UTF-8")
        else:
            captions.append(caption)
            raw.append(row)
    return captions, raw, problems


def _by_record(path: Path):
    rows = read_json(path)
    captions, raw, problems = [], [], []
    for n, row in enumerate(rows if isinstance(rows, list) else [rows]):
        try:
            caption = row["conversations"][1]["value"].strip()
        except (KeyError, IndexError, TypeError, AttributeError):
            caption = ""
        if caption:
            captions.append(caption)
            raw.append(row)
        else:
            name = row.get("id", n) if isinstance(row, dict) else n
            problems.append(f"{path.name}: record {name}: no answer that could be a caption")
    return captions, raw, problems


def write_captions(rows: list, path: Path) -> None:
    """Write rows of `read_captions` in their original form, whole or not at all."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        if path.suffix == ".json":
            json.dump(rows, file, indent=1)
        elif path.suffix == ".csv":
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["caption"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(f"{row}\n" for row in rows)


def write_phrases(concepts: FilterResult, path: Path) -> None:
    """Write `phrase, before, after` as a .tsv, most frequent first: the numbers behind Fig. 7."""
    order = sorted(concepts.before, key=lambda p: (-concepts.before[p], p))
    rows = (f"{p}\t{concepts.before[p]}\t{concepts.after.get(p, 0)}\n" for p in order)
    write_text(path, "phrase\tbefore\tafter\n" + "".join(rows))

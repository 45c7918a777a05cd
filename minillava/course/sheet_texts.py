"""What the sheets say: their texts in both languages with the numbers filled in, and the rows of their charts.

A file of `sheets/` has a block for each slide or place on the page. A block begins with `# name || title || title`; each
line after it has a mark that says what it is, English and Chinese: `- text || text`, or one text for both. A text names a
number, {t4[Full data][All]} or {one.learning_rate:e}, and `facts` has them all. *Stars* emphasise.

    python -c "from minillava.course.sheet_texts import facts; print(*facts(), sep=', ')"   # what may be named
"""

import re
import string
from pathlib import Path
from typing import NamedTuple

from minillava import paper
from minillava.data.template import CHAT
from minillava.errors import UserError
from minillava.figures import diagrams, style
from minillava.files import read_json
from minillava.later import LLAVA_15

LANGUAGES, MINUTES = ("en", "zh"), 45
SCIENCE = ("LLaVA+GPT-4 (judge)", "MM-CoT Large", "LLaVA", "Human", "GPT-4 (text only)")  # the rows of Table 7 shown
SCENE = 557  # of the benchmark; its answers are in data_samples/results/ten-pictures.json


class SheetError(UserError):
    """A sheet that cannot be made; the message says which line is wrong, or what to install."""


class Line(NamedTuple):
    """mark: what the line is, such as "-"; said: its text in English and in Chinese."""

    mark: str
    said: tuple[str, str]


class Block(NamedTuple):
    """name: a slide's minutes, or the place on the page. head: its title in English and in Chinese."""

    name: str
    head: tuple[str, str]
    lines: list[Line]


class Filler(string.Formatter):
    """str.format with two more forms: 158K for {..:K} and 2e-3 for {..:e}. A (mean, spread) is written with ±."""

    def format_field(self, value, spec):
        if isinstance(value, tuple):
            return "{}\xa0±\xa0{}".format(*value)
        if spec == "K":
            return diagrams.thousands(value)
        return f"{value:.0e}".replace("e-0", "e-") if spec == "e" else format(value, spec)


def facts(root: Path) -> dict:
    """What the texts may name: the paper's tables t4 to t8, recipes, counts; what came after; what our own runs gave."""
    results = root / "data_samples" / "results"
    report, answers = read_json(results / "report.json"), read_json(results / "ten-pictures.json")
    tables = {f"t{n}": {row: dict(zip(t.columns, t.rows[row])) for row in t.rows} for n in (4, 5, 7, 8)
              for t in [paper.TABLES[f"Table {n}"]]}  # fmt: skip
    printed = {f"d{n}": {row: dict(zip(t.columns, t.deltas[row])) for row in t.deltas} for n in (4, 8)
               for t in [paper.TABLES[f"Table {n}"]]}  # fmt: skip
    llava = tables["t5"]["LLaVA"]["All"][0]
    ours = {row["row"]: (row["All"]["ours"], row["All"]["spread"]) for row in report["tables"][0]["rows"]}
    return tables | printed | {
        "one": paper.RECIPES["stage 1"], "two": paper.RECIPES["stage 2"], "quiz": paper.RECIPES["ScienceQA"],
        "paper": values(paper.IDENTITY), "data": values(paper.DATA), "model": values(paper.ARCHITECTURE),
        "judge": values(paper.JUDGE), "score": paper.JUDGE["score"].value.replace("*", "×"), "later": LLAVA_15, "minutes": MINUTES, "stop": CHAT.stop,
        "lead": {row: llava - tables["t5"][row]["All"][0] for row in ("BLIP-2", "OpenFlamingo")},
        "little": tables["t4"]["Conv + 5% Detail + 10% Complex"]["All"] - tables["t4"]["Conversation"]["All"],
        "wrong_sums": len(paper.TABLE_4.mismatches()), "claims": len(paper.CLAIMS),
        "ours": ours, "seeds": len(report["seeds"]),
        "right": {"picture": report["vqa"], "blank": report["vqa_blank"], "shuffled": report["vqa_shuffled"]},
        "charts": {
            "t4": {row: columns["All"] for row, columns in tables["t4"].items()},
            "t5": {row: tables["t5"][row]["All"] for row in ("LLaVA", "BLIP-2", "OpenFlamingo")},
            "t7": {row: tables["t7"][row]["Avg"] for row in SCIENCE}, "ours": {row: ours[row] for row in ours if "text" not in row},
        },
        "theirs": {"ours": {row: columns["All"] for row, columns in tables["t4"].items()}},
        "authors": ", ".join(paper.IDENTITY["authors"].value), "few": re.findall(r"(\d+)%", list(tables["t4"])[2]),
        "said": {a["question"]: a["answer"] for a in answers if a["scene"] == f"bench-{SCENE:06}"},
    }  # fmt: skip


def values(facts: dict) -> dict:
    return {name: fact.value for name, fact in facts.items()}


def blocks(path: Path, known: dict) -> list[Block]:
    """What a file of sheets/ says, with its numbers filled in. Raises SheetError."""
    found = []
    for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        mark, *said = line.split(" ", 1)[:1] + [part.strip() for part in line.split(" ", 1)[-1].split("||")]
        try:
            said = [Filler().vformat(text, (), known) for text in said]
        except (KeyError, IndexError, AttributeError, ValueError, TypeError) as error:
            raise SheetError(f"{path}, line {n}: {error} is not among the facts that a sheet may name") from error
        if len(said) not in ((3,) if mark == "#" else (1, 2)):
            raise SheetError(
                f"{path}, line {n}: write 'mark English || Chinese', and '# name || title || title' to begin"
            )
        if mark == "#":
            found.append(Block(said[0], tuple(said[1:]), []))
        else:
            found[-1].lines.append(Line(mark, (said[0], said[-1])))
    return found


def in_language(text: str, words: dict[str, str]) -> str:
    """A diagram's text with every phrase that `words` knows replaced, the longest where several fit."""
    phrases = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.sub(rf"(?<![A-Za-z])(?:{phrases})(?![A-Za-z])", lambda m: words[m[0]], text) if words else text


def chart(name: str, known: dict, words: dict[str, str]) -> list[dict]:
    """A chart's rows: name in the language, value, what is written beside it, colour, and the paper's value where it is ours."""
    form, theirs = "{:.2f}" if name == "t7" else "{}", known["theirs"].get(name, {})
    rows = []
    for row, value in known["charts"][name].items():
        shown = Filler().format(form, value) + (f" ({theirs[row]})" if row in theirs else "")
        value = value[0] if isinstance(value, tuple) else value
        colour = style.fill(row, style.PALE)["facecolor"]
        rows.append({"name": in_language(row, words), "value": value, "shown": shown, "colour": colour,
                     "theirs": theirs.get(row), "best": not rows})  # fmt: skip
    return rows

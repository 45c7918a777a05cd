"""What the sheets say: their texts in both languages with the numbers filled in, and the rows of their charts.

A file of `sheets/` has a block for each slide or place on the page. A block begins with `# name || title || title`;
each line after it has a mark that says what it is, English and Chinese: `- text || text`, or one text for both. A text
names a number, {t4[Full data][All]} or {one.learning_rate:e}, and `facts` has them all. *Stars* emphasise.

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
    """What the texts may name: the paper's tables t4 to t8, recipes and counts; what came after; what our runs gave."""
    results = root / "data_samples" / "results"
    report, answers = read_json(results / "report.json"), read_json(results / "ten-pictures.json")
    tables, printed = {}, {}
    for name, table in paper.TABLES.items():
        number = name.split()[1]
        tables[f"t{number}"] = {row: dict(zip(table.columns, values)) for row, values in table.rows.items()}
        printed[f"d{number}"] = {row: dict(zip(table.columns, values)) for row, values in table.deltas.items()}
    t4, t5, t7 = ({row: cells[column] for row, cells in tables[name].items()}
                  for name, column in (("t4", "All"), ("t5", "All"), ("t7", "Avg")))  # fmt: skip
    ours = {row["row"]: (row["All"]["ours"], row["All"]["spread"]) for row in report["tables"][0]["rows"]}
    some, conversation = "Conv + 5% Detail + 10% Complex", "Conversation"
    return tables | printed | {
        "one": paper.RECIPES["stage 1"], "two": paper.RECIPES["stage 2"], "quiz": paper.RECIPES["ScienceQA"],
        "paper": values(paper.IDENTITY), "authors": ", ".join(paper.IDENTITY["authors"].value),
        "data": values(paper.DATA), "model": values(paper.ARCHITECTURE), "judge": values(paper.JUDGE),
        "score": paper.JUDGE["score"].value.replace("*", "×"), "later": LLAVA_15, "minutes": MINUTES, "stop": CHAT.stop,
        "lead": {row: t5["LLaVA"][0] - t5[row][0] for row in ("BLIP-2", "OpenFlamingo")},
        "little": t4[some] - t4[conversation], "few": re.findall(r"(\d+)%", some),
        "wrong_sums": len(paper.TABLE_4.mismatches()),
        "ours": ours, "seeds": len(report["seeds"]),
        "right": {"picture": report["vqa"], "blank": report["vqa_blank"], "shuffled": report["vqa_shuffled"]},
        "said": {a["question"]: a["answer"] for a in answers if a["scene"] == f"bench-{SCENE:06}"},
        "charts": {"t4": t4, "t5": {row: t5[row] for row in ("LLaVA", "BLIP-2", "OpenFlamingo")},
                   "t7": {row: t7[row] for row in SCIENCE},
                   "ours": {row: score for row, score in ours.items() if "text only" not in row}},
        "theirs": {"ours": t4},
    }  # fmt: skip


def values(facts: dict) -> dict:
    """Name -> value of facts of `paper.py`."""
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
        if len(said) not in ((3,) if mark == "#" else (1, 2)) or not (found or mark == "#"):
            raise SheetError(f"{path}, line {n}: write 'mark English || Chinese', or '# name || English || Chinese'")
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
    """A chart's rows: name, value and how it is written, colour, the paper's value beside ours, whether it leads."""
    form, theirs = "{:.2f}" if name == "t7" else "{}", known["theirs"].get(name, {})
    rows = []
    for row, value in known["charts"][name].items():
        shown = Filler().format(form, value) + (f" ({theirs[row]})" if row in theirs else "")
        value = value[0] if isinstance(value, tuple) else value
        colour = style.fill(row, style.PALE)["facecolor"]
        rows.append({"name": in_language(row, words), "value": value, "shown": shown, "colour": colour,
                     "theirs": theirs.get(row), "best": not rows})  # fmt: skip
    return rows

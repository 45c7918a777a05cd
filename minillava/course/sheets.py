"""Two sheets to hand out, in English and Chinese: the paper on one page (PDF), and the slides of a 45-minute lecture (HTML).

    python -m minillava.course.sheets        # in the project's folder; writes build/sheets; needs the extra `site`

`sheets/` holds what they say, English and Chinese on one line, their looks, and the diagrams' words in Chinese. No number
stands there: {t4[Full data][All]} is filled in from `paper.py` or from data_samples/results, by `facts`, for both
languages alike. Diagrams are those of `figures/`.

Notable: Typst sets the page. It is one wheel for every system, sets formulas, takes SVG as text and brings Latin and
mathematical fonts along; the English page is therefore the same everywhere. WeasyPrint needs Pango from the system and
sets no formulas; ReportLab and fpdf2 lay nothing out by themselves; matplotlib breaks no lines. None brings Chinese
glyphs, and a font that has them is larger than this course's weights. So the Chinese page uses the first of FONTS
that the machine has, and embeds the glyphs that it used. Typst writes the slides' formulas too, as MathML.
"""

import base64
import io
import json
import re
import string
import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

from minillava import paper
from minillava.data.template import CHAT
from minillava.errors import UserError
from minillava.experiments.cells import cell
from minillava.figures import diagrams, model_diagrams, style
from minillava.figures.drawing import Drawing
from minillava.files import atomic_write, read_json, write_text
from minillava.later import LLAVA_15
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw

LANGUAGES, MINUTES = ("en", "zh"), 45
TOP = 34  # pixels of a drawing that its title takes
FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "Noto Sans SC", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei",
         "WenQuanYi Micro Hei", "WenQuanYi Zen Hei")  # fmt: skip
WORDS = {  # of a formula, from LaTeX to Typst
    r"\\begin\{cases\}(.*?)\\end\{cases\}": lambda m: f"cases({m[1].replace(chr(92) * 2, ',')})",
    r"\\mathrm\{(\w+)\}|\\mathrm(\w+)": r'upright("\1\2")', r"\\text\{([^}]*)\}": r'"\1"', r"\\prod": " product",
    r"\\cdot": " dot ", r"\\quad": " quad ", r"\\mid": " | ", r"\\theta": " theta ", "<": " < ", r"\{": "(", r"\}": ")",
}  # fmt: skip
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
    report, science = (read_json(root / "data_samples" / "results" / f"{name}.json") for name in ("report", "science"))
    answers = read_json(root / "data_samples" / "results" / "ten-pictures.json")
    tables = {f"t{n}": {row: dict(zip(t.columns, t.rows[row])) for row in t.rows} for n in (4, 5, 7, 8)
              for t in [paper.TABLES[f"Table {n}"]]}  # fmt: skip
    printed = {f"d{n}": {row: dict(zip(t.columns, t.deltas[row])) for row in t.deltas} for n in (4, 8)
               for t in [paper.TABLES[f"Table {n}"]]}  # fmt: skip
    llava, rows = tables["t5"]["LLaVA"]["All"][0], {row["row"]: row["All"] for row in report["tables"][0]["rows"]}
    return tables | printed | {
        "one": paper.RECIPES["stage 1"], "two": paper.RECIPES["stage 2"], "quiz": paper.RECIPES["ScienceQA"],
        "paper": values(paper.IDENTITY), "data": values(paper.DATA), "model": values(paper.ARCHITECTURE),
        "judge": values(paper.JUDGE), "score": paper.JUDGE["score"].value.replace("*", "×"), "later": LLAVA_15, "minutes": MINUTES, "stop": CHAT.stop,
        "lead": {row: llava - tables["t5"][row]["All"][0] for row in ("BLIP-2", "OpenFlamingo")},
        "little": tables["t4"]["Conv + 5% Detail + 10% Complex"]["All"] - tables["t4"]["Conversation"]["All"],
        "wrong_sums": len(paper.TABLE_4.mismatches()), "claims": len(paper.CLAIMS),
        "ours": {row: (c["ours"], c["spread"]) for row, c in rows.items()}, "seeds": len(report["seeds"]),
        "right": {"picture": report["vqa"], "blank": report["vqa_blank"], "shuffled": report["vqa_shuffled"]},
        "science": {row["row"]: row["ours"]["Avg"]["ours"] for row in science["table 8"]}, "chance": science["chance"],
        "said": {a["question"].split()[1]: a["answer"] for a in answers if a["scene"] == f"bench-{SCENE:06}"},
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
            raise SheetError(f"{path}, line {n}: write 'mark English || Chinese', and '# name || title || title' to begin")
        if mark == "#":
            found.append(Block(said[0], tuple(said[1:]), []))
        else:
            found[-1].lines.append(Line(mark, (said[0], said[-1])))
    return found


def typst():
    """The module that sets pages and formulas. Raises SheetError where it is not installed."""
    try:
        import typst as module
    except ImportError as error:
        raise SheetError('the sheets need Typst: python -m pip install -c constraints.txt -e ".[site]"') from error
    return module


def font(language: str) -> str:
    """The family that a page is set in. Raises SheetError where no font has Chinese glyphs."""
    if language == "en":
        return "Libertinus Serif"
    there = typst().Fonts().families()
    for name in FONTS:
        if name in there:
            return name
    raise SheetError("no font with Chinese glyphs here, so the Chinese page cannot be set; on Debian and Ubuntu: "
                     f"sudo apt install fonts-noto-cjk. Any of these will do: {', '.join(FONTS)}")  # fmt: skip


def to_typst(latex: str) -> str:
    """A formula of `paper.EQUATIONS` in Typst's notation; the few commands that occur there."""
    for pattern, other in WORDS.items():
        latex = re.sub(pattern, other, latex, flags=re.DOTALL)
    return latex


def mathml(latex: str) -> str:
    """A formula of `paper.EQUATIONS` as MathML."""
    page = typst().compile(f"$ {to_typst(latex)} $".encode(), format="html").decode("utf-8")
    return re.search(r"<math.*?</math>", page, re.DOTALL)[0]


def in_language(text: str, words: dict[str, str]) -> str:
    """A diagram's text with every phrase that `words` knows replaced, the longest first."""
    for phrase in sorted(words, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z]){re.escape(phrase)}(?![A-Za-z])", words[phrase], text)
    return text


def picture_of(drawing: Drawing, title: str, words: dict[str, str], left: int = 0) -> str:
    """A drawing as SVG without its own title and dark colours, which a sheet has itself, and with its words exchanged.

    left: pixels to cut off at the left, and twice as many at the right.
    """
    body = re.sub(r">([^<]+)</text>", lambda m: f">{in_language(m[1], words)}</text>", "".join(drawing.parts[1:]))
    window = f"{left} {TOP} {drawing.width - 3 * left} {drawing.height - TOP}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{window}" role="img" aria-label="{escape(title)}">'
            f"{body}</svg>")  # fmt: skip


def bars(rows: dict[str, tuple], theirs: dict[str, float] | None = None) -> Drawing:
    """Rows of a table as bars from 0 to 100. rows: name -> (value, spread or None). theirs: the paper's, as a grey mark."""
    d = Drawing("", "", 760, 44 + 40 * len(rows))
    for n, (name, (value, spread)) in enumerate(rows.items()):
        y = 44 + 40 * n
        shade = style.fill(name)["facecolor"]
        d.text(268, y + 19, name, "end")
        d.box(280, y, 3.6 * value, 28, "", style.PALE if shade == style.WHITE else shade)
        if theirs and name in theirs:
            d.box(280 + 3.6 * theirs[name] - 2, y - 4, 4, 36, "", style.GREY)
        known = cell({"ours": value, "spread": spread} if spread is not None else {"ours": value}, (theirs or {}).get(name))
        d.text(660, y + 19, known, "start", bold=True)
    return d


def page_data(said: list[Block], known: dict, language: str, words: dict[str, str]) -> dict:
    """What sheets/paper.typ lays out: the texts of one language, Fig. 1, and the paper's numbers in their form."""
    n = LANGUAGES.index(language)
    text = lambda words: re.sub(r"([#$_@<>\[\]\\`~])", r"\\\1", words[n])  # noqa: E731 (* stays: it marks what matters)
    data = {b.name: {"head": text(b.head), "lines": [(line.mark, text(line.said)) for line in b.lines]} for b in said}
    fill = Filler().format
    recipes = [known[name] for name in ("one", "two", "quiz")]
    own = lambda recipe, name: "†" * (name in recipe.from_code)  # noqa: E731
    rows = [[fill("{0.data}: {0.samples:,}", r) + own(r, "samples") for r in recipes], [in_language(" + ".join(r.trainable), words) for r in recipes],
            *([fill("{0:e}" if name == "learning_rate" else "{0}", getattr(r, name)) + own(r, name) for r in recipes]
              for name in ("learning_rate", "global_batch", "epochs")),
            [f"{r.steps:,}" for r in recipes], [str(r.wall_hours) for r in recipes]]  # fmt: skip
    shown = {"t4": ("All", list(known["t4"])), "t5": ("All", ["LLaVA", "BLIP-2", "OpenFlamingo"]),
             "t7": ("Avg", ["LLaVA+GPT-4 (judge)", "MM-CoT Large", "LLaVA", "Human", "GPT-4 (text only)"])}  # fmt: skip
    bars = {}
    for table, (column, names) in shown.items():
        cells = {name: known[table][name][column] for name in names}
        bars[table] = [{"name": in_language(name, words), "shown": fill("{:.2f}" if table == "t7" else "{}", value),
                        "value": value[0] if isinstance(value, tuple) else value, "best": name == names[0],
                        "colour": style.fill(name, style.PALE)["facecolor"]} for name, value in cells.items()]  # fmt: skip
    types = known["data"]["instruct_types"].items()
    family = font(language)
    figure = picture_of(model_diagrams.fig_1(), data["figure"]["head"], words, 18)
    return data | {
        "lang": language, "font": family, "size": 8.6 if language == "en" else 7.9, "stop": "###", "recipes": rows,
        "fig_1": figure.replace("<svg ", f'<svg font-family="{family}" '), "bars": bars,
        "formulas": [in_language(to_typst(f.value), words) for f in paper.EQUATIONS.values()],
        "types": [{"colour": shade, "ink": style.ink_on(shade), "count": diagrams.thousands(count)}
                  for shade, count in ((diagrams.TYPES[kind], count) for kind, count in types)],
        "colours": {"ink": style.INK, "pale": style.PALE, "green": style.GREEN, "sky": style.SKY},
    }  # fmt: skip


def write_page(path: Path, data: dict, layout: Path) -> None:
    """The paper on one page as a PDF. Raises SheetError where it does not fit on one."""
    module = typst()
    inputs = {"sheet": json.dumps(data, ensure_ascii=False)}
    compiler = module.Compiler(str(layout), sys_inputs=inputs, ignore_system_fonts=data["lang"] == "en")
    try:
        pdf = compiler.compile(format="pdf")
    except module.TypstError as error:
        raise SheetError(f"{path}: {error.message}") from error
    with atomic_write(path) as part:
        part.write_bytes(pdf)

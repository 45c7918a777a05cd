"""Pages of the site as Markdown: a notebook with its stored outputs, the stored results as tables, and terms in a text.

Notable: nothing is executed. A diagram stands in the page as SVG, and so follows the page's theme; other figures are
files. An exercise takes the pictures of its puzzles from its solution, and shows the hints folded.
"""

import base64
import re
from collections.abc import Iterator
from functools import lru_cache
from html import escape
from pathlib import Path
from statistics import median

from minillava.course.chinese import EVERYDAY, form, plain
from minillava.course.colab import LINKS, RELEASE
from minillava.course.index import SET_UP
from minillava.course.terms import TERMS
from minillava.exercises.build import read_notebook
from minillava.exercises.engine import find_task
from minillava.files import read_json, read_jsonl
from minillava.text import markdown_table

CHECK = re.compile(r'^check\("([\w.]+)"', re.MULTILINE)
FORM = re.compile(r"# @title (.+)\n")  # how a folded cell begins
WORDS = {  # the site's own words in Chinese, and the titles of folded cells, which are code
    "First pass": "第一遍",
    "Second pass": "第二遍",
    "Third pass": "第三遍",
    "After the three": "三遍之后",
    "Exercises": "练习",
    "Results": "结果",
    "About the course": "关于本课程",
    "Install and run": "安装与运行",
    "Start reading": "开始阅读",
    "Also here: ": "另见：",
    "In English: ": "英文页面：",
    "From the paper to the code": "从论文到代码",
    "Field guide": "踩坑手册",
    "On this page": "本页内容",
    "Next": "下一页",
    "Previous": "上一页",
    "Home": "首页",
    "Code": "代码",
    "Figure": "图",
    "Set-up: the project and its packages (on Colab and Kaggle), then the dial": "准备：项目和软件包（Colab、Kaggle），以及拨盘",
    "A check of the numbers above": "核对上面的数字",
    "A check of the figure above": "核对上面的图",
    "The answer: run this when you have found it": "答案：找到之后再运行",
    "Optional: chi-squared, F, and the noise of one score": "选读：卡方、F，以及一个分数的噪声",
}
WIDE = 98  # characters of printed text in one line of the page
HEAD = "This page is made from the files that the repository keeps. Click the head of a column to sort by it.\n"


def said(english: str, chinese: bool) -> str:
    """One of the words above in the language of the edition."""
    return WORDS.get(english, english) if chinese else english


def fold(summary: str, text: str) -> str:
    """Markdown that stands folded under one line."""
    return f"<details><summary>{escape(summary)}</summary>\n\n{text}\n\n</details>"


def notebook_page(notebook: dict, name: str, figures: Path, chinese: bool) -> str:
    """The Markdown of one notebook. Its figures are written to the folder `figures`, beside which the page lies.

    name: of the page; its figures' names begin with it.
    """
    parts, heading, drawn = [], name, 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines = source.splitlines()
            parts.append("\n".join(line for line in lines if RELEASE or not line.startswith(LINKS)))
            heads = [line.lstrip("# ") for line in lines if re.match("#+ ", line)]
            heading = " ".join(re.findall(r"[\w.,:]+", heads[-1])) if heads else heading
            continue
        outputs = []
        for output in cell.get("outputs", []):
            drawn += 1
            label = f"{said('Figure', chinese)}: {heading}"
            outputs.append(output_block(output, f"{name}-{drawn}", label, figures))
        if source.strip():
            parts.append(code_block(source, cell, outputs, chinese))
        else:
            parts += outputs
        task = CHECK.search(source)
        if task and name.startswith("ex") and not chinese:  # the Chinese edition has them already
            parts += [fold(f"Hint {n}", plain(hint)) for n, hint in enumerate(find_task(task[1]).hints, 1)]
    return "\n\n".join(parts) + "\n"


def code_block(source: str, cell: dict, outputs: list[str], chinese: bool) -> str:
    """A cell's code and its outputs; the code is folded where Jupyter folds it, the set-up with all it prints."""
    title = FORM.match(source)
    block = f"`````python\n{source[title.end() :] if title else source}\n`````"
    if not cell["metadata"].get("jupyter", {}).get("source_hidden"):
        return "\n\n".join([block, *outputs])
    summary = said(title[1] if title else "Code", chinese)
    if cell["id"] == SET_UP:
        return fold(summary, "\n\n".join([block, *outputs]))
    return "\n\n".join([fold(summary, block), *outputs])


def output_block(output: dict, name: str, label: str, figures: Path) -> str:
    """A stored output: text as printed, Markdown, a diagram as SVG, or a link to a figure, whose file is written here."""
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items() if isinstance(value, (str, list))}
    if svg := data.get("image/svg+xml"):
        return f'<figure class="diagram">{" ".join(svg.split(chr(10)))}</figure>'
    if png := data.get("image/png"):
        figures.mkdir(parents=True, exist_ok=True)
        (figures / f"{name}.png").write_bytes(base64.b64decode(png))
        return f"![{label}]({figures.name}/{name}.png)"
    if markdown := data.get("text/markdown"):
        return markdown
    text = "".join(output.get("text", "")) or data.get("text/plain", "")
    wide = max(map(len, text.splitlines()), default=0) > WIDE  # it would not fit beside the margins
    prose = " prose" if wide or not re.search(r"\S {3,}\S", text) else ""  # columns must not wrap
    return f'<pre class="output{prose}">{escape(text.rstrip(chr(10)))}</pre>'


def with_pictures(exercise: dict, solution: Path) -> dict:
    """An exercise whose `show(...)` cells have the pictures that its solution stores."""
    drawn = {cell["id"]: cell["outputs"] for cell in read_notebook(solution)["cells"] if cell["cell_type"] == "code"}
    for cell in exercise["cells"]:
        if "".join(cell["source"]).startswith("show("):
            cell["outputs"] = drawn[cell["id"]]
    return exercise


@lru_cache
def _terms(chinese: bool) -> tuple[dict, re.Pattern]:
    """The terms by what stands for them in a text, and the expression that finds them, longer ones first."""
    # A term's form leaves out Latin letters; in 视觉 Transformer they belong to the word.
    forms = {term: form(term.chinese) for term in TERMS}
    whole = {term: term.chinese if len(short) < 3 and " " in term.chinese else short for term, short in forms.items()}
    words = {whole[term] if chinese else term.english: term for term in TERMS}
    found = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    return words, re.compile(found if chinese else rf"\b({found})(?:s|es)?\b", re.IGNORECASE)


def terms_in(text: str, chapter: str, chinese: bool, seen: set[str]) -> list[tuple[int, int, str]]:
    """(start, end, meaning) of the terms that stand in a text and not in `seen`, to which they are added.

    chapter: the page's number, such as "03". A word with an everyday meaning is a term only in its own chapter.
    """
    words, pattern = _terms(chinese)
    out = []
    for match in pattern.finditer(text):
        word = match[0] if chinese else match[1]
        term = words.get(word) or words.get(word.lower())
        if term is None or term.english in seen or (term.english in EVERYDAY and term.notebook != chapter):
            continue
        seen.add(term.english)
        out.append((*match.span(), term.meaning_in_chinese if chinese else term.meaning))
    return out


def _number(value: object) -> str:
    """A cell of a table: a list is its median."""
    value = median(value) if isinstance(value, list) and value else value
    return f"{value:,.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def rows_table(rows: list[dict]) -> str:
    """Rows with the same keys as a Markdown table."""
    return markdown_table([[*map(str, rows[0])], *([_number(value) for value in row.values()] for row in rows)])


def weights_page(weights: Path) -> str:
    """How the shipped weights were made, and what they got right on the way, step by step."""
    parts = ["# The shipped weights", HEAD]
    for folder in sorted(path.parent for path in weights.glob("*/card.json")):
        card = read_json(folder / "card.json")
        rows = [
            {"step": row["step"], "tested on": name, **scores}
            for row in read_jsonl(folder / "gates.jsonl")
            for name, scores in row.items()
            if isinstance(scores, dict)
        ]
        parts += [f"## {folder.name}", f"{card['recipe']['made as']}. It took {card['minutes']} minutes.", "% right:"]
        parts.append(rows_table(rows))
    return "\n\n".join(parts) + "\n"


def comparisons(data: object, goals: dict, where: str = "") -> Iterator[dict]:
    """The rows of every `ratios` in a benchmark's results, whatever it stands in. goals: those of what it stands in."""
    if isinstance(data, list):
        for one in data:
            yield from comparisons(one, goals)
    elif isinstance(data, dict):
        goals = data.get("goals", goals)
        what = ", ".join(data[name] for name in ("shape", "precision") if name in data) or where
        for other, (clock, cpu) in data.get("ratios", {}).items():
            row = {"what": what, "compared with": other, "by the clock": clock, "in CPU time": cpu}
            yield row | {"goal": goals.get(other, "")}
        for key, value in data.items():
            yield from comparisons(value, goals, key)


def benchmarks_page(results: Path) -> str:
    """Every stored comparison of speed, then memory of the verbs and faults."""
    files = [path for path in sorted(results.glob("*.json")) if not path.name.startswith("gpu")]  # they have their page
    rows = [{"file": path.stem, **row} for path in files for row in comparisons(read_json(path), {})]
    memory, faults = read_json(results / "memory.json")["verbs"], read_json(results / "faults.json")["faults"]
    peaks = [
        {"verb": verb, "least input, MB": sizes["little"]["peak"], "worst input, MB": sizes["worst"]["peak"]}
        for verb, sizes in memory.items()
    ]
    asking, concepts = read_json(results / "asking.json"), read_json(results / "concepts.json")
    asked = [
        {
            "client": name.replace("_", " "),
            "seconds by the clock": asking[name]["wall_s"],
            "seconds of CPU": asking[name]["cpu_s"],
        }
        for name in ("ours", "plain", "client_alone")
    ]
    filtered = [{"by": name, **concepts[name]} for name in ("rules", "pandas")]
    tables = {
        "Times as fast": rows,
        f"Seconds for {asking['requests']:,} requests": asked,
        f"The concept filter over {concepts['captions']:,} captions": filtered,
        "Peak memory of every verb": peaks,
        "Stopped on purpose: what was lost, paid twice or different": faults,
    }
    parts = ["# Benchmarks as tables", HEAD, *(f"## {title}\n\n{rows_table(one)}" for title, one in tables.items())]
    return "\n\n".join(parts) + "\n"

"""Pages of the site as Markdown: a notebook with its stored outputs, and the stored results as tables.

Notable: nothing is executed. A diagram stands in the page as SVG, so that it follows the page's theme; other figures are
files. An exercise takes the pictures of its puzzles from its solution, and shows the hints folded.
"""

import base64
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from statistics import median

from minillava.course.colab import LINKS, RELEASE
from minillava.exercises.build import read_notebook
from minillava.exercises.engine import find_task
from minillava.files import read_json, read_jsonl
from minillava.text import markdown_table

CHECK = re.compile(r'^check\("([\w.]+)"', re.MULTILINE)
FORM = re.compile(r"# @title (.+)\n")  # how a folded cell begins
WORDS = {"code": ("Code", "代码"), "hint": ("Hint", "提示"), "figure": ("Figure", "图")}  # English, Chinese
HEAD = "This page is made from the files that the repository keeps. Click the head of a column to sort by it.\n"


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
            heading = heads[-1] if heads else heading
            continue
        if source.strip():
            parts.append(code_block(source, cell["metadata"], chinese))
        for output in cell.get("outputs", []):
            drawn += 1
            label = f"{WORDS['figure'][chinese]}: {heading}".replace("]", "").replace("[", "").replace("`", "")
            parts.append(output_block(output, f"{name}-{drawn}", label, figures))
        task = CHECK.search(source)
        if task and name.startswith("ex") and not chinese:  # the Chinese edition has them already
            parts += [fold(f"{WORDS['hint'][0]} {n}", hint) for n, hint in enumerate(find_task(task[1]).hints, 1)]
    return "\n\n".join(parts) + "\n"


def code_block(source: str, metadata: dict, chinese: bool) -> str:
    """A cell's code; folded where it is folded in Jupyter."""
    title = FORM.match(source)
    block = f"`````python\n{source[title.end() :] if title else source}\n`````"
    hidden = metadata.get("jupyter", {}).get("source_hidden")
    return fold(title[1] if title else WORDS["code"][chinese], block) if hidden else block


def output_block(output: dict, name: str, label: str, figures: Path) -> str:
    """A stored output: text as it was printed, a diagram as SVG, a figure as a link to the file that is written here."""
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items() if isinstance(value, (str, list))}
    if svg := data.get("image/svg+xml"):
        return f'<figure class="diagram">{" ".join(svg.split(chr(10)))}</figure>'
    if png := data.get("image/png"):
        figures.mkdir(parents=True, exist_ok=True)
        (figures / f"{name}.png").write_bytes(base64.b64decode(png))
        return f"![{label}]({figures.name}/{name}.png)"
    text = "".join(output.get("text", "")) or data.get("text/plain", "")
    return f'<pre class="output">{escape(text.rstrip(chr(10)))}</pre>'


def with_pictures(exercise: dict, solution: Path) -> dict:
    """An exercise whose `show(...)` cells have the pictures that its solution stores."""
    drawn = {cell["id"]: cell["outputs"] for cell in read_notebook(solution)["cells"] if cell["cell_type"] == "code"}
    for cell in exercise["cells"]:
        if "".join(cell["source"]).startswith("show("):
            cell["outputs"] = drawn[cell["id"]]
    return exercise


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


def comparisons(data: object, where: tuple[str, ...] = ()) -> Iterator[dict]:
    """The rows of every `ratios` in a benchmark's results, whatever it stands in."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        if key != "ratios":
            yield from comparisons(value, (*where, str(key)))
            continue
        what = [data[name] for name in ("shape", "precision") if name in data] or where[-1:]
        for other, (clock, cpu) in value.items():
            yield {"what": ", ".join(what), "compared with": other, "by the clock": clock, "in CPU time": cpu}


def benchmarks_page(results: Path) -> str:
    """Every stored comparison of speed, then memory of the verbs and faults."""
    rows = []
    for path in sorted(results.glob("*.json")):
        data = read_json(path)
        for row in comparisons(data) if not path.name.startswith("gpu") else ():
            goal = data.get("goals", {}).get(row["compared with"], "")
            rows.append({"file": path.stem, **row, "goal": goal})
    memory, faults = read_json(results / "memory.json")["verbs"], read_json(results / "faults.json")["faults"]
    peaks = [
        {"verb": verb, "least input, MB": sizes["little"]["peak"], "worst input, MB": sizes["worst"]["peak"]}
        for verb, sizes in memory.items()
    ]
    asking, concepts = read_json(results / "asking.json"), read_json(results / "concepts.json")
    asked = [
        {"client": name, "seconds by the clock": asking[name]["wall_s"], "seconds of CPU": asking[name]["cpu_s"]}
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

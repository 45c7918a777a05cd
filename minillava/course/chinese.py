"""The Chinese edition: every text cell of the course in Chinese, code and outputs byte for byte the English ones.

`notebooks/zh/NN.json` and `exercises/zh/NN.json` map the id of a text cell to the SHA-256 of its English text and the
Chinese text, line by line; an exercise's hints stand there by their task, such as "04.1". `minillava course zh` builds
the notebooks from them. A cell whose English text has changed since is shown in English, marked STALE, and listed.

Notable: nothing generated is stored, so the two editions cannot differ in code or outputs. Links, "New words" and the
set-up line are made, not translated. What a translation must keep is compared by tests: `mismatches`, `unsaid_terms`.
"""

import calendar
import hashlib
import re
from collections import Counter
from pathlib import Path

from minillava.course.colab import LINKS, links
from minillava.course.terms import CELL, TERMS, new_words
from minillava.errors import UserError
from minillava.exercises.build import read_notebook, write_notebook
from minillava.exercises.engine import find_task
from minillava.files import read_json

STALE = "「译文待更新」"
# Words that are rightly said in another way in places; everywhere else a term stands in its form.
EVERYDAY = frozenset("block cache cosine head instruction judge record reference".split())
KEPT = {
    "code": re.compile(r"```.*?```|`[^`\n]+`|(?<=\n\n)(?: {4}[^\n]*\n?)+", re.DOTALL),
    "formulas": re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL),
    "links": re.compile(r"\]\(([^)\s]+)\)"),
}
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
STAGE = re.compile(r"\bstages?[ -][12]\b|阶段 ?[12]\b", re.IGNORECASE)  # 第一阶段 says the number in a word
MONTHS = {name: str(n) for n, name in enumerate(calendar.month_name) if n}  # 11 月 says it in digits
LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


class TranslationError(UserError):
    """A file of translations that cannot be used; the message names it, and the cell."""


def english_text(cell: dict) -> str:
    """A cell's text without the line on where to open the notebook, which is made for each edition."""
    return "\n".join(line for line in "".join(cell["source"]).splitlines() if not line.startswith(LINKS))


def digest(text: str) -> str:
    """The SHA-256 of a text in UTF-8, as hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def kept(text: str) -> dict[str, Counter]:
    """What a translation must keep: code spans, formulas, links, and the numbers outside them, as multisets."""
    out = {}
    for name, pattern in KEPT.items():
        out[name] = Counter(match[1] if pattern.groups else match[0] for match in pattern.finditer(text))
        text = pattern.sub(" ", text)
    text = re.sub(rf"\b({'|'.join(MONTHS)})(?= \d)", lambda found: MONTHS[found[0]], STAGE.sub(" ", text))
    return out | {"numbers": Counter(NUMBER.findall(text))}


def mismatches(english: str, chinese: str) -> list[str]:
    """What a translation lacks or adds of what it must keep. Empty: nothing."""
    out = []
    ours, theirs = kept(chinese), kept(english)
    for name in theirs:
        for what, more in (("lacks", theirs[name] - ours[name]), ("adds", ours[name] - theirs[name])):
            if more:
                out.append(f"{what} {name}: {', '.join(more.elements())}")
    return out


def unsaid_terms(english: str, chinese: str) -> list[str]:
    """The terms of the English text, outside code and formulas, that a translation does not say in their form."""
    for pattern in KEPT.values():
        english = pattern.sub(" ", english)
    out = []
    for term in TERMS:
        first, rest = term.english[0], re.escape(term.english[1:])  # "Patches" begins a sentence
        asked = term.english not in EVERYDAY and re.search(rf"\b[{first}{first.upper()}]{rest}(?:s|es)?\b", english)
        if asked and form(term.chinese) not in chinese:
            out.append(f"says {term.english!r} without {form(term.chinese)}")
    return out


def form(chinese: str) -> str:
    """What of a term's Chinese must stand in a text: without the note after a colon, and the letters after a blank."""
    return re.sub(r"：.*| [A-Za-z0-9].*", "", chinese) if re.match(r"[^A-Za-z]", chinese) else chinese.split(" ")[0]


def source_of(path: Path) -> Path:
    """The file of translations of an English notebook."""
    return path.parent / "zh" / f"{path.name.removeprefix('ex').split('_')[0]}.json"


def translations(path: Path) -> dict:
    """Cell id -> {"sha256", "text"}, and task -> {"sha256", "hints"}, of a notebook. Raises TranslationError."""
    source = source_of(path)
    found = read_json(source)
    if not isinstance(found, dict):
        raise TranslationError(f"{source} must hold an object: id of a cell or task -> its translation")
    for key, entry in found.items():
        what = "hints" if "." in key else "text"
        if not isinstance(entry, dict) or entry.keys() != {"sha256", what} or not isinstance(entry[what], list):
            raise TranslationError(f"{source}: {key!r} needs sha256 and {what}, a list of lines, and nothing else")
    return found


def to_chinese_edition(match: re.Match) -> str:
    """A relative link as it reads from the folder zh/: to the Chinese notebook, or to the one file there is."""
    target = match[1]
    if re.fullmatch(r"[^/]+\.ipynb(#.*)?", target):
        return match[0]
    if found := re.fullmatch(r"\.\./(notebooks|exercises)/([^/]+\.ipynb(?:#.*)?)", target):
        return f"](../../{found[1]}/zh/{found[2]})"
    return f"](../{target})"


def chinese_notebook(path: Path) -> tuple[dict, list[str]]:
    """The Chinese edition of one English notebook, and what of it is missing or stale, a line for each cell."""
    notebook, found, source = read_notebook(path), translations(path), source_of(path)
    unused, problems = set(found), []
    for n, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "markdown":
            continue
        text = english_text(cell)
        if cell["id"] == CELL:
            text = new_words(path.name.split("_")[0], chinese=True)
        else:
            entry = found.get(cell["id"])
            unused.discard(cell["id"])
            if entry and entry["sha256"] == digest(text):
                text = "\n".join(entry["text"])
            else:
                problems.append(
                    f"{source}: {cell['id']}: the English text {'has changed' if entry else 'has no translation'}; "
                    f"translate cell {n} of {path.name} and set its sha256 to {digest(text)}"
                )
                text = f"{STALE}\n\n{text}"
        if n == 0:
            title, _, rest = text.partition("\n")
            text = f"{title}\n\n{links(path.name, f'{path.parent.name}/zh')}\n\n{rest.strip()}"
        text += folded_hints(found, unused, notebook["cells"][n + 1 :], source, problems)
        cell["source"] = LINK.sub(to_chinese_edition, text).splitlines(keepends=True)
    problems += [f"{source}: {key}: no such cell or task; remove it" for key in sorted(unused)]
    return notebook, problems


def folded_hints(found: dict, unused: set, after: list[dict], source: Path, problems: list[str]) -> str:
    """The hints of the task whose check comes next, folded, for the end of the text cell before it; else nothing."""
    code = []
    for cell in after:
        if cell["cell_type"] == "markdown":
            break
        code += ["".join(cell["source"])]
    task = re.search(r'^check\("([\w.]+)"', "\n".join(code), re.MULTILINE)
    if not task:
        return ""
    english, entry = find_task(task[1]).hints, found.get(task[1])
    unused.discard(task[1])
    current = digest("\n".join(english))
    if not english:
        return ""
    if not entry or entry["sha256"] != current:
        problems.append(f"{source}: {task[1]}: its hints are new; translate them and set sha256 to {current}")
        return ""
    folded = (
        f"<details><summary>提示 {n}</summary>\n\n{plain(hint)}\n\n</details>"
        for n, hint in enumerate(entry["hints"], 1)
    )
    return "\n\n" + "\n\n".join(folded)


def plain(hint: str) -> str:
    """A hint as Markdown that shows it as `hint()` prints it; code stays code."""
    return re.sub(r"(`[^`]*`)|([*_<$])", lambda m: m[1] or "\\" + m[2], hint)


def english_notebooks(root: Path) -> list[Path]:
    """All notebooks that have a Chinese edition: the course, then the exercises (not their solutions)."""
    return [*sorted((root / "notebooks").glob("*.ipynb")), *sorted((root / "exercises").glob("*.ipynb"))]


def build(root: Path) -> list[str]:
    """Write the Chinese edition below `root`, and return what is missing or stale."""
    paths, problems = english_notebooks(root), []
    if not paths:
        raise TranslationError(
            f"{root} has no notebooks: this needs a copy of the whole project, not the package alone"
        )
    for path in paths:
        notebook, some = chinese_notebook(path)
        write_notebook(notebook, path.parent / "zh" / path.name)
        problems += some
    return problems

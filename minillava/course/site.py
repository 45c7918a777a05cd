"""The course as a static book in both editions: `make site` writes build/site/html, to be read offline.

    python -m minillava.course.site        # in the project's folder; needs the extra `site`

The pages are made from the notebooks with their stored outputs, from the Chinese texts, and from the pages that the
repository keeps. `site/` and the sheets are copied as they are, and BESIDE names them for the front page. Sphinx builds
each edition in its own language; site_extension.py has what is ours.

Notable: a page's name is its path in the repository, so links between files are links between pages. A link to a file
that is no page becomes a download.
"""

import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from minillava.course.ask import copy_ask
from minillava.course.chinese import chinese_notebook
from minillava.course.index import opening_card
from minillava.course.sheet_texts import SheetError
from minillava.course.sheets import write_sheets
from minillava.course.site_pages import benchmarks_page, notebook_page, said, weights_page, with_pictures
from minillava.errors import UserError
from minillava.exercises.build import read_notebook

TITLE = "minillava"
FRONT = "index"
EXTRA = "extra"  # the folder beside the editions' with what is copied as it is
BESIDE = {  # Chinese or not -> address of what is copied -> its name on the front page
    False: {
        "ask/index.html?lang=en": "Ask the small LLaVA",
        "sheets/paper.en.pdf": "The paper on one page (PDF)",
        "sheets/slides.en.html": "Slides of a lecture",
    },
    True: {
        "ask/index.html?lang=zh": "问问小 LLaVA",
        "sheets/paper.zh.pdf": "一页纸读论文（PDF）",
        "sheets/slides.zh.html": "一堂课的幻灯片",
    },
}
LINK = re.compile(  # code, which is left alone, or a link to a file
    r"^(?P<fence>`{3,}).*?^(?P=fence)|`[^`\n]+`|<pre.*?</pre>|<figure.*?</figure>"
    r"|(?P<mark>!?)\[(?P<words>(?:[^\[\]]|\[[^\]]*\](?:\([^)]*\))?)*)\]\((?!https?:|mailto:|#)(?P<to>[^)\s#]+)(?P<at>#[^)\s]*)?\)",
    re.MULTILINE | re.DOTALL,
)
RESULTS = ("README", "report", "gates", "science", "designs")
BENCHMARKS = ("benchmarks/README", "benchmarks/SPEEDRUN")
DOCS = ("README", "notebooks/README", "notebooks/glossary", "docs/field-guide", *BENCHMARKS, "CONTRIBUTING")
IN_ENGLISH = {
    "data_samples/results/README": "Results",
    "notebooks/README": "From the paper to the code",
    "docs/field-guide": "Field guide",
}
PASSES = {"first": "First pass", "second": "Second pass", "third": "Third pass", "after": "After the three"}
# The theme's colours: warm paper and quiet ink. Each text has a contrast of 4.5 or more with what is behind it.
LIGHT = {
    "color-background-primary": "#fdfcf9",
    "color-background-secondary": "#f7f5ef",
    "color-background-hover": "#eeebe2",
    "color-foreground-primary": "#25252b",
    "color-foreground-secondary": "#4b4b55",
    "color-foreground-muted": "#62626c",
    "color-brand-primary": "#00588c",
    "color-brand-content": "#00588c",
    "color-sidebar-link-text": "#45454e",
    "color-sidebar-link-text--top-level": "#45454e",
    "color-code-background": "#f5f3ec",
}
DARK = {
    "color-background-primary": "#17181c",
    "color-background-secondary": "#1c1d22",
    "color-background-hover": "#272930",
    "color-foreground-primary": "#dcdad4",
    "color-foreground-secondary": "#b9b7b1",
    "color-foreground-muted": "#9d9ca0",
    "color-brand-primary": "#86bdf0",
    "color-brand-content": "#86bdf0",
    "color-sidebar-link-text": "#b9b7b1",
    "color-sidebar-link-text--top-level": "#b9b7b1",
    "color-code-background": "#212228",
}


class SiteError(UserError):
    """The site cannot be built; the message says what is missing or wrong."""


def chapters(root: Path, chinese: bool) -> dict[str, dict[str, Path]]:
    """Part of the book -> name of each page -> the file it is made from, in the order of reading."""
    found = {title: {} for title in [*PASSES.values(), "Exercises", "Results", "About the course"]}
    edition = "zh/" if chinese else ""
    for path in sorted((root / "notebooks").glob("[0-9]*_*.ipynb")):
        title = PASSES[opening_card(path)[1].split()[0]]
        found[title][f"notebooks/{path.stem}"] = root / "notebooks" / edition / path.name
    for path in sorted((root / "exercises").glob("ex*.ipynb")):
        found["Exercises"][f"exercises/{path.stem}"] = root / "exercises" / edition / path.name
    if chinese:
        pages = {"README": root / "README.zh.md", "notebooks/glossary": root / "notebooks" / "glossary.md"}
        found["About the course"] = {name: path for name, path in pages.items() if path.exists()}
        return {title: pages for title, pages in found.items() if pages}
    exercises = {f"exercises/{name}": root / "exercises" / f"{name}.md" for name in ("README", "INSTRUCTORS")}
    found["Exercises"] = {**exercises, **found["Exercises"]}
    results = {f"data_samples/results/{name}": root / "data_samples" / "results" / f"{name}.md" for name in RESULTS}
    tables = {
        "results/weights": root / "data_samples" / "weights",
        "results/benchmarks": root / "benchmarks" / "results",
    }
    found["Results"] = {**results, "benchmarks/results/gpu": root / "benchmarks" / "results" / "gpu.md", **tables}
    found["About the course"] = {name: root / f"{name}.md" for name in (*DOCS, "LOG")}
    return found


class Edition(NamedTuple):
    """folder: where its Markdown is written. others: the chapters of the other edition, to which links may lead."""

    root: Path
    folder: Path
    chinese: bool
    chapters: dict[str, dict[str, Path]]
    others: dict[str, dict[str, Path]]

    def address(self, page: str, of: str, other: bool = False) -> str:
        """The relative address of a page for a link on the page `of`; other: of the other edition."""
        away = ("../" if self.chinese else "zh/") if other else ""
        return os.path.relpath(f"{away}{page}", Path(of).parent).replace(os.sep, "/")


def pages_of(chapters: dict[str, dict[str, Path]]) -> dict[Path, str]:
    """File -> name of its page."""
    return {path: page for part in chapters.values() for page, path in part.items()}


def relink(text: str, page: str, source: Path, edition: Edition) -> str:
    """A page's Markdown with its links as the site has them. Files that it links to are copied beside the pages.

    page: its name. source: the file that its links are relative to. Raises SiteError.
    """
    pages, others = pages_of(edition.chapters), pages_of(edition.others)

    def change(match: re.Match) -> str:
        target, anchor = match["to"], match["at"] or ""
        if target is None:
            return match[0]
        words, path = LINK.sub(change, match["words"]), Path(os.path.normpath(source.parent / target))
        if target.startswith("figures/") and (edition.folder / page).parent.joinpath(target).exists():
            return match[0]  # a notebook's own
        if path in pages:
            return f"[{words}]({edition.address(pages[path], page)}.md{anchor})"
        if path in others:
            return f'<a href="{edition.address(others[path], page, other=True)}.html{anchor}">{words}</a>'
        if path.is_dir():
            return words
        if not path.is_file() or edition.root not in path.parents:
            raise SiteError(f"{source}: the link to {target} leads to no file of the project; mend it there")
        name = path.relative_to(edition.root).as_posix()
        (edition.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, edition.folder / name)
        return f"{match['mark']}[{words}]({edition.address(name, page)})"

    return LINK.sub(change, text)


def markdown(page: str, source: Path, edition: Edition) -> str:
    """The Markdown of one page, with its links as they are in its source."""
    if source.is_dir():
        return (weights_page if source.name == "weights" else benchmarks_page)(source)
    if source.suffix == ".md":
        return source.read_text(encoding="utf-8")
    english = source.parent.parent / source.name if edition.chinese else source
    notebook = chinese_notebook(english)[0] if edition.chinese else read_notebook(english)
    if english.parent.name == "exercises":
        notebook = with_pictures(notebook, english.parent / "solutions" / english.name)
    return notebook_page(notebook, source.stem, (edition.folder / page).parent / "figures", edition.chinese)


def front_page(edition: Edition) -> str:
    """The first page: what this is, in the README's own words, the static pages, and the parts of the book."""
    readme = edition.root / ("README.zh.md" if edition.chinese else "README.md")
    blocks = readme.read_text(encoding="utf-8").split("\n\n")
    parts = [f"# {TITLE}", *(next(one for one in blocks if one.startswith(mark)) for mark in ("**", "!["))]
    first = next(iter(pages_of(edition.chapters)))
    parts.append(f"**[{said('Start reading', edition.chinese)}]({first.relative_to(edition.root).as_posix()})**")
    extra, up = edition.folder.parent / EXTRA, "../" * edition.chinese
    beside = {to: name for to, name in BESIDE[edition.chinese].items() if (extra / to.partition("?")[0]).is_file()}
    if beside:
        links = " · ".join(f'<a href="{up}{to}">{name}</a>' for to, name in beside.items())
        parts.append(f"{said('Also here: ', edition.chinese)}{links}")
    if edition.chinese:
        elsewhere = [f"[{said(words, True)}]({page}.md)" for page, words in IN_ENGLISH.items()]
        parts.append(f"{said('In English: ', True)}{' · '.join(elsewhere)}")
    for title, pages in edition.chapters.items():
        names = {"README": f"{said('Install and run', edition.chinese)} <README>"}
        lines = "\n".join(names.get(page, page) for page in pages)
        parts.append(f"```{{toctree}}\n:caption: {said(title, edition.chinese)}\n:maxdepth: 1\n\n{lines}\n```")
    return "\n\n".join(parts) + "\n"


def write_sources(edition: Edition) -> None:
    """Write the Markdown of one edition, from nothing."""
    shutil.rmtree(edition.folder, ignore_errors=True)
    edition.folder.mkdir(parents=True)
    here, there = pages_of(edition.chapters), set(pages_of(edition.others).values()) | {FRONT}
    other = ("en", "English") if edition.chinese else ("zh", "中文版")
    for source, page in [*here.items(), (edition.root / "README.md", FRONT)]:
        text = front_page(edition) if page == FRONT else markdown(page, source, edition)
        text = relink(text, page, source, edition)
        if page in there and page != "README":  # that has such a link itself
            address, (lang, name) = edition.address(page, page, other=True), other
            link = f'<p class="edition"><a href="{address}.html" lang="{lang}">{name}</a></p>'
            title = re.search("^# .*\n", text, re.MULTILINE)
            text = f"{text[: title.end()]}\n{link}\n{text[title.end() :]}"
        path = edition.folder / f"{page}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def run_sphinx(edition: Edition, out: Path) -> int:
    """Build one edition. Returns 0, or 1 after a warning: a link that leads nowhere is one."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    settings = {
        "project": TITLE,
        "html_title": TITLE,
        "language": "zh_CN" if edition.chinese else "en",
        "extensions": ["myst_parser", "minillava.course.site_extension"],
        "html_theme": "furo",
        "html_theme_options": {"light_css_variables": LIGHT, "dark_css_variables": DARK},
        "html_favicon": str(edition.root / "site" / "_static" / "icon.svg"),
        "html_static_path": [str(edition.root / "site" / "_static")],
        "html_css_files": ["book.css"],
        "html_js_files": ["book.js"],
        "html_search_language": "course",
        "html_copy_source": False,
        "html_use_index": False,
        "html_show_copyright": False,
        "pygments_style": "a11y-high-contrast-light",
        "myst_enable_extensions": ["dollarmath"],
        "myst_heading_anchors": 3,
        "suppress_warnings": ["myst.header"],
    }
    cache = edition.folder.parent / f"{edition.folder.name}-cache"
    with patch_docutils(), docutils_namespace():
        app = Sphinx(edition.folder, None, out, cache, "html", settings, status=None, warningiserror=True)
        app.build(force_all=True)
    return app.statuscode


def build(root: Path, out: Path) -> int:
    """Both editions: Markdown in `out`/en and `out`/zh, pages in `out`/html. Returns 1 if something is missing."""
    if not (root / "notebooks").is_dir():
        raise SiteError(f"{root}: there are no notebooks here; run this in the project's folder")
    if find_spec("sphinx") is None:
        raise SiteError("the site needs Python 3.11 or later and: pip install -c constraints.txt -e '.[site]'")
    html, extra, status = out / "html", out / EXTRA, 0
    for folder in (html, extra):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "site", extra)
    copy_ask(extra)
    try:
        write_sheets(extra / "sheets", root)
    except SheetError as error:  # a machine without a Chinese font still gets all the rest
        print(f"error: {error}")
        status = 1
    both = {chinese: chapters(root, chinese) for chinese in (False, True)}
    for chinese in (False, True):
        edition = Edition(root, out / ("zh" if chinese else "en"), chinese, both[chinese], both[not chinese])
        write_sources(edition)
        status |= run_sphinx(edition, html / "zh" if chinese else html)
    shutil.copytree(extra, html, dirs_exist_ok=True)
    return status


if __name__ == "__main__":
    try:
        status = build(Path.cwd(), Path("build/site").absolute())
        print("The site: build/site/html/index.html")
        sys.exit(status)
    except UserError as error:
        sys.exit(f"error: {error}")

"""What the site adds to Sphinx: search that finds Chinese words, formulas as MathML, and the meaning of a term.

Notable: Chinese has no blanks between words, and Sphinx's own search then needs a dictionary and still misses what that
cuts elsewhere. Here every two neighbouring characters are a word, in the index and in what is asked, so any string of
them is found. Formulas need no script. A term shows its meaning where a page first says it, on hover and on focus.
"""

import re
from html import escape

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.locale import _
from sphinx.search.en import SearchEnglish

from minillava.course.site_pages import WORDS, terms_in
from minillava.figures.drawing import DARK, NAMES, RULES

HAN = r"[\u3400-\u9fff]"
WORD = re.compile(rf"{HAN}+|(?:(?!{HAN})\w)+")
PLAIN = (nodes.literal, nodes.reference, nodes.title, nodes.table, nodes.raw)  # no term is explained inside these
LINK = "<a "  # how a link to the other edition begins, which is HTML: nor behind this


class SearchBoth(SearchEnglish):
    """English words by their stem; of Chinese text every character and every two neighbours."""

    lang = "course"
    js_splitter_code = """
var splitQuery = query => (query.match(/[\\u3400-\\u9fff]+|(?:(?![\\u3400-\\u9fff])[\\p{L}\\p{N}_])+/gu) || []).flatMap(word =>
    /[\\u3400-\\u9fff]/.test(word) && word.length > 1 ? [...word].slice(1).map((letter, n) => word[n] + letter) : [word])
"""

    def split(self, text: str) -> list[str]:
        found = WORD.findall(text)
        han = [word for word in found if re.match(HAN, word)]
        pairs = [word[n : n + 2] for word in han for n in range(len(word) - 1)]
        return [*(word for word in found if word not in han), *pairs, *(letter for word in han for letter in word)]


class Meaning(nodes.Inline, nodes.TextElement):
    """A term of the course in running text."""


def explain(app, doctree, page: str) -> None:
    """Mark each term where the page first says it."""
    number = re.search(r"/(?:ex)?(\d\d\w?)_", page)
    seen, chinese = set(), app.config.language.startswith("zh")
    for text in list(doctree.findall(nodes.Text)):
        parents, node = [], text.parent
        while node is not None:
            parents, node = [*parents, node], node.parent
        if not any(isinstance(p, nodes.paragraph) for p in parents) or any(isinstance(p, PLAIN) for p in parents):
            continue
        before = text.parent[: [*map(id, text.parent)].index(id(text))]
        if before and isinstance(before[-1], nodes.raw) and before[-1].astext().startswith(LINK):
            continue
        parts, last, said = [], 0, text.astext()
        for start, end, meaning in terms_in(said, number[1] if number else "", chinese, seen):
            parts += [nodes.Text(said[last:start]), Meaning("", said[start:end], meaning=meaning)]
            last = end
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(said[last:])])


def begin_meaning(writer, node) -> None:
    writer.body.append(f'<dfn tabindex="0" aria-description="{escape(node["meaning"])}">')


def end_meaning(writer, node) -> None:
    writer.body.append("</dfn>")


def inline_formula(writer, node) -> None:
    writer.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_formula(writer, node) -> None:
    writer.body.append(f'<div class="math">{latex2mathml.tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def fit_page(app, page, template, context, doctree) -> None:
    """Give a page the theme's words in its language, and the diagrams' colours in the theme that a reader chose."""
    light = "".join(f".mv-{NAMES[c]}{{fill:{c}}}.mv-{NAMES[c]}-line{{stroke:{c}}}" for c in DARK)
    rules = f'<style>body[data-theme="light"]{{{light}}}body[data-theme="dark"]{{{RULES}}}</style>'
    context["metatags"] = context.get("metatags", "") + rules
    chinese = app.config.language.startswith("zh")
    context["_"] = lambda english: WORDS.get(english, _(english)) if chinese else _(english)


def set_dark_style(app) -> None:
    app.config.pygments_dark_style = "a11y-high-contrast-dark"  # a setting of the theme, which is loaded by now


def setup(app) -> dict:
    app.add_search_language(SearchBoth)
    app.add_node(Meaning, html=(begin_meaning, end_meaning))
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
    app.config.html_math_renderer = "mathml"
    app.connect("builder-inited", set_dark_style, priority=1)
    app.connect("doctree-resolved", explain)
    app.connect("html-page-context", fit_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

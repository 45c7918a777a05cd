"""Two sheets to hand out, in English and Chinese: the paper on one page (PDF), and a lecture's slides (HTML).

    python -m minillava.course.sheets        # in the project's folder; writes build/sheets; needs the extra `site`

`sheets/` holds what they say, English and Chinese on one line, their looks, and the diagrams' words in Chinese. No
number stands there: sheet_texts.py fills them in, for both languages alike. Diagrams are those of `figures/`.

Notable: Typst sets the page. It is one wheel for every system, sets formulas, takes SVG as text and brings Latin and
mathematical fonts along; the English page is therefore the same everywhere. WeasyPrint needs Pango from the system and
sets no formulas; ReportLab and fpdf2 lay out little by themselves; matplotlib breaks no lines. None brings Chinese
glyphs, and a font that has them is larger than this course's weights. So the Chinese page uses the first of FONTS
that the machine has, and embeds the glyphs that it used. Typst writes the slides' formulas too, as MathML.
"""

import base64
import io
import json
import re
import sys
from html import escape, unescape
from pathlib import Path

from minillava import paper
from minillava.course.sheet_texts import (
    LANGUAGES,
    MINUTES,
    SCENE,
    Block,
    Filler,
    SheetError,
    blocks,
    chart,
    facts,
    in_language,
)
from minillava.errors import UserError
from minillava.figures import diagrams, model_diagrams, style
from minillava.figures.drawing import Drawing
from minillava.files import atomic_write, write_text
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw

TOP = 34  # pixels of a drawing that its title takes
FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "Noto Sans SC", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei",
         "WenQuanYi Micro Hei", "WenQuanYi Zen Hei")  # fmt: skip
TYPST = {  # what occurs in paper.EQUATIONS, from LaTeX to Typst
    r"\\begin\{cases\}(.*?)\\end\{cases\}": lambda m: f"cases({m[1].replace(chr(92) * 2, ',')})",
    r"\\mathrm\{(\w+)\}|\\mathrm(\w+)": r'upright("\1\2")', r"\\text\{([^}]*)\}": r'"\1"', r"\\prod": " product",
    r"\\cdot": " dot ", r"\\quad": " quad ", r"\\mid": " | ", r"\\theta": " theta ", "<": " < ", "&": "& quad ",
    r"\{": "(", r"\}": ")",
}  # fmt: skip


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
    for pattern, other in TYPST.items():
        latex = re.sub(pattern, other, latex, flags=re.DOTALL)
    return latex


def mathml(latex: str) -> str:
    """A formula of `paper.EQUATIONS` as MathML."""
    page = typst().compile(f"$ {to_typst(latex)} $".encode(), format="html").decode("utf-8")
    return re.search(r"<math.*?</math>", page, re.DOTALL)[0]


def picture_of(drawing: Drawing, title: str, words: dict[str, str], left: int = 0) -> str:
    """A drawing as SVG without its own title and dark colours, which a sheet has itself, and with its words exchanged.

    left: pixels to cut off at the left, and twice as many at the right.
    """

    def said(match: re.Match) -> str:
        return f">{escape(in_language(unescape(match[1]), words))}</text>"

    body = re.sub(r">([^<]+)</text>", said, "".join(drawing.parts[1:]))
    window = f"{left} {TOP} {drawing.width - 3 * left} {drawing.height - TOP}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{window}" role="img" aria-label="{escape(title)}">'
            f"{body}</svg>")  # fmt: skip


def bars(rows: list[dict]) -> str:
    """A chart's rows as an HTML table with bars from 0 to 100; the paper's value is a grey mark."""
    out = []
    for row in rows:
        colour = "var(--ink)" if row["colour"] == style.INK else row["colour"]
        bar = f'<i style="width:{row["value"]}%;background:{colour}"></i>'
        mark = f'<u style="left:{row["theirs"]}%"></u>' if row["theirs"] else ""
        out.append(f"<tr><th>{escape(row['name'])}<td>{bar}{mark}<td>{row['shown']}")
    return f'<table class="bars">{"".join(out)}</table>'


def page_data(said: list[Block], known: dict, language: str, words: dict[str, str]) -> dict:
    """What sheets/paper.typ lays out: the texts of one language, Fig. 1, and the paper's numbers in their form."""
    n, family, fill = LANGUAGES.index(language), font(language), Filler().format

    def text(both: tuple[str, str]) -> str:
        return re.sub(r"([#$_@<>\[\]\\`~])", r"\\\1", both[n])  # plain to Typst, but for stars

    def row(name: str, form: str = "{}") -> list[str]:
        runs = (known[run] for run in ("one", "two", "quiz"))
        return [fill(form, getattr(run, name), run) + "†" * (name in run.from_code) for run in runs]

    trained = [in_language(" + ".join(known[run].trainable), words) for run in ("one", "two", "quiz")]
    recipes = [row("samples", "{1.data}: {0:,}"), trained, row("learning_rate", "{:e}"), row("global_batch"),
               row("epochs"), row("steps", "{:,}"), row("wall_hours")]  # fmt: skip
    shades = [(diagrams.TYPES[kind], count) for kind, count in known["data"]["instruct_types"].items()]
    figure = picture_of(model_diagrams.fig_1(), "Fig. 1", words, 18)
    texts = {b.name: {"head": text(b.head), "lines": [(line.mark, text(line.said)) for line in b.lines]} for b in said}
    return texts | {
        "lang": language, "font": family, "size": 8.6 if language == "en" else 7.9, "stop": known["stop"],
        "fig_1": figure.replace("<svg ", f'<svg font-family="{family}" '), "recipes": recipes,
        "bars": {name: chart(name, known, words) for name in ("t4", "t5", "t7")},
        "formulas": [in_language(to_typst(f.value), words) for f in paper.EQUATIONS.values()],
        "types": [{"colour": c, "ink": style.ink_on(c), "count": diagrams.thousands(count)} for c, count in shades],
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


def marked(text: str) -> str:
    """A line as HTML: what stands between stars is emphasised."""
    return re.sub(r"\*([^*]+)\*", r"<b>\1</b>", escape(text))


def scrolled(part: str) -> str:
    """A part that can be moved to the side where the screen is narrow."""
    return f'<div class="wide">{part}</div>'


def slide(block: Block, passed: int, known: dict, language: str, words: dict[str, str]) -> str:
    """One slide as HTML. passed: minutes until its end."""
    n = LANGUAGES.index(language)
    parts, points, notes = [f"<h2>{marked(block.head[n])}</h2>"], [], []
    for mark, said in block.lines:
        text, title = said[n], block.head[n]
        if mark == "-":
            points.append(f"<li>{marked(text)}</li>")
        elif mark == "?":
            asked, colon, told = re.split("([:：])", text, maxsplit=1)
            points.append(f"<li><details><summary>{asked}{colon}</summary>{marked(told)}</details></li>")
        elif mark == ">":
            notes.append(f"<p>{marked(text)}</p>")
        elif mark == "=":
            parts.append(f'<div class="wide formula">{in_language(mathml(paper.EQUATIONS[text].value), words)}</div>')
        elif mark == "%":
            parts.append(bars(chart(text, known, words)))
        elif mark == "!":
            home = model_diagrams if hasattr(model_diagrams, text) else diagrams
            parts.append(scrolled(picture_of(getattr(home, text)(), title, words)))
        elif mark == "@":
            file = io.BytesIO()
            draw(compose("bench", SCENE), 512).save(file, "PNG", optimize=True)
            data = base64.b64encode(file.getvalue()).decode()
            parts.append(f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">')
        else:
            raise SheetError(f"a slide has no line that begins with {mark!r} (slide {block.head[0]!r})")
    parts += [f"<ul>{''.join(points)}</ul>"] if points else []
    clock = f"{block.name} {('min', '分钟')[n]} · {passed} / {MINUTES}"
    return f"<section>{''.join(parts)}<aside>{''.join(notes)}</aside><footer>{clock}</footer></section>"


def slides_page(said: list[Block], known: dict, language: str, words: dict[str, str], skeleton: str) -> str:
    """The lecture as one HTML file. Raises SheetError where the minutes are not those of a lecture."""
    minutes = [int(block.name) for block in said]
    if sum(minutes) != MINUTES:
        raise SheetError(f"the slides take {sum(minutes)} minutes, not {MINUTES}: change the number after a slide's #")
    deck = "\n".join(slide(b, sum(minutes[: n + 1]), known, language, words) for n, b in enumerate(said))
    lang, title = {"en": "en", "zh": "zh-CN"}[language], said[0].head[LANGUAGES.index(language)]
    return skeleton.replace("$LANG", lang).replace("$TITLE", escape(title)).replace("$DECK", deck)


def read_words(path: Path) -> dict[str, str]:
    """English phrase -> Chinese, of the diagrams and formulas."""
    return dict(map(str.strip, line.split("||")) for line in path.read_text(encoding="utf-8").splitlines())


def write_sheets(folder: Path, root: Path = Path(".")) -> list[Path]:
    """Both sheets in both languages into a folder; returns the files. root: the project's folder. Raises SheetError."""
    texts, written = root / "sheets", []
    if not texts.is_dir():
        raise SheetError(f"{texts}: no such folder; run this in the project's folder")
    known = facts(root)
    folder.mkdir(parents=True, exist_ok=True)
    chinese = read_words(texts / "words.txt")
    page, deck = blocks(texts / "paper.txt", known), blocks(texts / "slides.txt", known)
    skeleton = (texts / "slides.html").read_text(encoding="utf-8")
    for language in LANGUAGES:
        path, words = folder / f"slides.{language}.html", chinese if language == "zh" else {}
        write_text(path, slides_page(deck, known, language, words, skeleton))
        written.append(path)
    for language in LANGUAGES:  # Chinese last: it alone needs a font of the machine
        path, words = folder / f"paper.{language}.pdf", chinese if language == "zh" else {}
        write_page(path, page_data(page, known, language, words), texts / "paper.typ")
        written.append(path)
    return written


if __name__ == "__main__":
    try:
        print(*write_sheets(Path(sys.argv[1] if len(sys.argv) > 1 else "build/sheets")), sep="\n")
    except UserError as error:
        sys.exit(str(error))

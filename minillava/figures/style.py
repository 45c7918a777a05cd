"""One style and one palette for every figure of the project.

Notable: a row of Table 4, a control and the paper have the same colour wherever they are drawn (`WORN`). The colours
are Okabe and Ito's, two are Paul Tol's, which colour-blind readers can tell apart; the rows of Table 4 differ in
lightness too. Controls are hatched. Grey is the paper, or another reference that ours is compared with.

    from minillava.figures.style import canvas, fill
    axis.bar(["Full data"], [81], **fill("Full data"))
"""

import re

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator

BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, VERMILION, PINK, INK = "#E69F00", "#D55E00", "#CC79A7", "#2B2B33"
INDIGO, WINE = "#332288", "#882255"
GREY, PALE, WHITE = "#9A9A9A", "#EDEDED", "#FFFFFF"
RIGHT, WRONG = "#00704F", "#B34700"  # GREEN and VERMILION, darker: words in them stay readable
HEAT = "cividis"  # dark small, yellow large
THEIRS = {"color": GREY, "lw": 4, "solid_capstyle": "butt"}  # the paper's value
WHISKER = {"color": INK, "lw": 1.3, "path_effects": [withStroke(linewidth=2.6, foreground=WHITE)]}
DOTTED = {"color": INK, "lw": 1.2, "ls": ":"}  # chance, or another level
OTHERS = (BLUE, ORANGE, GREEN, PINK, INK, SKY, VERMILION, YELLOW)  # for names that are not below, in this order
WORN = {  # (colour, hatch) -> the names that have it, in lower case and without punctuation
    (GREY, ""): ("paper", "other seeds", "the package", "wanted"),
    (BLUE, ""): ("full data", "llava", "its picture", "own pictures", "tuned on instructions"),
    (GREEN, ""): ("detail complex", "detail", "llava gpt 4 judge"),
    (SKY, ""): ("conv 5 detail 10 complex", "complex", "llava gpt 4 complement"),
    (YELLOW, ""): ("conversation",),
    (INK, ""): ("no instruction tuning", "stage1", "stage 1", "after stage 1"),
    (PINK, ""): ("caption only tuning", "caption", "tuned on captions"),
    (WINE, ""): ("interleaved tuning",),
    (INDIGO, ""): ("full data picture after the question", "after the question"),
    (ORANGE, "///"): ("blank", "a blank one"),
    (VERMILION, "..."): ("shuffled", "another s", "others pictures"),
    (WHITE, "xxx"): ("text only", "expert", "the reference"),  # whoever is shown no picture
}
_SHADES = {name: shade for shade, names in WORN.items() for name in names}
# "LLaVA, pictures blank" has the colour of "blank", a row that stands in for a model the colour of the row.
_WITHIN = re.compile(
    r"(?<= )(blank|shuffled|text only|the reference)$|^(paper|caption only tuning|interleaved tuning)\b"
)


def fill(name: str, otherwise: str = BLUE) -> dict:
    """The colour and hatch of a name in every figure, as keywords for bars; `otherwise` where it is not in `WORN`."""
    word = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
    within = _WITHIN.search(word)
    colour, hatch = _SHADES.get(within[0] if within else word, (otherwise, ""))
    return {"facecolor": colour, "hatch": hatch, "edgecolor": INK, "linewidth": 0.6}


def fills(names) -> list[dict]:
    """`fill` of names that are in one figure: those not in `WORN` get the colours that are left, each another."""
    known = [fill(name, "") for name in names]
    free = iter([c for c in OTHERS if c not in {shade["facecolor"] for shade in known}])
    return [shade if shade["facecolor"] else shade | {"facecolor": next(free, GREY)} for shade in known]


def pen(shade: dict) -> dict:
    """The keywords for a line in the colour of a `fill`; grey is thick, and a light colour gets a dark rim."""
    rim = {"path_effects": [withStroke(linewidth=3, foreground=INK)]} if shade["facecolor"] in (YELLOW, WHITE) else {}
    return {"color": shade["facecolor"], "lw": 4 if shade["facecolor"] == GREY else 1.6} | rim


def ink_on(colour) -> str:
    """White or dark, whichever can be read on a colour."""
    red, green, blue = to_rgb(colour)
    return INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else WHITE


def canvas(width: float, height: float, columns: int = 1, rows: int = 1, **options):
    """(figure, axes), in inches; options of `Figure.subplots`. It is unknown to pyplot, so nothing is shown twice."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, **options)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
    return figure, axes


def headline(axis, text: str) -> None:
    """A title that says the conclusion."""
    axis.set_title(text, loc="left", fontweight="bold", fontsize=11)


def short(text: str, letters: int = 32) -> str:
    """A label, cut to so many letters."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


def plain_log(axis) -> None:
    """A logarithmic height with ticks as one reads them: 1, 1.5, 2, 3."""
    low, high = axis.get_ylim()
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if high < 20 * low else (1, 2, 5)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_locator(NullLocator())

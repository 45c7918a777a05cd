"""What people look at: one style for every figure, colour-blind safe, the paper's figure as a grey mark beside ours.

python -c "from minillava.figures.scenes import gallery; gallery().savefig('gallery.png')"
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PINK, GREY, INK = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#9A9A9A", "#2B2B33"
STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,     "figure.facecolor": "white", "savefig.dpi": 130, "axes.axisbelow": True,
}  # fmt: skip


def canvas(width: float, height: float, columns: int = 1, rows: int = 1, height_ratios: list[float] | None = None):
    """(figure, axes) in the project's style; sizes in inches. Not registered with pyplot, so nothing is shown twice."""
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, height_ratios=height_ratios)


def headline(axis, text: str) -> None:
    """A title that says the conclusion."""
    axis.set_title(text, loc="left", fontweight="bold", fontsize=11)


def plain_log(axis) -> None:
    """A logarithmic height with ticks as one reads them: 1, 1.5, 2, 3."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_locator(NullLocator())

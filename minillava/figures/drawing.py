"""Diagrams as SVG, from three primitives: a box with words, an arrow, and words alone.

Notable: a drawing brings its own background and is dark where the reader's system prefers dark, so it can be read in
JupyterLab and on GitHub with any theme. Coloured boxes keep their colour, so they look as in the figures (style.py).
A notebook shows a drawing that is the last value of a cell. JupyterLab shows a stored SVG only in a notebook that it
trusts, and an <img> in any; so a drawing is that too.

    d = Drawing("One matrix", "A box named W between two arrows.", 300, 110)
    d.box(110, 50, 80, 40, "W", ORANGE)
    d.arrow(190, 70, 280, 70, "Hv")
"""

import base64
from html import escape

from minillava.figures.style import GREY, INK, PALE, WHITE, ink_on

SIZE, STEP = 13, 17  # of the letters, and from one line of text to the next, in pixels
DARK = {WHITE: "#1E1E26", INK: "#E9E9EF", PALE: "#3B3B47"}  # the neutral colours where dark is preferred
NAMES = {WHITE: "paper", INK: "ink", PALE: "pale"}
RULES = "".join(f".mv-{NAMES[c]}{{fill:{dark}}}.mv-{NAMES[c]}-line{{stroke:{dark}}}" for c, dark in DARK.items())
FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"


class Drawing:
    """An SVG of a fixed size, in pixels. title: its conclusion, drawn on top. about: what is seen, for whoever cannot."""

    def __init__(self, title: str, about: str, width: int, height: int):
        self.title, self.about, self.width, self.height = title, about, width, height
        self.parts: list[str] = []
        self.text(14, 24, title, "start", bold=True, size=15)

    def box(self, x, y, wide, high, words="", colour=PALE, dashed=False) -> None:
        """A rounded box. Of several lines the first is bold. The words keep to the middle."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        place = f'x="{x}" y="{y}" width="{wide}" height="{high}" rx="6"'
        self.parts.append(f'<g class="box"><rect {place} {_fill(colour)} stroke="{GREY}"{dash}/>')
        ink, lines = (INK if colour in DARK else ink_on(colour)), words.split("\n") if words else []
        top = y + high / 2 - STEP * (len(lines) - 1) / 2 + 4.5
        for n, line in enumerate(lines):
            bold = n == 0 and len(lines) > 1
            self.text(x + wide / 2, top + n * STEP, line, bold=bold, colour=ink, switches=colour in DARK)
        self.parts.append("</g>")

    def arrow(self, x1, y1, x2, y2, words="", dashed=False) -> None:
        """A straight arrow; its words stand above its middle, or to the right of a steep one."""
        long = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        ux, uy = (x2 - x1) / long, (y2 - y1) / long
        bx, by = x2 - 9 * ux, y2 - 9 * uy
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        line = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{bx:.1f}" y2="{by:.1f}"'
        self.parts.append(f'<line {line} class="mv-ink-line" stroke="{INK}" stroke-width="1.5"{dash}/>')
        corners = (x2, y2), (bx - 4.5 * uy, by + 4.5 * ux), (bx + 4.5 * uy, by - 4.5 * ux)
        self.parts.append(f'<polygon points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}" {_fill(INK)}/>')
        if words:
            steep = abs(uy) > abs(ux)
            middle = ((x1 + x2) / 2 + 8 * steep, (y1 + y2) / 2 + (4 if steep else -7))
            self.text(*middle, words, "start" if steep else "middle", size=12)

    def text(self, x, y, words, anchor="middle", size=SIZE, bold=False, colour=INK, switches=True) -> None:
        """One line of words. anchor: start, middle or end. switches: it turns light on a dark background."""
        weight = ' font-weight="600"' if bold else ""
        fill = _fill(colour) if switches else f'fill="{colour}"'
        place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
        self.parts.append(f"<text {place}{weight} {fill}>{escape(words)}</text>")

    def circle(self, x, y, radius) -> None:
        """A ring, as a dial has."""
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="none" stroke="{GREY}"/>')

    def _repr_svg_(self) -> str:
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{FONT}" '
            f'style="max-width:100%;height:auto"><title>{escape(self.title)}</title><desc>{escape(self.about)}</desc>'
            f"<style>@media (prefers-color-scheme: dark){{{RULES}}}</style>"
            f'<rect width="{self.width}" height="{self.height}" rx="8" {_fill(WHITE)}/>{"".join(self.parts)}</svg>'
        )

    def _repr_html_(self) -> str:
        data = base64.b64encode(self._repr_svg_().encode()).decode()
        return f'<img alt="{escape(repr(self))}" src="data:image/svg+xml;base64,{data}">'

    def __repr__(self) -> str:
        return f"{self.title}. {self.about}"


def _fill(colour: str) -> str:
    return f'class="mv-{NAMES[colour]}" fill="{colour}"' if colour in NAMES else f'fill="{colour}"'

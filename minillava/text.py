"""Text for people: aligned tables, Markdown tables, shortened lists and numbers, and what every terminal can print.

All tables and all shortened lists that the package prints are made here.

    python -c "from minillava.text import aligned; print(aligned([['', 'score'], ['all', '85.1']]))"
"""

import re
from collections.abc import Iterable, Sequence, Set

FEW = 8  # how many names of a longer list are shown


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned text: the first column on the left, the others on the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        (row[0].ljust(widths[0]) + "".join(c.rjust(w + 2) for c, w in zip(row[1:], widths[1:]))).rstrip()
        for row in rows
    )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table; the first row is the header."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def few(names: Iterable[str], limit: int = FEW) -> str:
    """The first names in one line, and how many more there are: `a, b and 7 more`. A set is sorted."""
    names = sorted(names) if isinstance(names, Set) else list(names)
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def listed(lines: Sequence[object], limit: int = FEW) -> str:
    """The first lines, indented, and how many more there are."""
    more = [f"  and {len(lines) - limit:,} more"] if len(lines) > limit else []
    return "\n".join([*(f"  {line}" for line in lines[:limit]), *more])


def short_number(value: float) -> str:
    """1234567 as "1.23 M"."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g} "


def printable(text: str) -> str:
    """The text with a ? for each lone surrogate and control character (but line break and tab).

    JSON may contain both; terminals cannot print the first and obey the second.
    """
    text = text.encode("utf-8", "replace").decode()
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\r(?!\n)", "?", text)

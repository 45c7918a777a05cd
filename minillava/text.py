"""Text for people: aligned tables, Markdown tables, the first few of many, characters that any terminal takes.

Every table and every shortened list that the package prints is made here.

    python -c "from minillava.text import aligned; print(aligned([['', 'score'], ['all', '85.1']]))"
"""

from collections.abc import Sequence

FEW = 8  # of many things, how many are named


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        (row[0].ljust(widths[0]) + "".join(c.rjust(w + 2) for c, w in zip(row[1:], widths[1:]))).rstrip()
        for row in rows
    )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table; the first row is its head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def few(names: Sequence[str], limit: int = FEW) -> str:
    """The first names in one line, and how many more there are: `a, b and 7 more`."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def listed(lines: Sequence[object], limit: int = FEW) -> str:
    """The first lines, indented, and how many more there are."""
    more = [f"  and {len(lines) - limit:,} more"] if len(lines) > limit else []
    return "\n".join([*(f"  {line}" for line in lines[:limit]), *more])


def printable(text: str) -> str:
    """A text without half characters (lone surrogates, as JSON may hold them), which no terminal takes."""
    return text.encode("utf-8", "replace").decode()

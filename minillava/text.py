"""Text for a terminal: aligned tables, and characters that any terminal takes."""


def grid(rows: list[list[str]]) -> str:
    """Rows as aligned text, the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        (row[0].ljust(widths[0]) + "".join(c.rjust(w + 2) for c, w in zip(row[1:], widths[1:]))).rstrip()
        for row in rows
    )


def printable(text: str) -> str:
    """A text without half characters (lone surrogates, as JSON may hold them), which no terminal takes."""
    return text.encode("utf-8", "replace").decode()

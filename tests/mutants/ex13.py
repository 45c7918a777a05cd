"""Wrong answers to exercise 13: (task, what stands in the solution, what a learner writes, what the hint has to say)."""

MUTANTS = [
    ("13.1", "if n == 0", "if n == len(turns)", "newest question"),
    ("13.1", "if n == 0", "if True", "every question"),
    ("13.1", "{turns[n][1]}###", "{turns[n][1]}", "not closed by the stop"),
    ("13.1", "return text", "return text.rstrip()", "without the blank"),
    ("13.2", "return text[: len(text) - max(waits, default=0)]", "return text", "beginning of a stop"),
    ("13.2", "text[: len(text) - max(waits, default=0)]", "text[: len(text) - max(len(s) for s in stops) + 1]", "as many characters"),
    ("13.2", "min(found)", "max(found)", "last stop"),
    ("13.2", "if found :=", "stops = stops[:1]\n    if found :=", "only the first stop"),
    ("13.3", "p, r = (hits / said if said else 0), (hits / true if true else 0)", "r, p = (hits / said if said else 0), (hits / true if true else 0)", "exchanged"),
    ("13.3", '"yes": said / len(pairs)', '"yes": true / len(pairs)', "of the labels"),
    ("13.3", "hits / said if said else 0", "hits / said", "divided by 0"),
    ("13.3", "100 * value", "value", "not per cent"),
    ("13.2a", "range(len(stop) - 1, 0, -1)", "range(1, len(stop))", "shortest beginning"),
    ("13.2a", "text.endswith(stop[:n])", "stop[:n] in text", "middle of the text"),
    ("13.2b", "min(found, default=len(text))", "found[0] if found else len(text)", "listed first decides"),
    ("13.2b", "text.index(stop) for", "text.index(stop) + len(stop) for", "stop itself is still there"),
]  # fmt: skip

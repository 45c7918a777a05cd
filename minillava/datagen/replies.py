"""From a teacher's reply to question-answer pairs, or to the reason for refusing it: parsing and filtering (section 3).

The prompts ask for `Question:` / `===` / `Answer:` blocks. But models number the blocks, make headers bold, forget the
separators, write on the header's line, wrap everything in a code fence, or call the speakers Human and Assistant. All
these forms are read. An unclear reply is refused with a reason. The filters look for what the prompts forbid.

    from minillava.datagen.replies import read_pairs
    read_pairs("complex", "**Question 1:** Why?\\n**Answer:** Because.")
"""

import re

FORMAT = "format"  # the reasons for refusing a reply, as counted in the summary
EMPTY = "empty turn"
TRUNCATED = "truncated"
REFUSED = "refusal"
MENTIONS_SOURCE = "speaks of its source"
DUPLICATE = "duplicate question"
REASONS = (FORMAT, EMPTY, TRUNCATED, REFUSED, MENTIONS_SOURCE, DUPLICATE)

SEPARATOR = re.compile(r"^[ \t]*={3,}[ \t]*$", re.M)
RULE = re.compile(r"^[ \t]*(?:={3,}|-{3,}|\*{3,}|_{3,})[ \t]*$", re.M)  # separators of all kinds
FENCE = re.compile(r"\A\s*```[a-z]*\n(.*)\n```\s*\Z", re.S)


def _header(question: str, answer: str) -> re.Pattern:
    """Matches a header at the start of a line: `**Question 2:**`, `### Answer`, `1. Question - `, `[Answer]`."""
    return re.compile(
        rf"^[ \t]*(?:[#>*\-][#>*\- \t]*)?(?:\(?\d+[.)][ \t]*)?[*_\[]*(?:(?P<q>{question})|(?P<a>{answer}))"
        r"[ \t]*(?:#?\d+)?[*_\]]*[ \t]*(?:[:：][*_]*|[.)\-–—][ \t]|[ \t]*$)[ \t]*",
        re.M | re.I,
    )


HEADERS = (_header("Question", "Answer"), _header("Human|User|Q", "Assistant|GPT|A"))
UNWILLING = (
    r"(?:assist|help|answer|provide|describe|create|generate|fulfil+|comply|continue)\b"
    r"|(?:see|view|access|look at) (?:the |this |that |an? |any |your |actual )*(?:image|picture|photo)s?\b"
)
REFUSALS = re.compile(  # "as an AI" anywhere, the others at the start; "I cannot see a dog" is an answer
    r"\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b"
    r"|\A\W*(?:I['’]?m|I am) (?:very |so |truly )?sorry\b|\A\W*(?:sorry|unfortunately), (?:but )?I\b"
    r"|\A\W*(?:I can(?:not|['’]t)|I will not|I won['’]t|(?:I['’]m|I am) (?:unable|not able) to)"
    rf" (?:\w+ ){{0,2}}(?:{UNWILLING})",
    re.I,
)
GIVEN = r"(?:given|provided|above|supplied|five)"
TEXTS = r"(?:sentences?|descriptions?|texts?|lists?|information)"
SOURCE_MENTIONS = re.compile(  # "the given text", but not "the text on the sign", which is in the picture
    r"\bcaptions?\b|\bbounding[ -]?box(?:es)?\b|\bcoordinates?\b"
    r"|\b(?:the|these|those|your) (?:image |picture )?(?:sentences|descriptions?)\b"
    rf"|\b(?:the|these|those|this|all|your|from|on|in|by) {GIVEN} (?:\w+ )?{TEXTS}\b"
    rf"|\b{TEXTS} (?:that )?(?:(?:was|were|is|are|I was|you) )?{GIVEN}\b"
    rf"|\baccording to the {TEXTS}\b"
    r"|[\[(]\s*\d?\.\d+\s*,\s*\d?\.\d+|[\[(]x1\b",
    re.I,
)


class ReplyError(ValueError):
    """A reply that cannot become a record. reason: one of REASONS."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_pairs(kind: str, text: str) -> list[tuple[str, str]]:
    """(question, answer) pairs of a reply. For a detailed description ("", text): its question comes from a list.

    Raises ReplyError when questions and answers do not alternate, one is empty, or complex reasoning has several.
    """
    text = text.replace("\r\n", "\n").strip()
    fenced = FENCE.match(text)
    text = fenced[1] if fenced else text
    if kind == "detail":
        return [("", _description(text))]
    pairs = _pairs(text)
    for n, (question, answer) in enumerate(pairs, 1):
        if not question or not answer:
            raise ReplyError(EMPTY, f"turn {n} has no {'answer' if question else 'question'}")
    if kind == "complex" and len(pairs) != 1:
        raise ReplyError(FORMAT, f"{len(pairs)} questions, expected one")
    return pairs


def _pairs(text: str) -> list[tuple[str, str]]:
    blocks = [b.strip() for b in SEPARATOR.split(text) if b.strip()]
    heads = [HEADERS[0].match(b) for b in blocks]
    if heads and all(heads) and [h.lastgroup for h in heads] == ["q", "a"] * (len(heads) // 2):
        # The expected form: another header inside a block is part of its text.
        bodies = [_body(b[h.end() :]) for b, h in zip(blocks, heads)]
        return list(zip(bodies[::2], bodies[1::2]))
    for header in HEADERS:
        found = list(header.finditer(text))
        if not found:
            continue
        turns = [h.lastgroup for h in found]
        if turns != ["q", "a"] * (len(turns) // 2):
            raise ReplyError(FORMAT, f"questions and answers do not alternate: {' '.join(turns).upper()}")
        ends = [*(h.start() for h in found[1:]), len(text)]
        bodies = [_body(text[h.end() : end]) for h, end in zip(found, ends)]
        return list(zip(bodies[::2], bodies[1::2]))
    raise ReplyError(FORMAT, f"no Question: and Answer: in {text[:60]!r}" if text else "the reply is empty")


def _body(text: str) -> str:
    """A block's text without the rules (`===`, `---`) or the bold stars around it."""
    lines = text.split("\n")
    for end in (0, -1):
        while lines and (not lines[end].strip() or RULE.fullmatch(lines[end])):
            lines.pop(end)
    text = "\n".join(lines).strip()
    return text[2:-2].strip() if re.fullmatch(r"\*\*[^*]+\*\*", text) else text


def _description(text: str) -> str:
    """The text of a description, or the answer if it came as a single question and answer."""
    found = list(HEADERS[0].finditer(text))
    if found and found[0].start() == 0:
        turns = [h.lastgroup for h in found]
        if turns not in (["a"], ["q", "a"]):
            raise ReplyError(FORMAT, "questions and answers instead of a description")
        text = text[found[-1].end() :]
    text = _body(re.sub(r"\A[#*_ ]*(?:detailed )?description[*_ ]*:[*_ ]*", "", text, flags=re.I))
    if not text:
        raise ReplyError(EMPTY, "no description")
    if SEPARATOR.search(text):
        raise ReplyError(FORMAT, "several blocks instead of a description")
    return text


def check_pairs(pairs: list[tuple[str, str]]) -> None:
    """Raise ReplyError when a pair refuses, speaks of its source, or repeats a question."""
    for question, answer in pairs:
        if found := REFUSALS.search(answer):
            raise ReplyError(REFUSED, repr(answer[max(0, found.start() - 20) : found.end() + 40]))
        for text in (question, answer):
            if found := SOURCE_MENTIONS.search(text):
                raise ReplyError(MENTIONS_SOURCE, repr(text[max(0, found.start() - 30) : found.end() + 20]))
    asked = [" ".join(re.findall(r"\w+", q.lower())) for q, _ in pairs]
    for n, question in enumerate(asked):
        if question in asked[:n]:
            raise ReplyError(DUPLICATE, repr(pairs[n][0]))


def checked_pairs(kind: str, text: str, finish: str = "stop", refusal: str | None = None) -> list[tuple[str, str]]:
    """The checked pairs of a reply, for a record. finish, refusal: of the reply (`asking.Reply`). Raises ReplyError."""
    if refusal or finish == "content_filter":
        raise ReplyError(REFUSED, refusal or "stopped by the endpoint's content filter")
    if finish == "length":
        last = f"after {text[-40:]!r}" if text.strip() else "before any answer: reasoning took all of it"
        raise ReplyError(TRUNCATED, f"cut off at the limit, {last}; a larger --max-tokens asks again")
    if not text.strip():
        raise ReplyError(EMPTY, "the reply is empty")
    if kind != "detail" and REFUSALS.search(text) and not any(h.search(text) for h in HEADERS):
        raise ReplyError(REFUSED, repr(text[:80]))
    pairs = read_pairs(kind, text)
    check_pairs(pairs)
    return pairs

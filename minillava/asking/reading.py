"""What an endpoint's answer says: a reply's final text without the model's thoughts, or the words of its error.

Endpoints that imitate the API put thoughts in different places, have other words for "finished", and report errors in
many forms, also with HTTP status 200. All of them are read here, so that no thought, and no reply that broke off,
reaches a record or a score. An unusable answer is an error in words, not an empty string later.

    python -c "from minillava.asking.reading import *; print(final_text('<think>A dog?</think>A cat.'))"
"""

import json
import re

from minillava.asking.errors import AskingError, BadReply, RateLimited, Rejected, Unbilled
from minillava.asking.request import MOST_TOKENS, Reply, most_tokens
from minillava.text import printable

TAG = r"(?:\w+:)?(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad)"
THOUGHT = re.compile(
    rf"(?P<open><{TAG}(?:\s[^<>]*)?>|\[THINK\]|◁think▷|<\|(?:START_THINKING|begin_of_thought)\|>|<\|channel>)"
    rf"|</{TAG}\s*>|\[/THINK\]|◁/think▷|<\|(?:END_THINKING|end_of_thought)\|>|<channel\|>",
    re.I,
)
CHANNEL = re.compile(r"<\|channel\|>\s*(\w*)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(.*?)(?=<\|\w+\|>|\Z)", re.S)
BARE_CHANNEL = re.compile(r"\s*analysis(?=[A-Z]).*?(?:assistant\s*final|(?P<cut>\Z))", re.S)  # without special tokens

FINISH = {  # the API's word, and what others call it
    "stop": "stop end_turn eos eos_token end_of_text stop_sequence completed complete finished done".split(),
    "length": "length max_tokens max_output_tokens max_length max_completion_tokens model_length".split(),
    "content_filter": "content_filter content_filtered safety recitation blocklist prohibited_content refusal".split(),
}

SAID = "error errors detail message msg title reason raw metadata provider_name param".split()  # where the words are
CODE = re.compile(r'"(?:code|status|statusCode|status_code)": "?([45]\d\d)\b')
MEANS = (  # what an error without a status means, by its words
    (429, re.compile(r"rate.?limit|too.?many.?requests|resource.?exhausted|throttl", re.I)),
    (400, re.compile(r"invalid.?(?:request|argument|prompt|value)|context.?(?:length|window)|unsupported", re.I)),
    (503, re.compile(r"overload|unavailable|server.?error|internal|time.?out|capacity|try again", re.I)),
)
NO_CREDIT = re.compile(r"insufficient.?(?:quota|balance|credit)|billing.?(?:hard|not.?active)", re.I)
WAIT = re.compile(r"(?:retryDelay\W+|(?:try again|retry)\w* (?:in|after) )(\d+(?:\.\d+)?) ?(ms|s)", re.I)
REFUSED = {401: "the key is refused", 402: "the account has no credit left", 403: "not allowed",
           404: "no such model or address"}  # fmt: skip


def final_text(text: str) -> str:
    """The text without the model's thoughts; empty if a thought never ends, because then there is no answer.

    A closing tag alone ends a thought that began with the text: some chat templates put the opening tag in the prompt.
    """
    if "<|channel|>" in text:
        finals = [said for name, said in CHANNEL.findall(text) if name == "final"]
        return final_text(finals[-1]).strip() if finals else ""
    if found := BARE_CHANNEL.match(text):
        return "" if found["cut"] is not None else final_text(text[found.end() :]).strip()
    kept, start, inside = [], 0, False
    for tag in THOUGHT.finditer(text):
        if tag["open"] is None:
            kept, start, inside = kept if inside else [], tag.end(), False
        elif not inside:
            kept, inside = [*kept, text[start : tag.start()]], True
    return "" if inside else "".join([*kept, text[start:]]).strip() if start else text


def finish_of(reason: object) -> str | None:
    """`stop`, `length` or `content_filter`, whatever the endpoint calls it; None if it does not mean an end."""
    return next((finish for finish, words in FINISH.items() if str(reason).strip().lower() in words), None)


def _parts(content: object, kind: str) -> str:
    """The text of one kind (`text`, `refusal`) in a message's content: a text, or a list of parts of several kinds."""
    parts = content if isinstance(content, list) else [content]
    parts = [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]
    parts = [p for p in parts if isinstance(p, dict) and p.get("type", kind) in (kind, f"output_{kind}")]
    return "".join(p[kind] for p in parts if isinstance(p.get(kind), str))


def read_reply(answer: object, body: dict) -> Reply:
    """The reply in a chat completion (its JSON, as a dict).

    Raises BadReply that says what is wrong with it, and for an error inside it what `problem` makes of its words.
    """
    if not isinstance(answer, dict):
        raise BadReply(f"not a JSON object: {str(answer)[:80]!r}")
    choices, tokens = answer.get("choices"), _usage(answer.get("usage"))
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    if error := answer.get("error") or (choice or {}).get("error"):
        raise problem(error)
    if choice is None:
        raise BadReply("no choices in the reply", tokens)
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": message or choice.get("text")}
    content = message.get("content") or choice.get("text")
    refusal = str(message.get("refusal") or "") or _parts(content, "refusal")
    raw, named = _parts(content, "text"), choice.get("finish_reason")
    finish, text = finish_of(named), final_text(raw)
    if finish not in ("length", "content_filter") and not refusal and not (finish and text.strip()):
        thought = (
            ", only thoughts" if raw.strip() or message.get("reasoning") or message.get("reasoning_content") else ""
        )
        what = "the reply is not finished" if text.strip() else f"no text in the reply{thought}"
        raise BadReply(f"{what} (finish_reason: {str(named)[:40]})", tokens)
    tokens = tokens or (most_tokens(body)[0], len(json.dumps(choice, ensure_ascii=False).encode("utf-8", "replace")))
    model = str(answer.get("model") or body["model"])
    return Reply(text, finish or "stop", model, *tokens, refusal=refusal or None)


def _usage(usage: object) -> tuple[int, int] | None:
    counts = [usage.get(k) for k in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else [None]
    return tuple(counts) if all(type(n) is int and 0 <= n < MOST_TOKENS for n in counts) else None


def error_words(error: object) -> str:
    """What an error says in words: an object, a list of them, a `detail`, a text, HTML."""
    words = "; ".join(dict.fromkeys(w.strip() for w in _words(error) if w.strip())) or json.dumps(error).strip('"')
    if words.startswith("<"):
        words = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", words, flags=re.S | re.I)
    return printable(" ".join(words.split()))[:300]


def _words(error: object, depth: int = 5) -> list[str]:
    if isinstance(error, list) and depth:
        return [words for one in error[:3] for words in _words(one, depth - 1)]
    if not isinstance(error, dict) or not depth:
        return [error] if isinstance(error, str) else []
    place = ".".join(map(str, error["loc"])) + ": " if isinstance(error.get("loc"), list) else ""
    return [place + words for key in SAID for words in _words(error.get(key), depth - 1)]


def problem(error: object, status: int = 0, wait: float | None = None, endpoint: str = "the endpoint") -> Exception:
    """The exception for an error. status: of HTTP; 0: it came with 200, so its codes or its words say what it means.

    wait: the seconds that the answer's headers ask to wait; None: its words may say.
    """
    text, words = json.dumps(error, ensure_ascii=False), error_words(error)
    if NO_CREDIT.search(text):
        status = 402
    elif not status and (code := CODE.search(text)):
        status = int(code[1])
    elif not status:
        status = next((meant for meant, pattern in MEANS if pattern.search(text)), 0)
    if wait is None and (asked := WAIT.search(text)):
        wait = float(asked[1]) / (1000 if asked[2].lower() == "ms" else 1)
    if not status:
        return BadReply(f"the endpoint reports an error: {words}")
    words = f"HTTP {status}: {words}"
    if status == 429:
        return RateLimited(words, wait)
    if status in (408, 409, 425) or status >= 500:
        return Unbilled(words, wait, everyone=wait is not None)
    if status in (400, 413, 422):
        return Rejected(words)
    moved = "sends to another address, and is not followed there: give that one with --base-url"
    why = REFUSED.get(status, moved if 300 <= status < 400 else "refused")
    return AskingError(f"{endpoint}: {why} ({words.removesuffix(': ')})")

"""One request and its reply: the body of a chat completion, its key, and the most tokens it can cost.

A reply is kept under the hash of the whole body (model, messages, settings): the same question is never paid for twice,
and a changed prompt is a new question.

    python -c "from minillava.asking import *; print(request_key(chat_request('gpt-4', [])))"
"""

import hashlib
import json
import re
from dataclasses import dataclass

KEY_DIGITS = 32  # of a SHA-256: 128 bits; also the `custom_id` of batch files, which may have 64
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # this machine
MOST_TOKENS = 10**9  # of one reply; a larger count must be wrong
REASONING = re.compile(r"(^|/)(o\d|gpt-5)")  # their limit includes hidden reasoning, and they take no temperature


@dataclass(frozen=True)
class Reply:
    """One answer. Tokens are the endpoint's own count, or an upper bound where it gives none.

    finish: `stop`, or why the text ends early (`length`: cut off at the limit; `content_filter`).
    refusal: the model's words when it declines through the API's own field. not_sent: fields of the request that the
    endpoint does not take and that were left out.
    """

    text: str
    finish: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    refusal: str | None = None
    not_sent: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it is an answer, or cannot become one when asked again (too long, declined)."""
        declined = self.refusal or self.finish in ("length", "content_filter")
        return bool(declined or (self.finish == "stop" and self.text.strip()))

    def row(self) -> dict:
        return {k: v for k, v in vars(self).items() if v not in (None, ())}


def chat_request(
    model: str, messages: list[dict], max_tokens: int = 1024, temperature: float | None = None, **more
) -> dict:
    """The body of a request. It always sets max_tokens, because the budget must know the most that a reply can cost.

    messages: `{"role": "system" | "user" | "assistant", "content": text}`. more: other fields of the API (`seed`).
    """
    body = {"model": model, "messages": messages, **more}
    if REASONING.search(model):
        return body | {"max_completion_tokens": max_tokens}
    return body | {"max_tokens": max_tokens} | ({} if temperature is None else {"temperature": temperature})


def request_key(body: dict) -> str:
    """A hash of the whole request, independent of the order of its fields."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def most_tokens(body: dict) -> tuple[int, int]:
    """The most (prompt, completion) tokens that a request can cost: a token has at least one byte of UTF-8."""
    text = sum(len(m["content"].encode("utf-8", "replace")) + 16 for m in body["messages"])
    return text + 16, body.get("max_completion_tokens") or body["max_tokens"]


def likely_tokens(text: str) -> int:
    """About how many tokens a text has, at English's four characters per token. For estimates, not for the budget."""
    return len(text) // 4 + 1

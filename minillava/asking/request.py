"""One request and its reply: the body of a chat completion, its key, and what is read from the answer.

Notable: a reply is filed under the hash of the whole body (model, messages, settings), so the same question is never
paid for twice and a changed prompt is a new question. What is not a usable answer (no choices, no text) is an error
here, not an empty string later.

    python -c "from minillava.asking import *; body = chat('gpt-4', [{'role': 'user', 'content': 'Hello'}]); print(key(body))"
"""

import hashlib
import json
import re
from dataclasses import dataclass

from minillava.errors import UserError

KEY_DIGITS = 32  # of a SHA-256: 128 bits; also the `custom_id` of batch files, which may have 64
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # this machine
MOST_TOKENS = 10**9  # of one reply: what counts more counts wrong
REASONING = re.compile(r"^(o\d|gpt-5)")  # these count hidden reasoning into the limit, and take no temperature


class AskingError(UserError):
    """Asking cannot start or go on; the message says what to do. What was answered before is kept."""


class BadReply(ValueError):
    """The endpoint answered, but not with a chat completion that holds an answer. tokens: what it counted, if it did."""

    def __init__(self, reason: str, tokens: tuple[int, int] | None = None):
        super().__init__(reason)
        self.tokens = tokens


class Unbilled(Exception):
    """The endpoint did not do the work now (429, 5xx, no connection). wait: the seconds it asks to wait, if it says;
    everyone: whether that holds for all requests, not for this one."""

    def __init__(self, reason: str, wait: float | None = None, everyone: bool = False):
        super().__init__(reason)
        self.wait, self.everyone = wait, everyone


class Lost(Exception):
    """The request was sent and no answer came (a time-out, a reset): it may have been billed."""


class Rejected(Exception):
    """The endpoint refuses this one request (400, 413, 422); asking again would not help."""


@dataclass(frozen=True)
class Reply:
    """One answer. Tokens are the endpoint's own count, or an upper bound where it gives none.

    finish: `stop`, or why there is no more text (`length`: cut off at the limit; `content_filter`).
    refusal: what a model says instead of an answer where it declines through the API's own field.
    """

    text: str
    finish: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    refusal: str | None = None

    def row(self) -> dict:
        return {k: v for k, v in vars(self).items() if v is not None}


def chat_request(
    model: str, messages: list[dict], max_tokens: int = 1024, temperature: float | None = None, **more
) -> dict:
    """The body of a request. max_tokens is always set, because the budget needs to know the most a reply can cost.

    messages: `{"role": "system" | "user" | "assistant", "content": text}`. `more`: any other field of the API (`seed`, `top_p`).
    """
    body = {"model": model, "messages": messages, **more}
    if REASONING.match(model):
        return body | {"max_completion_tokens": max_tokens}
    return body | {"max_tokens": max_tokens} | ({} if temperature is None else {"temperature": temperature})


def request_key(body: dict) -> str:
    """The name of a request: a hash of all of it, whatever the order of its fields."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def most_tokens(body: dict) -> tuple[int, int]:
    """(prompt, completion) tokens that a request can cost at most: a token is at least one byte of UTF-8."""
    text = sum(len(m["content"].encode("utf-8", "replace")) + 16 for m in body["messages"])
    return text + 16, body.get("max_completion_tokens") or body["max_tokens"]


def likely_tokens(text: str) -> int:
    """About how many tokens a text has: English has some four characters a token. For estimates, not for the budget."""
    return len(text) // 4 + 1


def read_reply(answer: object, body: dict) -> Reply:
    """The reply in a chat completion (its JSON, as a dict). Raises BadReply that says what is wrong with it."""
    if not isinstance(answer, dict):
        raise BadReply(f"not a JSON object: {str(answer)[:80]!r}")
    choices, tokens = answer.get("choices"), _usage(answer.get("usage"))
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadReply("no choices in the reply", tokens)
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    text = message.get("content") if isinstance(message, dict) else None
    refusal = message.get("refusal") if isinstance(message, dict) else None
    if not isinstance(text, str) and not refusal and finish not in ("length", "content_filter"):
        raise BadReply("no text in the reply", tokens)
    text = text if isinstance(text, str) else ""
    tokens = tokens or (most_tokens(body)[0], len(text.encode("utf-8", "replace")) + 1)
    finish, model = str(finish or "stop"), str(answer.get("model") or body["model"])
    return Reply(text, finish, model, *tokens, refusal=str(refusal) if refusal else None)


def _usage(usage: object) -> tuple[int, int] | None:
    counts = [usage.get(k) for k in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else [None]
    return tuple(counts) if all(type(n) is int and 0 <= n < MOST_TOKENS for n in counts) else None

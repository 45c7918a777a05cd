"""A request of the API becomes a question: its turns, its picture, and how the answer is chosen.

What `chat` can do is taken, with its defaults: an answer is greedy unless `temperature` is given. Everything else is
refused by name. A picture comes inside the request, as a data address; other addresses are never fetched. It stands
before the first question, whatever the order of the parts, as in `chat`.

    read_request({"model": "llava", "messages": [{"role": "user", "content": "Why?"}]}, "llava")
"""

import base64
import binascii
import math
import re
from dataclasses import dataclass

from minillava.data.records import IMAGE_TOKEN
from minillava.errors import UserError
from minillava.files import parse_json
from minillava.model.generate import LEAST_TEMPERATURE
from minillava.text import printable

MAX_VALUES = 100_000  # of one request; short ones take up to twenty times the memory of their text
READ = ("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
        "seed", "user")  # fmt: skip
# Fields that ask for what happens anyway when they have this value.
NEUTRAL = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0, "logprobs": False, "store": False, "tools": [],
           "response_format": {"type": "text"}}  # fmt: skip


class Refused(UserError):
    """A request that is not answered; the message says why. status: of HTTP. param: the field. code: a word for it."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict:
        """The error in the API's form."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Asked:
    """turns: (question, answer) pairs; the last answer is None where it is to be written. picture: of the first one."""

    turns: list[tuple[str, str | None]]
    picture: bytes | None
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    streams: bool
    counts: bool  # whether a stream ends with the number of tokens


def read_json(data: bytes) -> object:
    """The value of a request's body. Raises Refused."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise Refused(f"more than {MAX_VALUES:,} values; the conversation is too long", status=413)
    try:
        return parse_json(data)
    except ValueError as error:
        raise Refused(f"not JSON: {error}") from error


def read_request(body: object, model: str) -> Asked:
    """What is asked. model: the only one that answers. Raises Refused."""
    if not isinstance(body, dict):
        raise Refused("expected a JSON object with `model` and `messages`")
    if body.get("model") != model:
        named = str(body.get("model"))[:100]
        raise Refused(f"no model {named!r} here; this is {model!r}", "model", 404, "model_not_found")
    for name, value in body.items():
        if name not in READ and value is not None and not (name in NEUTRAL and value == NEUTRAL[name]):
            shown = printable(str(name)[:60])
            raise Refused(f"`{shown}` is not supported; leave it out", shown, 400, "unsupported")
    limit = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    temperature = _number(body, "temperature", 0.0, 0, 1000)
    if 0 < temperature < LEAST_TEMPERATURE:
        raise Refused(f"`temperature` must be 0, or {LEAST_TEMPERATURE:g} or above", "temperature")
    options = {} if body.get("stream_options") is None else body["stream_options"]
    if not isinstance(options, dict):
        raise Refused("`stream_options` must be an object", "stream_options")
    turns, picture = read_messages(body.get("messages"))
    return Asked(
        turns,
        picture,
        _number(body, limit, 120, 1, math.inf, whole=True),
        temperature,
        _number(body, "top_p", 1.0, 1e-6, 1),
        _number(body, "seed", 0, 0, 2**32 - 1, whole=True),
        _boolean(body, "stream"),
        _boolean(options, "include_usage"),
    )


def _number(body: dict, name: str, default: float, low: float, high: float, whole: bool = False) -> float:
    value = body.get(name)
    if value is None:
        return default
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        limits = f"of at least {low}" if math.isinf(high) else f"from {low} to {high}"
        raise Refused(f"`{name}` must be {what} {limits}", name)
    return value


def _boolean(body: dict, name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False) or isinstance(value, int | float) and not isinstance(value, bool):
        raise Refused(f"`{name}` must be true or false", name)
    return bool(value)


def read_messages(messages: object) -> tuple[list[tuple[str, str | None]], bytes | None]:
    """The turns, and the picture of the first question. Raises Refused that names the message."""
    if not isinstance(messages, list) or not messages:
        raise Refused("`messages` must be a list that is not empty", "messages")
    texts, picture = [], None
    for n, message in enumerate(messages):
        where, wanted = f"messages[{n}]", ("user", "assistant")[n % 2]
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("system", "developer"):
            why = "the weights have learned one text before the conversation, which is always there"
            raise Refused(f"{where}: the role {role!r} is not supported: {why}; leave it out", where)
        if role != wanted:
            raise Refused(
                f"{where}: expected a message of the role {wanted!r}, as user and assistant take turns", where
            )
        text, shown = _content(message.get("content"), where)
        if shown and (n or len(shown) > 1):
            raise Refused(f"{where}: one picture can be shown, in the first message; start a new conversation", where)
        picture = shown[0] if shown else picture
        if role == "user" and not text.strip():
            raise Refused(f"{where}: an empty question", where)
        if IMAGE_TOKEN in text:
            raise Refused(f"{where}: {IMAGE_TOKEN} marks the place of a picture and cannot be part of a text", where)
        if re.search("[\ud800-\udfff]", text):
            raise Refused(f"{where}: not valid text (half of a surrogate pair)", where)
        texts.append(text)
    if picture is not None:
        texts[0] = f"{IMAGE_TOKEN}\n{texts[0]}"
    answers = texts[1::2] + [None] * (len(texts) % 2)
    return list(zip(texts[::2], answers, strict=True)), picture


def _content(content: object, where: str) -> tuple[str, list[bytes]]:
    """The text of a message, and the bytes of its pictures."""
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        raise Refused(f"{where}.content must be a text, or a list of parts", where)
    texts, pictures = [], []
    for n, part in enumerate(content):
        here = f"{where}.content[{n}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url" and isinstance(part.get("image_url"), dict):
            pictures.append(_picture(part["image_url"].get("url"), f"{here}.image_url.url"))
        else:
            raise Refused(f'{here}: expected {{"type": "text", ...}} or {{"type": "image_url", ...}}', here)
    return "\n".join(texts), pictures


def _picture(url: object, where: str) -> bytes:
    head, _, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (head.lower().startswith("data:") and head.lower().endswith(";base64")):
        what = "expected a data address, data:image/png;base64,..."
        if isinstance(url, str) and re.match("[a-z]+://", url, re.IGNORECASE):
            what = f"addresses are never fetched from here; send the picture itself ({what})"
        raise Refused(f"{where}: {what}", where)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"{where}: not base64 ({error})", where) from error

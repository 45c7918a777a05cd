"""The client of any OpenAI-compatible endpoint (OpenAI, Azure, vLLM, Ollama, llama.cpp), and the API key.

Only this module imports `openai`, whose own retries are off: a request that timed out may have been billed, so each
attempt has to pass the budget (`loop.py`). `post` is used because `chat.completions.create` spends twice the time of
everything else on checking a plain dict. The key and the secrets in the address are in no traceback, log or file: they
are kept in a `Secret`, cleaned from all that an endpoint says, and errors are raised outside of handlers.

    python -c "from minillava.asking.client import Client; print(Client('gpt-4o', 'http://127.0.0.1:8000/v1'))"
"""

import base64
import email.utils
import importlib.util
import json
import os
import re
import time
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

import openai

from minillava.asking.errors import AskingError, BadReply, Lost, Unbilled
from minillava.asking.reading import problem
from minillava.asking.request import LOOPBACK
from minillava.asking.transport import HttpClient, http, proxy_of

OPENAI = "https://api.openai.com/v1"
MOST_SECONDS = 86_400.0  # of --timeout
MACHINE_HEADERS = "Lang Package-Version OS Arch Runtime Runtime-Version Async Retry-Count Read-Timeout".split()
OMITTED_HEADERS = {f"X-Stainless-{name}": openai.Omit() for name in MACHINE_HEADERS}  # each costs time


class Secret:
    """A text that is never printed. `clean` removes it, and the other secrets that came with it, from any JSON value."""

    def __init__(self, text: str, *more: str):
        self._text, self._all = text, sorted({t for t in (text, *more) if len(t) > 4}, key=len, reverse=True)

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        return self._text

    def clean(self, value: object) -> object:
        if isinstance(value, str):
            for secret in self._all:
                value = value.replace(secret, "***")
        elif isinstance(value, list):
            value = [self.clean(v) for v in value]
        elif isinstance(value, dict):
            value = {self.clean(k): self.clean(v) for k, v in value.items()}
        return value


def find_api_key(base_url: str) -> Secret:
    """The key, from the environment's OPENAI_API_KEY or else from Colab's secrets. Raises AskingError without one.

    A server on this machine needs none, nor does an address that contains a name and password.
    """
    text = os.environ.get("OPENAI_API_KEY", "").strip() or _colab_key()
    url = urlsplit(base_url)
    if not text and (url.hostname in LOOPBACK or url.username is not None):
        return Secret("none")
    if not text:
        raise AskingError("no key: set the environment variable OPENAI_API_KEY (in Colab: a secret of that name)")
    if not text.isascii() or any(c.isspace() for c in text):
        raise AskingError("OPENAI_API_KEY contains characters that no key has (spaces, line breaks, or not ASCII)")
    return Secret(text)


def _colab_key() -> str:
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # its image is made from Colab's, so `get` exists but would wait forever
        return ""
    if importlib.util.find_spec("google") is None or importlib.util.find_spec("google.colab") is None:
        return ""
    from google.colab import userdata

    try:
        return (userdata.get("OPENAI_API_KEY") or "").strip()
    except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
        return ""


def _login(url: SplitResult) -> str:
    """The name and password of http://name:password@host, as HTTP sends them; empty without."""
    name = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return base64.b64encode(name.encode()).decode() if url.username is not None else ""


def secrets_of(url: SplitResult, model: str) -> list[str]:
    """The secrets in an address: its password, its query's values, and steps of its path with a digit and 8 characters.

    The name of a model or of a deployment is no secret.
    """
    steps = url.path.split("/")
    steps = [step for before, step in zip(["", *steps], steps) if before != "deployments" and step != model]
    found = [step for step in steps if len(step) >= 8 and re.search(r"\d", step)]
    found += [value for name, value in parse_qsl(url.query) if name != "api-version"]
    found += [url.password or "", _login(url)]
    return found + [unquote(text) for text in found]


class Client:
    """One model at one endpoint: the `ChatClient` for `ask_all`.

    base_url: default: OPENAI_BASE_URL, else OpenAI. With Azure's query `?api-version=...` the key is also sent as
    `api-key`; a name and password in the address replace the key. timeout: seconds for a whole request. Raises
    AskingError for a wrong address or time, or no key.
    """

    def __init__(self, model: str, base_url: str | None = None, timeout: float = 120.0):
        text = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).strip()
        try:
            url = urlsplit(text)
            known = url.scheme in ("http", "https") and url.hostname.encode("idna") and url.port != 0
        except (ValueError, AttributeError):  # no host, a host that cannot be a name, a port that is not a number
            known = False
        if not known:
            raise AskingError("--base-url: expected something like http://127.0.0.1:8000/v1 or https://host/v1")
        if not 0 < timeout <= MOST_SECONDS:
            raise AskingError(f"--timeout {timeout:g}: expected more than 0 and at most {MOST_SECONDS:,.0f} seconds")
        self.model, self.timeout, self._url = model, timeout, Secret(text)
        self.endpoint = f"{model} at {url.hostname}"  # never the whole address: it may hold a password
        self._key = Secret(find_api_key(text).reveal(), *secrets_of(url, model))
        self._openai: openai.AsyncOpenAI | None = None

    def __repr__(self) -> str:
        return f"Client({self.endpoint})"

    async def open(self) -> None:
        url, key = urlsplit(self._url.reveal()), self._key.reveal()
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        headers = {"api-key": key} if "api-version" in query else {}
        if url.username is not None:  # http://name:password@host, as servers behind a proxy have it
            headers["Authorization"] = f"Basic {_login(url)}"
        proxy = None if url.hostname in LOOPBACK else proxy_of(url.scheme, url.hostname)
        self._openai = openai.AsyncOpenAI(
            api_key=key,
            base_url=urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", "")),
            default_query=query or None,
            default_headers=headers,
            max_retries=0,
            http_client=HttpClient(self.timeout, tls=url.scheme == "https", proxy=proxy),
        )

    async def close(self) -> None:
        await self._openai.close()

    async def complete(self, body: dict, name: str) -> object:
        """The JSON answer to one request, sent once, with `name` as its Idempotency-Key.

        Raises Unbilled, Lost, Rejected, BadReply; AskingError if no request can succeed (a wrong key, no such model).
        """
        answer, error = self._read(*await self._send(json.dumps(body).encode(), name))
        if error:
            raise error  # here, where no local variable holds what the endpoint quoted
        return answer

    async def _send(self, data: bytes, name: str) -> tuple[int, http.Headers, bytes]:
        """(status, headers, content) of the answer. Raises as `HttpClient.send` does."""
        options = {"headers": {"Idempotency-Key": name, **OMITTED_HEADERS}}
        try:
            answer = await self._openai.post("/chat/completions", content=data, cast_to=http.Response, options=options)
        except openai.APIStatusError as error:
            answer = error.response
        except (AskingError, BadReply, Lost, Unbilled, openai.APIConnectionError) as error:
            ours = error.__cause__ if isinstance(error, openai.APIConnectionError) else error  # openai 2 wraps ours
            answer = ours.with_traceback(None)  # its traceback holds the request with its headers
        if isinstance(answer, Exception):
            raise answer
        return answer.status_code, answer.headers, answer.content

    def _read(self, status: int, headers: http.Headers, content: bytes) -> tuple[dict | None, Exception | None]:
        """(the JSON of an answer, or else what is wrong with it), both without secrets."""
        try:
            answer = self._key.clean(json.loads(content))
        except (ValueError, RecursionError):  # not JSON, or nested too deeply
            answer = self._key.clean(content.decode("utf-8", "replace"))
        if not 200 <= status < 300:
            return None, problem(answer, status, retry_after(headers), self.endpoint)
        if isinstance(answer, dict):
            return answer, None
        return None, BadReply(f"not a JSON answer: {str(answer)[:60].strip()!r}" if content else "an empty answer")


def retry_after(headers) -> float | None:
    """The seconds that a server asks to wait, by `retry-after-ms` or `Retry-After` (seconds, or a date).

    None if it asks for nothing that is to come: no header, no number, zero, a time in the past.
    """
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name)) / scale
            return seconds if seconds > 0 else None
        except (TypeError, ValueError):
            pass
    try:
        date = email.utils.parsedate_tz(headers.get("retry-after"))
        seconds = email.utils.mktime_tz(date) - time.time() if date else 0.0
    except (ValueError, OverflowError):  # a date that no calendar has, or one too far away
        seconds = float("inf")
    return seconds if seconds > 0 else None

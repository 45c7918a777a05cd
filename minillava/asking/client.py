"""The client of any OpenAI-compatible endpoint (OpenAI, Azure, vLLM, Ollama, llama.cpp), and the key.

Notable: the only module that imports `openai`. Its own retries are off: a request that timed out may have been billed,
so each attempt has to pass the budget first, and after a 429 all workers wait, not one (`loop.py`). `post` with the JSON
rather than `chat.completions.create`, which takes twice the time of all the rest to check what is a plain dict, and
without the headers that tell of this machine. The key lives in a `Secret`, and errors are made anew from their text, so
that no traceback, log or file holds it.

    python -c "from minillava.asking.client import Client; print(Client('gpt-4o', 'http://127.0.0.1:8000/v1'))"
"""

import base64
import email.utils
import importlib.util
import json
import os
import time
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import httpx2  # which comes with openai
import openai

from minillava.asking.request import LOOPBACK, AskingError, BadReply, Lost, Rejected, Unbilled
from minillava.asking.transport import HttpClient, proxy_of

OPENAI = "https://api.openai.com/v1"
ABOUT_US = "Lang Package-Version OS Arch Runtime Runtime-Version Async Retry-Count Read-Timeout".split()
OMITTED_HEADERS = {f"X-Stainless-{name}": openai.Omit() for name in ABOUT_US}  # each costs time


class Secret:
    """A key that never prints itself; `clean` takes it out of any text."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        return self._text

    def clean(self, text: str) -> str:
        return text.replace(self._text, "***") if len(self._text) > 4 else text


def find_api_key(base_url: str) -> Secret:
    """The key: OPENAI_API_KEY of the environment, else of Colab's secrets; a server on this machine needs none, nor does
    an address with a name and password in it.

    Raises AskingError that says where to put one.
    """
    text = os.environ.get("OPENAI_API_KEY", "").strip() or _colab_key()
    url = urlsplit(base_url)
    if not text and (url.hostname in LOOPBACK or url.username is not None):
        return Secret("none")
    if not text:
        raise AskingError(
            "no key: set the environment variable OPENAI_API_KEY (in Colab: a secret of that name, open to this notebook)"
        )
    if not text.isascii() or any(c.isspace() for c in text):
        raise AskingError("OPENAI_API_KEY holds characters that no key has (spaces, line breaks, or not ASCII)")
    return Secret(text)


def _colab_key() -> str:
    if importlib.util.find_spec("google") is None or importlib.util.find_spec("google.colab") is None:
        return ""
    from google.colab import userdata

    try:
        return (userdata.get("OPENAI_API_KEY") or "").strip()
    except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
        return ""


class Client:
    """One model at one endpoint. What a teacher or judge is to `ask_all`: `open`, `complete`, `close`, `model`, `endpoint`.

    base_url: where; without it OPENAI_BASE_URL, else OpenAI. A query (`?api-version=...`, as Azure has it) goes with every
    request, and the key also as Azure's `api-key` header; a name and password in it go instead of the key. Raises
    AskingError for a base_url that is none, or without a key.
    """

    def __init__(self, model: str, base_url: str | None = None, timeout: float = 120.0):
        text = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        try:
            url = urlsplit(text)
            known = url.scheme in ("http", "https") and url.hostname.encode("idna") and url.port != 0
        except (ValueError, AttributeError):  # no host, one that no name server knows, a port that is no number
            known = False
        if not known:
            raise AskingError(
                "--base-url: expected something like https://api.openai.com/v1 or http://127.0.0.1:8000/v1"
            )
        self.model, self.timeout, self._url = model, timeout, url
        self.endpoint = f"{model} at {url.hostname}"  # never the whole address: it may hold a password
        self._key = find_api_key(urlunsplit(url))
        self._openai: openai.AsyncOpenAI | None = None

    def __repr__(self) -> str:
        return f"Client({self.endpoint})"

    async def open(self) -> None:
        url, query = self._url, dict(parse_qsl(self._url.query))
        connect = min(10.0, self.timeout / 2)  # less than all, so that it shows what was too slow
        proxy = None if url.hostname in LOOPBACK else proxy_of(url.scheme, url.hostname)
        headers = {"api-key": self._key.reveal()} if "api-version" in query else {}
        if url.username is not None:  # http://name:password@host, as servers behind a gate have it
            name = f"{unquote(url.username)}:{unquote(url.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(name.encode()).decode()}"
        self._openai = openai.AsyncOpenAI(
            api_key=self._key.reveal(),
            base_url=urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", "")),
            default_query=query or None,
            default_headers=headers,
            max_retries=0,
            timeout=openai.Timeout(self.timeout, connect=connect),
            http_client=HttpClient(self.timeout, connect, tls=url.scheme == "https", proxy=proxy),
        )

    async def close(self) -> None:
        await self._openai.close()

    async def complete(self, body: dict, name: str) -> object:
        """The JSON answer to one request, asked once. `name` goes along as Idempotency-Key, for endpoints that heed it.

        Raises Unbilled, Lost, Rejected, BadReply, or AskingError where no request can succeed (a wrong key, no such model).
        """
        try:
            answer = await self._openai.post(
                "/chat/completions",
                content=json.dumps(body).encode(),
                cast_to=httpx2.Response,
                options={"headers": {"Idempotency-Key": name, **OMITTED_HEADERS}},
            )
            return json.loads(answer.content)
        except openai.APIError as error:
            problem: Exception = self._problem(error)
        except (ValueError, RecursionError) as error:  # no JSON, or JSON that never ends
            problem = BadReply(f"not a JSON answer ({self._key.clean(str(error))[:100]})")
        raise problem  # outside the handler: the client's error, which holds the request and its headers, is not its context

    def _problem(self, error: openai.APIError) -> Exception:
        said = error.body.get("message") if isinstance(error.body, dict) else None
        said = self._key.clean(" ".join(str(said or error.message).split()))[:300]
        if isinstance(error, openai.APIConnectionError):
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                return Unbilled(f"no connection to {self._url.hostname}", everyone=True)
            late = isinstance(error, openai.APITimeoutError)
            return Lost(f"no answer within {self.timeout:g} s" if late else "the connection broke off")
        status = getattr(error, "status_code", 0)
        if error.code == "insufficient_quota":
            return AskingError(f"{self.endpoint}: the account has no credit left ({said})")
        if status in (408, 409, 429) or status >= 500:
            wait = retry_after(error.response.headers)
            return Unbilled(f"HTTP {status}: {said}", wait, everyone=status == 429 or wait is not None)
        if status in (400, 413, 422):
            return Rejected(f"HTTP {status}: {said}")
        what = {401: "the key is refused", 403: "not allowed", 404: "no such model or address"}.get(status, "refused")
        return AskingError(f"{self.endpoint}: {what} (HTTP {status}: {said})")


def retry_after(headers) -> float | None:
    """The seconds that a server asks to wait, from `retry-after-ms` or `Retry-After` (seconds, or a date); None if it does not."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers.get(name)) / scale)
        except (TypeError, ValueError):
            pass
    date = email.utils.parsedate_tz(headers.get("retry-after"))
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None

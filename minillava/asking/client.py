"""The client of any OpenAI-compatible endpoint (OpenAI, Azure, vLLM, Ollama, llama.cpp), and the API key.

Only this module imports `openai`, whose own retries are off: a request that timed out may have been billed, so each
attempt has to pass the budget, and after a 429 all workers wait (`loop.py`). `post` is used because
`chat.completions.create` spends twice the time of everything else on checking a plain dict. No traceback, log or file
contains the key: it is kept in a `Secret`, and errors are made anew from their text.

    python -c "from minillava.asking.client import Client; print(Client('gpt-4o', 'http://127.0.0.1:8000/v1'))"
"""

import base64
import email.utils
import importlib.util
import json
import os
import time
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import httpx2  # comes with openai
import openai

from minillava.asking.request import LOOPBACK, AskingError, BadReply, Lost, Rejected, Unbilled
from minillava.asking.transport import HttpClient, proxy_of

OPENAI = "https://api.openai.com/v1"
MACHINE_HEADERS = "Lang Package-Version OS Arch Runtime Runtime-Version Async Retry-Count Read-Timeout".split()
OMITTED_HEADERS = {f"X-Stainless-{name}": openai.Omit() for name in MACHINE_HEADERS}  # each costs time


class Secret:
    """A key that is never printed; `clean` removes it from any text."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        return self._text

    def clean(self, text: str) -> str:
        return text.replace(self._text, "***") if len(self._text) > 4 else text


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
    if importlib.util.find_spec("google") is None or importlib.util.find_spec("google.colab") is None:
        return ""
    from google.colab import userdata

    try:
        return (userdata.get("OPENAI_API_KEY") or "").strip()
    except (userdata.SecretNotFoundError, userdata.NotebookAccessError):
        return ""


class Client:
    """One model at one endpoint: the `ChatClient` for `ask_all`.

    base_url: default: OPENAI_BASE_URL, else OpenAI. With Azure's query `?api-version=...` the key is also sent as
    `api-key`; a name and password in the address replace the key. Raises AskingError for a wrong address or no key.
    """

    def __init__(self, model: str, base_url: str | None = None, timeout: float = 120.0):
        text = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        try:
            url = urlsplit(text)
            known = url.scheme in ("http", "https") and url.hostname.encode("idna") and url.port != 0
        except (ValueError, AttributeError):  # no host, a host that cannot be a name, a port that is not a number
            known = False
        if not known:
            raise AskingError("--base-url: expected something like http://127.0.0.1:8000/v1 or https://host/v1")
        self.model, self.timeout, self._url = model, timeout, url
        self.endpoint = f"{model} at {url.hostname}"  # never the whole address: it may hold a password
        self._key = find_api_key(urlunsplit(url))
        self._openai: openai.AsyncOpenAI | None = None

    def __repr__(self) -> str:
        return f"Client({self.endpoint})"

    async def open(self) -> None:
        url, query = self._url, dict(parse_qsl(self._url.query))
        connect = min(10.0, self.timeout / 2)  # shorter, so that the error shows which part was too slow
        proxy = None if url.hostname in LOOPBACK else proxy_of(url.scheme, url.hostname)
        headers = {"api-key": self._key.reveal()} if "api-version" in query else {}
        if url.username is not None:  # http://name:password@host, as servers behind a proxy have it
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
        """The JSON answer to one request, sent once, with `name` as its Idempotency-Key.

        Raises Unbilled, Lost, Rejected, BadReply; AskingError if no request can succeed (a wrong key, no such model).
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
        except (ValueError, RecursionError) as error:  # not JSON, or nested too deeply
            problem = BadReply(f"not a JSON answer ({self._key.clean(str(error))[:100]})")
        raise problem  # outside the handler, so that openai's error, with its request and headers, is not its context

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
    """The seconds that a server asks to wait, by `retry-after-ms` or `Retry-After` (seconds, or a date); or None."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers.get(name)) / scale)
        except (TypeError, ValueError):
            pass
    date = email.utils.parsedate_tz(headers.get("retry-after"))
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None

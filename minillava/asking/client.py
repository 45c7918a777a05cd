"""The client of any OpenAI-compatible endpoint (OpenAI, Azure, vLLM, Ollama, llama.cpp), and the API key.

Each request is sent once, over one session of aiohttp: a request that timed out may have been billed, so each attempt
has to pass the budget (`loop.py`). Errors say whether anything can have been billed. The key and the secrets in the
address are in no traceback, log or file: they are kept in a `Secret`, and cleaned from all that an endpoint says.

    python -c "from minillava.asking.client import Client; print(Client('gpt-4o', 'http://127.0.0.1:8000/v1'))"
"""

import asyncio
import base64
import email.utils
import importlib.util
import json
import os
import re
import ssl
import time
import zlib
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi  # comes with huggingface_hub
import yarl  # comes with aiohttp

from minillava.asking.reading import problem, read_error
from minillava.asking.request import LOOPBACK, AskingError, BadReply, Lost, Unbilled

OPENAI = "https://api.openai.com/v1"
MOST_BYTES = 16 * 1024 * 1024  # of one answer, also after unpacking; a reply of a million tokens has fewer
MOST_SECONDS = 86_400.0  # of --timeout
COMMON_WORDS = {"openai", "deployments", "inference", "models", "engines", "completions", "projects", "compatible-mode"}


class Secret:
    """A text that is never printed. `clean` removes it, and the other secrets that came with it, from any text."""

    def __init__(self, text: str, *more: str):
        self._text, self._all = text, sorted({t for t in (text, *more) if len(t) > 4}, key=len, reverse=True)

    def __repr__(self) -> str:
        return "Secret(***)"

    def reveal(self) -> str:
        return self._text

    def clean(self, text: str) -> str:
        for secret in self._all:
            text = text.replace(secret, "***")
        return text

    def clean_row(self, row: dict) -> dict:
        """`clean` for the texts in a JSON object, as `json.loads` calls it for each one."""
        for name, value in row.items():
            if isinstance(value, str):
                row[name] = self.clean(value)
            elif isinstance(value, list):
                row[name] = [self.clean(v) if isinstance(v, str) else v for v in value]
        return row


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


def _login(url: SplitResult) -> str:
    """The name and password of http://name:password@host, as HTTP sends them; empty without."""
    name = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return base64.b64encode(name.encode()).decode() if url.username is not None else ""


def secrets_of(url: SplitResult, model: str) -> tuple[list[str], list[str]]:
    """(the secrets that an address holds, all its parts that an error may quote and that could be a secret).

    In its path a secret has a digit and 8 characters or more. The name of a model or a deployment is none.
    """
    values = [value for name, value in parse_qsl(url.query) if name != "api-version"]
    steps = url.path.split("/")
    steps = [step for before, step in zip(["", *steps], steps) if before != "deployments" and step != model]
    tokens = [step for step in steps if len(step) >= 8 and re.search(r"\d", step)]
    found = [url.password or "", _login(url), *values, *tokens]
    found += [unquote(text) for text in found]
    return found, [*found, url.path, url.query, *(step for step in steps if step not in COMMON_WORDS)]


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
        self.model, self.timeout, self._host = model, timeout, url.hostname
        self.endpoint = f"{model} at {url.hostname}"  # never the whole address: it may hold a password
        key = find_api_key(text).reveal()
        secrets, parts = secrets_of(url, model)
        self._key, self._quoted, self._url = Secret(key, *secrets), Secret(key, *parts), Secret(text)
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"Client({self.endpoint})"

    async def open(self) -> None:
        """Make the session. Redirects are not followed and no cookies are kept, so the key goes nowhere else."""
        url, key = urlsplit(self._url.reveal()), self._key.reveal()
        login = f"Basic {_login(url)}" if url.username is not None else f"Bearer {key}"
        headers = {"Authorization": login, "Content-Type": "application/json", "Accept": "application/json"}
        headers |= {"api-key": key} if "api-version" in dict(parse_qsl(url.query)) else {}
        headers |= {"Accept-Encoding": "gzip, deflate", "User-Agent": "minillava"}
        path = url.path.rstrip("/") + "/chat/completions"
        address = urlunsplit((url.scheme, url.netloc.rpartition("@")[2], path, url.query, ""))
        proxy = None if self._host in LOOPBACK else proxy_of(url.scheme, self._host)
        self._address, self._proxy, self._headers = Secret(address), Secret(proxy or ""), Secret(json.dumps(headers))
        trusted = True  # without TLS; reading the certificates takes 50 ms
        if url.scheme == "https":
            trusted = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
        connect = min(10.0, self.timeout / 2)  # shorter, so that the error shows which part was too slow
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=trusted),  # no limit, because `ask_all` has one
            timeout=aiohttp.ClientTimeout(total=self.timeout, sock_connect=connect),
            auto_decompress=False,  # `unpacked` has a limit
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()

    async def complete(self, body: dict, name: str) -> object:
        """The JSON answer to one request, sent once, with `name` as its Idempotency-Key.

        Raises Unbilled, Lost, Rejected, BadReply; AskingError if no request can succeed (a wrong key, no such model).
        """
        answer, error = self._read(*await self._send(json.dumps(body).encode(), name))
        if error:
            raise error  # here, where no local variable holds what the endpoint quoted
        return answer

    def _read(self, status: int, headers, content: bytes) -> tuple[dict | None, Exception | None]:
        """(the JSON of an answer, or else what is wrong with it), both without secrets."""
        failed = not 200 <= status < 300
        secret = self._quoted if failed or b'"error"' in content else self._key
        try:
            answer = json.loads(content, object_hook=secret.clean_row)
        except (ValueError, RecursionError):  # not JSON, or nested too deeply
            answer = None
        text = self._quoted.clean(content[:100_000].decode("utf-8", "replace"))
        if failed:
            said = read_error(text if answer is None else answer, status)
            said = said._replace(words=self._quoted.clean(said.words))
            return None, problem(said, retry_after(headers), self.endpoint)
        if isinstance(answer, dict):
            return answer, None
        return None, BadReply(f"not a JSON answer: {text[:60].strip()!r}" if content.strip() else "an empty answer")

    async def _send(self, data: bytes, name: str) -> tuple[int, object, bytes]:
        """(status, headers, content) of the answer. Raises Unbilled where nothing was sent, else Lost or BadReply."""
        try:
            async with self._session.post(  # headers of the session itself would also go to the proxy
                yarl.URL(self._address.reveal()), data=data, proxy=self._proxy.reveal() or None, allow_redirects=False,
                headers={"Idempotency-Key": name, **json.loads(self._headers.reveal())},
            ) as answer:  # fmt: skip
                parts, size = [], 0
                async for part in answer.content.iter_any():
                    parts.append(part)
                    if (size := size + len(part)) > MOST_BYTES:
                        raise BadReply(f"an answer of more than {MOST_BYTES:,} bytes")
                return answer.status, answer.headers, unpacked(b"".join(parts), answer.headers.get("Content-Encoding"))
        except aiohttp.ClientConnectorCertificateError as error:
            why: Exception = AskingError(f"{self.endpoint}: its certificate is not trusted ({error.certificate_error})")
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.ConnectionTimeoutError):
            why = Unbilled(f"no connection to {self._host}", everyone=True)
        except asyncio.TimeoutError:
            why = Lost(f"no answer within {self.timeout:g} s")
        except (aiohttp.ClientError, OSError):
            why = Lost("the connection broke off")
        raise why  # outside the handler, so that aiohttp's error, with its request and headers, is not its context


def unpacked(content: bytes, encoding: str | None) -> bytes:
    """The content of an answer, decompressed up to MOST_BYTES. Raises BadReply for more, and for what is not valid."""
    if (encoding or "identity").lower() == "identity":
        return content
    raw = encoding.lower() == "deflate" and content[:1] != b"\x78"
    packed = zlib.decompressobj(-15 if raw else 47)  # 47: gzip or zlib
    try:
        out = packed.decompress(content, MOST_BYTES + 1)
    except zlib.error:
        out = b""
    if len(out) > MOST_BYTES:
        raise BadReply(f"an answer of more than {MOST_BYTES:,} bytes")
    if not packed.eof:
        raise BadReply(f"the answer is not valid {encoding[:20]}")
    return out


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


def proxy_of(scheme: str, host: str) -> str | None:
    """The proxy that the environment (HTTPS_PROXY, ALL_PROXY, NO_PROXY) or the system sets for a host, if any.

    Raises AskingError for a proxy that does not use HTTP (socks).
    """
    proxies = getproxies()
    proxy = None if proxy_bypass(host) else proxies.get(scheme) or proxies.get("all")
    if not proxy:
        return None
    scheme, found, _ = proxy.partition("://")
    if found and scheme not in ("http", "https"):  # the message leaves out the address, which may hold a password
        raise AskingError(
            f"the proxy that the environment sets for {host} is a {scheme} proxy; only HTTP proxies can be used. "
            f"Set another one, or NO_PROXY={host}"
        )
    return proxy if found else f"http://{proxy}"

"""The HTTP client under `openai`: one session of aiohttp, at three fifths of httpx's cost per request.

httpx, which comes with `openai`, checks every address and header several times and searches all its idle connections
for each request; with 64 in flight this dominates the time (`benchmarks/asking.py`). The errors are ours, because they
say whether anything can have been billed. (`openai.DefaultAioHttpClient` cannot be used: it reports a connection that
broke after sending as one that was never made.)

    python -c "from minillava.asking.client import Client; print(Client('gpt-4o', 'http://127.0.0.1:8000/v1'))"
"""

import asyncio
import importlib
from functools import lru_cache
from urllib.request import getproxies, proxy_bypass

import aiohttp
import openai

from minillava.asking.errors import AskingError, BadReply, Lost, Unbilled

# The library whose types this `openai` takes and which comes with it; Colab has openai 2 and both libraries.
http = importlib.import_module("httpx2" if int(openai.__version__.split(".")[0]) > 2 else "httpx")
MOST_BYTES = 16 * 1024 * 1024  # of one answer, unpacked; a reply of a million tokens has fewer


@lru_cache(maxsize=8)  # a run has one address, and parsing it is a tenth of a request's cost
def _address(url: str, query: str | None) -> http.URL:
    return http.URL(url).copy_merge_params(query) if query else http.URL(url)


class HttpClient(http.AsyncClient):
    """For `openai.AsyncOpenAI(http_client=...)`; create and close it inside an event loop.

    timeout: seconds for a whole request, from connecting to the last byte of the answer. tls: load the certificates
    that httpx trusts, which takes 50 ms. proxy: the proxy's address (`proxy_of`). Redirects are not followed and no
    cookies are kept, so the key goes nowhere else.
    """

    def __init__(self, timeout: float, tls: bool = True, proxy: str | None = None):
        super().__init__(transport=http.AsyncBaseTransport())  # unused: everything goes through `send`
        trusted = http.create_ssl_context() if tls else True
        connect = min(10.0, timeout / 2)  # shorter, so that the error shows which part was too slow
        self._session = aiohttp.ClientSession(  # without headers: the proxy would get them too
            connector=aiohttp.TCPConnector(limit=0, ssl=trusted),  # no limit, because `ask_all` has one
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=connect),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._seconds, self._proxy = timeout, proxy

    def build_request(self, method, url, *, headers, content=None, params=None, **nothing) -> http.Request:
        """The request as `openai` made it: address and headers are complete, so there is nothing to merge."""
        return http.Request(method, _address(url, params), headers=headers, content=content)

    async def send(self, request: http.Request, **nothing) -> http.Response:
        """Send one request and read its whole answer, unpacked.

        Raises Unbilled where nothing was sent, else Lost, or BadReply for an answer of more than MOST_BYTES.
        """
        host = request.url.host
        try:
            async with self._session.request(
                request.method, str(request.url), headers=request.headers.multi_items(),
                data=request.content, allow_redirects=False, proxy=self._proxy,
            ) as answer:  # fmt: skip
                content = bytearray()
                async for part in answer.content.iter_any():
                    content += part
                    if len(content) > MOST_BYTES:
                        raise BadReply(f"an answer of more than {MOST_BYTES:,} bytes")
            headers = [(name, value) for name, value in answer.raw_headers if name.lower() != b"content-encoding"]
            return http.Response(answer.status, headers=headers, content=bytes(content), request=request)
        except aiohttp.ClientConnectorCertificateError as error:
            why: Exception = AskingError(f"{host}: its certificate is not trusted ({error.certificate_error})")
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.ConnectionTimeoutError):
            why = Unbilled(f"no connection to {host}", everyone=True)
        except asyncio.TimeoutError:
            why = Lost(f"no answer within {self._seconds:g} s")
        except (aiohttp.ClientError, OSError):
            why = Lost("the connection broke off")
        raise why  # outside the handlers, so that aiohttp's error, with its request and headers, is not its context

    async def aclose(self) -> None:
        await self._session.close()
        await super().aclose()


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

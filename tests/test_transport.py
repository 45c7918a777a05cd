"""The HTTP client: errors show whether a request can have been billed, and the key goes only where it was sent."""

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager

import pytest

from minillava.asking import AskingError, BadReply, Journal, ask_all, chat_request, client, loop, transport
from minillava.asking.client import Client
from minillava.asking.errors import Lost, Unbilled
from minillava.asking.transport import proxy_of

BODY = b'{"choices": []}'
pytestmark = pytest.mark.usefixtures("no_key")


def answer(body=BODY, *more):
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *more, b"", body])


@contextmanager
def serving(*answers, context=None):
    """A server that reads a request a connection and says what it is told to: bytes, None to hang, b"" to close.
    Gives its port and the requests it got."""
    got, still, listener = [], threading.Event(), socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def talk():
        for said in answers:
            while not still.is_set():
                try:
                    connection = listener.accept()[0]
                    break
                except TimeoutError:
                    pass
            else:
                return
            connection.settimeout(5)
            try:
                with context.wrap_socket(connection, server_side=True) if context else connection as wire:
                    data = b""
                    while b"\r\n\r\n" not in data or not data.endswith(b"}"):
                        if not (part := wire.recv(65536)):
                            raise OSError("hung up before it had asked")
                        data += part
                    got.append(data)
                    if said is None:
                        still.wait(5)
                    wire.sendall(said or b"")
            except OSError:
                pass  # the other side hung up, which is what some tests are about

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield listener.getsockname()[1], got
    finally:
        still.set()
        thread.join()
        listener.close()


def send(url, timeout=5.0):
    """(status, headers, content) of one request by a client at this address."""

    async def one():
        client = Client("m", url, timeout)
        await client.open()
        try:
            return await client._send(b"{}", "a-name")
        finally:
            await client.close()

    return asyncio.run(one())


def test_an_answer_is_read_whole_and_no_extra_headers_are_sent():
    with serving(answer(b'{"a": 1}', b"Content-Type: application/json", b"X-Request-Id: 7")) as (port, got):
        status, headers, content = send(f"http://127.0.0.1:{port}/v1?api-version=1%2F2&a=b")
    assert (status, content, headers["x-request-id"]) == (200, b'{"a": 1}', "7")
    head, body = got[0].split(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions?api-version=1/2&a=b HTTP/1.1") and body == b"{}"
    names = sorted(line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:])
    assert names == [b"accept", b"accept-encoding", b"api-key", b"authorization", b"content-length", b"content-type",
                     b"host", b"idempotency-key", b"user-agent"]  # fmt: skip


@pytest.mark.parametrize("pack, name", [(gzip.compress, b"gzip"), (zlib.compress, b"deflate"), (lambda data: zlib.compress(data)[2:-4], b"deflate")])  # fmt: skip
def test_an_answer_that_was_compressed_is_unpacked(pack, name):
    with serving(answer(pack(BODY), b"Content-Encoding: " + name)) as (port, _):
        assert send(f"http://127.0.0.1:{port}/")[2] == BODY


@pytest.mark.parametrize("more", [(), (b"Content-Encoding: gzip",)])
def test_an_answer_that_is_too_large_is_not_read_to_its_end(monkeypatch, more):
    monkeypatch.setattr(transport, "MOST_BYTES", 100_000)
    large = bytes(10_000_000)
    with serving(answer(gzip.compress(large) if more else large, *more)) as (port, _):
        with pytest.raises(BadReply, match="an answer of more than 100,000 bytes"):
            send(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "said, error",
    [
        (b"", Lost),  # closed after the request had arrived
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", Lost),  # closed in the middle of the answer
        (b"SSH-2.0-OpenSSH_9.6\r\n", Lost),
        (answer(b"not gzip", b"Content-Encoding: gzip"), Lost),
        (None, Lost),
    ],
)  # fmt: skip
def test_what_breaks_after_sending_may_have_been_billed(said, error):
    with serving(said) as (port, got), pytest.raises(error) as raised:
        send(f"http://127.0.0.1:{port}/", timeout=0.5)
    assert len(got) == 1 and not isinstance(raised.value, Unbilled)


def test_a_packed_answer_that_ends_early_is_no_answer():
    async def one(port):
        client = Client("m", f"http://127.0.0.1:{port}/", 5.0)
        await client.open()
        try:
            await client.complete({}, "a-name")
        finally:
            await client.close()

    with serving(
        answer(gzip.compress(b'{"choices": [%s]}' % bytes(range(32, 120)))[:-20], b"Content-Encoding: gzip")
    ) as (port, _):
        with pytest.raises(BadReply, match="not a JSON answer"):
            asyncio.run(one(port))


def test_a_request_on_a_kept_connection_that_breaks_off_is_not_sent_again_by_itself():
    got = []

    async def talk(reader, writer):
        while not reader.at_eof():
            got.append(await reader.readuntil(b"{}"))
            if len(got) > 1:
                break
            writer.write(answer())
        writer.close()

    async def two():
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        client = Client("m", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", 5.0)
        await client.open()
        assert (await client._send(b"{}", "one"))[2] == BODY
        with pytest.raises(Lost):
            await client._send(b"{}", "two")
        await client.close()
        server.close()

    asyncio.run(two())
    assert len(got) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://nowhere.invalid/"])
def test_a_request_that_was_never_sent_was_not_billed(url, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    with pytest.raises(Unbilled):
        send(url)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue refuses")
def test_a_connection_that_does_not_come_about_in_time_was_not_billed():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        full = [socket.socket() for _ in range(4)]  # the queue of those who wait to be let in
        for waiting in full:
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        with pytest.raises(Unbilled):
            send(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=0.3)
        for waiting in full:
            waiting.close()


def test_a_redirect_is_an_answer_and_is_not_followed():
    with serving(b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n") as (port, got):
        assert send(f"http://127.0.0.1:{port}/")[0] == 307
    assert len(got) == 1


def test_the_proxy_of_the_environment_carries_what_is_not_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "ATTEMPTS", 1)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-proxys-test")
    monkeypatch.setenv("no_proxy", "elsewhere.test")
    (tmp_path / ".netrc").write_text("machine api.test login me password secret\n")  # not ours to send
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(answer(), answer()) as (port, got), Journal(tmp_path) as journal:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        assert proxy_of("http", "api.test") == f"http://127.0.0.1:{port}" and proxy_of("http", "elsewhere.test") is None
        body = chat_request("m", [{"role": "user", "content": "hello"}], 5)
        ask_all([body], Client("m", "http://api.test/v1", 5.0), journal, backoff=0.01, progress=False)
        assert got[0].startswith(b"POST http://api.test/v1/chat/completions HTTP/1.1")
        assert b"\r\nauthorization: bearer sk-of-the-proxys-test\r\n" in got[0].lower()
        before = len(got)
        ask_all([body], Client("m", "http://localhost:9/v1", 5.0), journal, backoff=0.01, progress=False)
    assert len(got) == before, "what is on this machine went to the proxy"


def test_a_proxy_without_its_scheme_is_an_http_one_and_socks_is_refused_in_words(monkeypatch, tmp_path):
    monkeypatch.setenv("https_proxy", "10.0.0.1:3128")
    assert proxy_of("https", "api.test") == "http://10.0.0.1:3128"
    monkeypatch.setenv("https_proxy", "socks5://me:secret@10.0.0.1:1080")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    with Journal(tmp_path) as journal, pytest.raises(AskingError, match="is a socks5 proxy; .*NO_PROXY=api.test") as raised:  # fmt: skip
        ask_all([chat_request("m", [], 5)], Client("m", "https://api.test/v1", 5.0), journal, progress=False)
    assert "secret" not in str(raised.value)


@pytest.fixture
def certified(tmp_path):
    """The context of a server that says it is localhost, and the file of its certificate, which nobody else has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, str(certificate)


def test_over_tls_the_server_must_have_a_trusted_certificate(certified, monkeypatch):
    context, certificate = certified
    with serving(answer(), context=context) as (port, got), pytest.raises(AskingError, match="its certificate is not trusted .*self-signed"):  # fmt: skip
        send(f"https://localhost:{port}/")
    assert not got
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    with serving(answer(), context=context) as (port, got):
        assert send(f"https://localhost:{port}/")[2] == BODY


def test_over_tls_a_proxy_carries_what_it_cannot_read(certified, monkeypatch):
    context, certificate = certified
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    asked, through = [], []

    async def tunnel(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", end)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def carry(from_, to):
            while data := await from_.read(65536):
                through.append(data)
                to.write(data)
            to.close()

        await asyncio.gather(carry(reader, to_writer), carry(to_reader, writer))

    async def one():
        proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        monkeypatch.setattr(client, "LOOPBACK", ())
        monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        asking = Client("m", f"https://localhost:{end}/v1", 5.0)
        await asking.open()
        back = await asking._send(b"{}", "a-name")
        await asking.close()
        proxy.close()
        return back

    with serving(answer(), context=context) as (end, got):
        assert asyncio.run(one())[2] == BODY
    assert asked[0].startswith(b"CONNECT localhost:%d " % end) and b"sk-0123456789" in got[0]
    assert not any(b"sk-0123456789" in data for data in asked + through)


def test_a_client_over_tls_reads_certificates_and_one_without_does_not(monkeypatch):
    read = []
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **more: read.append(1) or make(**more))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")

    async def opened(url):
        client = Client("m", url)
        await client.open()
        await client.close()

    asyncio.run(opened("http://127.0.0.1:9/v1"))
    assert not read
    asyncio.run(opened("https://api.test/v1"))
    assert read


def test_an_answer_that_breaks_off_counts_as_spent_and_a_refused_connection_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "ATTEMPTS", 1)
    monkeypatch.setattr(loop, "PAID_ATTEMPTS", 1)
    body = chat_request("m", [{"role": "user", "content": "hello"}], 5)
    with serving(b"") as (port, _), Journal(tmp_path / "broke") as journal:
        outcome = ask_all([body], Client("m", f"http://127.0.0.1:{port}/v1", 5.0), journal, progress=False)
        assert "the connection broke off" in outcome.failures.popitem()[1] and journal.spent.tokens > 0
    with Journal(tmp_path / "refused") as journal:
        outcome = ask_all([body], Client("m", f"http://127.0.0.1:{port}/v1", 5.0), journal, progress=False)
        assert "no connection" in outcome.failures.popitem()[1] and journal.spent.tokens == 0

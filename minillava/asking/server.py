"""A small OpenAI-compatible server around a function from request to answer, to use the real client without a key.

For tests, lessons and one machine, not for the open internet: it listens on loopback unless told otherwise.

    python -c "from minillava.asking.server import *; serve(lambda body: completion(body, 'Hi'), 8000).serve_forever()"
"""

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from minillava.asking.errors import AskingError, Rejected
from minillava.asking.request import likely_tokens

MAX_REQUEST_BYTES = 16 * 1024 * 1024
MAX_SECONDS = 30.0  # for a client to send a request, or its next one


def completion(body: dict, text: str, finish: str = "stop", refusal: str | None = None) -> dict:
    """A chat completion in the API's form; its token counts are estimated from lengths."""
    message = {"role": "assistant", "content": None if refusal else text, "refusal": refusal}
    prompt = sum(likely_tokens(str(m.get("content"))) + 4 for m in body["messages"])
    usage = {"prompt_tokens": prompt, "completion_tokens": likely_tokens(text)}
    return {
        "id": "chatcmpl-offline", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }  # fmt: skip


def check_body(body: object) -> dict:
    """The body of a chat completion request. Raises Rejected that says what is wrong with it."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise Rejected("expected a JSON object with `model` and `messages`")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Rejected("`messages` must be a list that is not empty")
    for n, message in enumerate(messages):
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise Rejected(f"messages[{n}] must have `role` and `content` as text")
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None and (type(body[name]) is not int or body[name] < 1):
            raise Rejected(f"`{name}` must be a whole number of at least 1")
    if body.get("stream"):
        raise Rejected("streaming is not offered here; leave `stream` out")
    return body


class Handler(BaseHTTPRequestHandler):
    """POST .../chat/completions and GET .../models. Errors have the API's form, `{"error": {"message": ...}}`."""

    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body are sent together

    def handle_one_request(self):
        self.server.reading[self.connection] = time.monotonic() + MAX_SECONDS
        try:
            super().handle_one_request()
        finally:
            self.server.reading.pop(self.connection, None)

    def do_POST(self):
        length = self.headers.get("Content-Length") or ""
        if not re.fullmatch(r"[0-9]{1,18}", length) or int(length) > MAX_REQUEST_BYTES:
            self.close_connection = True
            much = f"a `Content-Length` of at most {MAX_REQUEST_BYTES:,} is needed, not {length[:30]!r}"
            return self.send(413 if length.isdigit() else 411, error_body(much))
        data = self.rfile.read(int(length))
        self.server.reading.pop(self.connection, None)  # from now on the time is ours
        if not self.path.partition("?")[0].endswith("/chat/completions"):
            return self.send(404, error_body(f"no such address: {self.path[:200]}"))
        try:
            self.answer(check_body(json.loads(data)))
        except (ValueError, RecursionError, Rejected) as wrong:
            self.send(400, error_body(str(wrong)))

    def do_GET(self):
        if self.path.endswith("/models"):
            return self.send(200, {"object": "list", "data": [{"id": self.server.model, "object": "model"}]})
        self.send(404, error_body(f"no such address: {self.path[:200]}"))

    def answer(self, body: dict) -> None:
        self.send(200, self.server.reply(body))

    def send(self, status: int, what: dict | bytes, headers: dict[str, str] | None = None) -> None:
        data = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_):  # one line per request would help nobody
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # many clients connect at the same time

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.reading: dict[socket.socket, float] = {}  # connection -> until when its request must have arrived

    def service_actions(self):
        """Drop the clients that are too slow; `serve_forever` calls this twice a second."""
        for connection, until in list(self.reading.items()):
            if time.monotonic() > until:
                self.reading.pop(connection, None)
                with suppress(OSError):  # it may have gone by itself
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):  # clients may disconnect
        pass


def error_body(message: str, kind: str = "invalid_request_error") -> dict:
    return {"error": {"message": message, "type": kind, "code": None, "param": None}}


def serve(
    reply: Callable[[dict], dict], port: int = 0, host: str = "127.0.0.1", model: str = "offline", handler=Handler
) -> Server:
    """A server, bound but not yet serving (`serve_forever`); port 0 takes a free port (`server_port`).

    reply: from a request's body to a chat completion; it raises Rejected or ValueError for a request it cannot answer.
    Raises AskingError when the port is taken.
    """
    try:
        server = Server((host, port), handler)
    except (OSError, OverflowError) as problem:
        raise AskingError(f"cannot listen on {host}:{port} ({problem}); choose another with --port") from problem
    server.reply, server.model = reply, model
    return server

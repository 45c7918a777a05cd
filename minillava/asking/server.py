"""A small OpenAI-compatible server around any function from a request to an answer: so that the real client is used
end to end without a key.

Notable: loopback only unless told otherwise; chat completions, not streamed; standard library. It is for tests, lessons
and one machine, not for the open net.

    python -c "from minillava.asking.server import *; serve(lambda body: completion(body, 'Hello.'), 8000).serve_forever()"
"""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from minillava.asking.request import AskingError, Rejected, likely_tokens

MAX_REQUEST_BYTES = 16 * 1024 * 1024  # bytes of a request


def completion(body: dict, text: str, finish: str = "stop", refusal: str | None = None) -> dict:
    """A chat completion in the API's form, its token counts estimated from lengths."""
    message = {"role": "assistant", "content": None if refusal else text, "refusal": refusal}
    prompt = sum(likely_tokens(str(m.get("content"))) + 4 for m in body["messages"])
    usage = {"prompt_tokens": prompt, "completion_tokens": likely_tokens(text)}
    return {
        "id": "chatcmpl-offline", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }  # fmt: skip


def check_body(body: object) -> dict:
    """The body of a chat completion request, or Rejected that says what is wrong with it."""
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
    """Routes: POST .../chat/completions, GET .../models. Errors have the API's form, `{"error": {"message": ...}}`."""

    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_REQUEST_BYTES:
            self.close_connection = True
            return self.say(413, error_body("the request is too long"))
        data = self.rfile.read(length)
        if not self.path.partition("?")[0].endswith("/chat/completions"):
            return self.say(404, error_body(f"no such address: {self.path}"))
        try:
            self.answer(check_body(json.loads(data)))
        except (ValueError, RecursionError, Rejected) as wrong:
            self.say(400, error_body(str(wrong)))

    def do_GET(self):
        if self.path.endswith("/models"):
            return self.say(200, {"object": "list", "data": [{"id": self.server.model, "object": "model"}]})
        self.say(404, error_body(f"no such address: {self.path}"))

    def answer(self, body: dict) -> None:
        self.say(200, self.server.reply(body))

    def say(self, status: int, what: dict | bytes, headers: dict[str, str] | None = None) -> None:
        data = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_):  # quiet: a line a request helps nobody
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # many clients connect at one moment

    def handle_error(self, request, client_address):  # a client that went away is no news
        pass


def error_body(message: str, kind: str = "invalid_request_error") -> dict:
    return {"error": {"message": message, "type": kind, "code": None, "param": None}}


def serve(
    reply: Callable[[dict], dict],
    port: int = 0,
    host: str = "127.0.0.1",
    model: str = "offline",
    handler: type[Handler] = Handler,
) -> Server:
    """A server, bound but not yet serving (`serve_forever`); port 0 takes a free one (`server_port`).

    reply: from a request's body to a chat completion; it raises Rejected or ValueError for what it cannot answer.
    Raises AskingError when the port is taken.
    """
    try:
        server = Server((host, port), handler)
    except (OSError, OverflowError) as problem:
        raise AskingError(f"cannot listen on {host}:{port} ({problem}); choose another with --port") from problem
    server.reply, server.model = reply, model
    return server

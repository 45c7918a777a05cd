"""A local OpenAI-compatible server that fails on purpose and counts what it was asked and what it would bill."""

import os
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager

from minillava.asking.request import chat_request, request_key
from minillava.asking.server import Handler, completion, error_body, serve

SAYS_429 = ("status", 429, {})
SAYS_500 = ("status", 500, {})


def bodies(n, **settings):
    """n requests, each with a question of its own."""
    settings = {"max_tokens": 50, **settings}
    return [chat_request("small", [{"role": "user", "content": f"question {i}"}], **settings) for i in range(n)]


class Faulty(Handler):
    """`server.fault(body, n)` says how a request's n-th attempt (from 1) fails; None: it is answered and billed."""

    def answer(self, body):
        server, name = self.server, self.headers["Idempotency-Key"]
        with server.mutex:
            server.attempts[name] += 1
            server.asked.append((time.monotonic(), name))
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            attempt = server.attempts[name]
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        try:
            fault = server.fault(body, attempt)
            if server.delay:
                time.sleep(server.delay(body) if callable(server.delay) else server.delay)
            self.fail(fault, body) if fault else self.bill(name, body)
        finally:
            with server.mutex:
                server.busy -= 1

    def bill(self, name, body):
        with self.server.mutex:  # a repeated Idempotency-Key is answered again, but billed only once
            if name is None or name not in self.server.names:
                self.server.billed[request_key(body)] += 1
            self.server.names.add(name)
        self.send(200, self.server.reply(body))

    def fail(self, fault, body):
        kind, *more = fault if isinstance(fault, tuple) else (fault,)
        if kind == "status":
            message = more[2] if len(more) > 2 else f"made to fail with {more[0]}"
            self.send(more[0], error_body(message), more[1] if len(more) > 1 else None)
        elif kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            os.close(self.connection.detach())  # `close` would wait for the files that were made from it
        elif kind == "hang":
            self.server.hanging.wait(20)
        elif kind == "raw":
            self.send(200, more[0], {"Content-Type": more[1]} if len(more) > 1 else None)
        elif kind == "body":
            self.send(more[0], more[1])
        elif kind == "json":
            self.send(200, completion(body, "") | more[0])
        elif kind == "cut":
            self.send(200, completion(body, "Question:\nWhat is the", "length"))


def echo(body):
    return completion(body, "Re: " + body["messages"][-1]["content"])


@contextmanager
def faulty(reply=echo, fault=lambda body, n: None, delay=0.0):
    """A running server: .url, .attempts (by Idempotency-Key), .billed (by request), .asked (when, key), .headers,
    .busiest; set .fault, .delay. The same request under another Idempotency-Key, or without one, is billed twice."""
    server = serve(reply, handler=Faulty)
    server.fault, server.delay, server.mutex, server.hanging = fault, delay, threading.Lock(), threading.Event()
    server.attempts, server.billed, server.asked, server.headers, server.paths = Counter(), Counter(), [], [], []
    server.busy, server.busiest, server.names = 0, 0, set()
    server.forget = lambda: [seen.clear() for seen in (server.attempts, server.billed, server.names)]
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.hanging.set()
        server.shutdown()
        server.server_close()

"""A stand-in of the hub on this machine: the calls that huggingface_hub makes of a dataset, answered from a folder."""

import json
import re
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Answers(BaseHTTPRequestHandler):
    """ROOT/OWNER/NAME holds a dataset's files, ROOT/coco pictures. `server.broken[path]` failures come first."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, server = urlparse(self.path).path, self.server
        server.asked.append((path, self.headers.get("Range")))
        if server.broken[path] > 0:
            server.broken[path] -= 1
            return self.say(503, b"")
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/main)?", path):
            return self.say(200, json.dumps({"id": found[1], "sha": COMMIT, "siblings": []}).encode())
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/main/?", path):
            home = server.root / found[1]
            files = [p for p in sorted(home.rglob("*")) if p.is_file()]
            rows = [{"type": "file", "oid": "0" * 40, "size": p.stat().st_size, "path": str(p.relative_to(home))} for p in files]  # fmt: skip
            return self.say(200, json.dumps(rows).encode())
        found = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/main/(.+)", path)
        file = server.root / found[1] / found[2] if found else server.root / path.lstrip("/")
        if not file.is_file():
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = file.read_bytes()
        extra = {"ETag": f'"{len(data)}-{file.name}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted or not server.ranges:
            return self.say(200, data, extra)
        start, end = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
        server.sent += end - start
        self.say(206, data[start:end], extra | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})

    def say(self, status, data, extra=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def stand_in(root: Path):
    """The server over a folder: .url, .asked (path, range), .sent (bytes in ranges), .broken (path -> failures), .ranges."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.root, server.asked, server.sent, server.broken, server.ranges = Path(root), [], 0, Counter(), True
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

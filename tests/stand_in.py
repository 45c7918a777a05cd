"""A stand-in for the hub on this machine: a server that answers huggingface_hub's calls, and the files that it has."""

import io
import json
import random
import re
import threading
import zipfile
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

from PIL import Image

from minillava.data.records import make_record
from minillava.fetch.hub import HUB_DATASETS

PAIRS = 400
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Answers(BaseHTTPRequestHandler):
    """Serves the files in ROOT/OWNER/NAME and ROOT/coco. The first `server.broken[path]` requests for a path fail."""

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
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/revision/main)?", path):
            return self.say(200, json.dumps({"id": found[1], "sha": COMMIT, "siblings": []}).encode())
        if found := re.fullmatch(rf"/api/(?:datasets|models)/([^/]+/[^/]+)/tree/(?:main|{COMMIT})/?", path):
            home = server.root / found[1]
            files = [p for p in sorted(home.rglob("*")) if p.is_file()]
            rows = [{"size": p.stat().st_size, "path": str(p.relative_to(home))} for p in files]
            return self.say(200, json.dumps([{"type": "file", "oid": "0" * 40} | row for row in rows]).encode())
        found = re.fullmatch(rf"(?:/datasets)?/([^/]+/[^/]+)/resolve/(?:main|{COMMIT})/(.+)", path)
        if found and found[2].endswith(".zip"):  # as on the hub, another server has the large files
            return self.say(302, b"", {"Location": f"{server.url}/far/{found[1]}/{found[2]}"})
        file = server.root / found[1] / found[2] if found else server.root / path.removeprefix("/far").lstrip("/")
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
    """Serve a folder: .url, .asked (path, range), .sent (bytes in ranges), .broken (path -> failures), .ranges."""
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


def jpeg(number):
    """A picture of noise, which does not compress, so that the zip is large."""
    out = io.BytesIO()
    noise = random.Random(number).randbytes(48 * 48 * 3)
    Image.frombytes("RGB", (48, 48), noise).save(out, format="JPEG", quality=90)
    return out.getvalue()


def record(name, image):
    return make_record(name, image, [("What is this?", "Noise.")], random.Random(name))


def datasets(root):
    """The hub's files: CC3M's chat.json and images.zip, Instruct's four files, ScienceQA's parquet; COCO's pictures."""
    import pyarrow
    import pyarrow.parquet

    pretrain, instruct, science = (root / HUB_DATASETS[name].repo for name in ("pretrain", "instruct", "scienceqa"))
    for folder in (pretrain, instruct, science / "data", root / "coco"):
        folder.mkdir(parents=True)
    names = [f"GCC_train_{n:09}.jpg" for n in range(PAIRS)]
    (pretrain / "chat.json").write_text(json.dumps([record(n[:-4], n) for n in names]))
    with zipfile.ZipFile(pretrain / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for n, name in enumerate(names):
            archive.writestr(name, jpeg(n))
    pictures = [f"{n:012}.jpg" for n in range(40)]
    for n, name in enumerate(pictures):
        (root / "coco" / name).write_bytes(jpeg(n))
    for file in HUB_DATASETS["instruct"].files.values():
        (instruct / file).write_text(json.dumps([record(f"{file}-{n}", n) for n in pictures]))
    row = {"image": {"bytes": jpeg(1), "path": "image.png"}, "question": "Which?", "choices": ["a", "b"], "answer": 1}
    row |= {"hint": "", "lecture": "L", "solution": "S", "task": "closed choice", "grade": "grade2"}
    row |= {"subject": "natural science", "topic": "t", "category": "c", "skill": "s"}
    table = pyarrow.Table.from_pylist([row, row | {"image": None}, row])
    pyarrow.parquet.write_table(table, science / "data" / "train-00000-of-00001-abc.parquet")
    return root


def models(root):
    """The models of the notebooks' scales, under their ids and in their published formats, but small and random."""
    import torch
    from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    from minillava.course.dial import PROJECTORS
    from minillava.data.images import Preparation
    from minillava.data.tokenizer import load_tokenizer
    from minillava.model.formats.preparation import write_preparation
    from minillava.scales import COLAB, FULL_7B, WEIGHTS

    torch.manual_seed(0)
    tokenizer = load_tokenizer(WEIGHTS / "language_model")
    small = dict(vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2)
    sizes = small | dict(intermediate_size=64, num_hidden_layers=4, num_key_value_heads=2, max_position_embeddings=2048)
    vision_tower = dict(
        image_size=64, patch_size=16, hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2
    )
    words = small | dict(intermediate_size=48, num_hidden_layers=1, pad_token_id=0)
    words |= dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    for scale, make in (
        (COLAB, lambda: Qwen2ForCausalLM(Qwen2Config(**sizes, tie_word_embeddings=True))),
        (FULL_7B, lambda: LlamaForCausalLM(LlamaConfig(**sizes))),
    ):
        make().save_pretrained(root / scale.language_model)
        tokenizer.save_pretrained(root / scale.language_model)
        clip = CLIPConfig(text_config=words, vision_config=vision_tower, projection_dim=16)
        CLIPModel(clip).save_pretrained(root / scale.vision_tower)
        tokenizer.save_pretrained(root / scale.vision_tower)
        write_preparation(Preparation(64, (0.5,) * 3, (0.25,) * 3), root / scale.vision_tower)
    folder = root / PROJECTORS["full-7b"]
    folder.mkdir(parents=True)
    named = {"model.mm_projector.weight": torch.randn(32, 24), "model.mm_projector.bias": torch.zeros(32)}
    torch.save(named, folder / "mm_projector.bin")
    (folder / "config.json").write_text(json.dumps({"mm_vision_select_layer": -2}))
    return root

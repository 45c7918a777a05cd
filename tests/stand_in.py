"""A stand-in for the hub on this machine: a server that answers huggingface_hub's calls, and the files that it has."""

import copy
import hashlib
import importlib.util
import io
import json
import random
import re
import tempfile
import threading
import zipfile
from collections import Counter
from contextlib import contextmanager
from functools import lru_cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from minillava.data.records import make_record
from minillava.fetch.hub import HUB_DATASETS
from minillava.fetch.listing import HUB

PAIRS = 400
HAS_SENTENCEPIECE = all(map(importlib.util.find_spec, ("sentencepiece", "google", "google.protobuf")))


def commit(revision):
    """The commit of a branch. The files of another one than main are in ROOT/OWNER/NAME@REVISION, / in it as _."""
    return hashlib.sha1(revision.encode()).hexdigest()


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
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if server.home(found[1], found[2]) is None:
                return self.say(404, b"", {"X-Error-Code": "RevisionNotFound"})
            sha = found[2] if re.fullmatch(r"[0-9a-f]{40}", found[2] or "") else commit(unquote(found[2] or "main"))
            return self.say(200, json.dumps({"id": found[1], "sha": sha, "siblings": []}).encode())
        if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            home = server.home(found[1], found[2])
            files = [p for p in sorted(home.rglob("*")) if p.is_file()]
            rows = [{"size": p.stat().st_size, "path": str(p.relative_to(home))} for p in files]
            return self.say(200, json.dumps([{"type": "file", "oid": "0" * 40} | row for row in rows]).encode())
        found = re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        home = server.home(found[1], found[2]) if found else None
        if home and found[3].endswith(".zip"):  # as on the hub, another server has the large files
            far = (home / found[3]).relative_to(server.root)
            return self.say(302, b"", {"Location": f"{server.url}/far/{far}"})
        file = home / found[3] if home else server.root / path.removeprefix("/far").lstrip("/")
        if not file.is_file():
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = file.read_bytes()
        etag = hashlib.sha1(data).hexdigest()
        sha = commit(home.name.partition("@")[2].replace("_", "/") or "main") if home else ""
        extra = {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
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


def find_home(root, id, revision):
    """The folder of a repository at a revision, a branch or a commit; None if there is none."""
    for home in [root / id, *root.glob(f"{id}@*")]:
        branch = home.name.partition("@")[2].replace("_", "/") or "main"
        if unquote(revision or "main") in (branch, commit(branch)) and home.is_dir():
            return home


@contextmanager
def stand_in(root: Path):
    """Serve a folder: .url, .asked (path, range), .sent (bytes in ranges), .broken (path -> failures), .ranges."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.root, server.asked, server.sent, server.broken, server.ranges = Path(root), [], 0, Counter(), True
    server.home = partial(find_home, server.root)
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
    for name in HUB[HUB_DATASETS["scienceqa"].repo]["files"]:
        pyarrow.parquet.write_table(table, science / name)
    return root


@lru_cache
def sentencepiece_model():
    """A tokenizer.model like Vicuna's in kind: BPE with bytes, <unk> <s> </s> first; 5 kB. Needs sentencepiece."""
    import sentencepiece

    words, rng, out = (
        "a red car is left of the blue box what odd in this picture it".split(),
        random.Random(0),
        io.BytesIO(),
    )
    texts = [" ".join(rng.choices(words, k=12)) for _ in range(300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, vocab_size=320, model_type="bpe", byte_fallback=True, pad_id=-1,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, hard_vocab_limit=False,
        allow_whitespace_only_pieces=True, minloglevel=2,
    )  # fmt: skip
    return out.getvalue()


def models(root):
    """The models of the real scales, small and random, with the names and in the layouts of minillava/fetch/hub.json."""
    from minillava.course.dial import PROJECTORS
    from minillava.scales import REAL_SCALES

    parts = {part for scale in REAL_SCALES.values() for part in (scale.vision_tower, scale.language_model)}
    for id in sorted((parts & HUB.keys()) | {*PROJECTORS.values()}):
        if HAS_SENTENCEPIECE or "tokenizer.model" not in HUB[id]["files"]:
            publish(root / id, HUB[id])
    return root


SHRUNK = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2)
SHRUNK_EYE = SHRUNK | dict(hidden_size=24, num_hidden_layers=3, image_size=64, patch_size=16)


def publish(folder, row):
    """A model under the file names of its row in the table: its published configs with small sizes, random weights."""
    import transformers

    from minillava.data.tokenizer import load_tokenizer
    from minillava.scales import WEIGHTS

    folder.mkdir(parents=True)
    configs, files = copy.deepcopy(row["configs"]), row["files"]
    config = configs["config.json"]
    if "tokenizer.model" in files:
        (folder / "tokenizer.model").write_bytes(sentencepiece_model())
        words = 320
        special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        configs["special_tokens_map.json"] = special
        configs["tokenizer_config.json"] = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True} | special
    elif "tokenizer.json" in files:
        tokenizer = load_tokenizer(WEIGHTS / "language_model")
        tokenizer.save_pretrained(folder)
        words = len(tokenizer)
    sizes = config.get("vision_config", config)
    sizes |= {key: size for key, size in (SHRUNK_EYE if sizes is not config else SHRUNK).items() if key in sizes}
    if sizes is not config:
        configs["preprocessor_config.json"] |= dict.fromkeys(("size", "crop_size"), SHRUNK_EYE["image_size"])
        ends = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
        config |= {"projection_dim": 16, "text_config": SHRUNK | ends | dict(vocab_size=words, num_hidden_layers=1)}
    elif "mm_hidden_size" in config:
        config["mm_hidden_size"] = SHRUNK_EYE["hidden_size"]
    else:
        config["vocab_size"] = words
        if "tokenizer.json" in files:
            config |= dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
            configs["generation_config.json"]["eos_token_id"] = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    for name, written in configs.items():
        (folder / name).write_text(json.dumps(written))
    torch.manual_seed(0)
    if "mm_hidden_size" in config:
        shape = config["hidden_size"], config["mm_hidden_size"]
        W = {"model.mm_projector.weight": torch.randn(shape), "model.mm_projector.bias": torch.zeros(shape[0])}
        torch.save({name: tensor.bfloat16() for name, tensor in W.items()}, folder / "mm_projector.bin")
    else:
        kinds = dict(clip="CLIPModel", llama="LlamaForCausalLM", qwen2="Qwen2ForCausalLM")
        kind = getattr(transformers, kinds[config["model_type"]])
        with tempfile.TemporaryDirectory() as made:
            kind(kind.config_class.from_pretrained(folder)).save_pretrained(made)  # under the names of the hub's files
            tensors = load_file(Path(made) / "model.safetensors")
        store(folder, derived(tensors, config, files), files)
    for name in files.keys() - {path.name for path in folder.iterdir()}:
        (folder / name).write_text("{}" if name.endswith(".json") else "")  # of no use here
    for path in [*folder.iterdir()]:
        if path.name not in files:
            path.unlink()


def derived(tensors, config, files):
    """The tensors in the precision in which they are published, and beside them those that only old files have."""
    kind = getattr(torch, config.get("torch_dtype", "float32"))
    tensors = {name: tensor.to(kind) for name, tensor in tensors.items()}
    if "vision_config" in config:
        for part, count in (("vision_model", 17), ("text_model", 77)):
            tensors[f"{part}.embeddings.position_ids"] = torch.arange(count)[None]
    elif not any(name.endswith(".safetensors") for name in files):
        for n in range(config["num_hidden_layers"]):
            tensors[f"model.layers.{n}.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    return tensors


def store(folder, tensors, files):
    """The tensors under every name that a weights file has on the hub."""
    if "model.safetensors" in files:
        save_file(tensors, folder / "model.safetensors")
    if "pytorch_model.bin" in files:
        torch.save(tensors, folder / "pytorch_model.bin")
    shards, where = sorted(name for name in files if name.startswith("pytorch_model-")), {}
    for n, name in enumerate(shards):
        part = dict(list(tensors.items())[n * len(tensors) // len(shards) : (n + 1) * len(tensors) // len(shards)])
        torch.save(part, folder / name)
        where |= dict.fromkeys(part, name)
    if shards:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))

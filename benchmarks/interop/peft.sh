#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.23.0: LoRA of rank 4, trained here for a few steps on the LLaVA that ships, then
# `minillava export --to peft`. Loaded over its language model it gives the logits of our merged model. And the way back:
# LoRA of PEFT beside both layers of the projector and in the language model of `--to hf`, merged and saved, loads here.
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
"$python" -m minillava export data_samples/weights/llava --to hf --out "$home/hf"
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
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2 pillow==12.0.0
PYTHONPATH= "$home/venv/bin/python" - "$home" <<'P'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

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
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(found, indent=1) + "\n")

torch.manual_seed(0)
model = LlavaForConditionalGeneration.from_pretrained(home / "hf", dtype=torch.float32)
config = LoraConfig(r=4, target_modules=r".*(language_model.*(q|v)_proj|projector.linear_.)", init_lora_weights=False)
tuned = get_peft_model(model, config).merge_and_unload()
tuned.save_pretrained(home / "tuned")
AutoProcessor.from_pretrained(home / "hf").save_pretrained(home / "tuned")
ids, pixels = [1] + [model.config.image_token_id] * 64 + [35, 40, 32], torch.rand(1, 3, 96, 96)
with torch.no_grad():
    logits = tuned(input_ids=torch.tensor([ids]), pixel_values=pixels).logits
save_file({"pixels": pixels, "logits": logits}, home / "theirs.safetensors")
P
"$python" - "$home" <<'P'
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from minillava.chat import Chat
from minillava.data import IMAGE

home, out = Path(sys.argv[1]), Path("benchmarks/results/interop/peft.json")
model, theirs = Chat(home / "tuned").model, load_file(home / "theirs.safetensors")
with torch.no_grad():
    embeds, _ = model.splice(torch.tensor([1, IMAGE, 35, 40, 32]), list(model.features(theirs["pixels"])))
    logits = model.language_model.head(model.language_model(embeds[None]))
found = json.loads(out.read_text())
found["back from PEFT, largest difference of a logit"] = (logits - theirs["logits"]).abs().max().item()
print(found)
out.write_text(json.dumps(found, indent=1) + "\n")
P

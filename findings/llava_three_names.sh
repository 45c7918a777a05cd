#!/usr/bin/env bash
# transformers 5.23.0: the same LlavaForConditionalGeneration, saved after it was read from files of different age.
# Guess: save_pretrained writes one set of tensor names. Seen: those of the file that the model came from, and others for
# a new model: three sets. transformers loads them all; another tool that looks for names must know all of them.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0
cd "$home"
HF_HUB_OFFLINE=1 "$home/venv/bin/python" - 2> "$home/log" <<'P' || { tail -5 "$home/log"; exit 1; }
import shutil

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

sizes = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2)
vision = CLIPVisionConfig(num_hidden_layers=1, image_size=8, patch_size=4, **sizes)
text = LlamaConfig(vocab_size=40, num_hidden_layers=1, **sizes)
model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=39))
model.save_pretrained("new")
here = {name: tensor.clone() for name, tensor in model.state_dict().items()}


def older(name, tower):
    """A tensor's name as transformers before 4.52 wrote it; tower: what stood before the vision tower's names."""
    name = name.replace("model.language_model.", "language_model.model.")
    name = name.replace("model.multi_modal_projector.", "multi_modal_projector.")
    name = "language_model.lm_head.weight" if name == "lm_head.weight" else name
    return name.replace("model.vision_tower.", tower)


files = {
    "in memory": here,
    "before 4.52": {older(name, "vision_tower.vision_model."): tensor for name, tensor in here.items()},
}
seen = {"a new model": set(load_file("new/model.safetensors"))}
for kind, tensors in files.items():
    shutil.copytree("new", kind, dirs_exist_ok=True)
    save_file(tensors, f"{kind}/model.safetensors", {"format": "pt"})
    read = LlavaForConditionalGeneration.from_pretrained(kind)
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in here.items())
    read.save_pretrained(f"{kind}, again")
    seen[kind] = set(load_file(f"{kind}, again/model.safetensors"))
    assert seen[kind] == set(tensors)
print("transformers", transformers.__version__)
for kind, names in seen.items():
    print(f"{kind}:", *sorted(name for name in names if name.endswith(("q_proj.weight", "linear_1.weight"))))
assert len({frozenset(names) for names in seen.values()}) == 3
P
echo "as found: one model, three sets of names"

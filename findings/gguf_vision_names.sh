#!/usr/bin/env bash
# gguf 0.19.0, the library of llama.cpp's files: its table from published tensor names to those of an mmproj file.
# Guess: it knows the names that transformers 5 writes for a Llava. Seen: it knows those of files from before version 5.
# The vision tower of a model that was made or trained with version 5 has none, and neither have the names in memory.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 transformers==5.23.0 torch==2.13.0
cd "$home"
HF_HUB_OFFLINE=1 "$home/venv/bin/python" - 2> "$home/log" <<'P' || { tail -5 "$home/log"; exit 1; }
import gguf
import transformers
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

sizes = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2)
vision = CLIPVisionConfig(num_hidden_layers=1, image_size=8, patch_size=4, **sizes)
text = LlamaConfig(vocab_size=40, num_hidden_layers=1, **sizes)
model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=39))
model.save_pretrained("new")
table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 4)


def known(names):
    """How many names of the vision tower and of the projector the table has."""
    names = [name for name in names if "vision_tower" in name or "projector" in name]
    return sum(table.get_name(name, try_suffixes=(".weight", ".bias")) is not None for name in names), len(names)


saved = load_file("new/model.safetensors")
before = [name.replace("vision_tower.", "vision_tower.vision_model.") for name in saved]
found = {"before version 5": known(before), "saved by version 5": known(saved), "in memory": known(model.state_dict())}
print("transformers", transformers.__version__, "gguf 0.19.0: names that it knows, of all")
for kind, (some, all_) in found.items():
    print(f"{kind}: {some} of {all_}")
assert found["before version 5"][0] == found["before version 5"][1]
assert found["saved by version 5"] == (4, found["before version 5"][1]) and found["in memory"][0] == 0
P
echo "as found: of a new vision tower it knows no name"

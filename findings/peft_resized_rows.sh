#!/usr/bin/env bash
# PEFT 0.21.2 with transformers 5.23.0: LoRA adapters of a Llava, beside those of its language model alone.
# Guess: what is saved for a Llama is saved for a Llava, and an adapter from before version 5 is read. Seen: rows that
# were added to the vocabulary are saved with a Llama's adapter and left out of a Llava's, without a word. An older
# adapter's matrices for the projector are not read (a warning lists them as missing); those for the language model are.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check peft==0.21.2 transformers==5.23.0 torch==2.13.0
cd "$home"
HF_HUB_OFFLINE=1 "$home/venv/bin/python" - 2> "$home/log" <<'P' || { tail -5 "$home/log"; exit 1; }
import shutil

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

sizes = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2)
vision = CLIPVisionConfig(num_hidden_layers=1, image_size=8, patch_size=4, **sizes)
text = LlamaConfig(vocab_size=40, num_hidden_layers=1, **sizes)
config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=39)
LlavaForConditionalGeneration(config).save_pretrained("Llava")
LlamaForCausalLM(text).save_pretrained("Llama")
print("peft", peft.__version__, "transformers", transformers.__version__)
tables = {}
for name, kind in {"Llama": LlamaForCausalLM, "Llava": LlavaForConditionalGeneration}.items():
    model = kind.from_pretrained(name)
    model.resize_token_embeddings(48)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2)).save_pretrained(f"{name}-adapter")
    tables[name] = [key for key in load_file(f"{name}-adapter/adapter_model.safetensors") if "lora" not in key]
    print(f"{name}, 8 rows added: tables in the adapter: {len(tables[name])}")
assert len(tables["Llama"]) == 2 and not tables["Llava"]

model = LlavaForConditionalGeneration.from_pretrained("Llava")
model = get_peft_model(model, LoraConfig(target_modules=["linear_1", "q_proj"], r=2, init_lora_weights=False))
model.save_pretrained("new")
saved = load_file("new/adapter_model.safetensors")


def older(name):
    """An adapter's name as PEFT wrote it with transformers before 4.52."""
    name = name.replace("base_model.model.model.", "base_model.model.")
    return name.replace("model.language_model.", "model.language_model.model.")


shutil.copytree("new", "old")
save_file({older(name): tensor for name, tensor in saved.items()}, "old/adapter_model.safetensors", {"format": "pt"})
read = {}
for kind in ("new", "old"):
    back = PeftModel.from_pretrained(LlavaForConditionalGeneration.from_pretrained("Llava"), kind).state_dict()
    same = {name: torch.equal(back[name], tensor) for name, tensor in model.state_dict().items() if "lora" in name}
    read[kind] = {part: all(ok for name, ok in same.items() if part in name) for part in ("language_model", "projector")}
    print(f"{kind} adapter, read as saved:", read[kind])
assert read == {"new": {"language_model": True, "projector": True}, "old": {"language_model": True, "projector": False}}
P
echo "as found: a Llava's added rows are left out, an older adapter's projector is not read"

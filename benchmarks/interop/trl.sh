#!/usr/bin/env bash
# TRL's SFTTrainer on our exported LLaVA and our records (`generate --format messages` and `parquet`).
# TRL's default puts loss on every token that is not padding: the question, and 64 `<image>` placeholders per picture,
# whose target no model can meet. assistant_only_loss=True is what is meant; it needs the template's {% generation %}.
. benchmarks/interop/common.sh
records messages 12
records parquet 12
export_model
# What we train on: ids and labels per record, and the loss of the first four, to compare with TRL's.
"$ours" - "$home" <<'P'
import json
import sys
from pathlib import Path

import torch

from minillava.chat import Chat
from minillava.data.images import open_picture, pixels
from minillava.data.samples import encode
from minillava.data.valid import read_records
from minillava.model import Batch

torch.set_num_threads(1)
home, chat = Path(sys.argv[1]), Chat("data_samples/weights/llava")
records = read_records(home / "made/stage2.json")
samples = [encode(record, chat.template, chat.tokenizer) for record in records]
view = pixels([open_picture(home / "made/images" / record["image"]) for record in records[:4]], chat.preparation)
with torch.inference_mode():
    features = [[one] for one in chat.model.features(view)]
    loss, _ = chat.model.loss(Batch([s.ids for s in samples[:4]], [s.labels for s in samples[:4]], features))
rows = [{"ids": s.ids.tolist(), "labels": s.labels.tolist()} for s in samples]
(home / "ours.json").write_text(json.dumps({"rows": rows, "loss": float(loss)}))
P
install transformers==5.23.0 trl==1.16.0 peft==0.21.2 datasets==5.2.0 pillow
run <<'P'
import contextlib
import json
import os

import datasets
import torch
import transformers
import trl
from transformers import AutoProcessor, LlavaForConditionalGeneration

torch.set_num_threads(1)
folder, ours = os.environ["MODEL"], json.load(open("ours.json"))
processor = AutoProcessor.from_pretrained(folder)
image = processor.tokenizer.convert_tokens_to_ids("<image>")
rows = datasets.load_dataset("json", data_files="made/messages/stage2.json", split="train")
rows = rows.map(lambda row: {"images": ["made/messages/images/" + name for name in row["images"]]})
rows = rows.cast_column("images", datasets.List(datasets.Image()))
parquet = datasets.load_dataset("parquet", data_files="made/parquet/stage2.parquet", split="train")


def trainer(rows, **more):
    settings = trl.SFTConfig(
        "out", per_device_train_batch_size=4, max_steps=20, learning_rate=3e-4, max_length=None, logging_strategy="no",
        save_strategy="no", report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, seed=0, **more,
    )  # fmt: skip
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    return trl.SFTTrainer(model=model, args=settings, train_dataset=rows, processing_class=processor)


def loss(trainer, rows):
    with torch.inference_mode():
        return float(trainer.model.eval()(**trainer.data_collator(rows)).loss)


print("transformers", transformers.__version__, "trl", trl.__version__, "peft", __import__("peft").__version__)
found = {}
for name, some, more in (
    ("default", rows, {}),
    ("assistant_only_loss", rows, {"assistant_only_loss": True}),
    ("the same, from Parquet", parquet, {"assistant_only_loss": True}),
):
    made = trainer(some, **more)
    labels = [made.data_collator([row])["labels"][0] for row in some]
    supervised = sum(int((one != -100).sum()) for one in labels)
    placeholders = sum(int((one == image).sum()) for one in labels)
    before = loss(made, [some[n] for n in range(4)])
    with contextlib.redirect_stdout(None):
        made.train()
    after = loss(made, [some[n] for n in range(4)])
    found[name] = placeholders, supervised, before
    print(f"{name}: {supervised:,} tokens with loss, {placeholders:,} of them <image>; "
          f"loss of four records {before:.4f}, after 20 steps {after:.4f}")
same = 0
for row, own in zip(rows, ours["rows"]):  # ours has one id for a picture, theirs one for each patch
    batch = made.data_collator([row])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    at = ids.index(image)
    ids[at : at + 64], labels[at : at + 64] = [-200], [-100]
    same += (ids, labels) == (own["ids"], own["labels"])
print(f"ids and labels as ours in {same} of {len(rows)} records; our loss of the four {ours['loss']:.4f}")
assert found["default"][0] == 64 * len(rows) and found["assistant_only_loss"][0] == 0
assert found["assistant_only_loss"] == found["the same, from Parquet"]
P

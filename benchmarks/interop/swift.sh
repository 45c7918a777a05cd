#!/usr/bin/env bash
# ms-swift reads our records (`generate --format messages`, sharegpt and parquet) and our exported LLaVA.
# Its templates for LLaVA write a line feed after each picture: "<image>\nWhat ..." of sharegpt gets a second one.
. benchmarks/interop/common.sh
for form in messages sharegpt parquet; do records "$form" 12; done
export_model
install ms-swift==4.6.0
export ROOT_IMAGE_DIR=made/images MODELSCOPE_CACHE=$home/modelscope LOG_LEVEL=ERROR
run <<'P'
import json
import os
import re
from importlib.metadata import version

from swift.dataset import load_dataset
from swift.model import get_processor
from swift.template import get_template

processor = get_processor(os.environ["MODEL"], model_type="llava1_5_hf")
template = get_template(processor)
template.set_mode("train")
tokenizer, records = processor.tokenizer, json.load(open("made/stage2.json"))
image = tokenizer.convert_tokens_to_ids("<image>")
print(*(f"{name} {version(name)}" for name in ("ms-swift", "transformers", "datasets")))
for form, suffix in (("messages", "json"), ("sharegpt", "json"), ("parquet", "parquet")):
    rows, _ = load_dataset([f"made/{form}/stage2.{suffix}"], num_proc=1)
    assert len(rows) == len(records)
    same = 0
    for row, record in zip(rows, records):
        found = template.encode(row)
        turns = [turn["value"] for turn in record["conversations"]]
        assert found["input_ids"].count(image) == 64 and image not in found["labels"]
        assert found["pixel_values"].shape == (1, 3, 96, 96)
        text = tokenizer.decode(found["input_ids"]).replace("<image>" * 64, "<image>")
        learned = "".join(tokenizer.decode([i]) for i in found["labels"] if i >= 0)
        assert learned.replace("</s>", "") == "".join(turns[1::2]), (learned, turns)
        asked = re.findall("USER: (.*?)\nASSISTANT:", text, re.DOTALL)
        same += asked == turns[::2]
    print(f"{form}: {len(rows)} records, answers as ours, no loss on a picture; "
          f"questions with their line feeds as ours: {same}")
    print("  ", repr(text[:90]))
P

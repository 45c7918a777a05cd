#!/usr/bin/env bash
# The package webdataset reads our shards (`generate --format webdataset`): records and pictures, and shuffled in shards.
. benchmarks/interop/common.sh
records webdataset 12
install webdataset==1.0.2 datasets==5.2.0 pillow numpy
run <<'P'
import json
from importlib.metadata import version
from pathlib import Path

import datasets
import webdataset
from PIL import Image

print(*(f"{name} {version(name)}" for name in ("webdataset", "datasets", "pillow")))
for stage in ("stage1", "stage2"):
    records = json.load(open(f"made/{stage}.json"))
    shards = [str(path) for path in sorted(Path("made/webdataset").glob(f"{stage}-*.tar"))]
    plain = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("json", "png"))
    assert [record for record, _ in plain] == records
    for record, picture in plain:
        with Image.open(f"made/images/{record['image']}") as image:
            assert image.convert("RGB").tobytes() == picture.convert("RGB").tobytes()
    mixed = webdataset.WebDataset(shards, shardshuffle=1).shuffle(100).decode("pil").to_tuple("json", "png")
    assert sorted(record["id"] for record, _ in mixed) == sorted(record["id"] for record in records)
    rows = datasets.load_dataset("webdataset", data_files={"train": shards}, split="train")
    assert [row["json"] for row in rows] == records and isinstance(rows.features["png"], datasets.Image)
    stream = datasets.load_dataset("webdataset", data_files={"train": shards}, split="train", streaming=True)
    assert [row["json"] for row in stream] == records
    print(f"{stage}: {len(records)} records and their pictures as ours, by webdataset and by datasets, whole and streamed")
P

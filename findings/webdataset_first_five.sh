#!/usr/bin/env bash
# datasets 5.2.0 reads a WebDataset shard in which some records have a picture and others are text alone.
# Guess: a record without a picture gets None, in any order. Seen: the columns are those of the first five records. If
# these are text, every later picture is left out without a word; if they differ, reading is refused.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pillow==13.0.0
cd "$home"
HF_HOME=$home/hub HF_DATASETS_OFFLINE=1 "$home/venv/bin/python" - 2> "$home/log" <<'P' || { tail -5 "$home/log"; exit 1; }
import io
import json
import tarfile

import datasets
from PIL import Image


def read(name, order):
    """How many of the pictures of a shard come back; order: whether each record has one. None: refused."""
    with tarfile.open(f"{name}.tar", "w") as shard:
        for number, has in enumerate(order):
            picture = io.BytesIO()
            Image.new("RGB", (4, 4), (number, 0, 0)).save(picture, "png")
            members = {"json": json.dumps({"number": number}).encode()} | ({"png": picture.getvalue()} if has else {})
            for suffix, data in members.items():
                member = tarfile.TarInfo(f"{number:03}.{suffix}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    try:
        rows = datasets.load_dataset("webdataset", data_files={"train": f"{name}.tar"}, split="train")
    except ValueError:
        return None
    assert [row["json"]["number"] for row in rows] == list(range(len(order)))
    return sum(row.get("png") is not None for row in rows)


print("datasets", datasets.__version__)
orders = {"pictures first": [True] * 10 + [False] * 5, "texts first": [False] * 5 + [True] * 10}
orders["in turn"] = [True, False] * 8
found = {name: read(name.replace(" ", "-"), order) for name, order in orders.items()}
for name, count in found.items():
    print(f"{name}: {'refused' if count is None else count} of {sum(orders[name])} pictures")
assert found == {"pictures first": 10, "texts first": 0, "in turn": None}
P
echo "as found: with five texts in front, all pictures are lost"

#!/usr/bin/env bash
# datasets 5.2.0: a dataset whose column `image` names files, saved in its two ways.
# Guess: both files hold the pictures, with the names that they were given. Seen: to_parquet writes the paths alone, so
# the file is of no use elsewhere; save_to_disk copies the bytes and cuts folders off: a/1.png and b/1.png share a name.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pillow==13.0.0
cd "$home"
HF_HOME=$home/hub HF_DATASETS_OFFLINE=1 "$home/venv/bin/python" - 2> "$home/log" <<'P' || { tail -5 "$home/log"; exit 1; }
import os

import datasets
from PIL import Image

names = ["a/1.png", "b/1.png"]
for name in names:
    os.makedirs(os.path.dirname(name))
    Image.new("RGB", (4, 4)).save(name)
rows = datasets.Dataset.from_dict({"image": names}, features=datasets.Features({"image": datasets.Image()}))
rows.to_parquet("rows.parquet")
rows.save_to_disk("rows")
print("datasets", datasets.__version__)
found = {}
read = {"to_parquet": datasets.Dataset.from_parquet("rows.parquet"), "save_to_disk": datasets.load_from_disk("rows")}
for how, back in read.items():
    plain = back.cast_column("image", datasets.Image(decode=False))
    found[how] = [(row["image"]["path"], row["image"]["bytes"] is not None) for row in plain]
    print(f"{how}: path, whether there are bytes:", found[how])
assert found == {"to_parquet": [(name, False) for name in names], "save_to_disk": [("1.png", True)] * 2}
P
echo "as found: Parquet without pictures, and names without folders"

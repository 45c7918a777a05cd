#!/usr/bin/env bash
# transformers 5.23.0: a folder with preprocessor_config.json (the file of all older checkpoints) and processor_config.json
# (what version 5 writes, with the image processor's settings inside).
# Guess: where they disagree, preprocessor_config.json counts, as its name is the image processor's own. Seen: the nested
# settings count, and the other file is ignored without a warning, so editing it or copying an older one there does nothing.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 pillow==12.0.0
cd "$home"
"$home/venv/bin/python" - <<'P' 2> warnings.txt
import json
import os

import transformers

settings = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 224}, "do_rescale": True,
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224}, "do_normalize": True, "image_std": [1, 1, 1],
}


def write(name, value):
    with open(name, "w") as file:
        json.dump(value, file)


write("config.json", {"model_type": "clip"})
write("preprocessor_config.json", settings | {"image_mean": [0.1] * 3})
alone = transformers.AutoImageProcessor.from_pretrained(".").image_mean
write("processor_config.json", {"processor_class": "CLIPProcessor", "image_processor": settings | {"image_mean": [0.2] * 3}})
both = transformers.AutoImageProcessor.from_pretrained(".").image_mean
direct = transformers.CLIPImageProcessor.from_pretrained(".").image_mean
print("transformers", transformers.__version__)
print("preprocessor_config.json alone:", list(alone))
print("with processor_config.json:    ", list(both), "by its class:", list(direct))
assert list(alone) == [0.1] * 3 and list(both) == list(direct) == [0.2] * 3
P
if grep -qi "preprocessor_config" warnings.txt; then echo "changed: it warns now"; exit 1; fi
echo "as found: processor_config.json counts, and nothing is said"

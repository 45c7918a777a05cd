#!/usr/bin/env bash
# transformers 5.23.0: a folder with chat_template.jinja (what version 5 writes) and an older chat_template.json.
# Guess: one of the two counts, for the processor and for its tokenizer. Seen: the processor takes the older .json, its
# tokenizer the .jinja, so one conversation becomes two texts. Nothing is said.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0 pillow==13.0.0
cd "$home"
HF_HUB_OFFLINE=1 "$home/venv/bin/python" - 2> "$home/log" <<'P' || { tail -5 "$home/log"; exit 1; }
import json

import transformers
from tokenizers import Tokenizer, models

model = Tokenizer(models.WordLevel({"[UNK]": 0, "<image>": 1}, "[UNK]"))
words = transformers.PreTrainedTokenizerFast(tokenizer_object=model)
template = "NEW {{ messages[0]['content'] }}"
made = transformers.LlavaProcessor(transformers.CLIPImageProcessor(), words, patch_size=14, chat_template=template)
made.save_pretrained("made")
talk = [{"role": "user", "content": "Hi"}]


def texts():
    processor = transformers.AutoProcessor.from_pretrained("made")
    tokenizer = transformers.AutoTokenizer.from_pretrained("made")
    ways = processor.apply_chat_template, processor.tokenizer.apply_chat_template, tokenizer.apply_chat_template
    return [way(talk, tokenize=False) for way in ways]


print("transformers", transformers.__version__)
one = texts()
with open("made/chat_template.json", "w") as file:
    json.dump({"chat_template": "OLD {{ messages[0]['content'] }}"}, file)
two = texts()
print("with .jinja alone:       processor, its tokenizer, AutoTokenizer:", one)
print("with .json beside it:    processor, its tokenizer, AutoTokenizer:", two)
assert one == ["NEW Hi"] * 3 and two == ["OLD Hi", "NEW Hi", "NEW Hi"]
P
if grep -qi "chat_template" "$home/log"; then echo "changed: it warns now"; exit 1; fi
echo "as found: the processor and its tokenizer read different files"

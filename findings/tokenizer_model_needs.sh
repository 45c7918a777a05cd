#!/usr/bin/env bash
# transformers 5.23.0: a folder whose only tokenizer file is tokenizer.model (SentencePiece), as Vicuna's.
# Guess: the error for a missing package names that package. Seen: with sentencepiece installed and protobuf missing, the
# error asks for tiktoken, a tokenizer of another family. With tiktoken installed it fails to parse the file. With protobuf
# everything works.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
pip="$home/venv/bin/pip"
"$pip" install -q --disable-pip-version-check transformers==5.23.0 sentencepiece==0.2.3
cd "$home"
cat > read.py <<'P'
import json
import os

import transformers

if not os.path.exists("tokenizer.model"):
    import sentencepiece

    with open("text.txt", "w") as file:
        file.writelines(f"a cat sits on a red sofa, number {n}.\n" for n in range(300))
    sentencepiece.SentencePieceTrainer.train(
        input="text.txt", model_prefix="tokenizer", vocab_size=320, model_type="bpe", byte_fallback=True, minloglevel=2
    )
    with open("config.json", "w") as file:
        json.dump({"model_type": "llama"}, file)
    with open("tokenizer_config.json", "w") as file:
        json.dump({"tokenizer_class": "LlamaTokenizer"}, file)
try:
    transformers.AutoTokenizer.from_pretrained(".")
    print("read")
except Exception as error:
    print(type(error).__name__, str(error).splitlines()[0])
P
run() { "$home/venv/bin/python" read.py 2>/dev/null | tail -1; }
one=$(run); echo "sentencepiece alone:                  $one"
"$pip" install -q --disable-pip-version-check tiktoken==0.14.0
two=$(run); echo "with tiktoken, as the error asks:     $two"
"$pip" install -q --disable-pip-version-check protobuf==7.36.2
three=$(run); echo "with protobuf, which it does not name: $three"
[[ "$one" == *"tiktoken"* && "$one" != *"protobuf"* && "$two" == *"Error parsing"* && "$three" == "read" ]]
echo "as found: the error names the wrong package"

#!/usr/bin/env bash
# transformers 5.23.0, LlamaTokenizer from a SentencePiece tokenizer.model (the form in which Vicuna is published).
# Guess: its ids are SentencePiece's own. Seen: a text that begins with a blank loses one. " A cat" gets the ids of "A cat",
# where SentencePiece gives one piece more, and decoding does not bring the blank back.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 sentencepiece==0.2.3 protobuf==7.36.2
cd "$home"
"$home/venv/bin/python" - <<'P'
import json

import sentencepiece
import transformers

words = "a cat sits on a red sofa and a dog sleeps below the old table in the warm room of a small house".split()
with open("text.txt", "w") as file:
    file.writelines(" ".join(words[n % 7 :: 1 + n % 3]) + f" {n}.\n" for n in range(400))
# The settings of Llama's own model: blanks are kept, one is put before every text.
sentencepiece.SentencePieceTrainer.train(
    input="text.txt", model_prefix="tokenizer", vocab_size=330, model_type="bpe", byte_fallback=True,
    add_dummy_prefix=True, remove_extra_whitespaces=False, normalization_rule_name="identity", minloglevel=2,
)
with open("config.json", "w") as file:
    json.dump({"model_type": "llama"}, file)
with open("tokenizer_config.json", "w") as file:
    json.dump({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, file)
own = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
theirs = transformers.AutoTokenizer.from_pretrained(".")
print("transformers", transformers.__version__, "sentencepiece", sentencepiece.__version__)
same = []
for text in ("a cat", " a cat", "  a cat", "a  cat", "a cat\n a dog"):
    one, two = own.encode(text), theirs(text, add_special_tokens=False)["input_ids"]
    same.append(one == two)
    print(f"{text!r:18} SentencePiece {own.id_to_piece(one)}  transformers {theirs.convert_ids_to_tokens(two)}"
          f"  decoded {theirs.decode(two)!r}")
assert same == [True, False, False, True, True], same
assert theirs(" a cat")["input_ids"] == theirs("a cat")["input_ids"]
print("as found: one leading blank is lost")
P

#!/usr/bin/env bash
# transformers 5.23.0: LlavaProcessor with a batch of texts and one list of pictures for each text.
# Guess: each text must have as many <image> as its own list has pictures. Seen: only the sums are compared. Where they
# agree, a text takes the picture of another one, without an error or a warning.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check transformers==5.23.0 torch==2.13.0 pillow==13.0.0
cd "$home"
HF_HUB_OFFLINE=1 "$home/venv/bin/python" -W error - 2> "$home/log" <<'P' || { tail -5 "$home/log"; exit 1; }
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

model = Tokenizer(models.WordLevel({"[UNK]": 0, "<image>": 1, "[PAD]": 2}, "[UNK]"))
model.pre_tokenizer = pre_tokenizers.Whitespace()
words = transformers.PreTrainedTokenizerFast(
    tokenizer_object=model, unk_token="[UNK]", pad_token="[PAD]", extra_special_tokens=["<image>"]
)
pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
processor = transformers.LlavaProcessor(
    pictures, words, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
)
black, white = Image.new("RGB", (28, 28)), Image.new("RGB", (28, 28), "white")


def read(texts, lists):
    """The picture places of each text, or the error."""
    try:
        made = processor(text=texts, images=lists, padding=True)
    except ValueError as error:
        return str(error)
    return [list(ids).count(1) // 4 for ids in made["input_ids"]]


print("transformers", transformers.__version__)
short = read(["<image> one", "none"], [[black], [white]])
swapped = read(["<image> <image> two", "none"], [[black], [white]])
print("1 and 0 places, 1 and 1 pictures:", short)
print("2 and 0 places, 1 and 1 pictures:", swapped)
assert "total number" in short and swapped == [2, 0]
P
echo "as found: the first text shows the second text's picture"

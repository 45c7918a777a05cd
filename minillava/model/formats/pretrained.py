"""A LLaVA as a folder of `transformers`: LlavaForConditionalGeneration, LlavaProcessor and a model card.

Version 5 and the versions before it read the same files. `minillava export MODEL --to hf --out DIR` calls this.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.pre_tokenizers import Split

from minillava.files import read_json
from minillava.model.formats.chat_template import ending_tokenizer, jinja
from minillava.model.formats.checkpoint import metadata, named_tensors
from minillava.model.formats.files import CheckpointError, find_checkpoint, reading_config, write_checkpoint
from minillava.model.formats.preparation import read_preparation, write_preparation
from minillava.model.formats.published import llava_names, llava_published
from minillava.text import markdown_table

# Only version 5 knows these keys and this class; PreTrainedTokenizerFast is the same class, under the name that both know.
NEWER, NEWER_KEYS = "TokenizersBackend", ("backend", "is_local", "local_files_only")


def save_pretrained(model, folder, tokenizer, vision_tower, template, about, dtype=None):
    """Write a folder that `transformers`' LlavaForConditionalGeneration and LlavaProcessor load, with equal logits.

    vision_tower: the folder or hub id with the pictures' preparation, and perhaps the scores of card.json. template: a
    data.template.Template; it becomes the chat template. In `transformers` a picture is P tokens `<image>`, so the
    vocabulary gets that token if needed; its score is the mean of all scores, so it is never the highest. A
    conversation's ids equal ours where the stop is one token. Raises CheckpointError for a folder that holds something,
    as a file there, such as an older chat_template.json, could change what the model reads.
    """
    from transformers import AutoImageProcessor, GenerationConfig, LlavaProcessor

    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty; name a new folder, as what is there could change the model")
    known, tensors, V = metadata(model, about), named_tensors(model, llava_names()), model.config.language.vocab_size
    if len(tokenizer) > V:
        raise CheckpointError(f"the tokenizer has {len(tokenizer)} tokens, the model {V}: they do not belong together")
    tokenizer, stop = ending_tokenizer(tokenizer, template), tokenizer.encode(template.stop, add_special_tokens=False)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    _cut_before_answers(tokenizer, template)
    config, image_token = model.config, tokenizer.convert_tokens_to_ids("<image>")
    if image_token == V:
        config = replace(config, language=replace(config.language, vocab_size=V + 1))
        for ours in ("embed_tokens.weight", *([] if config.language.tie_embeddings else ["lm_head.weight"])):
            name = llava_names()("language_model." + ours)
            tensors[name] = torch.cat([tensors[name], tensors[name].float().mean(0, keepdim=True).to(tensors[name])])
    if config.projector == "linear":  # linear_2 (published.py)
        D, name_of = config.language.hidden_size, llava_names()
        tensors |= {name_of("projector.2.weight"): torch.eye(D), name_of("projector.2.bias"): torch.zeros(D)}
    preparation = read_preparation(vision_tower, config.vision.image_size)
    sizes = dict(patch_size=config.vision.patch_size, num_additional_image_tokens=1)  # the class token
    chat = {"chat_template": jinja(template), "vision_feature_select_strategy": "default"}
    ends = [*dict.fromkeys([stop[-1], *config.language.ends, tokenizer.eos_token_id])]
    tokens = {  # equal in all files, or Trainer would change the model's
        "eos_token_id": [end for end in ends if end is not None],
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    published = llava_published(config, image_token) | {"minillava": known | {"ends": list(config.language.ends)}}
    published["text_config"] |= tokens

    scores = find_checkpoint(vision_tower) / "card.json"
    card = model_card(known, template, scores)

    def also(temporary):
        write_preparation(preparation, temporary)  # where versions before 5 look
        pictures = AutoImageProcessor.from_pretrained(str(temporary))
        LlavaProcessor(pictures, tokenizer, **sizes, **chat).save_pretrained(temporary)
        GenerationConfig(**tokens).save_pretrained(temporary)
        _readable_before_5(temporary / "tokenizer_config.json")
        (temporary / "README.md").write_text(card, encoding="utf-8")
        if scores.exists():  # so that an export of the export has them too
            shutil.copyfile(scores, temporary / "card.json")

    write_checkpoint(folder, {"config.json": published}, tensors, dtype, also)


def _cut_before_answers(tokenizer, template):
    """Where a template asks with a blank at the end, cut the text there, as our sequences are made.

    `transformers` tokenizes the joined text, where "Assistant: It" has one token " It" that the model never learned.
    """
    asked = template.segments([("", None)])[-1][0]
    words = tokenizer.backend_tokenizer
    if asked.endswith(" ") and words.pre_tokenizer is not None:
        cut = Split(Regex(r"\A" + re.escape(asked)), "isolated")
        words.pre_tokenizer = PreTokenizers([cut, words.pre_tokenizer])


def _readable_before_5(path):
    """Name the tokenizer's class and inputs as all versions understand them."""
    written = {key: value for key, value in read_json(path).items() if key not in NEWER_KEYS}
    if written["tokenizer_class"] == NEWER:
        written["tokenizer_class"] = "PreTrainedTokenizerFast"
    # By default versions before 5 add token_type_ids, which Llava refuses.
    written["model_input_names"] = ["input_ids", "attention_mask"]
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def model_card(known, template, scores):
    """README.md of an exported model. known: of `metadata`. scores: a card.json, which may be absent."""
    about, towers = known["about"], known["towers"]
    tables = _score_tables(scores) if scores.exists() else []
    lines = [
        "---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\ntags: [llava]\n---",
        "# A LLaVA, exported by minillava",
        f"Trained on: {about['trained on']}. Vision tower: {towers['vision'] or 'not known'}; language model: "
        f"{towers['language'] or 'not known'}. Conversation format: {template.name}.",
        '```python\nfrom transformers import pipeline\n\nask = pipeline("image-text-to-text", model="this folder")\n'
        'message = {"role": "user", "content": [{"type": "image", "url": "picture.png"}, {"type": "text", "text": '
        '"What is this?"}]}\nprint(ask(text=[message], return_full_text=False)[0]["generated_text"])\n```',
        "## Scores and their controls",
        *tables,
    ]
    if tables:
        lines.append("blank, shuffled: the same questions with a blank picture or another question's. A model that "
                     "scores as well there does not use the picture. The picture comes before the question, except "
                     "where the column says that it comes after.")  # fmt: skip
    else:
        lines.append("None are known. A score means something beside its control, the same questions with the picture "
                     "blanked or exchanged: `minillava answer --look`, then `minillava judge`.")  # fmt: skip
    return "\n\n".join(lines) + "\n"


def _score_tables(path):
    """The figures of a card.json, {name: {picture, blank, ...: {kind: score}}}, as lines and Markdown tables."""
    lines = []
    with reading_config(path) as card:
        for name, columns in card.get("figures", {}).items():
            kinds = next(iter(columns.values()))
            rows = [[kind, *(str(column.get(kind, "")) for column in columns.values())] for kind in kinds]
            lines += [f"{name}:", markdown_table([["", *columns], *rows])]
    return lines

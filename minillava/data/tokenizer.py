"""A small tokenizer in the published format, trained here; and loading of any tokenizer, small or real.

Notable: byte-level BPE (the `tokenizers` library), so every text can be written, and after training on the picture book
nearly every word of it is one token. Loaded by `transformers.AutoTokenizer` like Vicuna's; code from a folder is never run.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<s>", "</s>")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens, in the order `<pad> <s> </s>`, bytes, merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def load_tokenizer(folder: str | Path):
    """The tokenizer of a checkpoint folder. Raises FileNotFoundError with what to do when the folder has none."""
    if not any(
        (Path(folder) / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
    ):
        raise FileNotFoundError(
            f"{folder}: no tokenizer files here; a checkpoint folder holds tokenizer.json beside its weights"
        )
    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)

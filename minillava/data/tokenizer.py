"""A small tokenizer in the published format, trained here; and loading of any tokenizer, small or real.

Notable: byte-level BPE (the `tokenizers` library), so every text can be written, and after training on the picture book
nearly every word of it is one token. Loaded by `transformers.AutoTokenizer` like Vicuna's; code from a folder is never run.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from minillava.errors import UserError

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


class TokenizerError(UserError):
    """A folder's tokenizer files cannot be read; the message names the folder."""


def load_tokenizer(folder: str | Path):
    """The tokenizer of a checkpoint folder. Raises FileNotFoundError when it has none, TokenizerError for broken files."""
    if not any(
        (Path(folder) / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
    ):
        raise FileNotFoundError(
            f"{folder}: no tokenizer files here; a checkpoint folder holds tokenizer.json beside its weights"
        )
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # the library raises whatever its parsers do, bare Exception among them
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise TokenizerError(f"{folder}: its tokenizer files cannot be read ({said}); fetch them again") from error

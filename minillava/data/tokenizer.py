"""A small tokenizer in the published format, trained here; and loading of any tokenizer, small or real.

It is byte-level BPE (the `tokenizers` library), so it can encode every text. After training on the picture book, nearly
every word of it is one token. `transformers.AutoTokenizer` loads it like Vicuna's; code from a folder is never run.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from minillava.errors import UserError

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")  # a folder with a tokenizer has one of these


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens, in the order `<pad> <s> </s>`, bytes, merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def grow_tokenizer(tokenizer, words: Iterable[str], apart: str) -> PreTrainedTokenizerFast:
    """The same with more tokens: each of `words`, and what the regular expression `apart` finds is never merged."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    split = pre_tokenizers.Split(Regex(apart), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, backend.pre_tokenizer])
    grown = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    grown.add_tokens(list(words))
    return grown


class TokenizerError(UserError):
    """Tokenizer files that cannot be read; the message names the folder."""


def load_tokenizer(folder: str | Path):
    """The tokenizer of a checkpoint folder. Raises FileNotFoundError if it has none, TokenizerError if it is broken.

    A folder with only a tokenizer.model, such as Vicuna's, needs the packages of the extra "real".
    """
    if not any((Path(folder) / name).is_file() for name in FILES):
        raise FileNotFoundError(f"{folder}: no tokenizer files here; copy tokenizer.json next to the weights")
    kind = AutoTokenizer
    if (Path(folder) / "tokenizer.model").is_file() and not (Path(folder) / "tokenizer.json").is_file():
        kind = LlamaTokenizer  # whatever model_type config.json has: for some, AutoTokenizer leaves out the first blank
        try:  # transformers needs both, and without them asks for another package
            import google.protobuf  # noqa: F401
            import sentencepiece  # noqa: F401
        except ImportError as error:
            raise TokenizerError(
                f"{folder}: its tokenizer.model needs the packages sentencepiece and protobuf ({error}): "
                "pip install 'minillava[real]', or pip install sentencepiece protobuf"
            ) from error
    try:
        tokenizer = kind.from_pretrained(str(folder), trust_remote_code=False)
        tokenizer.encode("a")  # settings of another type than expected fail only when they are used
        return tokenizer
    except Exception as error:  # its parsers raise errors of many kinds, even a bare Exception
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise TokenizerError(f"{folder}: its tokenizer files cannot be read ({said}); fetch them again") from error

"""GGUF, the one-file format of llama.cpp: a language model's sizes, tensors and tokenizer, as a folder for this project.

`import_gguf` writes a folder that `load_language` and `transformers` load. Weights become float32, as exactly as the file
has them: a value of Q4_1 has more digits than half precision holds. Read are the architectures llama and qwen2, the
types in `TYPES`, and byte-level BPE with the splits in `SPLITS`. Anything else is an error that names it. Nothing in
the file is run, and no length in it is believed before the file is seen to be that long.

    minillava import SmolLM2-135M-Instruct.Q4_1.gguf --out runs/smollm2

The format: github.com/ggml-org/ggml, docs/gguf.md. Its shapes have the shortest stride first; here they are reversed.
"""

import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import GenerationConfig, PreTrainedTokenizerFast

from minillava.errors import CheckpointError
from minillava.model.formats.files import load_strictly, write_checkpoint
from minillava.model.formats.published import language_config, language_name, language_published
from minillava.model.language import LanguageConfig, LanguageModel

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}
OTHER_TYPES = {6: "Q5_0", 7: "Q5_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 30: "BF16"}
# Our names of a block's tensors, and GGUF's.
BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NAMES = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
# GGUF's names of a model's sizes, after "llama." or "qwen2.", and those of config.json.
SIZES = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}
REQUIRED = ("embedding_length", "attention.head_count", "attention.layer_norm_rms_epsilon", "context_length")
IMPLIED = ("vocab_size", "rope.dimension_count", "attention.value_length")  # what they say is checked, not used
# How a text is cut before bytes are merged, as the makers' own tokenizer.json has it; None: GPT-2's way.
LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    "gpt-2": None,
    "smollm": None,  # after each digit has been cut out
    "qwen2": LETTERS + r"\p{N}" + OTHERS,
    "llama-bpe": LETTERS + r"\p{N}{1,3}" + OTHERS,
}
CONTROL, USER_DEFINED = 3, 4  # types of tokens
ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>")  # these end an answer, as in llama.cpp


class Reader:
    """The bytes of a file, taken in order. Raises CheckpointError, naming the file, where it is too short."""

    def __init__(self, path):
        self.path, self.at = path, 0
        try:
            self.data = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise CheckpointError(f"{path}: cannot be read: {error}") from error

    def fail(self, why):
        raise CheckpointError(f"{self.path}: {why}; it is damaged or not a GGUF file: fetch it again")

    def take(self, count):
        """The next `count` bytes."""
        if count > len(self.data) - self.at:
            self.fail(f"ends at byte {len(self.data):,}, within something of {count:,} bytes at byte {self.at:,}")
        self.at += count
        return self.data[self.at - count : self.at].tobytes()

    def numbers(self, kind, count=1):
        """A tuple of `count` numbers; kind: a letter of `struct`."""
        return struct.unpack(f"<{count}{kind}", self.take(count * struct.calcsize(kind)))

    def text(self):
        try:
            return self.take(*self.numbers("Q")).decode()
        except UnicodeDecodeError:
            self.fail(f"a text before byte {self.at:,} is not UTF-8")

    def value(self, kind):
        """A number, a text, or a list of either."""
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            (kind,), (count,) = self.numbers("I"), self.numbers("Q")
            if kind == TEXT:
                return [self.text() for _ in range(count)]
            return list(self.numbers(self.letter(kind), count))
        return self.numbers(self.letter(kind))[0]

    def letter(self, kind):
        return NUMBERS.get(kind) or self.fail(f"a value before byte {self.at:,} is of the unknown type {kind}")


class GgufTensor(NamedTuple):
    """A tensor in a GGUF file, not yet read."""

    data: np.ndarray  # its bytes, mapped
    shape: tuple
    kind: str  # F32 for what can be read, as it is read; otherwise GGUF's name of its type
    type: int
    heads: int = 0  # of a matrix whose rows GGUF has in another order

    def read(self, dtype=None, device="cpu"):
        """Its values, from float32."""
        name, size, bytes_ = TYPES[self.type]
        blocks = self.data.reshape(-1, bytes_)
        if size == 1:
            values = blocks.view(np.float32 if name == "F32" else np.float16)
        else:  # in blocks of 32: a scale, in Q4_1 also an offset, then the numbers
            scale = blocks[:, :2].view(np.float16).astype(np.float32)
            if name == "Q8_0":
                values = scale * blocks[:, 2:].view(np.int8)
            else:
                pairs = blocks[:, -16:]
                values = np.concatenate([pairs & 15, pairs >> 4], axis=1).astype(np.float32)
                if name == "Q4_0":
                    values = scale * (values - 8)
                else:
                    values = scale * values + blocks[:, 2:4].view(np.float16).astype(np.float32)
        values = torch.from_numpy(values.astype(np.float32).reshape(self.shape))
        if self.heads:  # GGUF has a head's rows as pairs (0, d/2, 1, d/2 + 1, ...), Llama's files as (0, 1, ..., d - 1)
            values = values.unflatten(0, (self.heads, -1, 2)).transpose(1, 2).flatten(0, 2)
        return values.to(device=device, dtype=dtype or torch.float32).contiguous()


def read_gguf(path):
    """({key: value}, {name: GgufTensor}) of a GGUF file. Raises CheckpointError that names it."""
    file = Reader(path)
    if file.take(4) != b"GGUF":
        file.fail("does not begin with GGUF")
    (version,), (tensors, keys) = file.numbers("I"), file.numbers("Q", 2)
    if version not in (2, 3):
        file.fail(f"of version {version}, only 2 and 3 can be read")
    values, placed = {}, {}
    for _ in range(keys):
        key = file.text()
        values[key] = file.value(*file.numbers("I"))
    for _ in range(tensors):
        name, (count,) = file.text(), file.numbers("I")
        if name in placed or not 1 <= count <= 4:
            file.fail(f"the tensor {name[:60]!r} is listed twice or has {count} dimensions")
        placed[name] = file.numbers("Q", count)[::-1], *file.numbers("I"), *file.numbers("Q")
    align = values.get("general.alignment", 32)
    if not isinstance(align, int) or align < 1:
        file.fail(f"general.alignment is {align!r}")
    start, heads = -(-file.at // align) * align, _heads(values)
    found = {}
    for name, (shape, kind, offset) in placed.items():
        if kind not in TYPES:
            found[name] = GgufTensor(None, shape, OTHER_TYPES.get(kind, f"GGUF's type {kind}"), kind)
            continue
        _, size, bytes_ = TYPES[kind]
        count = math.prod(shape) // size * bytes_
        if shape[-1] % size or start + offset + count > len(file.data):
            file.fail(f"the tensor {name[:60]!r} of shape {shape} does not fit into the file")
        data = file.data[start + offset : start + offset + count]
        found[name] = GgufTensor(data, shape, "F32", kind, heads.get(name.partition(".attn_")[2], 0))
    return values, found


def _heads(values):
    """The heads of those matrices whose rows are in GGUF's order: llama's queries and keys."""
    if values.get("general.architecture") != "llama":
        return {}
    count = values.get("llama.attention.head_count")
    return {"q.weight": count, "k.weight": values.get("llama.attention.head_count_kv", count)}


def gguf_name(ours):
    """A language model tensor's name in GGUF."""
    name, _, part = ours.rpartition(".")
    if not name.startswith("layers."):
        return f"{NAMES[name]}.{part}"
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{BLOCK_NAMES[rest]}.{part}"


def gguf_config(values, tensors) -> LanguageConfig:
    """The sizes of the model. Raises CheckpointError, without the file's name, for a setting that is not supported."""
    kind = values.get("general.architecture")
    if kind not in ("llama", "qwen2"):
        raise CheckpointError(f"general.architecture {kind!r}: only llama and qwen2 can be read")
    stated = {key.removeprefix(f"{kind}."): v for key, v in values.items() if key.startswith(f"{kind}.")}
    absent = [key for key in REQUIRED if key not in stated]
    if absent or "token_embd.weight" not in tensors:
        raise CheckpointError(f"does not say {', '.join(absent) or 'token_embd.weight'}")
    if stated.get("rope.scaling.type") == "none":
        del stated["rope.scaling.type"]
    if unknown := stated.keys() - SIZES.keys() - {*IMPLIED}:
        raise CheckpointError(f"{kind}.{min(unknown)} {str(stated[min(unknown)])[:60]!r} is not supported")
    written = {"model_type": kind, "vocab_size": tensors["token_embd.weight"].shape[0]}
    written |= {theirs: stated[key] for key, theirs in SIZES.items() if key in stated}
    config = language_config(written | {"tie_word_embeddings": "output.weight" not in tensors})
    implied = dict(zip(IMPLIED, (config.vocab_size, config.head_dim, config.head_dim)))
    if config.head_dim % 2:
        raise CheckpointError(f"heads of size {config.head_dim} cannot be rotated in pairs")
    if wrong := [key for key in IMPLIED if stated.get(key, implied[key]) != implied[key]]:
        raise CheckpointError(f"{kind}.{wrong[0]} {stated[wrong[0]]!r} is not supported, only {implied[wrong[0]]}")
    return config


def gguf_tokenizer(values):
    """The tokenizer. Raises CheckpointError, without the file's name, for a kind that is not supported."""

    def said(key, default=None):
        return values.get(f"tokenizer.ggml.{key}", default)

    pre = said("pre", "default")
    if said("model") != "gpt2":
        raise CheckpointError(f"tokenizer.ggml.model {said('model')!r}: only gpt2 (byte-level BPE) can be read")
    if pre not in SPLITS:
        raise CheckpointError(f"tokenizer.ggml.pre {pre!r}: only {', '.join(SPLITS)} can be read")
    tokens, split, pieces = said("tokens"), SPLITS[pre], [tuple(pair.split(" ")) for pair in said("merges")]
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        raise CheckpointError("tokenizer.ggml.tokens names a token twice")
    tokenizer = Tokenizer(models.BPE(ids, pieces, ignore_merges=pre == "llama-bpe"))
    steps = [pre_tokenizers.Split(Regex(split), behavior="isolated")] if split else []
    steps += [pre_tokenizers.Digits(individual_digits=True)] if pre == "smollm" else []
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(steps), decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    for kind, add in ((CONTROL, tokenizer.add_special_tokens), (USER_DEFINED, tokenizer.add_tokens)):
        kinds = zip(tokens, said("token_type", ()))
        add([AddedToken(token, normalized=False, special=kind == CONTROL) for token, k in kinds if k == kind])
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    stated = {ours: said(f"{theirs}_token_id") for ours, theirs in names.items()}
    special = {f"{ours}_token": tokens[i] for ours, i in stated.items() if i is not None}
    if said("add_bos_token", pre == "llama-bpe"):
        begin = special["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(f"{begin} $A", None, [(begin, ids[begin])])
    if not isinstance(chat := values.get("tokenizer.chat_template"), str | None):
        raise CheckpointError("tokenizer.chat_template is not a text")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat, **special)


def import_gguf(path, folder):
    """Write a GGUF file's language model and tokenizer as a folder; returns the model and what the file says.

    Raises CheckpointError that names the file.
    """
    values, tensors = read_gguf(path)
    try:
        config, tokenizer = gguf_config(values, tensors), gguf_tokenizer(values)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # nonsense raises errors of many kinds, in `tokenizers` even a bare Exception
        raise CheckpointError(f"{path}: its metadata make no sense ({type(error).__name__}: {error})") from error
    if len(tokenizer) != config.vocab_size:
        raise CheckpointError(f"{path}: {len(tokenizer)} tokens, but embeddings for {config.vocab_size}")
    known = tokenizer.get_vocab()
    ends = [tokenizer.eos_token_id, *(known.get(name) for name in ENDS)]
    ends = tuple(dict.fromkeys(end for end in ends if end is not None))
    model = load_strictly(LanguageModel, replace(config, ends=ends), tensors, path, gguf_name)

    def also(temporary):
        tokenizer.save_pretrained(temporary)
        tokens = dict(eos_token_id=list(ends) or None, pad_token_id=tokenizer.pad_token_id)
        GenerationConfig(**tokens).save_pretrained(temporary)

    written = {language_name(ours): tensor for ours, tensor in model.state_dict().items()}
    write_checkpoint(Path(folder), {"config.json": language_published(model.config)}, written, also=also)
    return model, values

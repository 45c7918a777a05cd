"""A folder with only a tokenizer.model, as Vicuna's are published: read as SentencePiece reads it, or refused with advice."""

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_in import sentencepiece_model

from minillava.data.tokenizer import TokenizerError, load_tokenizer
from minillava.model.generate import Stop

CONFIG = '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}'


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory):
    """(the tokenizer of a folder like Vicuna's, SentencePiece's own reading of its tokenizer.model)."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    folder = tmp_path_factory.mktemp("vicuna")
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    (folder / "tokenizer_config.json").write_text(CONFIG)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return load_tokenizer(folder), sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())


@pytest.mark.parametrize("package", ["sentencepiece", "google.protobuf"])
def test_without_a_package_the_message_names_it_the_extra_and_the_folder(tmp_path, monkeypatch, package):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TokenizerError) as error:
        load_tokenizer(tmp_path)
    for said in (str(tmp_path), "tokenizer.model", "minillava[real]", "pip install sentencepiece protobuf"):
        assert said in str(error.value)
    assert "tiktoken" not in str(error.value) and "fetch" not in str(error.value)


def test_make_conda_and_colab_install_the_extra():
    for name in ("Makefile", "environment.yml", "minillava/course/colab.py"):
        text = (Path(__file__).parents[1] / name).read_text()
        assert re.search(r"(\.|\{home\})\[[\w,]*\breal\b[\w,]*\]", text), name


@pytest.mark.parametrize("kind", ["llava", "llava_llama", "mistral", "llama"])
def test_whatever_model_has_the_tokenizer_its_ids_are_sentencepieces(vicuna, tmp_path, kind):
    ours, theirs = vicuna
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    for text in ("a red car", "\nWhat", "USER: is it"):
        assert load_tokenizer(tmp_path).encode(text, add_special_tokens=False) == theirs.encode(text)


def test_it_has_vicunas_special_tokens_and_keeps_them_when_saved(vicuna, tmp_path):
    ours, theirs = vicuna
    assert (ours.unk_token_id, ours.bos_token_id, ours.eos_token_id) == (0, 1, 2) and len(ours) == len(theirs)
    ours.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()  # so that a trained model needs neither package
    for text in ("it is red</s>", "  a\n\ncar é", "漢字🦙"):
        assert load_tokenizer(tmp_path).encode(text) == ours.encode(text)


# Words, blanks, lines, bytes that are no words; no "<s>", which is a special token to one of the two.
TEXTS = st.text(st.sampled_from("ab red car it\n\t.é漢🦙#/0_"), max_size=20)


@given(TEXTS.filter(lambda text: text != " "))
def test_ids_are_sentencepieces_and_text_comes_back(vicuna, text):
    ours, theirs = vicuna
    ids = ours.encode(text, add_special_tokens=False)
    # transformers gives "red" and " red" the same ids; SentencePiece gives the second a blank of its own.
    assert ids == theirs.encode(text.removeprefix(" "))
    assert ours.decode(ids) == text.removeprefix(" ")


@given(st.lists(st.integers(0, 330) | st.integers(3, 258), max_size=12))  # all tokens, rows without one, single bytes
def test_text_that_a_stream_has_shown_is_never_rewritten(vicuna, answer):
    ours, _ = vicuna
    ends, shown = Stop([], ours), ""
    for upto in range(1, len(answer) + 1):
        text = ends.settled(answer[:upto])
        assert text[: len(shown)] == shown or len(text) < len(shown)
        shown = max(shown, text, key=len)
    assert ends.text_before(answer).startswith(shown)

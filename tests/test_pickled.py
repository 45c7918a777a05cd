"""Weights in torch's pickle files: read as the same weights in safetensors are, at the same memory; nothing in them runs."""

import collections
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from minillava.model import (
    CheckpointError,
    LanguageConfig,
    LanguageModel,
    VisionConfig,
    VisionTower,
    load_language,
    load_vision,
    save_language,
    save_vision,
)
from minillava.model.formats.files import open_tensors
from minillava.model.formats.pickled import PickledFiles, load_pickle

LANGUAGE = dict(vocab_size=31, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=4, num_kv_heads=2)
VISION = VisionConfig(image_size=16, patch_size=8, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2)


def pickle_folder(folder, shards=0, also=None):
    """Store the weights of a folder as torch did before safetensors: one file, or with `shards` so many and an index."""
    whole = folder / "model.safetensors"
    tensors = load_file(whole) | (also or {})
    whole.unlink()
    if not shards:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    where = {}
    for n in range(shards):
        name = f"pytorch_model-{n + 1:05}-of-{shards:05}.bin"
        part = dict(list(tensors.items())[n * len(tensors) // shards : (n + 1) * len(tensors) // shards])
        torch.save(collections.OrderedDict(part), folder / name)
        where |= dict.fromkeys(part, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def language(folder, **changes):
    """A language model and the folder that holds it."""
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(**LANGUAGE | changes))
    save_language(model, folder)
    return model


def same(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


FREQUENCIES = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(2) for n in range(2)}


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_a_language_model_of_vicunas_age_loads_without_its_derived_tensors(tmp_path, shards):
    model = language(tmp_path)
    pickle_folder(tmp_path, shards, FREQUENCIES)
    loaded = load_language(tmp_path)
    assert same(loaded, model) and not any(p._is_view() for p in loaded.parameters())
    assert load_language(tmp_path, dtype=torch.bfloat16).norm.weight.dtype == torch.bfloat16


def test_a_whole_clip_in_one_pickle_gives_its_vision_tower(tmp_path):
    tower = VisionTower(VISION)
    save_vision(tower, tmp_path)
    also = {"vision_model.embeddings.position_ids": torch.arange(5)[None], "logit_scale": torch.tensor(1.0)}
    pickle_folder(tmp_path, also=also | {"text_model.embeddings.position_ids": torch.arange(9)[None]})
    assert same(load_vision(tmp_path), tower)


def test_safetensors_come_first_where_a_folder_has_both(tmp_path):
    model = language(tmp_path)
    torch.save({"lm_head.weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert same(load_language(tmp_path), model)


def test_parameters_views_and_transposed_tensors_are_read_as_they_are(tmp_path):
    table = torch.arange(12.0)
    kinds = {
        "parameter": torch.nn.Parameter(table),
        "view": table[3:7],
        "turned": table.view(3, 4).T,
        "half": table.half(),
    }
    torch.save(kinds | {"expanded": torch.ones(1, 3).expand(2, 3), "none": torch.empty(0, 3)}, tmp_path / "a.bin")
    for name, tensor in PickledFiles().tensors(tmp_path / "a.bin").items():
        read, given_tensor = tensor.read(), torch.load(tmp_path / "a.bin")[name]
        assert torch.equal(read, given_tensor) and read.shape == tensor.shape and read.is_contiguous()
        assert read.dtype == given_tensor.dtype and not read.requires_grad and read.untyped_storage().nbytes() <= 48


# what is refused


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize(
    "stored, message",
    [
        ({"a": Evil()}, "not only tensors, which could run code; not loaded"),
        (Evil(), "could run code"),
        ({"model": {"a": torch.zeros(1)}, "epoch": 3}, "not a file of named tensors: model, epoch"),
        ([torch.zeros(1)], "not a file of named tensors but a list"),
        (torch.zeros(1), "but a Tensor"),
        ({5: torch.zeros(1)}, "named tensors: 5"),
    ],
)
def test_a_pickle_of_anything_but_named_tensors_is_refused_and_runs_nothing(tmp_path, monkeypatch, stored, message):
    monkeypatch.chdir(tmp_path)
    torch.save(stored, "a.bin")
    with pytest.raises(CheckpointError, match=f"a.bin: .*{message}"):
        PickledFiles().tensors("a.bin")
    torch.save(stored, "a.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="a.bin: incomplete, or not written by torch 1.6 or later.*torch.save"):
        PickledFiles().tensors("a.bin")
    assert not Path("evil").exists()


def test_a_file_of_the_older_format_loads_once_rewritten_as_the_message_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2)}, "FILE", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError) as error:
        load_pickle("FILE")
    exec(str(error.value).partition("with ")[2].replace("FILE", "'FILE'"))
    assert load_pickle("FILE")["a"].tolist() == [1, 1]


def test_tensors_that_are_not_plain_numbers_are_listed_with_the_kind_they_are(tmp_path):
    language(tmp_path)
    odd = {"sparse": torch.eye(3).to_sparse(), "meta": torch.empty(2, device="meta"), "int": torch.zeros(1).int()}
    pickle_folder(tmp_path, also=odd)
    with pytest.raises(CheckpointError) as error:
        load_language(tmp_path)
    for said in ("sparse is sparse_coo", "meta is strided on meta", "int is int32"):
        assert said in str(error.value)


def test_a_compressed_archive_is_refused_because_torch_would_read_its_bytes_as_numbers(tmp_path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "a.bin")
    with (
        zipfile.ZipFile(tmp_path / "a.bin") as old,
        zipfile.ZipFile(tmp_path / "b.bin", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="b.bin: a compressed archive"):
        PickledFiles().tensors(tmp_path / "b.bin")


def test_shards_that_are_missing_cut_off_or_do_not_fit_their_index_are_named(tmp_path):
    language(tmp_path)
    pickle_folder(tmp_path, 3)
    one, two, three = sorted(tmp_path.glob("*.bin"))
    tensors = torch.load(one)
    first = next(iter(tensors))
    torch.save({name: t for name, t in tensors.items() if name != first}, one)
    with pytest.raises(CheckpointError, match=f"{one.name}: differs from pytorch_model.bin.index.json in {first}"):
        load_language(tmp_path)
    torch.save(tensors, one)
    load_language(tmp_path)
    three.write_bytes(three.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match=f"{three.name}: incomplete"):
        load_language(tmp_path)
    three.unlink()
    with pytest.raises(CheckpointError, match=f"{three.name}: cannot be read .*No such file"):
        load_language(tmp_path)
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../b.bin"}}')
    with pytest.raises(CheckpointError, match="pytorch_model.bin.index.json: .*in the folder of its index"):
        load_language(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "pytorch_model.bin"
    torch.save(collections.OrderedDict(a=torch.ones(3), b=torch.zeros(2, 2).half()), path)
    return path, path.read_bytes()


@given(st.data())
def test_a_damaged_file_is_named_or_still_holds_named_tensors(small, data):
    path, whole = small
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=3)):
        if damaged:
            damaged[at] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        for tensor in PickledFiles().tensors(path).values():
            if tensor.kind in ("F16", "F32"):
                assert tensor.read().shape == tensor.shape
    except CheckpointError as error:
        assert str(path) in str(error)


# memory

MEASURE = """
import re, sys, torch
from minillava.model import load_language
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
load_language(sys.argv[1] + "/little")  # what reading needs of modules
before = peak()
model = load_language(sys.argv[1] + "/big", dtype=torch.float32)
print(peak() - before)
"""


def measured(folder):
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True
    ).stdout
    return int(out) / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory a process had at most")
def test_reading_pickles_takes_no_more_memory_than_reading_safetensors(tmp_path):
    language(tmp_path / "little")
    big = LanguageModel(LanguageConfig(4000, 512, 1536, 14, 4))
    save_language(big, tmp_path / "big", dtype=torch.float16)
    size = sum(p.numel() for p in big.parameters()) * 4 / 1e6  # MB in memory; half of that in the file
    assert size > 180
    safe = measured(tmp_path)
    for name in ("little", "big"):
        pickle_folder(tmp_path / name)
    pickled = measured(tmp_path)
    assert size < safe < size + 24 and pickled < safe + 24, (
        f"{pickled:.0f} MB, safetensors {safe:.0f}, model {size:.0f}"
    )
    assert len(open_tensors(tmp_path / "big")) == len(big.state_dict())

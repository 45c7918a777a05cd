"""The files that say how pictures are prepared: read as `transformers` reads them, or refused by name."""

import json

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minillava.data.images import Preparation, pixels
from minillava.model import CheckpointError
from minillava.model.formats.preparation import read_preparation, write_preparation

CLIP = {"image_processor_type": "CLIPImageProcessor"}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PICTURES = [
    Image.fromarray(np.random.default_rng(n).integers(0, 256, (h, w, 3), dtype=np.uint8))
    for n, (w, h) in enumerate([(64, 43), (30, 61), (24, 24), (224, 224)])
]


def written(folder, old=None, new=None):
    folder.mkdir(exist_ok=True)
    for name, value in (("preprocessor_config.json", old), ("processor_config.json", new)):
        (folder / name).unlink(missing_ok=True)
        if value is not None:
            (folder / name).write_text(json.dumps(value))
    return folder


def their_processor(folder):
    padded = "LlavaImageProcessor" in "".join(path.read_text() for path in folder.glob("*processor*.json"))
    kind = transformers.LlavaImageProcessorPil if padded else transformers.CLIPImageProcessor
    return kind.from_pretrained(folder)


def theirs(folder):
    """What transformers makes of the pictures with the settings in a folder."""
    processor = their_processor(folder)
    return torch.cat([torch.as_tensor(processor(p, return_tensors="pt").pixel_values).float() for p in PICTURES])


def same(folder, size):
    ours = torch.cat([pixels([picture], read_preparation(folder, size)) for picture in PICTURES])
    torch.testing.assert_close(ours, theirs(folder), atol=1e-4, rtol=1e-5)


SMALL = CLIP | {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
HONOURED = {
    "numbers": {"size": 24, "crop_size": 24},
    "the crop within": {"size": {"shortest_edge": 32}},
    "stretched": {"size": {"height": 24, "width": 24}},
    "stretched, no crop": {"size": {"height": 24, "width": 24}, "do_center_crop": False},
    "stretched, the crop within": {"size": [30, 30], "crop_size": [24, 24]},
    "a number for both sides": {"size": 24, "default_to_square": True, "do_center_crop": False},
    "not normalised": {"do_normalize": False},
    "not rescaled": {"do_rescale": False},
    "padded": {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "image_mean": [0.1, 0.5, 0.9]},
    "neither": {"do_rescale": False, "do_normalize": False},
    "to -1 and 1": {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
    "other colours": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    "null for no": {"do_pad": None, "default_to_square": None, "use_square_size": None, "do_convert_rgb": None},
    "no RGB asked for": {"do_convert_rgb": False},
    "an older name": {"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor"},
    "unknown names": {"_valid_processor_keys": ["images"], "processor_class": "CLIPProcessor", "crop_pct": 0.9},
} | {f"resample {n}": {"resample": n} for n in range(6)}


@pytest.mark.parametrize("name", HONOURED)
def test_a_setting_that_is_honoured_gives_transformers_pixels(tmp_path, name):
    changed = SMALL | HONOURED[name]
    same(written(tmp_path, changed), 24)
    same(written(tmp_path, None, {"processor_class": "CLIPProcessor", "image_processor": changed}), 24)


def test_what_a_file_leaves_out_is_clips_default(tmp_path):
    assert read_preparation(written(tmp_path, {}), 224) == Preparation(224, MEAN, STD)
    same(tmp_path, 224)


REFUSED = {
    "do_resize false": {"do_resize": False},
    "do_pad true": {"do_pad": True},
    "use_square_size true": {"use_square_size": True},
    "do_center_crop false: .* oblong": {"do_center_crop": False},
    "do_center_crop 'yes'": {"do_center_crop": "yes"},
    "do_resize None": {"do_resize": None},
    "size null": {"size": None},
    "rescale_factor null": {"rescale_factor": None},
    "image_mean null": {"image_mean": None},
    "image_mean .*NaN": {"image_mean": [0.5, 0.5, float("nan")]},
    "image_std .*1": {"image_std": ["1", "1", "1"]},
    "image_processor_type 'ViTFeatureExtractor'": {
        "image_processor_type": None,
        "feature_extractor_type": "ViTFeatureExtractor",
    },
    "size .*shortest_edge.*longest_edge": {"size": {"shortest_edge": 24, "longest_edge": 48}},
    "size .*longest_edge": {"size": {"longest_edge": 24}},
    "size .*: 24, .*: 30": {"size": {"height": 24, "width": 30}},
    "size true": {"size": True},
    "size 0|size .*0": {"size": 0},
    "size 24.5": {"size": 24.5},
    "crop_size .*shortest_edge": {"crop_size": {"shortest_edge": 24}},
    "crop_size .*: 24, .*: 30": {"crop_size": {"height": 24, "width": 30}},
    "crop_size 25 is more than size 24": {"crop_size": 25},
    "30 x 30 pixels, but the vision tower takes 24 x 24": {"size": 30, "crop_size": 30},
    "resample 6": {"resample": 6},
    "resample 'bicubic'": {"resample": "bicubic"},
    "rescale_factor 0": {"rescale_factor": 0},
    "rescale_factor .x": {"rescale_factor": "x"},
    "image_mean .0.5, 0.5.": {"image_mean": [0.5, 0.5]},
    "image_std .0, 1, 1. must be 3 number": {"image_std": [0, 1, 1]},
    "image_processor_type 'SiglipImageProcessor'": {"image_processor_type": "SiglipImageProcessor"},
    "image_processor_type 'LlavaNextImageProcessor'": {"image_processor_type": "LlavaNextImageProcessor"},
}


@pytest.mark.parametrize("new", [False, True], ids=["preprocessor_config.json", "processor_config.json"])
@pytest.mark.parametrize("message", REFUSED)
def test_a_setting_that_is_not_honoured_is_refused_by_name_and_file(tmp_path, message, new):
    changed = SMALL | REFUSED[message]
    written(tmp_path, *((None, {"image_processor": changed}) if new else (changed, None)))
    file = "processor_config.json" if new else "preprocessor_config.json"
    with pytest.raises(CheckpointError, match=f"{tmp_path / file}: .*({message})"):
        read_preparation(tmp_path, 24)


@pytest.mark.parametrize("old", [None, SMALL | {"image_mean": [0.9] * 3}], ids=["alone", "beside the older file"])
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "not nested"])
def test_of_two_files_the_one_is_read_that_transformers_reads(tmp_path, old, nested):
    new = {"processor_class": "LlavaProcessor"} | (
        {"image_processor": SMALL | {"image_std": [0.7] * 3}} if nested else {}
    )
    written(tmp_path, old, new)
    if nested or old:
        same(tmp_path, 24)
        assert read_preparation(tmp_path, 24).std == ((0.7,) * 3 if nested else STD)
    else:
        with pytest.raises(CheckpointError, match="preprocessor_config.json: .*No such file"):
            read_preparation(tmp_path, 24)


@pytest.mark.parametrize(
    "text", ["[]", "5", "null", '"image_processor"', '{"image_processor": 5}', '{"image_processor": [1]}', "{"]
)
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_a_file_that_holds_something_else_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        read_preparation(tmp_path, 24)


def test_a_folder_that_transformers_saved_is_read(tmp_path):
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=_no_words())
    images = transformers.CLIPImageProcessor(size=24, crop_size=24, image_mean=[0.1, 0.2, 0.3])
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    assert read_preparation(tmp_path, 24) == Preparation(24, (0.1, 0.2, 0.3), STD)
    same(tmp_path, 24)


def _no_words():
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"a": 0}, "a"))


def mostly(usual, *others):
    return st.one_of(*[st.just(usual)] * 8, *map(st.just, others))


side = st.one_of(st.just(24), st.just(24), st.integers(1, 40))
square = st.one_of(side, side.map(lambda n: {"height": n, "width": n}))
sides = st.one_of(
    *[square] * 6, st.none(), st.fixed_dictionaries({"height": side, "width": side}), st.lists(side, min_size=2, max_size=2)
)  # fmt: skip
edges = st.one_of(*[st.fixed_dictionaries({"shortest_edge": side}), sides] * 4,
                  st.fixed_dictionaries({"shortest_edge": side, "longest_edge": side}))  # fmt: skip
numbers, flag = st.lists(st.floats(0.05, 2), min_size=3, max_size=3), st.booleans()
MANY = {
    "do_resize": mostly(True, False, None),
    "do_pad": mostly(False, True, None),
    "do_center_crop": mostly(True, False),
}
MANY |= {
    "do_normalize": flag,
    "do_rescale": flag,
    "do_convert_rgb": mostly(True, False, None),
    "default_to_square": flag,
}
MANY |= {
    "image_mean": numbers,
    "image_std": numbers,
    "rescale_factor": st.floats(1e-3, 2),
    "resample": st.integers(0, 5),
}


@settings(max_examples=150)
@given(st.fixed_dictionaries({"size": edges, "crop_size": sides}, optional=MANY))
def test_any_settings_are_read_as_transformers_reads_them_or_refused(tmp_path_factory, stated):
    folder = written(tmp_path_factory.getbasetemp() / "settings", CLIP | stated)
    for size in (24, 224):
        try:
            read_preparation(folder, size)
        except CheckpointError:
            continue
        same(folder, size)


@pytest.mark.parametrize(
    "how",
    [
        Preparation(24, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        Preparation(24, (0.0,) * 3, (1.0,) * 3, edge=30, resample=2, rescale=1 / 3),
        Preparation(24, (0.5,) * 3, (0.5,) * 3, stretched=True, rescale=1.0),
        Preparation(24, (0.5,) * 3, (0.5,) * 3, edge=32, stretched=True),
        Preparation(24, (0.1, 0.5, 0.9), (0.5,) * 3, padded=True),
    ],
    ids=str,
)
def test_what_is_written_is_read_by_all_alike(tmp_path, how):
    write_preparation(how, tmp_path)
    assert read_preparation(tmp_path, 24) == how
    same(tmp_path, 24)
    images = their_processor(tmp_path)
    (tmp_path / "again").mkdir()
    images.save_pretrained(tmp_path / "again")
    assert read_preparation(tmp_path / "again", 24) == how

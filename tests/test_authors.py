"""The authors' own checkpoints load with the logits of `transformers`; settings that mean another model are refused."""

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_import import TEXT, cache, compare, in_cache, llava, reference
from test_templates import tokenizer_of
from transformers import CLIPImageProcessorPil, SiglipVisionConfig

from minillava.chat import Chat
from minillava.model import CheckpointError, load_llava, save_vision
from minillava.model.formats.authors import SUPPORTED
from minillava.model.formats.chat_template import TemplateError
from minillava.model.formats.published import language_published
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw

assert cache  # a fixture

# As liuhaotian/llava-v1.5-7b has them, but the sizes; {} is what an absent key leaves.
AUTHORS = dict(
    architectures=["LlavaLlamaForCausalLM"], model_type="llava", mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-2,
    mm_vision_select_feature="patch", mm_use_im_start_end=False, mm_use_im_patch_token=False, mm_hidden_size=16,
    image_aspect_ratio="pad", use_mm_proj=True, freeze_mm_mlp_adapter=False, tune_mm_mlp_adapter=False, use_cache=True,
    hidden_act="silu", pretraining_tp=1, rms_norm_eps=1e-6, rope_scaling=None, tie_word_embeddings=False,
    bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=2048,
)  # fmt: skip


def as_the_authors_write(tensors, tower, projector="model.mm_projector."):
    """The tensors of a saved LlavaForConditionalGeneration under the authors' names; the vision tower only if asked."""
    out = {}
    for name, tensor in tensors.items():
        if name.startswith("vision_tower."):
            if not tower:
                continue
            name = "model.vision_tower.vision_tower.vision_model." + name.removeprefix("vision_tower.")
        name = name.removeprefix("language_model.")
        for layer, number in (("linear_1", "0"), ("linear_2", "2")):
            name = name.replace(f"multi_modal_projector.{layer}.", f"{projector}{number}.")
        out[name] = tensor
    return out


@pytest.fixture
def folders(tmp_path):
    """`folders(...)`: the authors' checkpoint with its tower beside it, and the same in `transformers`."""

    def make(tower=False, projector="model.mm_projector.", **changes):
        theirs = reference()
        theirs.save_pretrained(tmp_path / "theirs")
        theirs.model.vision_tower.save_pretrained(tmp_path / "tower")
        made = tmp_path / "llava"
        made.mkdir()
        tensors = as_the_authors_write(load_file(tmp_path / "theirs" / "model.safetensors"), tower, projector)
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(3)  # as files of that age have it
        save_file(tensors, made / "model.safetensors")
        config = AUTHORS | TEXT | {"mm_vision_tower": str(tmp_path / "tower")} | changes
        (made / "config.json").write_text(json.dumps(config))
        return made, theirs

    return make


@pytest.mark.parametrize("kind", ["llava", "llava_llama"])
@pytest.mark.parametrize("projector", ["model.mm_projector.", "mm_projector."])
@pytest.mark.parametrize("tower", [False, True], ids=["tower beside it", "tower in it"])
def test_the_authors_checkpoint_gives_the_logits_of_transformers(folders, tmp_path, tower, projector, kind):
    made, theirs = folders(tower, projector, model_type=kind)
    if tower:  # the one in the files counts: it may be trained
        whole = load_file(tmp_path / "tower" / "model.safetensors")
        save_file({name: tensor + 1 for name, tensor in whole.items()}, tmp_path / "tower" / "model.safetensors")
    ours, about = load_llava(made)
    assert about == {} and ours.config.projector == "mlp2x_gelu" and ours.config.language.ends == (2,)
    assert ours.vision_tower.origin == "tower"
    compare(ours, theirs)


def test_an_absent_projector_type_is_the_papers_w_and_the_tower_may_be_on_the_hub(tmp_path, cache):
    made = llava()
    save_vision(made.vision_tower, tmp_path / "tower")  # with vision_model. before every name, as a CLIPModel
    in_cache(cache, "openai/some-clip", tmp_path / "tower")
    names = {"language_model.lm_head.": "lm_head.", "language_model.": "model.", "projector.": "model.mm_projector."}
    tensors = {}
    for name, tensor in made.state_dict().items():
        old = next((old for old in names if name.startswith(old)), None)
        if old:
            tensors[names[old] + name.removeprefix(old)] = tensor
    folder = tmp_path / "llava"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    absent = ("mm_projector_type", "mm_vision_select_layer", "mm_vision_select_feature", "image_aspect_ratio")
    config = AUTHORS | language_published(made.config.language) | {"model_type": "llava"}
    config = {key: value for key, value in config.items() if key not in absent}
    (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": "openai/some-clip"}))
    again, _ = load_llava(folder)
    assert again.config.projector == "linear" and again.config.select_layer == -2
    assert again.vision_tower.origin == "openai/some-clip"
    assert again.state_dict().keys() == made.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in made.state_dict().items())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True: only False"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature 'cls_patch': only 'patch'"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type 'mlp3x_gelu': only 'linear' and 'mlp2x_gelu'"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio 'anyres': only 'square' and 'pad'"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type 'spatial_unpad'"),
        ({"mm_resampler_type": "perceiver"}, "mm_resampler_type 'perceiver'"),
        ({"mm_vision_select_layer": [-2, -5]}, "mm_vision_select_layer .*only one layer"),
        ({"mm_vision_tower": None}, "mm_vision_tower is missing"),
        ({"mm_vision_tower": "nobody/nothing"}, "nobody/nothing: no such folder"),
        ({"model_type": "llava_mpt"}, "model_type 'llava_mpt'"),
        ({"model_type": "llava_mistral"}, "model_type 'llava_mistral'"),
    ],
)
def test_settings_that_mean_another_model_are_refused_before_weights_are_read(folders, change, message):
    made, _ = folders(**change)
    (made / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(CheckpointError, match=f"config.json: .*{message}"):
        load_llava(made)


def test_a_siglip_tower_is_refused_by_name_and_missing_tensors_are_listed(folders, tmp_path):
    made, _ = folders()
    (tmp_path / "siglip").mkdir()
    SiglipVisionConfig().save_pretrained(tmp_path / "siglip")
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"mm_vision_tower": str(tmp_path / "siglip")}))
    with pytest.raises(CheckpointError, match="siglip.config.json: model_type 'siglip_vision_model': only CLIP's"):
        load_llava(made)
    (made / "config.json").write_text(json.dumps(config))
    tensors = load_file(made / "model.safetensors")
    del tensors["model.mm_projector.2.bias"]
    save_file(tensors | {"model.image_newline": torch.zeros(24)}, made / "model.safetensors")
    with pytest.raises(
        CheckpointError, match="(?s)missing: model.mm_projector.2.bias.*unexpected: model.image_newline"
    ):
        load_llava(made)


@pytest.mark.parametrize("kind", ["llava", "llava_llama"])
def test_one_can_talk_with_the_authors_checkpoint_once_its_template_is_named(folders, tmp_path, kind):
    words = tokenizer_of(tmp_path / "words", "space before each text", image=False)
    made, _ = folders(model_type=kind, vocab_size=len(words))
    tensors = load_file(made / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.randn(len(words), 24)
    save_file(tensors, made / "model.safetensors")
    shutil.copytree(tmp_path / "words", made, dirs_exist_ok=True)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16).save_pretrained(tmp_path / "tower")
    with pytest.raises(TemplateError, match="llava: the weights have no chat template; choose one of .*vicuna_v1"):
        Chat(made)
    chat = Chat(made, "vicuna_v1")
    assert chat.preparation.size == 16 and chat.preparation.padded  # as the tower's folder and config.json say
    chat.look(draw(compose("dev", 0), 96))
    assert isinstance(chat.ask("What is this?", max_new_tokens=4), str)


JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5), lambda j: st.lists(j, max_size=2) | st.dictionaries(st.text(max_size=3), j, max_size=2))  # fmt: skip


@given(st.dictionaries(st.sampled_from([*SUPPORTED, "mm_vision_select_layer", "model_type", "text_config", "vision_config", "eos_token_id", "hidden_size"]), JSON))  # fmt: skip
def test_whatever_a_config_says_a_folder_is_loaded_or_refused_with_its_name(tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    config = AUTHORS | TEXT | {"mm_vision_tower": "nobody/nothing"} | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="any"):  # without a tower there is nothing to load
        load_llava(folder)

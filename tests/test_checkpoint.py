"""Published formats in and out with equal logits; loading is strict; saving is whole or not at all."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from minillava.data import IMAGE
from minillava.model import (
    CheckpointError,
    LanguageConfig,
    LanguageModel,
    Llava,
    LlavaConfig,
    Rope,
    VisionConfig,
    VisionTower,
    load_language,
    load_llava,
    load_vision,
    save_language,
    save_llava,
    save_vision,
)
from minillava.model.formats.published import language_config, vision_config

torch.set_num_threads(1)

VISION = VisionConfig(image_size=16, patch_size=8, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2)
TINY_CLIP = dict(
    image_size=16, patch_size=8, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
)
LANGUAGE = dict(vocab_size=31, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=4, num_kv_heads=2)
PUBLISHED = dict(vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4)
ABOUT = {"template": "vicuna_v0", "trained on": "nothing", "steps": 3}


def randomised(model):
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape)
    return model.eval()


def same(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def llava(**changes):
    return randomised(Llava(LlavaConfig(VISION, LanguageConfig(**LANGUAGE), **changes)))


def rewrite(folder, change):
    """Change the tensors (a dict) of a saved folder in place."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def rewrite_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# published formats


LANGUAGE_OPTIONS = {"grouped untied": {}, "tied": {"tie_embeddings": True}, "ungrouped": {"num_kv_heads": 4}}
LANGUAGE_OPTIONS |= {"biases": {"attention_bias": True}, "theta and head size": {"rope_theta": 77.0, "head_dim": 6}}
LANGUAGE_OPTIONS |= {"linear": {"rope": Rope("linear", 2.0, 2048)}, "llama3": {"rope": Rope("llama3", 2.0, 4)}}
LANGUAGE_OPTIONS |= {"dynamic": {"rope": Rope("dynamic", 2.0, 8), "max_position": 16}}
LANGUAGE_OPTIONS |= {"yarn": {"rope": Rope("yarn", 2.0, 4, attention_factor=1.1)}}


@pytest.mark.parametrize("options", LANGUAGE_OPTIONS.values(), ids=LANGUAGE_OPTIONS)
def test_a_language_model_exported_and_loaded_in_transformers_gives_the_same_logits(tmp_path, options):
    ours = randomised(LanguageModel(LanguageConfig(**(LANGUAGE | options))))
    save_language(ours, tmp_path / "out")
    biased = "attention_bias" in options
    kind = transformers.Qwen2ForCausalLM if biased else transformers.LlamaForCausalLM
    theirs, info = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    ids = torch.randint(0, 31, (2, 11))
    with torch.no_grad():
        torch.testing.assert_close(ours.head(ours(ours.embed(ids))), theirs(ids).logits, atol=1e-4, rtol=1e-4)
    assert theirs.config.eos_token_id is None and theirs.config.dtype == torch.float32
    again = load_language(tmp_path / "out")
    assert again.config == ours.config and same(again, ours)


def test_a_vision_tower_exported_and_loaded_in_transformers_gives_the_same_states(tmp_path):
    ours = randomised(VisionTower(VISION))
    save_vision(ours, tmp_path / "out")
    theirs, info = transformers.CLIPVisionModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = theirs(pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(ours.hidden_states(pixels), list(expected), atol=1e-4, rtol=1e-4)
    again = load_vision(tmp_path / "out")
    assert again.config == VISION and same(again, ours)


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_both_published_layouts_of_a_vision_tower_load(tmp_path, prefix):
    theirs = randomised(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**TINY_CLIP)))
    theirs.save_pretrained(tmp_path)
    bare = {k.removeprefix("vision_model."): v for k, v in load_file(tmp_path / "model.safetensors").items()}
    bare["embeddings.position_ids"] = torch.arange(5)[None]  # as older files have it
    save_file({prefix + k: v for k, v in bare.items()}, tmp_path / "model.safetensors")
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(load_vision(tmp_path).pooled(pixels), theirs(pixels).pooler_output, atol=1e-4, rtol=1e-4)


def test_a_whole_clip_gives_its_vision_tower(tmp_path):
    config = transformers.CLIPConfig(
        vision_config=TINY_CLIP,
        text_config=dict(**PUBLISHED, bos_token_id=1, eos_token_id=2),
        projection_dim=8,
    )
    theirs = randomised(transformers.CLIPModel(config))
    theirs.save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 16, 16)
    expected = theirs.vision_model(pixels).pooler_output
    torch.testing.assert_close(load_vision(tmp_path).pooled(pixels), expected, atol=1e-4, rtol=1e-4)
    rewrite(tmp_path, lambda t: t.update({"audio_model.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match="1 unexpected: audio_model.weight"):
        load_vision(tmp_path)


def test_a_vision_config_without_the_default_sizes_means_the_default_sizes():
    assert vision_config({"vision_config": {"patch_size": 16}}) == VisionConfig(224, 16, 768, 3072, 12, 12)
    with pytest.raises(CheckpointError, match="hidden_act 'gelu'"):
        vision_config({"hidden_act": "gelu"})


def test_sharded_folders_load(tmp_path):
    theirs = randomised(transformers.LlamaForCausalLM(transformers.LlamaConfig(**PUBLISHED, num_key_value_heads=2)))
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    ours, ids = load_language(tmp_path), torch.randint(0, 31, (1, 5))
    torch.testing.assert_close(ours.head(ours(ours.embed(ids))), theirs(ids).logits, atol=1e-4, rtol=1e-4)
    with pytest.raises(CheckpointError, match="two sets of weights"):
        save_language(ours, tmp_path)
    tensors = load_file(shards[0])
    first = sorted(tensors)[0]
    save_file({k: v for k, v in tensors.items() if k != first}, shards[0])
    with pytest.raises(CheckpointError, match=f"{shards[0].name}: .* {first}"):
        load_language(tmp_path)
    shards[0].unlink()
    with pytest.raises(CheckpointError, match=shards[0].name):
        load_language(tmp_path)


@pytest.mark.parametrize(
    "text", ["{}", "[]", "{", '{"weight_map": 5}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../b"}}']
)
def test_a_nonsense_index_of_shards_is_an_error_that_names_it(tmp_path, text):
    save_language(LanguageModel(LanguageConfig(**LANGUAGE)), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    (tmp_path / "m" / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="model.safetensors.index.json: "):
        load_language(tmp_path / "m")


def test_the_rope_base_is_read_wherever_it_is_published():
    sizes = PUBLISHED | {"model_type": "llama"}
    assert language_config(sizes).rope_theta == 10000.0
    assert language_config(sizes | {"rope_theta": 5e5, "rope_scaling": None}).rope_theta == 5e5
    assert language_config(sizes | {"rope_theta": 5e5, "rope_scaling": {"type": "default"}}).rope_theta == 5e5
    assert language_config(sizes | {"rope_parameters": {"rope_type": "default", "rope_theta": 9.0}}).rope_theta == 9.0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 5e5}}, "rope type 'longrope'"),
        ({"rope_scaling": {"type": "linear"}}, "rope type 'linear' without a factor"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "mrope_section": [1]}}, "mrope_section is not"),
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"attention_bias": True}, "attention_bias True"),
    ],
)
def test_a_language_model_that_is_not_supported_is_refused_by_name(change, message):
    with pytest.raises(CheckpointError, match=message):
        language_config(PUBLISHED | {"model_type": "llama"} | change)


def test_a_config_without_sizes_is_refused_and_a_sliding_window_bounds_the_context():
    with pytest.raises(CheckpointError, match="does not say vocab_size, .*num_attention_heads"):
        language_config({"model_type": "llama"})
    sizes = PUBLISHED | {"model_type": "mistral", "max_position_embeddings": 32768, "sliding_window": 4096}
    assert language_config(sizes).max_position == 4096
    assert language_config(sizes | {"use_sliding_window": False}).max_position == 32768


# strictness


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("model.norm.weight"), "1 missing: model.norm.weight"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (
            lambda t: t.update({"model.norm.weight": torch.zeros(17)}),
            r"1 misshapen: model.norm.weight is \(17,\), expected \(16,\)",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(16, dtype=torch.int8)}),
            "1 of a type that cannot be used: model.norm.weight is I8",
        ),
    ],
)
def test_missing_unexpected_and_misshapen_tensors_are_listed(tmp_path, change, message):
    save_language(LanguageModel(LanguageConfig(**LANGUAGE)), tmp_path / "m")
    rewrite(tmp_path / "m", change)
    with pytest.raises(CheckpointError, match=message):
        load_language(tmp_path / "m")


def test_derived_tensors_of_old_files_are_skipped_and_a_tied_head_stored_twice_is_tied_only_if_equal(tmp_path, capsys):
    ours = randomised(LanguageModel(LanguageConfig(**LANGUAGE, tie_embeddings=True)))
    save_language(ours, tmp_path / "m")
    rewrite(tmp_path / "m", lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)}))
    rewrite(tmp_path / "m", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert same(load_language(tmp_path / "m"), ours) and not capsys.readouterr().err
    rewrite(tmp_path / "m", lambda t: t["lm_head.weight"].add_(1))
    again = load_language(tmp_path / "m")
    said = capsys.readouterr().err
    assert str(tmp_path / "m") in said and "the stored tensors differ" in said and said.count("\n") == 1
    assert not again.config.tie_embeddings
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "m").eval()  # unties too, with a warning
    ids = torch.arange(7)[None]
    with torch.no_grad():
        logits = again.head(again(again.embed(ids)))
        torch.testing.assert_close(logits, theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_folders_without_weights_and_broken_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="config.json"):
        load_language(tmp_path)
    save_language(LanguageModel(LanguageConfig(**LANGUAGE)), tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        load_language(tmp_path / "m")
    weights.unlink()
    with pytest.raises(
        CheckpointError, match="no weights here; expected model.safetensors, .* pytorch_model.bin.index.json$"
    ):
        load_language(tmp_path / "m")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pytorch_model.bin: incomplete"):
        load_language(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json"):
        load_language(tmp_path / "m")


# our own folder


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
def test_a_llava_saved_is_the_llava_loaded(tmp_path, projector):
    model = llava(projector=projector, select_layer=-1)
    save_llava(model, tmp_path / "deep" / "m", ABOUT)
    again, about = load_llava(tmp_path / "deep" / "m")
    assert about == ABOUT and again.config == model.config and same(again, model)
    assert not any(p.requires_grad for p in again.vision_tower.parameters())
    pixels = torch.randn(1, 3, 16, 16)
    for one, two in zip(
        model.splice(torch.tensor([1, IMAGE]), list(model.features(pixels))),
        again.splice(torch.tensor([1, IMAGE]), list(again.features(pixels))),
        strict=True,
    ):
        assert torch.equal(one, two)
    written = json.loads((tmp_path / "deep" / "m" / "llava.json").read_text())
    assert written["select_layer"] == -1 and written["projector"] == {"type": projector, "in": 16, "out": 16}


def test_weights_stored_in_half_precision_load_as_float32_unless_asked(tmp_path):
    model = llava()
    save_llava(model, tmp_path / "m", ABOUT, dtype=torch.float16)
    again, _ = load_llava(tmp_path / "m")
    assert all(p.dtype == torch.float32 for p in again.parameters())
    assert all(torch.equal(p, q.half().float()) for p, q in zip(again.parameters(), model.parameters(), strict=True))
    assert all(p.dtype == torch.float16 for p in load_llava(tmp_path / "m", dtype=None)[0].parameters())
    assert all(p.dtype == torch.bfloat16 for p in load_llava(tmp_path / "m", torch.bfloat16)[0].parameters())
    with torch.no_grad():
        model.projector.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match="projector.weight has values that are not finite in torch.float16"):
        save_llava(model, tmp_path / "n", ABOUT, dtype=torch.float16)
    assert not (tmp_path / "n").exists()


def test_llava_json_is_checked_against_the_tensors(tmp_path):
    save_llava(llava(), tmp_path / "m", ABOUT)
    path = tmp_path / "m" / "llava.json"
    good = path.read_text()
    rewrite_json(path, projector={"type": "linear", "in": 16, "out": 99})
    with pytest.raises(CheckpointError, match="maps 16 to 99, but .* gives 16 and the language model takes 16"):
        load_llava(tmp_path / "m")
    path.write_text(good)
    rewrite_json(path, projector={"type": "mlp2x_gelu", "in": 16, "out": 16})
    with pytest.raises(CheckpointError, match="4 missing: projector.0.bias.*\n.*2 unexpected: projector.bias"):
        load_llava(tmp_path / "m")
    path.write_text(good)
    rewrite_json(path, language=json.loads(good)["language"] | {"vocab_size": 32})
    with pytest.raises(CheckpointError, match=r"2 misshapen: .*embed_tokens.weight is \(31, 16\), expected \(32, 16\)"):
        load_llava(tmp_path / "m")
    path.write_text(good)
    rewrite_json(path, vision={"size": 3})
    with pytest.raises(CheckpointError, match="llava.json: .*not a config that makes sense"):
        load_llava(tmp_path / "m")
    shutil.copy(tmp_path / "m" / "model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match="llava.json"):
        load_llava(tmp_path)


def test_a_llava_without_its_template_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="template"):
        save_llava(llava(), tmp_path / "m", {})
    assert not any(tmp_path.iterdir())


# whole or not at all


def test_saving_over_a_folder_replaces_the_weights_and_leaves_other_files(tmp_path):
    one, two = llava(), llava()
    save_llava(one, tmp_path / "m", ABOUT)
    (tmp_path / "m" / "tokenizer.json").write_text("mine")
    save_llava(two, tmp_path / "m", ABOUT | {"steps": 4})
    again, about = load_llava(tmp_path / "m")
    assert same(again, two) and about["steps"] == 4
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["llava.json", "model.safetensors", "tokenizer.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]  # nothing temporary left


def test_a_crash_while_writing_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    one = llava()
    save_llava(one, tmp_path / "m", ABOUT)

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("minillava.model.formats.files.save_file", full)
    with pytest.raises(CheckpointError, match="cannot write .*m: No space left on device"):
        save_llava(llava(), tmp_path / "m", ABOUT)
    assert same(load_llava(tmp_path / "m")[0], one) and [p.name for p in tmp_path.iterdir()] == ["m"]


def test_saving_onto_a_file_or_where_one_cannot_write_says_so(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="file is a file; a checkpoint is a folder"):
        save_llava(llava(), tmp_path / "file", ABOUT)
    with pytest.raises(CheckpointError, match="cannot write .*file/m"):
        save_llava(llava(), tmp_path / "file" / "m", ABOUT)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(CheckpointError, match="cannot write /proc"):
        save_language(LanguageModel(LanguageConfig(**LANGUAGE)), "/proc/nowhere/m")


def test_saved_files_can_be_read_by_others(tmp_path):
    save_language(LanguageModel(LanguageConfig(**LANGUAGE)), tmp_path / "m")
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in [tmp_path / "m", *(tmp_path / "m").iterdir()])


NONSENSE = {"num_attention_heads": 0, "hidden_size": "wide", "num_hidden_layers": None, "intermediate_size": -1}
NONSENSE |= {"vocab_size": 1.5, "hidden_act": "new", "rms_norm_eps": "small", "max_position_embeddings": 0}
NONSENSE |= {"rope_parameters": {"rope_type": "default", "rope_theta": -1}}


@pytest.mark.parametrize("change", [{name: value} for name, value in NONSENSE.items()])
def test_a_nonsense_config_is_an_error_that_names_its_file(tmp_path, change):
    save_language(LanguageModel(LanguageConfig(20, 8, 8, 1, 2)), tmp_path)
    rewrite_json(tmp_path / "config.json", **change)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        load_language(tmp_path)


def test_a_config_with_a_million_layers_is_refused_before_one_is_built(tmp_path, monkeypatch):
    """Building them would take for ever."""
    save_language(LanguageModel(LanguageConfig(20, 8, 8, 1, 2)), tmp_path / "language")
    save_vision(VisionTower(VISION), tmp_path / "vision")
    save_llava(llava(), tmp_path / "llava", ABOUT)
    llava_json = json.loads((tmp_path / "llava" / "llava.json").read_text())
    rewrite_json(tmp_path / "language" / "config.json", num_hidden_layers=10**6)
    rewrite_json(tmp_path / "vision" / "config.json", num_hidden_layers=10**6)
    rewrite_json(tmp_path / "llava" / "llava.json", language=llava_json["language"] | {"num_layers": 10**6})
    for module in ("language", "vision"):
        monkeypatch.setattr(f"minillava.model.{module}.Block", lambda *_: pytest.fail("built"))
    for name, load in (("language", load_language), ("vision", load_vision), ("llava", load_llava)):
        with pytest.raises(CheckpointError, match=rf"{name}: .*1,000,\d+ layers, but the files hold \d+ tensors"):
            load(tmp_path / name)


PARTS = [("vision", {"num_heads": 3}), ("language", {"num_kv_heads": 0}), ("language", {"rope": {"kind": "new"}})]


@pytest.mark.parametrize("part, change", [*PARTS, ("projector", {"type": "cubic"}), ("towers", 5)])
def test_a_nonsense_llava_json_is_an_error_that_names_its_folder(tmp_path, part, change):
    save_llava(llava(), tmp_path, ABOUT)
    before = json.loads((tmp_path / "llava.json").read_text())[part]
    rewrite_json(tmp_path / "llava.json", **{part: before | change if isinstance(change, dict) else change})
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        load_llava(tmp_path)

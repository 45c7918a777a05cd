"""A whole LLaVA from and to `transformers`, the authors' projectors, hub ids offline, the memory that loading takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from minillava.data import IGNORE, IMAGE
from minillava.data.images import open_picture, pixels
from minillava.data.samples import prompt_ids
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.model import (
    Batch,
    CheckpointError,
    LanguageConfig,
    Llava,
    LlavaConfig,
    VisionConfig,
    find_checkpoint,
    generate,
    load_language,
    load_llava,
    load_projector,
    load_vision,
    save_language,
    save_llava,
    save_pretrained,
)
from minillava.model.formats.preparation import read_preparation
from minillava.model.formats.published import llava_config, llava_names
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw

torch.set_num_threads(1)

P, V, PLACEHOLDER = 4, 61, 60  # patches, vocabulary, the id that stands for one patch in transformers
SIZES = dict(image_size=16, patch_size=8, hidden_size=16, intermediate_size=24)
TEXT = dict(vocab_size=V, hidden_size=24, intermediate_size=40, num_hidden_layers=2)
TEXT |= dict(num_attention_heads=4, num_key_value_heads=2)
ABOUT = {"template": "chat", "trained on": "nothing"}


def randomised(model):
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape)
    return model.eval()


@pytest.fixture
def theirs():
    return reference()


def reference(text=transformers.LlamaConfig, tied=False, **options):
    torch.manual_seed(0)
    vision = transformers.CLIPVisionConfig(**SIZES, num_hidden_layers=3, num_attention_heads=2)
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text(**TEXT, tie_word_embeddings=tied),
        image_token_id=PLACEHOLDER,
        image_seq_length=P,
        **({"vision_feature_layer": -2} | options),
    )
    return randomised(LlavaForConditionalGeneration(config))


def spread(ids):
    """In transformers a picture is one token per patch; the index in `ids` that each token came from."""
    return [i for i, token in enumerate(ids.tolist()) for _ in range(P if token == IMAGE else 1)]


def conversations():
    """(ids, labels, pictures (n, 3, 16, 16)) of three: several turns; two pictures; no picture. Lengths differ."""
    torch.manual_seed(1)
    ids = [
        torch.tensor([1, 5, IMAGE, 7, 8, 9, 2, 11, 12, 2, 13, 14, 15, 2]),
        torch.tensor([1, IMAGE, 4, IMAGE, 11, 12]),
        torch.tensor([1, 2, 3]),
    ]
    labels = [torch.where((torch.arange(len(i)) < len(i) // 2) | (i == IMAGE), IGNORE, i) for i in ids]
    return ids, labels, [torch.randn(int((i == IMAGE).sum()), 3, 16, 16) for i in ids]


def compare(ours, theirs):
    """Assert equal logits at every token but padding, and equal losses, of a padded batch, within 1e-4."""
    ids, labels, pictures = conversations()
    shape = 3, max(len(spread(i)) for i in ids)
    padded, theirs_labels, mask = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORE), torch.zeros(shape)
    for row, (i, target) in enumerate(zip(ids, labels, strict=True)):
        at = spread(i)
        padded[row, : len(at)], mask[row, : len(at)] = torch.where(i == IMAGE, PLACEHOLDER, i)[at], 1
        theirs_labels[row, : len(at)] = target[at]
    with torch.no_grad():
        expected = theirs(
            input_ids=padded, attention_mask=mask.long(), pixel_values=torch.cat(pictures), labels=theirs_labels
        )
        features = [list(ours.features(p)) if len(p) else [] for p in pictures]
        embeds, _, real = ours.splice_batch(ids, features)
        logits = ours.language_model.head(ours.language_model(embeds))
        loss, count = ours.loss(Batch(ids, labels, features))
    assert torch.equal(real, mask.bool())
    torch.testing.assert_close(logits[real][:, :V], expected.logits[real][:, :V], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loss, expected.loss, atol=1e-4, rtol=1e-4)
    assert count == sum(int((t[1:] != IGNORE).sum()) for t in labels)


# LlavaForConditionalGeneration in


OPTIONS = {"llama": {}, "tied": {"tied": True}, "last layer": {"vision_feature_layer": -1}}
OPTIONS |= {"one layer in a list": {"vision_feature_layer": [-2]}}
OPTIONS |= {"qwen2": {"text": transformers.Qwen2Config}, "mistral": {"text": transformers.MistralConfig}}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_llava_of_transformers_gives_the_same_logits_over_several_turns_and_pictures(tmp_path, options):
    theirs = reference(**options)
    theirs.save_pretrained(tmp_path)
    ours, about = load_llava(tmp_path)
    assert about == {} and ours.config.projector == "mlp2x_gelu"
    assert not any(p.requires_grad for p in ours.vision_tower.parameters())
    compare(ours, theirs)


def test_greedy_answers_equal_those_of_transformers_token_for_token(tmp_path, theirs):
    theirs.save_pretrained(tmp_path)
    ours, _ = load_llava(tmp_path)
    ids, _, pictures = conversations()
    features = [list(ours.features(p)) if len(p) else [] for p in pictures]
    answers = generate(ours, ids, features, 12)
    (end,) = ours.config.language.ends
    assert end == theirs.config.text_config.eos_token_id
    settings = dict(max_new_tokens=12, do_sample=False, eos_token_id=end)
    for i, shown, answer in zip(ids, pictures, answers, strict=True):
        given = torch.where(i == IMAGE, PLACEHOLDER, i)[spread(i)][None]
        inputs = dict(input_ids=given, attention_mask=torch.ones_like(given))
        out = theirs.generate(**inputs, **({"pixel_values": shown} if len(shown) else {}), **settings)
        said = out[0, given.shape[1] :].tolist()
        assert answer == said[: said.index(end)] if end in said else said


def relaid(tensors, layout):
    """The tensors of a saved folder, renamed to one of the layouts that transformers has used."""
    out = {}
    for name, tensor in tensors.items():
        name = name.replace("vision_tower.", "vision_tower.vision_model.") if layout != "5" else name
        if layout == "in memory":
            head = name == "language_model.lm_head.weight"
            name = "lm_head.weight" if head else "model." + name.replace("language_model.model.", "language_model.")
        out[name] = tensor
    return out


@pytest.mark.parametrize("layout", ["4", "5", "in memory"])
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "sharded"])
def test_every_layout_that_transformers_has_used_loads(tmp_path, theirs, layout, sharded):
    theirs.save_pretrained(tmp_path)
    whole = tmp_path / "model.safetensors"
    tensors = relaid(load_file(whole), layout)
    first = "model.language_model." if layout == "in memory" else "language_model.model."
    assert sum(name.startswith(first) for name in tensors) > 10
    whole.unlink()
    names = sorted(tensors)
    parts = [names[::2], names[1::2]] if sharded else [names]
    where = {}
    for n, part in enumerate(parts, start=1):
        shard = f"model-{n:05}-of-{len(parts):05}.safetensors" if sharded else "model.safetensors"
        save_file({name: tensors[name] for name in part}, tmp_path / shard)
        where |= dict.fromkeys(part, shard)
    if sharded:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    compare(load_llava(tmp_path)[0], theirs)


def test_sizes_that_a_published_config_leaves_out_are_transformers_defaults():
    text = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    for kind in ("llama", "mistral", "qwen2"):
        stated = transformers.CONFIG_MAPPING[kind](**(text | {"model_type": kind}))
        ours = llava_config({"model_type": "llava", "text_config": text | {"model_type": kind}}).language
        theirs = stated.hidden_size, stated.num_hidden_layers, stated.num_attention_heads
        assert (ours.hidden_size, ours.num_layers, ours.num_heads) == theirs
        assert ours.num_kv_heads == stated.num_key_value_heads and ours.intermediate_size == stated.intermediate_size
        assert ours.vocab_size == 32064 and ours.rms_norm_eps == 1e-5


def test_the_config_of_llava_1_5_on_the_hub_means_the_tensors_of_transformers():
    """llava-hf/llava-1.5-7b-hf: its text_config names no sizes but the rows, and its tensors have the older names."""
    text = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
    vision = dict(
        hidden_size=1024, image_size=336, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24
    )
    vision |= dict(model_type="clip_vision_model", patch_size=14, projection_dim=768, vocab_size=32000)
    written = dict(text_config=text, vision_config=vision, image_token_index=32000, ignore_index=-100)
    written |= dict(vision_feature_layer=-2, vision_feature_select_strategy="default", projector_hidden_act="gelu")
    with torch.device("meta"):
        theirs = LlavaForConditionalGeneration(transformers.LlavaConfig(**written)).state_dict()
        ours = Llava(llava_config(written | {"model_type": "llava"})).state_dict()
    name_of, older = llava_names(theirs), llava_names()
    assert {name_of(name): t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}
    layer = "model.layers.0.self_attn.q_proj.weight"
    assert {f"language_model.{layer}", "language_model.lm_head.weight", "multi_modal_projector.linear_2.bias",
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"} <= set(map(older, ours))  # fmt: skip
    assert len(ours) == 686


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "llava_next"}, "model_type 'llava_next', which reads a picture in several tiles"),
        ({"model_type": "llava_onevision"}, "model_type 'llava_onevision', which .*llava-hf/llava-1.5-7b-hf"),
        ({"model_type": "qwen2_vl"}, "model_type 'qwen2_vl'.*llava-hf/llava-1.5-7b-hf"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "model_type 'siglip_vision_model': only CLIP's"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy 'full'"),
        ({"vision_feature_layer": [-2, -5]}, r"vision_feature_layer \[-2, -5\]: only one layer"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act 'relu'"),
        ({"multimodal_projector_bias": False}, "multimodal_projector_bias False"),
        ({"text_config": {"model_type": "gemma"}}, "model_type 'gemma'"),
    ],
)
def test_a_llava_that_is_not_supported_is_refused_by_name(tmp_path, change, message):
    config = {"model_type": "llava", "text_config": {"model_type": "llama"}} | change
    (tmp_path / "config.json").write_text(json.dumps(config))  # without weights: they are not looked at
    with pytest.raises(CheckpointError, match=message):
        load_llava(tmp_path)


def test_missing_unexpected_misshapen_and_broken_tensors_are_listed(tmp_path, theirs):
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    good = load_file(path)

    tensors = dict(good)
    del tensors["language_model.model.norm.weight"]
    tensors["vision_tower.extra"] = torch.zeros(1)
    tensors["multi_modal_projector.linear_1.weight"] = torch.zeros(5120, 16)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as error:
        load_llava(tmp_path)
    misshapen = "1 misshapen: multi_modal_projector.linear_1.weight is (5120, 16), expected (24, 16)"
    for line in ("1 missing: language_model.model.norm.weight", "1 unexpected: vision_tower.extra", misshapen):
        assert line in str(error.value)
    good["language_model.model.norm.weight"][3] = float("nan")
    good["vision_tower.post_layernorm.bias"][0] = float("inf")
    save_file(good, path)
    with pytest.raises(CheckpointError, match="2 tensors hold values that are not finite.*: vision.*, language_model"):
        load_llava(tmp_path)


# and out


@pytest.fixture(params=["linear", "mlp2x_gelu"])
def small(request, weights):
    """The tests' small model, with either projector, and its tokenizer."""
    model, _ = load_llava(weights / "llava")
    if request.param != "linear":
        model = Llava(LlavaConfig(model.config.vision, model.config.language, projector=request.param))
    return randomised(model), load_tokenizer(weights / "llava")


def test_a_model_exported_answers_in_transformers_as_here_and_comes_back_equal(tmp_path, small, weights):
    model, tokenizer = small
    asked = "What is odd in this picture?"
    words = len(tokenizer)
    save_pretrained(model, tmp_path / "out", tokenizer, weights / "vision_tower", CHAT, ABOUT)
    assert len(tokenizer) == words  # the caller's tokenizer is not changed
    theirs, info = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(processor).__name__ == "LlavaProcessor"
    draw(compose("dev", 0), 200).crop((0, 0, 173, 120)).save(tmp_path / "scene.png")  # no square
    picture = open_picture(tmp_path / "scene.png")
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    given = processor(images=picture, text=text, return_tensors="pt", add_special_tokens=False)

    ids = prompt_ids(f"<image>\n{asked}", CHAT, tokenizer)
    image_token, count = theirs.config.image_token_id, model.config.vision.num_patches
    expected = [image_token if i == IMAGE else i for i in ids.tolist() for _ in range(count if i == IMAGE else 1)]
    assert given["input_ids"][0].tolist() == expected
    shown = pixels([picture], read_preparation(tmp_path / "out", model.config.vision.image_size))
    torch.testing.assert_close(given["pixel_values"], shown, atol=1e-5, rtol=0)
    with torch.no_grad():
        features = list(model.features(given["pixel_values"]))
        embeds, _ = model.splice(ids, features)
        logits = model.language_model.head(model.language_model(embeds[None]))
        others = theirs(**given).logits
    rows = model.config.language.vocab_size
    torch.testing.assert_close(others[..., :rows], logits, atol=1e-4, rtol=1e-4)
    assert others.shape[-1] == rows + 1 and (others.argmax(-1) < rows).all()  # <image> is never the most likely
    out = theirs.generate(**given, max_new_tokens=9, do_sample=False)[0, given["input_ids"].shape[1] :].tolist()
    stop = tokenizer.encode(CHAT.stop, add_special_tokens=False)
    mine = generate(model, [ids], [features], 9, stop=[stop])[0]
    assert out[: len(mine)] == mine

    assert CHAT.stop not in processor.tokenizer.decode(out, skip_special_tokens=True)
    again, about = load_llava(tmp_path / "out")
    assert again.config.language.ends == model.config.language.ends
    assert about == ABOUT and again.config.projector == model.config.projector
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name][: len(tensor)], tensor), name
    save_pretrained(again, tmp_path / "twice", load_tokenizer(tmp_path / "out"), tmp_path / "out", CHAT, about)
    twice, _ = load_llava(tmp_path / "twice")
    assert twice.config == again.config  # its tokenizer has <image> already
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in twice.state_dict().items())


def test_two_matrices_without_a_gelu_are_the_one_that_they_make(tmp_path):
    theirs = reference(projector_hidden_act="linear")
    theirs.save_pretrained(tmp_path)
    ours, seen = load_llava(tmp_path)[0], torch.randn(5, theirs.config.vision_config.hidden_size)
    assert ours.config.projector == "linear"
    torch.testing.assert_close(ours.projector(seen), theirs.model.multi_modal_projector(seen), atol=1e-6, rtol=1e-5)
    stored = load_file(tmp_path / "model.safetensors")
    (second,) = [name for name in stored if name.endswith("linear_2.bias")]
    for changed, said in ((stored[second][:-1].clone(), "expected"), (None, "is missing")):
        kept = stored | {second: changed} if said == "expected" else {k: t for k, t in stored.items() if k != second}
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=f"linear_2.bias.*{said}"):
            load_llava(tmp_path)


def test_an_export_without_its_data_or_with_another_tokenizer_is_refused(tmp_path, small, weights):
    model, tokenizer = small
    with pytest.raises(CheckpointError, match="about must say its 'trained on'"):
        save_pretrained(model, tmp_path / "out", tokenizer, weights / "vision_tower", CHAT, {"template": "chat"})
    tokenizer.add_tokens(["one more"])
    with pytest.raises(CheckpointError, match="they do not belong together"):
        save_pretrained(model, tmp_path / "out", tokenizer, weights / "vision_tower", CHAT, ABOUT)
    assert not (tmp_path / "out").exists()


# the authors' projectors


def llava(projector="linear", **changes):
    sizes = dict(vocab_size=V, hidden_size=24, intermediate_size=40, num_layers=1, num_heads=4) | changes
    vision, language = VisionConfig(16, 8, 16, 24, 2, 2), LanguageConfig(**sizes)
    return randomised(Llava(LlavaConfig(vision, language, projector=projector)))


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
@pytest.mark.parametrize("form", ["file", "folder"])
def test_the_authors_projectors_load(tmp_path, projector, form):
    made, model = llava(projector), llava(projector)
    names = {"model.mm_projector." + name: t.half() for name, t in made.projector.state_dict().items()}
    assert set(names) >= ({"model.mm_projector.weight"} if projector == "linear" else {"model.mm_projector.2.bias"})
    torch.save(names, tmp_path / "mm_projector.bin")
    (tmp_path / "config.json").write_text(json.dumps({"mm_vision_select_layer": -2}))
    load_projector(model, tmp_path if form == "folder" else tmp_path / "mm_projector.bin")
    for name, p in model.projector.named_parameters():
        assert p.dtype == torch.float32 and torch.equal(p, made.projector.state_dict()[name].half().float())


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil"),))


W = {"model.mm_projector.weight": torch.zeros(24, 16), "model.mm_projector.bias": torch.zeros(24)}


LARGE_W = {"model.mm_projector.weight": torch.zeros(5120, 1024), "model.mm_projector.bias": torch.zeros(5120)}
MLP = {f"model.mm_projector.{n}": torch.zeros(24) for n in ("0.weight", "0.bias", "2.weight", "2.bias")}


@pytest.mark.parametrize(
    "stored, message",
    [
        (LARGE_W, "a 1024-wide vision tower and a 5120-wide language model; here they are 16 and 24 wide"),
        ({"model.mm_projector.weight": torch.zeros(24, 16)}, "expected model.mm_projector.weight and .bias"),
        (W | {"model.mm_projector.extra": torch.zeros(1)}, "mm_projector.extra.*expected"),
        (W | {"model.embed_tokens.weight": torch.zeros(2, 24)}, "model.embed_tokens.weight: .* marker tokens"),
        (W | {"model.mm_projector.bias": torch.zeros(23)}, "bias misshapen"),
        (W | {"model.mm_projector.bias": torch.full((24,), torch.nan)}, "bias holds values that are not finite"),
        (MLP, "a mlp2x_gelu projector, but the model was built with 'linear'"),
        (W | {"model.mm_projector.weight": torch.zeros(24)}, "weight misshapen"),
        (W | {"model.mm_projector.bias": torch.empty(0)}, "bias misshapen"),
        (W | {"model.mm_projector.weight": torch.zeros(24, 16).to_sparse()}, "not a file of named tensors"),
        (W | {"model.mm_projector.bias": torch.zeros(24, dtype=torch.int64)}, "not a file of named tensors"),
        (W | {5: torch.zeros(1)}, "not a file of named tensors"),
        ([1, 2], "not a file of named tensors"),
        (Evil(), "mm_projector.bin: .* could run code"),
        (b"not a pickle", "mm_projector.bin: incomplete"),
        (b"PK\x03\x04", "mm_projector.bin: incomplete"),
        (b"", "mm_projector.bin: incomplete"),
    ],
)
def test_a_projector_that_does_not_fit_says_what_it_was_made_for(tmp_path, monkeypatch, stored, message):
    monkeypatch.chdir(tmp_path)
    model = llava()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    if isinstance(stored, bytes):
        (tmp_path / "mm_projector.bin").write_bytes(stored)
    else:
        torch.save(stored, tmp_path / "mm_projector.bin")
    with pytest.raises(CheckpointError, match=message):
        load_projector(model, tmp_path / "mm_projector.bin")
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not (tmp_path / "evil").exists()


def test_a_projector_for_another_feature_layer_is_refused(tmp_path):
    torch.save(W, tmp_path / "mm_projector.bin")
    (tmp_path / "config.json").write_text(json.dumps({"mm_vision_select_layer": -1}))
    with pytest.raises(CheckpointError, match="made for features of layer -1, this model reads layer -2"):
        load_projector(llava(), tmp_path)
    with pytest.raises(CheckpointError, match="nowhere"):
        load_projector(llava(), tmp_path / "nowhere")


# what a checkpoint says of itself


def test_a_checkpoint_names_its_towers_and_a_hub_id_stays_one(tmp_path, weights):
    vision, language = load_vision(weights / "vision_tower"), load_language(weights / "language_model")
    model = Llava(LlavaConfig(vision.config, language.config), vision, language)
    save_llava(model, tmp_path / "m", ABOUT)
    written = json.loads((tmp_path / "m" / "llava.json").read_text())
    assert written["towers"] == {"vision": "vision_tower", "language": "language_model"}
    again, _ = load_llava(tmp_path / "m")
    save_llava(again, tmp_path / "n", ABOUT)
    assert json.loads((tmp_path / "n" / "llava.json").read_text())["towers"] == written["towers"]
    with pytest.raises(CheckpointError, match="'trained on'"):
        save_llava(model, tmp_path / "o", {"template": "chat"})


# the hub, offline


def in_cache(cache, name, folder):
    """Move `folder` to its place in the hub's cache."""
    home, commit = cache / f"models--{name.replace('/', '--')}", "0" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots").mkdir()
    folder.rename(home / "snapshots" / commit)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_hub_id_is_read_from_the_cache_and_a_local_folder_of_that_name_comes_first(tmp_path, cache, monkeypatch):
    one, two = llava(), llava()
    save_language(one.language_model, tmp_path / "made")
    in_cache(cache, "someone/small-llama", tmp_path / "made")
    (tmp_path / "made").mkdir()
    torch.save(W, tmp_path / "made" / "mm_projector.bin")
    (tmp_path / "made" / "config.json").write_text("{}")
    in_cache(cache, "someone/projector", tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    language = load_language("someone/small-llama")
    assert torch.equal(language.norm.weight, one.language_model.norm.weight)
    assert language.origin == "someone/small-llama"
    load_projector(two, "someone/projector")
    assert not two.projector.weight.any()
    save_language(two.language_model, tmp_path / "someone" / "small-llama")
    assert torch.equal(load_language("someone/small-llama").norm.weight, two.language_model.norm.weight)
    assert find_checkpoint("someone/small-llama") == Path("someone/small-llama")


@pytest.mark.parametrize(
    "source, message",
    [
        ("someone/unknown", "someone/unknown: no such folder here, .*HF_HUB_OFFLINE is set"),
        ("a/b/c", "a/b/c: no such folder, and not a hub id"),
        ("/nowhere", "/nowhere: no such folder, and not a hub id"),
    ],
)
def test_a_source_that_is_neither_here_nor_in_the_cache_is_named(cache, monkeypatch, tmp_path, source, message):
    monkeypatch.chdir(tmp_path)
    for load in (load_vision, load_language, load_llava):
        with pytest.raises(CheckpointError, match=message):
            load(source)


# memory

MEASURE = """
import re, sys, torch
from minillava.model import load_llava
# not ru_maxrss, which starts at the memory of the parent process
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
load_llava(sys.argv[1] + "/little")
torch.ones(8)
before = peak()
model, _ = load_llava(sys.argv[1] + "/big", dtype=getattr(torch, sys.argv[2]))
size = sum(p.numel() * p.element_size() for p in model.parameters())
print(peak() - before, size, max(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory a process had at most")
@pytest.mark.parametrize("dtype, shards", [("float32", 1), ("bfloat16", 1), ("bfloat16", 3)])
def test_loading_takes_little_more_memory_than_the_model(tmp_path, dtype, shards):
    save_llava(llava(), tmp_path / "little", ABOUT)
    save_llava(llava(hidden_size=512, intermediate_size=1536, num_layers=14, vocab_size=4000), tmp_path / "big", ABOUT)
    if shards > 1:
        whole, where = tmp_path / "big" / "model.safetensors", {}
        tensors = load_file(whole)
        for n in range(shards):
            names = sorted(tensors)[n::shards]
            save_file({name: tensors[name] for name in names}, whole.with_name(f"{n}.safetensors"))
            where |= dict.fromkeys(names, f"{n}.safetensors")
        whole.unlink()
        (tmp_path / "big" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), dtype], capture_output=True, text=True, check=True
    ).stdout
    grown, size, largest = map(int, out.split())
    stored = 4 * largest if dtype == "bfloat16" else 2 * largest  # one stored tensor and its copy
    assert size > 90e6 and grown < size + stored + 16e6, f"{grown / 1e6:.0f} MB for a model of {size / 1e6:.0f} MB"

"""The model equals `transformers` at every layer, splices where the paper says, and takes its loss at labels only."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import transformers

from minillava.costs.model import count_parameters
from minillava.data import IGNORE, IMAGE
from minillava.model import (
    Batch,
    Cache,
    LanguageConfig,
    LanguageModel,
    Llava,
    LlavaConfig,
    SpliceError,
    VisionConfig,
    VisionTower,
    language,
    load_language,
    load_vision,
    set_trainable,
)
from minillava.model.language import RMSNorm
from minillava.model.vision import Attention as VisionAttention

torch.set_num_threads(1)

VISION = VisionConfig(image_size=32, patch_size=8, hidden_size=32, intermediate_size=48, num_layers=3, num_heads=4)
LANGUAGE = LanguageConfig(61, 24, 40, num_layers=2, num_heads=4, num_kv_heads=2, max_position=64)
PUBLISHED = dict(vocab_size=61, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4)
P = VISION.num_patches


def shake(model, seed=0):
    """Every parameter off its initial value, so that no bias is 0 and no norm is 1 where we compare."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return model.eval()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return shake(Llava(LlavaConfig(VISION, LANGUAGE)))


def picture(seed):
    return torch.randn(P, VISION.hidden_size, generator=torch.Generator().manual_seed(seed))


def some_batch():
    """A picture after two tokens, no picture, two pictures with one of them first; the answers supervised."""
    ids = [
        torch.tensor([5, 6, IMAGE, 7, 8, 9]),
        torch.tensor([1, 2, 3]),
        torch.tensor([IMAGE, 4, IMAGE, 11, 12, 13, 14]),
    ]
    labels = [
        torch.tensor([IGNORE, IGNORE, IGNORE, IGNORE, 8, 9]),
        torch.tensor([1, 2, 3]),  # nothing predicts a first token
        torch.tensor([IGNORE, 4, IGNORE, 11, IGNORE, 13, 14]),
    ]
    return Batch(ids, labels, [[picture(0)], [], [picture(1), picture(2)]])


# the vision tower


@pytest.fixture
def towers(tmp_path):
    config = transformers.CLIPVisionConfig(
        image_size=32, patch_size=8, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
    )
    theirs = shake(transformers.CLIPVisionModel(config))
    theirs.save_pretrained(tmp_path)
    return load_vision(tmp_path), theirs


def test_vision_hidden_states_equal_transformers_at_every_layer(towers):
    ours, theirs = towers
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        states, expected = ours.hidden_states(pixels), theirs(pixels, output_hidden_states=True)
    assert len(states) == len(expected.hidden_states) == 4
    for state, other in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(state, other, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.pooled(pixels), expected.pooler_output, atol=1e-4, rtol=1e-4)
    for layer in range(-4, 4):
        torch.testing.assert_close(ours(pixels, layer), expected.hidden_states[layer][:, 1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layer, blocks", [(-1, 3), (-2, 2), (-3, 1), (0, 0), (3, 3)])
def test_selecting_a_layer_runs_only_the_blocks_before_it(layer, blocks):
    tower, calls = VisionTower(VISION), []
    for module in tower.modules():
        if isinstance(module, VisionAttention):
            module.register_forward_hook(lambda *_: calls.append(1))
    assert tower(torch.randn(1, 3, 32, 32), layer).shape == (1, P, 32)
    assert len(calls) == blocks


def test_vision_refuses_a_layer_it_does_not_have_and_pixels_of_another_size():
    tower = VisionTower(VISION)
    with pytest.raises(ValueError, match=r"layer 4: this vision tower has hidden states -4 to 3"):
        tower(torch.randn(1, 3, 32, 32), 4)
    with pytest.raises(ValueError, match=r"\(B, 3, 32, 32\).*not \(1, 3, 40, 32\)"):
        tower(torch.randn(1, 3, 40, 32))
    with pytest.raises(ValueError, match="not a multiple of patch_size"):
        VisionConfig(33, 8, 32, 48, 3, 4)


# the language model


FAMILIES = {"llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig, "qwen2": transformers.Qwen2Config}
CONFIGS = {
    f"{name}, {heads} key heads, {'tied' if tied else 'untied'}": kind(
        **PUBLISHED, num_key_value_heads=heads, tie_word_embeddings=tied
    )
    for name, kind in FAMILIES.items()
    for heads in (4, 2)
    for tied in (True, False)
} | {
    "llama, one key head": transformers.LlamaConfig(**PUBLISHED, num_key_value_heads=1, head_dim=10, rms_norm_eps=1e-3),
    "llama, theta": transformers.LlamaConfig(**PUBLISHED, rope_parameters={"rope_type": "default", "rope_theta": 77.0}),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_language_logits_equal_transformers(config, tmp_path):
    theirs = shake(transformers.AutoModelForCausalLM.from_config(config))
    theirs.save_pretrained(tmp_path)
    ours = load_language(tmp_path)
    ids = torch.randint(0, 61, (3, 17))
    with torch.no_grad():
        torch.testing.assert_close(ours.head(ours(ours.embed(ids))), theirs(ids).logits, atol=1e-4, rtol=1e-4)


ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 16},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn with mscale": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.0,
                         "mscale_all_dim": 0.5, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
    "yarn with an attention factor": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.3,
                                      "original_max_position_embeddings": 16},
}  # fmt: skip


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
@pytest.mark.parametrize("tokens", [9, 40], ids=["within the trained length", "beyond it"])
def test_logits_under_stretched_rotations_equal_transformers(rope, tokens, tmp_path):
    stated = rope | {"rope_theta": 500.0}
    config = transformers.LlamaConfig(**PUBLISHED, head_dim=12, max_position_embeddings=24, rope_parameters=stated)
    theirs = shake(transformers.LlamaForCausalLM(config))
    theirs.save_pretrained(tmp_path)
    ours, ids = load_language(tmp_path), torch.randint(0, 61, (2, tokens))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours.head(ours(ours.embed(ids))), expected, atol=1e-4, rtol=1e-4)
        plain = LanguageModel(replace(ours.config, rope=None)).eval()
        plain.load_state_dict(ours.state_dict())
        exact = torch.allclose(plain.head(plain(plain.embed(ids))), expected, atol=1e-4)
    assert exact == (rope["rope_type"] == "dynamic" and tokens == 9)  # where it changes nothing it must not


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_decoding_under_stretched_rotations_equals_transformers(rope, tmp_path):
    stated = rope | {"rope_theta": 500.0}
    config = transformers.LlamaConfig(**PUBLISHED, head_dim=12, max_position_embeddings=24, rope_parameters=stated)
    theirs, ids = shake(transformers.LlamaForCausalLM(config)), torch.randint(0, 61, (1, 20))
    theirs.save_pretrained(tmp_path)
    ours = load_language(tmp_path)
    expected = theirs.generate(
        ids, max_new_tokens=20, do_sample=False, eos_token_id=None, output_logits=True, return_dict_in_generate=True
    )
    cache, hidden = Cache(ours.config, 1, 40), ours.embed(ids)
    for logits, token in zip(expected.logits, expected.sequences[0, 20:], strict=True):
        torch.testing.assert_close(ours.head(ours(hidden, cache=cache)[:, -1]), logits, atol=1e-4, rtol=1e-4)
        hidden = ours.embed(token.view(1, 1))


@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_padding_on_the_left_changes_nothing_for_real_tokens(dtype, close):
    model = shake(LanguageModel(LANGUAGE)).to(dtype)
    ids = torch.randint(0, 61, (1, 9))
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], dim=1)
    mask = torch.arange(13)[None] >= 4
    hidden = model(model.embed(padded), mask=mask)
    assert torch.isfinite(hidden).all()
    torch.testing.assert_close(hidden[:, 4:], model(model.embed(ids)), atol=close, rtol=close)


def test_positions_count_the_real_tokens_from_0(monkeypatch):
    seen, rotations = [], language.rotations
    monkeypatch.setattr(language, "rotations", lambda where, config: seen.append(where) or rotations(where, config))
    model, mask = LanguageModel(LANGUAGE), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
    cache = Cache(LANGUAGE, 2, 5)
    model(torch.zeros(2, 4, 24), mask=mask, cache=cache)
    model(torch.zeros(2, 1, 24), cache=cache)
    assert [where.tolist() for where in seen] == [[[0, 0, 0, 1], [0, 1, 2, 3]], [[2], [4]]]


# the splice


def test_splice_puts_patches_where_the_image_token_stands(model):
    ids = torch.tensor([5, IMAGE, 7, 8, IMAGE])
    embeds, source = model.splice(ids, [picture(0), picture(1)])
    assert source.tolist() == [0] + [-1] * P + [2, 3] + [-1] * P
    text = model.language_model.embed(torch.tensor([5, 7, 8]))
    expected = torch.cat([text[:1], model.projector(picture(0)), text[1:], model.projector(picture(1))])
    torch.testing.assert_close(embeds, expected)


@pytest.mark.parametrize("pad", ["left", "right"])
def test_splicing_a_batch_equals_splicing_one_by_one(model, pad):
    batch = some_batch()
    embeds, source, mask = model.splice_batch(batch.ids, batch.features, pad=pad)
    assert embeds.shape == (3, 5 + 2 * P, 24) and mask.sum(1).tolist() == [5 + P, 3, 5 + 2 * P]
    for i in range(3):
        alone, where = model.splice(batch.ids[i], batch.features[i])
        torch.testing.assert_close(embeds[i][mask[i]], alone)
        assert torch.equal(source[i][mask[i]], where)
        edge = 0 if pad == "right" else -1
        assert mask[i][edge] and embeds[i][~mask[i]].eq(0).all() and source[i][~mask[i]].eq(-1).all()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_the_norm_and_its_gradients_are_those_of_the_formula(dtype, tolerance):
    torch.manual_seed(0)
    norm, x, g = RMSNorm(24, eps=0.1).to(dtype), torch.randn(2, 5, 24, dtype=dtype), torch.randn(2, 5, 24, dtype=dtype)
    torch.nn.init.normal_(norm.weight)
    plain, w = x.clone().float().requires_grad_(), norm.weight.detach().float().requires_grad_()
    expected = w * plain * (plain.pow(2).mean(-1, keepdim=True) + 0.1).rsqrt()
    out = norm(x.requires_grad_())
    assert out.dtype == dtype
    out.backward(g)
    expected.backward(g.float())
    for ours, theirs in ((out, expected), (x.grad, plain.grad), (norm.weight.grad, w.grad)):
        torch.testing.assert_close(ours.float(), theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("rows", [1, 2], ids=["places of all rows", "places of each row"])
def test_a_rotation_turns_each_pair_by_its_angle_and_its_gradient_back(rows):
    torch.manual_seed(0)
    config = language.LanguageConfig(10, 24, 24, 1, 3, rope_theta=50.0)
    x, g = (
        torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 3, 5, 8, dtype=torch.float64),
    )
    cos, sin = language.rotations(torch.randint(0, 40, (rows, 5)), config)
    turn = lambda x: torch.cat([x[..., :4] * cos[..., :4] - x[..., 4:] * sin[..., 4:], x[..., 4:] * cos[..., :4] + x[..., :4] * sin[..., 4:]], -1)  # noqa: E731  # fmt: skip
    out, (ours,) = language.rotate(x, cos, sin), torch.autograd.grad(language.rotate(x, cos, sin), x, g)
    torch.testing.assert_close(out, turn(x))
    torch.testing.assert_close(ours, torch.autograd.grad(turn(x), x, g)[0])
    assert not torch.allclose(ours, turn(g)) and (ours.norm() - g.norm()).abs() < 1e-5


def test_features_are_the_penultimate_patches_and_need_no_gradient(model):
    pixels = torch.randn(2, 3, 32, 32)
    features = model.features(pixels)
    assert features.shape == (2, P, 32) and not features.requires_grad
    torch.testing.assert_close(features, model.vision_tower.hidden_states(pixels)[-2][:, 1:])


# the loss


def full_loss(model, batch):
    """Sample by sample, all logits, cross entropy with IGNORE: slow and plain."""
    total, count = 0.0, 0
    for ids, labels, features in zip(batch.ids, batch.labels, batch.features, strict=True):
        embeds, source = model.splice(ids, features)
        logits = model.language_model.head(model.language_model(embeds[None]))[0]
        spliced = torch.tensor([IGNORE if s < 0 else int(labels[s]) for s in source.tolist()])
        total += F.cross_entropy(logits[:-1], spliced[1:], ignore_index=IGNORE, reduction="sum")
        count += int((spliced[1:] != IGNORE).sum())
    return total / count, count


def test_loss_at_supervised_positions_equals_the_full_loss_and_so_do_its_gradients(model):
    set_trainable(model, 2)
    batch = some_batch()
    grads = []
    for loss, count in (model.loss(batch), full_loss(model, batch)):
        assert count == 8
        model.zero_grad()
        loss.backward()
        grads.append((loss.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]))
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)
    assert torch.equal(model(batch)[0], model.loss(batch)[0])


@pytest.mark.parametrize("low", ["autocast", "all", "frozen"])
def test_loss_in_bfloat16_is_near_the_loss_in_float32_and_trains(model, low):
    batch = some_batch()
    batch.features = [[picture.half() for picture in sample] for sample in batch.features]  # as a cache may keep them
    set_trainable(model, 1 if low == "frozen" else 2)
    expected = model.loss(batch)[0].item()
    if low == "all":
        model.bfloat16()
    if low == "frozen":
        model.language_model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=low == "autocast"):
        loss, _ = model.loss(batch)
    loss.backward()
    assert loss.dtype == torch.float32 and abs(loss.item() - expected) < 0.05
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_the_vocabulary_is_scored_only_at_supervised_positions(model, monkeypatch):
    seen, head = [], model.language_model.head
    monkeypatch.setattr(model.language_model, "head", lambda hidden: seen.append(hidden.shape) or head(hidden))
    assert model.loss(some_batch())[1] == 8 and seen == [(8, 24)]


def test_logits_and_loss_equal_transformers_llava():
    sizes = dict(image_size=32, patch_size=8, hidden_size=32, intermediate_size=48)
    vision = transformers.CLIPVisionConfig(**sizes, num_hidden_layers=3, num_attention_heads=4)
    text = transformers.LlamaConfig(**PUBLISHED, num_key_value_heads=2)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=60, vision_feature_layer=-2
    )
    theirs = shake(transformers.LlavaForConditionalGeneration(config))
    ours = Llava(LlavaConfig(VISION, LANGUAGE, projector="mlp2x_gelu")).eval()
    renamed = {}
    for name, tensor in theirs.state_dict().items():
        name = name.removeprefix("model.").replace("multi_modal_projector.linear_1", "projector.0")
        name = name.replace("multi_modal_projector.linear_2", "projector.2").replace("encoder.layers", "layers")
        name = name.replace("vision_tower.vision_model.", "vision_tower.")  # as versions before have it
        renamed["language_model.lm_head.weight" if name == "lm_head.weight" else name] = tensor
    ours.load_state_dict(renamed)

    pixels = torch.randn(1, 3, 32, 32)
    ids = torch.tensor([5, 6, IMAGE, 7, 8, 9, 10])
    labels = torch.tensor([IGNORE, IGNORE, IGNORE, IGNORE, 8, IGNORE, 10])
    spread = [i for i in range(7) for _ in range(P if i == 2 else 1)]  # their convention: one placeholder a patch
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.where(ids == IMAGE, 60, ids)[spread][None], pixel_values=pixels, labels=labels[spread][None]
        )
        features = [[ours.features(pixels)[0]]]
        embeds, _, _ = ours.splice_batch([ids], features)
        logits = ours.language_model.head(ours.language_model(embeds))
        loss, count = ours.loss(Batch([ids], [labels], features))
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=1e-5)
    assert count == 2


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda b: b.features[0].clear(), "sample 0: 1 image tokens but 0 pictures"),
        (lambda b: b.features[1].append(picture(0)), "sample 1: 0 image tokens but 1 pictures"),
        (lambda b: b.ids[2].__setitem__(1, 61), "sample 2: token id 61 is outside the vocabulary of 61"),
        (lambda b: b.ids[2].__setitem__(1, -5), "sample 2: token id -5 is outside the vocabulary of 61"),
        (lambda b: b.labels[1].fill_(IGNORE), "sample 1: no supervised token"),
        (lambda b: b.labels[1][1:].fill_(IGNORE), "sample 1: no supervised token"),
        (lambda b: b.labels[1].__setitem__(1, 99), "sample 1: a label is outside the vocabulary of 61"),
        (lambda b: b.labels[0].__setitem__(2, 7), "sample 0: a label .* stands on an image token"),
        (lambda b: b.labels.__setitem__(1, torch.tensor([2, 3])), "sample 1: 3 ids but 2 labels"),
        (lambda b: b.ids.__setitem__(1, torch.tensor([], dtype=torch.long)), "sample 1: no tokens"),
        (
            lambda b: b.features[2].__setitem__(0, torch.zeros(60, 32)),
            "sample 2: 81 tokens after splicing, the language model reads 64",
        ),
        (lambda b: b.features[2].__setitem__(0, torch.zeros(4, 31)), r"sample 2: .* \(4, 31\), not \(P, 32\)"),
    ],
)
def test_a_bad_sample_is_named_before_anything_is_computed(model, monkeypatch, change, message):
    batch = some_batch()
    batch.labels[1][0] = 1  # supervised, but nothing comes before it: alone it does not count
    change(batch)
    for part in (model.language_model, model.projector):
        monkeypatch.setattr(part, "forward", lambda *_: pytest.fail("computed before checking"))
    monkeypatch.setattr(model.language_model, "embed", lambda *_: pytest.fail("embedded before checking"))
    with pytest.raises(SpliceError, match=message):
        model.loss(batch)


# what moves


@pytest.mark.parametrize("stage, moving", [(1, {"projector"}), (2, {"projector", "language_model"})])
def test_frozen_parts_get_no_gradient_and_do_not_move_by_a_bit(model, stage, moving):
    set_trainable(model, stage)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = some_batch()
    batch.features[0] = [model.features(torch.randn(1, 3, 32, 32))[0]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.loss(batch)[0].backward()
    optimizer.step()
    for name, p in model.named_parameters():
        if name.split(".")[0] in moving:
            assert p.grad is not None and not torch.equal(p, before[name]), name
        else:
            assert p.grad is None and torch.equal(p, before[name]), name


def test_going_back_to_stage_1_freezes_the_language_model_again_and_other_stages_are_refused(model):
    set_trainable(model, 2)
    set_trainable(model, 1)
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"projector"}
    with pytest.raises(ValueError, match="stage 3"):
        set_trainable(model, 3)


def test_a_batch_without_pictures_still_gives_the_projector_a_gradient_of_zero(model):
    set_trainable(model, 1)
    model.loss(Batch([torch.tensor([1, 2, 3])], [torch.tensor([IGNORE, 2, 3])], [[]]))[0].backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.projector.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_parts_sum_to_the_total(tied):
    model = Llava(LlavaConfig(VISION, LanguageConfig(61, 24, 40, 2, 4, tie_embeddings=tied)))
    parts = count_parameters(model)
    assert parts["projector"] == 32 * 24 + 24
    assert parts["embedding"] == 61 * 24 and parts["head"] == (0 if tied else 61 * 24)
    assert parts.pop("total") == sum(parts.values()) == sum(p.numel() for p in model.parameters())


def test_the_paper_projector_of_13b_has_5248000_parameters():
    with torch.device("meta"):
        vision = VisionConfig(224, 14, 1024, 4096, 24, 16)
        parts = count_parameters(Llava(LlavaConfig(vision, LanguageConfig(32000, 5120, 13824, 40, 40))))
    assert vision.num_patches == 256 and parts["projector"] == 5_248_000
    assert round(parts["total"] / 1e9, 1) == 13.3


def test_parts_of_other_sizes_and_unknown_projectors_are_refused():
    other = VisionTower(VisionConfig(32, 8, 16, 48, 1, 4))
    with pytest.raises(ValueError, match="other sizes than the LlavaConfig"):
        Llava(LlavaConfig(VISION, LANGUAGE), vision_tower=other)
    with pytest.raises(ValueError, match="projector 'mlp'"):
        Llava(LlavaConfig(VISION, LANGUAGE, projector="mlp"))

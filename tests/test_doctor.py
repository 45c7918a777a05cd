"""What a model costs, on paper, is what PyTorch counts when it runs; and the doctor says what fits."""

import json
import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from minillava import cli, machine, scales
from minillava.commands import doctor
from minillava.commands.cost import as_trained
from minillava.costs.hardware import Card, Hardware
from minillava.costs.model import (
    PRECISION_BYTES,
    SHAPES,
    cache_bytes,
    count_parameters,
    flops,
    memory,
    parameters,
)
from minillava.costs.preflight import fits, llava_config
from minillava.data import IGNORE, IMAGE
from minillava.model import Batch, Cache, LanguageConfig, Llava, LlavaConfig, VisionConfig, load_llava, set_trainable
from minillava.model.formats.files import read_config

torch.set_num_threads(1)

B, T, N = 2, 40, 9  # samples, tokens after splicing, supervised
VISION = VisionConfig(32, 8, 32, 48, 3, 4)
P = VISION.num_patches
FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def llava(projector="linear", layers=3, **changes):
    sizes = dict(vocab_size=97, hidden_size=64, intermediate_size=160, num_layers=layers, num_heads=4, num_kv_heads=2)
    return Llava(LlavaConfig(VISION, LanguageConfig(**(sizes | changes)), projector=projector))


def batch_of(features):
    ids = torch.arange(T - P + 1)
    ids[2] = IMAGE
    labels = torch.where(torch.arange(len(ids)) < len(ids) - N, IGNORE, ids)
    return Batch([ids] * B, [labels] * B, [[f] for f in features])


@pytest.mark.parametrize("stage", [None, 1, 2])
@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
@pytest.mark.parametrize("changes", [{}, {"head_dim": 24, "attention_bias": True, "num_kv_heads": 4}], ids=["", "odd"])
def test_arithmetic_is_what_torch_counts(stage, projector, changes):
    model = llava(projector, **changes).bfloat16()  # in which attention is written out, so that all of it is counted
    set_trainable(model, stage or 2)
    vision_tower = {
        FUSED: lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(q, k, v)
    }  # but for the frozen vision tower's
    with FlopCounterMode(display=False, custom_mapping=vision_tower) as counter:
        batch = batch_of(model.features(torch.randn(B, 3, 32, 32).bfloat16()))
        if stage:
            loss, count = model.loss(batch)
            loss.backward()
            assert count == B * N
        else:
            embeds, *_ = model.splice_batch(batch.ids, batch.features)
            model.language_model.head(model.language_model(embeds)[:, -N:])
    assert counter.get_total_flops() == B * flops(model.config, T, N, stage=stage)["total"]


def test_parameters_are_the_models_for_any_number_of_layers_and_a_million_take_no_time():
    for layers in ((1, 1), (3, 1), (2, 5)):
        vision, language = (
            replace(part, num_layers=n) for part, n in zip((llava().config.vision, llava().config.language), layers)
        )
        config = LlavaConfig(vision, language)
        assert parameters(config).items() >= count_parameters(Llava(config)).items()
    large = parameters(LlavaConfig(vision, replace(language, num_layers=1_000_000)))
    assert large["decoder"] - count_parameters(Llava(config))["decoder"] == 999_995 * sum(
        p.numel() for p in Llava(config).language_model.layers[0].parameters()
    )


def test_arithmetic_of_a_written_token_is_what_torch_counts():
    model = llava(num_kv_heads=4)
    cache = Cache(model.config.language, 1, T)
    count = {FUSED: lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(q, k, v)}
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=count) as counter:
        model.language_model(torch.randn(1, T - 1, 64), cache=cache)
        before = counter.get_total_flops()
        model.language_model.head(model.language_model(torch.randn(1, 1, 64), cache=cache))
        step = counter.get_total_flops() - before
    on_paper = flops(model.config, T, 1, 0)["total"] - flops(model.config, T - 1, 0, 0)["total"]
    # The difference of T x T and (T-1) x (T-1) pairs is 2T - 1; the new token attends to T of them.
    assert step == on_paper - 4 * 3 * (T - 1) * 4 * 16


def test_cache_bytes_are_those_of_the_cache():
    config = llava().config
    for dtype in (torch.float32, torch.float16):
        cache = Cache(config.language, 3, 7, dtype=dtype)
        held = sum(t.numel() * t.element_size() for t in cache.keys + cache.values)
        assert held == 3 * 7 * cache_bytes(config, dtype.itemsize)


def kept(model, features, autocast):
    """Bytes that autograd keeps for the backward pass of one loss, parameters themselves left out."""
    own, seen = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor keeps the address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model.loss(batch_of(features))
    return sum(size for size, _ in seen.values())


@pytest.mark.parametrize("precision", PRECISION_BYTES)
@pytest.mark.parametrize("stage", [1, 2])
def test_activations_and_low_copies_are_what_autograd_keeps(precision, stage):
    features, sizes, said = torch.randn(B, P, 32), [], []
    for layers in (3, 5):
        model = llava(layers=layers)
        set_trainable(model, stage)
        if precision == "bfloat16":
            model.bfloat16()
        sizes.append(kept(model, features, precision == "mixed"))
        needs = memory(model.config, stage, B, T, N, precision, fused=precision == "float32")
        trained = parameters(model.config)["total"] * PRECISION_BYTES[precision][0]
        said.append(needs["activations"] + needs["weights"] - trained)
    grown, on_paper = sizes[1] - sizes[0], said[1] - said[0]
    assert on_paper <= grown <= 1.03 * on_paper  # the rest: the casts of cos and sin, once a batch


class Peak(TorchDispatchMode):
    """The most bytes that tensors held at once, of those made while it is on; a model's own are not counted."""

    def __init__(self, model):
        super().__init__()
        self.held = self.most = 0
        self.known = {p.untyped_storage()._cdata for p in model.parameters()}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.held += storage.nbytes()
                    weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.held)
        return made

    def freed(self, which, size):
        self.known.discard(which)
        self.held -= size


@pytest.mark.parametrize("width, count", [(64, 1), (64, 20), (256, 1)], ids=["few", "many", "fewer than gradients"])
def test_gradients_take_the_place_of_activations_in_a_step_of_one_part(width, count):
    """The peak of a step, with few activations, many, and fewer than gradients."""
    model = llava(layers=8, hidden_size=width)
    set_trainable(model, 2)
    batch = batch_of(torch.randn(B, P, 32))
    batch = Batch(*(field * count for field in (batch.ids, batch.labels, batch.features)))
    for parts in (1, 2):
        with Peak(model) as seen:
            for _ in range(parts):
                model.loss(batch)[0].backward()
        model.zero_grad(set_to_none=True)
        needs = memory(model.config, 2, B * count, T, N, "float32", parts=parts)
        on_paper = needs["total"] - needs["weights"] - needs["optimizer"]
        assert seen.most == pytest.approx(on_paper, rel=0.07), needs


@pytest.mark.parametrize("projector", ["linear", "mlp2x_gelu"])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_and_what_each_stage_trains_are_what_the_model_has(projector, tied):
    model = llava(projector, tie_embeddings=tied)
    on_paper = parameters(model.config)
    assert on_paper["total"] == sum(p.numel() for p in model.parameters())
    for stage in (1, 2):
        set_trainable(model, stage)
        assert on_paper[f"stage {stage}"] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_memory_grows_as_it_should():
    config = SHAPES["full-7b"]
    base = memory(config, 2, 4, 512, 128, "bfloat16")
    twice = memory(config, 2, 8, 512, 128, "bfloat16")
    assert twice["activations"] == 2 * base["activations"] and twice["weights"] == base["weights"]
    again = memory(config, 2, 4, 512, 128, "bfloat16", checkpointing=True)
    assert again["activations"] < base["activations"] / 10
    assert memory(config, 1, 4, 512, 128)["optimizer"] == 4_198_400 * 8  # W and its bias (facts: 4096 x 1024 + 4096)
    assert base["total"] == sum(size for part, size in base.items() if part != "total")


def test_the_doctor_prints_every_scale_and_what_fits(capsys, monkeypatch):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in (
        "tiny",
        "colab",
        "full-7b",
        "full-13b",
        "fits here",
        "FLOPs per written token",
        "bfloat16 in hardware",
    ):
        assert word in out
    monkeypatch.setattr(machine, "available_memory", lambda: 8 * 2**30)
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = found["scales"]
    assert found["machine"]["memory"] == 8 * 2**30 and found["matmul"] > 1e8
    assert rows["tiny"]["stage 2"]["refused"] is None and not rows["full-13b"]["answering"]["fits"]
    assert "no change makes it fit here" in rows["full-13b"]["stage 2"]["refused"]
    assert rows["full-13b"]["parameters"]["projector"] == 5_248_000
    assert 1 < rows["full-13b"]["stage 2"]["80 GB GPUs"] <= 8  # the paper's own machine


def test_a_machine_with_a_gpu_is_judged_by_the_gpu():
    card = {"name": "a card", "count": 8, "memory": 80e9}
    here = {"gpu": card, "memory": 1e9, "bfloat16 in hardware": True, "system": "x", "processor": "y", "cores": 1, "torch": "z"}  # fmt: skip
    found = doctor.examine(5e14, here)
    assert not found["full-13b"]["stage 2"]["refused"] and found["full-13b"]["answering"]["fits"]  # as the paper did
    assert "8 x a card, 80 GB" in doctor.report(here, 5e14, found)
    here["gpu"] = card | {"count": 1, "memory": 24e9}
    found = doctor.examine(5e13, here)
    assert not found["colab"]["stage 2"]["refused"] and "LoRA of rank 64" in found["full-7b"]["stage 2"]["refused"]
    assert "full-7b, stage 2 needs" in doctor.report(here, 5e13, found)


@pytest.mark.parametrize("installed", [True, False])
def test_the_doctor_says_when_vicunas_tokenizer_cannot_be_read(monkeypatch, installed):
    monkeypatch.setattr(doctor, "find_spec", lambda name: installed or None)
    here = machine.describe_machine()
    assert ("minillava[real]" in doctor.report(here, 1e12, doctor.examine(1e12, here))) != installed


def test_the_doctor_fits_a_page_and_judges_as_training_does(capsys, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 8 * 2**30)
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 48 and max(map(len, lines)) < 120
    here = machine.describe_machine()
    on = Hardware(Card("here", here["memory"], 1e12, None, gpu=False))
    for name, row in doctor.examine(1e12, here).items():
        for stage in ("stage 1", "stage 2"):
            as_it_runs = as_trained(scales.find_scale(name).stage(stage), on)
            assert (row[stage]["refused"] is None) == fits(SHAPES[name], as_it_runs, on)


def test_parts_of_ones_own_are_examined_as_a_scale_is(capsys, weights):
    config = read_config(weights / "language_model" / "config.json")
    assert cli.main(["doctor", "--json", "--language-model", str(weights / "language_model"), "--scale", "smol"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["scales"].values()
    on_paper = parameters(llava_config(scales.TINY.vision_tower, weights / "language_model"))
    assert row["parameters"] == on_paper and on_paper["embedding"] == config["vocab_size"] * config["hidden_size"]
    assert {*row} == {*doctor.examine(1e12, machine.describe_machine())["smol"]}
    assert cli.main(["doctor", "--vision-tower", str(weights / "vision_tower"), "--language-model", "none"]) == 2
    assert "none: no such folder" in capsys.readouterr().err


def test_the_tiny_scale_is_the_shipped_one():
    config = load_llava(scales.WEIGHTS / "llava")[0].config  # a wheel is without this file
    assert replace(config, language=replace(config.language, ends=())) == SHAPES["tiny"]
    assert SHAPES["tiny"].language.hidden_size < 512 and machine.available_memory() > 2**28

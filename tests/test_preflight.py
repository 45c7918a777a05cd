"""What cannot fit is refused before it starts, with the smallest change that would fit - and that change does."""

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minillava import cli, scales
from minillava.costs import hardware, preflight
from minillava.costs.hardware import Card, Hardware, parse_hardware
from minillava.costs.model import SHAPES, parameters
from minillava.costs.preflight import DoesNotFit, device_bytes, disk_bytes, fits, lora_parameters
from minillava.model import Llava, LlavaConfig, set_trainable
from minillava.model.formats.files import CheckpointError, read_config
from minillava.model.formats.published import language_config, vision_config
from minillava.model.language import LanguageConfig
from minillava.model.vision import VisionConfig
from minillava.training import lora

STAGE_2 = scales.FULL_7B.stage("stage 2")
BIG, SMALL = SHAPES["full-7b"], LlavaConfig(VisionConfig(32, 8, 32, 48, 3, 4), LanguageConfig(97, 64, 160, 3, 4, 2))


def card(config, stage, share=1.0, count=1):
    """Hardware with just `share` of what the stage needs."""
    need = device_bytes(config, stage, count)["total"]
    return Hardware(Card("a card", share * need / preflight.USABLE_SHARE, 1e12, None), count)


def refused(*arguments):
    with pytest.raises(DoesNotFit) as caught:
        preflight.preflight(*arguments)
    return caught.value


def test_the_scales_fit_what_they_are_meant_for():
    laptop = Hardware(Card("a laptop", 8 * 2**30, 1e11, None, gpu=False))
    for scale in scales.REAL_SCALES.values():
        for stage in scale.stages:
            on = laptop if scale.hardware == "here" else parse_hardware(scale.hardware)
            preflight.preflight(SHAPES[scale.name], stage, on)


def test_a_stage_that_just_fits_is_accepted_and_with_less_memory_refused():
    preflight.preflight(BIG, STAGE_2, card(BIG, STAGE_2))
    assert "--micro 2 instead of 4" in str(refused(BIG, STAGE_2, card(BIG, STAGE_2, 0.9999)))


@pytest.mark.parametrize("stage", [scales.STAGE_1, STAGE_2], ids=["stage 1", "stage 2"])
@pytest.mark.parametrize("share", [0.95, 0.8, 0.5, 0.3])
@pytest.mark.parametrize("count", [1, 2])
def test_the_proposed_change_fits_and_nothing_smaller_does(stage, share, count):
    stage = replace(stage, checkpointing=False, shard=False, micro=8)
    there = card(BIG, stage, share, count)
    error = refused(BIG, stage, there)
    if "of these" in str(error):
        more = int(str(error).split("would fit: ")[1].split()[0])
        assert fits(BIG, error.change, replace(there, count=more)) and more > count
    elif error.change:
        smaller = list(preflight.cheaper_stages(stage, count))
        assert fits(BIG, error.change, there)
        assert not any(fits(BIG, change, there) for change in smaller[: smaller.index(error.change)])
    else:
        assert "a smaller scale" in str(error)


def test_a_13b_that_is_far_too_large_is_sent_to_a_smaller_scale():
    laptop = Hardware(Card("a laptop", 8e9, 1e11, None, gpu=False))
    error = refused(SHAPES["full-13b"], scales.FULL_13B.stage("stage 2"), laptop)
    assert error.change is None and "minillava cost" in str(error) and "a laptop has 7.2 GB" in str(error)


def test_lora_fits_7b_on_a_24_gb_card():
    assert "LoRA of rank 64" in str(refused(BIG, STAGE_2, parse_hardware("rtx-4090")))


def test_lora_adds_what_is_counted():
    model, rank = Llava(SMALL), 4
    matrices = [p for name, p in model.language_model.layers.named_parameters() if p.ndim == 2]
    assert len(matrices) == 7 * 3
    assert lora_parameters(SMALL, rank) == sum(rank * sum(p.shape) for p in matrices)


def test_lora_keeps_what_is_counted():
    model, stage = Llava(SMALL), replace(STAGE_2, lora=4)
    lora.add(model, 4, dtype=torch.bfloat16)
    held = sum(p.nbytes for p in model.parameters())
    copies = 2 * sum(p.numel() for p in model.parameters() if p.requires_grad)  # which autocast makes
    assert device_bytes(SMALL, stage)["weights"] == pytest.approx(held + copies, rel=0.01)  # norms are float32
    assert device_bytes(SMALL, stage)["weights"] < 0.7 * device_bytes(SMALL, replace(stage, lora=0))["weights"]


def test_shared_weights_are_split_over_the_devices():
    stage = replace(STAGE_2, batch=64)  # so that each of eight devices takes two parts
    one, eight = device_bytes(BIG, stage, 1), device_bytes(BIG, stage, 8)
    assert eight["optimizer"] == one["optimizer"] / 8 and eight["gradients"] == one["gradients"] / 8
    assert one["weights"] / 8 < eight["weights"] < one["weights"] / 3
    assert eight["activations"] == one["activations"]
    assert device_bytes(BIG, replace(stage, shard=False), 8) == one


def test_gradients_take_the_place_of_activations_only_where_each_device_takes_its_share_at_once():
    stage = replace(STAGE_2, checkpointing=False)  # a batch of 32, 4 at once
    for devices, batch in ((8, 32), (1, 4)):
        alone, several = (device_bytes(BIG, replace(stage, batch=n), devices) for n in (batch, batch + 1))
        assert several["gradients"] == 4 * parameters(BIG)["stage 2"] / devices
        assert several["gradients"] < several["activations"] and alone["gradients"] == 0
        assert alone["total"] == pytest.approx(several["total"] - several["gradients"])


def test_disk_is_what_checkpoints_and_the_model_take(tmp_path, monkeypatch):
    model = Llava(SMALL)
    set_trainable(model, 2)
    state = [p.numel() for p in model.parameters() if p.requires_grad]
    assert disk_bytes(SMALL, STAGE_2)["checkpoints"] == 3 * 3 * 4 * sum(state)
    usage = namedtuple("usage", "total used free")
    there = Hardware(Card("a card", 1e15, 1e12, None))

    def free(space):
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage(0, 0, space))
        return tmp_path / "not" / "yet"

    needs = disk_bytes(BIG, STAGE_2)
    preflight.preflight(BIG, STAGE_2, there, free(needs["total"]))
    assert "243 GB checkpoints" in str(refused(BIG, STAGE_2, there, free(needs["total"] - 1)))
    assert "LoRA of rank 64" in str(refused(BIG, STAGE_2, there, free(needs["model"] * 2)))
    assert "on another disk" in str(refused(BIG, STAGE_2, there, free(10**6)))
    (tmp_path / "not" / "yet").mkdir(parents=True)
    (tmp_path / "not" / "yet" / "of-this-run").write_bytes(b"1")  # the files of a run that resumes
    preflight.preflight(BIG, STAGE_2, there, free(needs["total"] - 1))


def test_a_gpu_that_the_run_leaves_alone_does_not_count(weights, tmp_path, monkeypatch):
    card = {"name": "a tiny GPU", "count": 1, "memory": 1}
    here = hardware.describe_machine() | {"gpu": card}
    for module in (preflight, hardware):
        monkeypatch.setattr(module, "describe_machine", lambda: dict(here))
    parts, stage = [str(weights / part) for part in ("vision_tower", "language_model")], scales.TINY.stage("stage 2")
    with pytest.raises(DoesNotFit, match="a tiny GPU"):
        preflight.preflight_here(*parts, stage, tmp_path)
    preflight.preflight_here(*parts, stage, tmp_path, 1, False)


def test_this_machine_is_checked_with_only_two_configs(weights, tmp_path, monkeypatch):
    parts = [str(tmp_path / part) for part in ("vision_tower", "language_model")]
    for part in parts:
        Path(part).mkdir()
        shutil.copy(weights / Path(part).name / "config.json", part)  # no weights beside it
    stage = scales.TINY.stage("stage 2")
    preflight.preflight_here(*parts, stage, tmp_path / "run")
    config = LlavaConfig(
        vision_config(read_config(tmp_path / "vision_tower/config.json")),
        language_config(read_config(tmp_path / "language_model/config.json")),
    )
    need = device_bytes(config, stage, fused=False)["total"] / preflight.USABLE_SHARE
    monkeypatch.setattr(
        preflight, "this_machine", lambda **_: Hardware(Card("a box", 1.5 * need, 1e9, None, gpu=False))
    )
    preflight.preflight_here(*parts, stage, tmp_path)
    with pytest.raises(DoesNotFit, match="--micro 12 instead of 24"):
        preflight.preflight_here(*parts, stage, tmp_path, processes=2)
    with pytest.raises(CheckpointError, match="nobody/nothing: no such folder here"):
        preflight.preflight_here("nobody/nothing", parts[1], stage, tmp_path)


def test_training_refuses_stage_2_before_stage_1_begins(weights, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    for name in ("stage1.json", "stage2.json"):
        (tmp_path / "data" / name).write_text("[]")  # nobody reads it
    monkeypatch.setattr(preflight, "this_machine", lambda **_: Hardware(Card("a box", 1, 1e9, None, gpu=False)))
    arguments = [
        "train",
        str(tmp_path / "data"),
        "--vision-tower",
        str(weights / "vision_tower"),
        "--language-model",
        str(weights / "language_model"),
    ]
    assert cli.main([*arguments, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "needs" in said and "a box has 0.9 B" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_hardware_is_named_by_count_and_card():
    assert parse_hardware("8xa100-80gb") == Hardware(hardware.CARDS["a100-80gb"], 8) and parse_hardware("t4").count == 1
    for bad in ("0xt4", "a100", "8x", "-1xt4", ""):
        with pytest.raises(scales.ScaleError, match="there are: here, t4"):
            parse_hardware(bad)
    assert hardware.this_machine().card.memory > 2**28

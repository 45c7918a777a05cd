"""The costs on the screen follow from the recipe and agree with the paper's own hours."""

import json
from dataclasses import asdict, replace

import pytest

from minillava import cli, paper, scales
from minillava.costs.estimate import estimate_stage, paper_utilisation
from minillava.costs.hardware import CARDS, Hardware, parse_hardware
from minillava.costs.model import SHAPES
from minillava.costs.preflight import llava_config
from minillava.training.stages import TOKENS_PER_CORE

EIGHT = parse_hardware("8xa100-80gb")


def test_hours_and_dollars_follow_from_arithmetic():
    stage, config = scales.FULL_13B.stage("stage 2"), SHAPES["full-13b"]
    one = estimate_stage(config, stage, EIGHT, 0.4)
    # 6 FLOPs a parameter and token, the rule of thumb, within 15 %: attention and the frozen vision tower come to it
    tokens = stage.samples * stage.epochs * (256 + stage.text)
    assert 1 < one.flops / (6 * 12.7e9 * tokens) < 1.15
    assert one.hours == pytest.approx(one.flops / (8 * 312e12 * 0.4) / 3600)
    assert one.dollars == pytest.approx(one.hours * 8 * CARDS["a100-80gb"].price)
    assert estimate_stage(config, stage, EIGHT, 0.8).hours == pytest.approx(one.hours / 2)
    assert estimate_stage(config, replace(stage, epochs=6), EIGHT, 0.4).hours == pytest.approx(one.hours * 2)
    assert estimate_stage(config, stage, EIGHT, 0.4, price=2).dollars == pytest.approx(one.hours * 16)
    assert estimate_stage(config, replace(stage, lora=64), EIGHT, 0.4).hours < 0.75 * one.hours


def test_the_papers_own_hours_are_possible():
    for stage in scales.FULL_13B.stages:
        hours, share = paper_utilisation(SHAPES["full-13b"], stage)
        assert hours == paper.RECIPES[stage.id].wall_hours
        assert 0.05 < share < 0.6, stage.id  # of 8 A100's peak: neither idle nor above what is possible
        assert estimate_stage(SHAPES["full-13b"], stage, EIGHT).hours <= hours


def test_every_scale_on_a_screen(capsys):
    assert cli.main(["cost"]) == 0
    out = capsys.readouterr().out
    for word in ("tiny: shipped vision tower", "lmsys/vicuna-13b-v1.3", "8 x A100", "stage 1", "W + LLM", "595,375 x 1", "4,651", "at most 4 h", "$"):  # fmt: skip
        assert word in out
    assert "epochs: 1 (paper 3): new records" in out
    for screen in out.split("-" * 104):
        assert len(screen.strip().splitlines()) < 45 and max(map(len, screen.splitlines())) < 175


def test_parts_of_ones_own_cost_what_they_would_as_a_scale(capsys, weights):
    own = ["--vision-tower", str(weights / "vision_tower"), "--language-model", str(weights / "language_model")]
    assert cli.main(["cost", "--hardware", "t4", *own]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"tiny: {own[1]} (") and own[3] in out and "To download" not in out and "3,000 x 1" in out
    assert cli.main(["cost", "--json", "--hardware", "t4", "--scale", "colab", *own]) == 0
    found = json.loads(capsys.readouterr().out)["colab"]
    config = llava_config(*own[1::2])
    again = [estimate_stage(config, stage, Hardware(CARDS["t4"])) for stage in scales.COLAB.stages]
    assert found["estimates"] == [asdict(e) for e in again] and found["recipe"][0]["samples"] == 60_000
    assert cli.main(["cost", "--scale", "full-13b", *own]) == 0
    assert "The paper, 13B" not in (out := capsys.readouterr().out) and "v1.3 has the same shape" not in out


def test_on_a_cpu_memory_is_for_the_tokens_that_training_takes_at_once(capsys):
    assert cli.main(["cost", "--json", "--scale", "tiny", "--hardware", "here"]) == 0
    for stage in json.loads(capsys.readouterr().out)["tiny"]["recipe"]:
        assert TOKENS_PER_CORE <= stage["micro"] * stage["longest"] < TOKENS_PER_CORE + stage["longest"]


def test_what_does_not_fit_says_so_beside_its_cost(capsys):
    assert cli.main(["cost", "--scale", "full-7b", "--hardware", "rtx-4090"]) == 0
    out = capsys.readouterr().out
    assert "too much" in out and "LoRA of rank 64" in out


def test_json_holds_the_same_figures(capsys):
    assert cli.main(["cost", "--scale", "colab", "--json", "--price", "0"]) == 0
    found = json.loads(capsys.readouterr().out)["colab"]
    assert found["hardware"] == "T4, 16 GB" and [e["dollars"] for e in found["estimates"]] == [0, 0, 0]
    again = estimate_stage(SHAPES["colab"], scales.COLAB.stage("stage 1"), Hardware(CARDS["t4"]))
    assert found["estimates"][0]["hours"] == again.hours and again.refused is None


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--scale", "huge"), "there are: tiny, smoke, smol, colab"),
        (("--hardware", "8xpotato"), "no hardware is called '8xpotato'"),
        (("--utilisation", "1.5"), "--utilisation 1.5"),
    ],
)
def test_a_wrong_option_is_reported_in_one_line(arguments, said, capsys):
    assert cli.main(["cost", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_here_is_this_machine_at_its_measured_speed(capsys):
    assert cli.main(["cost", "--scale", "tiny", "--hardware", "here"]) == 0
    out = capsys.readouterr().out
    assert "min" in out and "$" not in out

"""The scales have the paper's values, or a reason for each departure."""

from dataclasses import FrozenInstanceError, replace

import pytest

from minillava import paper, scales
from minillava.files import read_json
from minillava.model import find_checkpoint
from minillava.model.formats.files import CheckpointError
from minillava.standins.teacher import CONVERSATION_TURNS

EVERY = [*scales.PICTURE_BOOK_SCALES.values(), *scales.REAL_SCALES.values()]


@pytest.mark.parametrize("scale", EVERY, ids=lambda scale: scale.name)
def test_every_departure_from_the_paper_has_a_reason(scale):
    for stage in scale.stages:
        for name, (theirs, ours, why) in stage.reasons().items():
            assert theirs != ours and len(why) > 10, (scale.name, stage.id, name)


def test_a_departure_without_a_reason_is_an_error():
    with pytest.raises(KeyError, match="batch"):
        replace(scales.STAGE_1, batch=256).reasons()


def test_the_full_scales_are_the_papers_recipe():
    for scale in (scales.FULL_7B, scales.FULL_13B):
        assert [stage.departures() for stage in scale.stages] == [{}, {}, {}]
        assert scale.vision_tower == "openai/clip-vit-large-patch14" and scale.hardware == "8xa100-80gb"
        for stage in scale.stages:
            theirs = paper.RECIPES[stage.id]
            assert stage.steps == theirs.steps and stage.micro == theirs.per_gpu_batch
    assert [stage.steps for stage in scales.FULL_13B.stages] == [4651, 14812, 4772]


def test_the_tiny_scale_trains_what_the_miniature_does():
    one, two = scales.TINY.stages
    assert (one.number, one.samples, one.batch, one.lr, one.steps) == (1, 3000, 64, 4e-3, 46)
    assert (two.number, two.samples, two.batch, two.epochs) == (2, 4 * 1000 + 1600 + 5300, 24, 1)
    assert scales.QUESTIONS == CONVERSATION_TURNS
    assert replace(scales.TINY, turns=8, stage2_epochs=3).stage("stage 2").steps == 7900 * 3 // 24
    assert "epochs" not in replace(scales.TINY, stage2_epochs=3).stage("stage 2").reasons()


def test_the_smol_scales_stage_1_and_quiz_are_what_was_run_on_the_gpu():
    run = read_json(scales.WEIGHTS.parents[1] / "benchmarks" / "results" / "gpu-seen-first.json")
    (one, two, quiz), recipe = scales.SMOL.stages, run["recipe"]["smol"]
    for n, stage in ((1, one), (2, quiz)):
        assert (stage.batch, stage.lr) == (recipe[f"stage{n}_batch"], recipe[f"stage{n}_lr"])
        assert stage.optimizer == "Adam" and recipe["lr_muon"] == 0
    assert one.steps == run["steps"]["smol"][0] and (one.number, two.number) == (1, 2)
    taken = [result["quiz"]["steps"] for result in run["results"] if "quiz" in result]
    assert min(taken) <= quiz.steps <= max(taken)


def test_a_scale_whose_language_model_is_not_made_yet_says_what_makes_it(monkeypatch, tmp_path):
    assert "`make real` makes it" in scales.without_weights(scales.SMOL.language_model)
    monkeypatch.chdir(scales.WEIGHTS.parents[1])
    assert "`make real` makes it" in scales.without_weights("runs/real/smollm2")
    assert not scales.without_weights(tmp_path / "smollm2") and not scales.without_weights("runs/real")
    monkeypatch.setattr(scales, "SMOLLM2", tmp_path / "none")
    with pytest.raises(CheckpointError, match="none: no such folder yet. `make real`"):
        find_checkpoint(tmp_path / "none")


def test_scales_are_found_by_name_and_frozen():
    assert {s.name for s in EVERY} >= {"smoke", "tiny", "colab", "full-7b", "full-13b"}
    assert all(scales.find_scale(s.name) is s for s in EVERY)
    with pytest.raises(scales.ScaleError, match="there are: tiny, smoke, smol, colab, full-7b, full-13b"):
        scales.find_scale("huge")
    with pytest.raises(scales.ScaleError, match="has real parts: see `minillava cost`"):
        scales.picture_book_scale("full-13b")
    with pytest.raises(scales.ScaleError, match="there are: stage 1, stage 2, ScienceQA"):
        scales.COLAB.stage("stage 3")
    with pytest.raises(FrozenInstanceError):
        scales.FULL_7B.language_model = "another"

"""What a real language model learns to see from, how its W starts, and how what ships of it is put back."""

import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from minillava import cli, scales
from minillava.data.records import IMAGE_TOKEN, normalise
from minillava.data.tokenizer import load_tokenizer
from minillava.data.valid import read_records
from minillava.errors import CheckpointError
from minillava.files import read_json
from minillava.judging.answers import vision_features
from minillava.model import load_llava, load_projector
from minillava.model.formats.assemble import assemble
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw
from minillava.scenes.questions import questions
from minillava.standins import real, seeing
from minillava.training import lora

SMALL = scales.WEIGHTS / "language_model_small"


def small_model(seed=0):
    return assemble(real.VISION_TOWER, SMALL, seed).eval()


@pytest.fixture
def trained():
    """A model whose LoRA has learned something."""
    model = small_model()
    lora.add(model, 4)
    torch.manual_seed(1)
    for tensor in lora.adapters(model).values():
        tensor.normal_(std=0.05)
    return model


def test_most_records_are_one_question_half_of_them_asked_before_the_picture():
    records = seeing.seeing_records(60)
    assert not any(normalise(record)[1] for record in records)
    assert len({record["id"] for record in records}) == len(records) and seeing.seeing_records(60) == records
    single = [r for r in records if "-question-" in r["id"]]
    assert len(single) == 180 and all(len(r["conversations"]) == 2 for r in single)
    after = sum(r["conversations"][0]["value"].endswith(IMAGE_TOKEN) for r in single)
    assert 60 < after < 120
    for r in single:  # what they teach is true
        scene = compose("train", int(r["image"].split("-")[1].split(".")[0]))
        asked = r["conversations"][0]["value"].replace(IMAGE_TOKEN, "").strip()
        assert r["conversations"][1]["value"] in {q.answer for q in questions(scene) if q.text == asked}
    kinds = [r["id"].rsplit("-", 1)[1] for r in records if "image" in r and "-question-" not in r["id"]]
    assert (kinds.count("detail"), kinds.count("complex")) == (10, 10)
    text = [r for r in records if "image" not in r]
    assert text and not any(IMAGE_TOKEN in turn["value"] for r in text for turn in r["conversations"])


def test_the_command_writes_what_training_reads(tmp_path, capsys):
    assert cli.main(["generate", "--source", "questions", "--limit", "5", "--out", str(tmp_path)]) == 0
    records = read_records(tmp_path / "stage2.json")
    assert records == seeing.seeing_records(5)
    names = {r["image"] for r in records if "image" in r}
    assert {p.name for p in (tmp_path / "images").iterdir()} == names and len(names) == 5
    assert "--projector runs/real/projector.safetensors" in capsys.readouterr().out
    for wrong in (["--limit", "0"], ["--dry-run"], ["--format", "messages"]):
        assert cli.main(["generate", "--source", "questions", "--out", str(tmp_path), *wrong]) == 2
    assert cli.main(["generate", "--source", "questions:test", "--out", str(tmp_path)]) == 2


def test_w_starts_so_that_a_patch_looks_like_the_words_for_what_it_shows():
    model, tokenizer = small_model(), load_tokenizer(SMALL)
    real.start_w(model, tokenizer, boxes=200)
    scene = compose("bench", 3)
    thing = max(scene.things, key=lambda t: (t.box[2] - t.box[0]) * (t.box[3] - t.box[1]))
    Zv = vision_features(model, real.read_preparation(real.VISION_TOWER, 96), [draw(scene, 96)])[0]
    row, column = (int((a + b) / 2 / 1000 * 8) for a, b in ((thing.box[1], thing.box[3]), (thing.box[0], thing.box[2])))
    near = torch.cosine_similarity(model.projector(Zv[8 * row + column]), model.language_model.embed_tokens.weight)
    ids = {name: tokenizer(f" {name}").input_ids[-1] for name in ("red", "green", "blue", "black", "white", "yellow")}
    assert max(ids, key=lambda name: near[ids[name]]) == thing.colour


def test_lora_in_several_files_is_merged_as_it_was(trained, tmp_path):
    tensors = {name: t.clone() for name, t in lora.adapters(trained).items()}
    half = sorted(tensors)[: len(tensors) // 2]
    save_file({n: t for n, t in tensors.items() if n in half}, tmp_path / "adapter-1.safetensors")
    save_file({n: t for n, t in tensors.items() if n not in half}, tmp_path / "adapter-2.safetensors")
    lora.merge(trained)
    fresh = small_model()
    lora.load_adapters(fresh, sorted(tmp_path.glob("adapter-*")))
    for name, tensor in trained.language_model.state_dict().items():
        assert torch.equal(tensor, fresh.language_model.state_dict()[name]), name


def test_lora_of_another_model_or_in_part_is_refused(trained, tmp_path):
    tensors = lora.adapters(trained)
    lacking = dict(list(tensors.items())[:-1])
    for wrong in (lacking, {n: t.repeat(1, 2) if n.endswith(".a") else t for n, t in tensors.items()}):
        save_file({n: t.clone() for n, t in wrong.items()}, tmp_path / "adapter-1.safetensors")
        with pytest.raises(CheckpointError, match="made for another language model"):
            lora.load_adapters(small_model(), [tmp_path / "adapter-1.safetensors"])


def test_what_ships_becomes_a_model_that_one_can_talk_with(trained, tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    save_file({n: t.clone() for n, t in lora.adapters(trained).items()}, shipped / "adapter-1.safetensors")
    save_file(trained.projector.state_dict(), shipped / "projector.safetensors")
    (shipped / "card.json").write_text('{"trained on": "a test"}')
    monkeypatch.setattr(real, "SHIPPED", shipped)
    monkeypatch.setattr(real, "start_w", lambda model, tokenizer: model.projector.weight.data.fill_(0.5))
    monkeypatch.setattr(sys, "argv", ["real", str(SMALL), "--out", str(tmp_path)])
    real.main()
    assert load_file(tmp_path / "projector.safetensors")["weight"].unique().tolist() == [0.5]
    lora.merge(trained)
    model, _ = load_llava(tmp_path / "llava")
    for name, tensor in trained.state_dict().items():
        assert torch.allclose(tensor, model.state_dict()[name], atol=1e-6), name


def test_the_real_one_ships_whole_in_at_most_8_megabytes():
    files = [path for path in seeing.SHIPPED.iterdir() if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in files) < 8e6 and max(path.stat().st_size for path in files) < 4e6
    tensors = {name: t for path in files if path.stem != "projector" for name, t in load_file(path).items()}
    assert len(tensors) == 30 * 7 * 2 and {len(t) for n, t in tensors.items() if n.endswith(".a")} == {
        scales.SMOL.stage("stage 2").lora
    }
    assert SimpleNamespace(**load_file(seeing.SHIPPED / "projector.safetensors")).weight.shape == (576, 128)


def test_the_training_that_made_what_ships_runs_at_mock_size_and_leaves_what_loads(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(scales.WEIGHTS.parents[1] / "benchmarks"))
    import smol_cpu

    monkeypatch.setattr(
        sys, "argv", ["smol_cpu", "--quick", "--out", str(tmp_path), "--json", str(tmp_path / "r.json")]
    )
    threads = torch.get_num_threads()
    smol_cpu.main()
    torch.set_num_threads(threads)
    result, model = read_json(tmp_path / "r.json"), small_model(seed=5)
    assert len(result["sight"]["after"]) == 3 and len(result["knowledge"]) == 3 and len(result["loss"]) == 1
    assert {row["gate"] for row in result["gates"]} >= {"colour, picture after, blank", "lost after, own template"}
    load_projector(model, tmp_path / "projector.safetensors")
    lora.load_adapters(model, sorted(tmp_path.glob("adapter-*.safetensors")))


def test_the_shipped_run_is_the_scales_recipe():
    run = read_json(scales.WEIGHTS.parents[1] / "benchmarks" / "results" / "smol-cpu.json")
    stage, recipe = scales.SMOL.stage("stage 2"), run["recipe"]
    assert (stage.lora, stage.lr, stage.batch) == (recipe["rank"], recipe["lr"], recipe["batch"])
    assert abs(stage.steps / recipe["steps"] - 1) < 0.02 and run["seconds"] < 3600
    assert stage.samples == len(seeing.seeing_records(5500))

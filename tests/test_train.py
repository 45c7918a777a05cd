"""Many processes train what one does; and the command, from records and pictures to a model that answers."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import toy
from filelock import FileLock
from learn import learn
from mix import write_mix
from PIL import Image
from safetensors.torch import load_file, save_file

from minillava import cli, curves, machine, scales
from minillava.chat import Chat
from minillava.commands import stage_run, train
from minillava.commands.stage_run import StageRun
from minillava.costs.preflight import disk_bytes
from minillava.data import images as images_module
from minillava.data.records import write_records
from minillava.data.samples import plan_batches
from minillava.data.template import CHAT_V1
from minillava.data.tokenizer import load_tokenizer
from minillava.files import FileError, write_jsonl
from minillava.model import load_llava
from minillava.model.formats import marks
from minillava.model.formats.assemble import assemble
from minillava.model.formats.preparation import read_preparation
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import caption_record, instruction_record
from minillava.training import features, stages
from minillava.training.checkpoints import latest
from minillava.training.features import Features
from minillava.training.stages import TOKENS_PER_CORE

LEARN = Path(__file__).parent / "learn.py"


def torchrun(*script):
    """The script, or -m module, in two processes of one group, as a person starts them; one that fails stops both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        port,
    ]
    names = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    done = subprocess.run(
        [sys.executable, *map(str, start), *map(str, script)], env=names, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def one(tmp_path, monkeypatch):
    """What one process makes of it: (losses, weights)."""
    monkeypatch.setattr(stages, "adam", toy.sgd)
    learn(tmp_path / "one")
    return made(tmp_path / "one")


def made(folder):
    return json.loads((folder / "losses.json").read_text()), load_file(folder / "whole.safetensors")


def close(one, two):
    assert one[0] == pytest.approx(two[0], abs=3e-5) and len(one[0]) == 6
    for name, tensor in one[1].items():
        torch.testing.assert_close(two[1][name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shard", [True, False])
def test_two_processes_equal_one_also_with_uneven_batches_and_texts_without_a_picture(tmp_path, one, shard):
    assert sorted(map(len, plan_batches([1] * 9, 4, 3, 0, uneven=True))) == [1, 4, 4]
    torchrun(LEARN, tmp_path / "two", "shard" if shard else "whole")
    close(one, made(tmp_path / "two"))
    assert len((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()) == 6


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, one):
    folder = tmp_path / "changed"
    torchrun(LEARN, folder, "shard", 2)
    files = (folder / "checkpoints" / "step-00000002").glob("*.safetensors")
    assert latest(folder)["step"] == 2 and {p.name[:11] for p in files} == {"shard-00001", "shard-00002"}
    learn(folder, stop=4)
    assert latest(folder)["step"] == 4
    torchrun(LEARN, folder, "shard")
    close(one, made(folder))


# the command


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder of twelve pictures."""
    folder, some = tmp_path_factory.mktemp("data"), scenes("train", 12)
    (folder / "images").mkdir()
    for scene in some:
        draw(scene, 96).save(folder / "images" / f"{scene.id}.png")
    write_records([caption_record(s) for s in some], folder / "stage1.json")
    write_records([instruction_record(s, "conversation") for s in some], folder / "stage2.json")
    return folder


def command(weights, data, out):
    parts = {
        "--vision-tower": weights / "vision_tower",
        "--language-model": weights / "language_model",
        "--out": out,
        "--batch": 5,
    }
    return ["train", str(data), *(str(part) for pair in parts.items() for part in pair)]


@pytest.fixture
def run(weights, data, tmp_path, capsys):
    def start(*more, data=data, out="out"):
        status = cli.main([*command(weights, data, tmp_path / out), *more])
        return status, *capsys.readouterr(), tmp_path / out

    return start


def test_the_command_trains_both_stages_and_its_model_is_complete(run, monkeypatch):
    status, said, _, out = run("--dtype", "float32", "--epochs", "1")
    assert status == 0 and "12 samples, 3 steps of 5, 1 process(es)" in said
    filled = re.findall(r"(\d+) % of them filled", said)
    assert len(filled) == 2 and all(70 < int(percent) <= 100 for percent in filled)
    assert f"up to {TOKENS_PER_CORE} tokens at once" in said
    model, about = load_llava(out / "model")
    assert about["scale"] == "tiny" and (out / "model" / "tokenizer.json").exists()
    foreseen = disk_bytes(model.config, scales.TINY.stage("stage 2"), gpu=False)["model"]
    assert (out / "model" / "model.safetensors").stat().st_size == pytest.approx(foreseen, rel=0.02)
    W = load_file(out / "stage1" / "projector.safetensors")["weight"]
    assert W.shape == model.projector.weight.shape and not torch.equal(W, model.projector.weight)
    status, said, _, _ = run("--epochs", "1")
    assert status == 0 and said.count("done before") == 2


@pytest.mark.parametrize("kind, least, compiled", [("cuda", 1, True), ("cuda", 10**6, False), ("cpu", 1, False)])
def test_blocks_are_compiled_on_a_gpu_if_the_language_model_is_large(monkeypatch, kind, least, compiled):
    made, model = [], toy.tiny_llava()
    monkeypatch.setattr(stage_run, "compile_blocks", made.append)
    monkeypatch.setattr(stage_run, "COMPILED_FROM", least)
    one = SimpleNamespace(stage=scales.TINY.stage("stage 2"), lora_rank=0, device=torch.device(kind))
    assert StageRun._prepared(one, model) is model and made == [model] * compiled


def test_the_command_trains_lora_and_merges_it(run, weights):
    status, _, _, out = run("--lora", "2", "--epochs", "1", "--tokens", "300")
    assert status == 0 and len(load_file(out / "stage2" / "adapter.safetensors")) == 2 * 2 * 7
    assert load_llava(out / "model")[0]
    assert cli.main(["export", str(out / "model"), "--to", "peft", "--out", str(out / "peft")]) == 0
    base = json.loads((out / "peft" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(weights / "language_model")


@pytest.mark.parametrize("how", [("--dtype", "float32"), ("--dtype", "bfloat16", "--lora", "2")], ids=["all", "lora"])
def test_the_command_under_torchrun_makes_the_same_model(run, weights, data, tmp_path, how):
    more = ("--epochs", "1", "--lr", "1e-4", *how)
    assert run(*more, out="one")[0] == 0
    torchrun("-m", "minillava", *command(weights, data, tmp_path / "two"), *more)
    one, two = (load_llava(tmp_path / out / "model")[0].state_dict() for out in ("one", "two"))
    names = [
        n for n in one if "--lora" not in how or "projector" not in n
    ]  # Adam's first steps go by signs, W's are noise
    assert len(names) > 20 and max((one[name] - two[name]).abs().max() for name in names) < 1e-3


def test_what_is_wrong_with_the_data_is_said_before_anything_is_trained(run, data, tmp_path):
    status, _, error, _ = run(data=tmp_path)
    assert status == 2 and "neither stage1.json nor stage2.json" in error
    broken = shutil.copytree(data, tmp_path / "broken")
    records = json.loads((broken / "stage1.json").read_text())
    (broken / "stage1.json").write_text(json.dumps([{"id": f"r{n}"} for n in range(12)] + records))
    status, _, error, out = run(data=broken)
    assert status == 2 and "12 of 24 records cannot be used, and at most 1 %" in error and "r0, r1, r2" in error
    assert "r11" not in error and "r11" in (out / "stage1" / "left_out.jsonl").read_text()
    shutil.copy(data / "stage1.json", broken)
    for picture in list((broken / "images").iterdir())[:2]:
        picture.unlink()
    status, _, error, _ = run(data=broken)
    assert status == 2 and "2 of 12 records cannot be used" in error and "a picture is missing" in error
    (broken / "stage1.json").unlink()
    status, _, error, _ = run(data=broken)
    assert status == 2 and "stage 2 starts from the W of stage 1" in error


def test_the_fields_files_are_trained_on_after_a_table_of_what_was_taken_and_an_allowance(run, tmp_path):
    write_mix(tmp_path)
    status, said, error, out = run("--epochs", "1", data=tmp_path)
    assert status == 2 and "5 of 20 records cannot be used, and at most 1 %" in error and "vg/torn.jpg" in error
    assert not (out / "stage1" / "features.jsonl").exists()  # the vision tower has not looked
    for wrong in ("-1", "101%", "many", "0.5"):
        with pytest.raises(SystemExit):
            run("--allow-bad", wrong, data=tmp_path)
    status, said, _, out = run("--epochs", "1", "--allow-bad", "25%", data=tmp_path)
    table, _, rest = said.partition("stage 1: ")
    assert (
        status == 0
        and rest.startswith("15 samples")
        and table.rstrip() == (out / "stage1" / "records.txt").read_text().rstrip()
    )
    (tmp_path / "stage1.json").rename(tmp_path / "stage1.jsonl")  # also under this name, and as lines
    rows = json.loads((tmp_path / "stage1.jsonl").read_text())
    (tmp_path / "stage1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("--epochs", "1", "--allow-bad", "5", data=tmp_path, out="lines")[0] == 0
    one, two = (load_file(tmp_path / name / "stage1" / "projector.safetensors")["weight"] for name in ("out", "lines"))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    "wrong",
    [
        "--batch 0",
        "--micro 0",
        "--epochs 0",
        "--lora -1",
        "--tokens -5",
        "--lr -1",
        "--lr nan",
        "--stage1-lr -1",
        "--w-lr -1",
        "--limit 0",
        "--seed -1",
    ],
)
def test_settings_without_sense_are_said_before_anything_is_written(run, wrong):
    status, _, error, out = run(*wrong.split())
    assert status == 2 and f"{wrong.split()[0]} " in error and "is needed" in error and not out.exists()


def test_bad_records_of_stage_2_are_found_before_stage_1_is_trained(run, data, tmp_path):
    broken = shutil.copytree(data, tmp_path / "broken")
    (broken / "stage2.json").write_text('[{"id": "bad"}]')
    status, _, error, out = run(data=broken)
    assert status == 2 and "no record is left" in error
    assert not (out / "stage1" / "metrics.jsonl").exists()


def test_records_that_changed_under_a_half_finished_run_are_refused_until_they_are_put_back(run, data, tmp_path):
    mine = shutil.copytree(data, tmp_path / "data")
    (mine / "stage2.json").unlink()
    out = run(data=mine)[-1]
    (out / "stage1" / "projector.safetensors").unlink()  # as if it had been stopped just before
    before = (mine / "stage1.json").read_text()
    records = json.loads(before)
    records[3]["conversations"][1]["value"] = "Something else."
    write_records(records, mine / "stage1.json")
    status, _, error, _ = run(data=mine)
    assert status == 2 and "its records have changed since the half-finished run here began" in error
    (mine / "stage1.json").write_text(before)
    assert run(data=mine)[0] == 0 and (out / "stage1" / "projector.safetensors").exists()


def test_a_half_finished_run_is_not_gone_on_with_another_vision_tower_language_model_or_rank(run, weights, tmp_path):
    other = shutil.copytree(weights / "language_model", tmp_path / "other")
    out = run("--lora", "2")[-1]
    shutil.rmtree(out / "model")  # as if it had been stopped just before
    for more, what in (
        (("--lora", "4"), "stage2: holds a half-finished run of another recipe (trained)"),
        (
            ("--lora", "2", "--language-model", str(other)),
            "stage1: holds a finished run of another recipe (language_model)",
        ),
    ):
        status, _, error, _ = run(*more)
        assert status == 2 and what in error
    assert run("--lora", "2")[0] == 0 and (out / "model").exists()


@pytest.fixture(scope="module")
def trained(weights, data, tmp_path_factory):
    """The folder of a finished run on `data`."""
    folder = tmp_path_factory.mktemp("trained")
    assert cli.main([*command(weights, data, folder / "out"), "--epochs", "1"]) == 0
    return folder / "out"


@pytest.fixture
def finished(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "out")


def result(out):
    return (out / "model" / "model.safetensors").read_bytes()


def changed_data(data, folder, name):
    """A copy of the data with another answer in one record of one file."""
    mine = shutil.copytree(data, folder)
    records = json.loads((mine / name).read_text())
    records[3]["conversations"][1]["value"] = "Something else."
    write_records(records, mine / name)
    return mine


@pytest.mark.parametrize(
    "more, what",
    [(("--epochs", "2"), "(steps)"), (("--seed", "1"), "(seed)"), (("--batch", "4"), "(batch)"), (("--lr", "1e-5"), "(lr, muon)"),
     (("--lora", "2"), "(lora, muon)"), (("--language-model", "other"), "(language_model)"), (("--vision-tower", "other"), "(vision_tower)")],
)  # fmt: skip
def test_a_finished_run_is_not_taken_for_one_of_another_recipe(run, finished, weights, tmp_path, more, what):
    if more[1] == "other":
        more = more[0], str(shutil.copytree(weights / more[0][2:].replace("-", "_"), tmp_path / "other"))
    status, said, error, out = run("--epochs", "1", *more)
    assert status == 2 and "holds a finished run of another recipe" in error and what in error, error
    assert out == finished and result(out) == result(finished) and "stage 2: done before" not in said
    assert run("--epochs", "1")[1].count("done before") == 2


@pytest.mark.parametrize("name", ["stage1.json", "stage2.json"])
def test_a_finished_run_is_not_taken_for_one_on_other_records(run, data, finished, tmp_path, name):
    mine, before = changed_data(data, tmp_path / "mine", name), result(finished)
    status, said, error, _ = run("--epochs", "1", data=mine)
    assert status == 2 and f"{name[:6]}: its records have changed since the finished run here began" in error
    assert result(finished) == before and said.count("done before") == (name == "stage2.json")
    assert run("--epochs", "1")[1].count("done before") == 2  # the samples of `data` again


def turned(images, folder):
    """A copy of the pictures, each upside down under its old name."""
    folder.mkdir()
    for path in images.iterdir():
        Image.open(path).rotate(180).save(folder / path.name)
    return folder


@pytest.mark.parametrize("state", ["finished", "half-finished"])
def test_a_run_is_not_taken_for_one_on_other_pictures_of_the_same_names(run, data, finished, tmp_path, state):
    mine, before = shutil.copytree(data, tmp_path / "mine"), result(finished)
    assert run("--epochs", "1", data=mine)[1].count("done before") == 2  # the same pictures in another place
    other = turned(data / "images", tmp_path / "turned")
    if state == "half-finished":  # as if it had been stopped just before
        (finished / "stage1" / "projector.safetensors").unlink()
    says = f"stage1: its pictures have changed since the {state} run here began; put them back"
    for how in (
        lambda: ("--images", str(other)),
        lambda: shutil.copytree(other, mine / "images", dirs_exist_ok=True) and (),
    ):
        status, said, error, out = run("--epochs", "1", *how(), data=mine)
        assert status == 2 and says in error and "done before" not in said and result(out) == before
    assert run("--epochs", "1")[0] == 0


@pytest.mark.parametrize("part", ["vision_tower", "language_model"])
def test_a_part_is_known_by_its_weights_not_only_by_its_folders_name(run, data, finished, weights, tmp_path, part):
    other, option = tmp_path / "other" / part, f"--{part.replace('_', '-')}"
    shutil.copytree(weights / part, other)
    assert run("--epochs", "1", option, str(other))[1].count("done before") == 2  # the same weights in another place
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor + (name == min(tensors)) for name, tensor in tensors.items()}, other / "model.safetensors")
    status, said, error, out = run("--epochs", "1", option, str(other))
    assert status == 2 and f"stage1: holds a finished run of another recipe ({part}_weights)" in error, error
    mine = shutil.copytree(data, tmp_path / "mine")
    (mine / "stage1.json").unlink()
    status, _, error, _ = run("--epochs", "1", option, str(other), data=mine)  # also where W alone is used
    assert status == 2 and f"stage2: holds a finished run of another recipe ({part}_weights)" in error
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "stage2")
    status, _, error, _ = run("--epochs", "1", option, str(other), data=mine)
    assert status == 2 and f"projector.safetensors: trained with the {part}_weights" in error


def test_of_large_weights_pieces_are_compared(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(marks, "LOOKS", 3)
    monkeypatch.setattr(marks, "PIECE", 100)
    part, found = shutil.copytree(weights / "vision_tower", tmp_path / "part"), []
    found.append(marks.weights_checksum(part))
    with open(part / "model.safetensors", "r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 3 + 50)
        file.write(b"another")
    found.append(marks.weights_checksum(part))
    (part / "preprocessor_config.json").write_text("{}")
    found.append(marks.weights_checksum(part))
    assert len(set(found)) == 3 == len({*found, marks.weights_checksum(shutil.copytree(part, tmp_path / "copy"))})


def test_the_w_of_other_data_or_another_part_joins_no_stage_2_silently(run, data, finished, weights, tmp_path):
    shutil.rmtree(finished / "model")
    mine = changed_data(data, tmp_path / "mine", "stage1.json")
    status, _, error, out = run("--epochs", "1", data=mine)
    assert status == 2 and "stage1: its records have changed" in error and not (out / "model").exists()
    (mine / "stage1.json").unlink()  # on purpose: then the model says so
    assert run("--epochs", "1", data=mine)[0] == 0
    about = load_llava(out / "model")[1]
    assert about["trained on"] == f"stage 1: {data.name}, 12 records; stage 2: mine, 12 records"
    for part in ("vision_tower", "language_model"):
        shutil.rmtree(out / "model")
        shutil.rmtree(out / "stage2")
        other = shutil.copytree(weights / part, tmp_path / f"other_{part}")
        status, _, error, _ = run("--epochs", "1", f"--{part.replace('_', '-')}", str(other), data=mine)
        assert status == 2 and f"projector.safetensors: trained with the {part} {part}, not with {other.name}" in error
        assert run("--epochs", "1", data=mine)[0] == 0


def test_stage_2_begins_with_another_runs_w_on_some_of_the_records(run, finished, tmp_path):
    W = shutil.move(finished / "stage1" / "projector.safetensors", tmp_path / "mine.safetensors")
    status, said, _, out = run("--epochs", "1", "--projector", str(W), "--limit", "7", out="from_w")
    assert status == 0 and "stage 2: 7 samples" in said and not (out / "stage1").exists()
    assert load_llava(out / "model")[1]["trained on"].startswith("W: mine.safetensors; stage 2: ")
    assert "stage 2: done before" in run("--epochs", "1", "--projector", str(W), "--limit", "7", out="from_w")[1]
    assert "(pictures, records, samples" in run("--epochs", "1", "--projector", str(W), "--limit", "8", out="from_w")[2]
    save_file({name: tensor + 1 for name, tensor in load_file(W).items()}, W)
    assert "(W)" in run("--epochs", "1", "--projector", str(W), "--limit", "7", out="from_w")[2]
    save_file({"weight": torch.zeros(8, 8), "bias": torch.zeros(8)}, W)
    status, _, error, out = run("--projector", str(W), out="other")
    assert status == 2 and "mine.safetensors: this projector was made for a 8-wide vision tower" in error
    assert not (out / "model").exists()
    assert "--projector none: no such file" in run("--projector", "none")[2]


def test_a_trained_llava_goes_on_with_new_records(run, data, finished, tmp_path):
    def more(*arguments, out="more"):
        arguments = ["train", str(data), "--out", str(tmp_path / out), "--epochs", "1", "--batch", "5", *arguments]
        return cli.main(arguments), load_llava(tmp_path / out / "model") if (
            tmp_path / out / "model"
        ).exists() else None

    weights = ["--weights", str(finished / "model")]
    status, made = more(*weights, "--lr", "0", "--dtype", "float32")
    before, about = load_llava(finished / "model")
    assert status == 0 and not (tmp_path / "more" / "stage1").exists()
    assert all(torch.equal(p, made[0].state_dict()[name]) for name, p in before.state_dict().items())
    assert made[1]["template"] == about["template"] == "chat_v1"
    assert made[1]["trained on"] == about["trained on"] + f"; stage 2: {data.name}, 12 records"
    assert made[0].language_model.origin == before.language_model.origin == "language_model"
    assert Chat(tmp_path / "more" / "model").template == CHAT_V1
    assert more(*weights, "--lora", "2", out="lora")[0] == 0
    peft = ["export", str(tmp_path / "lora" / "model"), "--to", "peft", "--out", str(tmp_path / "peft")]
    assert cli.main(peft) == 2  # PEFT cannot load what this LoRA began from
    first = str(tmp_path / "more" / "model")
    assert more("--weights", first, out="lora")[0] == 2  # which began with other weights
    assert more(*weights, "--vision-tower", first, out="two")[0] == more("--weights", "none", out="two")[0] == 2


def test_what_generate_writes_is_trained_on_without_a_copy_by_hand(run, finished, tmp_path, monkeypatch):
    from minillava.figures import data as figures_data

    monkeypatch.setattr(figures_data, "statistics_figure", lambda _: SimpleNamespace(savefig=lambda *_: None))
    for source in ("picture-book", "quiz"):
        assert cli.main(["generate", "--source", source, "--limit", "4", "--out", str(tmp_path / source)]) == 0
    moved = shutil.move(tmp_path / "picture-book", tmp_path / "moved")
    status, said, _, _ = run("--epochs", "1", data=moved, out="new")
    assert status == 0 and "stage 1: 4 samples" in said and "stage 2: 10 samples" in said
    W = str(finished / "stage1" / "projector.safetensors")
    status, said, _, _ = run("--epochs", "1", "--projector", W, data=tmp_path / "quiz", out="quizzed")
    assert status == 0 and "stage 2: 4 samples" in said and "changed" not in said


def test_a_w_of_other_widths_is_refused(run, data, tmp_path):
    (tmp_path / "out/stage1").mkdir(parents=True)
    save_file({"weight": torch.zeros(8, 8), "bias": torch.zeros(8)}, tmp_path / "out/stage1/projector.safetensors")
    mine = shutil.copytree(data, tmp_path / "mine")
    (mine / "stage1.json").unlink()
    status, _, error, out = run(data=mine)
    assert status == 2 and "projector.safetensors: this projector was made for a 8-wide vision tower" in error
    assert not (out / "model").exists()


def test_a_model_is_saved_with_the_template_that_it_learned_and_without_its_makers(run, weights, tmp_path):
    theirs = shutil.copytree(weights / "language_model", tmp_path / "theirs")
    tokenizer = load_tokenizer(theirs)
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"
    tokenizer.save_pretrained(theirs)
    status, _, _, out = run("--epochs", "1", "--language-model", str(theirs))
    assert status == 0 and (theirs / "chat_template.jinja").exists()
    assert load_llava(out / "model")[1]["template"] == "chat_v1"
    ours = load_tokenizer(out / "model")
    assert not ours.chat_template and ours.bos_token is None  # which was only named
    assert Chat(out / "model").template == CHAT_V1


def test_stage_2_stopped_in_the_middle_does_not_go_on_from_another_w(run, data, finished, tmp_path):
    for gone in ("model", "stage1"):
        shutil.rmtree(finished / gone)
    status, _, error, _ = run("--epochs", "1", data=changed_data(data, tmp_path / "mine", "stage1.json"))
    assert status == 2 and "stage2: holds a half-finished run of another recipe (W)" in error


@pytest.mark.parametrize("harm", toy.HARMS)
@pytest.mark.parametrize("name", ["stage1/projector.safetensors", "stage1/done.json", "model/model.safetensors", "model/tokenizer.json", "stage2/done.json"])  # fmt: skip
def test_a_damaged_result_is_named_and_made_again_from_its_checkpoint(run, finished, name, harm):
    before, W = result(finished), (finished / "stage1" / "projector.safetensors").read_bytes()
    harm(finished / name)
    status, said, error, out = run("--epochs", "1")
    assert status == 2 and name in error and "; remove " in error and "Traceback" not in error
    Path(error.partition("; remove ")[2].partition(",")[0]).unlink()
    status, said, _, out = run("--epochs", "1")
    assert status == 0 and said.count("done before") == 1
    assert result(out) == before and (out / "stage1" / "projector.safetensors").read_bytes() == W
    assert run("--epochs", "1")[1].count("done before") == 2


def test_a_damaged_w_starts_no_stage_2_and_one_of_unknown_origin_is_not_overwritten(run, data, finished, tmp_path):
    shutil.rmtree(finished / "model")
    shutil.rmtree(finished / "stage2")
    toy.flip(finished / "stage1" / "projector.safetensors")
    only = shutil.copytree(data, tmp_path / "only")
    (only / "stage1.json").unlink()
    status, _, error, out = run("--epochs", "1", data=only)
    assert (
        status == 2 and "projector.safetensors: not as it was written; remove" in error and not (out / "model").exists()
    )
    (out / "stage1" / "done.json").unlink()
    shutil.rmtree(out / "stage1" / "checkpoints")
    before = (out / "stage1" / "projector.safetensors").read_bytes()
    status, _, error, _ = run("--epochs", "1")
    assert status == 2 and "nothing says how it was trained" in error
    assert (out / "stage1" / "projector.safetensors").read_bytes() == before


def test_a_run_stopped_between_its_result_and_the_note_of_it_goes_on(run, finished):
    (finished / "stage1" / "done.json").unlink()
    status, said, _, out = run("--epochs", "1")
    assert status == 0 and said.count("done before") == 1 and (out / "stage1" / "done.json").exists()


def test_stage_2_can_follow_the_recipe_of_scienceqa(run, monkeypatch):
    status, _, error, _ = run("--recipe", "ScienceQA")
    assert status == 2 and "the scale tiny has no 'ScienceQA'; there are: stage 1, stage 2" in error
    seen = []
    monkeypatch.setattr(StageRun, "train", lambda self: seen.append(self.stage))
    assert run("--recipe", "ScienceQA", "--scale", "colab")[0] == 0
    assert [(s.id, s.batch, s.epochs) for s in seen] == [("stage 1", 5, 1), ("ScienceQA", 5, 3)]


def test_two_runs_in_one_folder_are_refused(run, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        status, _, error, out = run()
    assert status == 2 and "another run is at work in this folder" in error
    assert [p.name for p in out.iterdir()] == [".lock"]


def test_what_cannot_fit_is_refused_before_anything_is_written_with_what_would_fit(run, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 8e6)
    status, _, error, out = run("--micro", "5")
    assert status == 2 and "of memory" in error and "what would fit: " in error and not out.exists()


@pytest.mark.parametrize(
    "said, threads",
    [({}, 8), ({"OMP_NUM_THREADS": "3"}, None), ({"OMP_NUM_THREADS": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, 4),
     ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "20"}, 1)],
)  # fmt: skip
def test_processes_share_the_cores(monkeypatch, said, threads):
    seen = []
    for name in ("OMP_NUM_THREADS", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    train.share_cores()
    assert seen == ([threads] if threads else [])


@pytest.mark.parametrize(
    "kind, capability, flags, bf16, dtype",
    [("cpu", "AVX512", "avx512f avx512_bf16 amx_bf16", None, torch.bfloat16), ("cpu", "AVX512", "avx512f", None, torch.float32),
     ("cpu", "AVX2", "avx2 avx512_bf16", None, torch.float32), ("cpu", "DEFAULT", "", None, torch.float32),
     ("cuda", "", "", True, torch.bfloat16), ("cuda", "", "", False, torch.float16)],
    ids=["in hardware", "emulated", "not compiled for", "another", "a100", "t4"],
)  # fmt: skip
def test_the_machine_is_asked_for_its_precision(monkeypatch, kind, capability, flags, bf16, dtype):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(
        machine, "Path", lambda _: SimpleNamespace(exists=lambda: True, read_text=lambda encoding: f"flags: {flags}")
    )
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 and not including_emulation)
    assert machine.compute_dtype(kind) == dtype


@pytest.mark.parametrize("more, tokens", [([], TOKENS_PER_CORE), (["--tokens", "500"], 500), (["--micro", "2"], 640)])
def test_memory_is_foreseen_for_as_many_tokens_as_are_computed_at_once(run, monkeypatch, more, tokens):
    seen = []
    monkeypatch.setattr(train, "preflight_here", lambda vision, language, stage, *_: seen.append(stage))
    monkeypatch.setattr(StageRun, "train", lambda self: seen.append(self.tokens))
    assert run(*more)[0] == 0 and seen[2:] == [tokens] * 2
    assert all(tokens <= stage.micro * stage.longest_sample < tokens + 320 for stage in seen[:2])


def planned(*more):
    """The stages' recipes that a command line at the scale full-7b asks for."""
    options = cli.parser("train").parse_args(["train", "data", "--scale", "full-7b", *more])
    return train.plan_stages(options, scales.find_scale("full-7b"), [1, 2])


def test_each_stage_has_its_own_rate_and_activations_can_be_kept():
    rates = [stage.lr for stage in planned()]
    assert [stage.lr for stage in planned("--lr", "1")] == [rates[0], 1]
    assert [stage.lr for stage in planned("--stage1-lr", "1")] == [1, rates[1]]
    assert [stage.lr for stage in planned("--stage1-lr", "1", "--lr", "3")] == [1, 3]
    for more, kept in ((["--no-checkpointing"], False), (["--checkpointing"], True), ([], True)):
        assert [stage.checkpointing for stage in planned(*more)] == [kept] * 2


def test_w_can_have_a_rate_of_its_own_in_stage_2(run):
    status, _, _, out = run("--epochs", "1", "--w-lr", "0", "--dtype", "float32")
    W = load_file(out / "stage1" / "projector.safetensors")["weight"]
    assert status == 0 and torch.equal(load_llava(out / "model")[0].projector.weight, W)
    assert "(lr_w)" in run("--epochs", "1", "--dtype", "float32")[2]


def test_a_rate_that_was_found_for_another_language_model_is_said(run, monkeypatch):
    monkeypatch.setattr(StageRun, "train", lambda self: None)
    error = run()[2]
    assert "language_model is trained at the rate of the scale tiny, 0.002 (Adam, Muon" in error and "--lr" in error
    assert "--lr" not in run("--lr", "1e-4")[2]
    assert "--lr" not in run("--language-model", scales.TINY.language_model, out="shipped")[2]


@pytest.mark.parametrize("dtype, says", [("float32", "float32"), ("bfloat16", "fp16")])
def test_memory_is_foreseen_for_the_precision_that_is_calculated_in(run, monkeypatch, dtype, says):
    seen = []
    monkeypatch.setattr(
        train, "preflight_here", lambda vision_tower, language_model, stage, *_: seen.append(stage.precision)
    )
    monkeypatch.setattr(StageRun, "train", lambda self: None)
    assert run("--scale", "colab", "--dtype", dtype)[0] == 0 and seen == [says] * 2


def test_features_that_do_not_fit_on_the_disk_are_looked_at_each_time(run, monkeypatch):
    assert run("--epochs", "1", "--dtype", "float32", out="kept")[0] == 0
    monkeypatch.setattr(stage_run, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=0)))
    status, said, _, out = run("--epochs", "1", "--dtype", "float32")
    assert status == 0 and said.count("features do not fit") == 2
    assert not list(out.rglob("features*"))
    kept, live = (
        load_file(out.parent / name / "stage1" / "projector.safetensors")["weight"] for name in ("kept", "out")
    )
    torch.testing.assert_close(kept, live, atol=1e-3, rtol=1e-3)


def test_where_tensorboard_is_installed_it_gets_every_loss(run, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = folder

        def __enter__(self):
            return self

        def __exit__(self, *_):
            written.append("closed")

        def add_scalar(self, name, value, step):
            written.append((Path(self.folder).parent.name, name, step, round(value, 5)))

    for name, has in (("tensorboard", {}), ("torch.utils.tensorboard", {"SummaryWriter": Writer})):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(has)
        monkeypatch.setitem(sys.modules, name, module)
    _, _, _, out = run("--epochs", "1")
    rows = []
    for stage in ("stage1", "stage2"):
        losses = [json.loads(line)["loss"] for line in (out / stage / "metrics.jsonl").read_text().splitlines()]
        rows += [*((stage, "loss", n, loss) for n, loss in enumerate(losses, 1)), "closed"]
    assert written == rows and len(rows) == 8


def test_a_run_says_whether_its_loss_is_the_references(run, tmp_path):
    assert "not compared: tiny-stage1 is of another vision tower or language model" in run("--epochs", "1")[1]
    scale, curve = scales.TINY, curves.read_curve("tiny-stage1")
    options = SimpleNamespace(vision_tower=scale.vision_tower, language_model=scale.language_model)
    for losses, says in ((curve.middle, "healthy: within"), ([9.0] * 60, "not healthy"), ([9.0], "too early")):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"loss": loss}) + "\n" for loss in losses))
        assert stage_run.loss_verdict(options, scale, 1, tmp_path).startswith(says)
    assert "no reference curve ships for colab" in stage_run.loss_verdict(options, scales.COLAB, 1, tmp_path)
    smol, (one, two, _) = curves.read_curve("smol-stage1"), scales.SMOL.stages
    assert (smol.steps, smol.about["recipe"]["stage1_batch"], smol.about["recipe"]["stage1_lr"]) == (
        one.steps,
        one.batch,
        one.lr,
    )
    assert "no reference curve ships for smol" in stage_run.loss_verdict(options, scales.SMOL, two.number, tmp_path)


# kept features


def test_kept_features_are_used_again_and_made_again_where_anything_changed(weights, data, tmp_path, capsys):
    looks, preparation = [], read_preparation(weights / "vision_tower", 96)
    model = assemble(weights / "vision_tower", weights / "language_model", 0)
    names = sorted(p.name for p in (data / "images").iterdir())
    images = shutil.copytree(data / "images", tmp_path / "images")

    def kept(model=model, preparation=preparation):
        looks.clear()
        return Features.cached(tmp_path / "f.jsonl", model, images, names, preparation, lambda *a: looks.append(a))

    first, fresh = kept(), Features.compute(model, images, names, preparation, lambda *a: None)
    assert looks and all(torch.equal(first[name], fresh[name]) for name in names)
    assert torch.equal(kept()[names[3]], fresh[names[3]]) and not looks
    draw(scenes("train", 13)[12], 96).save(images / names[0])  # another picture under the same name
    assert not torch.equal(kept()[names[0]], fresh[names[0]]) and [done for done, _ in looks] == [12]  # this one alone
    other = assemble(weights / "vision_tower", weights / "language_model", 0, select_layer=-1)
    assert not capsys.readouterr().err
    kept(other)
    assert looks and "another vision tower, layer or preparation" in capsys.readouterr().err
    kept(preparation=replace(preparation, mean=(0.1, 0.2, 0.3)))
    assert looks
    with torch.no_grad():
        model.vision_tower.pre_layrnorm.weight[0] += 1
    fresh = kept()
    assert looks
    for file, size in (("f.jsonl", 1), ("f.jsonl", 300), ("f.jsonl.bin", 3000)):
        os.truncate(tmp_path / file, size)
        again = kept()
        assert looks and all(torch.equal(again[name], fresh[name]) for name in names), file


def test_features_belong_to_their_picture_also_after_new_ones_and_under_any_name(weights, data, tmp_path, monkeypatch):
    model, preparation = (
        assemble(weights / "vision_tower", weights / "language_model", 0),
        read_preparation(weights / "vision_tower", 96),
    )
    names, opened = sorted(p.name for p in (data / "images").iterdir()), []
    images = shutil.copytree(data / "images", tmp_path / "images")
    (images / names[4]).rename(images / "two\nlines.png")
    names[4] = "two\nlines.png"
    fresh = Features.compute(model, images, names, preparation, lambda *a: None)
    monkeypatch.setattr(
        features, "open_picture", lambda path: opened.append(path.name) or images_module.open_picture(path)
    )
    for some in (names[2:7], names[:2] + names[4:9], names):
        kept = Features.cached(tmp_path / "f.jsonl", model, images, some, preparation, lambda *a: None)
        for name in some:
            torch.testing.assert_close(kept[name], fresh[name], atol=0.03, rtol=0.03)
            others = [other for other in names if other != name]
            assert all((kept[name] - fresh[name]).abs().sum() < (kept[name] - fresh[o]).abs().sum() for o in others)
    assert sorted(opened) == sorted(names)  # each was looked at once
    assert Features.cached(tmp_path / "none.jsonl", model, images, [], preparation, lambda *a: None).index == {}


@pytest.mark.parametrize("harm", toy.HARMS)
@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.bin"])
def test_damaged_features_are_made_again_and_never_used(weights, data, tmp_path, monkeypatch, name, harm):
    monkeypatch.setattr(features, "VISION_BATCH", 4)
    model = assemble(weights / "vision_tower", weights / "language_model", 0)
    names, preparation = (
        sorted(p.name for p in (data / "images").iterdir()),
        read_preparation(weights / "vision_tower", 96),
    )

    def kept():
        return Features.cached(tmp_path / "f.jsonl", model, data / "images", names, preparation, lambda *a: None)

    whole = {picture: kept()[picture] for picture in names}
    harm(tmp_path / name)
    try:
        damaged = Features.load(tmp_path / "f.jsonl")  # as a later process opens it
    except FileError as error:
        assert "f.jsonl: not an index of features" in str(error)
    else:
        refused = 0
        for picture in names:
            try:
                assert torch.equal(damaged[picture], whole[picture]), f"{picture} is not as it was"
            except FileError as error:
                refused += f"f.jsonl: no features of {picture}, or damaged ones; remove" in str(error)
        assert refused >= (name == "f.jsonl.bin")
    again = kept()
    assert all(torch.equal(again[picture], whole[picture]) for picture in names)


def test_a_picture_exchanged_with_the_same_size_and_time_is_looked_at_again(weights, data, tmp_path):
    model, images = assemble(weights / "vision_tower", weights / "language_model", 0), tmp_path / "images"
    images.mkdir()
    for n, colour in enumerate(("red", "blue")):
        Image.new("RGB", (96, 96), colour).save(images / f"{n}.bmp")  # bitmaps of equal size
    done, preparation = [], read_preparation(weights / "vision_tower", 96)

    def kept():
        path, names = tmp_path / "f.jsonl", ["0.bmp", "1.bmp"]
        return Features.cached(path, model, images, names, preparation, lambda n, _: done.append(n))

    before, about = kept(), (images / "0.bmp").stat()
    shutil.copy(images / "1.bmp", images / "0.bmp")
    os.utime(images / "0.bmp", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (images / "0.bmp").stat().st_size == about.st_size and before.holds("0.bmp")
    done.clear()
    after = kept()
    assert done == [2] and not torch.equal(after["0.bmp"], before["0.bmp"])
    torch.testing.assert_close(after["0.bmp"], after["1.bmp"], atol=0.03, rtol=0.03)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not say what is mapped")
def test_kept_features_are_mapped_not_read(tmp_path):
    path = tmp_path / "f.jsonl"
    rows = torch.randn(100, 4, 8).bfloat16()
    lines = [
        {"key": "", "shape": [4, 8]},
        *([str(n), [], features._checksum(str(n), row)] for n, row in enumerate(rows)),
    ]
    write_jsonl(lines, path)
    path.with_name("f.jsonl.bin").write_bytes(rows.view(torch.int16).numpy().tobytes())
    loaded = Features.load(path)
    assert str(path) in Path("/proc/self/maps").read_text() and loaded["99"].shape == (4, 8)


def test_a_file_of_features_half_made_is_gone_on_with(weights, data, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "VISION_BATCH", 4)
    model, preparation = (
        assemble(weights / "vision_tower", weights / "language_model", 0),
        read_preparation(weights / "vision_tower", 96),
    )
    names, path, seen = sorted(p.name for p in (data / "images").iterdir()), tmp_path / "f.jsonl", []

    def interrupt(done, _):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Features.cached(path, model, data / "images", names, preparation, interrupt)
    assert len(path.read_text().splitlines()) == 1 + 8
    whole = Features.cached(path, model, data / "images", names, preparation, interrupt)
    assert seen[2:] and seen[2] > 4 and seen[-1] == 12
    fresh = Features.compute(model, data / "images", names, preparation, lambda *a: None)
    assert all(torch.equal(whole[name], fresh[name]) for name in names)


def test_a_language_model_whose_config_ties_what_its_files_do_not_is_trained_as_its_files_are(
    weights, data, tmp_path, capsys
):
    folder = shutil.copytree(weights / "language_model", tmp_path / "language_model")
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, folder / "model.safetensors")
    arguments = command(weights, data, tmp_path / "out")
    arguments[arguments.index("--language-model") + 1] = str(folder)
    assert cli.main([*arguments, "--epochs", "1"]) == 0
    assert "the stored tensors differ" in capsys.readouterr().err
    model, _ = load_llava(tmp_path / "out" / "model")
    assert not model.config.language.tie_embeddings
    assert (model.language_model.lm_head.weight - model.language_model.embed_tokens.weight).mean() > 0.5

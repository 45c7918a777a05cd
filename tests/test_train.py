"""Many processes train what one does; and the command, from records and pictures to a model that answers."""

import json
import os
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
from safetensors.torch import load_file, save_file

from minillava import cli, machine, scales
from minillava.commands import stage_run, train
from minillava.commands.stage_run import StageRun
from minillava.costs import hardware
from minillava.data.records import write_records
from minillava.data.samples import plan_batches
from minillava.model import load_llava
from minillava.model.formats.assemble import assemble
from minillava.model.formats.preparation import read_preparation
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import caption_record, instruction_record
from minillava.training import curves, stages
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
    status, said, _, out = run("--packed", "--dtype", "float32", "--epochs", "1")
    assert status == 0 and "12 samples, 3 steps of 5, 1 process(es)" in said and "100 % of them filled" in said
    assert f"up to {TOKENS_PER_CORE} tokens at once" in said
    model, about = load_llava(out / "model")
    assert about["scale"] == "tiny" and (out / "model" / "tokenizer.json").exists()
    W = load_file(out / "stage1" / "projector.safetensors")["weight"]
    assert W.shape == model.projector.weight.shape and not torch.equal(W, model.projector.weight)
    assert run()[1].count("done before") == 2


def test_the_command_trains_lora_and_merges_it(run):
    assert run("--lora", "2", "--epochs", "1", "--tokens", "300")[0] == 0
    status, _, _, out = run("--lora", "2")
    assert status == 0 and len(load_file(out / "stage2" / "adapter.safetensors")) == 2 * 2 * 7
    assert load_llava(out / "model")[0]


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
    status, _, error, _ = run(data=broken)
    assert status == 2 and "12 of 24 records cannot be used" in error and "'r0'" in error and "more" in error
    assert "'r11'" not in error
    shutil.copy(data / "stage1.json", broken)
    next((broken / "images").iterdir()).unlink()
    status, _, error, _ = run(data=broken)
    assert status == 2 and "1 of 12 pictures are not in" in error
    (broken / "stage1.json").unlink()
    status, _, error, _ = run(data=broken)
    assert status == 2 and "stage 2 starts from the W of stage 1" in error


@pytest.mark.parametrize(
    "wrong", ["--batch 0", "--micro 0", "--epochs 0", "--lora -1", "--tokens -5", "--lr -1", "--lr nan", "--seed -1"]
)
def test_settings_without_sense_are_said_before_anything_is_written(run, wrong):
    status, _, error, out = run(*wrong.split())
    assert status == 2 and f"{wrong.split()[0]} " in error and "is needed" in error and not out.exists()


def test_bad_records_of_stage_2_are_found_before_stage_1_is_trained(run, data, tmp_path):
    broken = shutil.copytree(data, tmp_path / "broken")
    (broken / "stage2.json").write_text('[{"id": "bad"}]')
    status, _, error, out = run(data=broken)
    assert status == 2 and "1 of 1 records cannot be used" in error
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
    for more, what in (("--lora", "4"), "trained"), (("--lora", "2", "--language-model", str(other)), "language_model"):
        status, _, error, _ = run(*more)
        assert status == 2 and f"stage2: holds a half-finished run of another recipe ({what})" in error
    assert run("--lora", "2")[0] == 0 and (out / "model").exists()


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
    monkeypatch.setattr(hardware, "available_memory", lambda: 20e6)
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
        machine, "Path", lambda _: SimpleNamespace(exists=lambda: True, read_text=lambda: f"flags: {flags}")
    )
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 and not including_emulation)
    assert machine.compute_dtype(kind) == dtype


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


# kept features


def test_kept_features_are_used_again_and_made_again_where_anything_changed(weights, data, tmp_path, capsys):
    looks, preparation = [], read_preparation(weights / "vision_tower", 96)
    model = assemble(weights / "vision_tower", weights / "language_model", 0)
    names = sorted(p.name for p in (data / "images").iterdir())
    images = shutil.copytree(data / "images", tmp_path / "images")

    def kept(model=model, preparation=preparation):
        looks.clear()
        return Features.cached(
            tmp_path / "f.safetensors", model, images, names, preparation, lambda *a: looks.append(a)
        )

    first, fresh = kept(), Features.compute(model, images, names, preparation, lambda *a: None)
    assert looks and all(torch.equal(first[name], fresh[name]) for name in names)
    assert torch.equal(kept()[names[3]], fresh[names[3]]) and not looks
    draw(scenes("train", 13)[12], 96).save(images / names[0])  # another picture under the same name
    assert not torch.equal(kept()[names[0]], fresh[names[0]]) and looks
    assert "made from other pictures" in capsys.readouterr().err
    other = assemble(weights / "vision_tower", weights / "language_model", 0, select_layer=-1)
    kept(other)
    assert looks and "another vision tower, layer or preparation" in capsys.readouterr().err
    kept(preparation=replace(preparation, mean=(0.1, 0.2, 0.3)))
    assert looks
    with torch.no_grad():
        model.vision_tower.pre_layrnorm.weight[0] += 1
    kept()
    assert looks
    capsys.readouterr()
    for size in (1, 300):  # of the header, of the tensor
        os.truncate(tmp_path / "f.safetensors", size)
        kept()
        assert looks and "f.safetensors: incomplete" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not say what is mapped")
def test_kept_features_are_mapped_not_read(tmp_path):
    path = tmp_path / "f.safetensors"
    Features({str(n): n for n in range(100)}, torch.randn(100, 4, 8).bfloat16()).save(path)
    loaded = Features.load(path)
    assert str(path) in Path("/proc/self/maps").read_text() and loaded["99"].shape == (4, 8)


def test_a_file_of_features_half_made_is_gone_on_with(weights, data, tmp_path, monkeypatch):
    from minillava.training import features

    monkeypatch.setattr(features, "VISION_BATCH", 4)
    model, preparation = (
        assemble(weights / "vision_tower", weights / "language_model", 0),
        read_preparation(weights / "vision_tower", 96),
    )
    names, path, seen = sorted(p.name for p in (data / "images").iterdir()), tmp_path / "f.safetensors", []

    def interrupt(done, _):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Features.cached(path, model, data / "images", names, preparation, interrupt)
    assert not path.exists()
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

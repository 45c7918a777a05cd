"""Checkpoints survive a kill, a damaged file and a full disk; a run whose loss goes wrong stops and says why."""

import errno
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
from contextlib import nullcontext

import dying
import pytest
import torch
import toy
from filelock import FileLock
from safetensors.torch import load_file
from torch import nn
from toy import cut, flip

from minillava.training import checkpoints
from minillava.training.checkpoints import Saver, TrainingError, checkpoint_path, latest
from minillava.training.loop import fit
from minillava.training.optim import Optimizer, adam

STEPS = 24


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(losses, weights, optimizer states) of an uninterrupted run, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return toy.train(folder, steps=STEPS), folder


def killed(moment, *arguments):
    """Train in another process, which moment(*arguments) ends by SIGKILL."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["dying"])
    process = start.Process(target=moment, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


needs_forkserver = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="needs processes that can be killed"
)


@needs_forkserver
def test_a_run_killed_at_20_random_steps_equals_an_uninterrupted_one_bit_for_bit(tmp_path, whole):
    for stop in sorted(random.Random(7).sample(range(1, STEPS), 20)):
        killed(dying.at_step, tmp_path, stop, STEPS)
        assert latest(tmp_path)["step"] < stop if stop > 1 else latest(tmp_path) is None
    toy.assert_same(toy.train(tmp_path, steps=STEPS), whole[0])
    assert (tmp_path / "metrics.jsonl").read_text() == (whole[1] / "metrics.jsonl").read_text()


@needs_forkserver
@pytest.mark.parametrize("module, where, times", [("files", "checksum", 4), ("checkpoints", "flush_to_disk", 8)])
def test_a_kill_while_a_checkpoint_is_written_leaves_those_before(tmp_path, module, where, times):
    """In `checksum` the tensors are written and state.json is not; in `flush_to_disk` nothing is renamed yet."""
    killed(dying.inside, tmp_path, module, where, times)
    before = latest(tmp_path)["step"]
    assert any(p.name.startswith(".step") for p in (tmp_path / "checkpoints").iterdir()) and before > 1
    steps = []
    toy.train(tmp_path, lambda step, *_: steps.append(step))
    assert steps == list(range(before + 1, toy.STEPS + 1))
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if p.name.startswith(".")]


def test_the_last_two_checkpoints_are_kept_and_hold_all_that_a_run_needs(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 0.0)
    out = toy.train(tmp_path, steps=STEPS)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000023", "step-00000024"]
    state, tensors = (
        json.loads((checkpoint_path(tmp_path, STEPS) / "state.json").read_text()),
        toy.checkpoint_tensors(tmp_path),
    )
    assert state["step"] == STEPS and state["recipe"] == {"toy": 0, "steps": STEPS} and state["seconds"] > 0
    assert all(torch.equal(tensors[f"weights/{name}"], tensor) for name, tensor in out[1].items())
    kinds = {"torch", "numpy", "numpy-gauss", "python", "python-gauss"}
    assert {key.split("/")[2] for key in tensors if key.startswith("random/0/")} >= kinds
    moments = {key.split("/")[2] for key in tensors if key.startswith("optimizer/")}
    assert moments == {"momentum_buffer", "exp_avg", "exp_avg_sq", "step"}


def test_a_large_checkpoint_is_written_file_by_file_and_read_from_all(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(checkpoints, "FILE_BYTES", 4000)
    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, toy.stop_at(7), steps=STEPS)
    files = list(checkpoint_path(tmp_path, 7).glob("*.safetensors"))
    assert len(files) > 5 and max(p.stat().st_size for p in files) < 25_000
    toy.assert_same(toy.train(tmp_path, steps=STEPS), whole[0])


def test_the_random_states_are_resumed(tmp_path):
    numpy = pytest.importorskip("numpy")

    def drawn():
        mine = torch.rand(3).tolist(), random.random(), random.gauss(0, 1)
        return *mine, numpy.random.rand(), numpy.random.randn()  # noqa: NPY002

    model = nn.Linear(2, 2)
    random.gauss(0, 1), numpy.random.randn()  # noqa: NPY002 - each has drawn a second number for the next call
    Saver(tmp_path, model, adam([model], 1.0), {}).save(1)
    first = drawn()
    assert drawn() != first
    assert Saver(tmp_path, model, adam([model], 1.0), {}).resume() == 1
    assert drawn() == first


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The folder of a run that was stopped after step 4; it has the checkpoints of steps 3 and 4."""
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, toy.stop_at(4), steps=STEPS)
    monkeypatch.undo()
    return tmp_path


def edit(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    "harm, says",
    [
        (lambda last: cut(next(last.glob("*.safetensors"))), "not as it was written"),
        (lambda last: flip(next(last.glob("*.safetensors"))), "not as it was written"),
        (lambda last: next(last.glob("*.safetensors")).unlink(), "safetensors: missing"),
        (lambda last: cut(last / "state.json"), "state.json: not JSON"),
        (lambda last: (last / "state.json").write_text("[]"), "not as it was written"),
        (lambda last: (last / "state.json").unlink(), "No such file"),
        (lambda last: edit(last / "state.json", step=999_999), "not as it was written"),
        (lambda last: edit(last / "state.json", seconds=1e9), "not as it was written"),
    ],
)
def test_a_damaged_checkpoint_is_recognised_and_the_one_before_it_used(stopped, whole, capsys, harm, says):
    harm(checkpoint_path(stopped, 4))
    steps = []
    toy.assert_same(toy.train(stopped, lambda step, *_: steps.append(step), steps=STEPS), whole[0])
    assert steps[0] == 4
    said = capsys.readouterr().err
    assert str(checkpoint_path(stopped, 4)) in said and says in said


@pytest.mark.parametrize("text", ["", "\0" * 300, '{"step": 0, "lo', None], ids=["empty", "zeros", "cut", "missing"])
def test_a_damaged_metrics_file_is_written_again_from_the_checkpoint(stopped, whole, text):
    (stopped / "metrics.jsonl").unlink() if text is None else (stopped / "metrics.jsonl").write_text(text)
    toy.assert_same(toy.train(stopped, steps=STEPS), whole[0])
    assert (stopped / "metrics.jsonl").read_text() == (whole[1] / "metrics.jsonl").read_text()


def test_a_checkpoint_of_another_run_is_recognised_and_the_one_before_it_used(stopped, whole, tmp_path_factory, capsys):
    other = tmp_path_factory.mktemp("other")
    toy.train(other, seed=1, steps=STEPS)
    shutil.rmtree(checkpoint_path(stopped, 4))
    shutil.copytree(checkpoint_path(other, STEPS), checkpoint_path(stopped, 4))
    toy.assert_same(toy.train(stopped, steps=STEPS), whole[0])
    assert "step-00000004 is skipped: it is of another recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    "older, recipe",
    [
        (
            {"eye": "eye", "brain": "brain-small"},
            {"vision_tower": "vision_tower", "language_model": "language_model_small"},
        ),
        ({"eye": "openai/clip", "brain": None}, {"vision_tower": "openai/clip", "language_model": None}),
        ({"stand-in": "brain", "seed": 0}, {"stand-in": "language_model", "seed": 0}),
        ({"vision_tower": "eye"}, {"vision_tower": "eye"}),  # somebody's own folder
    ],
)
def test_a_checkpoint_with_older_names_in_its_recipe_is_resumed(tmp_path, older, recipe):
    model = nn.Linear(2, 2)
    Saver(tmp_path, model, adam([model], 1.0), older).save(3)
    assert Saver(tmp_path, model, adam([model], 1.0), recipe).resume() == 3
    assert latest(tmp_path)["recipe"] == recipe


def test_where_no_checkpoint_is_whole_a_run_says_so_and_starts_again(stopped, whole, capsys):
    for step in (3, 4):
        cut(checkpoint_path(stopped, step) / "state.json")
    toy.assert_same(toy.train(stopped, steps=STEPS), whole[0])
    assert capsys.readouterr().err.count("is skipped") == 2


def test_a_full_disk_says_so_and_leaves_the_checkpoint_before(stopped, monkeypatch):
    from torch.distributed.checkpoint.filesystem import FileSystem

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FileSystem, "create_stream", lambda *_: nullcontext(Full()))
    with pytest.raises(OSError, match="No space left on device") as error:
        toy.train(stopped, steps=STEPS)
    assert error.value.errno == errno.ENOSPC
    assert sorted(p.name for p in (stopped / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]
    assert latest(stopped)["step"] == 4


@pytest.mark.parametrize("kind, method", [("Reader", "read_data"), ("Writer", "write_data")])
@pytest.mark.usefixtures("heeded")
def test_a_ctrl_c_while_a_checkpoint_is_read_or_written_is_a_ctrl_c(stopped, whole, monkeypatch, kind, method):
    """The checkpoint library catches it, and raises an error of its own."""
    import torch.distributed.checkpoint as dcp

    with monkeypatch.context() as patched:
        library = getattr(dcp, f"HuggingFaceStorage{kind}")
        patched.setattr(library, method, lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            toy.train(stopped, steps=STEPS)
    toy.assert_same(toy.train(stopped, steps=STEPS), whole[0])


def test_two_runs_in_one_folder_are_refused_and_the_folder_is_free_again_after(tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(TrainingError, match="another run"):
        toy.train(tmp_path)
    with pytest.raises(TrainingError, match="another run"):
        toy.train(tmp_path, lambda *_: toy.train(tmp_path))
    toy.train(tmp_path)


# losses that go wrong


def lines(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train(folder, loss_at, steps=40, **more):
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    return fit(
        model, adam([model], 1e-3), lambda t: loss_at(t, model(torch.ones(1, 1)).sum()), steps, folder, {}, **more
    )


def test_an_exploding_loss_stops_with_step_and_records_and_the_checkpoint_is_from_before(tmp_path):
    def at(t, out):
        return out + (20 if t >= 20 else 0)

    with pytest.raises(TrainingError, match=r"exploded: 21 at step 24; .* record-24-0, .* and 2 more"):
        train(tmp_path, at, ids_at=lambda t: [f"record-{t}-{n}" for n in range(10)])
    assert latest(tmp_path) is None or latest(tmp_path)["step"] <= 24


def test_a_hard_batch_or_a_loss_that_falls_is_no_explosion(tmp_path):
    assert len(train(tmp_path, lambda t, out: out + (50 if t in (20, 21, 30) else 10 * 0.9**t))) == 40


def test_a_gradient_that_is_not_a_number_stops_the_run_before_weights_change(tmp_path):
    def at(t, out):
        return out + (0 * torch.sqrt(out - out) if t == 3 else 0)  # its gradient is 0 * inf

    with pytest.raises(TrainingError, match="gradient of step 3 is nan"):
        train(tmp_path, at)
    assert latest(tmp_path)["step"] == 3
    assert load_file(next(checkpoint_path(tmp_path, 3).glob("*.safetensors")))["weights/weight"].isfinite().all()


def test_in_float16_a_step_that_overflows_is_skipped_and_the_scale_halved(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = Optimizer(adam([model], 0.1).optimizers, scaler)
    seen = []

    def at(t):
        seen.append(model.weight.item())
        out = model(torch.ones(1, 1)).sum()
        return out * 1e36 if t == 1 else out  # times 1024 it is beyond float32

    fit(model, optimizer, at, 4, tmp_path, {})
    assert seen[1] != seen[0] and seen[2] == seen[1] and seen[3] != seen[2]
    assert scaler.get_scale() == 512 and latest(tmp_path)["scaler"]["scale"] == 512


def test_in_float16_an_overflow_in_one_optimizers_gradient_leaves_the_weights_of_both(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)})
    parts = [*adam([model["a"]], 0.1).optimizers, *adam([model["b"]], 0.1).optimizers]
    optimizer, seen = Optimizer(parts, torch.amp.GradScaler("cpu", init_scale=1024.0)), []

    def at(t):
        seen.append([p.item() for p in model.parameters()])
        a, b = model["a"](torch.ones(1, 1)).sum(), model["b"](torch.ones(1, 1)).sum()
        return a + b + (0 * torch.sqrt(b - b) if t == 1 else 0)  # the gradient of b is not a number, that of a is 1

    fit(model, optimizer, at, 4, tmp_path, {})
    assert seen[2] == seen[1] and all(now != before for now, before in zip(seen[3], seen[2], strict=True))
    assert optimizer.scaler.get_scale() == 512

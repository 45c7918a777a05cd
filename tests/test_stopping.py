"""SIGTERM, SIGHUP and a terminal that is closed stop every verb as Ctrl-C does: nothing lost, nothing paid twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_run

from minillava import cli
from minillava.commands import doctor
from minillava.data.records import write_records
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import caption_record
from minillava.standins.teacher import offline_reply
from minillava.training.checkpoints import latest
from tests.faulty import faulty

pty = pytest.importorskip("pty")  # not on Windows
KINDS = [signal.SIGTERM, signal.SIGHUP]
pytestmark = pytest.mark.usefixtures("no_key", "heeded")


def start(*arguments, **more):
    command = [sys.executable, *(["-m", "minillava"] if arguments[0] != "-c" else []), *map(str, arguments)]
    streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE) | {"stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, text=True, start_new_session=True, **streams | more)


def wait_for(process, reached):
    while not reached():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def end(process):
    """(status, what it printed and complained) of a process that was told to stop."""
    said = process.communicate(timeout=60)
    return process.returncode, said


# asking


@pytest.fixture
def server():
    with faulty(offline_reply, delay=0.25) as server:
        yield server


def generating(server, out):
    arguments = ("generate", "--source", "picture-book", "--limit", 8, "--types", "detail", "--teacher", "openai", "--model", "small")  # fmt: skip
    return *arguments, "--base-url", server.url, "--yes", "--concurrency", 3, "--out", out


@pytest.mark.parametrize("kind", [*KINDS, "hang-up"])
def test_generate_pays_nothing_twice(server, tmp_path, kind):
    ours, terminal = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal) if kind == "hang-up" else {}
    process = start(*generating(server, tmp_path), **streams)
    os.close(terminal)
    wait_for(process, lambda: len(server.asked) >= 4)
    if kind == "hang-up":  # what follows a closed terminal: it cannot be written to, and SIGHUP comes more than once
        os.close(ours)
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        assert process.wait(timeout=60) > 0
    else:
        os.close(ours)
        process.send_signal(kind)
        status, (_, error) = end(process)
        assert status == 130 and "the same command resumes" in error and "Traceback" not in error
    assert 4 <= len(server.asked) < 8
    server.delay = 0
    status, (said, error) = end(start(*generating(server, tmp_path)))
    assert status == 0, error
    assert len(json.loads((tmp_path / "detail.json").read_text())) == 8 and set(server.billed.values()) == {1}


# training


@pytest.fixture
def training(weights, tmp_path):
    """The arguments of a training of many steps, and its folder."""
    data, some = tmp_path / "data", scenes("train", 8)
    (data / "images").mkdir(parents=True)
    for scene in some:
        draw(scene, 96).save(data / "images" / f"{scene.id}.png")
    write_records([caption_record(s) for s in some], data / "stage1.json")
    parts = ("--vision-tower", weights / "vision_tower", "--language-model", weights / "language_model")
    return (
        "train",
        data,
        *parts,
        "--out",
        tmp_path / "out",
        "--batch",
        4,
        "--epochs",
        500,
    ), tmp_path / "out" / "stage1"


@pytest.mark.parametrize(
    "kind, before", [(kind, signal.SIG_DFL) for kind in KINDS] + [(signal.SIGTERM, signal.SIG_IGN)]
)
def test_train_loses_no_step(training, kind, before):
    """Also where Ctrl-C is ignored, as in the background of a script."""
    arguments, folder = training
    process = start(*arguments, preexec_fn=lambda: signal.signal(signal.SIGINT, before))
    wait_for(process, lambda: (folder / "metrics.jsonl").exists() and lines(folder) > 5)
    process.send_signal(kind)
    process.send_signal(kind)  # while it saves
    status, (_, error) = end(process)
    assert status == 130 and "Traceback" not in error, error
    assert latest(folder)["step"] in (lines(folder), lines(folder) - 1)  # a step that was cut in two is taken again
    assert 5 < lines(folder) < 1000


def lines(folder):
    return (folder / "metrics.jsonl").read_bytes().count(b"\n")


PAPER = """
from pathlib import Path
from types import SimpleNamespace
import small_run
from minillava import cli, scales
from minillava.experiments import miniature
scales.PICTURE_BOOK_SCALES["test"], run = small_run.SMALL, miniature.run_paper
miniature.run_paper = lambda *a: run(*a, Path({weights!r}))
raise SystemExit(cli.main(["paper", "--scale", "test", "--out", {out!r}]))
"""


def test_paper_and_its_workers_save_what_they_have_when_the_terminal_is_closed(weights, tmp_path):
    script = PAPER.format(weights=str(weights), out=str(tmp_path / "paper"))
    places = os.pathsep.join([str(Path(small_run.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = start("-c", script, env=os.environ | {"PYTHONPATH": places})
    base = tmp_path / "paper" / "seed-0"
    wait_for(process, lambda: any(p.read_bytes().count(b"\n") > 2 for p in base.glob("*-*/metrics.jsonl")))
    os.killpg(process.pid, signal.SIGHUP)  # the run and its workers
    status, (_, error) = end(process)
    assert status == 130 and "the same command resumes" in error
    for path in base.glob("*-*/metrics.jsonl"):
        done = path.read_bytes().count(b"\n")
        assert done == 0 or latest(path.parent)["step"] in (done, done - 1)


# every verb


def stopped(kind):
    """A verb's `run` that gets a signal."""

    def run(_):
        os.kill(os.getpid(), kind)
        time.sleep(5)
        pytest.fail("not stopped")

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_is_ctrl_c_during_a_verb_and_what_it_was_before_and_after(monkeypatch, capsys, kind):
    before = [signal.getsignal(one) for one in KINDS]
    monkeypatch.setattr(doctor, "run", stopped(kind))
    assert cli.main(["doctor"]) == 130 and "the same command resumes" in capsys.readouterr().err
    assert [signal.getsignal(one) for one in KINDS] == before


def test_nohup_and_torchrun_keep_their_own_ways(monkeypatch):
    seen = []
    monkeypatch.setattr(doctor, "run", lambda _: seen.append(signal.getsignal(signal.SIGHUP)))
    monkeypatch.setenv("LOCAL_RANK", "0")
    cli.main(["doctor"])
    monkeypatch.delenv("LOCAL_RANK")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        cli.main(["doctor"])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [before, signal.SIG_IGN]


def test_a_signal_that_meets_a_callback_of_the_import_system_comes_again():
    """What is raised there is ignored by Python, and as only the first signal counts, the run could not be stopped."""
    within = SimpleNamespace(f_code=SimpleNamespace(co_filename="<frozen importlib._bootstrap>"))
    with cli.stopping_as_ctrl_c():
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, within)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)

"""Windows, as far as a Linux can play it (windows.py): every module can be imported, and verbs run from data to answers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minillava import files, machine, scales

ROOT = Path(__file__).parents[1]
SAMPLES = scales.WEIGHTS.parent


@pytest.mark.skipif(sys.platform != "linux", reason="the play needs /proc; on Windows every test is this one")
def test_every_module_and_the_verbs_run_with_what_windows_has(tmp_path):
    made, model, pictures = tmp_path / "made", tmp_path / "run" / "model", SAMPLES / "pictures"
    train = ["train", made, "--images", pictures, "--out", model.parent, "--batch", "2", "--epochs", "1"]
    bench = SAMPLES / "bench" / "coco"
    answer = ["answer", bench / "questions.jsonl", "--images", bench / "images", "--out", tmp_path / "answers.jsonl"]
    commands = [
        ["generate", "--source", SAMPLES / "caps_boxes.jsonl", "--images", pictures, "--limit", "2", "--out", made],
        train,
        train,  # finds it finished
        ["chat", pictures / "train-000000.png", "--weights", model, "--ask", "What is it?"],
        ["export", model, "--to", "hf", "--out", tmp_path / "hf"],
        ["chat", pictures / "train-000000.png", "--weights", tmp_path / "hf", "--ask", "What is it?"],
        ["export", model, "--to", "gguf", "--out", tmp_path / "gguf"],
        [*answer, "--limit", "1"],
        [*answer, "--limit", "2"],
        ["doctor"],
    ]
    commands[0] += ["--types", "conversation,detail,complex,caption"]
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-W", "ignore::EncodingWarning", ROOT / "tests" / "windows.py"]
        + [json.dumps([[str(word) for word in command] for command in commands])],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    count, ran = re.search(r"(\d+) modules, (\d+) commands", done.stdout).groups()
    assert int(count) > 150 and int(ran) == len(commands)
    assert "no link to the pictures could be made" in done.stderr and "done before" in done.stdout
    for path in [*made.glob("*.json*"), tmp_path / "answers.jsonl"]:
        assert b"\r" not in path.read_bytes(), path


def test_memory_and_cores_are_told_where_posix_has_no_say(monkeypatch):
    def status_of(status):
        assert status._obj[0] == 64  # the structure's size, which Windows checks
        status._obj[1] = 3 << 30

    here = machine.available_memory(), machine.core_count()
    assert here[0] > 2**28 and 1 <= here[1] <= os.cpu_count()
    monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    kernel = type("Kernel", (), {"GlobalMemoryStatusEx": staticmethod(status_of)})
    monkeypatch.setattr(machine.ctypes, "windll", type("Libraries", (), {"kernel32": kernel}), raising=False)
    assert 0 < machine.available_memory() <= 3 << 30
    assert machine.core_count() == os.cpu_count()


def test_text_has_the_same_bytes_on_every_system(tmp_path, monkeypatch):
    seen = []
    real = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda *a, **k: seen.append(k["newline"]) or real(*a, **k))
    files.write_text(tmp_path / "a.txt", "one\ntwo\n")
    assert seen == ["\n"] and (tmp_path / "a.txt").read_bytes() == b"one\ntwo\n"
    assert "* -text" in (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()  # git changes none either

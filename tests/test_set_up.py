"""`make`'s set-up: where PyTorch comes from, tried with a Python that only writes down what pip was asked for."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NVIDIA_HERE = shutil.which("nvidia-smi") or os.path.exists("/proc/driver/nvidia/version")
FAKE = f"""#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python";;
"-m pip") shift 2; echo "$@" >> "$PIP_LOG"; case "$*" in *"${{FAILS:-nothing fails}}"*) exit 1;; esac;;
*urlopen*) exec {sys.executable} "$@";;
*"version('torch')"*) exit ${{LACKS_TORCH:-1}};;
*version_info\\[:2\\]*) echo 3.11;;
esac
"""


@pytest.fixture
def set_up(tmp_path, monkeypatch):
    """A folder of the project. set_up(*arguments) runs make's set-up there: (what it said, pip's commands)."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "some-python"
    python.write_text(FAKE)
    python.chmod(0o755)
    log = tmp_path / "log"
    for name in ("TORCH_INDEX", "MAKEFLAGS", "MAKELEVEL", "FAILS", "LACKS_TORCH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("PIP_LOG", str(log))

    def run(*arguments, ends=0):
        log.write_text("")
        command = ["make", ".venv/.installed", f"PYTHON={python}", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode != 0) == ends, done.stderr
        return done.stdout, [line.split("constraints.txt ")[-1] for line in log.read_text().splitlines()]

    run.folder = tmp_path
    return run


@pytest.fixture
def index():
    """The address of an index that answers."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/whl/cpu/torch/" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
    server.shutdown()


PROJECT = "-e .[course,api,real,serve,tests]"
linux = pytest.mark.skipif(sys.platform != "linux" or not shutil.which("make"), reason="needs Linux and make")
no_gpu = pytest.mark.skipif(bool(NVIDIA_HERE), reason="an NVIDIA GPU is here")


@linux
@no_gpu
def test_without_a_gpu_the_cpu_build_is_taken_where_its_index_answers(set_up, index):
    said, asked = set_up(f"TORCH_CPU={index}")
    assert "PyTorch: the CPU build, as there is no NVIDIA GPU" in said and said.endswith("Ready.\n")
    assert asked == [f"--no-deps --index-url {index} torch", PROJECT]


@linux
@no_gpu
@pytest.mark.parametrize("address", ["http://127.0.0.1:9/whl/cpu", "http://nowhere.invalid/whl/cpu"])
def test_where_that_index_does_not_answer_the_usual_build_is_taken_and_said(set_up, address):
    said, asked = set_up(f"TORCH_CPU={address}")
    assert f"PyTorch: the usual build. There is no NVIDIA GPU, but {address}" in said and asked == [PROJECT]


@linux
@no_gpu
def test_where_pip_fails_at_it_the_usual_build_is_taken(set_up, index, monkeypatch):
    monkeypatch.setenv("FAILS", "--index-url")
    said, asked = set_up(f"TORCH_CPU={index}")
    assert "the usual build after all" in said and asked[-1] == PROJECT


@linux
def test_with_a_gpu_the_usual_build_is_taken(set_up, index, monkeypatch):
    smi = set_up.folder / "bin" / "nvidia-smi"
    smi.write_text("#!/bin/sh\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
    said, asked = set_up(f"TORCH_CPU={index}")
    assert "with CUDA, as there is an NVIDIA GPU" in said and asked == [PROJECT]


@linux
def test_an_index_that_is_named_is_taken_or_the_set_up_ends(set_up, index, monkeypatch):
    said, asked = set_up("TORCH_INDEX=http://mine/whl", f"TORCH_CPU={index}")
    assert "PyTorch:" not in said and asked == ["--no-deps --index-url http://mine/whl torch", PROJECT]
    shutil.rmtree(set_up.folder / ".venv")
    monkeypatch.setenv("FAILS", "--index-url")
    said, asked = set_up("TORCH_INDEX=http://mine/whl", ends=True)
    assert "TORCH_INDEX=http://mine/whl gave no PyTorch" in said and len(asked) == 1


@linux
@no_gpu
def test_a_torch_that_is_there_is_left_alone(set_up, index, monkeypatch):
    set_up(f"TORCH_CPU={index}")
    monkeypatch.setenv("LACKS_TORCH", "0")
    os.utime(set_up.folder / "constraints.txt", (2e9, 2e9))  # changed since
    said, asked = set_up(f"TORCH_CPU={index}")
    assert "up to date" in said and "PyTorch:" not in said and asked == [PROJECT]

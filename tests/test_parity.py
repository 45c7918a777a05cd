"""Apple's GPU is used only when it computes what the CPU computes. Functions play it in these
tests."""

import pytest
import torch
import torch.nn.functional as F

from minillava import cli, scales
from minillava.chat import device_and_dtype
from minillava.model import Llava
from minillava.training import parity
from minillava.training.parallel import process_group
from minillava.training.parity import DeviceError, check_device, fixed_losses

PICTURE = scales.WEIGHTS.parent / "pictures" / "train-000000.png"


@pytest.fixture
def mps(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def as_device(monkeypatch, change):
    """`losses` for check_device: on "mps" a CPU whose arithmetic `change(monkeypatch)` has changed."""

    def losses(device):
        with monkeypatch.context() as changed:
            if device == "mps":
                change(changed)
            return fixed_losses("cpu")

    return losses


def linear(factor):
    real = F.linear
    return lambda m: m.setattr(F, "linear", lambda x, w, b=None: real(x, w, b) * factor(x))


def no_mask(m):
    real = F.scaled_dot_product_attention
    m.setattr(F, "scaled_dot_product_attention", lambda *a, is_causal=False, **k: real(*a, **k))


def other_picture(m):
    real = Llava.features
    m.setattr(Llava, "features", lambda self, pixels: real(self, pixels) * 1.01)


def no_step(m):
    m.setattr(torch.optim.Muon, "step", lambda self, closure=None: None)


def not_a_number(m):
    m.setattr(F, "cross_entropy", lambda *a, **k: torch.zeros((), requires_grad=True) / 0)


def from_nine_on(x):  # pytorch/pytorch, issue 109457
    return 1.1 if x.shape[0] > 8 else 1.0


WRONG = {
    "attention sees what comes after": no_mask,
    "the picture is slightly wrong": other_picture,
    "a linear layer is slightly wrong": linear(lambda x: 1.001),
    "a linear layer is wrong from nine samples on": linear(from_nine_on),
    "the optimizer does nothing": no_step,
    "nan": not_a_number,
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_device_that_computes_something_else_is_refused(mps, monkeypatch, fault):
    with pytest.raises(DeviceError, match=r"computes wrongly.*in step \d.*on the CPU \d\.\d+; use --device cpu"):
        check_device("mps", as_device(monkeypatch, WRONG[fault]))


def test_a_device_that_differs_by_rounding_is_taken(mps, monkeypatch):
    rounding = linear(lambda x: 1 + 1e-6 * torch.sin(7 * x.detach().sum(-1, keepdim=True)))
    check_device("mps", as_device(monkeypatch, rounding))
    monkeypatch.setattr(parity, "fixed_losses", None)
    for name in (None, "cpu"):  # no test there
        check_device(name)


def test_an_operation_that_the_device_lacks_is_named(mps):
    def losses(device):
        if device == "mps":
            raise NotImplementedError("aten::_muon is not implemented for MPS")
        return [1.0]

    with pytest.raises(DeviceError, match="aten::_muon is not implemented.*use --device cpu"):
        check_device("mps", losses)


@pytest.mark.parametrize("name", ["mps", "cuda"])
def test_a_device_that_is_not_here_is_refused(monkeypatch, name):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"--device {name}.*finds none here; use --device cpu"):
        device_and_dtype(None, name)


def test_the_fixed_losses_are_the_same_each_time_and_leave_the_random_numbers_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first = fixed_losses("cpu")
    assert torch.equal(torch.rand(3), wanted)
    assert fixed_losses("cpu") == first and first == sorted(first, reverse=True) and len(first) == parity.STEPS


def test_the_default_is_the_cpu_without_an_nvidia_gpu_also_on_a_mac(mps, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_and_dtype(None) == ("cpu", torch.float32)
    assert device_and_dtype("bfloat16", "cpu") == ("cpu", torch.bfloat16)


@pytest.mark.parametrize("verb", ["chat", "answer", "train", "serve"])
def test_the_verbs_refuse_it_in_one_line_before_they_begin(mps, monkeypatch, capsys, tmp_path, verb):
    """The loss of issue 791, 19.9 where the CPU has 3.8."""
    if verb == "serve":
        pytest.importorskip("uvicorn")
    monkeypatch.setattr(check_device, "__defaults__", (lambda device: [19.9 if device == "mps" else 3.8],))
    (tmp_path / "stage1.json").write_text("[]")
    words = {
        "chat": [PICTURE, "--ask", "What is it?"],
        "answer": [scales.WEIGHTS.parent / "bench" / "coco" / "questions.jsonl", "--images", tmp_path, "--out", tmp_path / "a"],
        "train": [tmp_path, "--out", tmp_path / "out"],
        "serve": ["--port", "0"],
    }  # fmt: skip
    assert cli.main([verb, *map(str, words[verb]), "--device", "mps"])
    said = capsys.readouterr().err
    assert "the loss is 19.9000, on the CPU 3.8000; use --device cpu" in said
    assert "Traceback" not in said and not (tmp_path / "out").exists() and not (tmp_path / "a").exists()


def test_a_named_device_is_used_and_is_not_for_many_processes(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with process_group("cpu") as named, process_group() as found:
        assert (named.type, found.type) == ("cpu", "cuda")
    (tmp_path / "stage1.json").write_text("[]")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert cli.main(["train", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert "--device is for a single process" in capsys.readouterr().err and not (tmp_path / "out").exists()

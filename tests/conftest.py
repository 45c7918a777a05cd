"""Every test runs offline, without a screen, on one thread, and with the same random examples each time."""

import os
import shutil
import signal
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # read once, when torch loads: idle threads sleep, workers share the cores

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # `make test` runs as many workers as there are cores
settings.register_profile("minillava", deadline=None, derandomize=True)
settings.load_profile("minillava")

REAL = Path(__file__).parents[2] / "shared" / "real"  # files made by others; not part of the repository


def pytest_terminal_summary(terminalreporter):
    """How many of the exercises' wrong answers are caught, and by a hint that names the mistake (tests/mutants)."""
    said = {state: [value for report in terminalreporter.getreports(state) for name, value in report.user_properties if name == "mutant"]
            for state in ("passed", "failed")}  # fmt: skip
    count = sum(map(len, said.values()))
    if count:
        print(
            f"\nexercises: {len(said['passed'])} of {count} wrong answers caught and named",
            *said["failed"],
            sep="\n  not: ",
        )


@pytest.fixture
def heeded():
    """Ctrl-C and a closed terminal are heeded, here and by what the test starts, also where the tests run in the
    background (which ignores Ctrl-C) or under nohup (which ignores a closed terminal)."""
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT))}
    for name in before:
        signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


@pytest.fixture(scope="session")
def real():
    """`real(name)`: the path of a file made by others; skips the test where it is absent."""

    def find(name):
        if not (REAL / name).exists():
            pytest.skip(f"{name}: a real file that is not part of the repository is not here")
        return REAL / name

    return find


@pytest.fixture
def no_key(monkeypatch):
    """No key and no address of a model in the environment, whatever the machine has."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """vision tower, language model and llava as in data_samples/weights, the same files and formats, but tiny and untrained."""
    from transformers import CLIPTextConfig

    from minillava.data.tokenizer import load_tokenizer
    from minillava.model import VisionConfig, save_language, save_llava
    from minillava.model.formats.assemble import assemble
    from minillava.standins import language_model as language_model
    from minillava.standins import vision_tower as vision_tower
    from minillava.standins.weights import export_vision_tower

    folder = tmp_path_factory.mktemp("weights")
    model, tokenizer = language_model.untrained(width=32, layers=2)
    save_language(model, folder / "language_model", dtype=torch.float16)
    tokenizer.save_pretrained(folder / "language_model")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, projection_dim=vision_tower.PROJECTION_DIM,
    )  # fmt: skip
    clip = vision_tower.Clip(VisionConfig(96, 24, 32, 64, num_layers=2, num_heads=2), text)
    export_vision_tower(clip, tokenizer, folder / "vision_tower")
    llava = assemble(folder / "vision_tower", folder / "language_model", seed=0)
    save_llava(llava, folder / "llava", {"template": "chat", "trained on": "nothing"}, dtype=torch.float16)
    load_tokenizer(folder / "language_model").save_pretrained(folder / "llava")
    settings = (folder / "vision_tower" / "preprocessor_config.json").read_text()
    (folder / "llava" / "preprocessor_config.json").write_text(settings)
    return folder


@pytest.fixture(scope="module")
def parts(weights, tmp_path_factory):
    """The weights with a second, smaller language model beside the first."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("vision_tower", "language_model"):
        shutil.copytree(weights / name, folder / name)
    shutil.copytree(weights / "language_model", folder / "language_model_small")
    return folder

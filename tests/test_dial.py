"""The dial: what it chooses and prints, and whole notebooks at larger scales, from a stand-in for the hub."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from stand_in import HAS_SENTENCEPIECE, datasets, models, stand_in

from minillava.asking.server import completion, serve
from minillava.course import dial as module
from minillava.course.dial import PROJECTORS, SCALE_NAMES, Dial, dial
from minillava.datagen.messages import PROMPT_FOLDERS, PROMPTS, context, messages, read_prompt
from minillava.judging.judges import Case, review_rows
from minillava.judging.reviews import read_scores
from minillava.scales import REAL_SCALES, WEIGHTS, ScaleError
from minillava.scenes.captions import captions
from minillava.scenes.compose import compose
from minillava.standins.bench import build_bench
from minillava.standins.judge import RULE_ID
from minillava.standins.teacher import offline_reply

ASKED = messages(read_prompt(PROMPTS / PROMPT_FOLDERS["conversation"]), context(captions(compose("train", 2))))


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("SCALE", "WEIGHTS", "DATA", "TEACHER", "JUDGE"):
        monkeypatch.delenv(f"MINILLAVA_{name}", raising=False)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def live(monkeypatch):
    """`live(reply)`: a model behind an API on this machine, named by the environment. `.asked` holds its requests."""
    servers = []

    def start(reply):
        server = serve(lambda body: server.asked.append(body) or reply(body))
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.stop = lambda: (server.shutdown(), server.server_close(), thread.join())
        servers.append(server)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        return server

    yield start
    for server in servers:
        server.stop()


CHOICES = [(None, False, "tiny"), (16e9, True, "tiny"), (15.8e9, False, "colab"), (24e9, False, "full-7b")]


@pytest.mark.parametrize("memory, offline, name", [*CHOICES, (80e9, False, "full-13b")])
def test_the_machine_decides_by_default(memory, offline, name):
    assert module._choose_scale(memory, offline)[0] == name
    assert ("GPU" in module._choose_scale(memory, offline)[1]) and (name in REAL_SCALES or name == "tiny")


def test_an_argument_overrides_the_environment_and_a_wrong_name_is_an_error(monkeypatch, capsys):
    assert dial().name == "tiny" and "scale tiny" in capsys.readouterr().out
    monkeypatch.setenv("MINILLAVA_SCALE", "colab")
    assert dial().name == "colab" and "by MINILLAVA_SCALE" in capsys.readouterr().out
    assert dial("full").name == "full-7b" and "asked for by name" in capsys.readouterr().out
    with pytest.raises(ScaleError, match=f"'huge'.*{', '.join(SCALE_NAMES)}"):
        dial("huge")


def test_it_prints_what_is_trained_and_who_is_the_teacher(monkeypatch, capsys):
    dial("colab"), dial("full-7b")
    colab, full = capsys.readouterr().out.splitlines()
    assert "W not trained yet" in colab and "the authors' W" in full and REAL_SCALES["full-7b"].language_model in full
    assert "no key" in colab and "offline" in colab
    monkeypatch.setenv("OPENAI_API_KEY", "sk-something-long")
    dial("colab", weights="runs/mine")
    said = capsys.readouterr().out
    assert "gpt-4o at api.openai.com" in said and "runs/mine" in said and "something" not in said


def test_records_of_the_picture_book_are_its_scenes():
    tiny = dial("tiny")
    two = tiny.records("detail", 2, size=80)
    assert [e.record["id"] for e in two] == ["train-000000-detail", "train-000001-detail"]
    assert two[1].picture.size == (80, 80) and tiny.record("detail", 1, 80).record == two[1].record
    assert tiny.pairs(1)[0].record["conversations"][0]["from"] == "human"


def test_the_parts_before_any_training_are_the_shipped_ones():
    tiny = dial("tiny")
    one, two = (tiny.assemble(seed).projector.weight for seed in (1, 2))
    assert {tiny.vision_tower.name, tiny.language_model.name} == {"vision_tower", "language_model"}
    assert one.shape == two.shape and not torch.equal(one, two)


def test_trained_weights_replace_the_scales_own(monkeypatch, capsys):
    monkeypatch.setenv("MINILLAVA_WEIGHTS", "runs/mine/model")
    said = str(dial("tiny"))
    assert "runs/mine/model" in said and "that ships here" not in said and said in capsys.readouterr().out
    assert Dial("colab", "", str(WEIGHTS / "llava"), Path()).chat().about["trained on"].endswith("scenes")


def test_a_live_teacher_is_asked_once_and_the_offline_one_needs_no_folder(live, tmp_path):
    offline = Dial("tiny", "", None, tmp_path / "none").reply(ASKED)
    assert "Question:" in offline and not (tmp_path / "none").exists()
    server, scale = live(offline_reply), Dial("colab", "", None, tmp_path)
    first = scale.reply(ASKED)
    assert "Question:" in first and [body["model"] for body in server.asked] == [module.OPENAI_MODEL]
    assert scale.reply(ASKED) == first and len(server.asked) == 1  # not asked again
    assert any((tmp_path / "replies").iterdir())


CASES = [Case(item, item.reference, f"a{item.question_id}") for item in build_bench("coco", 2)]


def test_without_a_key_and_at_the_tiny_scale_the_offline_rule_judges(capsys, tmp_path, monkeypatch):
    dial("colab")
    assert f"judge: {RULE_ID} (no key" in capsys.readouterr().out
    monkeypatch.setenv("OPENAI_API_KEY", "sk-something-long")  # at the tiny scale a key changes nothing
    (judged,) = Dial("tiny", "", None, tmp_path / "none").judge().review(CASES)
    assert [judge for *_, judge in judged.texts] == [RULE_ID] * 6 and not (tmp_path / "none").exists()
    assert all(read_scores(text) == (10, 10) for _, text, _ in judged.texts)


def test_a_live_judge_reads_context_and_both_answers_and_is_asked_once(live, monkeypatch, capsys, tmp_path):
    server = live(lambda body: completion(body, "9 6\nThe first says more."))
    monkeypatch.setenv("MINILLAVA_JUDGE", "some-model")
    monkeypatch.setenv("MINILLAVA_DATA", str(tmp_path))
    scale = dial("colab")
    assert "judge: some-model" in capsys.readouterr().out and not server.asked
    for _ in range(2):  # the second time from the stored replies
        (judged,) = scale.judge().review(CASES)
        assert {row["judge"] for row in review_rows(judged)} == {"some-model"}
        assert [row["tuple"] for row in review_rows(judged)] == [[9.0, 6.0]] * 6 and len(server.asked) == 6
    said = [body["messages"][-1]["content"] for body in server.asked]  # in any order
    for case in CASES:
        assert any(case.item.context in text and text.count(case.answer) >= 2 for text in said)
    assert {body["model"] for body in server.asked} == {"some-model"}


def test_the_cost_of_a_live_model_is_limited_also_without_a_price():
    assert module.budget_of("gpt-4o") == module.USD_BUDGET and module.USD_BUDGET.usd
    assert module.budget_of("some-model") == module.TOKEN_BUDGET and module.TOKEN_BUDGET.tokens


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with stand_in(models(datasets(tmp_path_factory.mktemp("hub")))) as server:
        yield server


@pytest.mark.parametrize(
    "scale, numbers",
    [
        ("colab", ("02", "03", "04", "06", "07", "08", "15", "16")),
        pytest.param(
            "full-7b", ("01", "04", "11", "12", "14"), marks=pytest.mark.skipif(not HAS_SENTENCEPIECE, reason="extra")
        ),
    ],
)
def test_whole_notebooks_run_on_the_parts_of_a_larger_scale(hub, tmp_path, scale, numbers):
    hub.asked.clear()
    more = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "MINILLAVA_DATA": str(tmp_path / "data")}
    more |= {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "MINILLAVA_SCALE": scale}
    command = [sys.executable, str(Path(__file__).with_name("cells.py")), *numbers]
    done = subprocess.run(command, env=os.environ | more, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [[n, "scale", scale] for n in numbers]
    fetched = " ".join(path for path, _ in hub.asked)
    real = REAL_SCALES[scale]
    parts = [real.vision_tower, real.language_model, PROJECTORS.get(scale, ""), "LLaVA-Instruct-150K", "/coco/"]
    assert all(part in fetched for part in parts)


def test_on_a_gpu_the_weights_are_in_half_precision_at_full_scale_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "compute_dtype", lambda device: torch.bfloat16)
    made = {name: Dial(name, "", None, Path()) for name in ("tiny", "colab", "full-7b")}
    assert {n: (d.device, d.dtype) for n, d in made.items()} == {
        "tiny": ("cpu", torch.float32), "colab": ("cuda", torch.float32), "full-7b": ("cuda", torch.bfloat16),
    }  # fmt: skip

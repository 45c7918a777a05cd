"""The command: what a user can get wrong ends in one line that names it, never in a traceback; answers stream."""

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors import SafetensorError

from minillava import chat as chat_module
from minillava import cli, scales
from minillava.chat import Chat, ChatError, terminal_picture
from minillava.commands import chat as verb
from minillava.data.template import CHAT
from minillava.experiments import miniature
from minillava.model.generate import LEAST_TEMPERATURE
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw

BENCH = scales.WEIGHTS.parent / "bench" / "coco"


@pytest.fixture
def picture(tmp_path):
    draw(compose("dev", 0), 96).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def command(capsys, *arguments):
    """(status, what it printed, what it complained)."""
    status = cli.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


# what goes wrong


@pytest.mark.parametrize(
    "name, message",
    [
        ("none.png", "none.png: no such file"),
        ("text.png", "text.png: not a picture that can be read"),
        ("cut.png", "cut.png: not a picture that can be read"),
        ("folder", "folder: a folder, not a picture"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(capsys, tmp_path, picture, weights, name, message):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:700])
    (tmp_path / "folder").mkdir()
    status, out, err = command(capsys, "chat", tmp_path / name, "--ask", "Why?", "--weights", weights / "llava")
    assert status == 2 and message in err and err.startswith("minillava: ") and err.count("\n") == 1 and not out


@pytest.mark.parametrize(
    "gone, message",
    [
        ("", "weights"),
        ("llava.json", "llava.json"),
        ("model.safetensors", "no weights here"),
        ("tokenizer", "no tokenizer files here"),
        ("preprocessor_config.json", "preprocessor_config.json"),
    ],
)
def test_incomplete_weights_are_named(capsys, tmp_path, picture, weights, gone, message):
    folder = tmp_path / "weights"
    if gone:
        folder.mkdir()
        for path in (weights / "llava").iterdir():
            if not path.name.startswith(gone):
                (folder / path.name).write_bytes(path.read_bytes())
    status, _, err = command(capsys, "chat", picture, "--ask", "Why?", "--weights", folder)
    assert status == 2 and message in err and str(folder) in err and "Traceback" not in err


def test_broken_weights_are_named(capsys, tmp_path, picture, weights):
    for path in (weights / "llava").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[: 900 if "safetensors" in path.name else None])
    status, _, err = command(capsys, "chat", picture, "--ask", "Why?", "--weights", tmp_path)
    assert status == 2 and "model.safetensors" in err


@pytest.mark.parametrize(
    "question, message", [("", "an empty question"), ("  ", "an empty question"), ("a <image>?", "2 image tokens"), ("word " * 3000, "the language model reads 1024")]
)  # fmt: skip
def test_a_question_that_cannot_be_asked_is_an_error_in_words(capsys, picture, weights, question, message):
    status, _, err = command(capsys, "chat", picture, "--ask", question, "--weights", weights / "llava")
    assert status == 2 and message in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--scale", "huge"), "no scale is called 'huge'; there are: tiny, smoke"),
        (("--seeds", "0"), "--seeds 0: at least 1 is needed"),
        (("--seeds", "-1"), "--seeds -1: at least 1 is needed"),
        (("--scale", "smoke", "--out", "{file}"), "file is a file; name a folder with --out"),
        (("--scale", "smoke", "--out", "{file}/below"), "file/below"),
        (("--scale", "smoke", "--out", "{new}"), "none/vision_tower: no weights here; `make weights` trains them"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_leaves_nothing(
    capsys, tmp_path, weights, monkeypatch, arguments, message
):
    (tmp_path / "file").touch()
    there = tmp_path / "none" if "{new}" in arguments else weights
    run_paper = miniature.run_paper
    monkeypatch.setattr(miniature, "run_paper", lambda *a: run_paper(*a, there))
    monkeypatch.chdir(tmp_path)
    status, _, err = command(
        capsys, "paper", *(a.format(file=tmp_path / "file", new=tmp_path / "new") for a in arguments)
    )
    assert status == 2 and message in err and "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("arguments", [(), ("sing",), ("chat",), ("paper", "--seeds", "three"), ("paper", "extra")])
def test_an_unknown_command_shows_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    assert end.value.code == 2 and "usage: minillava" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/paper/state.part"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["system", "safetensors"],
)
def test_a_full_disk_says_what_to_do(capsys, tmp_path, weights, monkeypatch, error):
    def full(*_):
        raise error

    run_paper = miniature.run_paper
    monkeypatch.setattr(miniature, "run_paper", lambda *a: run_paper(*a, weights))
    monkeypatch.setattr(miniature, "make_data", full)
    status, _, err = command(capsys, "paper", "--scale", "smoke", "--out", tmp_path / "out")
    assert status == 2 and "No space left on device" in err
    assert "run the same command again" in err


@pytest.mark.parametrize("verb", ["paper", "chat"])
def test_ctrl_c_ends_with_130_and_says_how_to_resume(capsys, tmp_path, picture, weights, monkeypatch, verb):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(miniature, "make_data", stop)
    monkeypatch.setattr(chat_module, "stream", stop)
    run_paper = miniature.run_paper
    monkeypatch.setattr(miniature, "run_paper", lambda *a: run_paper(*a, weights))
    arguments = {
        "paper": ("--scale", "smoke", "--out", tmp_path / "out"),
        "chat": (picture, "--ask", "Why?", "--weights", weights / "llava"),
    }
    status, _, err = command(capsys, verb, *arguments[verb])
    assert status == 130 and "the same command" in err


def test_a_programming_mistake_is_not_hidden(monkeypatch, picture):
    monkeypatch.setattr(verb, "Chat", lambda *_: {}["a bug"])
    with pytest.raises(KeyError, match="a bug"):
        cli.main(["chat", str(picture), "--ask", "Why?"])


def test_streams_that_are_closed_are_opened_to_nothing(picture, weights, monkeypatch, capsys):
    arguments = ["chat", str(picture), "--weights", str(weights / "llava")]
    for name, more in (("stdin", []), ("stdout", ["--ask", "Why?"]), ("stderr", ["--ask", "Why?"])):
        with monkeypatch.context() as closed:
            closed.setattr(sys, name, None)
            assert cli.main([*arguments, *more]) == 0
            getattr(sys, name).close()


def test_a_terminal_without_a_character_shows_a_question_mark(monkeypatch, weights, tmp_path):
    monkeypatch.setenv("MINILLAVA_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert cli.main(["progress"]) == 0
    sys.stdout.flush()
    assert b"0 of " in sys.stdout.buffer.getvalue() and b" ? " in sys.stdout.buffer.getvalue()


def test_without_a_home_folder_the_command_says_so(monkeypatch, capsys):
    import pathlib

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MINILLAVA_PROGRESS", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", no_home)
    status, _, err = command(capsys, "progress")
    assert status == 2 and err == "minillava: this account has no home folder; set HOME to a folder of yours\n"


@pytest.mark.parametrize("temperature", ["1e-320", "1e-7", "-1", "nan", "inf"])
def test_a_temperature_that_no_score_can_be_divided_by_is_an_error(capsys, picture, temperature):
    status, _, err = command(capsys, "chat", picture, "--ask", "Why?", f"--temperature={temperature}")
    assert status == 2 and "--temperature: 0, or 1e-06 or above" in err


def test_the_least_temperature_takes_the_likeliest_token(picture, weights):
    said = set()
    for temperature in (0, LEAST_TEMPERATURE):
        chat = Chat(weights / "llava")
        chat.look(picture)
        said.add(chat.ask("Why?", max_new_tokens=5, temperature=temperature))
    assert len(said) == 1


# talking


class Recorder(io.StringIO):
    """An output that keeps each piece as it was written."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def write(self, text):
        self.pieces.append(text)
        return len(text)


def test_answers_about_a_real_photo_stream_and_are_what_ask_gives(real, weights, monkeypatch):
    photo, questions = real("extreme_ironing.jpg"), ("What is odd in this picture?", "Where is this?")
    monkeypatch.setattr(sys, "stdout", out := Recorder())
    asked = [part for q in questions for part in ("--ask", q)]
    assert cli.main(["chat", str(photo), *asked, "--weights", str(weights / "llava")]) == 0
    monkeypatch.undo()
    chat = Chat(weights / "llava")
    chat.look(photo)
    expected = [chat.ask(q) for q in questions]  # the second one after the first
    said = "".join(out.pieces)
    assert [part.strip() for part in said.split("Assistant: ")[1:]] == expected
    assert len([p for p in out.pieces if p.strip()]) > 2 + 2 * 3  # two headings, several pieces an answer


@pytest.mark.parametrize("lines", ["Why?\nWhere?\n\nnot read\n", "Why?\nWhere?"])
def test_questions_come_line_by_line_until_an_empty_line_or_the_end(picture, weights, monkeypatch, capsys, lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    status, out, err = command(capsys, "chat", picture, "--weights", weights / "llava")
    assert status == 0 and out.count("Assistant: ") == 2 and not err


def test_a_new_picture_starts_the_conversation_afresh(picture, weights):
    chat = Chat(weights / "llava")
    with pytest.raises(ChatError, match="show a picture first"):
        chat.ask("Why?")
    chat.look(picture)
    first = chat.ask("What is odd in this picture?", max_new_tokens=8)
    chat.ask("Where?", max_new_tokens=8)
    assert [question for question, _ in chat.turns] == ["<image>\nWhat is odd in this picture?", "Where?"]
    chat.look(Image.open(picture))
    assert chat.turns == [] and chat.ask("What is odd in this picture?", max_new_tokens=8) == first


def test_a_later_question_is_asked_with_the_turns_before_it(picture, weights, monkeypatch):
    chat, seen = Chat(weights / "llava"), []
    monkeypatch.setattr(
        chat_module, "stream", lambda model, ids, *_, **__: seen.append(ids) or iter(["An ", "answer."])
    )
    chat.look(picture)
    assert [chat.ask(q) for q in ("Why?", "Where?")] == ["An answer."] * 2
    pairs = [("<image>\nWhy?", "An answer."), ("Where?", None)]
    expected = "".join(text for text, _ in CHAT.segments(pairs)).replace("<image>", "")
    assert chat.tokenizer.decode(seen[1][seen[1] >= 0][1:]) == expected


def test_an_open_image_gives_the_same_features_as_its_file(tmp_path, weights):
    """Transparent, grey or turned: what `look` makes of an open image is what it makes of its file."""
    rgba = draw(compose("dev", 0), 96).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize((96, 96)))
    rgba.save(tmp_path / "a.png")
    chat, seen = Chat(weights / "llava"), []
    for one in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        chat.look(one)
        seen.append(chat.features)
    assert (seen[0] == seen[1]).all()


def test_a_picture_for_the_terminal_has_two_pixels_per_character():
    lines = terminal_picture(Image.new("RGB", (100, 50), "red"), columns=20).split("\n")
    assert len(lines) == 5 and all(line.count("▀") == 20 and line.endswith("\x1b[0m") for line in lines)
    assert "38;2;255;0;0;48;2;255;0;0" in lines[0]


def test_the_default_scale_and_folders_are_those_of_the_readme():
    options = cli.parser("paper").parse_args(["paper"])
    assert (options.scale, options.seeds, str(options.out)) == ("tiny", 1, os.path.join("runs", "paper"))
    assert cli.parser("chat").parse_args(["chat", "a.png"]).weights == scales.WEIGHTS / "llava"


@pytest.mark.parametrize("pictures", [1, 4], ids=["less than is buffered", "more"])
def test_a_closed_output_ends_the_command_silently(tmp_path, pictures):
    """As `minillava generate --dry-run | head` does."""
    arguments = ["generate", "--source", "picture-book", "--limit", pictures, "--dry-run", "--out", tmp_path / "out"]
    types = ["--types", "detail"] if pictures == 1 else []
    start = [sys.executable, "-m", "minillava", *map(str, arguments), *types]
    process = subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 1 and "rror" not in said and "pipe" not in said, said


def test_installed_as_a_wheel_verbs_work_or_say_where_the_weights_are(tmp_path, picture, weights):
    """A wheel has the package alone, with its texts; data_samples and exercises are not beside it."""
    pytest.importorskip("setuptools", "77")
    root, source = Path(cli.__file__).parents[1], tmp_path / "source"
    shutil.copytree(root / "minillava", source / "minillava", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (wheel,) = source.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    there = os.environ | {"PYTHONPATH": str(tmp_path / "site")}

    def said(code):
        start = [sys.executable, "-c", f"import shutil, minillava\nfrom minillava import cli\n{code}"]
        done = subprocess.run(start, cwd=tmp_path, env=there, capture_output=True, text=True)
        return done.stdout.splitlines(), done.stderr.strip().splitlines()

    (tmp_path / "stage1.json").write_text("[]")
    shutil.copy(BENCH / "questions.jsonl", tmp_path / "q.jsonl")
    verbs = [
        ["chat", str(picture), "--ask", "Why?"],
        ["answer", "q.jsonl", "--images", ".", "--out", "a.jsonl"],
        ["train", ".", "--out", "out"],
    ]
    code = """from minillava.course.dial import dial
try:
    dial("tiny")
except ValueError as error:
    print(error)"""
    out, error = said(f"for verb in {verbs}: print(cli.main(verb))\n{code}")
    assert out[:3] == ["2"] * 3 and len(error) == 3, error
    for line in [*error, out[3]]:
        assert "the shipped weights are in this project's repository" in line and "pip install -e ." in line

    parts = [f"--{part.replace('_', '-')}={weights / part}" for part in ("vision_tower", "language_model")]
    made = ["generate", "--source", "picture-book", "--limit", "6", "--out", "made"]  # reads prompts and english.txt
    train = ["train", "made", "--images", "made/pictures", "--out", "out", "--epochs", "1", *parts]
    code = f"""print(minillava.__file__, [cli.main([verb]) for verb in ("doctor", "cost", "progress")])
print(cli.main({made}), shutil.copy("made/detail.json", "made/stage1.json"), cli.main({train}))"""
    out, error = said(code)
    assert out[-1] == "0 made/stage1.json 0", (out, error)
    assert f"{tmp_path / 'site' / 'minillava' / '__init__.py'} [0, 0, 0]" in out and "not in its wheel" in str(out)

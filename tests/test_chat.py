"""Talking: pictures of every kind that people have, a conversation whose beginning is read once, and clear refusals."""

import io
import shutil
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from minillava import chat as talk
from minillava import cli
from minillava.chat import Chat, terminal_picture
from minillava.model import SpliceError, load_llava, save_pretrained
from minillava.model.formats.chat_template import TemplateError
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw


@pytest.fixture
def scene():
    return draw(compose("dev", 0), 96)


@pytest.fixture(scope="module")
def chat(weights):
    return Chat(weights / "llava")


def command(capsys, *arguments):
    """(status, what it printed, what it complained)."""
    status = cli.main(["chat", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def answers(capsys, picture, weights):
    status, out, err = command(capsys, picture, "--ask", "Why?", "--weights", weights / "llava", "--max-new-tokens", 6)
    assert status == 0, err
    return out


# pictures


def test_a_photo_that_was_taken_sideways_is_seen_upright(capsys, tmp_path, scene, weights):
    scene.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees to see it upright
    scene.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "sideways.png", exif=exif)
    assert ImageOps.exif_transpose(Image.open(tmp_path / "sideways.png")).tobytes() == scene.tobytes()
    chat = Chat(weights / "llava")
    assert chat.look(tmp_path / "sideways.png").tobytes() == scene.tobytes()
    assert answers(capsys, tmp_path / "sideways.png", weights) == answers(capsys, tmp_path / "upright.png", weights)


def test_of_an_animation_the_first_frame_is_seen_and_this_is_said(capsys, tmp_path, scene, weights):
    frames = [draw(compose("dev", n), 96) for n in (1, 2)]
    scene.save(tmp_path / "moving.png", save_all=True, append_images=frames)
    scene.save(tmp_path / "still.png")
    args = ("--ask", "Why?", "--weights", weights / "llava", "--max-new-tokens", 6)
    status, out, err = command(capsys, tmp_path / "moving.png", *args)
    assert status == 0 and "moving.png has 3 frames; this is about the first one." in err
    assert command(capsys, tmp_path / "still.png", *args) == (0, out, "")


def test_what_is_transparent_is_seen_on_white(tmp_path, chat):
    clear = np.zeros((40, 40, 4), np.uint8)  # black where it cannot be seen
    clear[:20] = (255, 0, 0, 255)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    seen = np.asarray(chat.look(tmp_path / "clear.png"))
    assert (seen[:20] == (255, 0, 0)).all() and (seen[20:] == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (2000, 1), (1, 2000), (4000, 3)])
def test_a_picture_of_any_proportions_can_be_asked_about_and_shown(capsys, tmp_path, weights, monkeypatch, size):
    Image.new("RGB", size, "red").save(tmp_path / "thin.png")
    assert answers(capsys, tmp_path / "thin.png", weights).startswith("Assistant: ")
    lines = terminal_picture(Image.open(tmp_path / "thin.png")).split("\n")
    assert 1 <= len(lines) <= 24 and all(line.count("▀") == 48 for line in lines)


def huge(path):
    Image.new("1", (20_000, 6_000)).save(path)


def bomb(path):
    """A small file whose header promises 3.6 thousand million pixels."""
    Image.new("L", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


def cut(path):
    draw(compose("dev", 0), 96).save(path)
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    "make, message",
    [
        (huge, "20000 x 6000 pixels is more than 89,000,000 (PNG 1); make it smaller first"),
        (bomb, "far more than 89,000,000 pixels; make it smaller first"),
        (cut, "not a picture that can be read"),
        (lambda path: path.write_bytes(b""), "not a picture that can be read"),
        (lambda path: path.write_bytes(b"P6 4 four 255 "), "not a picture that can be read"),
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "a folder, not a picture"),
    ],
    ids=["huge", "bomb", "cut", "empty", "no number", "missing", "folder"],
)
def test_a_picture_that_cannot_be_used_is_refused_with_its_name(capsys, tmp_path, weights, make, message):
    make(tmp_path / "picture.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        status, out, err = command(capsys, tmp_path / "picture.png", "--ask", "Why?", "--weights", weights / "llava")
    assert status == 2 and message in err and "picture.png" in err and err.count("\n") == 1 and not out


# conversations


def test_a_conversation_gives_what_a_new_one_with_the_same_turns_gives_and_reads_only_new_words(weights, scene):
    chat, questions = Chat(weights / "llava"), ["What is odd in this picture?", "Where?", "Why?"]
    chat.look(scene)
    patches, words = [], []
    project, forward = chat.model.projector.forward, chat.model.language_model.forward
    chat.model.projector.forward = lambda x: patches.append(len(x)) or project(x)
    chat.model.language_model.forward = lambda e, **k: words.append(e.shape[1]) or forward(e, **k)
    for n, question in enumerate(questions):
        words.clear()
        said = chat.ask(question, max_new_tokens=8)
        # After the first: an answer of 8 tokens at most (letters may come in other tokens when read again), a question.
        assert words[0] > 40 if n == 0 else words[0] < 40, words
        other = Chat(weights / "llava")
        other.look(scene)
        other.turns = list(chat.turns[:n])
        assert other.ask(question, max_new_tokens=8) == said
    assert sum(patches) == chat.model.config.vision.num_patches  # the picture is read once
    chat.look(draw(compose("dev", 1), 96))
    chat.ask(questions[0], max_new_tokens=2)
    assert sum(patches) == 2 * chat.model.config.vision.num_patches


def test_an_answer_that_is_not_read_to_the_end_leaves_the_conversation_unchanged(weights, scene):
    chat = Chat(weights / "llava")
    chat.look(scene)
    first = chat.ask("Why?", max_new_tokens=8)
    pieces = chat.stream("Where?", max_new_tokens=8)
    next(pieces, None)
    pieces.close()
    assert [question for question, _ in chat.turns] == ["<image>\nWhy?"]
    again = Chat(weights / "llava")
    again.look(scene)
    assert again.ask("Why?", max_new_tokens=8) == first
    assert again.ask("How?", max_new_tokens=8) == chat.ask("How?", max_new_tokens=8)


def test_a_question_that_does_not_fit_is_reported_and_the_conversation_continues(
    tmp_path, scene, weights, monkeypatch, capsys
):
    scene.save(tmp_path / "a.png")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Why?\n" + "word " * 3000 + "\nWhere?\n\n"))
    status, out, err = command(capsys, tmp_path / "a.png", "--weights", weights / "llava", "--max-new-tokens", 5)
    assert status == 0 and out.count("Assistant: ") == 2 and "the language model reads 1024" in err
    chat = Chat(weights / "llava")
    chat.look(scene)
    with pytest.raises(SpliceError):
        chat.ask("word " * 3000)
    assert chat.turns == [] and chat.ask("Why?", max_new_tokens=5)


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_question_that_is_not_text_is_reported_in_one_line(tmp_path, scene, weights, monkeypatch, capsys, errors):
    scene.save(tmp_path / "a.png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9?\n\n"), "utf-8", errors))
    _, out, err = command(capsys, tmp_path / "a.png", "--weights", weights / "llava", "--max-new-tokens", 5)
    assert "UTF-8" in err and err.count("\n") == 1 and not out


def test_settings_reach_the_model(tmp_path, scene, weights, monkeypatch, capsys):
    scene.save(tmp_path / "a.png")
    seen = {}
    monkeypatch.setattr(talk.Chat, "stream", lambda self, question, *a: seen.update(given=a) or iter(["x"]))
    options = ("--max-new-tokens", 7, "--temperature", 0.5, "--top-p", 0.9, "--seed", 3)
    assert command(capsys, tmp_path / "a.png", "--ask", "Why?", "--weights", weights / "llava", *options)[0] == 0
    assert seen == {"given": (7, 0.5, 0.9, 3)}
    monkeypatch.undo()
    chat = Chat(weights / "llava")
    chat.look(scene)
    drawn = {}
    for seed in (0, 0, 1, 2):
        chat.turns = []
        drawn.setdefault(seed, []).append(chat.ask("Why?", max_new_tokens=8, temperature=2.0, seed=seed))
    assert drawn[0][0] == drawn[0][1] and len({texts[0] for texts in drawn.values()}) > 1


@pytest.mark.parametrize("wrong", [("--max-new-tokens", 0), ("--temperature", -1), ("--temperature", "inf"), ("--top-p", 0),
                                   ("--top-p", "nan"), ("--seed", -1), ("--seed", 2**70)])  # fmt: skip
def test_invalid_settings_are_reported_in_one_line_before_anything_is_loaded(capsys, tmp_path, wrong):
    status, out, err = command(capsys, tmp_path / "none.png", "--ask", "Why?", *wrong)
    assert status == 2 and wrong[0] in err and err.count("\n") == 1 and not out


# weights


def test_weights_that_transformers_can_load_answer_alike_and_a_template_can_be_named(
    tmp_path, chat, scene, weights, capsys
):
    model, about = load_llava(weights / "llava")
    save_pretrained(model, tmp_path / "out", chat.tokenizer, weights / "vision_tower", chat.template, about)
    chat.look(scene)
    other = Chat(tmp_path / "out")
    other.look(scene)
    assert other.ask("What is odd?", max_new_tokens=8) == chat.ask("What is odd?", max_new_tokens=8)
    config = tmp_path / "out" / "config.json"
    config.write_text(config.read_text().replace('"minillava"', '"something"'))
    assert Chat(tmp_path / "out").template == chat.template  # its chat template is this one
    (tmp_path / "out" / "chat_template.jinja").unlink()
    with pytest.raises(
        TemplateError, match="out: the weights have no chat template; choose one of chat, chat_v1, plain.*--template"
    ):
        Chat(tmp_path / "out")
    scene.save(tmp_path / "a.png")
    args = (tmp_path / "a.png", "--ask", "What is odd?", "--weights", tmp_path / "out", "--max-new-tokens", 8)
    assert command(capsys, *args)[0] == 2
    status, out, _ = command(capsys, *args, "--template", "chat")
    chat.look(scene)
    assert status == 0 and out.split("Assistant: ")[1].strip() == chat.ask("What is odd?", max_new_tokens=8)


def test_half_precision_can_be_asked_for(tmp_path, scene, weights, capsys):
    scene.save(tmp_path / "a.png")
    args = ("--ask", "Why?", "--weights", weights / "llava", "--max-new-tokens", 5, "--dtype", "bfloat16")
    assert command(capsys, tmp_path / "a.png", *args)[0] == 0


def test_missing_weights_are_named(capsys, tmp_path, scene):
    scene.save(tmp_path / "a.png")
    status, _, err = command(capsys, tmp_path / "a.png", "--ask", "Why?", "--weights", "nobody/nothing")
    assert status == 2 and "nobody/nothing: no such folder here" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "name, text",
    [("preprocessor_config.json", t) for t in ("{}", "[]", '{"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}',
                                               '{"image_mean": [0, 0], "image_std": [1, 1, 1]}')]
    + [("tokenizer.json", t) for t in ("", "{}", "5")] + [("tokenizer_config.json", t) for t in ("{", "[]")],
)  # fmt: skip
def test_weights_whose_small_files_are_broken_are_named(capsys, tmp_path, scene, weights, name, text):
    scene.save(tmp_path / "scene.png")
    folder = shutil.copytree(weights / "llava", tmp_path / "broken")
    (folder / name).write_text(text)
    status, out, err = command(capsys, tmp_path / "scene.png", "--ask", "Why?", "--weights", folder)
    assert status == 2 and str(folder) in err and err.count("\n") == 1 and not out, err


def test_the_blank_that_the_model_writes_before_an_answer_is_not_shown(scene, weights, monkeypatch):
    chat = Chat(weights / "llava")
    chat.look(scene)
    monkeypatch.setattr("minillava.chat.stream", lambda *_: iter(["", " ", " A", " cat."]))
    assert list(chat.stream("What is it?")) == ["A", " cat."] and chat.turns[-1][1] == "A cat."

"""A trained LLaVA answers files of questions: the authors' rows, the controls, resuming, and questions that cannot be asked."""

import json
import shutil
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillava import cli
from minillava.chat import Chat
from minillava.data.scienceqa import write_problems
from minillava.data.template import CHAT
from minillava.files import FileError, read_jsonl, write_jsonl
from minillava.judging import answer_files, answer_scienceqa
from minillava.judging import answers as judging_answers
from minillava.judging.answer_files import (
    PICTURES_SHOWN,
    AnswerSettings,
    read_answers,
    read_question_file,
    write_answers,
)
from minillava.model import CheckpointError, load_language, save_pretrained
from minillava.scales import WEIGHTS
from minillava.standins.quiz import draw_quiz

BENCH = WEIGHTS.parent / "bench" / "coco"
QUESTIONS, IMAGES = BENCH / "questions.jsonl", BENCH / "images"


@pytest.fixture(scope="module")
def talk(weights):
    return Chat(weights / "llava")


@pytest.fixture
def answers(talk, tmp_path):
    """`answers(name, ...)`: the rows that `write_answers` makes of the shipped questions in a file of that name."""

    def make(name="answers.jsonl", questions=QUESTIONS, images=IMAGES, limit=None, **settings):
        path = tmp_path / name
        asked = read_question_file(questions, bool(settings.get("format")))[:limit]
        parts = talk.model, talk.tokenizer, talk.template, talk.preparation
        chosen = AnswerSettings(**{"max_new_tokens": 5, "batch": 4} | settings)
        make.made = write_answers(*parts, asked, images, path, "m", chosen)
        return read_jsonl(path)

    return make


@pytest.fixture
def seen(monkeypatch):
    """What every question was shown, in order; nothing is generated."""
    out = []

    def show(model, tokenizer, template, batch, features, settings):
        out.extend(features)
        return [question.text for question in batch]

    monkeypatch.setattr(answer_files, "_answer_batch", show)
    return out


def command(capsys, *arguments):
    """(status, what it printed, what it complained)."""
    status = cli.main([*map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_answers_are_rows_of_the_authors_form_and_what_the_model_says_when_it_is_asked_alone(talk, answers):
    rows, asked = answers(), read_jsonl(QUESTIONS)
    assert [(r["question_id"], r["prompt"]) for r in rows] == [(q["question_id"], q["text"]) for q in asked]
    authors = {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
    assert all(authors | {"image", "shown"} == r.keys() for r in rows)
    assert [r["image"] for r in rows] == [q["image"] for q in asked]
    assert len({r["answer_id"] for r in rows}) == len(rows) and {r["model_id"] for r in rows} == {"m"}
    for row, question in list(zip(rows, asked))[:7:3]:
        talk.look(IMAGES / question["image"])
        assert row["text"] == talk.ask(question["text"], max_new_tokens=5)


@pytest.mark.parametrize(
    "name, ends", [("generation_config.json", 2), ("generation_config.json", [1, 2]), ("config.json", 2), (None, None)]
)
def test_weights_that_end_with_their_own_token_stop_there_and_it_is_never_in_an_answer(
    talk, weights, tmp_path, capsys, monkeypatch, name, ends
):
    """LLaVA#1578: answers ended with "</s>"; 2 is </s> here, and nothing in the template says so."""
    folder = tmp_path / "out"
    save_pretrained(talk.model, folder, talk.tokenizer, weights / "vision_tower", CHAT, talk.about)
    for path in (folder / "generation_config.json", folder / "config.json"):
        written = json.loads(path.read_text())
        written.pop("minillava", None)  # as others write it
        for config in (written, written.get("text_config", {})):
            config.pop("eos_token_id", None)
        path.write_text(json.dumps(written | ({"eos_token_id": ends} if path.name == name else {})))
    tokens = json.loads((folder / "tokenizer_config.json").read_text()) | {"eos_token": "</s>"}  # ours is the stop
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    no, special, end = talk.tokenizer.encode("No", add_special_tokens=False)[0], 0, 2  # 0 is <pad>
    said = {}

    def choose(logits, temperature, top_p, draws):
        said["n"] = said.get("n", -1) + 1
        return torch.tensor([(no, special, no, end, no, no)[said["n"] % 6]] * len(logits))

    monkeypatch.setattr(sys.modules["minillava.model.generate"], "choose", choose)
    word = talk.tokenizer.decode([no]).strip()
    options = ("--weights", folder, "--max-new-tokens", 5)
    status, out, err = command(capsys, "chat", next(IMAGES.iterdir()), "--ask", "Is it?", *options)
    assert status == 0 and out == f"Assistant: {word * 2}\n", err
    write_jsonl(read_jsonl(QUESTIONS)[:3], tmp_path / "q.jsonl")
    said.clear()
    args = (tmp_path / "q.jsonl", "--images", IMAGES, "--out", tmp_path / "a.jsonl", *options)
    status, _, err = command(capsys, "answer", *args)
    assert status == 0 and {row["text"] for row in read_jsonl(tmp_path / "a.jsonl")} == {word * 2}, err


def test_ends_that_are_no_token_ids_are_named(weights, tmp_path):
    folder = shutil.copytree(weights / "language_model", tmp_path / "out")
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(CheckpointError, match="generation_config.json: .*eos_token_id"):
        load_language(folder)


def test_a_stopped_run_resumes_and_an_incomplete_row_is_made_again(answers, tmp_path):
    whole = answers()
    assert answers.made == 12 and answers() == whole and answers.made == 0
    path = tmp_path / "answers.jsonl"
    text = path.read_text()
    path.write_text(text[: text.index("\n", len(text) // 2) + 30])
    there = path.read_text().count("\n")
    assert answers() == whole and answers.made == 12 - there > 0


def test_the_controls_show_a_blank_another_question_s_picture_or_none(answers, seen):
    shown = {}
    for condition in PICTURES_SHOWN:
        seen.clear()
        answers(f"{condition}.jsonl", condition=condition)
        shown[condition] = list(seen)
    assert set(shown) == {"picture", "other-order", "blank", "shuffled", "text"} and shown["text"] == [None] * 12
    assert all(torch.equal(*pair) for pair in zip(shown["other-order"], shown["picture"]))
    assert all(torch.equal(z, shown["blank"][0]) for z in shown["blank"])
    names = [q["image"] for q in read_jsonl(QUESTIONS)]
    own = dict(zip(names, shown["picture"]))
    for name, z in zip(names, shown["shuffled"]):
        assert not torch.equal(z, own[name]) and any(torch.equal(z, other) for other in own.values())
    assert not any(torch.equal(shown["blank"][0], z) for z in own.values())


@pytest.mark.parametrize("format, usual", [(None, True), ("QCM-LEA", False)])
def test_the_other_order_turns_picture_and_question_round(answers, tmp_path, monkeypatch, format, usual):
    write_problems(draw_quiz("test", 8, tmp_path / "quiz" / "images", 96), tmp_path / "quiz")
    science = {"questions": tmp_path / "quiz", "images": tmp_path / "quiz" / "images", "format": format}
    first = {}  # condition -> for each prompt with a picture, whether it comes before the question

    def note(model, tokenizer, template, prompts, pictures, most):
        asked = [text for prompt, shown in zip(prompts, pictures) if shown for text, _ in prompt if "<image>" in text]
        first[condition] = {text.startswith("Human: <image>") for text in asked}
        return ["No."] * len(prompts)

    for module in (judging_answers, answer_scienceqa):
        monkeypatch.setattr(module, "answer_segments", note)
    for condition in ("picture", "other-order", "shuffled"):
        answers(f"{condition}.jsonl", condition=condition, batch=12, **(science if format else {}))
    assert first == {"picture": {usual}, "other-order": {not usual}, "shuffled": {usual}}


def test_answers_of_other_weights_or_settings_are_never_mixed(answers, talk, tmp_path):
    answers(limit=3)
    with pytest.raises(
        FileError,
        match=r"answers\.jsonl .*'look': 'picture'.*'blank'.*--out",
    ):
        answers(condition="blank")
    with torch.no_grad():
        talk.model.projector.weight.add_(1.0)
    try:
        with pytest.raises(FileError, match="choose another --out"):
            answers()
    finally:
        with torch.no_grad():
            talk.model.projector.weight.sub_(1.0)
    other = tmp_path / "notes.jsonl"
    other.write_text("what I think")
    with pytest.raises(FileError, match="notes.jsonl"):
        answers("notes.jsonl")
    assert other.read_text() == "what I think"
    assert read_answers(tmp_path / "none.jsonl", {}, {}) == set()


@pytest.mark.parametrize("changed", ["prompt", "picture", "name", "no picture", "another id", "blank", "made before"])
def test_answers_to_other_questions_or_pictures_are_never_taken_for_these(answers, seen, tmp_path, changed):
    """Before, the command said "0 made now", and a score was taken of answers to other questions."""
    images, rows = shutil.copytree(IMAGES, tmp_path / "images"), read_jsonl(QUESTIONS)
    condition = "blank" if changed == "blank" else "picture"
    made = answers(images=images, condition=condition)
    if changed == "prompt":
        rows[4]["text"] += " Really?"
    elif changed == "picture":
        shutil.copy(images / rows[0]["image"], images / rows[4]["image"])
    elif changed == "another id":
        rows[4]["question_id"] = 99
    elif changed == "made before":  # by a version that did not say which picture was shown
        old = [{k: v for k, v in row.items() if k not in ("image", "shown")} for row in made]
        write_jsonl(old, tmp_path / "answers.jsonl")
    elif changed == "no picture":
        del rows[4]["image"]
    else:
        rows[4]["image"] = rows[0]["image"]
    write_jsonl(rows, tmp_path / "q.jsonl")
    before = (tmp_path / "answers.jsonl").read_bytes()
    with pytest.raises(FileError, match=r"answers.jsonl holds an answer to question \d+ that is not .*--out"):
        answers(questions=tmp_path / "q.jsonl", images=images, condition=condition)
    assert (tmp_path / "answers.jsonl").read_bytes() == before
    assert answers("more.jsonl", limit=5) == answers("more.jsonl", limit=None)[:5] and answers.made == len(rows) - 5


def test_a_device_is_not_read_to_its_end(answers):
    with pytest.raises(FileError, match="/dev/full: not a regular file"):
        answers("/dev/full")


def test_ids_that_repeat_in_each_category_are_told_apart(answers, seen, tmp_path):
    rows = [{"question_id": n, "image": "bench-000000.png", "text": f"Is there {what}?", "category": kind}
            for kind, what in (("random", "a cat"), ("popular", "a dog")) for n in (1, 2)]  # fmt: skip
    write_jsonl(rows, tmp_path / "q.jsonl")
    made = answers(questions=tmp_path / "q.jsonl")
    assert [(r["category"], r["question_id"], r["prompt"]) for r in made] == [
        (r["category"], r["question_id"], r["text"]) for r in rows
    ]
    assert answers(questions=tmp_path / "q.jsonl") == made and answers.made == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no questions in it"),
        ([{"question_id": 1, "text": " ", "image": "a.png"}], "row 1: a question needs `question_id` and `text`"),
        ([{"text": "Why?", "image": "a.png"}], "row 1: a question needs `question_id` and `text`"),
        ([{"question_id": 1, "text": "Why?"}] * 2, "the question_id 1 stands twice"),
        ([{"question_id": 1, "text": "Why?", "image": "a.png"}], "a.png: no such picture (1 missing in all)"),
    ],
)
def test_questions_that_cannot_be_asked_are_named_before_anything_is(answers, tmp_path, rows, message):
    write_jsonl(rows, tmp_path / "q.jsonl")
    with pytest.raises(FileError) as error:
        answers(questions=tmp_path / "q.jsonl")
    assert message in str(error.value) and not (tmp_path / "answers.jsonl").exists()


def test_pictures_can_be_shuffled_only_if_there_are_two(answers):
    with pytest.raises(FileError, match="needs questions about two or more"):
        answers(condition="shuffled", limit=3)


def test_a_question_that_is_too_long_is_named_with_its_batch_and_earlier_answers_are_kept(answers, tmp_path):
    rows = read_jsonl(QUESTIONS)[:6]
    rows[5]["text"] = "Why? " * 2000
    write_jsonl(rows, tmp_path / "q.jsonl")
    with pytest.raises(FileError, match="questions 4 to 5: sample 1: .* tokens after splicing"):
        answers(questions=tmp_path / "q.jsonl")
    assert len(read_jsonl(tmp_path / "answers.jsonl")) == 4


def test_two_runs_never_write_into_one_file(answers, tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".answers.jsonl.lock"):
        with pytest.raises(FileError, match="answers.jsonl: another run"):
            answers()
    assert len(answers(limit=2)) == 2


def test_from_questions_to_scores_by_command(capsys, tmp_path, weights):
    out = tmp_path / "new" / "answers.jsonl"
    small = ("--weights", weights / "llava", "--max-new-tokens", 5)
    status, said, _ = command(capsys, "answer", QUESTIONS, "--images", IMAGES, "--out", out, *small)
    assert status == 0 and f"{out}: 12 answers, 12 of them made now, shown: picture" in said
    status, said, _ = command(
        capsys, "judge", "bench", "--bench", BENCH, "--answers", out, "--out", tmp_path / "r", "--json"
    )
    assert json.loads(said)["files"][0]["scores"].keys() == {"conv", "detail", "complex", "all"}
    status, _, complaint = command(capsys, "answer", QUESTIONS, "--images", tmp_path, "--out", out, *small)
    assert status == 2 and "bench-000000.png: no such picture" in complaint and "Traceback" not in complaint
    assert command(capsys, "answer", QUESTIONS, "--images", IMAGES, "--out", out, *small, "--batch", 0)[0] == 2
    assert command(capsys, "answer", QUESTIONS, "--images", IMAGES, "--out", out, *small, "--limit", 0)[0] == 2


def test_the_problems_of_scienceqa_are_answered_in_two_steps_and_scored(capsys, tmp_path, weights, monkeypatch):
    quiz, out = tmp_path / "quiz", tmp_path / "answers.jsonl"
    problems = draw_quiz("test", 6, quiz / "images", 96)
    write_problems(problems, quiz)
    small = ("--weights", weights / "llava", "--max-new-tokens", 5)
    asked = ("answer", quiz, "--format", "QCM-LEPA", "--images", quiz / "images", "--out", out, *small)
    status, _, complaint = command(capsys, *asked)
    assert status == 0, complaint
    rows = read_jsonl(out)
    assert [r["question_id"] for r in rows] == [p.id for p in problems]
    assert all("\n The answer is " in r["text"] for r in rows)  # the second step
    joints = []
    answer_problems = answer_files.answer_problems

    def recorded(*arguments):
        joints.append(arguments[6])
        return answer_problems(*arguments)

    monkeypatch.setattr(answer_files, "answer_problems", recorded)
    status, _, complaint = command(capsys, *asked, "--authors-joint")
    assert status == 2 and "choose another --out" in complaint  # never mixed with the others
    theirs = [tmp_path / "theirs.jsonl" if a is out else a for a in asked]
    assert command(capsys, *theirs, "--authors-joint")[0] == 0 and set(joints) == {" ###\nANSWER:"}
    assert {r["metadata"]["joint"] for r in read_jsonl(tmp_path / "theirs.jsonl")} == {" ###\nANSWER:"}
    assert "--authors-joint" in command(capsys, *["QCM-LEA" if a == "QCM-LEPA" else a for a in theirs], "--authors-joint")[2]  # fmt: skip
    status, said, _ = command(capsys, "judge", "scienceqa", out, quiz, "--json")
    assert json.loads(said)["questions"] == 6 and json.loads(said)["strict"]["Avg"]["questions"] == 6


# where other benchmarks keep the picture

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "image"]), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("key", ["img_path", "image_file", "imageId", "image_id", "images", "img", "file_name", "filename", "Picture", "photo"])  # fmt: skip
def test_questions_with_their_picture_under_another_key_are_not_answered_blind(key, tmp_path, capsys):
    rows = [{"question_id": n, "text": "What is this?"} | ({key: f"{n}.jpg"} if n else {}) for n in range(4)]
    write_jsonl(rows, tmp_path / "q.jsonl")
    status, _, said = command(capsys, "answer", tmp_path / "q.jsonl", "--images", IMAGES, "--out", tmp_path / "a.jsonl")
    assert status == 2 and f"3 of 4 questions have no `image`, but {key!r} (row 2: 1.jpg); rename it" in said
    assert not (tmp_path / "a.jsonl").exists()
    write_jsonl([row | {key: None} for row in rows], tmp_path / "q.jsonl")
    assert [q.image for q in read_question_file(tmp_path / "q.jsonl")] == [None] * 4
    write_jsonl([row | {"image": "own.jpg"} for row in rows], tmp_path / "q.jsonl")
    assert [q.image for q in read_question_file(tmp_path / "q.jsonl")] == ["own.jpg"] * 4
    write_jsonl(
        [rows[0] | {"text": "What? \ud83d"}], tmp_path / "q.jsonl"
    )  # half a character, which no tokenizer takes
    assert read_question_file(tmp_path / "q.jsonl")[0].text == "What? \ufffd"


@given(key=st.sampled_from(["question_id", "text", "image", "category", "img", "x"]), value=JSON, named=st.booleans())
def test_any_json_value_in_a_field_of_a_question_is_read_or_named(tmp_path_factory, key, value, named):
    path = tmp_path_factory.mktemp("q") / "q.jsonl"
    rows = [{"question_id": n, "text": "What?"} | ({"image": "a.jpg"} if named else {}) for n in range(3)]
    rows[1][key] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        found = read_question_file(path)
    except FileError as error:
        assert str(error).startswith(f"{path}")
    else:
        assert len(found) == 3 and all(isinstance(q.image, str | None) and q.text.strip() for q in found)
        assert len({q.key for q in found}) == 3


def test_the_number_of_questions_without_a_picture_is_said(tmp_path, capsys, weights):
    rows = [
        {"question_id": n, "text": "What?"} | ({"image": read_jsonl(QUESTIONS)[0]["image"]} if n else {})
        for n in range(3)
    ]
    write_jsonl(rows, tmp_path / "q.jsonl")
    where = ("--images", IMAGES, "--out", tmp_path / "a.jsonl", "--weights", weights / "llava", "--max-new-tokens", 2)
    status, said, _ = command(capsys, "answer", tmp_path / "q.jsonl", *where)
    assert status == 0 and "3 answers" in said and "1 of the questions have no picture" in said

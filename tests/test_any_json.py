"""Any JSON value in any field of any file: each reader gives a value that can be used, or an error in words."""

import copy
import json
import shutil
import tempfile
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from minillava.asking import Journal, chat_request, read_batch, read_replies, request_key
from minillava.chat import Chat
from minillava.costs.preflight import device_bytes, llava_config
from minillava.data.scienceqa import FORMATS, Problem, answer_text, problem_row, question_text, read_labels
from minillava.data.template import CHAT
from minillava.data.valid import read_records
from minillava.datagen.concepts import concept_filter, read_captions, write_captions
from minillava.datagen.sources import read_source
from minillava.errors import UserError
from minillava.exercises.engine import progress
from minillava.experiments.run import Run
from minillava.files import parse_json, read_jsonl
from minillava.judging import answer_files, pope, reviews, scienceqa
from minillava.judging.answer_files import AnswerSettings, read_answers, read_question_file, write_answers
from minillava.judging.bench import load_bench
from minillava.judging.judges import match_answers
from minillava.judging.rubric import read_rules, review_messages, rubric_of
from minillava.model import load_language, load_vision, save_pretrained
from minillava.scales import SMOKE
from minillava.text import printable

DEEP = "deep"  # in the file: lists inside each other
ODD = [
    10**400,
    -(10**400),
    2**63,
    -1,
    0,
    1e999,
    float("nan"),
    1e-320,
    "",
    "\0",
    "\ud800",
    "../a",
    "/",
    "a" * 300,
    True,
    DEEP,
]
ANY = st.recursive(
    st.sampled_from(ODD) | st.none() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=4,
)  # fmt: skip


def places(value):
    """(container, key) of every value inside."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def written(value, path, levels=5000):
    rows = value if path.suffix == ".jsonl" and isinstance(value, list) else [value]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text.replace(f'"{DEEP}"', "[" * levels + "]" * levels), encoding="utf-8")
    return path


# the readers: name -> (the file's value, what is done with it)

QUESTIONS = [{"question_id": n, "image": f"{n}.png", "text": f"Is there a {n}?", "category": "conv"} for n in range(3)]
LABELLED = [row | {"label": "yes", "category": "random"} for row in QUESTIONS]
ANSWERS = [{"question_id": n, "prompt": f"Is there a {n}?", "text": "Yes.", "model_id": "m", "metadata": {}} for n in range(3)]  # fmt: skip
INSTANCES = [{"category": "dog", "bbox": [0.1, 0.1, 0.5, 0.5]}]
CONTEXT = [{"image": f"{n}.png", "captions": ["A dog."], "instances": INSTANCES} for n in range(3)]
REVIEWS = [{"question_id": n, "content": "8 7\nGood.", "tuple": [8, 7], "category": "conv", "swapped": False, "judge": "j"} for n in range(4)]  # fmt: skip
PROBLEMS = {
    str(n): Problem(str(n), "Which?", ("a", "b"), 1, "Hint", f"{n}/image.png", "s", "t", "c", "k", "grade2", "L", "S")
    for n in range(3)
}
TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
RECORDS = [{"id": f"a{n}", "image": f"{n}.png", "conversations": TURNS, "more": {"kept": 1}} for n in range(3)]
COCO = {
    "images": [{"id": n, "file_name": f"{n}.png", "width": 8, "height": 8} for n in range(3)],
    "annotations": [{"id": n, "image_id": n, "caption": "A dog."} for n in range(3)],
}


ASKED = chat_request("gpt-4o", [{"role": "user", "content": "Hi"}])
COMPLETION = {
    "choices": [{"message": {"content": "A", "refusal": None}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    "model": "m",
}
ERROR = {"error": {"message": "too long", "code": 400, "type": "invalid"}}
BATCH = [
    {"custom_id": request_key(ASKED), "response": {"status_code": status, "body": body}, "error": None}
    for status, body in ((500, ERROR), (200, COMPLETION))
]
REPLIES = [{"key": request_key(ASKED), "text": "A", "finish": "stop", "model": "m", "prompt_tokens": 1, "completion_tokens": 2, "usd": 0.1}]  # fmt: skip


def batch(path):
    with tempfile.TemporaryDirectory() as folder, Journal(folder) as journal:
        assert read_batch([path], [ASKED], journal)


def replies(path):
    assert all(reply.text is not None for reply in read_replies(path).values())


def science(problems):
    for problem in problems.values():
        assert question_text(problem) and all(isinstance(answer_text(problem, form), str) for form in FORMATS)
    scienceqa.evaluate(problems, scienceqa.Results({"0": "B"}, {}), seed=1)


def labels(path):
    science(read_labels(path))


def bench(path, changed):
    paths = {name: path.with_name(f"{name}.jsonl") for name in ("questions", "context", "reference")}
    for name, value in (("questions", QUESTIONS), ("context", CONTEXT), ("reference", QUESTIONS)):
        written(value, paths[name])
    items = load_bench(*(paths | {changed: path}).values())
    assert [review_messages(item, ["a", "b"], {"role": "A", "prompt": "Judge."}) and rubric_of(item) for item in items]


def judged(path):
    found = reviews.read_reviews(path)
    assert reviews.relative_scores(found.used) and json.dumps([vars(e) for e in found.excluded])
    reviews.position_bias(found.used)


def matched(path):
    folder = path.parent
    written(QUESTIONS, folder / "q.jsonl"), written(CONTEXT, folder / "c.jsonl")
    items = load_bench(folder / "q.jsonl", folder / "c.jsonl", folder / "q.jsonl")
    cases, excluded = match_answers(items, read_jsonl(path), path)
    assert cases and json.dumps([str(e) for e in excluded])


def rubrics(path):
    for rule in read_rules(path).values():
        assert rule["role"] + rule["prompt"]


def captions(path):
    texts, raw, problems = read_captions(path)
    concept_filter(texts, least=1, chunker="rules")
    write_captions(raw, path.with_name("out.json"))


def source(path):
    found, problems = read_source(path, path.parent)
    assert json.dumps([str(p) for p in [*found, *problems]])


def records(path):
    for record in read_records(path):
        assert record["id"] + record["conversations"][0]["value"] and json.dumps(record, indent=1)


def resumed(path):
    read_answers(path, {}, {(None, row["question_id"]): (row["prompt"], None, None) for row in ANSWERS})


def yes_no(path):
    pope.evaluate(pope.read_questions([path]), ANSWERS)


def yes_no_answers(path):
    pope.evaluate(LABELLED, read_jsonl(path))


def science_answers(path):
    json.dumps(scienceqa.evaluate(PROBLEMS, scienceqa.read_results(path), seed=1))


READERS = {
    "records.json": (RECORDS, records),
    "records.jsonl": (RECORDS, records),
    "captions.json": (RECORDS, captions),
    "captions_x.json": (COCO, source),
    "caps_boxes.jsonl": ([row | {"id": row["image"]} for row in CONTEXT], source),
    "questions.jsonl": (QUESTIONS, partial(bench, changed="questions")),
    "contexts.jsonl": (CONTEXT, partial(bench, changed="context")),
    "references.jsonl": (QUESTIONS, partial(bench, changed="reference")),
    "answers.jsonl": (ANSWERS, matched),
    "resumed.jsonl": (ANSWERS, resumed),
    "reviews.jsonl": (REVIEWS, judged),
    "rule.json": ({"conv": {"role": "Assistant", "prompt": "Judge."}}, rubrics),
    "pope.json": (LABELLED, yes_no),
    "pope.jsonl": (LABELLED, yes_no),
    "pope_answers.jsonl": (ANSWERS, yes_no_answers),
    "problems.json": ({name: problem_row(problem) for name, problem in PROBLEMS.items()}, labels),
    "labels.json": ([{"id": "0", "conversations": [{"value": "Q?\nA. x\nB. y"}, {"value": "B"}]}], labels),
    "batch.jsonl": (BATCH, batch),
    "replies.jsonl": (REPLIES, replies),
    "results.json": ({"outputs": {"0": "B", "1": "A"}, "results": {"0": 1, "1": 0}}, science_answers),
    "results.jsonl": (
        [{"question_id": str(n), "prompt": "Which? a b", "text": "B"} for n in range(3)],
        science_answers,
    ),
}
STRICT = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
SLOW = settings(STRICT, max_examples=12)  # weights are loaded, or a lock is taken


def try_any(data, value, path, use):
    """Put any value into any place of the file's value, write it, and use it; only an error in words may come."""
    holder = [copy.deepcopy(value)]
    container, key = data.draw(st.sampled_from([*places(holder)]))
    if isinstance(container, dict) and data.draw(st.integers(0, 5)) == 0:
        del container[key]
    else:
        container[key] = data.draw(ANY)
    try:
        use(written(holder[0], path, data.draw(st.sampled_from([80, 5000]))))
    except UserError as error:
        assert printable(str(error)).strip()


@pytest.mark.parametrize("name", READERS)
@STRICT
@given(data=st.data())
def test_any_json_value_in_any_field_gives_a_value_or_words(name, tmp_path, data):
    value, use = READERS[name]
    for n in range(3):
        if not (tmp_path / f"{n}.png").exists():
            Image.new("RGB", (8, 8)).save(tmp_path / f"{n}.png")
    use(written(value, tmp_path / name))
    try_any(data, value, tmp_path / name, use)


def test_nesting_is_allowed_to_a_depth_and_then_named():
    assert parse_json("[" * 90 + "]" * 90)
    for levels in (300, 5000, 1_000_000):
        with pytest.raises(ValueError, match="more than 100 levels deep"):
            parse_json("[" * levels + "]" * levels)


# questions to answer


@pytest.fixture(scope="module")
def talk(weights):
    return Chat(weights / "llava")


@SLOW
@given(data=st.data())
def test_any_json_value_in_a_question_is_asked_or_named(talk, tmp_path, monkeypatch, data):
    monkeypatch.setattr(answer_files, "vision_features", lambda *_: torch.zeros(1, 16, 32))
    monkeypatch.setattr(answer_files, "_answer_batch", lambda m, t, e, batch, f, s: [q.text for q in batch])
    for n in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{n}.png")

    def use(path):
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        parts = talk.model, talk.tokenizer, talk.template, talk.preparation
        asked = read_question_file(path)
        for again in range(2):
            made = write_answers(*parts, asked, tmp_path, tmp_path / "out.jsonl", "m", AnswerSettings())
            assert made == (0 if again else len(asked))

    try_any(data, QUESTIONS, tmp_path / "q.jsonl", use)


# weights


def conversation(folder):
    chat = Chat(folder)
    chat.look(Image.new("RGB", (96, 96)))
    chat.ask("Why?", max_new_tokens=2)


@pytest.fixture(scope="module")
def folders(weights, talk, tmp_path_factory):
    """Name -> a folder of weights and what is done with it."""
    root = tmp_path_factory.mktemp("any")
    save_pretrained(talk.model, root / "published", talk.tokenizer, weights / "vision_tower", CHAT, talk.about)
    for name in ("llava", "vision_tower", "language_model"):
        shutil.copytree(weights / name, root / name)
    (root / "language_model" / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    return {
        "llava": (root / "llava", conversation),
        "published": (root / "published", conversation),
        "vision_tower": (root / "vision_tower", load_vision),
        "language_model": (root / "language_model", load_language),
        "shapes": (root / "language_model", partial(shapes, root / "vision_tower")),
    }


def shapes(vision_tower, language_model):
    config = llava_config(str(vision_tower), str(language_model))
    assert device_bytes(config, SMOKE.stage("stage 2"))["total"] > 0


@pytest.mark.parametrize(
    "name, file",
    [
        ("llava", "llava.json"),
        ("llava", "preprocessor_config.json"),
        ("llava", "tokenizer_config.json"),
        ("published", "config.json"),
        ("published", "generation_config.json"),
        ("published", "processor_config.json"),
        ("vision_tower", "config.json"),
        ("language_model", "config.json"),
        ("language_model", "generation_config.json"),
        ("shapes", "config.json"),
    ],
)
@SLOW
@given(data=st.data())
def test_any_json_value_in_a_file_of_weights_is_loaded_or_named(folders, name, file, data):
    folder, use = folders[name]
    path = folder / file
    whole = path.read_text()
    try:
        try_any(data, json.loads(whole), path, lambda _: use(folder))
    finally:
        path.write_text(whole)


@SLOW
@given(data=st.data())
def test_any_json_value_in_the_index_of_shards_is_named(weights, tmp_path, data):
    folder = tmp_path / "sharded"
    shutil.copytree(weights / "vision_tower", folder, dirs_exist_ok=True)
    if (folder / "model.safetensors").exists():
        (folder / "model.safetensors").rename(folder / "one.safetensors")
    from safetensors import safe_open

    with safe_open(folder / "one.safetensors", framework="pt") as file:
        where = dict.fromkeys(file.keys(), "one.safetensors")
    try_any(data, {"metadata": {}, "weight_map": where}, folder / "model.safetensors.index.json", lambda _: load_vision(folder))  # fmt: skip


# runs and progress


@SLOW
@given(data=st.data())
def test_any_json_value_in_a_runs_state_resumes_or_says_what_to_do(weights, tmp_path, data):
    with Run(tmp_path / "run", SMOKE, 1, weights) as run:
        run.do("data", "Data", lambda: None)
        run.do("features", "Features", lambda: None)
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    state["interrupted"] = {"judge": 2.5}

    def use(_):
        with Run(tmp_path / "run", SMOKE, 1, weights) as run:
            for name in ("data", "judge"):
                run.do(name, name, lambda: None)

    try:
        try_any(data, state, tmp_path / "run" / "state.json", use)
    finally:
        (tmp_path / "run" / "state.json").unlink(missing_ok=True)


@SLOW
@given(data=st.data())
def test_any_json_value_in_the_file_of_progress_is_shown_or_named(tmp_path, monkeypatch, data):
    monkeypatch.setenv("MINILLAVA_PROGRESS", str(tmp_path / "progress.json"))
    try_any(data, {"01-a": True, "02-b": False}, tmp_path / "progress.json", lambda _: progress())

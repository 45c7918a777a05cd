"""The text-only teacher says nothing false, and its records have the authors' format when written and read back."""

import json
import random
from collections import Counter

import pytest

from minillava.data.records import RecordError, check_record, make_record, read_records, write_records
from minillava.datagen.messages import TYPES, context
from minillava.datagen.replies import read_pairs
from minillava.scenes.captions import boxes, captions
from minillava.scenes.compose import scenes
from minillava.scenes.questions import questions
from minillava.scenes.reading import claims, holds
from minillava.standins import records, teacher
from minillava.standins.records import caption_record, instruction_record
from minillava.standins.teacher import BRIEF_QUESTIONS, DETAIL_QUESTIONS, read_context, teacher_reply


@pytest.fixture(scope="module")
def made():
    """(scene, type, [(question, answer), ...]) for 2,300 scenes, wild ones included, and all types."""
    out = []
    for scene in scenes("train", 2000) + scenes("wild", 300):
        for kind in TYPES:
            values = [turn["value"] for turn in instruction_record(scene, kind)["conversations"]]
            out.append((scene, kind, list(zip(values[::2], values[1::2], strict=True))))
    return out


# what it says is true


def test_no_claim_in_any_answer_is_false_of_the_scene(made):
    count = Counter()
    for scene, kind, pairs in made:
        for question, answer in pairs:
            for claim in claims(answer):
                count[kind] += 1
                assert holds(claim, scene), (scene.id, question, answer, claim)
    assert all(count[kind] > 2000 for kind in TYPES), count


def test_every_answer_is_the_one_that_follows_from_the_whole_scene(made):
    for scene, _, pairs in made[:1500]:
        known = {q.text: q.answer for q in questions(scene)}
        for question, answer in pairs:
            question = question.replace("<image>", "").strip()
            assert answer == known.get(question, teacher.detailed_description(scene)), (scene.id, question)


def test_answers_begin_with_yes_and_no_about_equally_often_and_some_with_nothing(made):
    first = Counter(a.split()[0].strip(",.").lower() for _, kind, pairs in made if kind != "detail" for _, a in pairs)
    assert 0.4 < first["yes"] / (first["yes"] + first["no"]) < 0.6, first
    assert first["nothing"] > 200


def test_an_odd_thing_has_its_reason_and_an_ordinary_scene_has_no_odd_thing(made):
    asked = Counter()
    for scene, _, pairs in made:
        for question, answer in pairs:
            if "odd" in question or "unusual" in question:
                asked[bool(scene.odd)] += 1
                assert (scene.odd[0].why if scene.odd else "othing") in answer, (scene.id, question, answer)
    assert min(asked.values()) > 300
    detail = [(s, pairs[0][1]) for s, kind, pairs in made if kind == "detail"]
    assert all(("is odd, because " + s.odd[0].why in a) if s.odd else ("odd" not in a) for s, a in detail)


def test_complex_questions_ask_for_a_conclusion_and_answers_give_the_reason(made):
    asked = [pairs for _, kind, pairs in made if kind == "complex"]
    assert all(len(pairs) == 1 and ("because" in pairs[0][1] or "so perhaps" in pairs[0][1]) for pairs in asked)
    assert all(len(pairs) == teacher.CONVERSATION_TURNS for _, kind, pairs in made if kind == "conversation")
    assert all(len({q.replace("<image>", "").strip() for q, _ in pairs}) == len(pairs) for _, _, pairs in made)


def test_conversation_is_written_from_captions_only_the_other_types_from_boxes_too(monkeypatch):
    given, scene = {}, scenes("train", 1)[0]

    def recorded(kind, texts, *rest):
        given[kind] = (texts, *rest)
        return teacher_reply(kind, texts, *rest)

    monkeypatch.setattr(records, "teacher_reply", recorded)
    for kind in TYPES:
        instruction_record(scene, kind)
    assert [list(given[kind][1]) for kind in TYPES] == [[], boxes(scene), boxes(scene)]
    assert all(given[kind][0] == captions(scene) for kind in TYPES)


def test_the_teacher_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="'poem' is not a response type; choose one of conversation, detail, complex"):
        teacher_reply("poem", ["a cat"])
    with pytest.raises(ValueError, match="name nothing of the picture book's world: 'A donut shop.'"):
        teacher_reply("detail", ["A donut shop."])


# contexts


def test_a_context_read_back_is_the_scene_it_was_made_from():
    for scene in scenes("train", 200):
        told = read_context(context(captions(scene), boxes(scene)))
        assert told.key() == scene.key()


@pytest.mark.parametrize(
    "line", ["car: [0.1, 0.2, 0.3]", "car [0.1, 0.2, 0.3, 0.4]", "car: [a, b, c, d]", "a stray line"]
)
def test_a_box_line_that_cannot_be_read_is_named(line):
    with pytest.raises(ValueError) as error:
        read_context(f"a cat\n\ndog: [0.1, 0.2, 0.3, 0.4]\n{line}", "picture 7")
    assert "picture 7" in str(error.value) and repr(line) in str(error.value)


def test_the_authors_contexts_are_read_and_answered_without_an_error(real):
    path, replies = real("llava_bench_coco/caps_boxes_coco2014_val_80.jsonl"), 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        instances = [(i["category"], i["bbox"]) for i in row["instances"]]
        text = context(row["captions"], instances)
        assert text.count("]") == len(instances) and text.count("\n\n") == bool(instances)
        for scene in (read_context(text, row["id"]), read_context("\n".join(row["captions"]), row["id"])):
            for kind in TYPES if scene.things else ():
                teacher_reply(kind, row["captions"], instances)
                replies += 1
    assert len(rows) == 80 and replies > 100


def test_the_authors_few_shot_contexts_and_replies_are_read(real):
    for kind, pairs in (("conversation", 4), ("detail_description", 1)):
        for path in sorted(real(f"prompts/{kind}").glob("*_caps.txt")):
            read_context(path.read_text(), path.name)
            reply = path.with_name(path.name.replace("caps", "conv")).read_text()
            assert len(read_pairs(kind.partition("_")[0], reply)) == pairs


# records


def test_records_are_valid_json_of_the_authors_format(tmp_path):
    some = [instruction_record(s, kind) for s in scenes("train", 50) for kind in TYPES]
    some += [caption_record(s) for s in scenes("train", 50)]
    write_records(some, tmp_path / "records.json")
    for record in json.loads((tmp_path / "records.json").read_text()):
        assert record.keys() == {"id", "image", "conversations"}
        turns = record["conversations"]
        assert [t["from"] for t in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert ["<image>" in t["value"] for t in turns] == [True] + [False] * (len(turns) - 1)
    assert read_records(tmp_path / "records.json") == some
    assert [p.name for p in tmp_path.iterdir()] == ["records.json"]


def test_the_image_is_before_or_after_the_question_equally_often_and_reproducibly():
    some = scenes("train", 1000)
    first = [instruction_record(s, "detail")["conversations"][0]["value"] for s in some]
    before, after = ({t for t in first if t.startswith("<image>\n")}, {t for t in first if t.endswith("\n<image>")})
    assert 450 < sum(t in before for t in first) < 550 and not before & after
    assert {t.replace("<image>", "").strip() for t in first} == set(DETAIL_QUESTIONS)
    assert [instruction_record(s, "detail")["conversations"][0]["value"] for s in some[:50]] == first[:50]
    assert [instruction_record(s, "detail", seed=1)["conversations"][0]["value"] for s in some[:50]] != first[:50]


def test_a_caption_record_is_a_brief_question_and_one_of_the_captions():
    for scene in scenes("train", 100):
        question, answer = (turn["value"] for turn in caption_record(scene)["conversations"])
        assert question.replace("<image>", "").strip() in BRIEF_QUESTIONS and answer in captions(scene)


def test_of_several_turns_only_the_first_has_the_image():
    record = make_record("7", "7.png", [("A?", "B."), ("C?", "D.")], random.Random(0))
    assert sum(t["value"].count("<image>") for t in record["conversations"]) == 1


def turns(*values):
    return [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)]


@pytest.mark.parametrize(
    "record, message",
    [
        ({"id": "r7", "conversations": turns("Hi?")}, "record 'r7': needs .* in pairs"),
        ({"id": "r7", "conversations": []}, "record 'r7': needs"),
        ({"id": "r7"}, "record 'r7': needs"),
        ({"id": 7, "conversations": turns("Hi?", "Hi.")}, "record 7: needs a string `id`"),
        ("r7", "record None: needs"),
        ({"id": "r7", "conversations": turns("Hi?", "Hi.")[::-1]}, "record r7: turn 0 must be a human turn"),
        ({"id": "r7", "conversations": turns("Hi?", " ")}, "record r7: turn 1 must be a gpt turn with text"),
        ({"id": "r7", "conversations": turns("Hi?", None)}, "record r7: turn 1 must be a gpt turn with text"),
        ({"id": "r7", "conversations": turns(7, "Hi.")}, "record r7: turn 0 must be a human turn with text"),
        ({"id": "r7", "conversations": ["Hi?", "Hi."]}, "record r7: turn 0 must be a human turn"),
        ({"id": "r7", "conversations": turns("<image> Hi?", "Hi.")}, "record r7: 1 <image> tokens, expected 0"),
        ({"id": "r7", "image": "a.png", "conversations": turns("Hi?", "Hi.")}, "record r7: 0 <image> tokens, expected 1"),
        ({"id": "r7", "image": "a.png", "conversations": turns("<image><image>", "Hi.")}, "record r7: 2 <image> tokens"),
        ({"id": "r7", "image": "a.png", "conversations": turns("Hi?", "<image>")}, "record r7: 1 <image> .* in the first turn"),
    ],
)  # fmt: skip
def test_a_record_that_breaks_the_format_is_named(record, message, tmp_path):
    with pytest.raises(RecordError, match=message):
        check_record(record)
    (tmp_path / "r.json").write_text(json.dumps([record]))
    with pytest.raises(RecordError, match=message):
        read_records(tmp_path / "r.json")


@pytest.mark.parametrize("text", ["{", '{"id": "r7"}', '"r7"', b"\xff\xfe\x00"])
def test_a_file_that_is_not_a_list_of_records_is_named(text, tmp_path):
    (tmp_path / "r.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecordError, match="r.json: (not a JSON file|expected a list)"):
        read_records(tmp_path / "r.json")

"""Records in every form that the field writes become the one form here, or are refused with a cause; files as tools write them."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillava.data.records import RecordError, make_record, normalise, pictures_of, write_records
from minillava.data.valid import Tally, each_record, read_records, valid_records
from minillava.files import FileError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=12).filter(
    str.strip
)
PLAIN_TEXT = TEXT.filter(lambda text: "<image>" not in text)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["human", "gpt", "<image>", "a.jpg", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["from", "value", "type", "text", "image", "path"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def turns(*values):
    return [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)]


def record(*values, **more):
    return {"id": "r7", **more, "conversations": turns(*values)}


@st.composite
def talks(draw):
    """A record in the one form: up to three pictures, anywhere in the questions."""
    pairs = draw(st.lists(st.tuples(PLAIN_TEXT, PLAIN_TEXT), min_size=1, max_size=3))
    texts, pictures = (
        [text for pair in pairs for text in pair],
        draw(st.sampled_from([[], ["a.jpg"], ["b/c.png", "d.jpg", "e.gif"]])),
    )
    for _ in pictures:
        n = 2 * draw(st.integers(0, len(pairs) - 1))
        texts[n] = f"<image>\n{texts[n]}" if draw(st.booleans()) else f"{texts[n]}<image>"
    image = {} if not pictures else {"image": pictures[0] if len(pictures) == 1 else pictures}
    return {"id": "wgByO4Y_0", **image, "conversations": turns(*texts)}


def messages(talk, parts):
    """The talk with roles and contents, as LLaMA-Factory, ms-swift and TRL write it."""
    roles = {"human": "user", "gpt": "assistant"}
    content = (lambda text: [{"type": "text", "text": text, "index": None}]) if parts else str
    return [{"role": roles[turn["from"]], "content": content(turn["value"])} for turn in talk["conversations"]]


FORMS = {
    "LLaVA": lambda talk: talk,
    "ShareGPT, opened by gpt": lambda talk: talk | {"conversations": [{"from": "gpt", "value": "Hello."}, *talk["conversations"]]},
    "with a system message": lambda talk: talk | {"conversations": [{"from": "system", "value": "Be kind."}, *talk["conversations"]]},
    "with a system field": lambda talk: talk | {"system": "Be kind."},
    "with a last question": lambda talk: talk | {"conversations": [*talk["conversations"], {"from": "human", "value": "And?"}]},
    "with empty fields": lambda talk: {"image": None, "images": [], "messages": None} | talk,
    "with NaN from pandas": lambda talk: {"image": float("nan")} | talk,
    "with NaN in place of messages": lambda talk: {"messages": float("nan")} | talk,
    "with an empty image": lambda talk: {"image": ""} | talk,
    "a list of images": lambda talk: talk | {"image": pictures_of(talk)},
    "images": lambda talk: {k: v for k, v in talk.items() if k != "image"} | {"images": pictures_of(talk)},
    "images with paths": lambda talk: talk | {"image": [{"path": p, "bytes": None} for p in pictures_of(talk)]},
    "messages": lambda talk: {"id": talk["id"], "messages": messages(talk, False), "images": pictures_of(talk)},
    "messages in parts": lambda talk: {"id": talk["id"], "messages": messages(talk, True), "images": pictures_of(talk)},
    "with line ends of Windows": lambda talk: json.loads(json.dumps(talk).replace("\\n", "\\r\\n")),
    "user and assistant": lambda talk: talk | {"conversations": [{"from": m["role"], "value": m["content"]} for m in messages(talk, False)]},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30)
@given(talk=talks())
def test_every_form_of_a_talk_becomes_the_same_record(form, talk):
    raw = FORMS[form](talk)
    found, changes = normalise(raw)
    assert {key: found.get(key) for key in ("id", "image", "conversations")} == {"image": None} | talk
    assert found == raw if raw == talk else changes or form in ("with empty fields", "with NaN in place of messages")
    assert normalise(found) == (found, [])


@given(talk=talks(), at=st.randoms(), value=JSON)
def test_any_json_value_in_any_field_gives_a_record_or_a_short_cause(talk, at, value):
    raw = FORMS[at.choice(list(FORMS))](json.loads(json.dumps(talk)))
    place = raw
    while True:
        key = at.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or at.random() < 0.3:
            place[key] = value
            break
        place = place[key]
    for some in (raw, value):
        try:
            found, _ = normalise(some)
        except RecordError as error:
            assert len(str(error)) < 80 and "\n" not in str(error)
        else:
            assert normalise(found) == (found, []) and isinstance(found["id"], str)
            texts = [turn["value"] for turn in found["conversations"]]
            assert sum(text.count("<image>") for text in texts) == len(pictures_of(found))
            assert all(text.strip() and text.encode() for text in texts)


@pytest.mark.parametrize(
    "raw, wanted, change",
    [
        ({"id": 7, "conversations": turns("Hi?", "Hi.")}, {"id": "7"}, "an id that is a number"),
        ({"id": 7.0, "conversations": turns("Hi?", "Hi.")}, {"id": "7"}, "an id that is a number"),
        ({"conversations": turns("Hi?", "Hi.")}, {"id": "number 3"}, "without an id"),
        ({"id": [1], "conversations": turns("Hi?", "Hi.")}, {"id": "number 3"}, "neither a text nor a number"),
        ({"id": True, "conversations": turns("Hi?", "Hi.")}, {"id": "number 3"}, "neither a text nor a number"),
        (record("How many?", 4), {"conversations": turns("How many?", "4")}, "a turn that is a number"),
        (record("What?", "A cat.", image="a.png"), {"conversations": turns("<image>\nWhat?", "A cat.")}, "goes first"),
        (record("What?", "A", "So?", "B", images=["a", "b"]), {"image": ["a", "b"], "conversations": turns("<image>\n<image>\nWhat?", "A", "So?", "B")}, "goes first"),
        (record("Hi?", "Nice \ud83d"), {"conversations": turns("Hi?", "Nice \ufffd")}, "half a character"),
        ({"id": "t", "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}, {"role": "assistant", "content": [{"type": "text", "text": "A."}]}], "images": ["a"]},
         {"image": "a", "conversations": turns("<image>\nWhat?", "A.")}, "parts of messages"),
        ({"id": "t", "messages": [{"role": "user", "content": ["What?", {"type": "image_url", "image_url": {"url": "a"}}]}, {"role": "assistant", "content": "A."}]},
         {"image": "a", "conversations": turns("What?\n<image>", "A.")}, "parts of messages"),
        (record("Hi?", "Hi.", image=None, model="x"), {"model": "x"}, "an empty `image`"),
    ],
)  # fmt: skip
def test_what_is_changed_is_changed_so_and_said(raw, wanted, change):
    found, changes = normalise(raw, 3)
    assert {key: found[key] for key in wanted} == wanted and any(change in said for said in changes), changes
    assert "image" in wanted or found.get("image") == raw.get("image")


@pytest.mark.parametrize(
    "raw, cause",
    [
        ("r7", "not a JSON object with a list of turns"),
        ({"id": "r7"}, "list of turns"),
        ({"id": "r7", "conversations": []}, "list of turns"),
        ({"id": "r7", "conversations": "Hi?"}, "list of turns"),
        ({"id": "r7", "conversations": ["Hi?", "Hi."]}, "list of turns"),
        (record("Hi?"), "no question and answer"),
        ({"id": "r7", "conversations": turns("a", "b", "c", "d")[1:3]}, "no question and answer"),
        ({"id": "r7", "conversations": turns("a", "b", "c", "d")[:3:2]}, "do not alternate"),
        ({"id": "r7", "conversations": [*turns("a", "b"), {"from": "system", "value": "c"}, *turns("d", "e")]}, "alternate"),
        ({"id": "r7", "conversations": [{"from": "tool", "value": "{}"}, *turns("a", "b")]}, "neither human's nor gpt's"),
        (record("Hi?", " "), "empty question or answer"),
        (record("Hi?", None), "empty question or answer"),
        (record("", "Hi.", image="a.png"), "empty question or answer"),
        (record("Hi?", {"a": 1}), "a turn that is not text"),
        (record("Hi?", True), "a turn that is not text"),
        (record("Hi?", [{"type": "audio"}]), "a part of a message"),
        (record("Hi?", [{"type": "text", "text": [{"type": "text", "text": "Hi."}]}]), "a turn that is not text"),
        (record("<image> Hi?", "Hi."), "more or less often"),
        (record("<image><image>", "Hi.", image="a.png"), "more or less often"),
        (record("<image>", "Hi.", image=["a.png", "b.png"]), "more or less often"),
        (record("Hi?", "<image>", image="a.png"), "`<image>` in an answer"),
        (record("Hi?", "Hi.", "<image> So?", image="a.png"), "in a turn that is left out"),
        (record("<image>", "Hi.", image="a.png", images=["b.png"]), "different pictures"),
        (record("<image>", "Hi.", image=5), "name of a picture is not text"),
        (record("<image>", "Hi.", image="a\ud83d.png"), "name of a picture is not text"),
        (record("<image>", "Hi.", image="../a.png"), "outside the image folder"),
        (record("<image>", "Hi.", image="/a.png"), "outside the image folder"),
        (record("<image>", "Hi.", image="a\0.png"), "outside the image folder"),
        (record("<video> What?", "Hi.", videos=["a.mp4"]), "video or sound"),
        (record("Hi?", "Hi.", history=[["So?", "So."]]), "`history`, `objects` or"),
        (record("Hi?", "Hi.", messages=[{"role": "user", "content": "No?"}]), "different turns"),
        ({"id": "r7", "messages": [{"role": "user", "content": "a", "loss": False},
         {"role": "assistant", "content": "b", "loss": False}]}, "not to be learned"),
    ],
)  # fmt: skip
def test_what_cannot_become_a_record_is_refused_with_its_cause(raw, cause, tmp_path):
    with pytest.raises(RecordError, match=cause):
        normalise(raw)
    (tmp_path / "r.json").write_text(json.dumps([record("Hi?", "Hi."), raw]))
    with pytest.raises(RecordError, match=rf"r.json: 1 of 2 records cannot be used(.|\n)*{cause}"):
        read_records(tmp_path / "r.json")


def test_a_record_made_of_half_a_character_can_be_written_and_tokenized():
    made = make_record("a", "a.png", [("What\udc00?", "\ud83d\ude00 and \ud83d")], random.Random(0))
    assert "What\ufffd?" in made["conversations"][0]["value"] and made["conversations"][1]["value"] == "😀 and \ufffd"


# the table


def test_the_table_has_each_cause_once_with_its_number_and_three_examples(tmp_path):
    rows = [record("Hi?", "Hi.") | {"id": n} for n in range(1200)] + [
        record("Hi?", "") | {"id": f"e{n}\n\ud83d"} for n in range(7)
    ]
    tally = Tally()
    assert len(list(valid_records([*rows, 5], tally))) == 1200 and (tally.read, tally.bad, tally.changed) == (
        1208,
        8,
        1200,
    )
    table = tally.table(tmp_path / "stage2.json").split("\n")
    assert [line.split("  ")[0] for line in table] == [
        "stage2.json", "taken", "changed: an id that is a number becomes text", "left out: an empty question or answer",
        "left out: not a JSON object with a list of turns in `conversations` or `messages`",
    ]  # fmt: skip
    assert table[1].endswith("1,200") and table[2].endswith("1,200  0, 1, 2")
    assert table[3].endswith("7  e0 ?, e1 ?, e2 ?") and table[4].endswith("1  number 1207")


# files


@given(st.lists(JSON, max_size=6), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 50))
def test_a_list_of_any_json_values_is_read_as_json_reads_it(tmp_path_factory, values, indent, escaped, chunk):
    values = [{"value": value} for value in values]
    path = tmp_path_factory.mktemp("list") / "r.json"
    text = json.dumps(values, indent=indent, ensure_ascii=escaped)
    path.write_text("\ufeff \n" + text, encoding="utf-8", errors="surrogatepass" if escaped else "replace")
    wanted = json.loads(text.encode("utf-8", "replace"))
    assert json.dumps(list(each_record(path, chunk))) == json.dumps(wanted)
    path.write_text("\r\n\n".join(json.dumps(value) for value in [{"messages": []}, *values]), newline="")
    assert json.dumps(list(each_record(path, chunk))[1:]) == json.dumps(json.loads(json.dumps(values)))


def test_a_broken_line_of_json_lines_is_one_bad_record(tmp_path):
    good = json.dumps(record("Hi?", "Hi."))
    lines = [good, good[:40], good, "", "{" * 5000 + "1", "9" * 5000, good]
    for some in (lines, lines[1:] + lines[:1]):  # the first line may be a broken one
        (tmp_path / "r.jsonl").write_text("\n".join(some))
        tally = Tally()
        assert len(list(valid_records(each_record(tmp_path / "r.jsonl"), tally))) == 3 and tally.bad == 3


@pytest.mark.parametrize(
    "text, says",
    [
        ("{", "begins with one object"),
        ('{"data": [{"id": "r7"}]}', "begins with one object (its keys are 'data'); expected a JSON list"),
        ('{\n "data": [\n  {"id": "r7"}\n ]\n}', "begins with one object"),
        ('"r7"', "expected a JSON list"),
        ("", "expected a JSON list"),
        ('[{"id": "a", "n": 1},\n {"id": "b", "n": 1,}]', 'not JSON after 1 records, at \'{"id": "b", "n": 1,}]\''),
        ('[{"id": "a"}, // mine\n {"id": "b"}]', "not JSON after 1 records, at '// mine"),
        ("[{'id': 'a'}]", "not JSON after 0 records"),
        ('[{"id": "a"}] [{"id": "b"}]', "more than one list"),
        ("[" * 100_000, "not JSON after 0 records"),
        ("[" + "9" * 5000 + "]", "not JSON after 0 records"),
        (b"\xff\xfe" + '[{"id": "a"}]'.encode("utf-16-le"), "it is UTF-16; save it as UTF-8"),
        (b'[{"id": "caf\xe9"}]', "it is not UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_list_of_records_is_named_with_the_place(text, says, tmp_path):
    (tmp_path / "r.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError) as error:
        read_records(tmp_path / "r.json")
    assert str(error.value).startswith(f"{tmp_path / 'r.json'}: ") and says in str(error.value)


def test_a_key_that_appears_twice_is_bad_only_where_its_values_differ(tmp_path):
    good = json.dumps(record("<image>", "Hi.", image="a.png"))
    twice = [good.replace('"image": "a.png"', f'"image": "{other}", "image": "a.png"') for other in ("a.png", "b.png")]
    inner = good.replace('"value": "Hi."', '"value": "Hi.", "value": "Ho."')
    (tmp_path / "r.json").write_text(f"[{twice[0]}, {twice[1]}, {inner}, {good}]")
    tally = Tally()
    assert len(list(valid_records(each_record(tmp_path / "r.json"), tally))) == 2
    assert tally.causes == {"left out: a key appears twice, with different values": [2, ["r7", "r7"]]}


def test_what_datasets_and_pandas_write_is_read(tmp_path):
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    rows = [
        record("<image>\nWhat?", "A cat.", image="a.png"),
        record("Hi?", "Hello."),
        record("And?", "So.") | {"id": "ü 😀"},
    ]
    write_records(rows, tmp_path / "r.json")
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "r.json"), split="train", cache_dir=str(tmp_path / "cache")
    )
    loaded.to_json(tmp_path / "lines.json")
    loaded.to_json(tmp_path / "list.json", lines=False)
    pandas.DataFrame(rows).to_json(tmp_path / "pandas.json", orient="records")
    pandas.DataFrame(rows).to_json(tmp_path / "lines.jsonl", orient="records", lines=True)
    for name in ("lines.json", "list.json", "pandas.json", "lines.jsonl"):
        assert read_records(tmp_path / name) == rows, name

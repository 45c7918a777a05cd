"""Samples on disk equal the encoded records, memory does not grow with their number, and errors name the record."""

import json
import os
import random
import tracemalloc

import pytest
import torch
import toy
from mix import picture, write_mix

from minillava.data import IMAGE, stored
from minillava.data.records import RecordError, write_records
from minillava.data.samples import encode
from minillava.data.stored import StoredSamples, store_samples
from minillava.data.template import CHAT, PLAIN
from minillava.data.tokenizer import load_tokenizer
from minillava.data.valid import each_record
from minillava.errors import UserError
from minillava.files import FileError
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import caption_record, instruction_record


@pytest.fixture
def book(tmp_path, weights):
    """(12 records with a picture and one without, function that stores them, tokenizer)."""
    some = scenes("train", 6)
    records = [r for s in some for r in (caption_record(s), instruction_record(s, "conversation"))]
    records.append({"id": "é \n", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "ü"}]})
    images = tmp_path / "images"
    images.mkdir()
    for scene in some:
        draw(scene, 64).save(images / f"{scene.id}.png")
    write_records(records, tmp_path / "r.json")
    tokenizer, said = load_tokenizer(weights / "language_model"), []

    def store(template=CHAT, longest=900, patches=16, **more):
        said.clear()
        path, folder = tmp_path / "r.json", tmp_path / "kept"
        return store_samples(path, images, template, tokenizer, longest, patches, folder, said.append, **more)

    store.said, store.folder = said, tmp_path
    return records, store, tokenizer


def test_stored_samples_equal_encoded_ones(book):
    records, store, tokenizer = book
    made = store()
    assert len(made) == len(list(made)) == 13
    for sample, record in zip(made, records, strict=True):
        fresh = encode(record, CHAT, tokenizer)
        assert (sample.id, sample.images) == (fresh.id, fresh.images)
        assert torch.equal(sample.ids, fresh.ids) and torch.equal(sample.labels, fresh.labels)
        assert sample.ids.dtype == fresh.ids.dtype
    assert made.lengths() == [len(s.ids) for s in made]
    assert made.lengths(16) == [len(s.ids) + 15 * len(s.images) for s in made]
    assert made.pictures() == sorted({r["image"] for r in records if "image" in r})
    with pytest.raises(IndexError):
        made[13]


def test_samples_are_encoded_again_only_after_a_change(book):
    records, store, _ = book
    store()
    about = store.folder / "kept" / "ids.bin"
    before = about.stat().st_ino
    store()
    assert about.stat().st_ino == before
    assert len(store(template=PLAIN)[0].ids) < len(encode(records[0], CHAT, book[2]).ids)
    write_records(records[:5], store.folder / "r.json")
    assert len(store(template=PLAIN)) == 5 and len(StoredSamples(store.folder / "kept")) == 5


@pytest.mark.parametrize("harm", [*toy.HARMS, os.unlink])
@pytest.mark.parametrize("name", ["ids.bin", "carries.bin", "text.bin", "ends.bin", "about.json", "../pictures.json"])
def test_damaged_samples_are_encoded_again(book, name, harm):
    _, store, _ = book
    before = store().digest()
    harm(store.folder / "kept" / name)
    assert store().digest() == before == StoredSamples(store.folder / "kept").digest()
    inode = (store.folder / "kept" / "ids.bin").stat().st_ino
    store()
    assert (store.folder / "kept" / "ids.bin").stat().st_ino == inode  # whole again


def test_the_digest_changes_with_the_records_and_only_then(book):
    records, store, _ = book
    before = store().digest()
    write_records(records, store.folder / "r.json")  # a new file, so encoded again
    assert store().digest() == before
    turns = records[3]["conversations"]
    changed = records[3] | {"conversations": [turns[0], {"from": "gpt", "value": turns[1]["value"][::-1]}, *turns[2:]]}
    for other in (changed, records[3] | {"id": "another"}, records[3] | {"image": records[0]["image"]}):
        write_records([*records[:3], other, *records[4:]], store.folder / "r.json")
        made = store()
        assert len(made) == 13 and made.digest() != before
    assert store(template=PLAIN).digest() != before


def test_records_that_are_too_long_with_their_patches_are_left_out_and_counted(book):
    records, store, tokenizer = book
    lengths = sorted(len(encode(r, CHAT, tokenizer).ids) + (15 if "image" in r else 0) for r in records)
    assert len(store(longest=lengths[8])) == sum(n <= lengths[8] for n in lengths)
    assert "more than" in store.said[0] and "not counted as bad" in store.said[0]
    with pytest.raises(RecordError, match="no record is left"):
        store(longest=3)


def test_a_picture_outside_the_image_folder_is_refused(book):
    records, store, _ = book
    write_records([*records, *2 * [records[0] | {"image": "../r.json"}]], store.folder / "r.json")
    with pytest.raises(RecordError, match=rf"2 of 15 records cannot be used(.|\n)*outside.* {records[0]['id']}"):
        store()


def test_a_file_that_is_not_a_list_or_is_incomplete_is_named(book):
    _, store, _ = book
    path = store.folder / "r.json"
    whole = path.read_text()
    for text, says in (
        (whole[:-300], "not JSON after 11 records"),
        ("{}", "begins with one object"),
        (whole[:50], "after 0 records"),
        ("[]", "no record is left"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=says):
            store()


def test_records_are_read_the_same_with_chunks_of_any_size(tmp_path):
    rng = random.Random(0)
    records = [{"id": str(n), "text": ']}{[," é' * rng.randrange(20)} for n in range(50)]
    path = tmp_path / "r.json"
    for indent in (None, 1):
        path.write_text("  " + json.dumps(records, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
        for chunk in (7, 100, os.path.getsize(path) + 1):
            assert list(each_record(path, chunk)) == records


def test_broken_json_is_found_before_the_rest_of_the_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("minillava.files.MAX_RECORD", 1000)
    path = tmp_path / "r.json"
    path.write_bytes(b"[1, oops" + b" " * 50_000 + b"\xff")  # not UTF-8: reading that far is another error
    with pytest.raises(FileError, match="not JSON after 1 records"):
        list(each_record(path, 100))
    path.write_bytes(b"[1, 2, \xff]")
    with pytest.raises(FileError, match="not a JSON file"):
        list(each_record(path))


def test_memory_does_not_grow_with_the_number_of_records(tmp_path, weights, monkeypatch):
    """Sixteen times as many records need about the same peak of Python's memory."""
    monkeypatch.setattr(stored, "TOGETHER", 16)
    tokenizer, peaks = load_tokenizer(weights / "language_model"), []
    turns = [{"from": "human", "value": "?" * 400}, {"from": "gpt", "value": "!" * 400}]
    for count in (20, 320):
        path = tmp_path / f"{count}.json"
        path.write_text(json.dumps([{"id": str(n), "conversations": turns} for n in range(count)]))
        tracemalloc.start()
        some = store_samples(path, tmp_path, CHAT, tokenizer, 2000, 16, tmp_path / f"kept-{count}", chunk=1 << 12)
        assert sum(1 for s in some if len(s.ids) > 800) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 320 * 100  # 100 bytes per record, where one sample takes about 13,000


# the field's shapes, and their pictures


@pytest.fixture
def mix(tmp_path, weights):
    """(function that stores the samples of tests/mix.py with an allowance, their folder, the looks at pictures)."""
    write_mix(tmp_path)
    tokenizer, said, looks = load_tokenizer(weights / "language_model"), [], []

    def store(allow_bad=5, longest=900):
        said.clear(), looks.clear()
        path, images, folder = tmp_path / "stage1.json", tmp_path / "images", tmp_path / "out" / "samples"
        made = store_samples(path, images, CHAT, tokenizer, longest, 16, folder, said.append, allow_bad=allow_bad)
        return made, "\n".join(said)

    return store, tmp_path, looks


@pytest.fixture
def looks(mix, monkeypatch):
    seen, fault = mix[2], stored._fault
    monkeypatch.setattr(stored, "_fault", lambda path: seen.append(path.name) or fault(path))
    return seen


def test_the_shapes_of_the_fields_files_are_taken_and_one_table_says_what_was_changed_and_left_out(mix, weights):
    store, folder, _ = mix
    made, said = store()
    shown = {line[:60].split("  ")[0]: line.split("  ")[-1].strip() for line in said.split("\n")}
    assert len(made) == 15 and "stage1.json" in shown and said == (folder / "out" / "records.txt").read_text().rstrip()
    for cause, example in {
        "changed: an id that is a number": "7", "changed: turns before the first question": "wgByO4Y_1",
        "changed: a system message is left out": "000000000002", "changed: a last question without": "000000000003",
        "changed: pictures in a list": "000000000004, number 10, number 11", "changed: an empty `image`": "null",
        "changed: a record without an id": "number 10, number 11", "changed: other keys, roles": "number 10, number 11",
        "changed: a picture without `<image>`": "000000000005", "changed: </s> inside a text becomes </s,": "000000000006", "changed: <s> inside a text becomes <s,": "000000000006", "changed: ### inside a text becomes ##": "000000000006",
        "changed: line ends": "000000000007", "changed: half a character": "000000000007",
        "left out: an empty question or answer": "empty", "left out: `<image>` appears more or less": "blind",
        "left out: a picture cannot be read": "vg/torn.jpg, vg/html.jpg", "left out: a picture is missing": "vg/gone.jpg",
    }.items():  # fmt: skip
        assert [e for c, e in shown.items() if c.startswith(cause)] == [example], (cause, said)
    rows = [json.loads(line) for line in (folder / "out" / "left_out.jsonl").read_text().splitlines()]
    assert [row["record"] for row in rows] == ["empty", "blind", "torn", "html", "gone"]
    assert rows[-1] == {"record": "gone", "why": "a picture is missing", "picture": "vg/gone.jpg"}
    tokenizer, by_id = load_tokenizer(weights / "language_model"), {s.id: s for s in made}
    two, late, escaped = by_id["number 10"], by_id["000000000008"], by_id["000000000006"]
    assert two.images == ("a.png", "b.png") and int((two.ids == IMAGE).sum()) == 2
    assert late.images == ("coco/000000000008.jpg",) and int((late.ids == IMAGE).sum()) == 1
    assert "\n## Colour\nMany.\n\n## Shape" in tokenizer.decode(escaped.ids[escaped.ids != IMAGE])
    assert made.lengths(16)[[s.id for s in made].index("number 10")] == len(two.ids) + 30
    assert "a.png" in made.pictures() and "b.png" in made.pictures() and "vg/torn.jpg" not in made.pictures()


@pytest.mark.parametrize(
    "allowed, text", [(4, "at most 4 may"), (0.24, "at most 24 % may"), (0, "at most 0 may"), (0.0, "at most 0 %")]
)
def test_more_bad_records_and_pictures_than_are_allowed_end_with_the_table(mix, allowed, text):
    store, folder, _ = mix
    with pytest.raises(RecordError, match=rf"5 of 20 records cannot be used, and {text}.*--allow-bad(.|\n)*taken +15"):
        store(allow_bad=allowed)
    assert "left out: a picture is missing" in (folder / "out" / "records.txt").read_text()
    rows = json.loads((folder / "stage1.json").read_text())
    (folder / "stage1.json").write_text(json.dumps(rows[:5]))  # one of five is bad, which alone never ends a run
    assert len(store(allow_bad=0.01)[0]) == 4
    (folder / "stage1.json").write_text(json.dumps(rows))
    assert len(store(allow_bad=0.25)[0]) == 15 == len(store(allow_bad=5)[0])


def test_a_second_run_looks_only_at_pictures_that_are_new_or_have_changed(mix, looks):
    store, folder, _ = mix
    with pytest.raises(RecordError):
        store(allow_bad=0.01)
    assert len(looks) == len(set(looks)) == 16 and {"torn.jpg", "html.jpg", "gone.jpg", "b.png"} <= set(looks)
    picture(folder / "images" / "vg" / "torn.jpg")  # mended
    picture(folder / "images" / "vg" / "gone.jpg")  # fetched
    made, said = store()
    assert sorted(looks) == ["gone.jpg", "torn.jpg"] and len(made) == 17
    again, said_again = store()
    assert not looks and said_again.rstrip() == said and again.digest() == made.digest()
    before = (folder / "images" / "a.png").stat()
    (folder / "images" / "a.png").write_bytes(b"x" * before.st_size)  # another file of the same size and time
    os.utime(folder / "images" / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(store()[0]) == 16 and looks == ["a.png"]


def test_records_that_are_too_long_are_not_counted_as_bad(mix):
    store, _, _ = mix
    made, said = store(longest=60)
    assert 0 < len(made) < 15 and "left out: more than 60 tokens, with its pictures (not counted as bad)" in said

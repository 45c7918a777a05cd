"""Samples on disk equal the encoded records, memory does not grow with their number, and errors name the record."""

import json
import os
import random
import tracemalloc

import pytest
import torch

from minillava.data.records import RecordError, write_records
from minillava.data.samples import encode
from minillava.data.stored import StoredSamples, store_samples
from minillava.data.template import CHAT, PLAIN
from minillava.data.tokenizer import load_tokenizer
from minillava.data.valid import each_record
from minillava.scenes.compose import scenes
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
        (images / f"{scene.id}.png").touch()
    write_records(records, tmp_path / "r.json")
    tokenizer, said = load_tokenizer(weights / "language_model"), []

    def store(template=CHAT, longest=900, patches=16):
        said.clear()
        path, folder = tmp_path / "r.json", tmp_path / "kept"
        return store_samples(path, images, template, tokenizer, longest, patches, folder, said.append)

    store.said, store.folder = said, tmp_path
    return records, store, tokenizer


def test_stored_samples_equal_encoded_ones(book):
    records, store, tokenizer = book
    stored = store()
    assert len(stored) == len(list(stored)) == 13
    for sample, record in zip(stored, records, strict=True):
        fresh = encode(record, CHAT, tokenizer)
        assert (sample.id, sample.image) == (fresh.id, fresh.image)
        assert torch.equal(sample.ids, fresh.ids) and torch.equal(sample.labels, fresh.labels)
        assert sample.ids.dtype == fresh.ids.dtype
    assert stored.lengths() == [len(s.ids) for s in stored]
    assert stored.lengths(16) == [len(s.ids) + (15 if s.image else 0) for s in stored]
    assert stored.pictures() == sorted({r["image"] for r in records if "image" in r})
    with pytest.raises(IndexError):
        stored[13]


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


def test_the_digest_changes_with_the_records_and_only_then(book):
    records, store, _ = book
    before = store().digest()
    write_records(records, store.folder / "r.json")  # a new file, so encoded again
    assert store().digest() == before
    turns = records[3]["conversations"]
    changed = records[3] | {"conversations": [turns[0], {"from": "gpt", "value": turns[1]["value"][::-1]}, *turns[2:]]}
    for other in (changed, records[3] | {"id": "another"}, records[3] | {"image": records[0]["image"]}):
        write_records([*records[:3], other, *records[4:]], store.folder / "r.json")
        stored = store()
        assert len(stored) == 13 and stored.digest() != before
    assert store(template=PLAIN).digest() != before


def test_records_that_are_too_long_with_their_patches_are_left_out_and_counted(book):
    records, store, tokenizer = book
    lengths = sorted(len(encode(r, CHAT, tokenizer).ids) + (15 if "image" in r else 0) for r in records)
    assert len(store(longest=lengths[8])) == sum(n <= lengths[8] for n in lengths)
    assert "of more than" in store.said[0]
    with pytest.raises(RecordError, match="no record is left"):
        store(longest=3)


def test_pictures_added_later_are_found(book):
    records, store, _ = book
    (store.folder / "images" / records[0]["image"]).unlink()
    with pytest.raises(RecordError, match=r"2 of 13 pictures are not in .*fetch them(.|\n)*" + records[0]["image"]):
        store()
    (store.folder / "images" / records[0]["image"]).touch()
    assert len(store()) == 13


def test_a_picture_outside_the_image_folder_is_refused(book):
    records, store, _ = book
    write_records([*records, records[0] | {"image": "../r.json"}], store.folder / "r.json")
    with pytest.raises(RecordError, match=r"1 of 14 records cannot be used:(.|\n)*'../r.json'"):
        store()


def test_a_file_that_is_not_a_list_or_is_incomplete_is_named(book):
    _, store, _ = book
    path = store.folder / "r.json"
    whole = path.read_text()
    for text, says in (
        (whole[:-300], "not JSON after 11 records"),
        ("{}", "expected a JSON list"),
        (whole[:50], "after 0 records"),
        ("[]", "no record is left"),
    ):
        path.write_text(text)
        with pytest.raises(RecordError, match=says):
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
    monkeypatch.setattr("minillava.data.valid.MAX_RECORD", 1000)
    path = tmp_path / "r.json"
    path.write_bytes(b"[1, oops" + b" " * 50_000 + b"\xff")  # not UTF-8: reading that far is another error
    with pytest.raises(RecordError, match="not JSON after 1 records"):
        list(each_record(path, 100))
    path.write_bytes(b"[1, 2, \xff]")
    with pytest.raises(RecordError, match="not a JSON file"):
        list(each_record(path))


def test_memory_does_not_grow_with_the_number_of_records(tmp_path, weights):
    """Sixteen times as many records need about the same peak of Python's memory."""
    tokenizer, peaks = load_tokenizer(weights / "language_model"), []
    turns = [{"from": "human", "value": "?" * 400}, {"from": "gpt", "value": "!" * 400}]
    for count in (20, 320):
        path = tmp_path / f"{count}.json"
        path.write_text(json.dumps([{"id": str(n), "conversations": turns} for n in range(count)]))
        tracemalloc.start()
        stored = store_samples(path, tmp_path, CHAT, tokenizer, 2000, 16, tmp_path / f"kept-{count}", chunk=1 << 12)
        assert sum(1 for s in stored if len(s.ids) > 800) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 320 * 100  # 100 bytes per record, where one sample takes about 13,000

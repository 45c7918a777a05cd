"""Records in other tools' forms come back as they were, through `minillava train`'s reader or the tool's own loader."""

import json
import random
import tarfile

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillava import cli
from minillava.data.records import RecordError, make_record, normalise
from minillava.data.valid import read_records
from minillava.datagen import export
from minillava.datagen.export import FORMS, as_messages, as_sharegpt, check_form, write_as
from minillava.standins.pictures import PICTURE_BOOK

WORDS = st.text("ab <>image.\n", min_size=1).filter(lambda t: t.strip() and "<image>" not in t)


def records_in(folder, count, suffix=".png"):
    """Records of their own pictures, every second one in a folder, and the pictures."""
    (folder / "in" / "a").mkdir(parents=True)
    records = []
    for n in range(count):
        name = f"{'a/' if n % 2 else ''}{n}.v1{suffix}"
        (folder / "in" / name).write_bytes(b"picture %d" % n)
        records.append(make_record(f"r/{n}.x", name, [(f"What is {n}?", "A car.")] * (1 + n % 3), random.Random(n)))
    return records, folder / "in"


def loaded(kind, path, **columns):
    """The rows that `datasets` reads, with the pictures' bytes."""
    files = {"train": [str(p) for p in sorted(path.parent.glob(path.name))]}
    rows = datasets.load_dataset(kind, data_files=files, split="train", cache_dir=str(path.parent / "cache"))
    for name, feature in columns.items():
        rows = rows.cast_column(name, feature)
    return list(rows)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3), st.randoms())
def test_the_training_reader_reads_messages_and_sharegpt_as_the_records_that_they_were_made_from(pairs, rng):
    record = make_record("one", "a/b.png", pairs, rng)
    for convert in (as_messages, as_sharegpt):
        made = convert(record)
        assert made["images"] == ["a/b.png"] and "image" not in made
        assert normalise(json.loads(json.dumps(made)))[0] == record


def test_in_messages_a_picture_is_a_part_where_it_stood_and_no_text_holds_its_token():
    record = make_record("one", "b.png", [("Which colour?", "Red."), ("Sure?", "Yes.")], random.Random(1))
    kinds = [[part["type"] for part in message["content"]] for message in as_messages(record)["messages"]]
    text = record["conversations"][0]["value"]
    first = ["image", "text"] if text.startswith("<image>") else ["text", "image"]
    assert kinds == [first, ["text"], ["text"], ["text"]]
    assert "<image>" not in json.dumps(as_messages(record)["messages"])


def test_a_webdataset_gives_back_records_and_pictures_over_its_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "SHARD", 4)
    records, images = records_in(tmp_path, 11)
    shards = write_as("webdataset", {"stage2": records}, images, tmp_path / "out")
    assert [p.name for p in shards] == [f"stage2-{n:06}.tar" for n in range(3)]
    before = [p.read_bytes() for p in shards]
    rows = loaded("webdataset", tmp_path / "out" / "stage2-*.tar", png=datasets.Image(decode=False))
    assert [row["json"] for row in rows] == records
    assert [row["png"]["bytes"] for row in rows] == [b"picture %d" % n for n in range(11)]
    for shard in shards:  # the members of a sample stand together, and all samples have the same
        with tarfile.open(shard) as file:
            keys, kinds = zip(*(name.split(".") for name in file.getnames()))
        assert keys[::2] == keys[1::2] and len(set(keys)) == len(keys) // 2 and set(kinds[::2]) == {"json"}
    assert write_as("webdataset", {"stage2": records}, images, tmp_path / "out") == shards
    assert [p.read_bytes() for p in shards] == before
    write_as("webdataset", {"stage2": records[:3]}, images, tmp_path / "out")
    assert sorted((tmp_path / "out").glob("*.tar")) == shards[:1]


def test_pictures_of_two_suffixes_are_refused_before_a_teacher_is_asked(capsys, tmp_path):
    with pytest.raises(RecordError, match="not jpg, png; parquet takes any"):
        check_form("webdataset", ["a.JPG", "b.png", "c.jpeg"])
    for name, said in (("a", "not none"), ("a.json", "not json")):
        with pytest.raises(RecordError, match=said):
            check_form("webdataset", [name])
    check_form("webdataset", ["a.JPG", "c.jpeg"])
    check_form("parquet", ["a.JPG", "b.png", "c"])
    (tmp_path / "a.png").touch()
    (tmp_path / "b.jpg").touch()
    (tmp_path / "c.csv").write_text("image,caption\na.png,A car.\nb.jpg,A dog.\n")
    source = ["generate", "--source", str(tmp_path / "c.csv"), "--images", str(tmp_path), "--out", str(tmp_path / "o")]
    assert cli.main([*source, "--format", "webdataset"]) == 2 and not (tmp_path / "o").exists()
    assert "--format webdataset" in capsys.readouterr().err


def test_a_parquet_file_gives_back_records_and_the_bytes_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "GROUP", 4)
    records, images = records_in(tmp_path, 11)
    (path,) = write_as("parquet", {"stage2": records}, images, tmp_path / "out")
    plain = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "c")
    )  # no feature is named: the file says that `images` are pictures
    assert plain.features["images"] == datasets.List(datasets.Image())
    rows = loaded("parquet", path, images=datasets.List(datasets.Image(decode=False)))
    assert [row["images"][0].pop("bytes") for row in rows] == [b"picture %d" % n for n in range(11)]
    assert [normalise(row)[0] for row in rows] == records


def test_the_command_writes_each_form_beside_its_records_and_asks_nothing_again(capsys, tmp_path):
    out = tmp_path / "out"
    for n, form in enumerate(FORMS):
        assert (
            cli.main(["generate", "--source", PICTURE_BOOK, "--limit", "3", "--out", str(out), "--format", form]) == 0
        )
        said = capsys.readouterr().out
        assert f"asked {0 if n else 9}, reused {9 if n else 0}" in said and f"minillava train {out}\n" in said
        assert (out / form).is_dir() == (form != "llava")
    ours = {name: read_records(out / f"{name}.json") for name in ("stage1", "stage2")}
    pictures = {p.name: p.read_bytes() for p in (out / "pictures").iterdir()}
    for name, records in ours.items():
        for form in ("messages", "sharegpt"):
            assert read_records(out / form / f"{name}.json") == records
            assert {p.name: p.read_bytes() for p in (out / form / "images").iterdir()} == pictures
        rows = loaded("webdataset", out / "webdataset" / f"{name}-*.tar", png=datasets.Image(decode=False))
        assert [row["json"] for row in rows] == records
        assert [row["png"]["bytes"] for row in rows] == [pictures[record["image"]] for record in records]
        rows = loaded("parquet", out / "parquet" / f"{name}.parquet")
        assert [row["images"][0].size for row in rows] == [(256, 256)] * len(records)
    about = json.loads((out / "sharegpt" / "dataset_info.json").read_text())
    assert {name: (out / "sharegpt" / one["file_name"]).is_file() for name, one in about.items()} == dict.fromkeys(
        ours, True
    )
    out.rename(tmp_path / "moved")  # the links still lead to the pictures
    assert (tmp_path / "moved" / "messages" / "images" / "train-000000.png").is_file()


def test_without_datasets_parquet_is_refused_by_name_before_a_teacher_is_asked(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    arguments = ["generate", "--source", PICTURE_BOOK, "--limit", "1", "--out", str(tmp_path / "o")]
    assert cli.main([*arguments, "--format", "parquet"]) == 2
    assert "pip install datasets" in capsys.readouterr().err and not (tmp_path / "o" / "replies.jsonl").exists()
    assert cli.main(["generate", "--source", "quiz", "--out", str(tmp_path / "q"), "--format", "messages"]) == 2

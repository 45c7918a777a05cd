"""Files are written whole or not at all, and read with errors that name them; text is aligned, shortened, printable."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from minillava.files import (
    FileError,
    atomic_write,
    by_key,
    read_checked,
    read_json,
    read_jsonl,
    write_checked,
    write_jsonl,
    write_text,
)
from minillava.text import aligned, few, listed, markdown_table, printable


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path):
    write_text(tmp_path / "below" / "a.txt", "old")
    with atomic_write(tmp_path / "below" / "a.txt") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "below" / "a.txt").read_text() == "old" and temporary.suffix == ".txt"
    assert (tmp_path / "below" / "a.txt").read_text() == "new" and names(tmp_path / "below") == ["a.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are Unix's")
def test_an_error_of_a_library_that_writes_names_the_file(tmp_path):
    """As while pictures are drawn on a full disk: Pillow says only what is wrong."""
    code = f"""import resource
from pathlib import Path
from minillava.experiments.study import draw_scenes
from minillava.scenes.compose import scenes
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
draw_scenes(scenes("train", 1), Path({str(tmp_path)!r}), lambda: None)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith(f"File too large: '{tmp_path / 'train-000000.png'}'"), done.stderr
    assert not names(tmp_path)


def test_an_error_without_a_number_keeps_its_words(tmp_path):
    """As numpy's of a full disk."""
    with pytest.raises(OSError, match="80 requested and 3 written: .*a.gguf"), atomic_write(tmp_path / "a.gguf"):
        raise OSError("80 requested and 3 written")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(type(error)), atomic_write(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "a.json").read_text() == "old" and names(tmp_path) == ["a.json"]


def test_a_folder_is_written_whole_too_and_a_killed_runs_temporary_one_is_removed(tmp_path):
    (tmp_path / ".model.part").mkdir()
    (tmp_path / ".model.part" / "incomplete").touch()
    with atomic_write(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("1")
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["a"]


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    from minillava import files

    seen = []
    monkeypatch.setattr(files, "flush_to_disk", lambda path: seen.append((path.name, (tmp_path / "a").exists())))
    write_text(tmp_path / "a", "text")
    assert seen == [(".a.part", False), (tmp_path.name, True)]
    seen.clear()
    with atomic_write(tmp_path / "b", sync=False) as temporary:
        temporary.touch()
    assert not seen and (tmp_path / "b").exists()


@pytest.mark.parametrize("harm", [*toy.HARMS, os.unlink])
@pytest.mark.parametrize("name", ["about.json", "a.bin", "below/b.bin"])
def test_what_is_written_checked_is_read_only_as_it_was_written(tmp_path, name, harm):
    (tmp_path / "below").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 700)
    (tmp_path / "below" / "b.bin").write_bytes(b"12345678")
    value = {"step": 3, "rate": 0.1 + 0.2, "of": {"ü": [None, True, 1e300]}}
    path = tmp_path / "about.json"
    write_checked(path, value, [tmp_path / "a.bin", tmp_path / "below" / "b.bin"])
    assert read_checked(path) == value
    harm(tmp_path / name)
    with pytest.raises((FileError, FileNotFoundError), match=Path(name).name):
        read_checked(path)


@settings(max_examples=200)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
def test_any_json_where_a_checked_file_is_expected_is_an_error_in_words(value):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "about.json"
        path.write_text(json.dumps(value))
        with pytest.raises(FileError, match="not as it was written"):
            read_checked(path)


def test_rows_written_are_the_rows_read_and_an_error_names_file_and_line(tmp_path):
    rows = [{"question_id": 1, "text": "Grün\u2028"}, {"question_id": "b"}]
    write_jsonl(rows, tmp_path / "a.jsonl")
    assert read_jsonl(tmp_path / "a.jsonl") == rows and by_key(rows, tmp_path, "question_id").keys() == {1, "b"}
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n\n[]\n')
    with pytest.raises(FileError, match="b.jsonl, line 3: expected a JSON object, found list"):
        read_jsonl(tmp_path / "b.jsonl")
    (tmp_path / "c.json").write_bytes(b"\xff")
    with pytest.raises(FileError, match="c.json: not UTF-8"):
        read_json(tmp_path / "c.json")
    for bad, says in (
        ([{}], "row 1: no 'k'"),
        ([{"k": True}], "neither a number nor a text"),
        ([{"k": 1}] * 2, "twice"),
    ):
        with pytest.raises(FileError, match=says):
            by_key(bad, tmp_path / "d.jsonl", "k")


def test_tables_and_lists_for_people():
    assert aligned([["", "score"], ["all", "85.1"]]) == "     score\nall   85.1"
    assert markdown_table([["", "score"], ["all", "85.1"]]) == "|  | score |\n| --- | --- |\n| all | 85.1 |"
    letters = list("abcdefghij")
    assert few({"b", "a", "c"}, 2) == few((letter for letter in "abc"), 2) == "a, b and 1 more"
    assert few(letters) == "a, b, c, d, e, f, g, h and 2 more" and few(letters[:8]) == "a, b, c, d, e, f, g, h"
    assert listed(letters, 1) == "  a\n  and 9 more" and listed([]) == ""
    assert printable("a\ud83d") == "a?"

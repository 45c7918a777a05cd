"""Notebook 14 reads the authors' own reviews where a reader has them: its cell, run in a folder that holds them."""

import shutil

from cells import notebook, run

NEEDED = ("OUT = Path(tempfile.mkdtemp())", 'Path("reviews")')  # what the cell needs, and the cell


def test_reviews_in_a_folder_of_the_readers_are_read(real, tmp_path, monkeypatch):
    (tmp_path / "reviews").mkdir()
    for name in ("llava-v1.5-13b-eval1", "review_alpaca-13b_vicuna-13b"):
        shutil.copy(real(f"reviews/{name}.jsonl"), tmp_path / "reviews")
    monkeypatch.chdir(tmp_path)
    said = run(notebook("14"), compare=False, only=NEEDED)[-1].splitlines()
    assert [line.split()[:3] for line in said] == [
        ["llava-v1.5-13b-eval1.jsonl", "60", "used,"],
        ["review_alpaca-13b_vicuna-13b.jsonl", "80", "used,"],
    ]
    assert all(line.split()[3:5] == ["0", "excluded"] for line in said)
    assert "{'conv': 74.7, 'detail': 52.6, 'complex': 82.8, 'all': 72.8}" in said[0]

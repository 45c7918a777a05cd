"""The concept filter of Appendix E: its properties, its choices, its files; and the noun phrases it counts."""

import csv
import json
import random
import sys
import types
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillava import cli
from minillava.data.records import make_record
from minillava.datagen import chunks, concepts
from minillava.datagen.chunks import ChunkerError, find_chunker, normalise, noun_phrases, nouns_and_verbs, word_class
from minillava.datagen.concepts import CaptionError, concept_filter, read_captions, write_captions
from minillava.figures import data as figures_data
from minillava.scenes.captions import captions
from minillava.scenes.compose import scenes

# noun phrases


@pytest.mark.parametrize(
    "text, expected",
    [
        ("A man walks two small dogs past the parked red cars.", ["A man", "two small dogs", "the parked red cars"]),
        ("A black Honda motorcycle parked in front of a garage", ["A black Honda motorcycle", "a garage"]),
        ("sierra looked stunning in this top and this skirt", ["sierra", "this top", "this skirt"]),
        ("a very typical bus station", ["typical bus station"]),
        ("A donut shop is full of different flavors of donuts.", ["A donut shop", "different flavors", "donuts"]),
        ("The dog is red.", ["The dog"]),
        ("the painting on a wall", ["the painting", "a wall"]),
        ("a person's shirt", ["a person's shirt"]),
        ("She is running and they wait for it.", []),
        ("How odd, a purple sheep on a red chair in a room!", ["a purple sheep", "a red chair", "a room"]),
        ("young boy is playing in the swimming pool", ["young boy", "the swimming pool"]),
        ("", []), ("...", []), ("the", []), ("red and blue", []), ("3 dogs", ["3 dogs"]), ("Ein Mädchen", ["Ein Mädchen"]),
    ],
)  # fmt: skip
def test_noun_phrases_of_captions(text, expected):
    assert noun_phrases(text) == expected


def test_the_words_of_the_picture_book_are_found():  # but `a person painting` may be a noun, as `an oil painting` is
    for scene in scenes("train", 200):
        for text in captions(scene):
            found = {normalise(p).split()[-1] for p in noun_phrases(text)}
            for thing in scene.things:
                if thing.doing != "painting" and f" {thing.kind} " in f" {text.lower().strip('.!')} ":
                    assert thing.kind in found, (text, found)


def test_nouns_are_heads_and_verbs_are_in_their_base_form():
    found = nouns_and_verbs("Two dogs are running, and a man rides the parked bicycle.")
    assert found == (["dogs", "man", "bicycle"], ["run", "ride"])
    for pair in "sitting sit, waves wave, carried carry, tied tie, watches watch, ran run".split(", "):
        form, verb = pair.split()
        assert chunks.VERBS[form] == verb


def test_phrases_are_compared_in_lower_case_without_determiners_by_default():
    assert normalise("The Red Car") == "red car" and normalise("The Red Car", lower=False) == "Red Car"
    assert normalise("The Red Car", determiners=True) == "the red car"
    assert normalise("all the dogs") == "dogs" and normalise("this") == "this"


@given(st.text(max_size=200))
def test_no_text_breaks_the_chunker_and_phrases_are_words_of_the_text(text):
    for phrase in noun_phrases(text):
        assert phrase and all(word in text for word in phrase.split(" "))
    assert word_class.cache_info().maxsize


def test_spacy_is_used_if_it_and_its_model_are_installed(monkeypatch):
    find = chunks.importlib.util.find_spec
    absent = ("spacy", chunks.SPACY_MODEL)
    monkeypatch.setattr(chunks.importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    assert find_chunker("auto")[0] == "rules"
    with pytest.raises(ChunkerError, match="python -m spacy download en_core_web_sm"):
        find_chunker("spacy")
    with pytest.raises(ChunkerError, match="--chunker magic: choose auto, spacy or rules"):
        find_chunker("magic")
    made = types.ModuleType("spacy")  # a fake spaCy with the two calls that are used

    class Pipeline:
        def pipe(self, texts, batch_size):
            for text in texts:
                chunk = types.SimpleNamespace(text=text.split(" with")[0])
                yield types.SimpleNamespace(noun_chunks=[chunk])

    made.load = lambda name, exclude: Pipeline() if name == chunks.SPACY_MODEL else None
    monkeypatch.setitem(sys.modules, "spacy", made)
    monkeypatch.setattr(chunks.importlib.util, "find_spec", lambda name: name)
    found = concept_filter(["A Cat with a hat"] * 3)
    assert found.chunker == "spacy" and found.before == {"cat": 3}


# the filter


def corpus(counts):
    """Captions, each of one noun: `counts` noun -> how many."""
    return [f"a {noun}" for noun, n in counts.items() for _ in range(n)]


def test_captions_of_rare_phrases_are_skipped_of_common_ones_drawn_of_others_kept():
    counts = {"cat": 2, "dog": 3, "horse": 100, "tree": 101, "house": 400}
    texts = corpus(counts)
    found = concept_filter(texts, chunker="rules")
    kept = Counter(texts[i] for i in found.kept)
    assert kept == {"a dog": 3, "a horse": 100, "a tree": 100, "a house": 100}
    assert found.before == counts and found.after == {"dog": 3, "horse": 100, "tree": 100, "house": 100}
    assert (concepts.RARE_BELOW, concepts.COMMON_ABOVE) == (3, 100)


NOUNS = ("cat", "dog", "tree", "house", "kite", "boat")
TEXTS = st.lists(
    st.lists(st.sampled_from(NOUNS), max_size=4).map(lambda ns: " and ".join(f"a {n}" for n in ns)), max_size=60
)
CHOICES = st.fixed_dictionaries({"occurrences": st.booleans(), "pooled": st.booleans(), "seed": st.integers(0, 3)})


@given(TEXTS, st.integers(1, 5), st.integers(1, 8), CHOICES)
def test_the_properties_that_appendix_e_implies(texts, least, most, choices):
    found = concept_filter(texts, least, most, chunker="rules", **choices)
    holders = {n: [i for i, t in enumerate(texts) if f"a {n}" in t] for n in NOUNS}
    times = {n: sum(t.count(f"a {n}") for t in texts) if choices["occurrences"] else len(holders[n]) for n in NOUNS}
    assert found.before == {n: times[n] for n in NOUNS if times[n]}
    kept = set(found.kept)
    assert found.kept == sorted(kept) and kept <= set(range(len(texts)))
    for noun in NOUNS:
        if least <= times[noun] <= most:
            assert kept >= set(holders[noun])  # all its captions
        elif times[noun] > most:
            assert len(kept & set(holders[noun])) >= min(most, len(holders[noun]))  # others may bring in more
    for i, text in enumerate(texts):
        if all(times[n] < least for n in NOUNS if f"a {n}" in text):
            assert i not in kept  # only rare phrases, or none
    assert found.after == {n: len(kept & set(holders[n])) for n in NOUNS if kept & set(holders[n])}
    assert found.kept == concept_filter(texts, least, most, chunker="rules", **choices).kept


def test_a_phrase_may_keep_more_than_its_limit_because_other_phrases_keep_its_captions():
    texts = ["a dog and a kite"] * 40 + ["a dog"] * 200
    plain = concept_filter(texts, most=50, chunker="rules")
    pooled = concept_filter(texts, most=50, chunker="rules", pooled=True)
    assert plain.after["kite"] == pooled.after["kite"] == 40
    assert 50 < plain.after["dog"] <= 90 and pooled.after["dog"] == 50


def test_each_choice_that_the_paper_leaves_open_changes_what_it_should():
    texts = ["The Dog", "a dog", "dog", "a cat and a cat", "a cat", "Anna"]

    def count(**more):
        return concept_filter(texts, 1, 100, chunker="rules", **more).before

    assert count() == {"dog": 3, "cat": 2, "anna": 1}
    assert count(lower=False) == {"Dog": 1, "dog": 2, "cat": 2, "Anna": 1}
    assert count(determiners=True) == {"the dog": 1, "a dog": 1, "dog": 1, "a cat": 2, "anna": 1}
    assert count(occurrences=True) == {"dog": 3, "cat": 3, "anna": 1}
    many = corpus({"dog": 500})
    assert concept_filter(many, chunker="rules").kept != concept_filter(many, chunker="rules", seed=1).kept
    for wrong in ({"least": 0}, {"most": 0}):
        with pytest.raises(CaptionError, match="at least 1"):
            concept_filter(many, **wrong)


def test_the_order_of_the_captions_affects_only_which_are_drawn():
    texts = [text for scene in scenes("train", 300) for text in captions(scene)]
    one, other = concept_filter(texts, most=20, chunker="rules"), concept_filter(texts[::-1], most=20, chunker="rules")
    assert one.before == other.before
    small = {p for p, n in one.before.items() if concepts.RARE_BELOW <= n <= 20}
    assert all(one.after[p] == other.after[p] == one.before[p] for p in small) and len(small) > 50


# files and the command


def command(capsys, *arguments):
    status = cli.main(["filter", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_captions_are_written_in_their_original_form(tmp_path):
    records = [make_record(text, "x.png", [("What?", text)], random.Random(0)) for text in ("a dog", "a cat")]
    files = {
        "c.txt": "a dog\n\na cat \nein Hündchen\n",
        "c.tsv": "a dog\thttp://x/1\na cat\thttp://x/2\n",
        "c.csv": 'image,caption\n1.png,"a dog, red"\n2.png,a cat\n',
        "c.json": json.dumps(records, indent=1),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        texts, raw, problems = read_captions(tmp_path / name)
        assert [t[:5] for t in texts[:2]] == ["a dog", "a cat"] and not problems
        write_captions(raw, tmp_path / f"out-{name}")
        assert read_captions(tmp_path / f"out-{name}")[:2] == (texts, raw)
    assert (tmp_path / "out-c.tsv").read_text() == files["c.tsv"]
    with open(tmp_path / "out-c.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"image": "1.png", "caption": "a dog, red"},
            {"image": "2.png", "caption": "a cat"},
        ]


def test_rows_without_a_caption_are_named_and_the_status_is_1(capsys, tmp_path, monkeypatch):
    undrawn = types.SimpleNamespace(savefig=lambda path: None)
    monkeypatch.setattr(figures_data, "concept_figure", lambda *_: undrawn)
    (tmp_path / "c.txt").write_bytes(b"a dog\ncaf\xe9\na dog\n   \na dog\n")
    (tmp_path / "c.tsv").write_bytes(b"a dog\tx\n\tx\n\xff\tx\n")
    (tmp_path / "c.csv").write_bytes(b'caption\na dog\n\xff\n""\na,b\n')
    (tmp_path / "c.json").write_text(
        '[{"id": "r7", "conversations": []}, 3, {"conversations": [{}, {"value": "a dog"}]}]'
    )
    expected = {
        "c.txt": ["line 2: not UTF-8", "line 4: no caption"],
        "c.tsv": ["line 2: no caption", "line 3: not UTF-8"],
        "c.csv": ["line 3: not UTF-8", "line 4: no caption", "line 5: too many"],
        "c.json": ["record r7: no answer", "record 1: no answer"],
    }
    for name, parts in expected.items():
        status, _, err = command(capsys, tmp_path / name, "--out", tmp_path / "out", "--least", 1)
        assert status == 1 and all(f"  {name}: {part}" in err for part in parts), err
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["left out"] == len(parts)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("c.md", b"a dog", "expected .txt, .tsv, .csv or .json"), ("c.json", b"{", "not JSON"), ("c.json", b"[" * 100_000, "not JSON"), ("c.csv", b"a,b\n1,2\n", "expected a column `caption`"),
        ("c.csv", b"caption\n" + b"x" * 200_000, "c.csv: not a CSV file (field larger"),
        ("c.txt", b"", "no captions"), ("c.txt", b"\xff", "no captions"), (None, b"", "none.txt: cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(capsys, tmp_path, name, text, message):
    (tmp_path / (name or "other")).write_bytes(text)
    status, _, err = command(capsys, tmp_path / (name or "none.txt"), "--out", tmp_path / "out")
    assert status == 2 and message in err and "Traceback" not in err and not (tmp_path / "out").exists()


def test_the_command_filters_and_draws_figure_7(capsys, tmp_path):
    texts = [text for scene in scenes("train", 400) for text in captions(scene)]
    (tmp_path / "c.txt").write_text("\n".join(texts))
    status, out, _ = command(capsys, tmp_path / "c.txt", "--out", tmp_path / "out", "--most", 20, "--chunker", "rules")
    expected = concept_filter(texts, most=20, chunker="rules")
    assert status == 0 and f"kept: {len(expected.kept):,}" in out and 100 < len(expected.kept) < len(texts)
    assert (tmp_path / "out" / "captions.txt").read_text().splitlines() == [texts[i] for i in expected.kept]
    rows = [line.split("\t") for line in (tmp_path / "out" / "phrases.tsv").read_text().splitlines()[1:]]
    assert {p: (int(b), int(a)) for p, b, a in rows} == {
        p: (n, expected.after.get(p, 0)) for p, n in expected.before.items()
    }
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["kept"] == len(expected.kept)
    assert (tmp_path / "out" / "phrases.png").stat().st_size > 10_000
    status, _, err = command(capsys, tmp_path / "c.txt", "--out", tmp_path / "c.txt")
    assert status == 2 and "c.txt: cannot be written to" in err
    assert command(capsys, tmp_path / "c.txt", "--out", tmp_path / "o", "--chunker", "magic")[0] == 2


def test_figure_7_shows_every_phrase_before_and_after():
    found = concept_filter(corpus({"cat": 2, "dog": 3, "tree": 250}), chunker="rules")
    limits = concepts.RARE_BELOW, concepts.COMMON_ABOVE
    axis = figures_data.concept_figure(found, *limits).axes[0]
    before, after = axis.lines[0], axis.lines[1]
    assert list(before.get_ydata()) == [250, 3, 2]
    assert list(after.get_xdata()) == [1, 2] and list(after.get_ydata()) == [100, 3]
    shown = axis.get_xlabel() + " ".join(t.get_text() for t in axis.get_legend().get_texts())
    assert all(n in shown for n in ("108,182", "31,423", "before: 3 unique", "after: 2 unique"))
    assert figures_data.concept_figure(concepts.FilterResult([], {}, {}, 0, "rules"), *limits)


def test_captions_without_a_noun_phrase_are_an_error_in_words(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("!!!\n???\n")
    assert cli.main(["filter", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out"), "--chunker", "rules"]) == 2
    assert "a.txt: no noun phrase in its 2 captions" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

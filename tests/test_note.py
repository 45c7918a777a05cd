"""The note to correct: every claim is decided by a part of the paper, alike in both languages; marks are checked."""

import re
from dataclasses import replace

import pytest

from minillava import paper
from minillava.course import note
from minillava.course.chinese import unsaid_terms
from minillava.errors import UserError
from minillava.figures.diagrams import mixture

IDS = range(1, len(note.CLAIMS) + 1)
NUMBER = re.compile(r"(?<![\w-])\d+(?:\.\d+)?(?![\w.]*\d)")  # not GPT-4's, BLIP-2's


def printed_by_the_paper(*names):
    """All numbers of the paper as it prints them: its tables, or those named, with two digits or one, and its facts."""
    cells = [v for name in names or paper.TABLES for row in paper.TABLES[name].rows.values() for v in row]
    numbers = [n for v in cells for n in (v if isinstance(v, tuple) else (v,))]
    found = {f"{n:.{digits}f}" for n in numbers for digits in (1, 2)}
    for fact in paper.DATA.values():
        found |= {str(n) for n in (fact.value.values() if isinstance(fact.value, dict) else [fact.value])}
    return found | {f"{n:.0f}" for claim in paper.CLAIMS for n in claim.figures.values()}


def named(text):
    """The numbers in a text, without those that name a table, a stage or an issue, in either language."""
    return NUMBER.findall(re.sub(r"(Tables?|stage|issue|表) \d+", " ", text, flags=re.IGNORECASE))


def test_the_note_has_sixteen_claims_half_of_them_right():
    assert len(note.CLAIMS) == 16 and sum(claim.right for claim in note.CLAIMS) == 8
    assert len({claim.english for claim in note.CLAIMS} | {claim.chinese for claim in note.CLAIMS}) == 32


@pytest.mark.parametrize("n", IDS)
def test_the_place_that_decides_is_in_the_paper(n):
    assert note.CLAIMS[n - 1].place in paper.STRUCTURE
    for table in re.findall(r"Table \d+", note.CLAIMS[n - 1].why):
        assert table in paper.STRUCTURE


@pytest.mark.parametrize("n", IDS)
def test_every_number_is_the_papers(n):
    claim, theirs = note.CLAIMS[n - 1], printed_by_the_paper()
    for text in claim[2:]:
        assert set(named(text)) <= theirs, text
    if claim.place in paper.TABLES:
        assert set(named(claim.english + claim.why)) <= printed_by_the_paper(claim.place), claim.place


@pytest.mark.parametrize("n", IDS)
def test_both_languages_say_the_same_numbers_with_the_fields_words(n):
    claim = note.CLAIMS[n - 1]
    for english, chinese in ((claim.english, claim.chinese), (claim.why, claim.why_in_chinese)):
        assert sorted(named(english)) == sorted(named(chinese))
        assert re.search("[\u4e00-\u9fff]", chinese) and not re.search("[\u4e00-\u9fff]", english)
        assert unsaid_terms(english, chinese) == []


def test_a_figure_that_changes_in_the_paper_changes_in_the_note(monkeypatch):
    table = paper.TABLES["Table 4"]
    changed = replace(table, rows=table.rows | {"Full data": (83.1, 75.3, 96.5, 99.9)})
    monkeypatch.setitem(paper.TABLES, "Table 4", changed)
    assert note.cell(4, "Full data", "All") == "99.9"


def test_a_score_has_the_papers_digits_and_no_spread():
    assert note.cell(5, "LLaVA", "All") == "67.3"
    assert note.cell(7, "Human", "Avg") == "88.40" and note.cell(8, "No stage 1", "Avg") == "85.81"


@pytest.mark.parametrize(
    ("n", "row", "column"),
    [(7, "Detail + Complex", "All"), (8, "Conversation", "Conv"), (10, "No Instruction Tuning", "All")],
)
def test_a_claim_about_table_4_names_the_cell_that_it_is_about(n, row, column):
    assert str(paper.TABLE_4.value(row, column)) in note.CLAIMS[n - 1].english


def test_the_reasons_and_the_other_benchmarks_name_the_cells_that_they_are_about():
    little, wild = paper.TABLE_4.value("Conv + 5% Detail + 10% Complex", "All"), paper.TABLE_5.value("LLaVA", "All")[0]
    assert note.CLAIMS[7 - 1].why.endswith(f"{little}.") and f"and {wild} are" in note.CLAIMS[11 - 1].english
    coco, other = (paper.DATA[name].value["questions"] for name in ("coco_bench", "wild_bench"))
    assert f"{coco} questions about COCO" in note.CLAIMS[11 - 1].why and f"{other} of In" in note.CLAIMS[11 - 1].why
    assert f"reach {paper.TABLE_8.value('Answer first', 'Avg')} on" in note.CLAIMS[16 - 1].english


def test_the_orders_that_right_claims_state_are_the_papers():
    assert float(note.ONE_TYPE) < float(note.ALL_TYPES)  # 8
    assert note.JUDGED < note.ANSWERED  # 12
    assert float(note.HUMAN) < float(note.LLAVA) < float(note.LARGE) < float(note.JUDGE)  # 13
    assert float(note.SEEN) < float(note.LIFTED)  # 15
    assert note.SOON < note.LATE  # 16
    assert all(note.CLAIMS[n - 1].right for n in (8, 12, 13, 15, 16))


def test_the_judgement_on_the_ladder_is_that_of_the_mixtures():
    rows = [mixture(row) for row in paper.TABLE_4.rows]
    nested = [all(upper[kind] >= lower[kind] for kind in lower) for upper, lower in zip(rows, rows[1:])]
    assert nested == [True, False, True, True] and not note.CLAIMS[9 - 1].right


def test_the_note_shows_all_claims_in_both_languages_and_no_verdict():
    text = note.show()._repr_markdown_()
    for n, claim in enumerate(note.CLAIMS, 1):
        assert f"**{n}.** {claim.english}<br>{claim.chinese}" in text
        assert claim.why not in text
    assert repr(note.show()) == text


def test_a_mark_is_answered_with_the_place_and_the_reason_in_both_languages(capsys):
    note.check({7: "right", 2: "wrong"})
    out = capsys.readouterr().out
    assert out.index(" 2  you: wrong, the paper: wrong") < out.index(" 7  you: right, the paper: wrong")
    for claim in (note.CLAIMS[1], note.CLAIMS[6]):
        assert f"[{paper.STRUCTURE[claim.place].source}] {claim.why}" in out and claim.why_in_chinese in out
    assert "1 of 2 marks agree with the paper; 14 claims have no mark yet" in out
    assert "2 个判断里有 1 个与论文一致；还有 14 句没有判断" in out


def test_what_has_no_mark_is_not_given_away(capsys):
    note.check(dict.fromkeys(IDS))
    out = capsys.readouterr().out
    assert "0 of 0 marks agree with the paper; 16 claims" in out and not any(claim.why in out for claim in note.CLAIMS)


def test_all_marks_right_and_all_wrong_are_counted(capsys):
    truth = {n: "right" if claim.right else "wrong" for n, claim in enumerate(note.CLAIMS, 1)}
    note.check(truth)
    note.check({n: "wrong" if mark == "right" else "right" for n, mark in truth.items()})
    out = capsys.readouterr().out
    assert "16 of 16 marks agree" in out and "0 of 16 marks agree" in out


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ({17: "right"}, "no claim has the number 17; write 1 to 16"),
        ({0: "right"}, "no claim has the number 0"),
        ({"3": "right"}, "no claim has the number '3'"),
        ({3: "true"}, 'claim 3 is marked \'true\'; write "right", "wrong" or None'),
        ({3: True}, "claim 3 is marked True"),
        (["right"], "write a dict"),
    ],
)
def test_marks_that_do_not_fit_are_refused_before_anything_is_printed(marks, message, capsys):
    with pytest.raises(UserError, match=re.escape(message)):
        note.check(marks)
    assert capsys.readouterr().out == ""

"""The page of the science quiz: reasons and letters told apart, and committed files that agree with one another."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from minillava import paper
from minillava.data.scienceqa import LETTERS, answer_text
from minillava.experiments import gates_page, pages, science_report
from minillava.experiments.science import BEST
from minillava.experiments.science_report import SHARES
from minillava.judging.scienceqa import read_predictions
from minillava.scales import WEIGHTS
from minillava.standins.quiz import quiz

RESULTS = WEIGHTS.parent / "results"
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def science():
    return json.loads((RESULTS / "science.json").read_text())


def test_a_conclusion_is_the_last_sentence_whatever_letter_goes_with_it():
    problem = replace(quiz("test", 1)[0], solution="East is on the right. On the right is the cup.")
    told = "LECTURE: Look.\nSOLUTION: West is up.  On the right is\nthe cup.\n The answer is B."
    assert science_report.concluded(problem, told)
    assert science_report.concluded(problem, "The answer is A. BECAUSE: Look. On the right is the cup.")
    assert not science_report.concluded(problem, told.replace("cup", "dog"))
    assert not science_report.concluded(problem, "The answer is A.") and not science_report.concluded(problem, "")


def test_wrong_reasons_and_wrong_letters_are_counted_apart():
    test = {p.id: p for p in quiz("test", 15)}
    said = {name: answer_text(p, "QCM-LEA") for name, p in test.items()}
    letter, reasons = list(test)[3], list(test)[0]  # one without a picture, one with
    p = test[letter]
    said[letter] = said[letter].replace(f"answer is {p.letter}.", f"answer is {LETTERS[1 - p.answer]}.")
    said[reasons] = said[reasons].replace(test[reasons].solution, "The picture shows nothing.")
    found = SimpleNamespace(test=test, texts={BEST: [said]}, letters={BEST: [read_predictions(test, said)[0]]})
    counted = {r["what"]: [r[share] for share in SHARES] for r in science_report.letters_of(found)}
    assert counted["all"] == [13, 1, 1, 0] and counted["with a picture"][1:] == [0, 1, 0]
    assert counted["without"][1:] == [1, 0, 0] and counted[p.skill] == [0, 1, 0, 0]
    assert science_report.Science.reasoned(found, BEST)[0].count(False) == 1


def test_the_committed_pages_are_made_of_science_json(science):
    assert (RESULTS / "science.md").read_text(encoding="utf-8") == pages.science_page(science)
    assert (RESULTS / "figures" / "table-8.png").stat().st_size > 10_000
    assert pages.brief(science) in (RESULTS / "README.md").read_text(encoding="utf-8")
    assert (RESULTS / "gates.md").read_text(encoding="utf-8") == gates_page.page(WEIGHTS, RESULTS)


def test_every_page_is_made_again_from_the_json_beside_it(tmp_path, monkeypatch, capsys, science):
    kept = json.loads((RESULTS / "ten-pictures.json").read_text())
    monkeypatch.setattr(pages, "ten_pictures", lambda weights: (Figure(), kept))
    for name in ("report.json", "science.json", "designs.json", "gates.jsonl"):
        shutil.copy(RESULTS / name, tmp_path)
    pages.write_pages(tmp_path)
    for name in ("report.md", "science.md", "designs.md", "gates.md", "ten-pictures.json"):
        assert (tmp_path / name).read_bytes() == (RESULTS / name).read_bytes(), name
    assert (tmp_path / "gates.png").stat().st_size > 10_000 and pages.brief(science) in capsys.readouterr().out


def test_the_committed_figures_agree_with_one_another(science):
    assert {r["row"]: r["paper"]["Avg"] for r in science["table 8"]} == {r: paper.TABLE_8.value(r, "Avg") for r in paper.TABLE_8.rows}  # fmt: skip
    asked, (whole,) = science["questions"] * len(science["seeds"]), (r for r in science["letters"] if r["what"] == "all")  # fmt: skip
    assert len(science["seeds"]) >= 3 and sum(whole[share] for share in SHARES) == asked
    best = next(r for r in science["table 8"] if r["row"] == BEST)["ours"]["Avg"]["ours"]
    assert 100 * (whole[SHARES[0]] + whole[SHARES[2]]) / asked == pytest.approx(best, abs=0.06)
    reasons = next(r for r in science["reasons"] if r["row"] == BEST)["reasons"]["all"]["ours"]
    assert 100 * (whole[SHARES[0]] + whole[SHARES[1]]) / asked == pytest.approx(reasons, abs=0.06)

"""Table 8's choices on the chat data: what one row leaves, how rows are compared, and committed files that agree."""

import json
import random

import pytest
from PIL import Image
from small_run import SMALL

from minillava.experiments import designs, gates_page, miniature, science, study, tables
from minillava.experiments.run import Run
from minillava.experiments.science import ANSWER_FIRST, BEST
from minillava.figures import tables as figures_judge
from minillava.files import read_jsonl, write_jsonl
from minillava.scales import WEIGHTS

RESULTS = WEIGHTS.parent / "results"
SHARES = {BEST: 0.8, "Last layer": 0.8, "No stage 1": 0.4, "7B": 0.7}
KINDS = ("colour", "side")


@pytest.fixture
def run(parts, tmp_path):
    """A finished run of three seeds, its answers made by hand."""
    run = Run(tmp_path / "run", SMALL, 3, parts)
    run.lock.release()
    (run.folder / "records").mkdir()
    for kind in miniature.TYPES:
        (run.folder / "records" / f"{kind}.json").write_text("[]")
    for seed in run.seeds:
        for row, share in SHARES.items():
            home = run.home(seed, row)
            for tag, part in (("", share), ("-shuffled", 0.2)):
                rng = random.Random(
                    f"{seed} {tag} {row if row in ('No stage 1', '7B') else ''}"
                )  # two rows answer alike
                rows = [{"kind": KINDS[n % 2], "right": rng.random() < part} for n in range(200)]
                write_jsonl(rows, home / f"exact{tag}.jsonl")
    return run


def test_rows_are_compared_by_questions_and_stand_beside_their_control(run):
    report = designs.designs_report(run)
    rows = {r["row"]: r for r in report["rows"]}
    assert list(rows) == [BEST, "Last layer", "No stage 1", "7B"] and report["questions"] == 200
    assert rows[BEST]["gap"] is None and rows["Last layer"]["gap"]["interval"] == [0.0, 0.0]
    low, high = rows["No stage 1"]["gap"]["interval"]
    assert low < rows["No stage 1"]["gap"]["ours"] < high < -25 and rows["7B"]["gap"]["interval"][1] < 0
    for row, share in SHARES.items():
        ours = rows[row]["ours"]
        assert abs(ours["all"]["ours"] - 100 * share) < 8 and ours["all"]["spread"] is not None
        assert [*ours] == [*KINDS, "all"] and abs(sum(ours[k]["ours"] for k in KINDS) / 2 - ours["all"]["ours"]) < 0.11
        assert 10 < rows[row]["shuffled"]["ours"] < 30
    passed = [r[-1] for r in gates_page.on_chat(report)]
    assert passed == ["**no**", "yes", "yes"]
    assert "(-5.11)" in next(line for line in designs.markdown(report).splitlines() if "No stage 1" in line)


def test_the_table_is_written_with_its_report_and_figure(run):
    text = tables.write_designs(run)
    assert json.loads((run.folder / "report.json").read_text()) == designs.designs_report(run)
    assert text == designs.markdown(designs.designs_report(run))
    assert Image.open(run.folder / "figures" / "table-8-chat.png").width > 800


def test_without_a_second_language_model_its_row_is_left_out(weights):
    assert "7B" not in designs.choices(weights) and ANSWER_FIRST not in designs.choices(weights)


def test_a_row_starts_where_its_choice_says_trains_and_answers_every_question(parts, tmp_path):
    run = Run(tmp_path / "run", SMALL, 1, parts)
    miniature.make_data(run)
    for row in ("No stage 1", "Last layer"):
        study.make_features(run, science.VARIANTS[row])
    designs.learn_row(run, 0, "No stage 1")  # there is none yet
    (run.folder / science.VARIANTS[BEST].features).unlink()  # so that the other row can read the last layer alone
    with pytest.raises(FileNotFoundError):
        designs.learn_row(run, 0, "Last layer")
    study.align(run, 0, science.VARIANTS["Last layer"])
    designs.learn_row(run, 0, "Last layer")
    for row in ("Last layer", "No stage 1"):
        home = run.home(0, row)
        asked = read_jsonl(run.folder / "bench" / "exact.jsonl")
        for tag in designs.ASKED:
            answers = read_jsonl(home / f"exact{tag}.jsonl")
            assert [(r["image"], r["question"]) for r in answers] == [(q["image"], q["text"]) for q in asked]
        assert read_jsonl(home / "metrics.jsonl")[-1]["step"] == designs.steps_of(run) - 1
    run.lock.release()


@pytest.mark.skipif(not (RESULTS / "designs.json").exists(), reason="no run of the choices is committed")
def test_the_committed_page_is_made_of_designs_json():
    report = json.loads((RESULTS / "designs.json").read_text())
    assert len(report["seeds"]) >= 3 and len(report["rows"]) == 4
    assert (RESULTS / "designs.md").read_text(encoding="utf-8") == designs.markdown(report)
    assert figures_judge.designs(report).axes[0].get_title(loc="left")

"""Table 8's choices on the chat data: what one row leaves, how rows are compared, and committed files that agree."""

import json
import random

import pytest
from PIL import Image
from small_run import SMALL

from minillava.experiments import gates_page, miniature, report, science, study, tables
from minillava.experiments.run import Run
from minillava.experiments.science import BEST
from minillava.figures import tables as figures_judge
from minillava.files import read_jsonl, write_json, write_jsonl
from minillava.scales import WEIGHTS

RESULTS = WEIGHTS.parent / "results"
SHARES = {BEST: 0.8, "Last layer": 0.8, "No stage 1": 0.4, "7B": 0.7}
SHARES |= dict(zip(miniature.WITHOUT, (0.3, 0.6))) | dict(zip(miniature.STAGE_1, (0.75, 0.6)))
AFTER = miniature.OTHER_ORDER
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
            for tag, part in (("", share), (AFTER, share - 0.1), ("-shuffled", 0.2)):
                alike = row in (BEST, "Last layer", "Short stage 2", "No stage 1, short stage 2")
                rng = random.Random(f"{seed} {tag} {'' if alike else row}")  # two rows answer alike
                rows = [{"kind": KINDS[n % 2], "right": rng.random() < part} for n in range(200)]
                write_jsonl(rows, home / f"exact{tag}.jsonl")
                found = {kind: sum(r["right"] for r in rows if r["kind"] == kind) for kind in KINDS}
                write_json(home / f"exact{tag}.json", found | {"all": sum(found.values()) / 2})
    return run


def test_rows_are_compared_by_questions_and_stand_beside_their_control(run):
    found = report.designs_report(run)
    rows = {r["row"]: r for r in found["rows"]}
    assert list(rows) == [BEST, "Last layer", "No stage 1", "7B"] and rows[BEST]["questions"] == 200
    assert rows[BEST]["gap"] is None and rows["Last layer"]["gap"]["interval"] == [0.0, 0.0]
    low, high = rows["No stage 1"]["gap"]["interval"]
    assert low < rows["No stage 1"]["gap"]["ours"] < high < -25 and rows["7B"]["gap"]["interval"][1] < 0
    for row, share in ((row, SHARES[row]) for row in rows):
        ours = rows[row]["ours"]
        assert abs(ours["all"]["ours"] - 100 * share) < 8 and ours["all"]["spread"] is not None
        assert [*ours] == [*KINDS, "all"] and abs(sum(ours[k]["ours"] for k in KINDS) / 2 - ours["all"]["ours"]) < 0.11
        assert 10 < rows[row]["shuffled"]["ours"] < 30 and abs(rows[row]["after"]["ours"] - 100 * share + 10) < 8
    science = json.loads((RESULTS / "science.json").read_text())
    passed = [r[-1] for r in gates_page.choices(science, found) if "on the chat data" in r[1]]
    assert passed == [False, True, True, True, False]
    assert "(-5.11)" in next(line for line in report.designs_page(found).splitlines() if "No stage 1" in line)


def test_stage_1_stands_beside_its_own_row_and_the_page_says_whether_it_is_told(run):
    found = report.designs_report(run)
    slow, slow_without, short, short_without = found["stage 1"]
    assert [r["row"] for r in (slow, short)] == list(miniature.STAGE_1) and slow["gap"] is short["gap"] is None
    assert slow_without["beside"] == slow["row"] and slow_without["gap"]["ours"] == pytest.approx(-45, abs=8)
    assert short_without["beside"] == short["row"] and short_without["gap"]["interval"] == [0.0, 0.0]
    told = [line for line in report.designs_page(found).splitlines() if line.startswith("- No stage 1")]
    assert len(told) == 3 and [line.endswith("it can be told from none.") for line in told] == [True, True, False]
    assert "beside W at the paper's ratio" in told[1]


def test_w_moves_less_at_the_paper_s_ratio_and_a_short_stage_2_ends_sooner(parts, tmp_path):
    run, moved = Run(tmp_path / "run", SMALL, 1, parts), {}
    miniature.make_data(run)
    study.make_features(run, study.Variant())
    for row in (*miniature.WITHOUT, "No stage 1"):
        learner = study.load_learner(run, 0, miniature.DESIGNS[row], 2)
        before = learner[0].projector.weight.detach().clone()
        study.tune(run, 0, run.home(0, row), learner, miniature.records_of(run, miniature.FULL), miniature.DESIGNS[row])
        moved[row] = (learner[0].projector.weight - before).norm().item()
    slow, short = miniature.WITHOUT
    ratio = SMALL.stage1_lr * miniature.RATIO / SMALL.stage2_lr
    assert moved[slow] < 3 * ratio * moved["No stage 1"] and miniature.RATIO == pytest.approx(0.01)
    steps = [len(read_jsonl(run.home(0, row) / "metrics.jsonl")) for row in ("No stage 1", slow, short)]
    assert steps[0] == steps[1] > 30 and steps[2] == round(steps[0] / 4)
    run.lock.release()


def test_the_table_is_written_with_its_report_and_figure(run):
    text = tables.write_designs(run)
    assert json.loads((run.folder / "report.json").read_text()) == report.designs_report(run)
    assert text == report.designs_page(report.designs_report(run))
    assert Image.open(run.folder / "figures" / "table-8-chat.png").width > 800


def test_a_row_starts_where_its_choice_says_trains_and_answers_every_question(parts, tmp_path):
    run = Run(tmp_path / "run", SMALL, 1, parts)
    miniature.make_data(run)
    for row in ("No stage 1", "Last layer"):
        study.make_features(run, science.VARIANTS[row])
    miniature.learn_choice(run, 0, "No stage 1")  # there is none yet
    (run.folder / science.VARIANTS[BEST].features).unlink()  # so that the other row can read the last layer alone
    with pytest.raises(FileNotFoundError):
        miniature.learn_choice(run, 0, "Last layer")
    study.align(run, 0, science.VARIANTS["Last layer"])
    miniature.learn_choice(run, 0, "Last layer")
    for row in ("Last layer", "No stage 1"):
        home = run.home(0, row)
        asked = read_jsonl(run.folder / "bench" / "exact.jsonl")
        for tag in ("", AFTER, "-shuffled"):
            answers = read_jsonl(home / f"exact{tag}.jsonl")
            assert [(r["image"], r["question"]) for r in answers] == [(q["image"], q["text"]) for q in asked]
        steps = study.steps_of(SMALL, len(miniature.records_of(run, miniature.FULL)))
        assert read_jsonl(home / "metrics.jsonl")[-1]["step"] == steps - 1
    run.lock.release()


def test_the_committed_page_is_made_of_designs_json():
    kept = json.loads((RESULTS / "designs.json").read_text())
    assert len(kept["seeds"]) >= 3 and len(kept["rows"]) == 4
    assert (RESULTS / "designs.md").read_text(encoding="utf-8") == report.designs_page(kept)
    assert figures_judge.designs(kept).axes[0].get_title(loc="left")

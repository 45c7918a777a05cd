"""The whole paper in one run, very small: what it leaves, that it does nothing twice, and goes on after being killed."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_run
import torch
import toy
from filelock import FileLock
from small_run import SMALL

from minillava import cli, paper, scales
from minillava.experiments import miniature, report, science_report, study
from minillava.experiments.miniature import (
    AFTER_ROW,
    CAPTIONER,
    FULL,
    INTERLEAVED,
    ROWS,
    SHUFFLED_ROW,
    UNTUNED,
    records_of,
)
from minillava.experiments.report import difference
from minillava.experiments.run import Job, Run, RunError, slug
from minillava.files import read_checked, read_jsonl, write_checked
from minillava.scales import WEIGHTS

VERDICTS = {"holds", "does not hold", "cannot be told"}


def start(folder, weights, seeds=1):
    command = [sys.executable, small_run.__file__, str(folder), str(weights), str(seeds)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process):
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def contents(folder, *patterns):
    return {str(p.relative_to(folder)): p.read_bytes() for pattern in patterns for p in sorted(folder.glob(pattern))}


def answers(folder):
    return contents(folder, "seed-*/*/answers-*.jsonl", "seed-*/*/exact*.json*", "seed-*/*/reviews-*.jsonl")


def trained(folder):
    return contents(folder, "seed-*/*/metrics.jsonl", "seed-*/stage1/projector.safetensors", "seed-*/*/model/*")


@pytest.fixture(scope="module")
def finished(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "paper"
    finish(start(folder, weights))
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


# what a run leaves


def test_the_report_has_every_figure_beside_its_control_and_the_papers(finished):
    report = json.loads((finished / "report.json").read_text())
    assert report["scale"] == "test" and report["seeds"] == [0] and report["recipe"]["scale"] == asdict(SMALL)
    assert {"cores", "torch", "precision"} <= report["machine"].keys()
    steps = {k: v for k, v in report["seconds"].items() if k != "all"}
    assert list(steps) == ["data", "features", "stage1-0", "stage2-0", "judge"]
    assert report["seconds"]["all"] == pytest.approx(sum(steps.values())) and report["seconds"]["all"] > 0
    kinds = ["existence", "colour", "count", "place", "side", "relation", "odd", "all"]
    keys = ("vqa", "vqa_after", "vqa_blank", "vqa_shuffled", "vqa_text", "vqa_spread")
    assert [list(report[k]) for k in keys] == [kinds] * 6
    assert list(report["vqa_rows"]) == [*ROWS, *miniature.STAND_IN_CONTROLS]
    assert report["vqa_rows"][FULL] == report["vqa"]
    four, five = report["tables"]
    others = [AFTER_ROW, *miniature.CONTROLS]
    places = [f"{CAPTIONER} (in BLIP-2's place)", f"{INTERLEAVED} (in OpenFlamingo's place)"]
    assert [r["row"] for r in four["rows"]] == [*miniature.MIXTURES, UNTUNED, *others, CAPTIONER]
    assert [r["row"] for r in five["rows"]] == [FULL, *places, UNTUNED, *others] and five["bench"] == "wild"
    assert [r["All"]["paper"] for r in five["rows"][1:3]] == [38.1, 19.1]
    assert set(report["pope"]) == {*miniature.POPE_ROWS, *others}
    for row in four["rows"] + five["rows"]:
        assert list(row) == ["row", "Conv", "Detail", "Complex", "All"]
        for cell in list(row.values())[1:]:
            assert cell.keys() == {"ours", "spread", "interval", "paper"} and cell["spread"] is None
            assert cell["interval"][0] <= cell["ours"] <= cell["interval"][1] and cell["ours"] > 0
    theirs = {r["row"]: r["All"]["paper"] for r in four["rows"]}
    assert theirs[FULL] == paper.TABLE_4.value(FULL, "All") and theirs[SHUFFLED_ROW] is theirs[CAPTIONER] is None


def test_every_claim_of_the_paper_has_its_figures_ours_and_a_verdict(finished):
    report = json.loads((finished / "report.json").read_text())
    assert [c["id"] for c in report["claims"]] == [c.id for c in paper.CLAIMS]
    for claim, theirs in zip(report["claims"], paper.CLAIMS, strict=True):
        assert claim["paper"] == theirs.figures and claim["verdict"] in VERDICTS
        verdicts = {t["verdict"] for t in claim["ours"]}
        assert claim["verdict"] != "holds" or verdicts == {"holds"}
        assert claim["ours"] or claim["verdict"] == "cannot be told"


def test_every_claim_is_put_to_the_test_by_one_of_the_two_reports():
    assert sorted([*report.TESTS, *science_report.TESTS]) == sorted(c.id for c in paper.CLAIMS)


def test_the_committed_report_is_made_of_its_json_and_states_the_claims_as_paper_py_does():
    results = WEIGHTS.parent / "results"
    kept = json.loads((results / "report.json").read_text())
    assert len(kept["seeds"]) >= 3 and (results / "report.md").read_text(encoding="utf-8") == report.markdown(kept)
    told = {c["statement"]: c["verdict"] for c in kept["claims"] if c["ours"]}
    assert [c["statement"] for c in kept["claims"]] == [c.statement for c in paper.CLAIMS]
    page = (results / "README.md").read_text(encoding="utf-8")
    assert report.text_of(kept) in page and "holds" in told.values()
    scores = {}  # row -> its score over all questions in Table 4
    for line in report.markdown(kept).split("(Table 5)")[0].splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            scores[cells[0]] = cells[-1]
    readme = (WEIGHTS.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| ([^|]+) \| (\d[\d.]+ ± [^|]+) \|$", readme, re.MULTILINE)
    assert len(shown) == 7 and all(scores[row] == score for row, score in shown)


def test_files_are_in_the_papers_formats_and_the_readable_report_has_every_claim(finished):
    for row in ROWS:
        for bench in ("coco", "wild"):
            asked = read_jsonl(finished / "bench" / bench / "questions.jsonl")
            rows = read_jsonl(finished / "seed-0" / slug(row) / f"answers-{bench}.jsonl")
            assert [r["question_id"] for r in rows] == [q["question_id"] for q in asked]
            assert rows[0].keys() == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
    names = {p.name for p in (finished / "seed-0" / slug(FULL)).iterdir()}
    assert {"answers-coco-shuffled.jsonl", "exact-blank.json", "exact-shuffled.json", "model", "done"} <= names
    for row in (CAPTIONER, INTERLEAVED):
        names = {p.name for p in (finished / "seed-0" / slug(row)).glob("*-*.json*")}
        assert {"exact-blank.json", "exact-shuffled.json"} <= names and "exact-text.json" not in names
    said = (finished / "report.md").read_text()
    assert all(c.statement in said for c in paper.CLAIMS) and "nan" not in said
    assert not list(finished.rglob("*.part"))


def test_rows_are_trained_on_their_share_of_the_records(finished):
    run = SimpleNamespace(folder=finished, scale=SMALL)
    counts = {row: len(records_of(run, row)) for row in ROWS}
    assert counts == {
        "Full data": 4 * 24 + 40,  # two questions of a conversation's eight in each record
        "Detail + Complex": 40,
        "Conv + 5% Detail + 10% Complex": 4 * 24 + 1 + 2,
        "Conversation": 4 * 24,
        UNTUNED: 0,
        CAPTIONER: 32,
        INTERLEAVED: 32 // 3,
    }
    assert not (finished / "seed-0" / slug(UNTUNED) / "checkpoints").exists()
    for row in (*miniature.MIXTURES, CAPTIONER, INTERLEAVED):
        assert len(read_jsonl(finished / "seed-0" / slug(row) / "metrics.jsonl")) == counts[row] // 4
        assert answers(finished)[f"seed-0/{slug(row)}/answers-coco.jsonl"]


def test_interleaved_records_hold_the_captioner_s_pictures_and_captions_in_order_without_questions(finished):
    run, shown, told = SimpleNamespace(folder=finished, scale=SMALL), [], []
    for record in records_of(run, INTERLEAVED):
        values = [turn["value"] for turn in record["conversations"]]
        assert values[::2] == ["<image>"] * 3
        shown, told = shown + record["image"], told + values[1::2]
    pairs = records_of(run, CAPTIONER)[: len(shown)]
    assert shown == [r["image"] for r in pairs] and told == [r["conversations"][1]["value"] for r in pairs]


def test_a_row_that_answers_often_starts_before_one_that_only_trains_longer():
    assert len(miniature.conditions_of(FULL)) == 5 and miniature.conditions_of("Conversation") == ("",)
    few, many = (Job(Path(), steps, print, asks) for steps, asks in ((90, 1), (10, 4)))
    assert many.size > few.size and not Job(Path(), 10, print).size > few.size


def test_every_question_stands_behind_two_answered_ones_each_with_its_picture(finished, weights, monkeypatch):
    run, prompted = Run(finished, SMALL, 1, weights), []

    def note(model, tokenizer, template, prompts, pictures, most):
        prompted.extend(zip(prompts, pictures))
        return [""] * len(prompts)

    learner, asked = study.load_learner(run, 0, study.Variant(), 2), read_jsonl(finished / "bench" / "exact.jsonl")
    run.lock.release()
    monkeypatch.setattr(miniature, "answer_segments", note)
    miniature.ask(run, learner, INTERLEAVED, "-blank", "exact.jsonl", 8)
    records = {r["image"]: r for r in miniature.read_records(finished / "records" / "conversation.json")}
    examples, features = set(), learner[2]
    for question, (prompt, pictures) in zip(asked, prompted, strict=True):
        text = "".join(part for part, _ in prompt)
        assert text.count("<image>") == len(pictures) == 3 and text.endswith("Assistant: ")
        assert text.rsplit("Human: ", 1)[1] == f"<image>\n{question['text']}###\nAssistant: "
        assert torch.equal(pictures[2], features["blank.png"])
        names = [n for z in pictures[:2] for n in records if torch.equal(z, features[n])]
        turns = [turn["value"] for n in names for turn in records[n]["conversations"][:2]]
        places = [text.index(turn) for turn in turns]
        assert len(names) == 2 and places == sorted(places)  # an example's picture goes with its question and answer
        examples.add(tuple(names))
    assert len(examples) == -(-len(asked) // miniature.SHARED) > 1  # not always the same two


def test_the_other_order_puts_the_picture_behind_the_question(finished, weights, monkeypatch):
    from minillava.judging import answers as judging

    run, prompted = Run(finished, SMALL, 1, weights), []
    learner = study.load_learner(run, 0, study.Variant(), 2)
    run.lock.release()
    monkeypatch.setattr(judging, "answer_segments", lambda *a: prompted.extend(a[3:5]) or [""] * len(a[3]))
    rows, _ = miniature.ask(run, learner, FULL, miniature.OTHER_ORDER, "exact.jsonl", 8)
    for row, prompt, (picture,) in zip(rows, *prompted, strict=True):
        assert f"{row['text']}\n<image>" in "".join(text for text, _ in prompt)
        assert torch.equal(picture, learner[2][row["image"]])


@pytest.mark.parametrize("shift, verdict", [(3.0, "holds"), (-3.0, "does not hold"), (0.0, "cannot be told")])
def test_a_verdict_follows_from_the_interval_of_the_difference(copied, weights, shift, verdict):
    """Reviews made by hand: the better row's scores are the worse one's, shifted, with some noise."""
    for row, add in ((FULL, shift), ("Conversation", 0.0)):
        path = copied / "seed-0" / slug(row) / "reviews-coco.jsonl"
        rows = [dict(category="conv", tuple=[8.0, 5 + add + 0.3 * ((n * 7 + len(row)) % 5 - 2)]) for n in range(60)]
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    run = Run(copied, SMALL, 1, weights)
    found = difference(run, "coco", "All", FULL, "Conversation")
    assert found["verdict"] == verdict and found["interval"][0] <= found["ours"] <= found["interval"][1]


# done once, and gone on with


def test_a_second_call_does_nothing_again_and_reports_the_same(copied, weights):
    before = {p: p.stat().st_mtime_ns for p in copied.rglob("*") if p.is_file() and p.name != ".lock"}
    report = (copied / "report.json").read_bytes()
    assert finish(start(copied, weights)).count(": done before") == 5
    assert (copied / "report.json").read_bytes() == report
    touched = {p.name for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert touched <= {"report.json", "report.md"}


def test_a_run_killed_again_and_again_ends_with_the_same_weights_and_answers_and_leaves_no_process(
    finished, weights, tmp_path
):
    base = tmp_path / "paper" / "seed-0"
    moments = {
        "in stage 1": lambda: any((base / "stage1" / "checkpoints").glob("step-*")),
        "in stage 2": lambda: any(p.read_bytes().count(b"\n") > 2 for p in base.glob("*-*/metrics.jsonl")),
        "when one worker has nothing left to do": lambda: len(list(base.glob("*/done"))) >= len(ROWS) - 1,
    }
    for moment, reached in moments.items():
        process = start(tmp_path / "paper", weights)
        while not reached():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.005)
        process.kill()
        process.communicate(timeout=20)  # the pipe closes when the last worker has gone
        assert process.returncode < 0, f"not killed {moment}"
    said = finish(start(tmp_path / "paper", weights))
    assert said.count(": done before") == 3
    assert answers(tmp_path / "paper") == answers(finished) and trained(tmp_path / "paper") == trained(finished)
    stripped = [{**json.loads((f / "report.json").read_text()), "seconds": 0} for f in (tmp_path / "paper", finished)]
    assert stripped[0] == stripped[1]


def test_another_seed_can_be_added_to_a_finished_run(copied, weights):
    before = answers(copied)
    said = finish(start(copied, weights, seeds=2))
    assert said.count(": done before") == 4
    after = answers(copied)
    assert {k: v for k, v in after.items() if k.startswith("seed-0")} == before
    assert {k.replace("seed-1", "seed-0") for k in after} == before.keys() and len(after) == 2 * len(before)
    report = json.loads((copied / "report.json").read_text())
    assert report["seeds"] == [0, 1] and "stage2-1" in report["seconds"]
    cells = [row[c] for table in report["tables"] for row in table["rows"] for c in ("Conv", "All")]
    assert all(cell["spread"] is not None for cell in cells) and report["vqa_spread"]["all"] is not None


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent otherwise on Windows")
@pytest.mark.usefixtures("heeded")
def test_ctrl_c_stops_run_and_workers_soon_and_quietly(weights, tmp_path):
    import signal

    process, base = start(tmp_path / "paper", weights), tmp_path / "paper" / "seed-0"
    while not any(p.read_bytes().count(b"\n") > 2 for p in base.glob("*-*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the run and to its workers
    said, _ = process.communicate(timeout=60)
    assert said.count("Traceback") == 1 and "KeyboardInterrupt" in said  # the script's own: the command catches it
    assert len(list(base.glob("*/done"))) < len(ROWS)


def test_what_a_step_took_is_counted_over_interruptions(weights, tmp_path):
    for _ in range(2):  # the second time it resumes
        with Run(tmp_path / "run", SMALL, 1, weights) as run:
            with pytest.raises(OSError, match="full"):
                run.do("data", "Data", lambda: time.sleep(0.1) or (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
            assert "data" not in run.state["seconds"]
    with Run(tmp_path / "run", SMALL, 1, weights) as run:
        assert 0.2 <= run.state["interrupted"]["data"] < 60
        run.do("data", "Data", lambda: None)
        assert 0.2 <= run.state["seconds"]["data"] < 60 and not run.state["interrupted"]
    assert read_checked(run.folder / "state.json") == run.state


def test_a_run_resumes_after_a_full_disk_also_where_its_state_could_not_be_written(weights, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    with Run(tmp_path / "run", SMALL, 1, weights) as run:
        run.do("data", "Data", lambda: None)
    for _ in range(2):
        with monkeypatch.context() as patch, Run(tmp_path / "run", SMALL, 1, weights) as run:
            patch.setattr(Path, "write_text", full)
            with pytest.raises(OSError, match="full"):
                run.do("features", "Features", full)
    done = []
    with Run(tmp_path / "run", SMALL, 1, weights) as run:
        for name in ("data", "features"):
            run.do(name, name, lambda name=name: done.append(name))
    assert done == ["features"] and list(read_checked(run.folder / "state.json")["seconds"]) == ["data", "features"]


@pytest.mark.parametrize("harm", [*toy.HARMS, lambda path: path.write_text('{"seconds": 3, "interrupted": null}')])
def test_a_damaged_state_is_named_and_without_it_the_run_resumes(weights, tmp_path, harm):
    with Run(tmp_path / "run", SMALL, 1, weights) as run:
        run.do("data", "Data", lambda: None)
    harm(run.folder / "state.json")
    with pytest.raises(RunError, match="state.json: not .*; remove it, and the same command resumes"):
        Run(tmp_path / "run", SMALL, 1, weights)
    (run.folder / "state.json").unlink()
    with Run(tmp_path / "run", SMALL, 1, weights) as run:
        run.do("data", "Data", lambda: None)


def test_a_damaged_w_of_stage_1_starts_no_row_and_is_made_again(copied, weights):
    home = copied / "seed-0" / "stage1"
    before = (home / "projector.safetensors").read_bytes()
    toy.flip(home / "projector.safetensors")
    with Run(copied, SMALL, 1, weights) as run:
        with pytest.raises(RunError, match=r"projector.safetensors: not as it was written; remove .*stage1.done"):
            study.load_learner(run, 0, study.Variant(), 2)
        (home / "done").unlink()
        with pytest.raises(RunError, match="not as it was written"):
            study.load_learner(run, 0, study.Variant(), 2)
        study.align(run, 0, study.Variant())
        study.load_learner(run, 0, study.Variant(), 2)
    assert (home / "projector.safetensors").read_bytes() == before


def test_a_step_is_done_once_and_again_while_a_file_of_it_is_missing(weights, tmp_path):
    times = []
    with Run(tmp_path / "run", SMALL, 1, weights) as run:
        for _ in range(2):
            run.do("data", "Data", lambda: times.append(0), [run.folder / "made"])
        (run.folder / "made").touch()
        run.do("data", "Data", lambda: times.append(0), [run.folder / "made"])
    assert len(times) == 2


# what cannot be run


def test_another_recipe_in_the_folder_is_refused_and_nothing_is_changed(copied, weights):
    before = contents(copied, "*.json", "seed-0/*/*.jsonl")
    for scale in (replace(SMALL, stage2_lr=1e-2), scales.SMOKE):
        with pytest.raises(RunError, match=r"holds a run of another recipe; remove it \(rm -r .*\) or name another"):
            miniature.run_paper(copied, scale, 1, weights)
    assert contents(copied, "*.json", "seed-0/*/*.jsonl") == before


def test_other_weights_are_another_recipe(copied, weights, tmp_path):
    other = shutil.copytree(weights, tmp_path / "weights")
    data = bytearray((other / "language_model" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "language_model" / "model.safetensors").write_bytes(data)
    with pytest.raises(RunError, match="another recipe"):
        Run(copied, SMALL, 1, other)


def test_a_file_a_folder_at_work_and_missing_weights_are_named(weights, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is a file; name a folder with --out"):
        Run(tmp_path / "file", SMALL, 1, weights)
    (tmp_path / "busy").mkdir()
    with FileLock(tmp_path / "busy" / ".lock"):
        with pytest.raises(RunError, match="busy: another run is at work in this folder"):
            Run(tmp_path / "busy", SMALL, 1, weights)
    shutil.copytree(weights / "vision_tower", tmp_path / "half" / "vision_tower")
    with pytest.raises(RunError, match="language_model: no weights here; `make weights` trains them"):
        Run(tmp_path / "new", SMALL, 1, tmp_path / "half")
    assert not (tmp_path / "new").exists()


def test_a_folder_is_free_again_after_a_run_also_one_that_failed(copied, weights, monkeypatch):
    held = miniature.run_paper(copied, SMALL, 1, weights)  # still referred to, as in a notebook's cell
    monkeypatch.setattr(miniature, "run_judge", lambda run: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    next(copied.glob("seed-0/*/reviews-coco.jsonl")).unlink()
    with pytest.raises(OSError, match="full") as error:
        miniature.run_paper(copied, SMALL, 1, weights)
    monkeypatch.undo()
    again = miniature.run_paper(copied, SMALL, 1, weights)
    assert error and again.state["recipe"] == held.state["recipe"]


def test_a_row_that_fails_is_the_error_of_the_run(copied, weights):
    row = copied / "seed-0" / slug("Conversation")
    (row / "done").unlink()
    shutil.rmtree(row / "checkpoints")
    shutil.copytree(copied / "seed-0" / slug(FULL) / "checkpoints", row / "checkpoints")  # of another recipe
    state = read_checked(copied / "state.json")
    del state["seconds"]["stage2-0"]
    write_checked(copied / "state.json", state)
    process = start(copied, weights)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and f"{slug('Conversation')}: holds a half-finished run of another recipe" in said


# the command


def test_the_command_prints_the_tables_draws_figures_and_lets_the_new_model_speak(copied, weights, monkeypatch, capsys):
    monkeypatch.setitem(scales.PICTURE_BOOK_SCALES, "test", SMALL)
    run_paper = miniature.run_paper
    monkeypatch.setattr(miniature, "run_paper", lambda *a: run_paper(*a, weights))
    assert cli.main(["paper", "--scale", "test", "--out", str(copied)]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in ("Table 4 in miniature", "picture shuffled", "Assistant:", FULL, SHUFFLED_ROW))
    figures = {p.name for p in (copied / "figures").iterdir()}
    assert figures == {"table-4.png", "table-5.png", "questions.png", "loss.png", "unseen.png"}
    for name in figures - {"unseen.png"}:
        assert f"figures/{name}" in (copied / "report.md").read_text()

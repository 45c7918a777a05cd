"""The run on a GPU that shows that a real language model sees: at mock size it takes every way that the real one takes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minillava.curves import read_curve
from minillava.data.tokenizer import load_tokenizer
from minillava.judging.answers import vision_features
from minillava.model.formats.assemble import assemble
from minillava.scales import WEIGHTS
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw, topmost_things
from minillava.scenes.world import COLOURS
from minillava.training.features import Features

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_seen  # noqa: E402
import gpu_seen_parts as parts  # noqa: E402

sys.path.pop(0)
ABSENT = ["datasets", "openai", "jupyter", "nbval", "pytest", "hypothesis", "matplotlib"]  # from a bare machine


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder of a run at mock size, its results, and its command."""
    out = tmp_path_factory.mktemp("seen")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_seen.py"), "--dry", "--out", str(out / "out")]
    done = subprocess.run([*command, "--json", str(out / "all.json")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return out / "out", json.loads((out / "all.json").read_text()), command


def test_it_is_imported_on_a_bare_machine():
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); sys.path.insert(0, 'benchmarks'); import gpu_seen"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_model_is_trained_and_asked_with_its_controls(ran):
    out, results, _ = ran
    jobs = [("smol", 0), ("smol", 1), ("smol", 2), ("whole", 0), ("turns", 0), ("book", 0)]
    assert [(r["job"], r["seed"]) for r in results["results"]] == jobs
    for r in results["results"]:
        assert r["done"] and set(r["sight"]) == {"first", "after"} and len(r["examples"]) == 20
        assert all(set(looks) == {"picture", "blank", "shuffled"} for looks in r["sight"].values())
        assert ("start" in r) == (r["job"] == "smol") != ("stage 1" in r)  # least squares in the place of stage 1
        for stage, steps in list(zip((1, 2), results["steps"][r["job"]]))["start" in r :]:
            lines = (out / f"{r['job']}-{r['seed']}" / f"stage{stage}" / "metrics.jsonl").read_text().splitlines()
            assert len(lines) == r[f"stage {stage}"]["steps"] == steps
    smol, book = results["results"][0], results["results"][-1]
    assert {"before", "after, own template", "after, our template"} == set(smol["knowledge"]) and "quiz" in smol
    assert set(book["relative"]) == {"relative score", "relative score, shuffled"}
    assert (out / "book-0" / "model" / "model.safetensors").exists() and read_curve("smol-stage2", out).seeds == 3
    assert (out / "projector.safetensors").exists()


def test_a_model_that_is_done_is_not_trained_again(ran):
    out, results, command = ran
    stamp = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")}
    path = out / "smol-1" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"done": False}))
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    again = {path.parent.parent.name for path, time in stamp.items() if path.stat().st_mtime_ns != time}
    assert again == {"smol-1"} and json.loads(path.read_text())["done"]
    assert json.loads((out / "plan.json").read_text())["steps"] == results["steps"]


def test_a_run_of_another_recipe_is_refused(ran):
    out, _, command = ran
    done = subprocess.run([*command[:2], "--language-model", "X", "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 2 and "another recipe" in done.stderr


def test_a_conversation_is_cut_into_records_that_hold_all_of_it():
    scene, recipe = compose("train", 3), gpu_seen.TURNS
    records = {number: parts.records_of(scene, recipe, number) for number in (0, 1)}

    def texts(some):
        turns = [turn["value"] for record in some for turn in record["conversations"]]
        return sorted(text.replace("<image>", "").strip() for text in turns)

    some = {
        number: [r for r in found if "-complex" not in r["id"] and "-detail" not in r["id"]]
        for number, found in records.items()
    }
    assert len(some[0]) == 1 and len(some[1]) == 4 and texts(some[0]) == texts(some[1])
    assert len(records[0]) == 3 and len(records[1]) == 5  # every second picture has a detailed description
    for record in some[1]:
        values = [turn["value"] for turn in record["conversations"]]
        assert "<image>" in values[0] and "<image>" not in "".join(values[1:])
    assert len({record["id"] for record in records[1]}) == 5


def test_single_questions_stand_before_and_after_their_picture():
    recipe = replace(gpu_seen.BOOK, questions=4, every=(10**9,) * 3)
    texts = [record["conversations"][0]["value"] for n in range(1, 201)
             for record in parts.records_of(compose("train", n), recipe, n)]  # fmt: skip
    first = sum(text.startswith("<image>") for text in texts) / len(texts)
    assert len(texts) == 800 and 0.2 < first < 0.3 and all(text.count("<image>") == 1 for text in texts)


def test_w_starts_where_the_words_are(tmp_path):
    """Patches of a red thing come nearer to the word red than those of things in other colours."""
    recipe = replace(gpu_seen.SMOL, boxes=150)
    model, tokenizer = (
        assemble(parts.VISION_TOWER, WEIGHTS / "language_model", 0).eval(),
        load_tokenizer(WEIGHTS / "language_model"),
    )
    some = [compose("train", n) for n in range(recipe.boxes)]
    values = vision_features(model, parts.preparation(), [draw(s, parts.SIZE) for s in some])
    features = Features({f"{s.id}.png": n for n, s in enumerate(some)}, values)
    parts.start_by_least_squares(model, tokenizer, recipe, features)
    words = {c: model.language_model.embed(torch.tensor(tokenizer(f" {c}").input_ids)).mean(0) for c in COLOURS}
    hits = []
    for scene, Zv in zip(some, values):
        shown = torch.tensor(topmost_things(scene, round(len(Zv) ** 0.5)))
        for i, thing in enumerate(scene.things):
            if thing.colour and (shown == i).any():
                mean = model.projector(Zv[shown == i]).mean(0)
                near = max(COLOURS, key=lambda c: torch.cosine_similarity(mean, words[c], 0).item())
                hits.append(near == thing.colour)
    assert sum(hits) / len(hits) > 0.5  # by chance 0.1


def test_the_time_decides_the_steps_by_the_slowest_seed_that_is_alive():
    recipe = replace(gpu_seen.SMOL, share=(0.125, 0.5))
    jobs = [gpu_seen.Job("smol", seed, recipe, Path(), Path()) for seed in (0, 1, 2)]
    board = [2.0, 0.1, 0.1, 2.0, 0.1, 0.2, 0.0, 9.0, 9.0]
    (one, two) = gpu_seen.plan_steps(jobs, board, 100.0)["smol"]
    assert (one, two) == (120, 250)
    assert gpu_seen.plan_steps(jobs, board, 1e9)["smol"] == list(gpu_seen.SMOL.most)


def test_a_trials_first_steps_do_not_count(monkeypatch):
    clock = iter([0, 5, 9, 9.2, 9.4, 9.5, 9.7, 12.7])  # the first are slow, and one later
    monkeypatch.setattr(gpu_seen.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(gpu_seen.Job, "train", lambda *_, progress: [progress(n, 8, 1.0) for n in range(8)])
    job = gpu_seen.Job("smol", 0, gpu_seen.SMOL, Path(), Path())
    assert job.timed(None, 1, [], None, Path(), 8) == pytest.approx(0.2)


def test_gates_pass_and_fail():
    good = dict.fromkeys(parts.KINDS, 90.0)
    chance = {kind: 100 / parts.ANSWER_COUNTS[kind] for kind in parts.KINDS}
    before = [{"right": True}] * 4
    looks = {"picture": good, "blank": chance, "shuffled": chance}
    result = {"sight": {"first": looks, "after": looks | {"shuffled": good}}, "quiz": {"right": 70.0}}
    result["knowledge"] = {"before": before, "after, own template": [*before[:1], *[{"right": False}] * 3]}
    failed = {row["gate"] for row in parts.gates_of(result, gpu_seen.SMOL) if not row["passed"]}
    other = {f"{kind}, picture after, shuffled" for kind in parts.KINDS}
    assert failed == other | {"quiz", "lost after, own template"}

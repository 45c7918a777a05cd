"""Table 8's design choices asked of the chat data: the vision tower's layer, stage 1, the language model's size, at matched steps.

Notable: the paper asks them of ScienceQA (`science.py`), where here the letter is lost behind right reasons. So each choice is
made once more in stage 2 of the full data, and exact-match questions about held-out pictures are put to each model; the same
models with the pictures exchanged stand beside them. Answer first is a question of ScienceQA's form alone, so it has no row.

    minillava paper --table 8                                          # runs it behind the quiz
    python -m minillava.experiments.designs runs/paper/designs data_samples/results    # the committed page of a finished run
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from minillava import paper, scales
from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.experiments import miniature, science
from minillava.experiments.miniature import FULL, records_of, slug, steps_of
from minillava.experiments.run import Run
from minillava.experiments.science import ANSWER_FIRST, BEST, VARIANTS
from minillava.experiments.science_report import accuracy, cell, over
from minillava.experiments.workers import side_by_side, still_wanted
from minillava.figures import tables as figures_judge
from minillava.files import read_jsonl, write_jsonl
from minillava.judging.answers import CONDITIONS, answer
from minillava.judging.scores import paired_difference
from minillava.machine import describe_machine
from minillava.scales import WEIGHTS, Scale
from minillava.scenes.questions import EXACT_KINDS, Question, is_correct
from minillava.text import aligned
from minillava.training.stages import train_stage

SHOWN = ("", "-shuffled")  # the pictures, and the control


def choices(weights: Path) -> dict[str, science.Variant]:
    """The rows of Table 8 that are choices of design and can be trained from these weights."""
    return {row: v for row, v in science.variants(weights).items() if row != ANSWER_FIRST}


def asked_of(folder: Path) -> list[tuple[str, Question]]:
    """The exact-match questions of the run, each with its picture."""
    return [(row.pop("image"), Question(**row)) for row in read_jsonl(folder / "bench" / "exact.jsonl")]


def run_choice(folder: Path, weights: Path, scale: Scale, seed: int, row: str) -> None:
    """Stage 2 of one row on the full data, then its answers. Runs in a process of its own."""
    torch.set_num_threads(1)
    variant, home = VARIANTS[row], folder / f"seed-{seed}" / slug(row)
    model, tokenizer, features = science.parts(folder, weights, variant, seed)
    if variant.stage1:
        model.projector.load_state_dict(load_file(home.parent / variant.start / "projector.safetensors"))
    home.mkdir(parents=True, exist_ok=True)
    samples = [encode(record, CHAT, tokenizer) for record in records_of(folder, FULL, scale)]
    train_stage(model, 2, samples, features, home, batch_size=scale.stage2_batch, steps=steps_of(folder, FULL, scale),
                lr=scale.stage2_lr, lr_muon=scale.stage2_lr_muon, seed=seed, progress=still_wanted)  # fmt: skip
    model.eval()
    questions = asked_of(folder)
    for tag in SHOWN:
        still_wanted()
        names = CONDITIONS[tag]([image for image, _ in questions])
        texts = answer(model, tokenizer, CHAT, [(q.text, features[n]) for n, (_, q) in zip(names, questions)], 40)
        rows = [{"image": i, "question": q.text, "kind": q.kind, "answer": t, "right": is_correct(q, t)} for (i, q), t in zip(questions, texts)]  # fmt: skip
        write_jsonl(rows, home / f"exact{tag}.jsonl")
    (home / "done").touch()


def run_seed(run: Run, seed: int) -> None:
    """Every stage 1 that is needed, then every row, as many at a time as there are cores."""
    found, base = choices(run.weights), run.folder / f"seed-{seed}"
    starts = {v.start: v for v in found.values() if v.stage1}
    arguments = (run.folder, run.weights, run.scale, seed)
    once, steps = run.scale.pairs // run.scale.stage1_batch, steps_of(run.folder, FULL, run.scale)
    pairs = run.folder / "records" / "caption.json"
    side_by_side({base / s: (science.run_stage1, *arguments, v, pairs) for s, v in starts.items()}, {base / s: once for s in starts})  # fmt: skip
    homes = {row: base / slug(row) for row in found}
    side_by_side({h: (run_choice, *arguments, row) for row, h in homes.items()}, dict.fromkeys(homes.values(), steps))


def run_designs(folder: Path, scale: Scale, seeds: int, weights: Path = WEIGHTS) -> Run:
    """All of it. Raises RunError for a folder that cannot be used."""
    run = Run(folder, scale, seeds, weights)
    try:
        run.do("data", f"Table 8 on the chat data: {scale.pictures:,} pictures", lambda: miniature.make_data(run))
        what = "Section 4.1: the frozen vision tower looks at every picture once a layer"
        run.do("features", what, lambda: science.make_features(run))
        for seed in run.seeds:
            what = f"Section 4.2 (seed {seed}): {len(choices(run.weights))} models, one choice changed in each, learn and answer"
            run.do(f"designs-{seed}", what, partial(run_seed, run, seed))
    finally:
        run.lock.release()
    return run


def designs_report(run: Run) -> dict:
    """Each row's accuracy by kind of question with its control, the difference to the best, as one JSON value."""
    read = lambda row, seed, tag="": read_jsonl(run.folder / f"seed-{seed}" / slug(row) / f"exact{tag}.jsonl")  # noqa: E731
    share = lambda rows, kind=None: accuracy([r["right"] for r in rows if kind in (None, r["kind"])])  # noqa: E731
    kinds = [k for k in EXACT_KINDS if any(r["kind"] == k for r in read(BEST, 0))]
    out = []
    for row in choices(run.weights):
        answers = [read(row, seed) for seed in run.seeds]
        ours = {kind: over([share(rows, kind) for rows in answers]) for kind in kinds}
        pairs = [tuple([r["right"] for r in read(name, s)] for name in (row, BEST)) for s in run.seeds]
        out.append({
            "row": row, "ours": ours | {"all": over([share(rows) for rows in answers])},
            "shuffled": over([share(read(row, seed, "-shuffled")) for seed in run.seeds]),
            "gap": paired_difference(pairs, accuracy) if row != BEST else None,
        })  # fmt: skip
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "machine": describe_machine(),
        "steps": steps_of(run.folder, FULL, run.scale), "questions": len(read(BEST, 0)), "rows": out,
    }  # fmt: skip


def lines_of(report: dict) -> list[list[str]]:
    """The table as rows of text: all questions with the control and the difference, then each kind."""
    kinds = [k for k in report["rows"][0]["ours"] if k != "all"]
    out = [["", "all", "pictures shuffled", "difference to the best (the paper's, on ScienceQA)", *kinds]]
    for r in report["rows"]:
        gap = "-"
        if r["gap"]:
            gap = "{:+.1f} [{:+.1f}, {:+.1f}]".format(r["gap"]["ours"], *r["gap"]["interval"])
            gap += f" ({paper.TABLE_8.delta(r['row'], 'Avg'):+})"
        out.append([r["row"], cell(r["ours"]["all"], None), cell(r["shuffled"], None), gap, *(f"{r['ours'][k]['ours']:.1f}" for k in kinds)])  # fmt: skip
    return out


def heading(report: dict) -> str:
    return f"{report['questions']} exact-match questions about held-out pictures, % right, after {report['steps']} steps of stage 2, {len(report['seeds'])} seeds"


def text_of(report: dict) -> str:
    """The table for a terminal."""
    return "\n".join(["Table 8's choices on the chat data", heading(report), "", aligned(lines_of(report))])


def markdown(report: dict) -> str:
    """The page for reading; its picture is beside it in figures/."""
    head, *rows = lines_of(report)
    lines = ["# Table 8's design choices on the chat data", "", f"{heading(report)}. One choice differs in each row; everything else, the steps too, is the same.", ""]  # fmt: skip
    lines += [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]
    lines += ["", "± is the standard deviation over seeds; in square brackets the 95 % interval of the difference over questions, drawn in pairs, all seeds. `7B` is the smaller language model in the place of the paper's.", "", "![Table 8 on the chat data](figures/table-8-chat.png)"]  # fmt: skip
    return "\n".join(lines) + "\n"


def publish(folder: Path, results: Path) -> dict:
    """designs.json, designs.md and figures/table-8-chat.png in `results`, from a finished run's folder. Raises RunError."""
    state = json.loads((folder / "state.json").read_text())
    seeds = sum(name.startswith("designs-") for name in state["seconds"])
    run = Run(folder, scales.picture_book_scale(state["recipe"]["scale"]["name"]), seeds)
    try:
        report = designs_report(run)
    finally:
        run.lock.release()
    figures_judge.designs(report).savefig(results / "figures" / "table-8-chat.png")
    (results / "designs.json").write_text(json.dumps(report, indent=1) + "\n")
    (results / "designs.md").write_text(markdown(report), encoding="utf-8")
    return report


if __name__ == "__main__":
    print(text_of(publish(*map(Path, sys.argv[1:3]))))

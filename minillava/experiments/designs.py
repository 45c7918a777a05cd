"""Table 8's design choices asked of the chat data: the vision tower's layer, stage 1, the language model's size.

Notable: the paper asks them of ScienceQA (`science.py`), where here the letter is lost behind right reasons. So each
choice is made once more in stage 2 of the full data, with equally many steps. Exact-match questions about held-out
pictures are put to each model, and once more with the pictures exchanged. Answer first is a choice of ScienceQA's form
alone, so it has no row.

    minillava paper --table 8    # runs it after the quiz
"""

from functools import partial
from pathlib import Path

from minillava import paper
from minillava.experiments import miniature, study
from minillava.experiments.cells import accuracy, cell, over, signed
from minillava.experiments.run import Run
from minillava.experiments.science import ANSWER_FIRST, BEST, VARIANTS
from minillava.experiments.workers import still_wanted
from minillava.files import read_jsonl
from minillava.judging.scores import paired_difference
from minillava.machine import describe_machine
from minillava.scales import WEIGHTS, Scale
from minillava.scenes.questions import EXACT_KINDS
from minillava.text import markdown_table

ASKED = ("", "-shuffled")  # with the pictures, and the control
CHOICES = {row: variant for row, variant in VARIANTS.items() if row != ANSWER_FIRST}


def learn_row(run: Run, seed: int, row: str) -> None:
    """Stage 2 of one row on the full data, then its answers."""
    home, learner = run.home(seed, row), study.load_learner(run, seed, VARIANTS[row], 2)
    study.tune(run, seed, home, learner, miniature.records_of(run, miniature.FULL))
    learner[0].eval()
    for control in ASKED:
        still_wanted()
        miniature.answer_exact(run, learner, control, home)


def run_designs(folder: Path, scale: Scale, seeds: int, weights: Path = WEIGHTS) -> Run:
    """All of it. Raises RunError for a folder that cannot be used."""
    with Run(folder, scale, seeds, weights) as run:
        run.do("data", f"Table 8 on the chat data: {scale.pictures:,} pictures", partial(miniature.make_data, run))
        study.train_rows(run, CHOICES, dict.fromkeys(CHOICES, steps_of(run)), learn_row)
    return run


def steps_of(run: Run) -> int:
    """The steps of each row's stage 2."""
    return study.steps_of(run.scale, len(miniature.records_of(run, miniature.FULL)))


def designs_report(run: Run) -> dict:
    """Each row's accuracy by kind of question with its control, the difference to the best, as one JSON value."""

    def answers(row, control=""):
        return [read_jsonl(run.home(seed, row) / f"exact{control}.jsonl") for seed in run.seeds]

    def right(some, kinds=EXACT_KINDS):
        return [r["right"] for r in some if r["kind"] in kinds]

    best, out = answers(BEST), []
    for row in CHOICES:
        own = answers(row)
        kinds = [kind for kind in EXACT_KINDS if right(own[0], [kind])]
        ours = {kind: over([accuracy(right(some, [kind])) for some in own]) for kind in kinds}
        ours["all"] = over([accuracy(right(some)) for some in own])
        shuffled = over([accuracy(right(some)) for some in answers(row, "-shuffled")])
        gap = paired_difference([(right(a), right(b)) for a, b in zip(own, best)], accuracy) if row != BEST else None
        out.append({"row": row, "ours": ours, "shuffled": shuffled, "gap": gap})
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "machine": describe_machine(),
        "steps": steps_of(run), "questions": len(best[0]), "rows": out,
    }  # fmt: skip


def markdown(report: dict) -> str:
    """Its page: all questions with the control and the difference, then each kind."""
    kinds = [kind for kind in report["rows"][0]["ours"] if kind != "all"]
    rows = [["", "all", "pictures shuffled", "difference to the best (the paper's, on ScienceQA)", *kinds]]
    for r in report["rows"]:
        gap = f"{signed(r['gap'])} ({paper.TABLE_8.delta(r['row'], 'Avg'):+})" if r["gap"] else "-"
        by_kind = [f"{r['ours'][kind]['ours']:.1f}" for kind in kinds]
        rows.append([r["row"], cell(r["ours"]["all"]), cell(r["shuffled"]), gap, *by_kind])
    parts = [
        "# Table 8's design choices on the chat data",
        f"{report['questions']} exact-match questions about held-out pictures, % right, after {report['steps']} steps "
        f"of stage 2, {len(report['seeds'])} seeds. One choice differs in each row; everything else, the steps too, is "
        "the same.",
        markdown_table(rows),
        "± is the standard deviation over seeds; in square brackets the 95 % interval of the difference over "
        "questions, drawn in pairs, all seeds. `7B` is the smaller language model in the place of the paper's.",
        "![Table 8 on the chat data](figures/table-8-chat.png)",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"

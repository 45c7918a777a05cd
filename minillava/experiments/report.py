"""Tables 4 and 5 in miniature beside the paper's, the controls, the claims and their verdicts: report.json, report.md.

Notable: nothing here is a constant. Every figure of ours is computed from reviews and answers on disk, every figure of
the paper comes from `paper.py`. A claim "holds" only when the 95 % interval of the difference, over questions resampled
in pairs and all seeds, is above zero and every seed agrees; otherwise it "does not hold" or "cannot be told".
"""

from pathlib import Path

from minillava import paper
from minillava.curves import read_losses
from minillava.experiments.cells import accuracy, cell, judged, over, signed
from minillava.experiments.miniature import CAPTIONER, CHOICES, CONTROLS, FULL, MIXTURES, POPE_ROWS, UNTUNED, records_of
from minillava.experiments.run import Run, slug
from minillava.experiments.science import BEST
from minillava.experiments.study import steps_of
from minillava.figures.tables import question_bars, table_bars
from minillava.figures.training import loss_curves
from minillava.files import read_json, read_jsonl, write_json, write_text
from minillava.judging.bench import CATEGORIES, score_pairs
from minillava.judging.pope import NEGATIVES, evaluate
from minillava.judging.scores import interval, paired_difference, relative_score
from minillava.machine import describe_machine
from minillava.scenes.questions import EXACT_KINDS
from minillava.standins.judge import RULE_ID
from minillava.text import aligned, markdown_table

CATEGORY = dict(zip(paper.TABLE_4.columns, (*CATEGORIES, None)))  # column -> the questions it is about; None: all
BENCH = {"Table 4": "coco", "Table 5": "wild"}
ABOUT = {
    "Table 4": "Relative score by training data, benchmark drawn like the training pictures",
    "Table 5": "Relative score in the wild: another drawing style, combinations held out of training",
}
# Our rows -> the paper's row that each stands beside; None where the paper has none.
BESIDE = {
    "Table 4": {row: row for row in (*MIXTURES, UNTUNED)} | dict.fromkeys((*CONTROLS, CAPTIONER)),
    "Table 5": {FULL: "LLaVA", CAPTIONER: "BLIP-2", UNTUNED: None} | dict.fromkeys(CONTROLS),
}
# Claim of the paper -> the comparisons that carry it: (bench, column, better row, worse row).
TESTS = {
    "more_data_types": [("coco", "All", FULL, row) for row in list(MIXTURES)[1:]],
    "reasoning_helps_chat": [("coco", "Conv", FULL, "Conversation")],
    "tuning_is_needed": [("coco", "All", row, UNTUNED) for row in (FULL, "Conversation")],
    "little_goes_far": [("coco", "All", "Conv + 5% Detail + 10% Complex", "Conversation")],
    "beats_captioners": [("wild", "All", FULL, CAPTIONER)],
}
LOOKED = {"with the picture": "", "picture blanked": "_blank", "picture shuffled": "_shuffled", "text only": "_text"}


def files_of(run: Run, row: str, name: str) -> list[Path]:
    """A row's file of each seed; a control's are those of full data, with its tag for the {} in the name."""
    control = CONTROLS.get(row, "")
    return [run.home(seed, FULL if control else row) / name.format(control) for seed in run.seeds]


def scores_of(run: Run, bench: str, column: str, row: str) -> list[list[tuple[float, float]]]:
    """(reference's score, ours) for every question of a column, for each seed."""
    return [score_pairs(read_jsonl(f), CATEGORY[column]) for f in files_of(run, row, f"reviews-{bench}{{}}.jsonl")]


def rows_of(run: Run, table: str) -> list[dict]:
    """The rows of Table 4 or 5. A cell: mean and standard deviation over seeds, 95 % interval, the paper's figure."""
    out = []
    for row, theirs in BESIDE[table].items():
        cells = {"row": row}
        for column in CATEGORY:
            scores = scores_of(run, BENCH[table], column, row)
            printed = paper.TABLES[table].value(theirs, column) if theirs else None
            cells[column] = over([relative_score(pairs) for pairs in scores])
            cells[column]["interval"] = [round(end, 1) for end in interval(scores, relative_score)]
            cells[column]["paper"] = printed[0] if isinstance(printed, tuple) else printed
        out.append(cells)
    return out


def difference(run: Run, bench: str, column: str, better: str, worse: str) -> dict:
    """Relative score of one row minus another's, its 95 % interval over questions in pairs, and the verdict."""
    both = zip(*(scores_of(run, bench, column, row) for row in (better, worse)))
    return {"better": better, "worse": worse, "column": column, **paired_difference(list(both), relative_score)}


def hallucination(run: Run, row: str) -> dict:
    """POPE's measures for each kind of negatives and all, means over seeds, and how many answers were left out."""
    questions = read_jsonl(run.folder / "bench" / "pope.jsonl")
    each = [evaluate(questions, read_jsonl(file)) for file in files_of(run, row, "pope{}.jsonl")]
    out, scores = {}, [found["scores"] for found in each]
    for kind in (kind for kind in scores[0] if all(kind in of for of in scores)):
        out[kind] = {name: over([of[kind][name] for of in scores])["ours"] for name in scores[0][kind]}
    return out | {"left out": sum(len(found["excluded"]) for found in each)}


def exact(files: list[Path]) -> dict[str, dict]:
    """Exact-match accuracy by kind of question, over seeds. files: of each seed."""
    each = [read_json(file) for file in files]
    return {kind: over([scores[kind] for scores in each]) for kind in each[0]}


def build_report(run: Run) -> dict:
    """Everything that was measured, as one JSON value."""
    rows, (shuffled, blank, text_only) = (*MIXTURES, UNTUNED, CAPTIONER), CONTROLS
    right = {row: exact(files_of(run, row, "exact{}.json")) for row in (*rows, *CONTROLS)}
    mean = {row: {kind: found["ours"] for kind, found in of.items()} for row, of in right.items()}
    known, other = "95 % interval over questions, all seeds", "this run does not make that comparison"
    tests = {claim.id: [difference(run, *test) for test in TESTS.get(claim.id, ())] for claim in paper.CLAIMS}
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "judge": RULE_ID,
        "machine": describe_machine(),
        "seconds": run.state["seconds"] | {"all": round(sum(run.state["seconds"].values()), 1)},
        "vqa": mean[FULL], "vqa_spread": {kind: found["spread"] for kind, found in right[FULL].items()},
        "vqa_blank": mean[blank], "vqa_shuffled": mean[shuffled], "vqa_text": mean[text_only],
        "pope": {row: hallucination(run, row) for row in (*POPE_ROWS, *CONTROLS)},
        "vqa_rows": {row: mean[row] for row in rows},
        "tables": [{"table": table, "bench": BENCH[table], "rows": rows_of(run, table)} for table in BESIDE],
        "claims": [judged(c, tests[c.id], known if tests[c.id] else other) for c in paper.CLAIMS],
    }  # fmt: skip


def notation(report: dict) -> str:
    """What is in a cell of Tables 4 and 5."""
    spread = "± standard deviation over seeds" if len(report["seeds"]) > 1 else "[95 % interval over questions]"
    return f"ours {spread} (the paper's)"


def score_rows(table: dict) -> list[list[str]]:
    """Table 4 or 5 as rows of text."""
    return [["", *CATEGORY], *([r["row"], *(cell(r[c], r[c]["paper"]) for c in CATEGORY)] for r in table["rows"])]


def question_rows(report: dict) -> list[list[str]]:
    """The exact-match questions as rows of text: with the picture, and the controls."""
    rows = [[name, *(f"{v:.1f}" for v in report[f"vqa{key}"].values())] for name, key in LOOKED.items()]
    return [["", *report["vqa"]], *rows]


def markdown(report: dict) -> str:
    """The report for reading; its figures are beside it in figures/."""
    run = f"Scale `{report['scale']}`, seeds {report['seeds']}, judge `{report['judge']}`"
    minutes, here = f"{report['seconds']['all'] / 60:.1f} minutes", report["machine"]
    parts = ["# The paper in miniature", f"{run}, {minutes} on {here['cores']} cores ({here['precision']})."]
    for table in report["tables"]:
        name = table["table"]
        parts += [f"## {ABOUT[name]} ({name})", f"![{name}](figures/{slug(name)}.png)"]
        parts += [markdown_table(score_rows(table)), f"Each cell: {notation(report)}."]
    others = [[row, *(f"{v:.1f}" for v in of.values())] for row, of in report["vqa_rows"].items() if row != FULL]
    parts += ["## Does it look? Exact-match questions on held-out scenes, per cent right"]
    parts += ["![questions](figures/questions.png)", markdown_table([*question_rows(report), *others])]
    parts += ["## Does it see what is not there? Yes-or-no questions about what is in the picture (POPE), per cent"]
    rows = [["", "accuracy", "precision", "recall", "F1", "says yes", "accuracy: random, popular, adversarial"]]
    for row, of in report["pope"].items():
        kinds = ", ".join(f"{of[kind]['accuracy']:.1f}" for kind in NEGATIVES if kind in of)
        measures = ("accuracy", "precision", "recall", "f1", "yes")
        rows.append([row, *(f"{of['all'][name]:.1f}" if "all" in of else "-" for name in measures), kinds])
    parts += [markdown_table(rows), "## The paper's claims"]
    rows = [["claim", "the paper", "here", "verdict"]]
    for c in report["claims"]:
        theirs = "; ".join(f"{name} {value}" for name, value in c["paper"].items())
        ours = "; ".join(f"{t['better']} - {t['worse']} ({t['column']}): {signed(t)}" for t in c["ours"])
        rows.append([f"{c['statement']} ({c['source']})", theirs, ours or c["why"], f"**{c['verdict']}**"])
    seconds = [["step", "seconds"], *([step, f"{s:.0f}"] for step, s in report["seconds"].items())]
    parts += [markdown_table(rows), "![loss](figures/loss.png)", "## What took how long", markdown_table(seconds)]
    return "\n\n".join(parts) + "\n"


def text_of(report: dict) -> str:
    """The tables and the verdicts for a terminal."""
    parts = []
    for table in report["tables"]:
        parts += [f"{table['table']} in miniature, relative score: {notation(report)}", aligned(score_rows(table)), ""]
    parts += ["Questions with one right answer, % right", aligned(question_rows(report)), ""]
    verdicts = [[c["statement"], c["verdict"] if c["ours"] else "(not compared here)"] for c in report["claims"]]
    return "\n".join([*parts, aligned(verdicts)])


def write_report(run: Run) -> dict:
    """report.json and report.md in the run's folder; returns the report."""
    report = build_report(run)
    write_json(run.folder / "report.json", report)
    write_text(run.folder / "report.md", markdown(report))
    return report


def draw_report(report: dict, folder: Path) -> None:
    """The figures that report.md shows, into `folder`/figures."""
    figures = folder / "figures"
    for table in report["tables"]:
        best, *_, worst = sorted(table["rows"], key=lambda r: -r["All"]["ours"])
        low = worst["row"][0].lower() + worst["row"][1:]
        title = f"{best['row']}: {best['All']['ours']:.0f}; {low}: {worst['All']['ours']:.0f}"
        table_bars(table, title).savefig(figures / f"{slug(table['table'])}.png")
    question_bars(report).savefig(figures / "questions.png")
    losses = {f.parent.name: read_losses(f) for f in sorted(folder.glob("seed-0/*/metrics.jsonl"))}
    loss_curves(losses, "The loss of every training, seed 0").savefig(figures / "loss.png")


def designs_report(run: Run) -> dict:
    """Each row's accuracy by kind of question with its control, the difference to the best, as one JSON value."""
    right, out = {}, []
    for row in CHOICES:
        answers = [read_jsonl(file) for file in files_of(run, row, "exact.jsonl")]
        right[row] = [[r["right"] for r in some if r["kind"] in EXACT_KINDS] for some in answers]
        gap = paired_difference(list(zip(right[row], right[BEST])), accuracy) if row != BEST else None
        ours, shuffled = (exact(files_of(run, row, f"exact{control}.json")) for control in ("", "-shuffled"))
        out.append({"row": row, "ours": ours, "shuffled": shuffled["all"], "gap": gap})
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "machine": describe_machine(),
        "steps": steps_of(run.scale, len(records_of(run, FULL))), "questions": len(answers[0]), "rows": out,
    }  # fmt: skip


def designs_page(report: dict) -> str:
    """designs.md: all questions with the control and the difference, then each kind."""
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

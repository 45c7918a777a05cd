"""Tables 4 and 5 in miniature beside the paper's, the controls, the claims and their verdicts: report.json, report.md.

Notable: nothing here is a constant. Every figure of ours is computed from reviews and answers on disk, every figure of
the paper comes from `paper.py`. A claim "holds" only when the 95 % interval of the difference, over questions resampled
in pairs and all seeds, is above zero and every seed agrees; otherwise it "does not hold" or "cannot be told".
"""

from pathlib import Path

from minillava import paper
from minillava.curves import read_losses
from minillava.experiments.cells import accuracy, can_be_told, cell, judged, over, signed
from minillava.experiments.miniature import (
    AFTER_ROW,
    ASKED,
    CAPTIONER,
    CHOICES,
    CONTROLS,
    DESIGNS,
    FULL,
    MIXTURES,
    POPE_ROWS,
    ROWS,
    STAGE_1,
    STAND_IN_CONTROLS,
    STANDS_FOR,
    UNTUNED,
    WITHOUT,
    records_of,
)
from minillava.experiments.run import Run, slug
from minillava.experiments.science import BEST
from minillava.experiments.study import steps_of
from minillava.figures.tables import question_bars, table_bars
from minillava.figures.training import loss_curves
from minillava.files import read_json, read_jsonl, write_json, write_text
from minillava.judging.answers import OTHER_ORDER
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
    "Table 4": {row: row for row in (*MIXTURES, UNTUNED)} | dict.fromkeys((AFTER_ROW, *CONTROLS, CAPTIONER)),
    "Table 5": {FULL: "LLaVA", **STANDS_FOR} | dict.fromkeys((UNTUNED, AFTER_ROW, *CONTROLS)),
}
# Claim of the paper -> the comparisons that carry it: (bench, column, better row, worse row).
TESTS = {
    "more_data_types": [("coco", "All", FULL, row) for row in list(MIXTURES)[1:]],
    "reasoning_helps_chat": [("coco", "Conv", FULL, "Conversation")],
    "tuning_is_needed": [("coco", "All", row, UNTUNED) for row in (FULL, "Conversation")],
    "little_goes_far": [("coco", "All", "Conv + 5% Detail + 10% Complex", "Conversation")],
    "beats_captioners": [("wild", "All", FULL, row) for row in STANDS_FOR],
}
LOOKED = {"with the picture": "", "picture after the question": "_after", "picture blanked": "_blank",
          "picture shuffled": "_shuffled", "text only": "_text"}  # fmt: skip


def files_of(run: Run, row: str, name: str) -> list[Path]:
    """A row's file of each seed; of a row that is ASKED those of the row that answers, its tag for {} in the name."""
    trained, tag = ASKED.get(row, (row, ""))
    return [run.home(seed, trained) / name.format(tag) for seed in run.seeds]


def named(row: str) -> str:
    """The name of a row where the paper's other models stand: whose place it takes."""
    return f"{row} (in {STANDS_FOR[row]}'s place)" if row in STANDS_FOR else row


def scores_of(run: Run, bench: str, column: str, row: str) -> list[list[tuple[float, float]]]:
    """(reference's score, ours) for every question of a column, for each seed."""
    return [score_pairs(read_jsonl(f), CATEGORY[column]) for f in files_of(run, row, f"reviews-{bench}{{}}.jsonl")]


def rows_of(run: Run, table: str) -> list[dict]:
    """The rows of Table 4 or 5. A cell: mean and standard deviation over seeds, 95 % interval, the paper's figure."""
    out = []
    for row, theirs in BESIDE[table].items():
        cells = {"row": row if table == "Table 4" else named(row)}
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
    shuffled, blank, text_only = CONTROLS
    right = {row: exact(files_of(run, row, "exact{}.json")) for row in (*ROWS, *ASKED)}
    mean = {row: {kind: found["ours"] for kind, found in of.items()} for row, of in right.items()}
    known, other = "95 % interval over questions, all seeds", "this run does not make that comparison"
    tests = {claim.id: [difference(run, *test) for test in TESTS.get(claim.id, ())] for claim in paper.CLAIMS}
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "judge": RULE_ID,
        "machine": describe_machine(),
        "seconds": run.state["seconds"] | {"all": round(sum(run.state["seconds"].values()), 1)},
        "vqa": mean[FULL], "vqa_spread": {kind: found["spread"] for kind, found in right[FULL].items()},
        "vqa_after": mean[AFTER_ROW],
        "vqa_blank": mean[blank], "vqa_shuffled": mean[shuffled], "vqa_text": mean[text_only],
        "pope": {row: hallucination(run, row) for row in (*POPE_ROWS, AFTER_ROW, *CONTROLS)},
        "vqa_rows": {row: mean[row] for row in (*ROWS, *STAND_IN_CONTROLS)},
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
    """The exact-match questions as rows of text: with the picture on either side, and the controls."""
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
        low = worst["row"][0].lower() + worst["row"][1:].partition(" (")[0]  # without whose place it takes
        title = f"{best['row']}: {best['All']['ours']:.0f}; {low}: {worst['All']['ours']:.0f}"
        table_bars(table, title).savefig(figures / f"{slug(table['table'])}.png")
    question_bars(report).savefig(figures / "questions.png")
    losses = {f.parent.name: read_losses(f) for f in sorted(folder.glob("seed-0/*/metrics.jsonl"))}
    loss_curves(losses, "The loss of every training, seed 0").savefig(figures / "loss.png")


def design(run: Run, row: str, beside: str) -> dict:
    """A row's accuracy by kind of question, in the other order and its control, and the difference to another row."""
    answers = [[read_jsonl(file) for file in files_of(run, name, "exact.jsonl")] for name in (row, beside)]
    right = [[[r["right"] for r in some if r["kind"] in EXACT_KINDS] for some in seeds] for seeds in answers]
    ours, after, shuffled = (exact(files_of(run, row, f"exact{tag}.json")) for tag in ("", OTHER_ORDER, "-shuffled"))
    return {
        "row": row, "steps": steps_of(run.scale, len(records_of(run, FULL)), DESIGNS[row].part),
        "questions": len(answers[0][0]), "ours": ours, "after": after["all"], "shuffled": shuffled["all"],
        "beside": beside, "gap": paired_difference(list(zip(*right)), accuracy) if row != beside else None,
    }  # fmt: skip


def designs_report(run: Run) -> dict:
    """Table 8's choices beside the best, and stage 1 once more beside a row of its own, as one JSON value."""
    beside = {partner: partner for partner in STAGE_1} | WITHOUT
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "machine": describe_machine(),
        "rows": [design(run, row, BEST) for row in CHOICES],
        "stage 1": [design(run, row, beside[row]) for pair in WITHOUT.items() for row in reversed(pair)],
    }  # fmt: skip


def designs_page(report: dict) -> str:
    """designs.md: all questions with the control and the difference, then each kind; then stage 1 once more."""
    best, kinds = report["rows"][0], [kind for kind in report["rows"][0]["ours"] if kind != "all"]
    head = ["", "steps", "all", "picture after the question", "pictures shuffled"]

    def table(rows: list[dict], difference: str) -> str:
        lines = [[*head, difference, *kinds]]
        for r in rows:
            gap = signed(r["gap"]) if r["gap"] else "-"
            gap += f" ({paper.TABLE_8.delta(r['row'], 'Avg'):+})" if r["gap"] and r in report["rows"] else ""
            scores = [cell(of) for of in (r["ours"]["all"], r["after"], r["shuffled"])]
            lines.append([r["row"], str(r["steps"]), *scores, gap, *(f"{r['ours'][k]['ours']:.1f}" for k in kinds)])
        return markdown_table(lines)

    without = [r for r in (*report["rows"], *report["stage 1"]) if r["row"].startswith("No stage 1")]
    told = {True: "it can be told from none", False: "it cannot be told from none"}
    scale = report["recipe"]["scale"]
    one, two = (paper.RECIPES[f"stage {n}"].learning_rate for n in (1, 2))
    records = "{conversation:,} conversations in records of {turns} questions, {detail:,} descriptions, {complex:,} "
    records += "with reasons"
    where = (report["machine"].get("gpu") or {"name": "a CPU"})["name"]
    rates = (
        f"{scale['stage2_lr']:g} in stage 2 after {scale['stage1_lr']:g} in stage 1; in the paper {two:g} after {one:g}"
    )
    parts = [
        "# Table 8's design choices on the chat data",
        f"{best['questions']} exact-match questions about held-out pictures, % right, {len(report['seeds'])} seeds. One "
        "choice differs in each row; everything else, the steps of stage 2 too, is the same. Stage 2 learns from "
        f"{records.format(**scale)}, on {where}.",
        table(report["rows"], "difference to the best (the paper's, on ScienceQA)"),
        "± is the standard deviation over seeds; in square brackets the 95 % interval of the difference over "
        "questions, drawn in pairs, all seeds. `7B` is the smaller language model in the place of the paper's. Stage 1 "
        "begins with W from the boxes by least squares; `No stage 1` has neither, its W is random.",
        "![Table 8 on the chat data](figures/table-8-chat.png)",
        "## Stage 1 once more, where stage 2 can do less of its work",
        f"W's rate is {rates}. So here a W that has learned nothing may catch up in stage 2. In the first pair W's rate "
        "in stage 2 has the paper's ratio to that of stage 1; in the second pair stage 2 has a quarter of its steps.",
        table(report["stage 1"], "difference to the row above"),
        "\n".join(f"- {r['row']}: {signed(r['gap'])} beside {r['beside']}; {told[can_be_told(r['gap'])]}." for r in without),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"

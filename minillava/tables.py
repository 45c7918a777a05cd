"""`minillava paper --table N`: a table of the paper beside the miniature's, over three seeds, and the verdicts on its claims.

Notable: Table 3 is a picture with the answers of three models, 4 and 5 come from the run of the whole paper (`report.py`), 7
and 8 from the science quiz (`science.py`). Every figure of ours is computed from answers on disk; the paper's rows that have
no counterpart here stand beside an empty place.

    minillava paper --table 7
"""

import json
import statistics
from pathlib import Path

from minillava import figures_judge, miniature, paper, scales, science
from minillava.datagen.scienceqa import read_problems
from minillava.judging.bench import read_bench
from minillava.judging.command import grid
from minillava.judging.compare import UNTOLD, paired, together
from minillava.judging.ensembles import ensembles, predictions
from minillava.judging.scienceqa import COLUMNS, predict, score
from minillava.miniature import CAPTIONER, FULL, UNTUNED, slug
from minillava.report import build_report
from minillava.run import Run
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw
from minillava.science import ANSWER_FIRST, BEST, CURVES, VARIANTS, looks_of, texts_of, variants
from minillava.training.loop import machine

SEEDS = 3  # at least, for a table
ODD = "What is unusual about this picture, and why?"
# Our row of Table 7 -> the paper's; the controls have none.
TABLE_7 = {
    "expert": "GPT-4 (text only)", "LLaVA": "LLaVA", "complement": "LLaVA+GPT-4 (complement)", "judge": "LLaVA+GPT-4 (judge)",
}  # fmt: skip
CONTROLS = {"LLaVA, pictures blank": "-blank", "LLaVA, pictures shuffled": "-shuffled", "LLaVA, text only": "-text"}
# Claim -> (better row, worse row) pairs that carry it, on the test split.
TESTS = {
    "judge_ensemble": [("judge", "LLaVA"), ("judge", "expert"), ("judge", "complement")],
    "stage_1_matters": [(BEST, "No stage 1"), ("Last layer", "No stage 1"), (ANSWER_FIRST, "No stage 1"), ("7B", "No stage 1")],
    "reasoning_first": [(BEST, ANSWER_FIRST)],
    "layer_before_last": [(BEST, "Last layer")],
    "bigger_is_better": [(BEST, "7B")],
}  # fmt: skip


class Science:
    """The answers of a finished run of the quiz, read once: right or wrong, by row, seed and problem."""

    def __init__(self, run: Run):
        self.run, self.test = run, read_problems(run.folder / "quiz", "test")
        self.rows = list(variants(run.weights))
        self.predictions: dict[tuple[str, int], dict[str, int]] = {}
        self.failures: dict[str, int] = {}
        self.joined = []
        own = texts_of(run.folder / "expert.jsonl")
        for seed in run.seeds:
            best = run.folder / f"seed-{seed}" / slug(BEST)
            llava, again = texts_of(best / "answers.jsonl"), texts_of(best / "again.jsonl")
            self.joined.append(ensembles(self.test, own, llava, again))
            self.predictions |= {(row, seed): p for row, p in predictions(self.test, own, llava, again).items()}
            for row in self.rows:
                self._read(row, seed, texts_of(best.parent / slug(row) / "answers.jsonl"))
            for row, tag in CONTROLS.items():
                self._read(row, seed, texts_of(best / f"answers{tag}.jsonl"))

    def _read(self, row: str, seed: int, texts: dict[str, str]) -> None:
        self.predictions[row, seed], failed = predict(self.test, texts)
        self.failures[row] = self.failures.get(row, 0) + len(failed)

    def right(self, row: str, seed: int) -> list[bool]:
        found = self.predictions[row, seed]
        return [found.get(name) == problem.answer for name, problem in self.test.items()]

    def cells(self, row: str) -> dict[str, dict]:
        """Table 7's columns of a row: {"ours": mean over seeds, "spread": standard deviation or None}."""
        each = [score(self.test, self.predictions[row, seed]) for seed in self.run.seeds]
        columns = [c for c in COLUMNS if c in each[0]]
        return {c: over([e[c]["accuracy"] for e in each]) for c in columns}

    def compare(self, better: str, worse: str) -> dict:
        seeds = [(self.right(better, s), self.right(worse, s)) for s in self.run.seeds]
        return {"better": better, "worse": worse, "column": "Avg", **paired(seeds, accuracy)}


def accuracy(right: list[bool]) -> float:
    return 100 * sum(right) / len(right)


def over(values: list[float]) -> dict:
    """Mean and standard deviation over seeds; None for one seed."""
    return {
        "ours": round(statistics.mean(values), 1),
        "spread": round(statistics.stdev(values), 1) if len(values) > 1 else None,
    }


def sooner(run: Run) -> dict:
    """Do reasons first learn sooner? The validation accuracy half way, and the epochs until answer first's last accuracy."""
    first, other = ([looks_of(run, row, seed) for seed in run.seeds] for row in CURVES)
    half = max(0, len(first[0]) // 2 - 1)
    rights = lambda looks: [c == "1" for c in looks[half]["right"]]  # noqa: E731
    found = paired([(rights(a), rights(b)) for a, b in zip(first, other)], accuracy)
    reached = []
    for a, b in zip(first, other):
        epochs = [n for n, look in enumerate(a, 1) if look["accuracy"] >= b[-1]["accuracy"]]
        reached.append(epochs[0] if epochs else None)
    named = {"better": BEST, "worse": ANSWER_FIRST, "column": f"validation after {half + 1} of {len(first[0])} epochs"}
    return {**named, **found, "epochs to answer first's last accuracy, by seed": reached}


def claims_of(science: Science) -> list[dict]:
    """The claims of Tables 7 and 8 with the paper's figures, ours, and a verdict."""
    out = []
    for claim in (c for c in paper.CLAIMS if c.id in TESTS):
        there = all(row in science.rows or row not in VARIANTS for pair in TESTS[claim.id] for row in pair)
        pairs = [p for p in TESTS[claim.id] if there or not {*p} - {*science.rows}]
        tests = [science.compare(*pair) for pair in pairs]
        if claim.id == "reasoning_first":
            tests.append(sooner(science.run))
        out.append({
            "id": claim.id, "statement": claim.statement, "source": claim.source, "paper": claim.figures, "ours": tests,
            "verdict": together([t["verdict"] for t in tests]) if there else UNTOLD,
            "why": "" if there else "no smaller language model is among the weights (`make weights`)",
        })  # fmt: skip
    return out


def science_report(run: Run) -> dict:
    """Tables 7 and 8 in miniature, the ensembles' bounds and counts, the curves and the claims, as one JSON value."""
    science = Science(run)
    chance = statistics.mean(100 / len(p.choices) for p in science.test.values())
    seven = [{"row": theirs, "ours": science.cells(ours), "paper": dict(zip(paper.TABLE_7.columns, paper.TABLE_7.rows[theirs]))}
             for ours, theirs in TABLE_7.items()]  # fmt: skip
    seven += [{"row": row, "ours": science.cells(row), "paper": {}} for row in CONTROLS]
    seven += [{"row": row, "ours": {}, "paper": dict(zip(paper.TABLE_7.columns, values))}
              for row, values in paper.TABLE_7.rows.items() if row not in TABLE_7.values()]  # fmt: skip
    eight = []
    for row in VARIANTS:
        ours = science.cells(row) if row in science.rows else {}
        gap = science.compare(row, BEST) if ours and row != BEST else None
        eight.append({"row": row, "ours": ours, "gap": gap, "paper": {"Avg": paper.TABLE_8.value(row, "Avg")}})
    counts = science.joined[0]["counts"].keys()
    mean = lambda pick: round(statistics.mean(pick(j) for j in science.joined), 1)  # noqa: E731
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "machine": machine(), "seconds": run.state["seconds"],
        "chance": round(chance, 1), "questions": len(science.test), "table 7": seven, "table 8": eight,
        "bounds": {name: mean(lambda j, name=name: j["bounds"][name]["accuracy"]) for name in science.joined[0]["bounds"]},
        "counts": {name: mean(lambda j, name=name: j["counts"][name]) for name in counts},
        "failures": science.failures,
        "curves": {row: [[look["accuracy"] for look in looks_of(run, row, s)] for s in run.seeds] for row in CURVES},
        "claims": claims_of(science),
    }  # fmt: skip


def cell(ours: dict | None, theirs) -> str:
    """`ours ± spread (the paper's)`; an empty place where either has none."""
    said = (
        "-" if not ours else f"{ours['ours']:.1f}" + (f" ± {ours['spread']:.1f}" if ours["spread"] is not None else "")
    )
    theirs = f"{theirs[0]} ± {theirs[1]}" if isinstance(theirs, tuple) else theirs
    return f"{said} ({theirs})" if theirs is not None else said


def said(claims: list[dict]) -> list[str]:
    """Each claim with its verdict, the paper's figures and ours."""
    lines = []
    for claim in claims:
        lines.append(f"{claim['verdict'].upper()}: {claim['statement']} ({claim['source']})")
        lines.append("   the paper: " + ", ".join(f"{name} {value}" for name, value in claim["paper"].items()))
        for t in claim["ours"]:
            more = t.get("epochs to answer first's last accuracy, by seed")
            reach = f"; epochs to answer first's last accuracy, by seed: {more}" if more else ""
            low, high = t["interval"]
            lines.append(f"   here: {t['better']} - {t['worse']}, {t['column']}: {t['ours']:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}: {t['verdict']}{reach}")  # fmt: skip
        lines += [f"   {claim['why']}"] * bool(claim.get("why") and not claim["ours"] or claim["verdict"] == UNTOLD and claim.get("why"))  # fmt: skip
    return lines


def claims_for(table: paper.Table, claims: list[dict]) -> list[dict]:
    return [c for c in claims if c["source"].startswith(table.source)]


def text_45(report: dict, number: int) -> str:
    """Table 4 or 5 of a run of the whole paper."""
    table, theirs = report["tables"][number - 4], paper.TABLES[f"Table {number}"]
    rows = [["", *theirs.columns]]
    for row in table["rows"]:
        rows.append([row["row"], *(cell(row[c], row[c]["paper"]) for c in theirs.columns)])
    used = {FULL: "LLaVA", CAPTIONER: "BLIP-2"}.values() if number == 5 else [r["row"] for r in table["rows"]]
    rows += [[name, *(cell(None, v) for v in values)] for name, values in theirs.rows.items() if name not in used]
    lines = [f"{theirs.source}: {theirs.caption}", f"Ours, mean ± standard deviation over {len(report['seeds'])} seeds, judge {report['judge']!r} (the paper's)", "", grid(rows), ""]  # fmt: skip
    lines += said(claims_for(theirs, report["claims"]))
    if number == 4:
        lines += ["", "The paper's own arithmetic: printed differences to the first row that its scores do not give"]
        lines += [f"   {row}, {column}: printed {printed:+}, the scores give {found:+}" for row, column, printed, found in paper.table4_arithmetic()]  # fmt: skip
    return "\n".join(lines)


def text_78(report: dict, number: int) -> str:
    """Table 7 or 8 of a run of the quiz."""
    theirs = paper.TABLES[f"Table {number}"]
    columns = theirs.columns
    rows = [["", *columns, *(["difference to the best"] if number == 8 else [])]]
    for row in report[f"table {number}"]:
        if number == 7:  # nine columns: the paper's figures in a line of their own
            if row["ours"]:
                rows.append([row["row"], *(cell(row["ours"][c], None) for c in columns)])
            if row["paper"]:
                named = "   the paper" if row["ours"] else f"{row['row']} (the paper)"
                rows.append([named, *(f"{row['paper'][c]:.2f}" for c in columns)])
            continue
        gap, printed = row["gap"], theirs.deltas.get(row["row"], (None,))[0]
        ours = f"{gap['ours']:+.1f} [{gap['interval'][0]:+.1f}, {gap['interval'][1]:+.1f}]" if gap else "-"
        line = [row["row"], *(cell(row["ours"].get(c), row["paper"].get(c)) for c in columns)]
        rows.append([*line, ours + (f" ({printed:+})" if printed is not None else "")])
    lines = [f"{theirs.source}: {theirs.caption}", f"Ours on the picture book's quiz, {report['questions']:,} questions, mean ± standard deviation over {len(report['seeds'])} seeds (the paper's)", "", grid(rows), ""]  # fmt: skip
    lines.append(f"Chance is {report['chance']} %.")
    if number == 7:
        lines += [f"{name}: {value}" for name, value in report["bounds"].items()]
        lines += [f"{name}: {value:g}" for name, value in report["counts"].items()]
    lines += ["", *said(claims_for(theirs, report["claims"]))]
    return "\n".join(lines)


def odd_scene(run: Run) -> list[dict]:
    """The questions on the picture that Table 3's is like: the first whose oddity is asked for (someone ironing, if any)."""
    items = [(bench, i) for bench in ("coco", "wild") for i in read_bench(run.folder / "bench" / bench)]
    odd = [(b, i) for b, i in items if i.text == ODD and not i.reference.startswith("Nothing")] or items
    bench, chosen = next(((b, i) for b, i in odd if "ironing" in i.reference), odd[0])
    return [{"bench": b, **vars(i)} for b, i in items if b == bench and i.image == chosen.image]


def table_3(run: Run, seed: int = 0) -> dict:
    """Table 3 in miniature: a picture, the questions on it, and what three models and the text-only teacher say."""
    asked = odd_scene(run)
    out = {"image": asked[0]["image"], "questions": [q["text"] for q in asked], "answers": {}}
    for row in (FULL, CAPTIONER, UNTUNED):
        texts = texts_of(run.folder / f"seed-{seed}" / slug(row) / f"answers-{asked[0]['bench']}.jsonl")
        out["answers"][row] = [texts[q["question_id"]] for q in asked]
    out["answers"]["Text-only teacher (the reference)"] = [q["reference"] for q in asked]
    return out


def text_3(table: dict) -> str:
    lines = ["Table 3, p.6: a picture with something odd in it, and what each model says", f"Picture: {table['image']}"]
    for n, question in enumerate(table["questions"]):
        lines += ["", f"Human: {question}", *(f"  {row}: {said[n]}" for row, said in table["answers"].items())]
    return "\n".join(lines)


def write_table(number: int, run: Run) -> str:
    """A table of a finished run as text; its figure and its report go into the run's folder. Raises KeyError for others."""
    figures = run.folder / "figures"
    figures.mkdir(exist_ok=True)
    target = figures / f"table-{number}.png"
    if number == 3:
        table = table_3(run)
        split, _, scene = Path(table["image"]).stem.rpartition("-")
        figures_judge.table_3(table, draw(compose(split, int(scene)), 400)).savefig(target)
        text = text_3(table)
    elif number in (4, 5):
        report = build_report(run)
        figures_judge.by_column(report["tables"][number - 4]["rows"], paper.TABLES[f"Table {number}"]).savefig(target)
        text = text_45(report, number)
    elif number in (7, 8):
        report = science_report(run)
        (run.folder / "report.json").write_text(json.dumps(report, indent=1))
        figures_judge.science(report, number).savefig(target)
        text = text_78(report, number)
    else:
        raise KeyError(f"no Table {number} is rebuilt; there are 3, 4, 5, 7, 8")
    (run.folder / f"table-{number}.txt").write_text(text + "\n", encoding="utf-8")
    return text


def paper_table(number: int, scale: str, seeds: int, out: Path) -> int:
    """What `minillava paper --table N` does: run what is missing, then print the table. Goes on where it stood.

    The quiz of Tables 7 and 8 goes into `out`/science.
    """
    seeds = max(seeds, SEEDS) if number != 3 else seeds
    if number in (7, 8):
        if scale not in science.SCALES:
            raise scales.ScaleError(f"no scale of the quiz is called {scale!r}; there are: {', '.join(science.SCALES)}")
        run = science.run_science(out / "science", science.SCALES[scale], seeds)
    else:
        run = miniature.run_paper(out, scales.get(scale), seeds)
    print(f"\n{write_table(number, run)}\n\nFigure: {run.folder / 'figures' / f'table-{number}.png'}")
    return 0

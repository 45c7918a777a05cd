"""Tables 7, 8 and 10 in miniature, from a finished run of the science quiz: every figure computed from answers on disk.

Notable: each row is compared with another question by question and over all seeds (`judging/scores.py`); the paper's rows
that have no counterpart here stand by themselves. What a table looks like in words is here too; `tables.py` writes it.

    minillava paper --table 7
"""

import statistics

from minillava import paper
from minillava.data.scienceqa import question_text, read_problems
from minillava.experiments.miniature import slug
from minillava.experiments.run import Run
from minillava.experiments.science import ANSWER_FIRST, BEST, CURVES, VARIANTS, looks_of, texts_of, variants
from minillava.judging.ensembles import ensembles, predictions
from minillava.judging.scienceqa import COLUMNS, read_predictions, score
from minillava.judging.scores import UNDECIDED, overall_verdict, paired_difference
from minillava.machine import describe_machine
from minillava.text import aligned

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
        self.predictions[row, seed], failed = read_predictions(self.test, texts)
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
        return {"better": better, "worse": worse, "column": "Avg", **paired_difference(seeds, accuracy)}


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
    found = paired_difference([(rights(a), rights(b)) for a, b in zip(first, other)], accuracy)
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
            "verdict": overall_verdict([t["verdict"] for t in tests]) if there else UNDECIDED,
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
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "machine": describe_machine(), "seconds": run.state["seconds"],
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
        lines += [f"   {claim['why']}"] * bool(claim.get("why") and not claim["ours"] or claim["verdict"] == UNDECIDED and claim.get("why"))  # fmt: skip
    return lines


def claims_for(table: paper.Table, claims: list[dict]) -> list[dict]:
    return [c for c in claims if c["source"].startswith(table.source)]


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
    lines = [f"{theirs.source}: {theirs.caption}", f"Ours on the picture book's quiz, {report['questions']:,} questions, mean ± standard deviation over {len(report['seeds'])} seeds (the paper's)", "", aligned(rows), ""]  # fmt: skip
    lines.append(f"Chance is {report['chance']} %.")
    if number == 7:
        lines += [f"{name}: {value}" for name, value in report["bounds"].items()]
        lines += [f"{name}: {value:g}" for name, value in report["counts"].items()]
    lines += ["", *said(claims_for(theirs, report["claims"]))]
    return "\n".join(lines)


def text_10(run: Run, seed: int = 0) -> str:
    """Table 10 in miniature: the first disagreements with and without a picture, both answers, and the expert's final one."""
    test, own = read_problems(run.folder / "quiz", "test"), texts_of(run.folder / "expert.jsonl")
    best = run.folder / f"seed-{seed}" / slug(BEST)
    llava, again = texts_of(best / "answers.jsonl"), texts_of(best / "again.jsonl")
    lines = [f"Table 10, p.19: asked again where the two differ ({len(again)} of {len(test)} problems)"]
    for what, has in (("with a picture", True), ("without a picture", False)):
        name = next((n for n in again if bool(test[n].image) is has), None)
        if name:
            lines += ["", f"Problem {name}, {what}; right is {test[name].letter}", question_text(test[name])]
            said = (
                ("Assistant 1, the expert, who sees no picture", own),
                ("Assistant 2, LLaVA", llava),
                ("The expert, asked again", again),
            )
            lines += [f"{who}: {' '.join(texts[name].split())}" for who, texts in said]
    return "\n".join(lines)

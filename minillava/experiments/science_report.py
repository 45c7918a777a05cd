"""Tables 7, 8 and 10 in miniature, from a finished run of the science quiz: every figure computed from answers on disk.

Notable: rows are compared question by question and over all seeds. Beside the letters the reasons are read. A
solution's last sentence is its conclusion and holds the right choice's words, so an answer that ends in the problem's
own conclusion has reasoned rightly, whatever letter it names. A wrong answer is then one of two things: wrong reasons,
or right reasons and the wrong letter.

    minillava paper --table 7
"""

import math
import re
import statistics
from collections import Counter

from minillava import paper
from minillava.data.scienceqa import Problem, question_text, read_problems
from minillava.experiments.cells import accuracy, can_be_told, cell, claims_for, judged, over, signed, verdict_lines
from minillava.experiments.run import Run
from minillava.experiments.science import ANSWER_FIRST, BEST, CURVES, VARIANTS, curve, variants
from minillava.experiments.study import texts_of
from minillava.judging.ensembles import ensembles, predictions
from minillava.judging.scienceqa import read_predictions, score
from minillava.judging.scores import UNDECIDED, paired_difference
from minillava.machine import describe_machine
from minillava.text import aligned

# Our row of Table 7 -> the paper's; the controls have none.
TABLE_7 = {
    "expert": "GPT-4 (text only)", "LLaVA": "LLaVA", "complement": "LLaVA+GPT-4 (complement)",
    "judge": "LLaVA+GPT-4 (judge)",
}  # fmt: skip
CONTROLS = {"LLaVA, pictures blank": "-blank", "LLaVA, pictures shuffled": "-shuffled", "LLaVA, text only": "-text"}
# Claim -> (better row, worse row) pairs that carry it, on the test split.
TESTS = {
    "judge_ensemble": [("judge", "LLaVA"), ("judge", "expert"), ("judge", "complement")],
    "stage_1_matters": [(row, "No stage 1") for row in (BEST, "Last layer", ANSWER_FIRST, "7B")],
    "reasoning_first": [(BEST, ANSWER_FIRST)],
    "layer_before_last": [(BEST, "Last layer")],
    "bigger_is_better": [(BEST, "7B")],
}
SHARES = tuple(f"reasons {one}, letter {other}" for one in ("right", "wrong") for other in ("right", "wrong"))
GROUPS = {"with a picture": lambda p: bool(p.image), "without": lambda p: not p.image, "all": lambda p: True}


class Science:
    """The answers of a finished run of the quiz, read once: texts and choices by row and seed, then by problem."""

    def __init__(self, run: Run):
        self.run, self.test = run, read_problems(run.folder / "quiz", "test")
        self.rows = list(variants(run.weights))
        self.texts, self.predictions, self.failures, self.joined = {}, {}, Counter(), []
        expert = texts_of(run.folder / "expert.jsonl")
        for seed in run.seeds:
            best = run.home(seed, BEST)
            files = {row: run.home(seed, row) / "answers.jsonl" for row in self.rows}
            files |= {row: best / f"answers{control}.jsonl" for row, control in CONTROLS.items()}
            for row, file in files.items():
                self.texts[row, seed] = texts_of(file)
                self.predictions[row, seed], failed = read_predictions(self.test, self.texts[row, seed])
                self.failures[row] += len(failed)
            answers = (self.test, expert, self.texts[BEST, seed], texts_of(best / "again.jsonl"))
            self.joined.append(ensembles(*answers))
            self.predictions |= {(row, seed): found for row, found in predictions(*answers).items()}

    def right(self, row: str, seed: int) -> list[bool]:
        """Whether the letter of each answer is right."""
        found = self.predictions[row, seed]
        return [found.get(name) == problem.answer for name, problem in self.test.items()]

    def reasoned(self, row: str, seed: int, group: str = "all") -> list[bool]:
        """Whether the reasons of each answer are right, for one of GROUPS."""
        texts = self.texts[row, seed]
        return [concluded(p, texts[name]) for name, p in self.test.items() if GROUPS[group](p)]

    def cells(self, row: str) -> dict[str, dict]:
        """Table 7's columns of a row."""
        each = [score(self.test, self.predictions[row, seed]) for seed in self.run.seeds]
        return {c: over([e[c]["accuracy"] for e in each]) for c in paper.TABLE_7.columns if c in each[0]}

    def compare(self, better: str, worse: str) -> dict:
        """The difference of two rows' accuracies."""
        seeds = [(self.right(better, s), self.right(worse, s)) for s in self.run.seeds]
        return {"better": better, "worse": worse, "column": "Avg", **paired_difference(seeds, accuracy)}


def conclusion(solution: str) -> str:
    """The last sentence of a solution, which says what the right choice says."""
    return re.split(r"(?<=[.?!])\s+", " ".join(solution.split()))[-1]


def concluded(problem: Problem, text: str) -> bool:
    """Whether the reasons in an answer, before or after its letter, end in the problem's own conclusion."""
    reasons = re.split("SOLUTION:|BECAUSE:", text)[-1].partition("The answer is")[0]
    return conclusion(reasons) == conclusion(problem.solution)


def reasons_of(science: Science) -> list[dict]:
    """Per cent of right reasons for each row, by group of questions, and the difference to the best as in Table 8."""
    seeds, out = science.run.seeds, []
    for row in (*science.rows, *CONTROLS):
        right = {group: [science.reasoned(row, seed, group) for seed in seeds] for group in GROUPS}
        gaps = {}
        for group in ("all", "with a picture") if row != BEST else ():
            best = [science.reasoned(BEST, seed, group) for seed in seeds]
            gaps[group] = paired_difference(list(zip(right[group], best)), accuracy)
        reasons = {group: over(list(map(accuracy, of))) for group, of in right.items()}
        out.append({"row": row, "reasons": reasons, "gap": gaps or None})
    return out


def letters_of(science: Science, row: str = BEST) -> list[dict]:
    """Where answers go wrong: counts of `SHARES` over all seeds, for each group of problems and each skill."""
    skills = {p.skill: p.image is not None for p in science.test.values()}
    out = []
    for name in (*GROUPS, *skills):
        asked = {k: p for k, p in science.test.items() if (p.skill == name if name in skills else GROUPS[name](p))}
        counts = dict.fromkeys(SHARES, 0)
        for seed in science.run.seeds:
            texts, letters = science.texts[row, seed], science.predictions[row, seed]
            for key, p in asked.items():
                counts[SHARES[2 * (not concluded(p, texts[key])) + (letters.get(key) != p.answer)]] += 1
        chance = statistics.mean(100 / len(p.choices) for p in asked.values())
        out.append({"what": name, "picture": skills.get(name), "chance": round(chance, 1)} | counts)
    return out


def sooner(run: Run) -> dict:
    """Do reasons first learn sooner? By the validation accuracy half way, and until answer first's last accuracy."""
    both = [tuple(curve(run, row, seed) for row in CURVES) for seed in run.seeds]
    epochs = len(both[0][0])
    half = max(0, epochs // 2 - 1)
    rights = [tuple([digit == "1" for digit in epoch[half]["right"]] for epoch in pair) for pair in both]
    reached = []
    for first, other in both:
        enough = [n for n, epoch in enumerate(first, 1) if epoch["accuracy"] >= other[-1]["accuracy"]]
        reached.append(enough[0] if enough else None)
    named = {"better": BEST, "worse": ANSWER_FIRST, "column": f"validation after {half + 1} of {epochs} epochs"}
    return {**named, **paired_difference(rights, accuracy), "epochs to answer first's last accuracy, by seed": reached}


def claims_of(science: Science) -> list[dict]:
    """The claims of Tables 7 and 8 with the paper's figures, ours, and a verdict."""
    out = []
    for claim in (c for c in paper.CLAIMS if c.id in TESTS):
        missing = {row for pair in TESTS[claim.id] for row in pair if row in VARIANTS and row not in science.rows}
        tests = [science.compare(*pair) for pair in TESTS[claim.id] if not missing & {*pair}]
        tests += [sooner(science.run)] if claim.id == "reasoning_first" else []
        why = "no smaller language model is among the weights (`make weights`)" if missing else ""
        out.append(judged(claim, tests, why, UNDECIDED if missing else None))
    return out


def science_report(run: Run) -> dict:
    """Everything that was measured, as one JSON value."""
    science, theirs = Science(run), {row: dict(zip(paper.TABLE_7.columns, v)) for row, v in paper.TABLE_7.rows.items()}
    seven = [{"row": row, "ours": science.cells(ours), "paper": theirs[row]} for ours, row in TABLE_7.items()]
    seven += [{"row": row, "ours": science.cells(row), "paper": {}} for row in CONTROLS]
    seven += [{"row": row, "ours": {}, "paper": theirs[row]} for row in theirs if row not in TABLE_7.values()]
    eight = []
    for row in VARIANTS:
        ours = science.cells(row) if row in science.rows else {}
        gap = science.compare(row, BEST) if ours and row != BEST else None
        eight.append({"row": row, "ours": ours, "gap": gap, "paper": {"Avg": paper.TABLE_8.value(row, "Avg")}})
    joined, curves = science.joined, {row: [curve(run, row, seed) for seed in run.seeds] for row in CURVES}
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "machine": describe_machine(),
        "seconds": run.state["seconds"],
        "chance": round(statistics.mean(100 / len(p.choices) for p in science.test.values()), 1),
        "questions": len(science.test), "table 7": seven, "table 8": eight,
        "bounds": {name: over([j["bounds"][name]["accuracy"] for j in joined])["ours"] for name in joined[0]["bounds"]},
        "counts": {name: over([j["counts"][name] for j in joined])["ours"] for name in joined[0]["counts"]},
        "failures": science.failures,
        "curves": {row: [[epoch["accuracy"] for epoch in of] for of in seeds] for row, seeds in curves.items()},
        "claims": claims_of(science), "reasons": reasons_of(science), "letters": letters_of(science),
    }  # fmt: skip


def at_the_letter(letters: list[dict]) -> tuple[int, int, float]:
    """(wrong answers, those of them with right reasons, per cent of right letters where the reasons are right)."""
    (whole,) = (r for r in letters if r["what"] == "all")
    right, lost, _, both = (whole[share] for share in SHARES)
    return lost + both, lost, 100 * right / (right + lost)


def why(science: dict) -> list[str]:
    """Why the effects show in the letters or do not, in sentences, every figure from science.json."""
    wrong, lost, then = at_the_letter(science["letters"])
    seven = {r["row"]: r["ours"] for r in science["table 7"] if r["ours"]}
    avg, txt, no = ({row: f"{of[column]['ours']:.1f}" for row, of in seven.items()} for column in ("Avg", "TXT", "NO"))
    seeing = {r["row"]: cell(r["reasons"]["with a picture"]) for r in science["reasons"]}
    (blank, shuffled, _), expert = CONTROLS, TABLE_7["expert"]
    gaps = [r["gap"] for r in science["table 8"] if r["gap"]]
    untold = sum(not can_be_told(gap) for gap in gaps)
    rows = [r for r in science["reasons"] if r["gap"] and r["row"] not in CONTROLS]
    differ = "; ".join(f"{r['row']} {signed(r['gap']['with a picture'])}" for r in rows)
    val, answers = science["recipe"]["scale"]["val"], science["questions"] * len(science["seeds"])
    first, last = (statistics.mean(seed[n] for seed in science["curves"][BEST]) for n in (0, -1))
    error = 100 * math.sqrt(last / 100 * (1 - last / 100) / val)
    return [
        f"For {untold} of {len(gaps)} rows of Table 8 the interval of the difference holds zero.",
        f"Most is lost between the reasons and the letter: of {wrong:,} wrong answers over all seeds, {lost:,} "
        f"({100 * lost / wrong:.0f} %) reason to the right conclusion and then name another letter. Where the reasons "
        f"are right, the letter is right in {then:.1f} %; chance is {science['chance']} %.",
        f"The reasons look at the picture: right in {seeing[BEST]} % of the questions with one, in {seeing[blank]} % "
        f"when it is blank and {seeing[shuffled]} % when it is another. The letters show next to nothing of that: "
        f"{avg['LLaVA']}, {avg[blank]} and {avg[shuffled]} % of all questions.",
        f"Without pictures the letters are weak too: {txt['LLaVA']} % where a text comes with the question (the "
        f"text-only expert {txt[expert]}), {no['LLaVA']} % where there is neither ({no[expert]}). Sight is not what "
        "lacks first.",
        f"Read by their reasons, on questions with a picture, the rows differ from the best by: {differ}. This measure "
        "was chosen after the letters had been seen.",
        f"Letters that cannot be read are not the cause: {science['failures'][BEST]} of {answers:,}.",
        f"Longer training was not tried: over the epochs the validation accuracy rose from {first:.1f} to {last:.1f} % "
        f"(mean over seeds; {val} questions, so one look is good to ±{error:.1f}).",
    ]


def text_78(report: dict, number: int) -> str:
    """Table 7 or 8 of a run of the quiz, with the verdicts on the claims that rest on it."""
    theirs, rows = paper.TABLES[f"Table {number}"], []
    for r in report["table 7"] if number == 7 else ():  # nine columns, so the paper's figures have a line of their own
        if r["ours"]:
            rows.append([r["row"], *(cell(r["ours"][c]) for c in theirs.columns)])
        if r["paper"]:
            name = "   the paper" if r["ours"] else f"{r['row']} (the paper)"
            rows.append([name, *(f"{r['paper'][c]:.2f}" for c in theirs.columns)])
    for r in report["table 8"] if number == 8 else ():
        gap = signed(r["gap"]) if r["gap"] else "-"
        printed = f" ({theirs.delta(r['row'], 'Avg'):+})" if r["row"] != BEST else ""
        rows.append([r["row"], cell(r["ours"].get("Avg"), r["paper"]["Avg"]), gap + printed])
    head = ["", *theirs.columns, *(["difference to the best"] if number == 8 else [])]
    seeds = f"mean ± standard deviation over {len(report['seeds'])} seeds (the paper's)"
    about = f"Ours on the picture book's quiz, {report['questions']:,} questions, {seeds}"
    lines = [f"{theirs.source}: {theirs.caption}", about, "", aligned([head, *rows]), ""]
    lines += [f"Chance is {report['chance']} %."]
    if number == 7:
        lines += [f"{name}: {value:g}" for name, value in (report["bounds"] | report["counts"]).items()]
    return "\n".join([*lines, "", *verdict_lines(claims_for(theirs, report["claims"]))])


def text_10(run: Run, seed: int = 0) -> str:
    """Table 10 in miniature: the first disagreements with and without a picture, and the expert's last word on them."""
    test, own = read_problems(run.folder / "quiz", "test"), texts_of(run.folder / "expert.jsonl")
    llava, again = (texts_of(run.home(seed, BEST) / f"{name}.jsonl") for name in ("answers", "again"))
    said = {"Assistant 1, the expert, who sees no picture": own, "Assistant 2, LLaVA": llava}
    said["The expert, asked again"] = again
    lines = [f"Table 10, p.19: asked again where the two differ ({len(again)} of {len(test)} problems)"]
    for what, has in (("with a picture", True), ("without a picture", False)):
        for name in [n for n in again if bool(test[n].image) is has][:1]:
            lines += ["", f"Problem {name}, {what}; right is {test[name].letter}", question_text(test[name])]
            lines += [f"{who}: {' '.join(texts[name].split())}" for who, texts in said.items()]
    return "\n".join(lines)

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

from minillava import paper
from minillava.data.scienceqa import Problem, question_text, read_problems
from minillava.experiments.cells import accuracy, can_be_told, cell, claims_for, judged, over, signed, verdict_lines
from minillava.experiments.run import Run
from minillava.experiments.science import ANSWER_FIRST, BEST, CURVES, VARIANTS
from minillava.experiments.study import texts_of
from minillava.files import read_jsonl
from minillava.judging.answers import OTHER_ORDER
from minillava.judging.ensembles import ensembles, predictions
from minillava.judging.scienceqa import read_predictions, score
from minillava.judging.scores import paired_difference
from minillava.machine import describe_machine
from minillava.text import aligned

# Our row of Table 7 -> the paper's; the controls and the other order have none.
TABLE_7 = {
    "expert": "GPT-4 (text only)", "LLaVA": "LLaVA", "complement": "LLaVA+GPT-4 (complement)",
    "judge": "LLaVA+GPT-4 (judge)",
}  # fmt: skip
CONTROLS = {"LLaVA, pictures blank": "-blank", "LLaVA, pictures shuffled": "-shuffled", "LLaVA, text only": "-text"}
BEFORE_ROW = "LLaVA, picture before the question"
ASKED = {
    BEFORE_ROW: OTHER_ORDER,
    **CONTROLS,
}  # our row -> the condition of the best's answers
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
    """The answers of a finished run of the quiz, read once. texts, letters: row -> for each seed, by problem."""

    def __init__(self, run: Run):
        self.run, self.test = run, read_problems(run.folder / "quiz", "test")
        self.texts = {row: [texts_of(run.home(s, row) / "answers.jsonl") for s in run.seeds] for row in VARIANTS}
        for row, control in ASKED.items():
            self.texts[row] = [texts_of(run.home(s, BEST) / f"answers{control}.jsonl") for s in run.seeds]
        read = {row: [read_predictions(self.test, texts) for texts in each] for row, each in self.texts.items()}
        self.letters = {row: [letters for letters, _ in each] for row, each in read.items()}
        self.failures = {row: sum(len(failed) for _, failed in each) for row, each in read.items()}
        again = [texts_of(run.home(s, BEST) / "again.jsonl") for s in run.seeds]
        expert = texts_of(run.folder / "expert.jsonl")
        both = [(self.test, expert, llava, final) for llava, final in zip(self.texts[BEST], again)]
        self.joined, found = [ensembles(*answers) for answers in both], [predictions(*answers) for answers in both]
        self.letters |= {row: [letters[row] for letters in found] for row in found[0]}
        # What was measured after every epoch: accuracy in per cent, and right, 0 or 1 per problem.
        self.curves = {row: [read_jsonl(run.home(s, row) / "gates.jsonl") for s in run.seeds] for row in CURVES}

    def right(self, row: str) -> list[list[bool]]:
        """Whether the letter of each answer is right."""
        return [[found.get(name) == p.answer for name, p in self.test.items()] for found in self.letters[row]]

    def reasoned(self, row: str, group: str = "all") -> list[list[bool]]:
        """Whether the reasons of each answer are right, for one of GROUPS."""
        some = {name: p for name, p in self.test.items() if GROUPS[group](p)}
        return [[concluded(p, texts[name]) for name, p in some.items()] for texts in self.texts[row]]

    def cells(self, row: str) -> dict[str, dict]:
        """Table 7's columns of a row."""
        each = [score(self.test, letters) for letters in self.letters[row]]
        return {c: over([e[c]["accuracy"] for e in each]) for c in paper.TABLE_7.columns if c in each[0]}

    def compare(self, better: str, worse: str) -> dict:
        """The difference of two rows' accuracies."""
        gap = paired_difference(list(zip(self.right(better), self.right(worse))), accuracy)
        return {"better": better, "worse": worse, "column": "Avg", **gap}

    def sooner(self) -> dict:
        """Do reasons first learn sooner? By the validation accuracy half way, and until answer first's last accuracy."""
        both = list(zip(*self.curves.values()))
        epochs = len(both[0][0])
        half = max(0, epochs // 2 - 1)
        rights = [tuple([digit == "1" for digit in curve[half]["right"]] for curve in pair) for pair in both]
        found = {"better": BEST, "worse": ANSWER_FIRST, "column": f"validation after {half + 1} of {epochs} epochs"}
        found |= paired_difference(rights, accuracy)
        reached = found["epochs to answer first's last accuracy, by seed"] = []
        for first, other in both:
            enough = [n for n, epoch in enumerate(first, 1) if epoch["accuracy"] >= other[-1]["accuracy"]]
            reached.append(enough[0] if enough else None)
        return found


def conclusion(solution: str) -> str:
    """The last sentence of a solution, which says what the right choice says."""
    return re.split(r"(?<=[.?!])\s+", " ".join(solution.split()))[-1]


def concluded(problem: Problem, text: str) -> bool:
    """Whether the reasons in an answer, before or after its letter, end in the problem's own conclusion."""
    reasons = re.split("SOLUTION:|BECAUSE:", text)[-1].partition("The answer is")[0]
    return conclusion(reasons) == conclusion(problem.solution)


def reasons_of(science: Science) -> list[dict]:
    """Per cent of right reasons for each row, by group of questions, and the difference to the best as in Table 8."""
    right, out = {}, []
    for row in (*VARIANTS, *ASKED):
        right[row] = {group: science.reasoned(row, group) for group in GROUPS}
        compared = ("all", "with a picture") if row != BEST else ()
        gaps = {g: paired_difference(list(zip(right[row][g], right[BEST][g])), accuracy) for g in compared}
        reasons = {group: over(list(map(accuracy, of))) for group, of in right[row].items()}
        out.append({"row": row, "reasons": reasons, "gap": gaps or None})
    return out


def letters_of(science: Science) -> list[dict]:
    """Where the best row's answers go wrong: counts of `SHARES` over all seeds, by group of problems and by skill."""
    skills = {p.skill: p.image is not None for p in science.test.values()}
    out = []
    for name in (*GROUPS, *skills):
        asked = {k: p for k, p in science.test.items() if (p.skill == name if name in skills else GROUPS[name](p))}
        counts = dict.fromkeys(SHARES, 0)
        for texts, letters in zip(science.texts[BEST], science.letters[BEST]):
            for key, p in asked.items():
                counts[SHARES[2 * (not concluded(p, texts[key])) + (letters.get(key) != p.answer)]] += 1
        out.append({"what": name, "picture": skills.get(name), "chance": chance(asked.values())} | counts)
    return out


def chance(problems) -> float:
    """Per cent that guessing gets right."""
    return round(statistics.mean(100 / len(p.choices) for p in problems), 1)


def science_report(run: Run) -> dict:
    """Everything that was measured, as one JSON value."""
    science, theirs = Science(run), {row: dict(zip(paper.TABLE_7.columns, v)) for row, v in paper.TABLE_7.rows.items()}
    seven = [{"row": row, "ours": science.cells(ours), "paper": theirs[row]} for ours, row in TABLE_7.items()]
    seven += [{"row": row, "ours": science.cells(row), "paper": {}} for row in ASKED]
    seven += [{"row": row, "ours": {}, "paper": theirs[row]} for row in theirs if row not in TABLE_7.values()]
    eight = []
    for row in VARIANTS:
        gap, printed = science.compare(row, BEST) if row != BEST else None, paper.TABLE_8.value(row, "Avg")
        eight.append({"row": row, "ours": science.cells(row), "gap": gap, "paper": {"Avg": printed}})
    tests = {claim: [science.compare(*pair) for pair in pairs] for claim, pairs in TESTS.items()}
    tests["reasoning_first"].append(science.sooner())
    joined = science.joined
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "machine": describe_machine(),
        "seconds": run.state["seconds"],
        "chance": chance(science.test.values()),
        "questions": len(science.test), "table 7": seven, "table 8": eight,
        "bounds": {name: over([j["bounds"][name]["accuracy"] for j in joined])["ours"] for name in joined[0]["bounds"]},
        "counts": {name: over([j["counts"][name] for j in joined])["ours"] for name in joined[0]["counts"]},
        "failures": science.failures,
        "curves": {row: [[e["accuracy"] for e in of] for of in seeds] for row, seeds in science.curves.items()},
        "claims": [judged(claim, tests[claim.id]) for claim in paper.CLAIMS if claim.id in tests],
        "reasons": reasons_of(science), "letters": letters_of(science),
    }  # fmt: skip


def at_the_letter(letters: list[dict]) -> tuple[int, int, float]:
    """(wrong answers, those of them with right reasons, per cent of right letters where the reasons are right)."""
    (whole,) = (r for r in letters if r["what"] == "all")
    right, lost, _, both = (whole[share] for share in SHARES)
    return lost + both, lost, 100 * right / (right + lost)


def why(science: dict) -> list[str]:
    """What the tables rest on, and where an effect differs from the paper's, in sentences; figures from science.json."""
    wrong, lost, then = at_the_letter(science["letters"])
    avg, seen = (
        {r["row"]: f"{r['ours'][column]['ours']:.1f}" for r in science["table 7"] if r["ours"]}
        for column in ("Avg", "IMG")
    )
    seeing = {r["row"]: cell(r["reasons"]["with a picture"]) for r in science["reasons"]}
    blank, shuffled, _ = CONTROLS
    gaps = {r["row"]: r["gap"] for r in science["table 8"] if r["gap"]}
    told = sum(map(can_be_told, gaps.values()))

    def beside(row: str) -> str:
        return f"{row} differs by {signed(gaps[row])}, in the paper by {paper.TABLE_8.delta(row, 'Avg'):+}"

    rows = [r for r in science["reasons"] if r["gap"] and r["row"] in VARIANTS]
    differ = "; ".join(f"{r['row']} {signed(r['gap']['with a picture'])}" for r in rows)
    val, answers = science["recipe"]["scale"]["val"], science["questions"] * len(science["seeds"])
    first, last = (statistics.mean(seed[n] for seed in science["curves"][BEST]) for n in (0, -1))
    error = 100 * math.sqrt(last / 100 * (1 - last / 100) / val)
    return [
        f"For {told} of {len(gaps)} rows of Table 8 the difference to the best variant can be told from none.",
        f"Where the reasons are right, the letter is right in {then:.1f} %; chance is {science['chance']} %. Of "
        f"{wrong:,} wrong answers over all seeds, {lost:,} ({100 * lost / wrong:.0f} %) reason to the right conclusion "
        "and then name another letter; the others go wrong before.",
        f"Of the questions with a picture LLaVA answers {seen['LLaVA']} % right, {seen[blank]} % when it is blank and "
        f"{seen[shuffled]} % when it is another. Over all questions that is {avg['LLaVA']}, {avg[blank]} and "
        f"{avg[shuffled]} %. Its reasons look too: right in {seeing[BEST]} %, {seeing[blank]} % and {seeing[shuffled]} %.",
        f"With the picture before the question, an order in which the quiz was not learned, it is {avg[BEFORE_ROW]} %.",
        f"{beside('Last layer')}. A likely reason, not tested: our vision tower learns from a text for every patch of "
        "its last layer (`standins/vision_tower.py`), CLIP from one text per picture.",
        f"{beside(ANSWER_FIRST)}. Perhaps a language model of four layers cannot find the letter at once, without "
        "writing down what it saw.",
        f"Read by their reasons, on questions with a picture, the rows differ from the best by: {differ}. This measure "
        "was chosen after the letters of an earlier model had been seen.",
        f"Letters that cannot be read: {science['failures'][BEST]} of {answers:,}.",
        f"Longer training was not tried: over the epochs the validation accuracy rose from {first:.1f} to {last:.1f} % "
        f"(mean over seeds; {val} questions, so one look is good to ±{error:.1f}).",
    ]


def text_78(report: dict, number: int) -> str:
    """Table 7 or 8 of a run of the quiz, with the verdicts on the claims that rest on it."""
    theirs, more = paper.TABLES[f"Table {number}"], []
    rows = [["", *theirs.columns]]
    if number == 7:  # nine columns, so the paper's figures have a line of their own
        for r in report["table 7"]:
            if r["ours"]:
                rows.append([r["row"], *(cell(r["ours"][c]) for c in theirs.columns)])
            if r["paper"]:
                name = "   the paper" if r["ours"] else f"{r['row']} (the paper)"
                rows.append([name, *(f"{r['paper'][c]:.2f}" for c in theirs.columns)])
        more = [f"{name}: {value:g}" for name, value in (report["bounds"] | report["counts"]).items()]
    else:
        rows[0].append("difference to the best")
        for r in report["table 8"]:
            gap = f"{signed(r['gap'])} ({theirs.delta(r['row'], 'Avg'):+})" if r["gap"] else "-"
            rows.append([r["row"], cell(r["ours"]["Avg"], r["paper"]["Avg"]), gap])
    seeds = f"mean ± standard deviation over {len(report['seeds'])} seeds (the paper's)"
    about = f"Ours on the picture book's quiz, {report['questions']:,} questions, {seeds}"
    lines = [f"{theirs.source}: {theirs.caption}", about, "", aligned(rows), ""]
    lines += [f"Chance is {report['chance']} %.", *more]
    return "\n".join([*lines, "", *verdict_lines(claims_for(theirs, report["claims"]))])


def text_10(run: Run) -> str:
    """Table 10 in miniature: the first disagreements with and without a picture, and the expert's last word on them."""
    test, own = read_problems(run.folder / "quiz", "test"), texts_of(run.folder / "expert.jsonl")
    llava, again = (texts_of(run.home(0, BEST) / f"{name}.jsonl") for name in ("answers", "again"))
    said = {"Assistant 1, the expert, who sees no picture": own, "Assistant 2, LLaVA": llava}
    said["The expert, asked again"] = again
    lines = [f"Table 10, p.19: asked again where the two differ ({len(again)} of {len(test)} problems)"]
    for what, has in (("with a picture", True), ("without a picture", False)):
        for name in [n for n in again if bool(test[n].image) is has][:1]:
            lines += ["", f"Problem {name}, {what}; right is {test[name].letter}", question_text(test[name])]
            lines += [f"{who}: {' '.join(texts[name].split())}" for who, texts in said.items()]
    return "\n".join(lines)

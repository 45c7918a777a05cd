"""The finished run of the science quiz on one page, for data_samples/results: Tables 7 and 8, and why an effect does not show.

Notable: beside the letters it reads the reasons before them. A solution's last sentence is its conclusion and holds the right
choice's words; an answer whose conclusion is the problem's own reasoned rightly, whatever letter it names. So a wrong answer is
one of two things: wrong reasons, or right reasons and the wrong letter. README.md's rows are made here as well.

    python -m minillava.experiments.science_page runs/paper/science data_samples/results
"""

import json
import math
import re
import statistics
import sys
from pathlib import Path

from minillava import paper
from minillava.data.scienceqa import Problem
from minillava.experiments.miniature import slug
from minillava.experiments.run import Run
from minillava.experiments.science import BEST, SCALES, texts_of
from minillava.experiments.science_report import CONTROLS, TABLE_7, Science, accuracy, cell, over, text_78
from minillava.figures.tables import table_8
from minillava.judging.scores import paired
from minillava.text import markdown_table

SHARES = ("reasons right, letter right", "reasons right, letter wrong", "reasons wrong, letter right", "reasons wrong, letter wrong")  # fmt: skip
GROUPS = {"with a picture": lambda p: bool(p.image), "without": lambda p: not p.image, "all": lambda p: True}


def conclusion(solution: str) -> str:
    """The last sentence of a solution, which says what the right choice says; empty where there is none."""
    return re.split(r"(?<=[.?!])\s+", " ".join(solution.split()))[-1]


def concluded(problem: Problem, text: str) -> bool:
    """Whether the reasons in an answer, before or behind its letter, end in the problem's own conclusion."""
    reasons = re.split("SOLUTION:|BECAUSE:", text)[-1].partition("The answer is")[0]
    return conclusion(reasons) == conclusion(problem.solution)


def texts(science: Science, row: str, seed: int) -> dict[str, str]:
    """The answers of a row of Table 8 or of a control."""
    home = science.run.folder / f"seed-{seed}"
    return texts_of(home / slug(BEST) / f"answers{CONTROLS[row]}.jsonl" if row in CONTROLS else home / slug(row) / "answers.jsonl")  # fmt: skip


def reasoned(science: Science, row: str, seed: int, of=GROUPS["all"]) -> list[bool]:
    """Whether each problem's reasons are right, in the problems' order; of: which problems."""
    found = texts(science, row, seed)
    return [concluded(p, found[name]) for name, p in science.test.items() if of(p)]


def reasons_of(science: Science) -> list[dict]:
    """Per cent of right reasons for each row: all, with and without a picture; the difference to the best as Table 8's."""
    out = []
    for row in (*science.rows, *CONTROLS):
        each = {name: over([accuracy(reasoned(science, row, s, of)) for s in science.run.seeds]) for name, of in GROUPS.items()}  # fmt: skip
        pairs = [(reasoned(science, row, s), reasoned(science, BEST, s)) for s in science.run.seeds]
        seeing = [tuple(reasoned(science, r, s, GROUPS["with a picture"]) for r in (row, BEST)) for s in science.run.seeds]  # fmt: skip
        gaps = {"all": paired(pairs, accuracy), "with a picture": paired(seeing, accuracy)} if row != BEST else None
        out.append({"row": row, "reasons": each, "gap": gaps})
    return out


def letters_of(science: Science, row: str = BEST) -> list[dict]:
    """Where answers go wrong: counts of `SHARES` over all seeds, for each group of problems and each skill."""
    skills = dict.fromkeys(p.skill for p in science.test.values())
    groups = GROUPS | {skill: (lambda p, skill=skill: p.skill == skill) for skill in skills}
    out = []
    for name, of in groups.items():
        counts = [0] * 4
        for seed in science.run.seeds:
            found, letter = texts(science, row, seed), science.predictions[row, seed]
            for key, p in science.test.items():
                if of(p):
                    counts[2 * (not concluded(p, found[key])) + (letter.get(key) != p.answer)] += 1
        asked = [p for p in science.test.values() if of(p)]
        chance = statistics.mean(100 / len(p.choices) for p in asked)
        out.append({"what": name, "picture": asked[0].image is not None if name in skills else None, "chance": round(chance, 1)} | dict(zip(SHARES, counts)))  # fmt: skip
    return out


def signed(gap: dict) -> str:
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(gap["ours"], *gap["interval"])


def at_the_letter(letters: list[dict]) -> tuple[int, int, float]:
    """(wrong answers, those of them with right reasons, per cent of right letters where the reasons are right)."""
    (all_,) = (r for r in letters if r["what"] == "all")
    right, lost, _, both = (all_[share] for share in SHARES)
    return lost + both, lost, 100 * right / (right + lost)


def why(science: dict) -> list[str]:
    """Why the effects show in the letters or do not, in sentences, every figure from science.json."""
    wrong, lost, then = at_the_letter(science["letters"])
    seven = {r["row"]: r["ours"] for r in science["table 7"] if r["ours"]}
    pictures = {r["row"]: r["reasons"]["with a picture"] for r in science["reasons"]}
    blank, shuffled = list(CONTROLS)[:2]
    value = lambda row, column: seven[row][column]["ours"]  # noqa: E731
    gaps = [r for r in science["table 8"] if r["gap"]]
    untold = sum(r["gap"]["interval"][0] <= 0 <= r["gap"]["interval"][1] for r in gaps)
    looks, val = science["curves"][BEST], science["recipe"]["scale"]["val"]
    first, last = (statistics.mean(seed[n] for seed in looks) for n in (0, -1))
    share = last / 100
    return [
        f"For {untold} of {len(gaps)} rows of Table 8 the interval of the difference holds zero.",
        f"Most is lost between the reasons and the letter: of {wrong:,} wrong answers over all seeds, {lost:,} ({100 * lost / wrong:.0f} %) reason to the right conclusion and then name another letter. Where the reasons are right, the letter is right in {then:.1f} %; chance is {science['chance']} %.",
        f"The reasons look at the picture: right in {cell(pictures[BEST], None)} % of the questions with one, in {cell(pictures[blank], None)} % when it is blank and {cell(pictures[shuffled], None)} % when it is another. The letters show next to nothing of that: {value('LLaVA', 'Avg'):.1f}, {value(blank, 'Avg'):.1f} and {value(shuffled, 'Avg'):.1f} % of all questions.",
        f"Without pictures the letters are weak too: {value('LLaVA', 'TXT'):.1f} % where a text comes with the question (the text-only expert {value('GPT-4 (text only)', 'TXT'):.1f}), {value('LLaVA', 'NO'):.1f} % where there is neither ({value('GPT-4 (text only)', 'NO'):.1f}). Sight is not what lacks first.",
        "Read by their reasons, on questions with a picture, the rows differ from the best by: " + "; ".join(f"{r['row']} {signed(r['gap']['with a picture'])}" for r in science["reasons"] if r["gap"] and r["row"] not in CONTROLS) + ". This measure was chosen after the letters had been seen.",
        f"Letters that cannot be read are not the cause: {science['failures'][BEST]} of {science['questions'] * len(science['seeds']):,}.",
        f"Longer training was not tried: over the epochs the validation accuracy rose from {first:.1f} to {last:.1f} % (mean over seeds; {val} questions, so one look is good to ±{100 * math.sqrt(share * (1 - share) / val):.1f}).",
    ]  # fmt: skip


def brief(science: dict) -> list[str]:
    """README.md's rows: Table 7's and Table 8's, per cent right over all questions."""
    reasons = {r["row"]: cell(r["reasons"]["all"], None) for r in science["reasons"]}
    rows = [
        ["ScienceQA", "here, % right", "the paper", "difference to the best variant", "the paper", "reasons right, %"]
    ]
    for r in science["table 7"]:
        if r["row"] in TABLE_7.values() and r["row"] != TABLE_7["LLaVA"]:
            rows.append([r["row"], cell(r["ours"]["Avg"], None), f"{r['paper']['Avg']:.2f}", "", "", ""])
    for r in (r for r in science["table 8"] if r["ours"]):
        gap = [signed(r["gap"]), f"{paper.TABLE_8.delta(r['row'], 'Avg'):+}"] if r["gap"] else ["", ""]
        rows.append([r["row"], cell(r["ours"]["Avg"], None), f"{r['paper']['Avg']:.2f}", *gap, reasons[r["row"]]])
    return markdown_table(rows).splitlines()


def markdown(science: dict) -> str:
    """The page for reading; its picture is beside it in figures/."""
    lines = ["# ScienceQA in miniature", "", f"Scale `{science['scale']}`, seeds {science['seeds']}, {science['questions']:,} test questions, chance {science['chance']} %.", ""]  # fmt: skip
    for number in (7, 8):
        lines += [f"## Table {number}", "", "```", text_78(science, number), "```", ""]
    lines += ["![Table 8](figures/table-8.png)", "", "## Why", "", *(f"- {line}" for line in why(science)), ""]
    lines += ["## Are the reasons right?", "", "Per cent of answers whose reasons end in the right conclusion, whatever letter goes with them; in brackets the 95 % interval of the difference to the best variant.", ""]  # fmt: skip
    rows = [["", *GROUPS, "difference, all", "difference, with a picture"]]
    for r in science["reasons"]:
        gaps = [signed(g) for g in r["gap"].values()] if r["gap"] else ["", ""]
        rows.append([r["row"], *(cell(r["reasons"][g], None) for g in GROUPS), *gaps])
    lines += [markdown_table(rows), "", f"## Where answers go wrong: {BEST}, all seeds together", ""]
    rows = [["questions", "picture", "chance, %", *SHARES]]
    for r in science["letters"]:
        seen = {None: "", True: "yes", False: "no"}[r["picture"]]
        rows.append([r["what"], seen, f"{r['chance']}", *(f"{r[share]:,}" for share in SHARES)])
    return "\n".join([*lines, markdown_table(rows), ""])


def publish(folder: Path, results: Path) -> dict:
    """science.json, science.md and figures/table-8.png in `results`, from a finished run's folder. Raises RunError."""
    report = json.loads((folder / "report.json").read_text())
    run = Run(folder, SCALES[report["scale"]], len(report["seeds"]))
    try:
        science = Science(run)
        out = {k: v for k, v in report.items() if k != "seconds"}  # other work shared the cores
        out |= {"reasons": reasons_of(science), "letters": letters_of(science)}
    finally:
        run.lock.release()
    (results / "figures").mkdir(parents=True, exist_ok=True)
    table_8(out).savefig(results / "figures" / "table-8.png")
    (results / "science.json").write_text(json.dumps(out, indent=1) + "\n")
    (results / "science.md").write_text(markdown(out), encoding="utf-8")
    return out


if __name__ == "__main__":
    print("\n".join(brief(publish(*map(Path, sys.argv[1:3])))))

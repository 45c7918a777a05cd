"""Two ways of joining LLaVA and a text-only expert on ScienceQA (section 5.2, Table 7): complement and judge.

The expert plays GPT-4, who reads question, context and options, but sees no picture. *Complement* takes the expert's
answer, or LLaVA's where the expert gives none. *Judge* shows the expert both answers where they differ, and takes its
final answer; if that cannot be read, LLaVA's answer stands. Neither the authors' prompt nor GPT-4's outputs were
released, so the wording here is this project's own.

    minillava judge scienceqa RESULTS LABELS --expert EXPERT --again AGAIN
"""

from minillava.data.scienceqa import LETTERS, Problem, ScienceError, answer_text, question_text
from minillava.judging.scienceqa import read_predictions, score

SYSTEM = """You answer school questions on science. Some are about a picture that you cannot see; \
then use what the text tells."""
FINAL = "End with one sentence of the form: The answer is A."


def expert_messages(problem: Problem, shots: list[Problem]) -> list[dict]:
    """The messages that ask the expert one problem: solved examples first (the paper's GPT-4 had two), no picture."""
    out = [{"role": "system", "content": f"{SYSTEM} {FINAL}"}]
    for shot in shots:
        out.append({"role": "user", "content": question_text(shot)})
        out.append({"role": "assistant", "content": answer_text(shot, "QCM-LEA")})
    return [*out, {"role": "user", "content": question_text(problem)}]


def final_messages(problem: Problem, expert: str, llava: str) -> list[dict]:
    """The messages that show the expert both answers, its own as Assistant 1, and ask for its final one (Table 10)."""
    asked = (
        f"[Question]\n{question_text(problem)}\n\n[Assistant 1]\n{expert}\n\n[Assistant 2]\n{llava}\n\n"
        "[System]\nThe two assistants disagree. Assistant 2 has seen the picture, if there is one; Assistant 1 has "
        f"not. Weigh what both say, then give your own final answer. {FINAL}"
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]


def disagreements(problems: dict[str, Problem], expert: dict[str, str], llava: dict[str, str]) -> list[str]:
    """The problems where both name an answer and the answers differ. The expert is asked again about these alone."""
    ours, theirs = read_predictions(problems, llava)[0], read_predictions(problems, expert)[0]
    return [name for name in problems if name in ours and name in theirs and ours[name] != theirs[name]]


def predictions(
    problems: dict[str, Problem], expert: dict[str, str], llava: dict[str, str], again: dict[str, str] | None = None
) -> dict[str, dict[str, int]]:
    """Row of Table 7 -> index of the answer by problem id: LLaVA, expert, complement and, with `again`, judge.

    again: the expert's final answers to the `disagreements`; None leaves the judge's row out. Raises ScienceError,
    naming a problem, unless both answered every problem and `again` answers every disagreement and nothing else.
    """
    for who, texts in (("the expert", expert), ("LLaVA", llava)):
        missing = [name for name in problems if name not in texts]
        if missing:
            raise ScienceError(f"{who} has no answer to problem {missing[0]} ({len(missing)} missing in all)")
    ours, theirs = read_predictions(problems, llava)[0], read_predictions(problems, expert)[0]
    rows = {"LLaVA": ours, "expert": theirs, "complement": ours | theirs}
    if again is not None:
        differ = disagreements(problems, expert, llava)
        wrong = [n for n in differ if n not in again] or [n for n in again if n not in differ]
        if wrong:
            what = f"the {len(differ)} disagreements, no more and no fewer"
            raise ScienceError(f"the expert's second answers must be to {what}; see problem {wrong[0]}")
        final = read_predictions({name: problems[name] for name in differ}, again)[0]
        rows["judge"] = rows["complement"] | {name: final.get(name, ours[name]) for name in differ}
    return rows


def ensembles(
    problems: dict[str, Problem], expert: dict[str, str], llava: dict[str, str], again: dict[str, str] | None = None
) -> dict:
    """The scored rows of Table 7 for two sets of answers, with bounds and counts. Arguments as for `predictions`."""
    rows = predictions(problems, expert, llava, again)
    ours, theirs, differ = rows["LLaVA"], rows["expert"], disagreements(problems, expert, llava)
    oracle = {name: p.answer for name, p in problems.items() if p.answer in (ours.get(name), theirs.get(name))}
    both = {name: i for name, i in ours.items() if theirs.get(name) == i}
    counts = {
        "questions": len(problems), "differ": len(differ), "agree": len(both),
        "expert without an answer": len(problems) - len(theirs), "LLaVA without an answer": len(problems) - len(ours),
    }  # fmt: skip
    if again is not None:
        final = read_predictions({name: problems[name] for name in differ}, again)[0]
        counts["second answers that cannot be read"] = len(differ) - len(final)
        counts["second answers as LLaVA"] = sum(final.get(n) == ours[n] for n in differ)
    bounds = {"either is right (most that any choice between them can reach)": oracle, "both are right (least)": both}
    return {
        "rows": {name: score(problems, found) for name, found in rows.items()},
        "bounds": {name: score(problems, found)["Avg"] for name, found in bounds.items()},
        "counts": counts,
    }


def answer_with_reason(problem: Problem, index: int, reason: str) -> str:
    """An answer in the form that `read_answer` reads: the reason, then `The answer is B.`."""
    return f"{reason} The answer is {LETTERS[index]}."

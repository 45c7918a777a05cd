"""ScienceQA's scores (section 5.2, Table 7): an answer's letter read strictly, accuracy by subject, context and grade.

An answer that cannot be read is wrong, counted and shown. The authors' older script drew a random choice instead
(`random_guesses`), so its result changed from run to run: one of its 4,241 answers for LLaVA-13B names a letter that
its question does not have, and the draw happened to be right. A results file's own indices are scored as well.

    minillava judge scienceqa RESULTS LABELS
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from minillava.asking import final_text
from minillava.data.scienceqa import LETTERS, Problem, ScienceError
from minillava.files import Excluded, read_json, read_jsonl
from minillava.judging.bench import another_question

ANSWER_SENTENCE = re.compile(r"The answer is ([A-Z])\.")
LETTER_ALONE = re.compile(r"([A-Z])(?:\. .*)?$", re.S)  # `B`, or `B. because ...`, as later models answer
GRADES = {"G1-6": range(1, 7), "G7-12": range(7, 13)}
SUBJECTS = {"NAT": "natural science", "SOC": "social science", "LAN": "language science"}
COLUMNS: dict[str, Callable[[Problem], bool]] = {
    **{name: (lambda p, subject=subject: p.subject == subject) for name, subject in SUBJECTS.items()},
    "TXT": lambda p: bool(p.hint.strip()),
    "IMG": lambda p: p.image is not None,  # also with a hint
    "NO": lambda p: p.image is None and not p.hint.strip(),
    **{name: (lambda p, grades=grades: _grade(p) in grades) for name, grades in GRADES.items()},
    "Avg": lambda p: True,
}


class AnswerError(ValueError):
    """An answer from which not exactly one letter can be read; the message says why."""


def _grade(problem: Problem) -> int:
    digits = problem.grade.removeprefix("grade")
    return int(digits) if digits.isdigit() else 0


def read_answer(text: str, choices: int) -> int:
    """The index of the choice that an answer names: `The answer is B.` once, or only `B`, or `B. ...`.

    Raises AnswerError for no answer, for several, and for a letter that the question does not have.
    """
    text = final_text(text)
    found = ANSWER_SENTENCE.findall(text)
    if not found and (bare := LETTER_ALONE.match(text.strip())):
        found = [bare[1]]
    if len(found) != 1:
        what = f"{len(found)} answers ({', '.join(found)})" if found else "no answer"
        raise AnswerError(f"{what} in {text[-60:].strip()!r}")
    index = ord(found[0]) - ord("A")
    if index >= choices:
        raise AnswerError(f"says {found[0]}, but has only {choices} choices, A to {LETTERS[choices - 1]}")
    return index


@dataclass(frozen=True)
class Results:
    """A file of answers. texts: by id. stored: the indices that the file itself gives by id; empty if it gives none."""

    texts: dict[str, str]
    stored: dict[str, int]
    excluded: tuple[Excluded, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)  # what was asked, where the file says it


def read_results(path: Path) -> Results:
    """Answers from the authors' results JSON (`outputs`, `results`) or from answers JSONL (question_id, text).

    A JSONL row without text, or with an id that occurred before, is excluded. Raises ScienceError, FileError.
    """
    if Path(path).suffix == ".jsonl":
        texts, excluded, prompts = {}, [], {}
        for n, row in enumerate(read_jsonl(path), 1):
            name, text = str(row.get("question_id", "")), row.get("text")
            if not name:
                excluded.append(Excluded(f"row {n}", "no question_id"))
            elif name in texts or not isinstance(text, str):
                why = "occurs twice; the first was used" if name in texts else "no answer text"
                excluded.append(Excluded(f"problem {name}", why))
            else:
                texts[name], prompts[name] = text, row.get("prompt")
        return Results(texts, {}, tuple(excluded), prompts)
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("outputs"), dict):
        raise ScienceError(f"{path}: expected results with `outputs` by question id, or a .jsonl of answers")
    stored, texts = value.get("results") or {}, value["outputs"].values()
    indices = stored.values() if isinstance(stored, dict) else [None]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(index, int) for index in indices):
        raise ScienceError(f"{path}: `outputs` must map ids to texts, and `results` ids to indices")
    return Results(value["outputs"], stored)


def answers_of(problems: dict[str, Problem], results: Results) -> tuple[dict[str, str], dict[str, str]]:
    """(text by id, reason by id of each answer to another problem than that with its id), over these problems."""
    texts, others = {}, {}
    for name, problem in problems.items():
        if name in results.texts:
            row = {"prompt": results.prompts.get(name)}
            other = another_question(row, problem.question, *problem.choices)
            (others if other else texts)[name] = other or results.texts[name]
    return texts, others


def read_predictions(problems: dict[str, Problem], texts: dict[str, str]) -> tuple[dict[str, int], dict[str, str]]:
    """(index by id, reason by id of each answer that cannot be read), over the problems that were answered."""
    found, failed = {}, {}
    for name, problem in problems.items():
        if name in texts:
            try:
                found[name] = read_answer(texts[name], len(problem.choices))
            except AnswerError as error:
                failed[name] = str(error)
    return found, failed


def random_guesses(problems: dict[str, Problem], failed: dict[str, str], seed: int) -> dict[str, int]:
    """The authors' older fallback: a random choice for each answer that could not be read, in the problems' order."""
    rng = random.Random(seed)
    return {name: rng.randrange(len(p.choices)) for name, p in problems.items() if name in failed}


def score(problems: dict[str, Problem], predictions: dict[str, int]) -> dict[str, dict]:
    """Table 7's columns: {column: {"accuracy": per cent, "right", "questions"}}, without columns that have no problem.

    A problem without a prediction counts as wrong. `Avg` is over all questions.
    """
    out = {}
    for column, belongs in COLUMNS.items():
        names = [name for name, problem in problems.items() if belongs(problem)]
        if names:
            right = sum(predictions.get(name) == problems[name].answer for name in names)
            out[column] = {"accuracy": round(100 * right / len(names), 2), "right": right, "questions": len(names)}
    return out


def evaluate(problems: dict[str, Problem], results: Results, seed: int | None = None) -> dict:
    """Everything `minillava judge scienceqa` prints. seed: also score with the authors' older guesses.

    Questions without an answer and answers to other questions are excluded. Raises ScienceError if most do not fit.
    """
    texts, others = answers_of(problems, results)
    asked = {name: problems[name] for name in texts}
    if len(others) >= max(1, len(asked)):
        (name, other), *_ = others.items()
        what = f"{len(others)} of the {len(results.texts)} answers are not to the problem with their id"
        raise ScienceError(f"{what} (problem {name}: {other}); is it another set?")
    if not asked:
        raise ScienceError("no answer belongs to these questions; is it another set, or the hub's form without ids?")
    excluded = [*results.excluded, *(Excluded(f"problem {n}", other) for n, other in others.items())]
    excluded += [Excluded(f"problem {n}", "no answer") for n in problems if n not in results.texts]
    excluded += [Excluded(f"problem {n}", "an answer to no question here") for n in results.texts if n not in problems]
    found, failed = read_predictions(asked, texts)
    out = {"questions": len(asked), "strict": score(asked, found), "failures": failed}
    out["excluded"] = [str(e) for e in excluded]
    if results.stored:
        stored = {name: results.stored[name] for name in asked if name in results.stored}
        other = {name: index for name, index in stored.items() if index != found.get(name, -1)}
        out["stored"] = score(asked, stored)
        out["differ"] = {
            name: {"stored": index, "read": found.get(name), "right": asked[name].answer, "why": failed.get(name, "")}
            for name, index in other.items()
        }
    if seed is not None:
        guesses = random_guesses(asked, failed, seed)
        out["guessed"] = score(asked, found | guesses)
        out["guesses"] = {name: {"guess": index, "right": asked[name].answer} for name, index in guesses.items()}
        out["guess_seed"] = seed
    return out

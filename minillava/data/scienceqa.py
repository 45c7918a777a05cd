"""ScienceQA (section 5.2): its problems from the files they come in, and the prompts of the paper, letter for letter.

Notable: a prompt format is part of a result - the same weights lose thirty points under another one (facts E16) - so
each is one entry of `FORMATS` and frozen by tests. Q question, C context, M multiple choice; L lecture, E explanation,
A answer; LEPA is the paper's: `LECTURE: ... SOLUTION: ... ### ANSWER: B.`, after which the answer is asked for in a second
step. ALE says the answer first (Table 8). The picture stands after the question, as in the paper.

    problems.json + pid_splits.json -> read_problems;  the hub's parquet -> read_parquet;  the authors' labels -> read_labels
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minillava.errors import UserError
from minillava.files import write_text

LETTERS = "ABCDEFGH"
SPLITS = ("train", "val", "test")
PARQUET_SPLITS = {"validation": "val"}
FORMATS = ("QCM-LEPA", "QCM-LEA", "QCM-ALE", "QCM-A")  # the paper's, the later models', answer first, answer only


class ScienceError(UserError):
    """A file of problems or answers that cannot be used, or a problem that breaks the format; the message names it."""


@dataclass(frozen=True)
class Problem:
    """One question of ScienceQA. answer: the index of the right choice; image: the picture's path in the pictures' folder,
    `ID/image.png`, or None.

    Fields that a source lacks are empty; `hint` non-empty is what Table 7 calls text context.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    hint: str = ""
    image: str | None = None
    subject: str = ""
    topic: str = ""
    category: str = ""
    skill: str = ""
    grade: str = ""
    lecture: str = ""
    solution: str = ""
    task: str = "closed choice"
    split: str = ""

    def __post_init__(self):
        if not 2 <= len(self.choices) <= len(LETTERS) or self.answer not in range(len(self.choices)):
            raise ScienceError(f"problem {self.id}: answer {self.answer} to {len(self.choices)} choices")

    @property
    def letter(self) -> str:
        return LETTERS[self.answer]


def problem_of(name: str, row: dict) -> Problem:
    """A problem from a record of problems.json. Raises ScienceError naming it and what it lacks."""
    if not isinstance(row, dict):
        raise ScienceError(f"problem {name}: not a record of problems.json (found {type(row).__name__})")
    known = {k: row.get(k) or "" for k in ("hint", "subject", "topic", "category", "skill", "grade", "lecture", "solution", "split")}  # fmt: skip
    image, choices, answer = row.get("image"), row.get("choices"), row.get("answer")
    wrong = [k for k, text in {**known, "image": image or "", "question": row.get("question")}.items() if not isinstance(text, str)]  # fmt: skip
    wrong += ["choices"] * (not isinstance(choices, list) or not all(isinstance(c, str) for c in choices))
    wrong += ["answer"] * (type(answer) is not int)
    if wrong:
        raise ScienceError(f"problem {name}: not a record of problems.json (no proper `{wrong[0]}`)")
    return Problem(str(name), row["question"], tuple(choices), answer, image=f"{name}/{image}" if image else None, **known)  # fmt: skip


def row_of(problem: Problem) -> dict:
    """A problem as its record of problems.json."""
    row = {k: v for k, v in vars(problem).items() if k != "id"}
    return row | {"choices": list(problem.choices), "image": problem.image and Path(problem.image).name}


def _json(path: Path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # broken JSON, not UTF-8, lists in lists in lists
        raise ScienceError(f"{path}: not a JSON file ({error})") from error


def read_problems(folder: Path, split: str | None = None) -> dict[str, Problem]:
    """Problems by id from problems.json, those of a split by pid_splits.json beside it, in its order.

    folder: the folder of both files, or the path of a problems.json. Raises ScienceError naming file or problem.
    """
    path = Path(folder) / "problems.json" if Path(folder).is_dir() else Path(folder)
    rows = _json(path)
    if not isinstance(rows, dict):
        raise ScienceError(f"{path}: expected an object of problems by id, found {type(rows).__name__}")
    if split is None:
        return {name: problem_of(name, row) for name, row in rows.items()}
    beside = path.with_name("pid_splits.json")
    splits = _json(beside)
    if not isinstance(splits, dict) or split not in splits:
        there = ", ".join(splits) if isinstance(splits, dict) else "none"
        raise ScienceError(f"{beside}: no split {split!r}; there are {there}")
    if not isinstance(splits[split], list) or not all(isinstance(name, str) for name in splits[split]):
        raise ScienceError(f"{beside}: the split {split!r} is not a list of ids")
    lost = [name for name in splits[split] if name not in rows]
    if lost:
        raise ScienceError(f"{path}: no problem {lost[0]}, which the split {split} names ({len(lost)} missing in all)")
    return {name: problem_of(name, rows[name]) for name in splits[split]}


def write_problems(problems: list[Problem], folder: Path) -> None:
    """problems.json and pid_splits.json, each whole or not at all."""
    splits = {split: [p.id for p in problems if p.split == split] for split in SPLITS}
    for name, value in (("problems", {p.id: row_of(p) for p in problems}), ("pid_splits", splits)):
        write_text(Path(folder) / f"{name}.json", json.dumps(value, indent=1))


def parquet_rows(path: Path) -> Iterator[tuple[str, dict, bytes | None]]:
    """(id, record as in problems.json, its picture's bytes) of one parquet file of the hub's form, one after another.

    The file is `test-00000-of-00001-*.parquet`, ids are `test-0`, `test-1`, ...: the hub's files carry no ScienceQA ids,
    so they cannot be joined to released predictions (facts G). Needs `datasets` (`pip install minillava[course]`).
    """
    from datasets import Image, load_dataset
    from pyarrow import ArrowException

    try:
        rows = load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        if isinstance((rows.features or {}).get("image"), Image):
            rows = rows.cast_column("image", Image(decode=False))
        split = Path(path).name.partition("-")[0].partition(".")[0]
        for n, row in enumerate(rows):
            image = row.get("image") or {}
            file = f"image{Path(image.get('path') or '').suffix or '.png'}" if image else None
            yield f"{split}-{n}", row | {"image": file, "split": PARQUET_SPLITS.get(split, split)}, image.get("bytes")
    except ArrowException as error:
        raise ScienceError(f"{path}: not a parquet file that can be read ({error})") from error


def read_parquet(path: Path) -> dict[str, Problem]:
    """The problems of one parquet file of the hub's form by id. Raises ScienceError."""
    return {name: problem_of(name, row) for name, row, _ in parquet_rows(path)}


def parquet_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name as in the problem, bytes) of the pictures in such a file, one after another."""
    return ((problem_of(name, row).image, data) for name, row, data in parquet_rows(path) if data)


CHOICE = re.compile(r"^([A-H])\. (.*)$")


def _labelled(name: str, row: dict) -> Problem:
    asked, answer = (turn["value"] for turn in row["conversations"])
    lines = asked.replace("<image>\n", "").split("\n")
    first = max((n for n, line in enumerate(lines) if line.startswith("A. ")), default=len(lines))
    choices: list[str] = []
    for line in lines[first:]:
        match = CHOICE.match(line)
        if match and match[1] == LETTERS[len(choices)]:
            choices.append(match[2])
        elif choices:
            choices[-1] += "\n" + line  # a choice of several lines
    body = lines[:first]
    has_hint = bool(body) and body[0].startswith("Context: ")
    if answer not in list(LETTERS[: len(choices)]):
        raise ScienceError(f"problem {name}: the right answer {answer!r} is not one of its {len(choices)} choices")
    hint = "\n".join(body[:-1]).removeprefix("Context: ") if has_hint else ""
    question = body[-1] if has_hint else "\n".join(body)
    return Problem(name, question, tuple(choices), LETTERS.index(answer), hint, row.get("image"))


def read_labels(path: Path, split: str = "test") -> dict[str, Problem]:
    """Problems with their right answers by id, from whichever file holds them.

    The authors' `llava_test_CQM-A.json` (a list of records: question, context, picture, right letter; no subject or grade), a
    problems.json (of it `split`, where pid_splits.json stands beside it), or the hub's parquet. Raises ScienceError.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        return read_parquet(path)
    if path.is_dir() or (path.name == "problems.json" and path.with_name("pid_splits.json").exists()):
        return read_problems(path, split)
    rows = _json(path)
    if isinstance(rows, dict):
        return read_problems(path)
    out = {}
    for n, row in enumerate(rows if isinstance(rows, list) else ()):
        name = str(row.get("id", f"number {n}")) if isinstance(row, dict) else f"number {n}"
        if name in out:
            raise ScienceError(f"{path}: problem {name} stands twice")
        try:
            out[name] = _labelled(name, row)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, ScienceError):
                raise
            raise ScienceError(f"{path}: problem {name} is not a question with its answer ({error!r})") from error
    if not out:
        raise ScienceError(f"{path}: no problems in it")
    return out


def question_text(problem: Problem) -> str:
    """What is asked, QCM: question, context (`N/A` without), options. `Question: ` is left out, as the authors do."""
    options = " ".join(f"({LETTERS[n]}) {choice}" for n, choice in enumerate(problem.choices))
    text = f"{problem.question}\nContext: {problem.hint.strip() or 'N/A'}\nOptions: {options}\n"
    return text.replace("  ", " ").strip()


def answer_text(problem: Problem, format: str) -> str:
    """What is to be answered in one of FORMATS. Raises ScienceError for another."""
    if format not in FORMATS:
        raise ScienceError(f"no prompt format {format!r}; there are {', '.join(FORMATS)}")
    lecture, solution, letter = problem.lecture, problem.solution, problem.letter
    if format == "QCM-LEPA":
        parts = [f"LECTURE: {lecture}\n"] * bool(lecture.strip()) + [f"SOLUTION: {solution}\n"] * bool(solution.strip())
        text = "".join(parts) + f"###\nANSWER: {letter}."
    elif format == "QCM-LEA":
        text = f"{lecture} {solution} The answer is {letter}."
    elif format == "QCM-ALE":
        text = f"The answer is {letter}. BECAUSE: {lecture} {solution}"
    else:
        text = f"The answer is {letter}."
    return text.replace("  ", " ").strip().removesuffix("BECAUSE:").strip()


def science_record(problem: Problem, format: str) -> dict:
    """A problem as an instruction record: the picture, where there is one, after the question (facts B7)."""
    asked = question_text(problem) + ("\n<image>" if problem.image else "")
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer_text(problem, format)}]
    picture = {"image": problem.image} if problem.image else {}
    return {"id": problem.id, **picture, "conversations": turns}

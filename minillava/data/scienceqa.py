"""ScienceQA (section 5.2): problems from the files they come in, and the paper's prompts, letter for letter.

A prompt format is part of a result: with another format the same weights lose thirty points (facts E16). So each is one
of `FORMATS`, and tests keep it from changing. Q question, C context, M multiple choice; L lecture, E explanation, A
answer. LEPA is the paper's: `LECTURE: ... SOLUTION: ... ### ANSWER: B.`, where the answer is asked for in a second
step. ALE gives the answer first (Table 8). The picture comes after the question, as in the paper.

    problems.json, pid_splits.json -> read_problems;  hub's parquet -> read_parquet;  authors' labels -> read_labels
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minillava.errors import UserError
from minillava.files import read_json, write_text

LETTERS = "ABCDEFGH"
SPLITS = ("train", "val", "test")
PARQUET_SPLITS = {"validation": "val"}
FORMATS = ("QCM-LEPA", "QCM-LEA", "QCM-ALE", "QCM-A")  # the paper's, the later models', answer first, answer only
LETTER_STEP = re.compile(r"\n###\nANSWER: [A-H]\.\Z")  # how QCM-LEPA ends
TEXTS = ("hint", "subject", "topic", "category", "skill", "grade", "lecture", "solution", "split")  # may be missing


class ScienceError(UserError):
    """A file of problems or answers that cannot be used, or a problem in a wrong format; the message names it."""


@dataclass(frozen=True)
class Problem:
    """One question of ScienceQA. answer: index of the right choice. image: `ID/image.png` in the image folder, or None.

    A field is empty when its source does not have it. A non-empty `hint` is what Table 7 calls text context.
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


def parse_problem(name: str, row: dict) -> Problem:
    """A problem from a record of problems.json. Raises ScienceError naming the problem and the field that is wrong."""
    if not isinstance(row, dict):
        raise ScienceError(f"problem {name}: not a record of problems.json (found {type(row).__name__})")
    texts = {field: row.get(field) or "" for field in TEXTS}
    question, image, choices, answer = row.get("question"), row.get("image"), row.get("choices"), row.get("answer")
    wrong = [k for k, v in {**texts, "image": image or "", "question": question}.items() if not isinstance(v, str)]
    wrong += ["choices"] * (not isinstance(choices, list) or not all(isinstance(c, str) for c in choices))
    wrong += ["answer"] * (type(answer) is not int)
    if wrong:
        raise ScienceError(f"problem {name}: not a record of problems.json (its `{wrong[0]}` is missing or wrong)")
    return Problem(str(name), question, tuple(choices), answer, image=f"{name}/{image}" if image else None, **texts)


def problem_row(problem: Problem) -> dict:
    """A problem as a record of problems.json."""
    row = {k: v for k, v in vars(problem).items() if k != "id"}
    return row | {"choices": list(problem.choices), "image": problem.image and Path(problem.image).name}


def read_problems(folder: Path, split: str | None = None) -> dict[str, Problem]:
    """Problems by id from problems.json; with `split`, only those that pid_splits.json lists, in its order.

    folder: the folder of both files, or the path of problems.json. Raises ScienceError naming the file or the problem.
    """
    path = Path(folder) / "problems.json" if Path(folder).is_dir() else Path(folder)
    rows = read_json(path)
    if not isinstance(rows, dict):
        raise ScienceError(f"{path}: expected an object of problems by id, found {type(rows).__name__}")
    if split is None:
        return {name: parse_problem(name, row) for name, row in rows.items()}
    index = path.with_name("pid_splits.json")
    splits = read_json(index)
    if not isinstance(splits, dict) or split not in splits:
        known = ", ".join(splits) if isinstance(splits, dict) else "none"
        raise ScienceError(f"{index}: no split {split!r}; there are {known}")
    names = splits[split]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ScienceError(f"{index}: the split {split!r} is not a list of ids")
    missing = [name for name in names if name not in rows]
    if missing:
        raise ScienceError(f"{path}: no problem {missing[0]} of the split {split} ({len(missing)} missing in all)")
    return {name: parse_problem(name, rows[name]) for name in names}


def write_problems(problems: list[Problem], folder: Path) -> None:
    """Write problems.json and pid_splits.json, each whole or not at all."""
    splits = {split: [p.id for p in problems if p.split == split] for split in SPLITS}
    for name, value in (("problems", {p.id: problem_row(p) for p in problems}), ("pid_splits", splits)):
        write_text(Path(folder) / f"{name}.json", json.dumps(value, indent=1))


def parquet_rows(path: Path) -> Iterator[tuple[str, dict, bytes | None]]:
    """(id, record as in problems.json, its picture's bytes) of one of the hub's parquet files, row by row.

    The ids of `test-00000-of-00001-*.parquet` are `test-0`, `test-1`, ... The hub's files have no ScienceQA ids, so
    they cannot be joined to released predictions (facts G). Needs `datasets` (`pip install minillava[course]`).
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
    """The problems of one of the hub's parquet files by id. Raises ScienceError."""
    return {name: parse_problem(name, row) for name, row, _ in parquet_rows(path)}


def parquet_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """(`Problem.image`, bytes) of the pictures in one of the hub's parquet files, one by one."""
    return ((parse_problem(name, row).image, data) for name, row, data in parquet_rows(path) if data)


CHOICE = re.compile(r"^([A-H])\. (.*)$")


def _labelled(name: str, row: dict) -> Problem:
    """A problem from one of the authors' label records."""
    asked, answer = (turn["value"] for turn in row["conversations"])
    lines = asked.replace("<image>\n", "").split("\n")
    first = max((n for n, line in enumerate(lines) if line.startswith("A. ")), default=len(lines))
    choices: list[str] = []
    for line in lines[first:]:
        match = CHOICE.match(line)
        if match and match[1] == LETTERS[len(choices)]:
            choices.append(match[2])
        elif choices:
            choices[-1] += "\n" + line  # a choice may have several lines
    body = lines[:first]
    has_hint = bool(body) and body[0].startswith("Context: ")
    if answer not in list(LETTERS[: len(choices)]):
        raise ScienceError(f"problem {name}: the right answer {answer!r} is not one of its {len(choices)} choices")
    hint = "\n".join(body[:-1]).removeprefix("Context: ") if has_hint else ""
    question = body[-1] if has_hint else "\n".join(body)
    return Problem(name, question, tuple(choices), LETTERS.index(answer), hint, row.get("image"))


def read_labels(path: Path, split: str = "test") -> dict[str, Problem]:
    """Problems with their right answers by id, from any file that has them. Raises ScienceError.

    The authors' `llava_test_CQM-A.json` (records of question, context, picture and right letter, without subject or
    grade), a problems.json (only `split` if pid_splits.json is next to it), or one of the hub's parquet files.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        return read_parquet(path)
    if path.is_dir() or (path.name == "problems.json" and path.with_name("pid_splits.json").exists()):
        return read_problems(path, split)
    rows = read_json(path)
    if isinstance(rows, dict):
        return read_problems(path)
    out = {}
    for n, row in enumerate(rows if isinstance(rows, list) else ()):
        name = str(row.get("id", f"number {n}")) if isinstance(row, dict) else f"number {n}"
        if name in out:
            raise ScienceError(f"{path}: problem {name} appears twice")
        try:
            out[name] = _labelled(name, row)
        except ScienceError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ScienceError(f"{path}: problem {name} is not a question with its answer ({error!r})") from error
    if not out:
        raise ScienceError(f"{path}: there are no problems in it")
    return out


def question_text(problem: Problem) -> str:
    """The question as QCM: question, context (or `N/A`), options; without `Question: `, as the authors do."""
    options = " ".join(f"({LETTERS[n]}) {choice}" for n, choice in enumerate(problem.choices))
    text = f"{problem.question}\nContext: {problem.hint.strip() or 'N/A'}\nOptions: {options}\n"
    return text.replace("  ", " ").strip()


def answer_text(problem: Problem, format: str) -> str:
    """The answer to learn in one of FORMATS. Raises ScienceError for any other format."""
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
    """A problem as an instruction record, with its picture, if any, after the question (facts B7)."""
    asked = question_text(problem) + ("\n<image>" if problem.image else "")
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer_text(problem, format)}]
    picture = {"image": problem.image} if problem.image else {}
    return {"id": problem.id, **picture, "conversations": turns}

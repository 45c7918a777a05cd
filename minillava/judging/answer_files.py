"""From a file of questions to a file of answers, in the authors' formats: LLaVA-Bench, POPE, ScienceQA (section 5).

Each batch of answers is written as soon as it is made, so a stopped run resumes. Answers with other weights, settings,
questions or pictures are never added to the same file.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from minillava.data.images import Preparation, open_picture
from minillava.data.records import whole
from minillava.data.scienceqa import Problem, question_text, read_labels
from minillava.data.template import CHAT, Template
from minillava.files import FileError, by_key, is_id, parse_json, write_text
from minillava.judging.answer_scienceqa import TRAINED_JOINT, answer_problems
from minillava.judging.answers import BLANK, CONDITIONS, OTHER_ORDER, answer, blank_picture, vision_features
from minillava.judging.pope import read_rows
from minillava.machine import progress_bar
from minillava.model import Llava, SpliceError

# Name of a condition -> which pictures are shown: picture, other-order, blank, shuffled, text.
PICTURES_SHOWN = {tag.removeprefix("-") or "picture": choose for tag, choose in CONDITIONS.items()}


PICTURE_KEY = re.compile("image|img|picture|photo|file_?name", re.I)  # where other benchmarks keep a question's picture


@dataclass(frozen=True)
class QuestionRow:
    """One question. ids: the fields that identify it in the answers file. problem: the whole problem, for ScienceQA."""

    ids: dict
    text: str
    image: str | None
    problem: Problem | None = None

    @property
    def key(self) -> tuple:
        return self.ids.get("category"), self.ids["question_id"]


@dataclass(frozen=True)
class AnswerSettings:
    """How to answer. condition: a name in PICTURES_SHOWN. format: of ScienceQA (`FORMATS`), None for other questions.

    max_new_tokens: of an answer, or of the reasons in the first of two steps. joint: the text between these steps.
    """

    condition: str = "picture"
    format: str | None = None
    max_new_tokens: int = 120
    batch: int = 32
    joint: str = TRAINED_JOINT


def read_question_file(path: Path, science: bool = False, split: str = "test") -> list[QuestionRow]:
    """The questions of a file in its order: JSONL of question_id, text and image, or ScienceQA's problems of a split.

    Raises FileError or ScienceError naming file and row.
    """
    if science:
        problems = read_labels(path, split).values()
        return [QuestionRow({"question_id": p.id}, question_text(p), p.image, p) for p in problems]
    rows, elsewhere = read_rows(path), []
    for n, row in enumerate(rows, 1):
        if "question_id" not in row or not isinstance(row.get("text"), str) or not row["text"].strip():
            raise FileError(f"{path}, row {n}: a question needs `question_id` and `text`")
        if row.get("category") is not None and not is_id(row["category"]):
            raise FileError(f"{path}, row {n}: the category {str(row['category'])[:60]} is neither a number nor a text")
        row["image"], row["text"] = row.get("image") or None, whole(row["text"])
        if not isinstance(row["image"], str | None):
            raise FileError(f"{path}, row {n}: `image` must be the name of one picture, not {str(row['image'])[:60]}")
        if row["image"] is None:
            keys = [key for key, value in row.items() if PICTURE_KEY.search(key) and value not in (None, "")]
            elsewhere += [(n, key) for key in keys[:1]]
    if elsewhere:  # they would be answered without their picture
        n, key = elsewhere[0]
        raise FileError(
            f"{path}: {len(elsewhere):,} of {len(rows):,} questions have no `image`, but {key!r} (row {n}: "
            f"{str(rows[n - 1][key])[:60]}); rename it to `image`, or remove it where a question has no picture"
        )
    if not rows:
        raise FileError(f"{path}: no questions in it")
    for category in {row.get("category") for row in rows}:
        by_key([row for row in rows if row.get("category") == category], path, "question_id")
    repeated = len({row["question_id"] for row in rows}) < len(rows)  # POPE's ids start again in each category
    fields = ("question_id", "category") if repeated else ("question_id",)
    return [QuestionRow({f: row[f] for f in fields}, row["text"], row.get("image")) for row in rows]


def read_answers(path: Path, metadata: dict, asked: dict[tuple, tuple]) -> set[tuple]:
    """The questions that a file of answers to resume has; drops an incomplete last line.

    asked: the key of each question -> its prompt, the name of its picture, and the digest of what is shown. Raises
    FileError for a file of another run: with another setting, question or picture.
    """
    if not path.exists():
        return set()
    lines, _, incomplete = path.read_text(encoding="utf-8").rpartition("\n")
    advice, done = "choose another --out, or remove it", set()
    try:
        rows = [parse_json(line) for line in lines.split("\n") if line.strip()]
        if others := [row.get("metadata") for row in rows if row.get("metadata") != metadata]:
            raise FileError(f"{path} holds answers of {others[0]}, not answers of {metadata}; {advice}")
        for row in rows:
            key = row.get("category"), row.get("question_id")
            if asked.get(key) != (row.get("prompt"), row.get("image"), row.get("shown")):
                what = f"an answer to question {key[1]} that is not to this question about this picture"
                raise FileError(f"{path} holds {what}; {advice}")
            done.add(key)
    except FileError:
        raise
    except (ValueError, AttributeError, TypeError) as error:  # also a row that is no object, or a list as an id
        raise FileError(f"{path}: not a file of answers ({error}); choose another --out") from error
    if incomplete and not rows:
        raise FileError(f"{path} holds something else, not answers; {advice}")
    if incomplete:
        write_text(path, lines + "\n")
    return done


def projector_digest(model: Llava) -> str:
    """A short digest of W, which every training changes: it tells one set of weights from another."""
    digest = hashlib.sha256()
    for _, tensor in sorted(model.projector.state_dict().items()):
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _digest(name: str | None, images: Path) -> str | None:
    """What tells the picture that is shown from others: a digest of its file, the blank picture's name, None if none."""
    if name is None or name == BLANK:
        return name
    return hashlib.sha256((images / name).read_bytes()).hexdigest()[:12]


def write_answers(
    model: Llava, tokenizer, template: Template, preparation: Preparation, questions: Sequence[QuestionRow], images: Path,
    out: Path, model_id: str, settings: AnswerSettings,
) -> int:  # fmt: skip
    """Answer the questions that have no row in `out` yet, and add their rows; returns how many were answered now.

    preparation: as for `vision_features`. model_id: the model's name in the rows. Raises FileError for missing pictures, for
    a question that is too long, or when another run writes to `out`; ImageError for a picture that cannot be opened.
    """
    pictures = {q.image for q in questions if q.image}
    missing = sorted(name for name in pictures if not (images / name).is_file())
    if missing and settings.condition not in ("blank", "text"):
        raise FileError(f"{images / missing[0]}: no such picture ({len(missing)} missing in all); see --images")
    if settings.condition == "shuffled" and len(pictures) < 2:
        raise FileError("--look shuffled shows another question's picture, so it needs questions about two or more")
    if out.exists() and not out.is_file():  # a device such as /dev/full has no end
        raise FileError(f"{out}: not a regular file; name a file with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out.with_name(f".{out.name}.lock"), timeout=0):
            return _write(model, tokenizer, template, preparation, questions, images, out, model_id, settings)
    except Timeout:
        raise FileError(f"{out}: another run is writing its answers there; wait, or choose another --out") from None


def _write(model, tokenizer, template, preparation, questions, images, out, model_id, settings) -> int:
    @lru_cache(2 * settings.batch)  # questions about the same picture are often neighbours
    def features(name: str) -> torch.Tensor:
        picture = blank_picture(model.config.vision.image_size) if name == BLANK else open_picture(images / name)
        return vision_features(model, preparation, [picture])[0]  # (P, Dv)

    digest, condition = projector_digest(model), settings.condition
    metadata = {"weights": digest, "look": condition, "format": settings.format, "most": settings.max_new_tokens}
    metadata |= {} if settings.joint == TRAINED_JOINT else {"joint": settings.joint}
    metadata |= {} if template == CHAT else {"template": template.name}
    shown = iter(PICTURES_SHOWN[condition]([q.image for q in questions if q.image]))
    pictures = [next(shown) if q.image else None for q in questions]  # the picture that each question is shown
    seen = {name: _digest(name, images) for name in {*pictures}}
    asked = {q.key: (q.text, q.image, seen[name]) for q, name in zip(questions, pictures)}
    done = read_answers(out, metadata, asked)
    todo = [(q, name) for q, name in zip(questions, pictures) if q.key not in done]
    with open(out, "a", encoding="utf-8") as file, progress_bar(len(questions), "answer") as progress:
        progress.update(len(questions) - len(todo))
        for start in range(0, len(todo), settings.batch):
            batch, names = zip(*todo[start : start + settings.batch])
            try:
                texts = _answer_batch(model, tokenizer, template, batch, [n and features(n) for n in names], settings)
            except SpliceError as error:  # it counts from the first of the batch
                first, last = batch[0].ids["question_id"], batch[-1].ids["question_id"]
                raise FileError(f"questions {first} to {last}: {error}") from error
            for q, name, text in zip(batch, names, texts):
                answer_id = f"{digest}-{condition}-{q.ids['question_id']}"
                row = {**q.ids, "prompt": q.text, "image": q.image, "shown": seen[name], "text": text}
                row |= {"answer_id": answer_id, "model_id": model_id, "metadata": metadata}
                file.write(json.dumps(row) + "\n")
            file.flush()
            progress.update(len(batch))
    return len(todo)


@torch.inference_mode()
def _answer_batch(model, tokenizer, template, batch, features, settings) -> list[str]:
    most, other = settings.max_new_tokens, settings.condition == OTHER_ORDER.removeprefix("-")
    if settings.format:
        more = settings.format, settings.joint, most, other
        return answer_problems(model, tokenizer, template, [q.problem for q in batch], features, *more)
    texts = [q.text.replace("<image>", "").strip() for q in batch]
    return answer(model, tokenizer, template, list(zip(texts, features)), most, other)

"""A trained LLaVA answers a file of questions, and what it says without the picture: what `minillava judge` reads (section 5).

Notable: questions are the authors' files - LLaVA-Bench, POPE, or with --format ScienceQA's problems - and so are the answers.
Each batch is written when it is made, so a stopped run goes on; answers of other weights or settings are never mixed in.
--look gives the controls: every picture blanked, exchanged for another question's, or left out.

    minillava answer data_samples/bench/coco/questions.jsonl --images data_samples/bench/coco/images --out answers.jsonl
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from minillava import scales
from minillava.chat import Chat, on
from minillava.data.images import open_picture
from minillava.data.scienceqa import FORMATS, Problem, question_text, read_labels
from minillava.files import FileError, by_key, write_text
from minillava.judging.answer_scienceqa import OURS, THEIRS, solve
from minillava.judging.answers import BLANK, LOOKS, answer, blank, see
from minillava.judging.pope import read_rows
from minillava.machine import bar
from minillava.model import SpliceError

LOOK = {tag.removeprefix("-") or "picture": look for tag, look in LOOKS.items()}  # picture, blank, shuffled, text
BATCH = 32
ANSWER, REASONS = 120, 1024  # most tokens of an answer; of ScienceQA's reasons, as the authors had it


def arguments(parser) -> None:
    """Declare what the verb is given."""
    parser.add_argument(
        "questions", type=Path, help="JSONL; with --format ScienceQA's problems.json, folder or parquet"
    )
    parser.add_argument("--images", type=Path, required=True, help="the folder of the pictures")
    parser.add_argument("--out", type=Path, required=True, help="a JSONL of answers; a stopped run goes on there")
    parser.add_argument(
        "--weights", default=scales.WEIGHTS / "llava", help="a folder or a hub id that holds a trained LLaVA"
    )
    parser.add_argument("--template", help="the form of the conversation, where the weights do not say theirs")
    parser.add_argument(
        "--look",
        choices=("picture", "blank", "shuffled", "text"),
        default="picture",
        help="the controls: what is shown",
    )
    parser.add_argument("--format", choices=FORMATS, help="ScienceQA: the form that the weights were trained under")
    parser.add_argument("--authors-joint", action="store_true", help="QCM-LEPA: between the two steps what the authors' script put there, not what stands in training")  # fmt: skip
    parser.add_argument("--split", default="test", help="ScienceQA: train, val or test (default: test)")
    parser.add_argument("--limit", type=int, help="only so many questions, the first")
    parser.add_argument("--batch", type=int, default=32, help="questions at a time (default: 32)")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        help="the longest answer (default: 120; ScienceQA's reasons: 1024, as the authors)",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="(default: bfloat16 on a GPU, else float32)"
    )


@dataclass(frozen=True)
class Asked:
    """One question. known: what its answer's row begins with. text: without the image token. problem: where it is ScienceQA's."""

    known: dict
    text: str
    image: str | None
    problem: Problem | None = None

    @property
    def name(self) -> tuple:
        return self.known.get("category"), self.known["question_id"]


def read_asked(path: Path, science: bool = False, split: str = "test") -> list[Asked]:
    """The questions of a file in its order: JSONL of question_id, text and image, or ScienceQA's problems of a split.

    Raises FileError or ScienceError naming file and row.
    """
    if science:
        problems = read_labels(path, split).values()
        return [Asked({"question_id": p.id}, question_text(p), p.image, p) for p in problems]
    rows = read_rows(path)
    for n, row in enumerate(rows, 1):
        if "question_id" not in row or not isinstance(row.get("text"), str) or not row["text"].strip():
            raise FileError(f"{path}, row {n}: a question needs `question_id` and `text`")
    if not rows:
        raise FileError(f"{path}: no questions in it")
    for category in {row.get("category") for row in rows}:
        by_key([row for row in rows if row.get("category") == category], path, "question_id")
    several = len({row["question_id"] for row in rows}) < len(rows)  # ids start again in each category: POPE
    known = [{k: row[k] for k in ("question_id", *(["category"] if several else []))} for row in rows]
    return [Asked(k, row["text"], row.get("image")) for k, row in zip(known, rows)]


def kept(path: Path, about: dict) -> list[dict]:
    """The answers that are there already; a row that was cut off is made again. Raises FileError for another run's."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    lines, _, torn = text.rpartition("\n")
    try:
        rows = [json.loads(line) for line in lines.splitlines() if line.strip()]
        other = [r.get("metadata") for r in rows if r.get("metadata") != about]
    except (ValueError, AttributeError) as error:
        raise FileError(f"{path}: not a file of answers ({error}); choose another --out") from error
    if other or (torn and not rows):
        what = f"of {other[0]}" if other else "of something else"
        raise FileError(f"{path} holds answers {what}, not of {about}; choose another --out, or remove it")
    if torn:
        write_text(path, lines + "\n")
    return rows


def digest(talk: Chat) -> str:
    """A short digest of W, which every training changes: it tells one set of weights from another."""
    found = hashlib.sha256()
    for _, tensor in sorted(talk.model.projector.state_dict().items()):
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


class Shown:
    """The features of a batch's pictures, the last few kept: neighbours often ask about the same one."""

    def __init__(self, talk: Chat, images: Path):
        self.talk, self.images = talk, images
        self.of = lru_cache(2 * BATCH)(self._of)

    def _of(self, name: str) -> torch.Tensor:
        size = self.talk.model.config.vision.image_size
        picture = blank(size) if name == BLANK else open_picture(self.images / name)
        return see(self.talk.model, self.talk.normal, [picture])[0]  # (P, Dv)


def write_answers(
    talk: Chat, asked: Sequence[Asked], images: Path, out: Path, model_id: str, look: str = "picture",
    format: str | None = None, most: int = ANSWER, batch: int = BATCH, joint: str = OURS,
) -> int:  # fmt: skip
    """Answers to all questions as rows of `out`, which a stopped run goes on with; how many were made now.

    model_id: what the rows call the model. look: one of LOOK. format: one of scienceqa.FORMATS where the questions are
    problems. most: tokens of an answer; of the reasons, where the answer is asked for in a second step. joint: what stands
    between the two steps (pupil.OURS as in training, THEIRS as the authors' script had it). Raises FileError, naming the first, where pictures are missing, a question is too long, or another run writes there, and ImageError for
    a picture that cannot be opened.
    """
    lost = sorted({a.image for a in asked if a.image and not (images / a.image).is_file()})
    if lost and look in ("picture", "shuffled"):
        raise FileError(
            f"{images / lost[0]}: no such picture ({len(lost)} missing in all); --images names their folder"
        )
    if look == "shuffled" and len({a.image for a in asked if a.image}) < 2:
        raise FileError("--look shuffled shows another question's picture, so it needs questions about two or more")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out.with_name(f".{out.name}.lock"), timeout=0):
            return _write(talk, asked, images, out, model_id, look, format, most, batch, joint)
    except Timeout:
        raise FileError(f"{out}: another run writes its answers there; wait for it, or choose another --out") from None


def _write(talk, asked, images, out, model_id, look, format, most, batch, joint) -> int:
    about = {"weights": digest(talk), "look": look, "format": format, "most": most}
    about |= {} if joint == OURS else {"joint": joint}
    done = {(row.get("category"), row.get("question_id")) for row in kept(out, about)}
    turned = iter(LOOK[look]([a.image for a in asked if a.image]))
    names = [next(turned) if a.image else None for a in asked]  # the picture each question is shown
    missing = [(a, name) for a, name in zip(asked, names) if a.name not in done]
    shown = Shown(talk, images)
    with open(out, "a", encoding="utf-8") as file, bar(len(asked), "answer") as progress:
        progress.update(len(asked) - len(missing))
        for start in range(0, len(missing), batch):
            some = missing[start : start + batch]
            try:
                texts = _say(talk, [a for a, _ in some], [n and shown.of(n) for _, n in some], format, most, joint)
            except SpliceError as error:  # which counts from the first of the batch
                first, last = some[0][0].known["question_id"], some[-1][0].known["question_id"]
                raise FileError(f"questions {first} to {last}: {error}") from error
            for (a, _), text in zip(some, texts):
                row = {**a.known, "prompt": a.text, "text": text, "answer_id": f"{about['weights']}-{look}-{a.known['question_id']}"}  # fmt: skip
                file.write(json.dumps(row | {"model_id": model_id, "metadata": about}) + "\n")
            file.flush()
            progress.update(len(some))
    return len(missing)


@torch.inference_mode()
def _say(talk: Chat, asked: list[Asked], features: list, format: str | None, most: int, joint: str) -> list[str]:
    if format:
        problems = [a.problem for a in asked]
        return solve(talk.model, talk.tokenizer, talk.template, problems, features, format, joint, reasons=most)
    texts = [a.text.replace("<image>", "").strip() for a in asked]
    return answer(talk.model, talk.tokenizer, talk.template, list(zip(texts, features)), most)


def run(options) -> None:
    """Answers to a file of questions, in the authors' format, by a trained LLaVA. The same command goes on."""
    if options.limit is not None and options.limit < 1:
        raise FileError(f"--limit {options.limit}: at least 1 is needed")
    asked = read_asked(options.questions, bool(options.format), options.split)[: options.limit]
    most = (REASONS if options.format else ANSWER) if options.max_new_tokens is None else options.max_new_tokens
    if options.batch < 1 or most < 1:
        raise FileError("--batch and --max-new-tokens must be at least 1")
    if options.authors_joint and options.format != "QCM-LEPA":
        raise FileError("--authors-joint stands between the two steps of --format QCM-LEPA; the others have one")
    talk = Chat(options.weights, options.template, *on(options.dtype))
    name = options.weights if isinstance(options.weights, str) else options.weights.name
    made = write_answers(
        talk, asked, options.images, options.out, name, options.look, options.format, most, options.batch,
        THEIRS if options.authors_joint else OURS,
    )  # fmt: skip
    print(f"{options.out}: {len(asked):,} answers, {made:,} of them made now, shown: {options.look}")

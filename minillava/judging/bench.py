"""The picture book's LLaVA-Bench: held-out scenes x conversation, detail, complex, and the exact-match questions.

Notable: files in the authors' formats (facts C): questions, context (caps_boxes) and reference answers as JSONL. The
reference answers are the text-only teacher's, who read captions and boxes, as text-only GPT-4's are in the paper:
an upper bound, not a rival. `coco` is drawn like the training pictures, `wild` is not (section 5.1).
"""

from dataclasses import dataclass
from pathlib import Path

from minillava.datagen.messages import context
from minillava.datagen.pictures import Bad, box_of
from minillava.files import FileError, by_key, read_jsonl, write_jsonl

CATEGORIES = ("conv", "detail", "complex")


@dataclass(frozen=True)
class Item:
    """One question of a benchmark with what the judge is given beside it."""

    question_id: int
    image: str
    text: str
    category: str
    context: str
    reference: str


def write_bench(items: list[Item], folder: Path) -> None:
    """The benchmark as the authors' three files: questions.jsonl, context.jsonl, reference.jsonl."""
    keep = lambda item, *names: {n: getattr(item, n) for n in names}  # noqa: E731
    write_jsonl([keep(i, "question_id", "image", "text", "category") for i in items], folder / "questions.jsonl")
    write_jsonl([keep(i, "question_id", "context") for i in items], folder / "context.jsonl")
    write_jsonl(
        [{"question_id": i.question_id, "text": i.reference, "category": i.category} for i in items],
        folder / "reference.jsonl",
    )


def _context_text(row: dict, path: Path) -> str:
    """What one row of a context file tells: this project's own, captions and boxes (COCO), or a caption (In-the-Wild)."""
    name, told = row.get("image", row.get("question_id")), row.get("context", row.get("captions", row.get("caption")))
    if told is None or told == []:
        raise FileError(f"{path}: {name!r} has none of `context`, `captions`, `caption`")
    lines = told if isinstance(told, list) else [told]
    if not all(isinstance(line, str) for line in lines):
        raise FileError(f"{path}: what is told of {name!r} is not text: {str(told)[:60]}")
    if "context" in row:
        return "\n".join(lines)
    things = row.get("instances", [])
    if not isinstance(things, list) or not all(isinstance(thing, dict) for thing in things):
        raise FileError(f"{path}: the `instances` of {name!r} are not a list of category and bbox")
    try:
        for thing in things:
            box_of(thing.get("category"), thing.get("bbox"))
    except Bad as error:
        raise FileError(f"{path}: {name!r}: {error}") from error
    return context(lines, [(thing["category"], thing["bbox"]) for thing in things])


def load_bench(questions: Path, contexts: Path, references: Path) -> list[Item]:
    """A benchmark from its three files, the authors' or this project's: LLaVA-Bench (COCO), (In-the-Wild), the picture book's.

    Contexts go with a question by `question_id`, or else by `image`, and may be more than are needed (80 pictures for 30).
    Raises FileError where the files do not join one to one, an id stands twice, or a field is missing.
    """
    asked = by_key(read_jsonl(questions), questions, "question_id")
    answered = by_key(read_jsonl(references), references, "question_id")
    rows = read_jsonl(contexts)
    key = "question_id" if rows and "question_id" in rows[0] else "image"
    known = {name: _context_text(row, contexts) for name, row in by_key(rows, contexts, key).items()}
    if not asked:
        raise FileError(f"{questions}: no questions in it")
    for path, ids in ((contexts, known if key == "question_id" else asked), (references, answered)):
        if ids.keys() != asked.keys():
            raise FileError(f"{path} does not hold the questions of {questions}: {_difference(asked, ids)}")
    items = []
    for i, row in asked.items():
        for field in ("image", "text", "category"):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise FileError(f"{questions}: question {i} has no {field!r}, which must be text")
        text = answered[i].get("text")
        if not isinstance(text, str) or not text.strip():
            raise FileError(f"{references}: no reference answer to question {i}")
        if row.get(key) not in known:
            raise FileError(f"{contexts}: no context for {row.get(key)!r}, which question {i} is about")
        items.append(Item(i, row["image"], row["text"], row["category"], known[row[key]], answered[i]["text"]))
    return items


def _difference(one, two) -> str:
    """Where two sets of ids differ, in a few words."""
    lacks, more = [i for i in one if i not in two], [i for i in two if i not in one]
    parts = [f"{len(lacks)} missing, such as {lacks[0]!r}"] if lacks else []
    return "; ".join(parts + ([f"{len(more)} too many, such as {more[0]!r}"] if more else []))


def read_bench(folder: Path) -> list[Item]:
    """The benchmark of a folder that `write_bench` wrote. Raises FileError as `load_bench` does."""
    return load_bench(*(Path(folder) / f"{name}.jsonl" for name in ("questions", "context", "reference")))


def score_pairs(reviews: list[dict], category: str | None = None) -> list[tuple[float, float]]:
    """(reference, candidate) scores, of one category or of all."""
    return [tuple(r["tuple"]) for r in reviews if category in (None, r["category"])]

"""The picture book's LLaVA-Bench: held-out scenes x conversation, detail, complex, and the exact-match questions.

The files have the authors' formats (facts C): questions, context (caps_boxes) and reference answers as JSONL. The
reference answers come from the text-only teacher, who reads captions and boxes, as text-only GPT-4 does in the paper:
they are an upper bound, not a rival. `coco` is drawn like the training pictures, `wild` is not (section 5.1).
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from minillava.datagen.messages import context
from minillava.datagen.pictures import BadRecord, parse_box
from minillava.files import FileError, by_key, read_jsonl, write_jsonl

CATEGORIES = ("conv", "detail", "complex")


@dataclass(frozen=True)
class Item:
    """One question of a benchmark, with the context and the reference answer that the judge reads."""

    question_id: int
    image: str
    text: str
    category: str
    context: str
    reference: str


def write_bench(items: list[Item], folder: Path) -> None:
    """The benchmark as the authors' three files: questions.jsonl, context.jsonl, reference.jsonl."""
    rows = [asdict(item) for item in items]

    def write(name, *fields):
        write_jsonl([{field: row[field] for field in fields} for row in rows], folder / f"{name}.jsonl")

    write("questions", "question_id", "image", "text", "category")
    write("context", "question_id", "context")
    for row in rows:
        row["text"] = row["reference"]
    write("reference", "question_id", "text", "category")


def _context_text(row: dict, path: Path) -> str:
    """The text of one row of a context file: this project's `context`, `captions` and boxes (COCO), or a `caption`."""
    name, given = row.get("image", row.get("question_id")), row.get("context", row.get("captions", row.get("caption")))
    if given is None or given == []:
        raise FileError(f"{path}: {name!r} has none of `context`, `captions`, `caption`")
    lines = given if isinstance(given, list) else [given]
    if not all(isinstance(line, str) for line in lines):
        raise FileError(f"{path}: the context of {name!r} is not text: {str(given)[:60]}")
    if "context" in row:
        return "\n".join(lines)
    instances = row.get("instances", [])
    if not isinstance(instances, list) or not all(isinstance(instance, dict) for instance in instances):
        raise FileError(f"{path}: the `instances` of {name!r} are not a list of category and bbox")
    try:
        for instance in instances:
            parse_box(instance.get("category"), instance.get("bbox"))
    except BadRecord as error:
        raise FileError(f"{path}: {name!r}: {error}") from error
    return context(lines, [(instance["category"], instance["bbox"]) for instance in instances])


def load_bench(questions: Path, contexts: Path, references: Path) -> list[Item]:
    """A benchmark from its three files: LLaVA-Bench (COCO), LLaVA-Bench (In-the-Wild), or the picture book's.

    A context belongs to a question by `question_id` or else by `image`; there may be more than are needed (80 pictures
    for 30). Raises FileError where the files do not join one to one, an id occurs twice, or a field is missing.
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
            raise FileError(f"{contexts}: no context for {row.get(key)!r}, the {key} of question {i}")
        items.append(Item(i, row["image"], row["text"], row["category"], known[row[key]], text))
    return items


def _difference(expected, found) -> str:
    """How two sets of ids differ, in a few words."""
    missing, extra = [i for i in expected if i not in found], [i for i in found if i not in expected]
    parts = [f"{len(missing)} missing, such as {missing[0]!r}"] if missing else []
    return "; ".join(parts + ([f"{len(extra)} too many, such as {extra[0]!r}"] if extra else []))


def read_bench(folder: Path) -> list[Item]:
    """The benchmark of a folder that `write_bench` wrote. Raises FileError as `load_bench` does."""
    return load_bench(*(Path(folder) / f"{name}.jsonl" for name in ("questions", "context", "reference")))


def another_question(row: dict, *texts: str, image: str | None = None) -> str:
    """Why a row of answers is not to the question with its id, which has these texts; "" if nothing says so.

    Its `prompt`, if it has one, must have all texts; spaces and `<image>` do not count, and scripts add instructions.
    Its `image`, if it has one, must be the question's picture.
    """
    prompt, shown = row.get("prompt"), row.get("image")
    if isinstance(prompt, str) and not all(_words(text) in _words(prompt) for text in texts):
        return f"the answer is to another question, {_words(prompt)[:80]!r}"
    if image and isinstance(shown, str) and Path(shown).name != Path(image).name:
        return f"the answer is about another picture, {shown[:80]!r}"
    return ""


def _words(text: str) -> str:
    return " ".join(text.replace("<image>", " ").split())


def score_pairs(reviews: list[dict], category: str | None = None) -> list[tuple[float, float]]:
    """(reference, candidate) scores of rows of reviews, of one category or of all."""
    return [tuple(r["tuple"]) for r in reviews if category in (None, r["category"])]

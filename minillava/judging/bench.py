"""The picture book's LLaVA-Bench: held-out scenes x conversation, detail, complex, and the exact-match questions.

Notable: files in the authors' formats (facts C): questions, context (caps_boxes) and reference answers as JSONL. The
reference answers are the text-only teacher's, who read captions and boxes, as text-only GPT-4's are in the paper:
an upper bound, not a rival. `coco` is drawn like the training pictures, `wild` is not (section 5.1).
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from minillava.datagen.questions import EXACT, Question, balanced, is_reasoning, questions
from minillava.datagen.teacher import DETAIL_QUESTIONS, context, describe, read_context
from minillava.judging.judge import RULE, review
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes
from minillava.scenes.world import Scene

CATEGORIES = ("conv", "detail", "complex")
SPLIT_OF = {"coco": "bench", "wild": "wild"}


class BenchError(ValueError):
    """Benchmark files that do not fit together; the message names file and question."""


@dataclass(frozen=True)
class Item:
    """One question of a benchmark with what the judge is given beside it."""

    question_id: int
    image: str
    text: str
    category: str
    context: str
    reference: str


def _pick(rng: random.Random, pool: list[Question]) -> Question:
    """A question of an evenly drawn kind, its answer evenly drawn."""
    kind = rng.choice(sorted({q.kind for q in pool}))
    key = rng.choice(sorted({q.key for q in pool if q.kind == kind}))
    return rng.choice([q for q in pool if q.kind == kind and q.key == key])


def build(name: str, count: int) -> list[Item]:
    """`count` scenes x three questions. name: `coco` or `wild`. Raises KeyError for another name."""
    items = []
    for n, scene in enumerate(scenes(SPLIT_OF[name], count)):
        rng, record = random.Random(f"bench {scene.id}"), caps_boxes(scene)
        text = context(record["captions"], [(i["category"], i["bbox"]) for i in record["instances"]])
        told = read_context(text, scene.id)
        known = questions(told)
        conv = _pick(rng, [q for q in known if q.kind in (*EXACT, "doing") and not is_reasoning(q)])
        reasoning = _pick(rng, [q for q in known if is_reasoning(q)])
        asked = (
            (conv.text, conv.answer),
            (rng.choice(DETAIL_QUESTIONS), describe(told)),
            (reasoning.text, reasoning.answer),
        )
        for k, (question, answer) in enumerate(asked):
            items.append(Item(3 * n + k, record["image"], question, CATEGORIES[k], text, answer))
    return items


def exact(split: str, count: int, per_kind: int) -> list[tuple[Scene, Question]]:
    """Balanced exact-match questions over the first `count` scenes of a split."""
    return balanced(scenes(split, count), per_kind)


def write_jsonl(rows: list[dict], path: Path) -> None:
    """Rows as JSONL, written beside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    beside.replace(path)


def read_jsonl(path: Path) -> list[dict]:
    """The rows of a JSONL file. Raises BenchError naming file and line."""
    rows = []
    for n, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise BenchError(f"{path}, line {n}: not JSON ({error})") from error
    return rows


def write_bench(items: list[Item], folder: Path) -> None:
    """The benchmark as the authors' three files: questions.jsonl, context.jsonl, reference.jsonl."""
    keep = lambda item, *names: {n: getattr(item, n) for n in names}  # noqa: E731
    write_jsonl([keep(i, "question_id", "image", "text", "category") for i in items], folder / "questions.jsonl")
    write_jsonl([keep(i, "question_id", "context") for i in items], folder / "context.jsonl")
    write_jsonl(
        [{"question_id": i.question_id, "text": i.reference, "category": i.category} for i in items],
        folder / "reference.jsonl",
    )


def read_bench(folder: Path) -> list[Item]:
    """The benchmark of a folder. Raises BenchError when its files do not join one to one."""
    tables = {}
    for name in ("questions", "context", "reference"):
        rows = read_jsonl(folder / f"{name}.jsonl")
        tables[name] = {row["question_id"]: row for row in rows}
        if len(tables[name]) != len(rows):
            raise BenchError(f"{folder / name}.jsonl: a question_id stands twice")
        if tables[name].keys() != tables["questions"].keys():
            raise BenchError(f"{folder / name}.jsonl does not hold the questions of questions.jsonl")
    return [
        Item(**q, context=tables["context"][i]["context"], reference=tables["reference"][i]["text"])
        for i, q in tables["questions"].items()
    ]


def judge_answers(items: list[Item], answers: dict[int, str], model_id: str) -> list[dict]:
    """One review a question, in the authors' row format plus the judge's id. Raises BenchError for a missing answer."""
    missing = [i.question_id for i in items if i.question_id not in answers]
    if missing:
        raise BenchError(f"{model_id}: no answer to question {missing[0]} ({len(missing)} missing in all)")
    rows = []
    for item in items:
        content = review(item.context, item.text, [item.reference, answers[item.question_id]])
        scores = [float(v) for v in content.partition("\n")[0].split()]
        rows.append({"id": len(rows), "question_id": item.question_id, "answer1_id": "teacher", "answer2_id": model_id,
                     "category": item.category, "content": content, "tuple": scores, "judge": RULE})  # fmt: skip
    return rows


def pairs_of(reviews: list[dict], category: str | None = None) -> list[tuple[float, float]]:
    """(reference, candidate) scores, of one category or of all."""
    return [tuple(r["tuple"]) for r in reviews if category in (None, r["category"])]

"""The picture book's LLaVA-Bench: held-out scenes x conversation, detail, complex, and the exact-match questions.

Notable: files in the authors' formats (facts C): questions, context (caps_boxes) and reference answers as JSONL. The
reference answers are the text-only teacher's, who read captions and boxes, as text-only GPT-4's are in the paper:
an upper bound, not a rival. `coco` is drawn like the training pictures, `wild` is not (section 5.1).
"""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from minillava.datagen.pictures import Bad, box_of
from minillava.datagen.questions import EXACT, Question, balanced, is_reasoning, questions
from minillava.datagen.teacher import DETAIL_QUESTIONS, context, describe, read_context
from minillava.judging.files import BenchError, read_jsonl, table, write_jsonl
from minillava.judging.judge import RULE, review
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes
from minillava.scenes.world import Scene

CATEGORIES = ("conv", "detail", "complex")
SPLIT_OF = {"coco": "bench", "wild": "wild"}


@dataclass(frozen=True)
class Item:
    """One question of a benchmark with what the judge is given beside it."""

    question_id: int
    image: str
    text: str
    category: str
    context: str
    reference: str


# The kinds of question -> how many different answers each has here, all things taken as one.
ANSWERS = {"existence": 2, "colour": 8, "count": 4, "place": 5, "side": 3, "relation": 4, "odd": 2, "doing": 1, "use": 2, "doors": 2}  # fmt: skip
THINGS = ("odd", "relation", "use", "doing")  # the kinds that are answered with a thing, or with what somebody does


def _slot(question: Question) -> tuple[str, str]:
    """Its kind, and the answer that is to be no more frequent than the kind's others."""
    plain = question.kind not in THINGS or question.key in ("yes", "no", "nothing")
    return question.kind, question.key if plain else "a thing"


def _pick(rng: random.Random, pool: list[Question], used: Counter) -> Question:
    """A question of the kind and answer that fewest were drawn of so far, so that no habit of answering is worth much:
    most scenes offer many questions whose answer is "nothing" or "outdoors", and few others."""
    slots = sorted({_slot(q) for q in pool})
    least = min(used[s] * ANSWERS[s[0]] for s in slots)
    slot = rng.choice([s for s in slots if used[s] * ANSWERS[s[0]] == least])
    used[slot] += 1
    key = rng.choice(sorted({q.key for q in pool if _slot(q) == slot}))
    return rng.choice([q for q in pool if _slot(q) == slot and q.key == key])


def build(name: str, count: int) -> list[Item]:
    """`count` scenes x three questions, the answers as even as the scenes allow. name: `coco` or `wild`.

    A larger benchmark begins with the smaller. Raises KeyError for another name.
    """
    items, used = [], {category: Counter() for category in CATEGORIES}
    for n, scene in enumerate(scenes(SPLIT_OF[name], count)):
        rng, record = random.Random(f"bench {scene.id}"), caps_boxes(scene)
        text = context(record["captions"], [(i["category"], i["bbox"]) for i in record["instances"]])
        told = read_context(text, scene.id)
        known = questions(told)
        conv = _pick(rng, [q for q in known if q.kind in (*EXACT, "doing") and not is_reasoning(q)], used["conv"])
        reasoning = _pick(rng, [q for q in known if is_reasoning(q)], used["complex"])
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


def write_bench(items: list[Item], folder: Path) -> None:
    """The benchmark as the authors' three files: questions.jsonl, context.jsonl, reference.jsonl."""
    keep = lambda item, *names: {n: getattr(item, n) for n in names}  # noqa: E731
    write_jsonl([keep(i, "question_id", "image", "text", "category") for i in items], folder / "questions.jsonl")
    write_jsonl([keep(i, "question_id", "context") for i in items], folder / "context.jsonl")
    write_jsonl(
        [{"question_id": i.question_id, "text": i.reference, "category": i.category} for i in items],
        folder / "reference.jsonl",
    )


def _told(row: dict, path: Path) -> str:
    """What one row of a context file tells: this project's own, captions and boxes (COCO), or a caption (In-the-Wild)."""
    name, told = row.get("image", row.get("question_id")), row.get("context", row.get("captions", row.get("caption")))
    if told is None or told == []:
        raise BenchError(f"{path}: {name!r} has none of `context`, `captions`, `caption`")
    lines = told if isinstance(told, list) else [told]
    if not all(isinstance(line, str) for line in lines):
        raise BenchError(f"{path}: what is told of {name!r} is not text: {str(told)[:60]}")
    if "context" in row:
        return "\n".join(lines)
    things = row.get("instances", [])
    if not isinstance(things, list) or not all(isinstance(thing, dict) for thing in things):
        raise BenchError(f"{path}: the `instances` of {name!r} are not a list of category and bbox")
    try:
        for thing in things:
            box_of(thing.get("category"), thing.get("bbox"))
    except Bad as error:
        raise BenchError(f"{path}: {name!r}: {error}") from error
    return context(lines, [(thing["category"], thing["bbox"]) for thing in things])


def load_bench(questions: Path, contexts: Path, references: Path) -> list[Item]:
    """A benchmark from its three files, the authors' or this project's: LLaVA-Bench (COCO), (In-the-Wild), the picture book's.

    Contexts go with a question by `question_id`, or else by `image`, and may be more than are needed (80 pictures for 30).
    Raises BenchError where the files do not join one to one, an id stands twice, or a field is missing.
    """
    asked = table(read_jsonl(questions), questions, "question_id")
    answered = table(read_jsonl(references), references, "question_id")
    rows = read_jsonl(contexts)
    key = "question_id" if rows and "question_id" in rows[0] else "image"
    known = {name: _told(row, contexts) for name, row in table(rows, contexts, key).items()}
    if not asked:
        raise BenchError(f"{questions}: no questions in it")
    for path, ids in ((contexts, known if key == "question_id" else asked), (references, answered)):
        if ids.keys() != asked.keys():
            raise BenchError(f"{path} does not hold the questions of {questions}: {_differ(asked, ids)}")
    items = []
    for i, row in asked.items():
        for field in ("image", "text", "category"):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise BenchError(f"{questions}: question {i} has no {field!r}, which must be text")
        text = answered[i].get("text")
        if not isinstance(text, str) or not text.strip():
            raise BenchError(f"{references}: no reference answer to question {i}")
        if row.get(key) not in known:
            raise BenchError(f"{contexts}: no context for {row.get(key)!r}, which question {i} is about")
        items.append(Item(i, row["image"], row["text"], row["category"], known[row[key]], answered[i]["text"]))
    return items


def _differ(one, two) -> str:
    """Where two sets of ids differ, in a few words."""
    lacks, more = [i for i in one if i not in two], [i for i in two if i not in one]
    parts = [f"{len(lacks)} missing, such as {lacks[0]!r}"] if lacks else []
    return "; ".join(parts + ([f"{len(more)} too many, such as {more[0]!r}"] if more else []))


def read_bench(folder: Path) -> list[Item]:
    """The benchmark of a folder that `write_bench` wrote. Raises BenchError as `load_bench` does."""
    return load_bench(*(Path(folder) / f"{name}.jsonl" for name in ("questions", "context", "reference")))


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

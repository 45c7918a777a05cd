"""Hallucination: yes-or-no questions about a picture, half of them about things that are not there (POPE's protocol).

The absent thing is drawn at random, is one of the most frequent (popular), or is one that most often occurs together
with what is there (adversarial). A model that answers from habit says yes more often from the first kind to the last.
The paper names hallucination as a risk (App. A) but does not measure it; protocol and files are those of arXiv
2305.10355. The yes-rate is reported too, because a model that always says yes has a recall of 100 %.

    minillava judge pope ANSWERS QUESTIONS
"""

import random
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

from minillava.files import Excluded, FileError, by_key, is_id, read_json, read_jsonl

NEGATIVES = ("random", "popular", "adversarial")
DENIALS = {"no", "not", "none", "nothing", "isn't", "aren't", "cannot", "can't"}


def build_pope(records: list[dict], per_picture: int = 6, seed: int = 0) -> list[dict]:
    """The questions with all three kinds of negatives: rows of question_id, image, text, label, category.

    records: caps_boxes rows (image, instances). For each picture and kind there are `per_picture` questions, half of
    them with the answer yes. Pictures with fewer kinds of things give fewer, as many yes as no. The yes-questions are
    the same for all three. Raises FileError if no picture shows anything, or if `per_picture` is odd.
    """
    if per_picture < 2 or per_picture % 2:
        raise FileError(f"per_picture {per_picture}: half are yes and half are no, so an even number is needed")
    present = {r["image"]: sorted({i["category"] for i in r["instances"]}) for r in records}
    frequency = Counter(kind for kinds in present.values() for kind in kinds)
    together = defaultdict(Counter)
    for kinds in present.values():
        for a, b in combinations(kinds, 2):
            together[a][b] += 1
            together[b][a] += 1
    rows = []
    for category in NEGATIVES:
        for image, kinds in present.items():
            rng = random.Random(f"pope {seed} {image}")
            absent = [k for k in sorted(frequency) if k not in kinds]
            count = min(per_picture // 2, len(kinds), len(absent))
            there = rng.sample(kinds, count)
            rng.shuffle(absent)
            if category == "popular":
                absent.sort(key=lambda k: -frequency[k])
            elif category == "adversarial":
                absent.sort(key=lambda k: (-sum(together[t][k] for t in kinds), -frequency[k]))
            for kind, label in [asked for pair in zip(there, absent) for asked in zip(pair, ("yes", "no"))]:
                text = f"Is there {'an' if kind[0] in 'aeiou' else 'a'} {kind}?"
                row = {"question_id": len(rows), "image": image, "text": text, "label": label, "category": category}
                rows.append(row)
    if not rows:
        raise FileError("no picture shows anything, so there is nothing to ask about")
    return rows


def read_yes_no(text: str) -> str | None:
    """yes or no, from the first sentence; None if it is neither."""
    words = text.strip().lower().replace("n’t", "n't").split(".")[0].replace(",", " ").replace("!", " ").split()
    if words and words[0] in ("yes", "no"):
        return words[0]
    if DENIALS & set(words):
        return "no"
    return "yes" if "yes" in words or {"there", "is"} <= set(words) or {"there", "are"} <= set(words) else None


def read_rows(path: Path) -> list[dict]:
    """The rows of one of POPE's files: JSONL under any name, or a JSON list."""
    if path.read_text(encoding="utf-8", errors="replace").lstrip().startswith("["):
        return [dict(row) if isinstance(row, dict) else {} for row in read_json(path)]
    return read_jsonl(path)


def read_questions(paths: list[Path]) -> list[dict]:
    """POPE's questions with their labels, from one file with `category`, or several named so (`coco_pope_random.json`).

    Questions without labels (the authors' llava_pope_test.jsonl) take them from the other files, by picture and text.
    Raises FileError naming file and row for a missing text, no label of yes or no, or an id that occurs twice.
    """
    asked, labels = {True: [], False: []}, {}
    for path in map(Path, paths):
        for n, row in enumerate(read_rows(path), 1):
            valid = isinstance(row.get("text"), str) and is_id(row.get("question_id"))
            if not valid or row.get("label", "no") not in ("yes", "no"):
                raise FileError(f"{path}, row {n}: a question needs `question_id`, `text` and a `label` of yes or no")
            if not all(isinstance(row.get(field), str | None) for field in ("image", "category")):
                raise FileError(f"{path}, row {n}: `image` and `category` must be text")
            key = row.get("image"), row["text"].partition("\n")[0].strip()
            if "label" in row:
                labels[key] = row["label"]
            category = row.get("category") or path.stem.rpartition("_")[2]
            asked["label" in row].append((row | {"category": category}, key, path))
    chosen, questions = asked[not asked[False]], []  # rows without a label are the questions; the others have labels
    for row, key, path in chosen:
        if key not in labels:
            raise FileError(f"{path}: question {row['question_id']} has no label, here or in a file of labels")
        questions.append(row | {"label": labels[key]})
    for category in {q["category"] for q in questions}:
        by_key([q for q in questions if q["category"] == category], paths[0], "question_id")
    return questions


def measures(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and yes-rate in per cent, from (label, answer) pairs; yes is the positive class.

    Precision is 0 if no answer is yes; F1 is 0 if precision and recall are. Raises FileError without pairs.
    """
    if not pairs:
        raise FileError("no answers to score")
    count, total = Counter(pairs), len(pairs)
    hits, true = count["yes", "yes"], sum(label == "yes" for label, _ in pairs)
    said_yes = sum(answer == "yes" for _, answer in pairs)
    precision, recall = hits / said_yes if said_yes else 0.0, hits / true if true else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    accuracy = (hits + count["no", "no"]) / total
    parts = {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1, "yes": said_yes / total}
    return {name: round(100 * value, 2) for name, value in parts.items()} | {"questions": total}


def evaluate(questions: list[dict], answers: list[dict]) -> dict:
    """POPE's scores by kind of negatives and over all (none if no answer could be read), and what was excluded.

    answers: rows of question_id and text, with `category` if ids repeat. Raises FileError if none fits a question.
    """
    several = len({q["question_id"] for q in questions}) < len(questions)

    def key(row: dict):
        return (row.get("category"), row.get("question_id")) if several else row.get("question_id")

    def valid(row: dict) -> bool:
        return is_id(row.get("question_id")) and isinstance(row.get("category"), str | None)

    known, rows = {key(q) for q in questions}, [a for a in answers if valid(a)]
    times, texts = Counter(map(key, rows)), {key(a): a.get("text") for a in rows}
    pairs, excluded = defaultdict(list), []
    for q in questions:
        text = texts.get(key(q))
        read = read_yes_no(text) if isinstance(text, str) else None
        why = (
            "no answer" if key(q) not in texts
            else f"answered {times[key(q)]} times" if times[key(q)] > 1
            else "an empty answer" if not isinstance(text, str) or not text.strip()
            else f"neither yes nor no: {text[:60]!r}" if read is None
            else ""
        )  # fmt: skip
        if why:
            excluded.append(Excluded(f"question {q['question_id']} ({q['category']})", why))
        else:
            pairs[q["category"]].append((q["label"], read))
    unknown = [a for a in answers if not valid(a) or key(a) not in known]
    excluded += [Excluded(f"question {a.get('question_id')}", "not a question of this set") for a in unknown]
    if not known & texts.keys():
        what = f"none of the {len(answers)} answers belongs to one of the {len(questions)} questions"
        raise FileError(f"{what}; is this a file of another set?")
    scores = {category: measures(some) for category, some in pairs.items()}
    scores |= {"all": measures([pair for some in pairs.values() for pair in some])} if pairs else {}
    return {"scores": scores, "excluded": [str(e) for e in excluded]}

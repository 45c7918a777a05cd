"""Hallucination: yes-or-no questions about what is in a picture, half of them about what is not (POPE's protocol).

Notable: a "no" can be hard in three ways. The absent thing is drawn at random, is one of the most frequent, or is one that
most often stands beside what is there (adversarial); a model that answers from habit says yes more and more often from the
first to the last. The paper names hallucination as a risk (App. A) and does not measure it; the protocol is that of
"Evaluating Object Hallucination in Large Vision-Language Models" (arXiv 2305.10355), and its files are read as they are.
The yes-rate stands beside the scores: who always says yes has a recall of 100 %.

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
    """The questions of all three kinds of negatives: rows of question_id, image, text, label, category.

    records: caps_boxes rows (image, instances). Of each picture and kind `per_picture` questions, half of them about what
    is there; pictures with fewer than half as many kinds of things give fewer, as many yes as no. The same yes-questions
    stand in all three. Raises FileError where no picture shows anything, or `per_picture` is odd.
    """
    if per_picture < 2 or per_picture % 2:
        raise FileError(f"per_picture {per_picture}: half of them are yes, half no, so an even number is needed")
    present = {r["image"]: sorted({i["category"] for i in r["instances"]}) for r in records}
    often = Counter(kind for kinds in present.values() for kind in kinds)
    beside = defaultdict(Counter)
    for kinds in present.values():
        for a, b in combinations(kinds, 2):
            beside[a][b] += 1
            beside[b][a] += 1
    rows = []
    for category in NEGATIVES:
        for image, kinds in present.items():
            rng = random.Random(f"pope {seed} {image}")
            absent = [k for k in sorted(often) if k not in kinds]
            count = min(per_picture // 2, len(kinds), len(absent))
            there = rng.sample(kinds, count)
            rng.shuffle(absent)
            if category == "popular":
                absent.sort(key=lambda k: -often[k])
            elif category == "adversarial":
                absent.sort(key=lambda k: (-sum(beside[t][k] for t in kinds), -often[k]))
            for kind, label in [p for pair in zip(there, absent) for p in zip(pair, ("yes", "no"))]:
                a = "an" if kind[0] in "aeiou" else "a"
                rows.append({"question_id": len(rows), "image": image, "text": f"Is there {a} {kind}?", "label": label, "category": category})  # fmt: skip
    if not rows:
        raise FileError("no picture shows anything, so nothing can be asked")
    return rows


def read_yes_no(text: str) -> str | None:
    """yes or no, from the first sentence; None where it is neither."""
    words = text.strip().lower().replace("n’t", "n't").split(".")[0].replace(",", " ").replace("!", " ").split()
    if words and words[0] in ("yes", "no"):
        return words[0]
    if DENIALS & set(words):
        return "no"
    return "yes" if "yes" in words or {"there", "is"} <= set(words) or {"there", "are"} <= set(words) else None


def read_rows(path: Path) -> list[dict]:
    """The rows of one of POPE's files: JSONL, whatever it is called, or a JSON list."""
    if path.read_text(encoding="utf-8", errors="replace").lstrip().startswith("["):
        return [dict(row) if isinstance(row, dict) else {} for row in read_json(path)]
    return read_jsonl(path)


def read_questions(paths: list[Path]) -> list[dict]:
    """POPE's questions with their labels, from one file with `category`, or several named after it (`coco_pope_random.json`).

    A file of questions without labels (the authors' llava_pope_test.jsonl) takes them from the others, by picture and question.
    Raises FileError naming file and row: no text, a label that is neither yes nor no, none at all, an id that stands twice.
    """
    asked, labels = {True: [], False: []}, {}
    for path in map(Path, paths):
        for n, row in enumerate(read_rows(path), 1):
            known = "label" in row
            if not isinstance(row.get("text"), str) or not is_id(row.get("question_id")) or row.get("label", "no") not in ("yes", "no"):  # fmt: skip
                raise FileError(f"{path}, row {n}: a question needs `question_id`, `text` and a `label` of yes or no")
            if not all(isinstance(row.get(field), str | None) for field in ("image", "category")):
                raise FileError(f"{path}, row {n}: `image` and `category` must be text")
            fact = row.get("image"), row["text"].partition("\n")[0].strip()
            if known:
                labels[fact] = row["label"]
            asked[known].append((row | {"category": row.get("category") or path.stem.rpartition("_")[2]}, fact, path))
    chosen, out = asked[not asked[False]], []
    for row, fact, path in chosen:
        if fact not in labels:
            raise FileError(f"{path}: question {row['question_id']} has no label, here or in a file of labels")
        out.append(row | {"label": labels[fact]})
    for category in {r["category"] for r in out}:
        by_key([r for r in out if r["category"] == category], paths[0], "question_id")
    return out


def measures(pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and yes-rate in per cent, of (label, answer) pairs; yes is the positive class.

    Precision is 0 where nobody said yes, F1 where precision and recall are. Raises FileError without pairs.
    """
    if not pairs:
        raise FileError("no answers to score")
    count = Counter(pairs)
    said, true, hits = sum(a == "yes" for _, a in pairs), sum(label == "yes" for label, _ in pairs), count["yes", "yes"]
    precision, recall = hits / said if said else 0.0, hits / true if true else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    parts = {"accuracy": (hits + count["no", "no"]) / len(pairs), "precision": precision, "recall": recall, "f1": f1, "yes": said / len(pairs)}  # fmt: skip
    return {name: round(100 * value, 2) for name, value in parts.items()} | {"questions": len(pairs)}


def evaluate(questions: list[dict], answers: list[dict]) -> dict:
    """POPE's scores by kind of negatives and over all (none where no answer could be read), and what was left out, and why.

    answers: rows of question_id and text, and `category` where ids start again in each file. Raises FileError where nothing
    joins.
    """
    several = len({q["question_id"] for q in questions}) < len(questions)
    name = lambda row: (row.get("category"), row.get("question_id")) if several else row.get("question_id")  # noqa: E731
    sound = lambda a: is_id(a.get("question_id")) and isinstance(a.get("category"), str | None)  # noqa: E731
    whole = [a for a in answers if sound(a)]
    times, said = Counter(map(name, whole)), {name(a): a.get("text") for a in whole}
    pairs, excluded = defaultdict(list), []
    for q in questions:
        text = said.get(name(q))
        read = read_yes_no(text) if isinstance(text, str) else None
        why = (
            "no answer" if name(q) not in said
            else f"answered {times[name(q)]} times" if times[name(q)] > 1
            else "an empty answer" if not isinstance(text, str) or not text.strip()
            else f"neither yes nor no: {text[:60]!r}" if read is None
            else ""
        )  # fmt: skip
        if why:
            excluded.append(Excluded(f"question {q['question_id']} ({q['category']})", why))
        else:
            pairs[q["category"]].append((q["label"], read))
    known = {name(q) for q in questions}
    excluded += [Excluded(f"question {a.get('question_id')}", "not a question of this set") for a in answers if not sound(a) or name(a) not in known]  # fmt: skip
    if not known & said.keys():
        raise FileError(f"none of the {len(answers)} answers is to one of the {len(questions)} questions; is it a file of another set?")  # fmt: skip
    scores = {category: measures(of) for category, of in pairs.items()}
    scores |= {"all": measures([p for of in pairs.values() for p in of])} if pairs else {}
    return {"scores": scores, "excluded": [str(e) for e in excluded]}

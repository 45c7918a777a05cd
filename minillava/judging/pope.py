"""Hallucination: yes-or-no questions about a picture, half of them about things that are not there (POPE's protocol).

The absent thing is drawn at random, is one of the most frequent (popular), or is one that most often occurs together
with what is there (adversarial). A model that answers from habit says yes more often from the first kind to the last.
The paper names hallucination as a risk (App. A) but does not measure it; protocol and files are those of arXiv
2305.10355. The yes-rate is reported too, because a model that always says yes has a recall of 100 %.

    minillava judge pope ANSWERS QUESTIONS
"""

import random
import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

from minillava.asking import final_text
from minillava.files import Excluded, FileError, by_key, is_id, read_json, read_jsonl
from minillava.judging.bench import another_question

NEGATIVES = ("random", "popular", "adversarial")
# How answers say yes and no. They are in lower case by then, `n't` is `not`, and a clause is one part of a sentence.
IDIOM = re.compile(r"\b(?:no|without (?:a|any)) (?:doubt|question|problem)\b|\bnot only\b")  # these deny nothing
CLAUSE = re.compile(r"\s*[,;:—–]\s*|\s+-+\s+|\s+(?:but|however|although|though|while|whereas|because)\s+")
LEAD_YES = re.compile(
    r"(?:(?:well|oh|hmm+) )?(?:yes|yeah|yep|yup)\b"
    r"|(?:sure|certainly|definitely|absolutely|indeed|correct|true|affirmative|of course)$"
)
LEAD_NO = re.compile(r"(?:(?:well|oh|hmm+) )?(?:no|nope|nah)\b|(?:incorrect|false|negative|wrong)$")
BOTH = re.compile(r"(yes|no)\W+(?:(?:or|and) )?(?!\1)(?:yes|no)\b")
YES_THERE_IS_NO = re.compile(r"yes\W+(?:no|(?:there|it|they) ?(?:is|are)? ?(?:no|not))\b")
LATER = re.compile(r"(?:(?:actually|so|and),? )?(yes|no)(?:$|[,;:—–-])")  # of a sentence that is not the first
UNSURE = re.compile(
    r"\bnot (?:be |\w+ly )?(?:sure|certain|clear|know|tell|say|determine|possible|confirm|deny|miss)\b"
    r"|\b(?:unsure|uncertain|unclear|maybe|perhaps|possibly|might|may|could|whether|(?:hard|difficult|impossible) to)\b"
)
DENIAL = re.compile(
    r"\b(?:no|not|none|nothing|nobody|neither|nor|never|zero|0|doubt|unable|absence|absent|hardly"
    r"|missing|lacks?|lacking|fails? to)\b"
)
SEE = r"\b(?:there (?:is|are|was|were|appears?|seems?|exists?)|(?:is|are) there|i (?:can |do )?(?:see|spot|notice))\b"
THERE_IS_A = re.compile(
    rf"{SEE}(?: to be)? (?:\w+ly |also |only |just )*(?:an?|one|two|three|some|several|many|the)\b"
    r"(?! (?:lack|absence))"
)
EXISTS = re.compile(
    rf"{SEE}|\b(?:is|are|be) (?:\w+ly )?(?:visible|present|shown|there|seen)\b|^(?:it|they) (?:is|are)$"
)

DENIED = re.compile(r"\b(?:no|none|neither|not (?:an?|any|see|spot|notice|visible|present|there))\b|\b(?:is|are) not$")
ASKED = re.compile(r"\bthere (?:an?|any|some) (.+?)(?: in (?:the|this) \w+)?\?", re.I)  # what a question asks for


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


def read_yes_no(text: str, thing: str | None = None) -> str | None:
    """yes or no, as an answer to "Is there ...?" says it; None if it says neither, both, or that it is not sure.

    The first sentence that is no question counts, and in it the first clause that says something; a later sentence only
    if it begins with yes or no by itself. Thoughts and Markdown do not count. thing: what is asked for, in lower case.
    Where one thing is there and another is not, the clauses that name it count.
    """
    text = re.sub(r"[*_`#>\"“”()\[\]]+", " ", final_text(text)).replace("’", "'").lower()
    text = IDIOM.sub(" ", text)
    text = re.sub(r"\bcan't\b|\bcannot\b", "can not", text).replace("n't", " not").replace("there's", "there is")
    parts = re.findall(r"([^.!?\n]+)([.!?]*)", text)
    sentences = [" ".join(part.strip(" ,;:-").split()) for part, end in parts if "?" not in end and part.strip(" ,;:-")]
    if not sentences or YES_THERE_IS_NO.match(sentences[0]):
        return None
    first = next((said for clause in CLAUSE.split(sentences[0]) if (said := _said(clause))), None)
    later = {lead[1] for sentence in sentences[1:] if (lead := LATER.match(sentence))}
    if first is None and len(later) == 1:
        return later.pop()
    if first in ("yes", "no") and not LEAD_YES.match(sentences[0]) and not LEAD_NO.match(sentences[0]):
        clauses = [clause for sentence in sentences for clause in CLAUSE.split(sentence)]
        named = {_said(c) for c in clauses if thing and re.search(rf"\b{re.escape(thing)}", c)} - {None}
        if len(named) == 1 and named <= {"yes", "no"}:
            first = named.pop()
        elif first == "yes" and any(DENIED.search(c) and _said(c) == "no" for c in clauses):
            return None
    return first if first != "unclear" and later <= {first} else None


def _said(clause: str) -> str | None:
    """What one clause says: yes, no, `unclear`, or nothing."""
    if BOTH.match(clause):
        return "unclear"
    if LEAD_NO.match(clause):
        return "no"
    if LEAD_YES.match(clause):
        return "yes"
    denials = [*DENIAL.finditer(re.sub(r"\bneither\b(.*?)\bnor\b", r"neither\1or", clause))]
    there, only = THERE_IS_A.search(clause), re.search(r"\b(?:only|just)\b", clause)
    if UNSURE.search(clause):
        return "unclear"
    if there and not (denials and denials[0].start() < there.end()):
        return "unclear" if only and only.start() < there.end() else "yes"
    if denials:
        return "no" if len(denials) == 1 else "unclear"
    if only:
        return "unclear"
    return "yes" if re.search(r"\byes\b", clause) or EXISTS.search(clause) else None


def authors_yes_no(text: str) -> str:
    """The rule of POPE's authors: no if the first sentence has the word no or not, else yes, whatever it says."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


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
            key = row.get("image"), _asked(row["text"])
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


def _asked(text: str) -> str:
    """The question alone: the authors' llava_pope_test.jsonl has an instruction in a second line."""
    return text.replace("<image>", "").strip().partition("\n")[0].strip()


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

    `authors`: the scores over all by the authors' rule, which reads every answer.

    answers: rows of question_id and text, with `category` if ids repeat. An answer to another question than that with
    its id is excluded. Raises FileError if none fits a question, or if more are to others.
    """
    several = len({q["question_id"] for q in questions}) < len(questions)

    def key(row: dict):
        return (row.get("category"), row.get("question_id")) if several else row.get("question_id")

    known, given, unknown = {key(q): q for q in questions}, defaultdict(list), []
    for a in answers:
        valid = is_id(a.get("question_id")) and isinstance(a.get("category"), str | None)
        (given[key(a)] if valid and key(a) in known else unknown).append(a)
    if not given:
        what = f"none of the {len(answers)} answers belongs to one of the {len(questions)} questions"
        raise FileError(f"{what}; is this a file of another set?")
    pairs, excluded, authors, others = defaultdict(list), [], [], []
    for name, q in known.items():
        texts = [a.get("text") for a in given[name]]
        text = texts[0] if len(texts) == 1 and isinstance(texts[0], str) else ""
        other = another_question(given[name][0], _asked(q["text"]), image=q.get("image")) if texts else ""
        thing = ASKED.search(q["text"])
        read = read_yes_no(text, thing and thing[1].lower())
        authors += [(q["label"], authors_yes_no(text))] if texts == [text] and not other else []
        others += [f"question {q['question_id']}: {other}"] if other else []
        why = (
            "no answer" if not texts
            else f"answered {len(texts)} times" if len(texts) > 1
            else "an empty answer" if not text.strip()
            else other if other
            else f"neither yes nor no: {text[:60]!r}" if read is None
            else ""
        )  # fmt: skip
        if why:
            excluded.append(Excluded(f"question {q['question_id']} ({q['category']})", why))
        else:
            pairs[q["category"]].append((q["label"], read))
    excluded += [Excluded(f"question {a.get('question_id')}", "not a question of this set") for a in unknown]
    if len(others) > sum(map(len, pairs.values())):
        what = f"{len(others)} of the {len(answers)} answers are not to the question with their id"
        raise FileError(f"{what} ({others[0]}); is this a file of another set?")
    scores = {category: measures(some) for category, some in pairs.items()}
    scores |= {"all": measures([pair for some in pairs.values() for pair in some])} if pairs else {}
    by_authors = {"authors": measures(authors)} if authors else {}
    return {"scores": scores, **by_authors, "excluded": [str(e) for e in excluded]}

"""Exercise 10, asking GPT-4: the messages of Table 13, a parser for real replies, the concept filter of Appendix E."""

import random
import re
from collections import Counter

from minillava.datagen.concepts import concept_filter
from minillava.datagen.messages import Prompt, messages
from minillava.datagen.replies import read_pairs
from minillava.exercises.engine import Task

NOUNS = "bus lamp boat person table tree dog cat horse bridge".split()


def _prompts(seed):
    draw = random.Random(f"prompt {seed}")
    some = lambda: f"a {draw.choice(NOUNS)} and a {draw.choice(NOUNS)} {draw.randrange(99)}"  # noqa: E731
    return [
        ("You look at pictures.", [(some(), f"Question: {some()}?") for _ in range(shots)], some())
        for shots in (2, 0, 3)
    ]


def _sent(system, shots, context):
    return messages(Prompt(system, tuple(shots)), context)


def _turn(role, content):
    return {"role": role, "content": content}


def _mapped(change):
    return lambda system, shots, context: change(_sent(system, shots, context), shots)


def _glued(right, shots):
    told = "\n".join(f"{shown}\n{reply}" for shown, reply in shots)
    return [right[0], _turn("user", f"{told}\n{right[-1]['content']}" if shots else right[-1]["content"])]


def _replies(seed):
    draw = random.Random(f"reply {seed}")
    q, a = (lambda: f"Where is the {draw.choice(NOUNS)}?"), (lambda: f"Beside the {draw.choice(NOUNS)}.")  # noqa: E731
    return [
        (f"Question:\n{q()}\n===\nAnswer:\n{a()}\n===\nQuestion:\n{q()}\n===\nAnswer:\n{a()}",),
        (f"**Question 1:** {q()}\n**Answer 1:** {a()}\n\n**Question 2:** {q()}\n**Answer 2:** {a()}",),
        (f"Question: {q()}\nAnswer: {a()}\n\nAnd there is more.\n\nQuestion: {q()}\nAnswer: {a()}",),
        (f"```\nQuestion: {q()}\nAnswer: {a()}\n```",),
        (f"Human: {q()}\nAssistant: {a()}",),
        (f"Question: {q()}\nAnswer: The sign asks a Question: why not? {a()}",),
        (f"Question: {q()}\nQuestion: {q()}\nAnswer: {a()}",),
        (f"Question: {q()}\nAnswer:\n",),
        ("I see a street.",),
        ("",),
    ]


def _read(text):
    return read_pairs("conversation", text)


HEADS = r"[\s#*>]*(?:question|answer|human|assistant)\s*\d*[*_]*\s*:[*_]*[ \t]*"


def _parser(begin="^", strict=True, whole=True, forms=".*"):
    """A wrong parser. begin: where a header may stand. forms: a pattern of the texts that it reads at all."""

    def read(text):
        text = re.sub(r"^\s*(={3,}|```\w*)\s*$", "", text, flags=re.M)
        found = list(re.finditer(begin + HEADS, text, re.M | re.I))
        sides = ["q" if re.search("question|human", h[0], re.I) else "a" for h in found]
        bodies = [text[h.end() : end].strip() for h, end in zip(found, [*(h.start() for h in found[1:]), len(text)])]
        bodies = bodies if whole else [body.split("\n\n")[0] for body in bodies]
        if strict and (not found or sides != ["q", "a"] * (len(sides) // 2) or not all(bodies)):
            raise ValueError
        questions, answers = ([b for s, b in zip(sides, bodies) if s == side] for side in "qa")
        return list(zip(questions, answers))

    return lambda text: read(text) if re.match(forms, text, re.S) else _refuse()


def _refuse():
    raise ValueError


def _counts(seed):
    cases = []
    for count, least, most in ((30, 3, 4), (60, 2, 5), (20, 3, 100), (80, 4, 8)):
        draw = random.Random(f"captions {seed} {count}")
        weights = [2**-n for n in range(len(NOUNS))]
        told = [list(dict.fromkeys(draw.choices(NOUNS, weights, k=draw.randint(1, 3)))) for _ in range(count)]
        cases.append(
            (told, least, most, lambda phrase, some, most=most: random.Random(f"concept 0 {phrase}").sample(some, most))
        )
    return cases


def _kept(phrases, least, most, draw):
    return concept_filter([" and ".join(some) for some in phrases], least, most, chunker="rules").kept


def _filtered(least_is=None, all_of=False, clean=False, join=lambda kept: sorted(set(kept))):
    """A wrong filter: each option is one mistake."""

    def keep(phrases, least, most, draw):
        count, kept = Counter(p for some in phrases for p in some), []
        rare = {p for p in count if count[p] < least}
        for phrase in sorted(count, key=lambda p: (count[p], p)):
            if count[phrase] < (least_is or least):
                continue
            some = [n for n, told in enumerate(phrases) if phrase in told and not (clean and rare & set(told))]
            kept += some if all_of or len(some) <= most else draw(phrase, some)
        return join(kept)

    return keep


TASKS = (
    Task(
        "10.1", 1, "The messages of Table 13", _prompts, _sent,
        (
            (_mapped(_glued), "the examples are glued into the question. Table 13 sends each as a user turn with the assistant's reply behind it."),
            (_mapped(lambda right, shots: [right[0]] + [_turn({"user": "assistant", "assistant": "user"}[m["role"]], m["content"]) for m in right[1:-1]] + right[-1:]), "the roles of the examples are exchanged: the context is the user's, the reply the assistant's."),
            (_mapped(lambda right, shots: [right[0], right[-1]]), "the examples are left out: the model has never seen the form it is to answer in."),
            (_mapped(lambda right, shots: right[1:-1] + [right[0], right[-1]]), "the system message does not come first."),
        ),
        ("A message is {'role': ..., 'content': ...}; roles are system, user and assistant.",
         "system; for each example user, assistant; at last the picture's context as user."),
    ),
    Task(
        "10.2a", 0, "From header to header", lambda seed: [([0, 4 + seed, 9], 14), ([2 + seed], 8), ([1, 3, 6, 8 + seed], 11)],
        lambda begins, end: list(zip(begins, [*begins[1:], end])),
        (
            (lambda begins, end: list(zip(begins, begins[1:])), "the last one is lost. It goes on to the end of the text."),
            (lambda begins, end: list(zip(begins, [b - 1 for b in begins[1:]] + [end])), "each ends one letter early. text[a:b] leaves b out by itself."),
        ),
        ("Each ends where the next begins: begins[1:]. The last ends at `end`.",),
    ),
    Task(
        "10.2b", 0, "In pairs", lambda seed: [([f"{side}{seed + n}" for n in range(count) for side in "QA"],) for count in (2, 1, 3)],
        lambda turns: list(zip(turns[::2], turns[1::2])),
        (
            (lambda turns: list(zip(turns, turns[1:])), "each turn is paired with the next: an answer then asks."),
            (lambda turns: list(zip(turns[: len(turns) // 2], turns[len(turns) // 2 :])), "the first half is paired with the second. Questions stand at 0, 2, 4."),
        ),
        ("turns[::2] is every second one from 0, turns[1::2] from 1.",),
    ),
    Task(
        "10.2", 2, "A parser that survives real replies", _replies, _read,
        (
            (_parser(whole=False), "an answer ends at its first paragraph. It ends where the next header begins."),
            (_parser(begin=""), "a header is found in the middle of a line. `Question:` within an answer is a part of it: look at the beginnings of lines."),
            (_parser(strict=False), "what does not pair up is passed over in silence. Two questions in a row, an empty answer, no header at all: a ValueError, so that it can be counted."),
            (_parser(forms=r"Question:\n"), "only the form asked for is read. Models number headers, make them bold, forget the separators, wrap all in a fence, or write Human and Assistant."),
        ),
        ("Take separators (`===`) and fences away first: re.sub with flags=re.M.",
         "One pattern for a header at a line's beginning: stars or not, a word, a number or not, a colon, stars or not. re.finditer tells where each begins and ends.",
         "What lies between two headers belongs to the first of them. Then: do questions and answers take turns, and is none empty?"),
    ),
    Task(
        "10.3", 3, "The concept filter", _counts, _kept,
        (
            (_filtered(least_is=1), "rare phrases bring their captions in. Below `least` a phrase is skipped."),
            (_filtered(all_of=True), "a common phrase brings in all its captions. Above `most` only a draw of them is taken."),
            (_filtered(clean=True), "captions with a rare phrase are thrown out. The rare phrase is skipped; its caption may come in by another."),
            (_filtered(join=sorted), "a caption that two phrases bring in is kept twice. The pool is a set."),
        ),
        ("Count in how many captions each phrase stands.",
         "For each phrase that is frequent enough: all its captions, or draw(phrase, captions) where there are more than `most`.",
         "Collect in a set; give back sorted indices."),
    ),
)  # fmt: skip

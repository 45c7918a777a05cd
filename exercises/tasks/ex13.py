"""Exercise 13, the chatbot: the prompt of a conversation, the text to display so far, and saying yes too often."""

import random

from minillava.data.template import Template
from minillava.exercises.engine import Task
from minillava.judging.pope import measures
from minillava.model.generate import Stop

WORDS = "red blue bus lamp left right boat lake person near behind odd".split()


def _talks(seed):
    draw = random.Random(f"talk {seed}")
    say = lambda: " ".join(draw.sample(WORDS, 3))  # noqa: E731
    return [("Be kind.", [(say() + "?", say() + ".") for _ in range(turns)], say() + "?") for turns in (0, 1, 3)]


def _prompted(system, turns, question):
    pairs = [*turns, (question, None)]
    pairs[0] = (f"<image>\n{pairs[0][0]}", pairs[0][1])
    return "".join(text for text, _ in Template("exercise", system).segments(pairs))


def _written(image=lambda n, last: n == 0, closed="###\n", end="Assistant: "):
    """A wrong prompt. image: which questions carry the picture. closed: what ends an answer. end: the last words."""

    def prompt(system, turns, question):
        asked = [q for q, _ in turns] + [question]
        out = f"{system}###\n"
        for n, q in enumerate(asked):
            picture = "<image>\n" * image(n, n == len(turns))
            out += f"Human: {picture}{q}###\n" + (f"Assistant: {turns[n][1]}{closed}" if n < len(turns) else end)
        return out

    return prompt


def _prefixes(seed):
    draw, cases = random.Random(f"stream {seed}"), []
    for stops, rest in (
        (["###"], "### and more ###"), (["###", "Human:"], "\nHuman: and ### what"), (["</s>"], " <"),
        (["</s>"], " </"), (["###"], " ##"), (["Human:", "###"], " # Hum"), (["###"], "."),
        (["END", "###"], " ### END"), (["###", "Human:"], "\nHuman: who"),
    ):  # fmt: skip
        cases.append((" ".join(draw.sample(WORDS, 3)) + rest, stops))
    return cases


class _Letters:
    """A tokenizer with one letter per token."""

    def encode(self, text, **settings):
        return list(map(ord, text))

    def decode(self, ids, **settings):
        return "".join(map(chr, ids))

    def convert_ids_to_tokens(self, id):
        return chr(id)


def _settled(text, stops):
    stop, ids = Stop(stops, _Letters()), list(map(ord, text))
    return stop.text_before(ids) if any(s in text for s in stops) else stop.settled(ids)


def _before(text, stops, find=min):
    return text[: find(text.find(s) for s in stops if s in text)] if any(s in text for s in stops) else None


def _eager(text, stops):
    found = _before(text, stops)
    return text if found is None else found


def _timid(text, stops):
    found = _before(text, stops)
    return text[: len(text) - max(map(len, stops)) + 1] if found is None else found


def _late(text, stops):
    found = _before(text, stops, max)
    return _settled(text, stops) if found is None else found


def _answers(seed):
    draw = random.Random(f"yes {seed}")

    def some(n, share):
        return [(draw.choice(("yes", "no")), "yes" if draw.random() < share else "no") for _ in range(n)]

    return [
        (some(20, 0.7),),
        (some(30, 0.4),),
        ([("yes", "no"), ("no", "no")] + some(5, 0),),
        ([("no", "yes")],),
        ([],),
    ]


def _scored(pairs):
    return {name: value for name, value in measures(pairs).items() if name != "questions"}


def _wrongly(change):
    """A wrong version, made from the right figures and the pairs. It raises the same errors as the package."""
    return lambda pairs: change(_scored(pairs), pairs)


def _undefined(right, pairs):
    return 1 / 0 if not right["precision"] and not any(a == "yes" for _, a in pairs) else right


def _open_ends(seed):
    word = ("bus", "cat")[seed % 2]
    return [
        (f"A # {word}. ##", "###"),
        (f"No {word}.", "###"),
        (f"1 {word} Hum"[: 9 - seed], "Human:"),
        (f"#{word}", "###"),
    ]


def _with_stops(seed):
    word = ("bus", "cat")[seed % 2]
    return [(f"A {word}.!? Hm#", ["#", "!?"]), (f"{word}##{word}", ["##"]), (f"One {word}", ["##", "!?"])]


TASKS = (
    Task(
        "13.1", 1, "A conversation's prompt", _talks, _prompted,
        (
            (_written(image=lambda n, last: last), "the picture stands in the newest question. It belongs to the first turn, where the model read it in training (Table 2)."),
            (_written(image=lambda n, last: True), "the picture is in every question: the model would see it several times, and each needs its own features."),
            (_written(closed="\n"), "an answer is not closed by the stop. In training every answer ended with it; without it the talk runs on."),
            (_written(end="Assistant:"), "it ends with `Assistant:` without the blank behind it: the next token is then another one than in training."),
        ),
        ("System message, stop, newline. Then for each turn: `Human: ` + question, stop, newline, `Assistant: ` + answer, stop, newline.",
         "The newest question has no answer yet: the prompt ends with `Assistant: `, and the model goes on from there."),
    ),
    Task(
        "13.2a", 0, "What could become a stop", _open_ends, lambda text, stop: next((stop[:n] for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), ""),
        (
            (lambda text, stop: next((stop[:n] for n in range(1, len(stop)) if text.endswith(stop[:n])), ""), "the shortest beginning is taken. Of `##` both letters have to wait."),
            (lambda text, stop: next((stop[:n] for n in range(len(stop) - 1, 0, -1) if stop[:n] in text), ""), "a beginning in the middle of the text counts. What stands behind it shows that it became no stop."),
        ),
        ("Try stop[:n] from the longest to the shortest: text.endswith(stop[:n]).",),
    ),
    Task(
        "13.2b", 0, "Up to the first stop", _with_stops, lambda text, stops: text[: min([text.index(s) for s in stops if s in text], default=len(text))],
        (
            (lambda text, stops: next((text[: text.index(s)] for s in stops if s in text), text), "the stop that is listed first decides. The one that comes first in the text does."),
            (lambda text, stops: min([text[: text.index(s) + len(s)] for s in stops if s in text], key=len, default=text), "the stop itself is still there."),
        ),
        ("text.index(stop) is where it begins; the smallest of these counts. And where there is no stop: all.",),
    ),
    Task(
        "13.2", 2, "What may be shown already", _prefixes, _settled,
        (
            (_eager, "the beginning of a stop is shown. `##` may become `###`, and what is shown cannot be taken back."),
            (_timid, "as many characters as a stop has are held back always. Hold back only what a stop may really begin with."),
            (_late, "the text ends at the last stop. The answer is over at the first one, whichever it is."),
            (lambda text, stops: _settled(text, stops[:1]), "only the first stop is looked for."),
        ),
        ("If a whole stop stands in the text, everything from the first one on goes.",
         "Else look at the end: for every stop, and every n below its length, does the text end with stop[:n]? The longest such end waits."),
    ),
    Task(
        "13.3", 3, "Saying yes too often", _answers, _scored,
        (
            (_wrongly(lambda right, pairs: right | {"precision": right["recall"], "recall": right["precision"]}), "precision and recall are exchanged. Precision: of those it said yes to, how many are there. Recall: of those that are there, how many it said yes to."),
            (_wrongly(lambda right, pairs: right | {"yes": 100 * sum(label == "yes" for label, _ in pairs) / len(pairs)}), "the yes-rate is that of the labels. It is how often the model says yes."),
            (_wrongly(_undefined), "nobody says yes, and precision is divided by 0. By agreement it is 0 then, and F1 too."),
            (_wrongly(lambda right, pairs: {name: value / 100 for name, value in right.items()}), "the figures are shares, not per cent."),
        ),
        ("Count four things: yes to yes, yes to no, no to yes, no to no. The label stands first in a pair.",
         "F1 = 2 p r / (p + r), 0 where both are 0. No pairs at all: a ValueError."),
        tolerance=2e-3,
    ),
)  # fmt: skip

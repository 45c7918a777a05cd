"""Exercise 04, the sequence: where the picture stands (Eq. 2), ids and labels, and what carries loss (Table 2)."""

import random

from minillava.data import IGNORE, IMAGE
from minillava.data.records import make_record
from minillava.data.samples import encode_segments
from minillava.data.template import Template
from minillava.exercises.cases import digits
from minillava.exercises.engine import Task
from minillava.exercises.pictures import both_pieces

WORDS = "red blue bus lamp left right boat lake".split()
LEARN = ("answers", "no stop", "everything")


class _Coin:
    """A random generator that always gives the same number."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def _talks(seed, turns=(1, 2, 3)):
    draw = random.Random(f"talk {seed}")
    return [
        [(f"{' '.join(draw.sample(WORDS, 2))}?", f"{' '.join(draw.sample(WORDS, 2))}.") for _ in range(n)]
        for n in turns
    ]


def _asked(questions, before):
    record = make_record("r", "r.png", [(q, "") for q in questions], _Coin(0.0 if before else 0.9))
    return [turn["value"] for turn in record["conversations"][::2]]


def _placed(place, between="\n"):
    """A wrong Eq. 2. place: which questions carry the picture."""

    def ask(questions, before):
        with_it = lambda q: f"<image>{between}{q}" if before else f"{q}{between}<image>"  # noqa: E731
        return [with_it(q) if place(n, len(questions)) else q for n, q in enumerate(questions)]

    return ask


def in_twos(text):
    """A tokenizer with two letters per token. As with real ones, a text that is cut elsewhere has other tokens."""
    return [int.from_bytes(text[n : n + 2].encode("ascii"), "big") for n in range(0, len(text), 2)]


class _InTwos:
    """`in_twos` with the interface that the package needs."""

    unk_token_id = chat_template = None

    def __init__(self, first):
        self.bos_token, self.bos_token_id = ("<s>", first[0]) if first else (None, None)

    def encode(self, text, add_special_tokens=True):
        return in_twos(text)

    def convert_tokens_to_ids(self, token):
        return None  # no token for a picture


def _cut(seed):
    template = Template("exercise", "Hi.")
    return [
        (template.segments([(asked[0], talk[0][1]), *talk[1:]]), in_twos, [1] * (n % 2))
        for n, talk in enumerate(_talks(seed, (1, 2, 3, 1)))
        for asked in [_asked([talk[0][0]], before=n < 2)]
    ]


def _encoded(segments, tokenize, first):
    return encode_segments(segments, _InTwos(first))


def _own(picture=True, mask=True, shift=False, lead=True):
    """Wrong ids and labels: each option switches off or adds one step."""

    def encode(segments, tokenize, first):
        ids, labels = (list(first), [IGNORE] * len(first)) if lead else ([], [])
        for text, learned in segments:
            for n, part in enumerate(text.split("<image>") if picture else [text]):
                new = [IMAGE] * (n > 0) + tokenize(part)
                ids += new
                labels += [i if (learned or not mask) and i != IMAGE else IGNORE for i in new]
        return ids, labels[1:] + [IGNORE] if shift else labels

    return encode


def _apart(segments, tokenize, first):
    """Ids of the joined text, labels of its pieces: what the authors' code does, with its "tokenization mismatch"."""
    whole, _ = _own()([("".join(text for text, _ in segments), False)], tokenize, first)
    return whole, _own()(segments, tokenize, first)[1]


def _boxes(encoded):
    """Ids and labels as `pieces` draws them."""

    def text(i):
        return "<image>" if i == IMAGE else i.to_bytes(2, "big").decode().lstrip("\0") if i > 1 else "<s>"

    def kind(i, label):
        return "loss" if label != IGNORE else "picture" if i == IMAGE else "read"

    return [(text(i), kind(i, label)) for i, label in zip(*encoded)]


def _learned(seed):
    return [("Hi.", talk, learn) for talk in _talks(seed, (1, 2)) for learn in LEARN] + [
        ("Hi.", _talks(seed, (1,))[0], "nothing")
    ]


def _loss_at(system, pairs, learn):
    """Table 2's pieces, and two variants of what carries loss."""
    if learn not in LEARN:
        raise ValueError(learn)
    right = Template("exercise", system).segments(pairs)
    answers = {answer for _, answer in pairs}
    if learn == "everything":
        return [(text, True) for text, _ in right]
    return [(text, learned and (learn == "answers" or text in answers)) for text, learned in right]


def _bent(change):
    """A version that is wrong only for the paper's own form."""

    def wrong(system, pairs, learn):
        right = _loss_at(system, pairs, learn)
        return change(right) if learn == "answers" else right

    return wrong


def _newlines(right):
    """The newline after an answer's stop carries loss too."""
    return [(text, learned or (text == "\n" and right[n - 1][1])) for n, (text, learned) in enumerate(right)]


def _same(change):
    return lambda got, wanted: both_pieces(change(got), change(wanted))


def _parts(seed):
    some = lambda n, *sizes: ([digits(9 * seed + 3 * n + k, size).tolist() for k, size in enumerate(sizes)],)  # noqa: E731
    return [some(0, 2, 1), some(1, 3), some(2, 1, 2, 2)]


def _marked(seed):
    return [
        (digits(seed + n, T).tolist(), digits(seed + n + 9, T, below=2).bool().tolist())
        for n, T in ((0, 6), (1, 4), (5, 5))
    ]


TASKS = (
    Task(
        "04.1", 1, "Where the picture stands", lambda seed: [([q for q, _ in talk], before) for talk in _talks(seed) for before in (True, False)], _asked,
        (
            (_placed(lambda n, count: True), "every question carries the picture. Eq. 2: the first turn alone."),
            (_placed(lambda n, count: n == count - 1), "the last question carries the picture. Eq. 2: the first one."),
            (lambda questions, before: _asked(questions, not before), "before and after are exchanged."),
            (_placed(lambda n, count: n == 0, between=" "), "no newline stands between picture and question."),
        ),
        ("Only questions[0] changes.", "`<image>`, a newline, the question; or the question, a newline, `<image>`."),
    ),
    Task(
        "04.2a", 0, "An image between the parts", _parts, lambda parts: sum([[IMAGE, *part] for part in parts], [])[1:],
        (
            (lambda parts: sum([[*part, IMAGE] for part in parts], []), "an image stands behind the last part too. It stands between parts alone."),
            (lambda parts: sum(parts, []), "there is no image between the parts."),
        ),
        ("Before every part but the first comes IMAGE: enumerate tells which is the first.",),
    ),
    Task(
        "04.2b", 0, "Labels beside the ids", _marked, lambda ids, learned: [i if on else IGNORE for i, on in zip(ids, learned)],
        (
            (lambda ids, learned: [i if on else 0 for i, on in zip(ids, learned)], "you write 0 where there is no loss. But 0 is an id like any other, so the loss would ask for it. IGNORE is not an id."),
            (lambda ids, learned: [IGNORE if on else i for i, on in zip(ids, learned)], "the marks are read the wrong way: where `learned` says yes, the label is the id."),
        ),
        ("zip(ids, learned) goes through both at once.",),
    ),
    Task(
        "04.2", 2, "Ids and labels", _cut, _encoded,
        (
            (_apart, "the ids are those of the joined text, and the labels come from its pieces. A text cut elsewhere has other tokens, so the two drift apart: the authors' \"tokenization mismatch\" (their issues 375, 661, 779)."),
            (_own(mask=False), "every token carries loss. Only pieces marked True do; of the others the label is IGNORE."),
            (_own(picture=False), "`<image>` is written out in letters. It is one place, the id IMAGE, and its label is IGNORE."),
            (_own(shift=True), "the labels are shifted here already. The shift belongs to the loss (notebook 09); done twice, a row learns the token after the next."),
            (_own(lead=False), "the begin-of-sequence ids are left out."),
        ),
        ("Go piece by piece; ids and labels grow together and so cannot disagree.",
         "text.split('<image>') gives what stands between pictures: before every part but the first comes IMAGE.",
         "A label is the id itself where the piece is True, else IGNORE; `first` comes first, with IGNORE."),
        draw=_same(_boxes),
    ),
    Task(
        "04.3", 3, "What carries loss", _learned, _loss_at,
        (
            (_bent(lambda right: [(text, learned and text != "###") for text, learned in right]), "the stop carries no loss: the model would never learn to end an answer."),
            (_bent(lambda right: [(text, learned or text == "\nAssistant: ") for text, learned in right]), "`Assistant:` carries loss. It is given, not said."),
            (_bent(_newlines), "the newline behind the stop carries loss. Table 2's green ends with the stop."),
            (_bent(lambda right: [(text, text.startswith("Human: ")) for text, _ in right]), "questions carry loss in place of answers."),
        ),
        ("Pieces of Table 2: system, stop, newline; then for each turn `Human: ` + question, stop, newline + `Assistant: `, answer, stop, newline.",
         "Green, and so True: each answer and the stop behind it.",
         "Any other `learn` is a ValueError."),
        draw=_same(lambda some: [(text, "loss" if learned else "read") for text, learned in some]),
    ),
)  # fmt: skip

"""Exercise 02, the data: a picture as text, a validator of records, and how much of the picture reaches the teacher."""

import random
import re
from collections import Counter

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minillava.datagen.messages import USES_BOXES, context
from minillava.exercises.engine import Task
from minillava.figures.style import BLUE, GREY

NOUNS = "bus lamp boat person table tree dog cat horse house".split()
COLOURS = "red blue green white".split()
BOX = re.compile(r"(\w+): \[(-?[\d.]+), (-?[\d.]+), (-?[\d.]+), (-?[\d.]+)\]")


def _box(draw, width, height):
    """[x, y, w, h] in pixels. No share of it is halfway between two thousandths, where rounding may go either way."""
    while True:
        x, y = draw.randrange(width // 2), draw.randrange(height // 2)
        w, h = draw.randint(width // 9, width - x), draw.randint(height // 9, height - y)
        corners = (x / width, y / height, (x + w) / width, (y + h) / height)
        if all(abs(1000 * v % 1 - 0.5) > 0.01 for v in corners):
            return [x, y, w, h]


def _pictures(seed):
    cases = []
    for n, (kind, count) in enumerate(
        (("detail", 3), ("conversation", 2), ("complex", 1), ("detail", 0), ("complex", 2))
    ):
        draw = random.Random(f"picture {seed} {n}")
        width, height = draw.choice(((640, 480), (480, 640), (612, 408)))
        told = [f"a {draw.choice(COLOURS)} {draw.choice(NOUNS)}" for _ in range(3)]
        cases.append(
            (kind, told, [(draw.choice(NOUNS), _box(draw, width, height)) for _ in range(count)], width, height)
        )
    return cases


def _given(kind, captions, things, width, height):
    boxes = [(name, (x / width, y / height, (x + w) / width, (y + h) / height)) for name, (x, y, w, h) in things]
    return context(captions, boxes if USES_BOXES[kind] else ())


def _written(corners, always=False, number="{:.3f}".format, gap="\n\n"):
    """A wrong text. corners: the four numbers of a pixel box. always: boxes for every type."""

    def given(kind, captions, things, width, height):
        lines = [f"{name}: [{', '.join(map(number, corners(*box, width, height)))}]" for name, box in things]
        lines = lines if always or USES_BOXES[kind] else []
        return "\n".join(captions) + (gap + "\n".join(lines) if lines else "")

    return given


_right = lambda x, y, w, h, W, H: (x / W, y / H, (x + w) / W, (y + h) / H)  # noqa: E731


def outlines(got, wanted) -> Figure:
    """The boxes of two texts in one picture: the expected ones dashed and grey, yours blue."""
    figure = Figure(figsize=(3.6, 2.7), layout="constrained")
    axes, most = figure.subplots(), 1.0
    for text, label, style in (
        (wanted, "wanted", dict(edgecolor=GREY, ls="--", lw=3)),
        (got, "yours", dict(edgecolor=BLUE, lw=1.4)),
    ):
        found = [(name, *map(float, numbers)) for name, *numbers in BOX.findall(text)]
        for n, (name, x1, y1, x2, y2) in enumerate(found):
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, label=label if n == 0 else None, **style))
            axes.annotate(
                name, (x1, y1), (2, -2), textcoords="offset points", va="top", fontsize=8, color=style["edgecolor"]
            )
            most = max(most, x2, y2)
    axes.set(xlim=(0, most), ylim=(most, 0), xlabel="from the left", ylabel="from the top")
    if axes.patches:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    else:
        axes.set_title("no boxes here, and none wanted", fontsize=9)
    return figure


def _record(draw, turns=2, image=True):
    questions = [f"Where is the {noun}?" for noun in draw.sample(NOUNS, turns)]
    if image:
        questions[0] = f"<image>\n{questions[0]}" if draw.random() < 0.5 else f"{questions[0]}\n<image>"
    talk = [
        {"from": who, "value": text}
        for q in questions
        for who, text in (("human", q), ("gpt", f"Beside the {draw.choice(NOUNS)}."))
    ]
    return {"id": f"{draw.randrange(10**6)}"} | ({"image": "a.png"} if image else {}) | {"conversations": talk}


def _edited(n, change):
    """A record whose turn n has another value."""

    def spoil(draw):
        record = _record(draw)
        record["conversations"][n]["value"] = change(record["conversations"][n]["value"])
        return record

    return spoil


def _cut(draw):
    record = _record(draw)
    return record | {"conversations": record["conversations"][: draw.choice((0, 1, 3))]}


def _two_in_a_row(draw):
    record = _record(draw)
    record["conversations"][1]["from"] = "human"
    return record


def _late(draw):
    record = _record(draw)
    first, third = record["conversations"][0], record["conversations"][2]
    first["value"], third["value"] = first["value"].replace("<image>", "").strip(), f"<image>\n{third['value']}"
    return record


def _again(draw):
    """The last question repeats the first one, but without the picture."""
    record = _record(draw, 3)
    record["conversations"][4]["value"] = _lost(record["conversations"][0]["value"])
    return record


def _again_alike(draw):
    """The last question repeats the second one, but without its capital letter and question mark."""
    record = _record(draw, 3)
    record["conversations"][4]["value"] = record["conversations"][2]["value"].lower().rstrip("?")
    return record


_lost = lambda text: text.replace("<image>", "").strip()  # noqa: E731
SPOILT = (
    _cut, _two_in_a_row, _edited(1, lambda text: ""), _edited(3, lambda text: " \n"), _edited(0, _lost),
    _edited(0, lambda text: f"{text}\n<image>"), _late,
    lambda draw: _record(draw, image=False) | {"conversations": _record(draw)["conversations"]}, _again, _again_alike,
)  # fmt: skip


def _sets(seed):
    """Lists of records: one with good records only, some with one or two kinds of fault, and one with all faults."""
    cases = []
    for n, some in enumerate(((), SPOILT[:2], SPOILT[2:4], SPOILT[4:6], SPOILT[6:8], SPOILT[8:], SPOILT)):
        draw = random.Random(f"records {seed} {n}")
        records = [_record(draw), _record(draw, 3), _record(draw, image=False), *(spoil(draw) for spoil in some)]
        cases.append((draw.sample(records, len(records)),))
    return cases


def _own(turn=True, blank=True, image=None, alike=None):
    """A validator, right by default. turn, blank: whether this is checked. image, alike: another way to decide it."""

    def fault(record):
        turns, expected = record["conversations"], int("image" in record)
        images = [t["value"].count("<image>") for t in turns]
        asked = [(alike or _alike)(t["value"]) for t in turns[::2]]
        if not turns or len(turns) % 2:
            return "pairs"
        if any(
            (turn and t["from"] != ("human", "gpt")[k % 2]) or not (t["value"].strip() if blank else t["value"])
            for k, t in enumerate(turns)
        ):
            return "turn"
        if (image or (lambda images, expected: sum(images) != expected or images[0] != expected))(images, expected):
            return "image"
        return "twice" if any(q in asked[:k] for k, q in enumerate(asked)) else None

    return lambda records: [(n, found) for n, found in enumerate(map(fault, records)) if found]


_alike = lambda text: re.findall(r"\w+", text.replace("<image>", "").lower())  # noqa: E731
_faults = _own()


def _read(seed):
    """Lists of (things that are there, things that were read), both lists of (kind, colour)."""
    cases = []
    for n, count in enumerate((1, 6, 12)):
        draw = random.Random(f"read {seed} {n}")
        pictures = []
        for _ in range(count):
            there = [(draw.choice(NOUNS[:4]), draw.choice(COLOURS)) for _ in range(draw.randint(2, 5))]
            there += there[:1]
            kept = [thing for thing in there[1:] if draw.random() < 0.7]
            read = [(kind, draw.choice((colour, colour, None, draw.choice(COLOURS)))) for kind, colour in kept]
            read += [(draw.choice(NOUNS[4:]), draw.choice(COLOURS))] * draw.randint(0, 2)
            pictures.append((there, draw.sample(read, len(read))))
        cases.append((pictures,))
    twice = ([([("bus", "red"), ("bus", "red")], [("bus", "red")]), ([("cat", "white")], [])],)
    return [*cases, twice, ([([], [("dog", None)])],), ([],)]


def _pairs(pictures):
    """The pictures by kind alone, and by kind and colour."""
    kinds = [tuple([kind for kind, _ in some] for some in picture) for picture in pictures]
    return {"kinds": kinds, "colours": pictures}


def _met(there, read):
    """How many of the things that are there were read. Each reading counts once."""
    return (Counter(there) & Counter(read)).total()


def _told(pictures, met=_met, of=lambda there, read: len(there)):
    total = sum(of(there, read) for there, read in pictures)
    if not total:
        raise ValueError("nothing is there in any of these pictures")
    return {name: 100 * sum(met(*one) for one in some) / total for name, some in _pairs(pictures).items()}


def _each(pictures):
    _told(pictures)
    shares = {
        name: [100 * _met(*one) / len(one[0]) for one in some if one[0]] for name, some in _pairs(pictures).items()
    }
    return {name: sum(some) / len(some) for name, some in shares.items()}


def _speakers(seed):
    draw = random.Random(f"speakers {seed}")
    return [
        (draw.choices(("human", "gpt"), k=5),),
        (["gpt", *draw.choices(("human", "gpt"), k=3)],),
        (["human", "gpt", "gpt"],),
    ]


def _repeats(seed):
    draw = random.Random(f"repeats {seed}")
    a, b, c = draw.sample(NOUNS, 3)
    return [([a, b, a, c, c],), ([a, *draw.choices((a, b, c), k=5)],), ([draw.choice((a, b)), a, a, b],)]


def _out_of_turn(speakers):
    return [who != ("human", "gpt")[n % 2] for n, who in enumerate(speakers)]


TASKS = (
    Task(
        "02.1", 1, "What the teacher is given", _pictures, _given,
        (
            (_written(_right, always=True), "conversation is given boxes. Table 1 shows captions and boxes above all three types, but the authors' prompts for conversation hold captions alone."),
            (_written(lambda x, y, w, h, W, H: (x / W, y / H, w / W, h / H)), "a box keeps its width and height. The teacher's format has the right and the lower edge: x + w, y + h."),
            (_written(lambda x, y, w, h, W, H: (x / W, y / W, (x + w) / W, (y + h) / W)), "all four numbers are shares of the width. y belongs to the height."),
            (_written(_right, number=lambda v: str(round(v, 3))), "the decimals differ in number: 0.5 stands for 0.500. f'{v:.3f}' always writes three."),
            (_written(_right, gap="\n"), "no empty line divides captions and boxes."),
        ),
        ("Join the captions with newlines. For conversation, or where nothing is boxed, that is all.",
         "A box: left x / width, top y / height, right (x + w) / width, bottom (y + h) / height.",
         "f\"{category}: [{', '.join(f'{v:.3f}' for v in corners)}]\" is a line; an empty line comes before the first."),
        draw=outlines,
    ),
    Task(
        "02.2a", 0, "Out of turn", _speakers, _out_of_turn,
        (
            (lambda speakers: [n > 0 and who == speakers[n - 1] for n, who in enumerate(speakers)], "each turn is compared with the one before it. Compare it with whose turn it is: human at 0, 2, 4, gpt at 1, 3, 5."),
            (lambda speakers: [who != ("gpt", "human")[n % 2] for n, who in enumerate(speakers)], "gpt is expected to begin. The human asks first."),
        ),
        ("(\"human\", \"gpt\")[n % 2] is whose turn it is at place n.",),
    ),
    Task(
        "02.2b", 0, "Asked before", _repeats, lambda questions: [q in questions[:n] for n, q in enumerate(questions)],
        (
            (lambda questions: [questions.count(q) > 1 for q in questions], "the first of two counts as asked before. Look only at what stands in front of it."),
            (lambda questions: [n > 0 and q == questions[n - 1] for n, q in enumerate(questions)], "only the question directly in front is looked at."),
        ),
        ("questions[:n] is all that was asked before place n.",),
    ),
    Task(
        "02.2", 2, "A validator that says what is wrong", _sets, _faults,
        (
            (_own(image=lambda images, expected: sum(images) != expected), "`<image>` may stand in any turn. The picture belongs to the first one (Eq. 2)."),
            (_own(image=lambda images, expected: expected and (sum(images) != 1 or images[0] != 1)), "a record without a picture may hold `<image>`: the splice then has nothing to put there."),
            (_own(turn=False), "nobody looks whether human and gpt take turns: two questions in a row would pass."),
            (_own(blank=False), "a turn of blanks alone passes as text. .strip() first."),
            (_own(alike=lambda text: re.findall(r"\w+", text.lower())), "`<image>` is compared as a part of its question, so the first question is never found again."),
            (_own(alike=lambda text: text.replace("<image>", "").strip()), "questions are compared letter by letter: `Where is the bus?` and `where is the bus` ask the same."),
        ),
        ("Take the rules from top to bottom, one if and then elif: a record gets the first fault that applies.",
         "expected = int('image' in record); count `<image>` in every turn: the sum must be `expected`, and so must the first.",
         "For comparing: re.findall(r'\\w+', text.replace('<image>', '').lower()) is a question's words."),
    ),
    Task(
        "02.3", 3, "What reaches the teacher", _read, _told,
        (
            (lambda pictures: _told(pictures, lambda there, read: sum(thing in read for thing in there)), "one thing that was read stands for several that are there. Two red buses need to be read twice."),
            (lambda pictures: _told(pictures, lambda there, read: len(set(there) & set(read))), "things that are alike count once. Two red buses, both read, are two."),
            (_each, "the mean of the pictures' shares is taken. Count over all pictures, then divide once: each thing weighs the same."),
            (lambda pictures: _told(pictures, of=lambda there, read: len(read)), "it is divided by what was read: that says how much of the reading is true. Asked is how much of the truth was read."),
            (lambda pictures: {name: value / 100 for name, value in _told(pictures).items()}, "the figures are shares, not per cent."),
        ),
        ("collections.Counter counts things that are alike; a & b keeps of each the smaller number.",
         "`colours` compares (kind, colour) pairs; for `kinds` leave the colours out of both lists first.",
         "Sum what was met over all pictures, divide by the sum of len(there). If that is 0: a ValueError."),
    ),
)  # fmt: skip

"""Questions about a scene that have one right answer, and how an answer is checked. Teacher and judge share them.

Everything is derived from a `Scene`, and a scene can be read from a text (`reading.read_scene`). So the teacher asks
what the captions tell, and the exact-match questions ask what is true. The judge finds out what was asked by looking
the question up among all that could be asked. "No" and "there is none" are answers too.

    python -c "from minillava.scenes import compose, questions as q; print(q.questions(compose.compose('dev', 0))[:9])"
"""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

from minillava.scenes.captions import NUMBER_WORDS, SIDE_PHRASES, capitalise, noun, phrase, preposition, sky_phrase
from minillava.scenes.reading import NUMBER_OF_WORD, PLACE_OF_WORD, mentions, sentences
from minillava.scenes.world import COLOURS, KINDS, PLACES, SIDES, Scene, Thing, a

EXACT_KINDS = ("existence", "colour", "count", "place", "side", "relation", "odd")  # of exact-match questions
REASONING_KINDS = ("odd", "use", "doors", "doing")  # of complex-reasoning questions
# What a person does -> what the person may want.
MOTIVES = {"reading": "wants to know how the story goes on", "waving": "wants to greet somebody"}
MOTIVES |= {"painting": "wants to make a picture", "fishing": "hopes for a catch", "ironing": "wants smooth clothes"}


@dataclass(frozen=True)
class Question:
    """A question, its answer in a sentence, and `key`: what `is_correct` looks for in an answer."""

    kind: str
    text: str
    answer: str
    key: str


def only_of_its_kind(scene: Scene, i: int) -> bool:
    """Whether thing i is the only one of its kind, so that `the car` means one thing."""
    return sum(t.kind == scene.things[i].kind for t in scene.things) == 1


def _existence(scene):
    for kind in KINDS:
        found = [t for t in scene.things if t.kind == kind]
        asked = f"Is there {a(kind)}?", f"Can you see {a(kind)}?"
        if not found:
            yield from (Question("existence", text, f"No, there is no {kind}.", "no") for text in asked)
            continue
        if len(found) == 1:
            where = f" {SIDE_PHRASES[found[0].side]}" if found[0].side else ""
            yield Question("existence", asked[0], f"Yes, there is {a(noun(found[0]))}.", "yes")
            yield Question("existence", asked[1], f"Yes, there is {a(noun(found[0]))}{where}.", "yes")
        for colour in COLOURS if all(t.colour for t in found) else ():
            name = noun(Thing(kind, colour))
            there = any(t.colour == colour for t in found)
            answer = f"Yes, there is {a(name)}." if there else f"No, there is no {name}."
            yield Question("existence", f"Is there {a(name)}?", answer, "yes" if there else "no")


def _attributes(scene):
    for i, t in enumerate(scene.things):
        if not only_of_its_kind(scene, i):
            continue
        if t.colour:
            coloured = "person's shirt" if t.kind == "person" else t.kind
            yield Question("colour", f"What colour is the {coloured}?", f"The {coloured} is {t.colour}.", t.colour)
        if t.side:
            answer = f"The {t.kind} is {SIDE_PHRASES[t.side]}."
            yield Question("side", f"Is the {t.kind} on the left, in the middle or on the right?", answer, t.side)
            yield Question("side", f"Where in the picture is the {t.kind}?", answer, t.side)
        if t.doing:
            yield Question("doing", "What is the person doing?", f"The person is {t.doing}.", t.doing)


def _counts(scene):
    counts = Counter(t.kind for t in scene.things)
    for kind in (*counts, *(k for k in KINDS if k not in counts)):
        n, many = counts[kind], KINDS[kind].plural
        if n < len(NUMBER_WORDS):  # else there is no word for the number
            answer = f"There is one {kind}." if n == 1 else f"There are {NUMBER_WORDS[n]} {many}."
            yield Question("count", f"How many {many} are there?", answer, str(n))


def _place(scene):
    if scene.place:
        for text in ("Where is this?", "What kind of place is this?"):
            yield Question("place", text, f"This is {PLACES[scene.place]}.", scene.place)


def _relations(scene):
    things = scene.things
    for i, top in enumerate(things):
        if top.on is None:
            continue
        under = things[top.on]
        how = preposition(top, under)
        if only_of_its_kind(scene, top.on) and how != "riding":
            answer = f"{capitalise(a(noun(top)))} is {how} the {under.kind}."
            yield Question("relation", f"What is {how} the {under.kind}?", answer, top.kind)
        if only_of_its_kind(scene, i):
            answer = f"The {top.kind} is {how} {a(noun(under))}."
            yield Question("relation", f"What is the {top.kind} {how}?", answer, under.kind)
    flying, where = [t for t in things if t.air], sky_phrase(scene.place)
    if len(flying) < 2 and scene.place:
        what, key = (capitalise(a(noun(flying[0]))), flying[0].kind) if flying else ("Nothing", "nothing")
        yield Question("relation", f"What is {where}?", f"{what} is {where}.", key)
    for t, u in permutations([t for i, t in enumerate(things) if t.side and only_of_its_kind(scene, i)], 2):
        if t.side != u.side:
            key, side = ("yes", "left") if SIDES.index(t.side) < SIDES.index(u.side) else ("no", "right")
            answer = f"{key.capitalize()}, the {t.kind} is to the {side} of the {u.kind}."
            yield Question("relation", f"Is the {t.kind} to the left of the {u.kind}?", answer, key)


def _odd(scene):
    key = "nothing"
    answers = (
        "Nothing is odd in this picture.",
        "No, nothing is unusual here.",
        "Nothing is unusual about this picture, because everything is where it belongs.",
    )
    if scene.odd:
        odd = scene.odd[0]
        what, key = phrase(scene, odd.thing), scene.things[odd.thing].kind
        where = f" {PLACES[scene.place]}" if scene.place else ""
        answers = (
            f"{capitalise(what)} is odd, because {odd.why}.",
            f"Yes, {what} is unusual, because {odd.why}.",
            f"It is unusual that there is {what}{where}, because {odd.why}.",
        )
    why = "What is unusual about this picture, and why?"
    asked = ("What is odd in this picture?", "Is anything unusual here?", why)
    yield from (Question("odd", text, answer, key) for text, answer in zip(asked, answers))


def _uses(scene):
    for use in sorted({k.use for k in KINDS.values() if k.use}):
        able = [t for t in scene.things if KINDS[t.kind].use == use]
        text = f"What here could one use to {use}?"
        if not able:
            yield Question("use", text, f"Nothing, because one can use none of these to {use}.", "nothing")
        elif len(able) == 1:
            (thing,) = able
            where = f" {SIDE_PHRASES[thing.side]}" if thing.side else ""
            answer = f"The {noun(thing)}{where}, because one can use {a(thing.kind)} to {use}."
            yield Question("use", text, answer, thing.kind)


def _doors(scene):
    if scene.place:
        key = "indoors" if scene.place == "room" else "outdoors"
        because = "a room has walls and a floor" if key == "indoors" else f"{a(scene.place)} is in the open"
        answer = f"This is {key}, {PLACES[scene.place]}, because {because}."
        yield Question("doors", "Is this indoors or outdoors, and how can one tell?", answer, key)
    for i, t in enumerate(scene.things):
        if t.doing and only_of_its_kind(scene, i):
            answer = f"The {noun(t)} is {t.doing}, so perhaps the person {MOTIVES[t.doing]}."
            yield Question("doing", "What may the person want?", answer, t.doing)


def is_reasoning(question: Question) -> bool:
    """Whether a question asks for a conclusion and its reason (the paper's complex reasoning), not for a fact."""
    text = question.text
    return question.kind in ("use", "doors") or text.endswith("and why?") or text.startswith("What may")


@lru_cache(maxsize=256)  # a scene has about 200 questions: a larger cache would fill the memory of a small laptop
def questions(scene: Scene) -> tuple[Question, ...]:
    """All questions about a scene that have one right answer. What the scene leaves unknown is not asked."""
    makers = (_existence, _attributes, _counts, _place, _relations, _odd, _uses, _doors)
    return tuple(q for make in makers for q in make(scene))


def is_correct(question: Question, answer: str) -> bool:
    """Exact match on the fact asked for, not on the wording: the answer holds the key, and nothing contradicts it."""
    text = " ".join(sentences(answer))
    words = set(text.replace(",", " ").replace("'s", " ").split())
    if question.key in ("yes", "no"):
        return (text.split() or [""])[0].strip(",") == question.key
    if question.kind == "colour":
        return words & set(COLOURS) == {question.key}
    if question.kind == "count":
        said = [NUMBER_OF_WORD[w] for w in text.split() if w in NUMBER_OF_WORD]
        return bool(said) and said[0] == int(question.key)
    if question.kind == "place":
        return {PLACE_OF_WORD[w] for w in words & set(PLACE_OF_WORD)} == {question.key}
    if question.kind == "side":
        return words & set(SIDES) == {question.key}
    if question.kind in ("doors", "doing"):
        return question.key in words
    if question.key == "nothing":
        return "nothing" in words
    asked = {m.kind for s in sentences(question.text) for m in mentions(s)}
    named = [m.kind for s in sentences(answer) for m in mentions(s) if m.kind not in asked]
    return "nothing" not in words and bool(named) and named[0] == question.key


def answer_group(question: Question) -> str:
    """What balances answers: the key, with one group for all things, and for all that somebody does."""
    plain = question.kind not in ("odd", "relation", "use", "doing") or question.key in ("yes", "no", "nothing")
    return question.key if plain else "a thing"


def balanced_questions(scenes: list[Scene], per_kind: int, seed: int = 0) -> list[tuple[Scene, Question]]:
    """`per_kind` questions of each exact kind, the answers of each kind as balanced as the scenes allow.

    A scene gives at most one question of each kind. Raises ValueError when there are too few scenes.
    """
    rng, out, pools = random.Random(f"balanced {seed}"), [], {kind: {} for kind in EXACT_KINDS}
    for scene in scenes:
        for q in questions(scene):
            if q.kind in pools:
                pools[q.kind].setdefault(answer_group(q), []).append((scene, q))
    for kind, pool in pools.items():
        used = Counter()
        for items in pool.values():
            rng.shuffle(items)
        taken, chosen = set(), []
        while len(chosen) < per_kind:
            keys = [k for k in sorted(pool) if pool[k]]
            if not keys:
                found = f"{len(chosen)} of {per_kind} questions found"
                raise ValueError(f"{kind}: {found}; give more scenes than {len(scenes)}")
            key = min(keys, key=lambda k: used[k])
            scene, q = pool[key].pop()
            if scene.id not in taken:
                taken.add(scene.id)
                used[key] += 1
                chosen.append((scene, q))
        out += chosen
    return out


def exact_match(items: list[tuple[str, Question]], answers: list[str]) -> dict[str, float]:
    """Accuracy in per cent for each kind of question, and `all`, the mean over kinds. items: (picture, question)."""
    hits = defaultdict(list)
    for (_, question), text in zip(items, answers, strict=True):
        hits[question.kind].append(is_correct(question, text))
    scores = {kind: round(100 * sum(hits[kind]) / len(hits[kind]), 1) for kind in EXACT_KINDS if hits[kind]}
    return scores | {"all": round(sum(scores.values()) / len(scores), 1)}

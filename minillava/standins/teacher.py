"""The offline teacher: writes conversation, detailed description and complex reasoning from text alone (section 3).

Notable: it stands where GPT-4 stands in the paper. It is given captions (and boxes, for the types that have them) as
text and returns text in the reply format of Table 1; it never sees a scene or a picture, so what it says is only as
true as what it read. `Question:` / `===` / `Answer:` blocks are what `records.parse_reply` takes from any teacher.

    python -c "from minillava.standins.teacher import *; print(teach('detail', ['a red car on the left, a dog on the right, in a park']))"
"""

import random

from minillava.asking import Rejected
from minillava.asking.server import completion
from minillava.datagen.messages import TYPES, context, parse_context
from minillava.datagen.teachers import OFFLINE_MODEL
from minillava.scenes.captions import SIDE, capital, heads, listing, noun, onto, phrase, up
from minillava.scenes.questions import REASONS, Question, is_reasoning, questions
from minillava.scenes.reading import read_scene
from minillava.scenes.world import PLACES, SIDES, Scene, a

NO_IDEA = "I am sorry, but I do not know any of the things in this picture."


TURNS = 8  # questions of a conversation: they share what the picture costs
DETAIL_QUESTIONS = (  # own wording, in the spirit of Table 12
    "Describe this picture in detail.",
    "Tell me everything you can see here.",
    "Give a full account of this picture.",
    "What does this picture show, in detail?",
)
BRIEF_QUESTIONS = (  # own wording, in the spirit of Table 11
    "Describe this picture briefly.",
    "What is this, in a few words?",
    "Give a short caption.",
    "Sum this picture up.",
)
CONVERSATION_MIX = (
    *("existence", "colour", "side", "relation") * 2,
    *("count", "place", "doing", "odd"),
)


def read_context(text: str, name: str = "context") -> Scene:
    """The scene a context tells of. Raises ValueError naming the line of a box that cannot be read."""
    return read_scene(*parse_context(text, name), name)


def describe(scene: Scene) -> str:
    """A detailed description: the place, every thing from left to right, neighbours, what is odd."""
    parts = [f"This picture is {PLACES[scene.place]}."] if scene.place else []
    top = heads(scene)
    for i in top:
        thing = scene.things[i]
        words = [capital(a(noun(thing))), "is"]
        if thing.doing:
            words.append(thing.doing)
        if thing.on is not None:
            words += [onto(thing, scene.things[thing.on]), a(noun(scene.things[thing.on]))]
        if thing.air:
            words.append(up(scene.place))
        if thing.side:
            words.append(SIDE[thing.side])
        if words[-1] != "is":
            parts.append(" ".join(words) + ".")
    ground = [
        scene.things[i] for i in top if not scene.things[i].air and scene.things[i].side and scene.things[i].on is None
    ]
    for t, u in zip(ground, ground[1:]):
        if SIDES.index(u.side) - SIDES.index(t.side) == 1:
            parts.append(f"The {noun(t)} is next to the {noun(u)}.")
    if scene.odd:
        parts.append(f"{capital(phrase(scene, scene.odd[0].thing, article=True))} is odd, because {scene.odd[0].why}.")
    return " ".join(parts)


def brief(scene: Scene) -> str:
    """One sentence with all that is there."""
    where = f" {PLACES[scene.place]}" if scene.place else ""
    return capital(listing([phrase(scene, i) for i in heads(scene)])) + where + "."


def _draw(rng, pool: list[Question], kind: str) -> Question | None:
    """One question of a kind, its answers (yes / no, nothing / something, counts) as even as the pool allows."""
    keys = sorted({q.key for q in pool if q.kind == kind})
    if not keys:
        return None
    if kind == "count" and "0" in keys and rng.random() < 0.6:
        keys.remove("0")
    if kind == "relation" and set(keys) - {"yes", "no"} and rng.random() < 0.6:
        keys = [k for k in keys if k not in ("yes", "no")]
    key = rng.choice(keys)
    choice = [q for q in pool if q.kind == kind and q.key == key]
    if kind == "existence" and key == "no":  # an absent colour of a present kind is the harder question: half of them
        near = [
            q
            for q in choice
            if any(c.text.startswith("What colour") and c.key not in q.text and _same(c, q) for c in pool)
        ]
        choice = near if near and rng.random() < 0.5 else choice
    return rng.choice(choice)


def _same(colour: Question, existence: Question) -> bool:
    return colour.answer.split()[1].removesuffix("'s") in existence.text


def teach(kind: str, captions: list[str], boxes: list[tuple] = (), seed: int | str = 0) -> str:
    """The teacher's reply for one picture, as text in the format of Table 1 (`Question:` / `===` / `Answer:`).

    kind: conversation, detail or complex; a detailed description is the answer alone, as in the authors' prompts.
    Raises ValueError for an unknown kind or when the captions name nothing that it knows.
    """
    if kind not in TYPES:
        raise ValueError(f"{kind!r} is not a response type; choose one of {', '.join(TYPES)}")
    rng, scene = random.Random(f"teacher {kind} {seed}"), read_context(context(captions, boxes))
    if not scene.things:
        raise ValueError(f"the captions name nothing of the picture book's world: {captions[0]!r}")
    if kind == "detail":
        return describe(scene)
    pool = [q for q in questions(scene) if is_reasoning(q) == (kind == "complex")]
    if kind == "complex":
        kinds = [k for k in REASONS if any(q.kind == k for q in pool)]
        chosen = [_draw(rng, pool, "odd" if rng.random() < (0.7 if scene.odd else 0.35) else rng.choice(kinds))]
    else:
        mix, chosen = CONVERSATION_MIX + ("odd",) * 3 * bool(scene.odd), []  # so that "nothing" is half the answers
        while len(chosen) < TURNS:
            q = _draw(rng, pool, rng.choice(mix))
            if q and q.text not in {c.text for c in chosen}:
                chosen.append(q)
    return "\n===\n".join(f"Question:\n{q.text}\n===\nAnswer:\n{q.answer}" for q in chosen)


def form(messages: list[dict]) -> str:
    """Which response type the messages ask for: the few-shot replies show it, else the system message names it.

    Raises Rejected when neither does.
    """
    shown = [m["content"] for m in messages if m["role"] == "assistant"]
    if shown:
        asked = max(text.count("Question:") for text in shown)
        return ("detail", "complex", "conversation")[min(asked, 2)]
    told = " ".join(m["content"].lower() for m in messages if m["role"] == "system")
    for words, kind in (
        ("conversation", "conversation"),
        ("reason", "complex"),
        ("detail", "detail"),
        ("descri", "detail"),
    ):
        if words in told:
            return kind
    raise Rejected(
        "no few-shot example and no system message says what to write: conversation, description or reasoning"
    )


def offline_reply(body: dict) -> dict:
    """The rule-based teacher's chat completion for a request. The same request gets the same reply.

    It declines, as an API does, where the captions name nothing of the picture book's world, and is cut off at the
    request's limit. Raises Rejected for messages that ask for nothing, or whose boxes cannot be read.
    """
    turns = [m for m in body["messages"] if m["role"] == "user"]
    kind = form(body["messages"])
    if not turns or not turns[-1]["content"].strip():
        raise Rejected("no user message with captions")
    context = turns[-1]["content"]
    try:
        captions, boxes = parse_context(context, "the last message")
    except ValueError as error:
        raise Rejected(str(error)) from None
    try:
        text = teach(kind, captions, boxes, f"{body.get('seed', 0)} {context}")
    except ValueError:
        return completion(body, "", refusal=NO_IDEA)
    most = 4 * (body.get("max_completion_tokens") or body.get("max_tokens") or len(text))
    return completion(body, text[:most], "stop" if len(text) <= most else "length")


class OfflineTeacher:
    """The rule-based teacher in this process: no key, no cost."""

    model, endpoint = OFFLINE_MODEL, "the offline teacher"

    async def open(self) -> None:
        pass

    async def complete(self, body: dict, name: str) -> dict:
        return offline_reply(body)

    async def close(self) -> None:
        pass

"""The offline teacher writes conversation, detailed description and complex reasoning from text alone (section 3).

It takes GPT-4's place. It gets captions, and boxes for the types that have them, as text, and returns text in the reply
format of Table 1: blocks of `Question:` and `Answer:` divided by `===`, which `replies.read_pairs` reads from any
teacher. It never sees a scene or a picture, so what it says is only as true as what it read.

    python -c "from minillava.standins import teacher; print(teacher.teacher_reply('detail', ['a red car in a park']))"
"""

import random

from minillava.asking import Rejected
from minillava.asking.server import completion
from minillava.datagen.messages import TYPES, context, parse_context
from minillava.datagen.teachers import OFFLINE_MODEL
from minillava.scenes.captions import SIDE_PHRASES, capitalise, join_words, noun, phrase, subjects
from minillava.scenes.questions import REASONING_KINDS, Question, is_reasoning, questions
from minillava.scenes.reading import read_scene
from minillava.scenes.world import PLACES, SIDES, Scene, a

REFUSAL = "I am sorry, but I do not know any of the things in this picture."
MOST_CHARACTERS = 5_000  # of captions and boxes; reading them takes time with the square of it
CONVERSATION_TURNS = 8  # questions in a conversation; the picture is encoded once for all of them
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
CONVERSATION_MIX = ("existence", "colour", "side", "relation") * 2 + ("count", "place", "doing", "odd")


def read_context(text: str, name: str = "context") -> Scene:
    """The scene that a context describes. Raises ValueError, naming the line, for a box that cannot be read."""
    return read_scene(*parse_context(text, name), name)


def detailed_description(scene: Scene) -> str:
    """A detailed description: the place, every thing from left to right, which are neighbours, and what is odd."""
    parts = [f"This picture is {PLACES[scene.place]}."] if scene.place else []
    ground = []
    for i in subjects(scene):
        thing, name = scene.things[i], a(noun(scene.things[i]))
        told = phrase(scene, i).removeprefix(name) + (f" {SIDE_PHRASES[thing.side]}" if thing.side else "")
        if told:
            parts.append(f"{capitalise(name)} is{told}.")
        if not thing.air and thing.side and thing.on is None:
            ground.append(thing)
    for t, u in zip(ground, ground[1:]):
        if SIDES.index(u.side) - SIDES.index(t.side) == 1:
            parts.append(f"The {noun(t)} is next to the {noun(u)}.")
    if scene.odd:
        parts.append(f"{capitalise(phrase(scene, scene.odd[0].thing))} is odd, because {scene.odd[0].why}.")
    return " ".join(parts)


def brief_description(scene: Scene) -> str:
    """One sentence that names everything."""
    where = f" {PLACES[scene.place]}" if scene.place else ""
    return capitalise(join_words([phrase(scene, i) for i in subjects(scene)])) + where + "."


def _draw(rng, pool: list[Question], kind: str) -> Question | None:
    """One question of a kind, or None. Its answers (yes / no, counts, nothing / something) are drawn evenly."""
    keys = sorted({q.key for q in pool if q.kind == kind})
    if not keys:
        return None
    if kind == "count" and "0" in keys and rng.random() < 0.6:
        keys.remove("0")
    if kind == "relation" and set(keys) - {"yes", "no"} and rng.random() < 0.6:
        keys = [k for k in keys if k not in ("yes", "no")]
    key = rng.choice(keys)
    choice = [q for q in pool if q.kind == kind and q.key == key]
    if kind == "existence" and key == "no":  # harder: a thing that is there, in another colour; half of the questions
        coloured = [(c.answer.split()[1].removesuffix("'s"), c.key) for c in pool if c.text.startswith("What colour")]
        near = [q for q in choice if any(name in q.text and colour not in q.text for name, colour in coloured)]
        choice = near if near and rng.random() < 0.5 else choice
    return rng.choice(choice)


def teacher_reply(kind: str, captions: list[str], boxes: list[tuple] = (), seed: int | str = 0) -> str:
    """The teacher's reply for one picture, as text in the format of Table 1.

    kind: conversation, detail or complex. A detailed description is only an answer, as in the authors' prompts.
    Raises ValueError for an unknown kind, or when the captions name nothing of the picture book's world.
    """
    if kind not in TYPES:
        raise ValueError(f"{kind!r} is not a response type; choose one of {', '.join(TYPES)}")
    rng, scene = random.Random(f"teacher {kind} {seed}"), read_context(context(captions, boxes))
    if not scene.things:
        raise ValueError(f"the captions name nothing of the picture book's world: {captions[0]!r}")
    if kind == "detail":
        return detailed_description(scene)
    pool = [q for q in questions(scene) if is_reasoning(q) == (kind == "complex")]
    if kind == "complex":
        kinds = [k for k in REASONING_KINDS if any(q.kind == k for q in pool)]
        chosen = [_draw(rng, pool, "odd" if rng.random() < (0.7 if scene.odd else 0.35) else rng.choice(kinds))]
    else:
        # Two scenes in three have nothing odd. More questions about the third keep "nothing" at half of the answers.
        mix, chosen = CONVERSATION_MIX + ("odd",) * 3 * bool(scene.odd), []
        while len(chosen) < CONVERSATION_TURNS:
            q = _draw(rng, pool, rng.choice(mix))
            if q and q.text not in {c.text for c in chosen}:
                chosen.append(q)
    return "\n===\n".join(f"Question:\n{q.text}\n===\nAnswer:\n{q.answer}" for q in chosen)


def response_type(messages: list[dict]) -> str:
    """The response type that the messages ask for, from the few-shot replies, else from the system message.

    Raises Rejected when neither tells it.
    """
    replies = [m["content"] for m in messages if m["role"] == "assistant"]
    if replies:
        asked = max(text.count("Question:") for text in replies)
        return ("detail", "complex", "conversation")[min(asked, 2)]
    system = " ".join(m["content"].lower() for m in messages if m["role"] == "system")
    words = {"conversation": "conversation", "reason": "complex", "detail": "detail", "descri": "detail"}
    found = [kind for word, kind in words.items() if word in system]
    if not found:
        raise Rejected("no few-shot example and no system message asks for conversation, description or reasoning")
    return found[0]


def offline_reply(body: dict) -> dict:
    """The offline teacher's chat completion for a request. The same request gets the same reply.

    Like an API it refuses when the captions name nothing of the picture book's world, and it ends at the request's
    limit of tokens. Raises Rejected for messages that ask for nothing, or whose boxes cannot be read.
    """
    turns = [m for m in body["messages"] if m["role"] == "user"]
    kind = response_type(body["messages"])
    if not turns or not turns[-1]["content"].strip():
        raise Rejected("no user message with captions")
    context = turns[-1]["content"]
    if len(context) > MOST_CHARACTERS:
        raise Rejected(
            f"captions and boxes of {len(context):,} characters; the offline teacher reads {MOST_CHARACTERS:,}"
        )
    try:
        captions, boxes = parse_context(context, "the last message")
    except ValueError as error:
        raise Rejected(str(error)) from None
    try:
        text = teacher_reply(kind, captions, boxes, f"{body.get('seed', 0)} {context}")
    except ValueError:
        return completion(body, "", refusal=REFUSAL)
    most = 4 * (body.get("max_completion_tokens") or body.get("max_tokens") or len(text))  # characters, 4 per token
    return completion(body, text[:most], "stop" if len(text) <= most else "length")


class OfflineTeacher:
    """The offline teacher, in this process: no key, no cost."""

    model, endpoint = OFFLINE_MODEL, "the offline teacher"

    async def open(self) -> None:
        pass

    async def complete(self, body: dict, name: str) -> dict:
        return offline_reply(body)

    async def close(self) -> None:
        pass

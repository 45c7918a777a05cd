"""Five captions per scene, written as five people would, and the scene's boxes in COCO's and in the authors' format.

The five writers differ as human annotators do: one lists everything from left to right, one is terse, one starts from
the place, one names a relation, one counts things or wonders. Every sentence is true. No single writer has to tell
everything, but the five together do, so a text-only teacher can know the scene (section 3, Table 1).

    python -c "from minillava.scenes import captions, compose; print(captions.captions(compose.compose('train', 0)))"
"""

import random
from collections import Counter

from minillava.scenes.world import KINDS, PLACES, SIDES, Scene, Thing, a

NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six")
SIDE_PHRASES = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
# Another word -> the kind or place it means.
SYNONYMS = {"bike": "bicycle", "airplane": "plane", "mug": "cup", "bunny": "rabbit", "sailboat": "boat"}
SYNONYMS |= {"road": "street", "seaside": "beach"}
# What the third writer says of a place.
ADJECTIVES = {"park": ("green", "quiet", "sunny"), "street": ("grey", "busy", "long"), "lake": ("calm", "blue", "wide")}
ADJECTIVES |= {"room": ("warm", "cosy", "tidy"), "beach": ("sandy", "sunny", "wide")}


def noun(thing: Thing, colour: bool = True) -> str:
    """The thing without an article: `red car`, `person in red`. colour: whether to name its colour."""
    if not colour or thing.colour is None:
        return thing.kind
    return f"person in {thing.colour}" if thing.kind == "person" else f"{thing.colour} {thing.kind}"


def sky_phrase(place: str | None) -> str:
    """Where things fly or hang in this place."""
    return "in the air" if place == "room" else "in the sky"


def preposition(top: Thing, under: Thing) -> str:
    """The word between `top` and the thing it is on: `riding`, `in` or `on`."""
    if top.kind == "person" and under.kind in ("horse", "bicycle"):
        return "riding"
    return "in" if under.kind in ("boat", "box") else "on"


def phrase(scene: Scene, i: int, colour: bool = True) -> str:
    """Thing number i, what it is doing and what it is on: `a person in red reading on a blue chair`."""
    thing = scene.things[i]
    words = [a(noun(thing, colour))]
    if thing.doing:
        words.append(thing.doing)
    if thing.on is not None:
        under = scene.things[thing.on]
        words += [preposition(thing, under), a(noun(under, colour))]
    if thing.air:
        words.append(sky_phrase(scene.place))
    return " ".join(words)


def subjects(scene: Scene) -> list[int]:
    """Indices of the things a sentence names, from left to right, on the ground before in the air.

    A thing that carries another is left out, because `phrase` names it together with what it carries.
    """
    carriers = {t.on for t in scene.things}
    named = {i: t for i, t in enumerate(scene.things) if i not in carriers}
    return sorted(named, key=lambda i: (SIDES.index(named[i].side) if named[i].side else 1, named[i].air))


def join_words(parts: list[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def capitalise(text: str) -> str:
    return text[0].upper() + text[1:]


def _full(rng, scene):
    all_things = join_words([f"{phrase(scene, i)} {SIDE_PHRASES[scene.things[i].side]}" for i in subjects(scene)])
    where = PLACES[scene.place]
    return rng.choice((f"{capitalise(where)} there is {all_things}.", f"{capitalise(all_things)}, {where}."))


def _terse(rng, scene):
    some = rng.sample(subjects(scene), min(len(subjects(scene)), rng.choice((1, 2))))
    return join_words([a(noun(scene.things[i], rng.random() < 0.7)) for i in sorted(some)])


def _place(rng, scene):
    parts = [phrase(scene, i, colour=rng.random() < 0.6) for i in subjects(scene)]
    return f"{capitalise(a(rng.choice(ADJECTIVES[scene.place]) + ' ' + scene.place))} with {join_words(parts)}."


def _relation(rng, scene):
    things, options = scene.things, []
    ground = [i for i in subjects(scene) if not things[i].air and things[i].on is None]
    for thing in things:
        if thing.on is not None:
            under = things[thing.on]
            word = preposition(thing, under)
            verb = "is" if word == "riding" else rng.choice(("is", "is right"))
            options.append(f"{capitalise(a(noun(thing)))} {verb} {word} {a(noun(under))}.")
        elif thing.doing:
            options.append(f"{capitalise(a(noun(thing)))} is {thing.doing} {PLACES[scene.place]}.")
    for i, j in zip(ground, ground[1:]):
        gap = SIDES.index(things[j].side) - SIDES.index(things[i].side)
        how = "next to" if gap == 1 and rng.random() < 0.5 else "to the left of"
        options.append(f"{capitalise(a(noun(things[i])))} is {how} {a(noun(things[j]))}.")
    return rng.choice(options) if options else f"There is {phrase(scene, subjects(scene)[0])} {PLACES[scene.place]}."


def _wonder(rng, scene):
    if scene.odd:
        return f"How odd, {phrase(scene, scene.odd[0].thing)} {PLACES[scene.place]}!"
    counts = Counter(t.kind for t in scene.things)
    parts = [a(k) if n == 1 else f"{NUMBER_WORDS[n]} {KINDS[k].plural}" for k, n in counts.items()]
    return f"{join_words(parts)} {PLACES[scene.place]}"


def captions(scene: Scene) -> list[str]:
    """Five captions as COCO has them. The order of the writers is shuffled for each scene."""
    rng = random.Random(f"captions {scene.id}")
    texts = [writer(rng, scene) for writer in (_full, _terse, _place, _relation, _wonder)]
    for synonym, name in SYNONYMS.items():  # some people use another word; the writer who lists everything does not
        if rng.random() < 0.3:
            texts[1:] = [" ".join(synonym if w == name else w for w in text.split(" ")) for text in texts[1:]]
    texts = [text.replace("a airplane", "an airplane") for text in texts]
    rng.shuffle(texts)
    return texts


def boxes(scene: Scene) -> list[tuple[str, tuple[float, ...]]]:
    """(category, (x1, y1, x2, y2)) of every thing, normalised to [0, 1] with 3 decimals, as in the authors' files."""
    return [(t.kind, tuple(v / 1000 for v in t.box)) for t in scene.things]


def caps_boxes(scene: Scene) -> dict:
    """The scene as one record of the authors' caps_boxes JSONL file."""
    instances = [{"category": kind, "bbox": list(box)} for kind, box in boxes(scene)]
    return {"id": scene.id, "image": f"{scene.id}.png", "captions": captions(scene), "instances": instances}


def coco_files(scenes: list[Scene], size: int) -> tuple[dict, dict]:
    """The scenes as COCO's captions_*.json and instances_*.json. Boxes are x, y, width, height in pixels."""
    images = [{"id": n, "file_name": f"{s.id}.png", "width": size, "height": size} for n, s in enumerate(scenes)]
    ids = {kind: n for n, kind in enumerate(KINDS, 1)}
    texts, instances = [], []
    for n, scene in enumerate(scenes):
        texts += [{"id": 5 * n + k, "image_id": n, "caption": text} for k, text in enumerate(captions(scene))]
        for kind, (x1, y1, x2, y2) in boxes(scene):
            box = [round(v * size, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
            row = {"id": len(instances), "image_id": n, "category_id": ids[kind], "bbox": box}
            instances.append(row | {"area": round(box[2] * box[3], 2), "iscrowd": 0})
    categories = [{"id": n, "name": kind} for kind, n in ids.items()]
    found = {"images": images, "annotations": instances, "categories": categories}
    return {"images": images, "annotations": texts}, found

"""Five captions a scene, as five people would write them, and its boxes in COCO's and in the authors' format.

Notable: the writers differ as human annotators do - one lists everything from left to right, one is terse, one starts
from the place, one sees a relation, one counts or wonders - and every sentence is true. What no single writer must
say, the five together do, so a text-only teacher can know the scene (section 3, Table 1: captions and boxes).

    python -c "from minillava.scenes import captions, compose; print(captions.captions(compose.compose('train', 0)))"
"""

import random

from minillava.scenes.world import KINDS, PLACES, SIDES, Scene, Thing, a

NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six")
SIDE_PHRASES = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
SYNONYMS = {"bike": "bicycle", "airplane": "plane", "mug": "cup", "bunny": "rabbit", "sailboat": "boat", "road": "street",
           "seaside": "beach"}  # fmt: skip
ADJECTIVES = {
    "park": ("green", "quiet", "sunny"), "street": ("grey", "busy", "long"), "lake": ("calm", "blue", "wide"),
    "room": ("warm", "cosy", "tidy"), "beach": ("sandy", "sunny", "wide"),
}  # fmt: skip


def noun(thing: Thing, colour: bool = True) -> str:
    """The thing without an article: `red car`, `person in red`."""
    if not colour or thing.colour is None:
        return thing.kind
    return f"person in {thing.colour}" if thing.kind == "person" else f"{thing.colour} {thing.kind}"


def sky_phrase(place: str | None) -> str:
    return "in the air" if place == "room" else "in the sky"


def preposition(top: Thing, under: Thing) -> str:
    """How one says that `top` is on `under`: `riding`, `in`, `on`."""
    if top.kind == "person" and under.kind in ("horse", "bicycle"):
        return "riding"
    return "in" if under.kind in ("boat", "box") else "on"


def phrase(scene: Scene, i: int, colour: bool = True, article: bool = True) -> str:
    """Thing number i with what it does and what it is on: `a person in red reading on a blue chair`."""
    thing = scene.things[i]
    words = [a(noun(thing, colour)) if article else noun(thing, colour)]
    if thing.doing:
        words.append(thing.doing)
    if thing.on is not None:
        under = scene.things[thing.on]
        words += [preposition(thing, under), a(noun(under, colour))]
    if thing.air:
        words.append(sky_phrase(scene.place))
    return " ".join(words)


def subjects(scene: Scene) -> list[int]:
    """The things to name, left to right, ground first; what carries something is named with it."""
    under = {t.on for t in scene.things}
    order = [i for i in range(len(scene.things)) if i not in under]
    return sorted(
        order, key=lambda i: (SIDES.index(scene.things[i].side) if scene.things[i].side else 1, scene.things[i].air)
    )


def join_words(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def capitalise(text: str) -> str:
    return text[0].upper() + text[1:]


def _full(rng, scene):
    parts = [f"{phrase(scene, i)} {SIDE_PHRASES[scene.things[i].side]}" for i in subjects(scene)]
    where = PLACES[scene.place]
    return rng.choice(
        (f"{capitalise(where)} there is {join_words(parts)}.", f"{capitalise(join_words(parts))}, {where}.")
    )


def _terse(rng, scene):
    some = rng.sample(subjects(scene), min(len(subjects(scene)), rng.choice((1, 2))))
    return join_words([a(noun(scene.things[i], rng.random() < 0.7)) for i in sorted(some)])


def _place(rng, scene):
    parts = [phrase(scene, i, colour=rng.random() < 0.6) for i in subjects(scene)]
    return f"{capitalise(a(rng.choice(ADJECTIVES[scene.place]) + ' ' + scene.place))} with {join_words(parts)}."


def _relation(rng, scene):
    things, options = scene.things, []
    stacked = {t.on for t in things}
    ground = [i for i in subjects(scene) if not things[i].air and things[i].on is None and i not in stacked]
    for thing in things:
        if thing.on is not None:
            under = things[thing.on]
            pose = "" if preposition(thing, under) == "riding" else rng.choice(("is ", "is right "))
            pose = "is " if preposition(thing, under) == "riding" else pose
            options.append(f"{capitalise(a(noun(thing)))} {pose}{preposition(thing, under)} {a(noun(under))}.")
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
    kinds = {}
    for thing in scene.things:
        kinds[thing.kind] = kinds.get(thing.kind, 0) + 1
    parts = [a(k) if n == 1 else f"{NUMBER_WORDS[n]} {KINDS[k].plural}" for k, n in kinds.items()]
    return f"{join_words(parts)} {PLACES[scene.place]}"


def captions(scene: Scene) -> list[str]:
    """Five captions in COCO's manner; the order of the writers changes from scene to scene."""
    rng = random.Random(f"captions {scene.id}")
    texts = [writer(rng, scene) for writer in (_full, _terse, _place, _relation, _wonder)]
    for alias, name in SYNONYMS.items():  # people use other words for the same; the one who lists does not
        if rng.random() < 0.3:
            texts[1:] = [" ".join(alias if w == name else w for w in text.split(" ")) for text in texts[1:]]
    texts = [text.replace("a airplane", "an airplane") for text in texts]
    rng.shuffle(texts)
    return texts


def boxes(scene: Scene) -> list[tuple[str, tuple[float, ...]]]:
    """(category, (x1, y1, x2, y2)) of every thing, normalised to [0, 1] with 3 decimals (facts: caps_boxes JSONL)."""
    return [(t.kind, tuple(v / 1000 for v in t.box)) for t in scene.things]


def caps_boxes(scene: Scene) -> dict:
    """The scene as one record of the authors' caps_boxes JSONL."""
    instances = [{"category": kind, "bbox": list(box)} for kind, box in boxes(scene)]
    return {"id": scene.id, "image": f"{scene.id}.png", "captions": captions(scene), "instances": instances}


def coco_files(scenes: list[Scene], size: int) -> tuple[dict, dict]:
    """The scenes as COCO's captions_*.json and instances_*.json: boxes are x, y, width, height in pixels."""
    images = [{"id": n, "file_name": f"{s.id}.png", "width": size, "height": size} for n, s in enumerate(scenes)]
    ids = {kind: n for n, kind in enumerate(KINDS, 1)}
    texts, instances = [], []
    for n, scene in enumerate(scenes):
        texts += [{"id": 5 * n + k, "image_id": n, "caption": text} for k, text in enumerate(captions(scene))]
        for kind, (x1, y1, x2, y2) in boxes(scene):
            box = [round(v * size, 2) for v in (x1, y1, x2 - x1, y2 - y1)]
            instances.append({"id": len(instances), "image_id": n, "category_id": ids[kind], "bbox": box,
                              "area": round(box[2] * box[3], 2), "iscrowd": 0})  # fmt: skip
    categories = [{"id": n, "name": kind} for kind, n in ids.items()]
    return {"images": images, "annotations": texts}, {
        "images": images,
        "annotations": instances,
        "categories": categories,
    }

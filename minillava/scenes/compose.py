"""Compose random scenes, the same on every machine, in splits that cannot share a scene.

Notable: a hash of a scene's *content* decides which split it may be in. So no benchmark scene can be in the training
set, however many scenes are drawn. Some colours of some kinds, and some kinds in some places, appear only in the split
`wild`. About a third of all scenes are odd on purpose, each in exactly one way (`world.oddities` finds it).

    python -c "from minillava.scenes.compose import scenes; print(scenes('train', 3))"
"""

import hashlib
import random
from dataclasses import replace
from functools import lru_cache

from minillava.scenes.world import CAN_FLY, COLOURS, DOING_WIDTH, DOINGS, KINDS, PLACES, SIDES, Scene, Thing, oddities

# Split -> which of 20 buckets its scenes hash to.
SPLIT_BUCKETS = {"train": range(14), "dev": range(14, 16), "bench": range(16, 18), "wild": range(18, 20)}
ODD_SHARE = 1 / 3
PLACE_DRAWS = ("park", "park", "park", "street", "street", "lake", "room", "room", "room", "beach")


def _kinds_by_place(level: str) -> dict[str, list[str]]:
    """Place -> kinds to draw from. A kind that is usual in few places is listed more than once, so that all kinds are
    about equally frequent. level: `ground` or `air`."""
    usual = {kind.name: getattr(kind, level) for kind in KINDS.values()}
    return {p: [name for name, places in usual.items() if p in places for _ in range(6 // len(places))] for p in PLACES}


GROUND_KINDS, AIR_KINDS = _kinds_by_place("ground"), _kinds_by_place("air")


def bucket(text: str, buckets: int) -> int:
    """A hash of the text, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % buckets


@lru_cache
def held_out(kind: str, colour: str | None = None, place: str | None = None) -> bool:
    """Whether this kind in this colour (1 in 12), or in this place (1 in 10), appears only in the split `wild`."""
    if colour:
        return bucket(f"colour {kind} {colour}", 12) == 0
    usual = [p for p in PLACES if p in KINDS[kind].ground + KINDS[kind].air]
    return len(usual) > 1 and bucket(f"place {kind} {place}", 10) == 0


def _novel(scene: Scene) -> bool:
    return any(held_out(t.kind, colour=t.colour) or held_out(t.kind, place=scene.place) for t in scene.things)


def _box(rng, kind: str, column: int, air: bool, under: Thing | None, doing: str | None) -> tuple:
    """A box in thousandths of the picture. Each side has a third of its width; feet are at about 0.9 of its height."""
    w, h = KINDS[kind].size
    scale = rng.choice((900, 1000, 1080))
    w, h = w * scale // 1000, h * scale // 1000
    w = w * DOING_WIDTH.get(doing, 100) // 100
    if under is not None:
        x = (under.box[0] + under.box[2]) // 2 + rng.randrange(-15, 16)
        foot = under.box[1] + (under.box[3] - under.box[1]) * KINDS[under.kind].seat // 1000
    else:
        x = 167 + 333 * column + rng.randrange(-25, 26)
        foot = 60 + h + rng.randrange(0, 90) if air else rng.randrange(860, 950)
    x1 = min(max(x - w // 2, 5), 995 - w)
    y1 = max(foot - h, 5)
    return x1, y1, x1 + w, y1 + h


def _thing(rng, kind, side, air=False, on=None, under=None, doing=None) -> Thing:
    box = _box(rng, kind, SIDES.index(side), air, under, doing)
    return Thing(kind, rng.choice(list(COLOURS)), side, air, on, doing, box, flip=rng.random() < 0.5)


def _usual_things(rng, place: str) -> list[Thing]:
    """What one expects there: one to three things on the ground, something on some of them, and things in the air."""
    things, free_air = [], list(SIDES)
    columns = rng.sample(SIDES, rng.choice((1, 2, 2, 3, 3)))
    repeat = rng.random() < 0.3  # several things of one kind, so that there is something to count
    kind = rng.choice(GROUND_KINDS[place])
    for side in columns:
        kind = kind if repeat else rng.choice(GROUND_KINDS[place])
        doing = rng.choice(list(DOINGS)) if kind == "person" and rng.random() < 0.6 else None
        if doing and place not in DOINGS[doing][0]:
            doing = None
        base = _thing(rng, kind, side, doing=doing)
        things.append(base)
        tops = [k for k in KINDS[kind].carries if place in KINDS[k].ground + KINDS[k].air or k == "person"]
        if tops and rng.random() < 0.45:
            top = rng.choice([k for k in tops if k != "bird"] or tops)
            usual = [d for d in ("reading", "waving", "fishing") if place in DOINGS[d][0]]
            busy = top == "person" and kind not in ("horse", "bicycle") and rng.random() < 0.7
            doing = rng.choice(usual) if busy else None
            things.append(_thing(rng, top, side, on=len(things) - 1, under=base, doing=doing))
            free_air.remove(side)
    kind = rng.choice(AIR_KINDS[place])
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        kind = kind if repeat else rng.choice(AIR_KINDS[place])
        side = free_air.pop(rng.randrange(len(free_air))) if free_air else None
        if side:
            things.append(_thing(rng, kind, side, air=True))
    return things


def _odd_things(rng, place: str) -> list[Thing]:
    """The usual things, and one that is odd: in the air, in the wrong place, on the wrong thing, or by what it does."""
    things = _usual_things(rng, place)
    side = rng.choice(SIDES)
    things = _without(things, side)
    way = rng.choice(("air", "air", "place", "place", "support", "support", "doing"))
    if way == "air":
        kind = rng.choice([k for k in KINDS if not KINDS[k].air and KINDS[k].size[1] < 310])
        return [*things, _thing(rng, kind, side, air=True)]
    if way == "place":
        return [*things, _thing(rng, rng.choice([k for k in KINDS if KINDS[k].ground]), side)]
    bases = [k for k in GROUND_KINDS[place] if KINDS[k].seat is not None and k not in ("boat", "tree", "bicycle")]
    if way == "doing" or not bases:
        unusual = [d for d in DOINGS if place not in DOINGS[d][0]]
        if not unusual or place == "lake":
            return things
        if not bases or rng.random() < 0.5:
            return [*things, _thing(rng, "person", side, doing=rng.choice(unusual))]
        base = _thing(rng, rng.choice(bases), side)
        return [*things, base, _thing(rng, "person", side, on=len(things), under=base, doing=rng.choice(unusual))]
    base = _thing(rng, rng.choice(bases), side)
    excluded = {*KINDS[base.kind].carries, *CAN_FLY, base.kind}
    tops = [k for k in KINDS if KINDS[k].ground and k not in excluded]
    tops += ["horse", "cow", "fish", "sheep", "person"]
    top = rng.choice([k for k in tops if k not in ("tree", "house")])
    return [*things, base, _thing(rng, top, side, on=len(things), under=base)]


def _without(things: list[Thing], side: str) -> list[Thing]:
    """The things on the other sides, with `on` renumbered. What stands on a thing is on the same side as that thing."""
    left = [i for i, t in enumerate(things) if t.side != side]
    return [replace(t, on=None if t.on is None else left.index(t.on)) for t in map(things.__getitem__, left)]


def compose(split: str, index: int) -> Scene:
    """Scene number `index` of a split, always the same one. Raises KeyError for an unknown split."""
    buckets, wild = SPLIT_BUCKETS[split], split == "wild"
    rng = random.Random(f"picture book 1 {split} {index}")
    odd = rng.random() < (0.5 if wild else ODD_SHARE)
    for _ in range(10_000):
        place = rng.choice(PLACE_DRAWS)
        things = _odd_things(rng, place) if odd else _usual_things(rng, place)
        scene = Scene(f"{split}-{index:06d}", place, tuple(things), rng.randrange(6), "sticker" if wild else "book")
        if not things or len(oddities(scene)) != odd or _novel(scene) != wild:
            continue
        if bucket(str(scene.key()), 20) in buckets:
            return scene
    raise RuntimeError(f"no scene found for {split} {index}: the rules of the world contradict each other")


def scenes(split: str, count: int, start: int = 0) -> list[Scene]:
    """`count` scenes of a split: train; dev, on which recipes are chosen; bench, which chose nothing; or wild."""
    return [compose(split, i) for i in range(start, start + count)]


def twin(scene: Scene, rng: random.Random) -> Scene:
    """A training scene that differs in one respect: one colour, two colours exchanged, or left and right exchanged.

    A hard negative for contrastive pre-training: only colour, binding or position can tell the two apart. Returns the
    scene itself when the changed one would not belong to the training split.
    """
    things, way = list(scene.things), rng.choice(("colour", "exchange", "mirror"))
    if way == "mirror":
        for i, t in enumerate(things):
            x1, y1, x2, y2 = t.box
            side = SIDES[2 - SIDES.index(t.side)]
            things[i] = replace(t, side=side, box=(1000 - x2, y1, 1000 - x1, y2), flip=not t.flip)
    else:
        i, j = rng.randrange(len(things)), rng.randrange(len(things))
        one, two = things[i].colour, things[j].colour
        if way == "exchange":
            things[i], things[j] = replace(things[i], colour=two), replace(things[j], colour=one)
        else:
            things[i] = replace(things[i], colour=rng.choice(list(COLOURS)))
    other = Scene(scene.id + "-twin", scene.place, tuple(things), scene.variant, scene.style)
    return other if not _novel(other) and bucket(str(other.key()), 20) in SPLIT_BUCKETS["train"] else scene

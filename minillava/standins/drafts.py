"""The questions of the science quiz (section 5.2), one function per skill, from a scene or only from what the world is.

Every function returns a question with exactly one right choice, or None where the scene allows none. A choice that one
could argue for is never among the wrong ones: a plane crosses the water too.

    python -c "from minillava.standins.drafts import *; print(plural_form(random.Random(0), None))"
"""

import random
from dataclasses import dataclass

from minillava.scenes.captions import NUMBER_WORDS, SIDE_PHRASES, capitalise, join_words, noun
from minillava.scenes.world import CAN_FLY, COLOURS, KINDS, PLACES, SIDES, Scene, Thing, a

GROUPS = {
    "animal": ("cat", "dog", "horse", "cow", "sheep", "rabbit", "bird", "duck", "fish", "butterfly"),
    "vehicle": ("car", "bus", "truck", "bicycle", "boat", "plane"),
    "plant": ("tree", "flower"),
}
PEOPLE = ("Ann", "Ben", "Eva", "Tom", "Mia", "Leo")
DEBATABLE = {  # use or group -> things that one could argue serve it or belong to it too
    "cross the water": ("plane",), "carry a rider": ("bicycle", "cow", "boat"), "pedal along": ("boat",),
    "keep the sun off": ("umbrella", "tree", "house"), "find shade": ("umbrella", "house", "hat", "boat"),
    "stay dry": ("house", "hat", "car", "bus", "truck"), "sit down": ("box", "bicycle", "horse", "bus", "car"),
    "live inside": ("boat", "bus"), "drive": ("bicycle", "boat", "plane"), "play a game": ("balloon", "kite", "box"),
    "plant": ("mushroom",), "fly": ("duck",),
}  # fmt: skip
USES = {k.name: k.use for k in KINDS.values() if k.use}


@dataclass(frozen=True)
class Draft:
    """A question, its choices with the right one first, the reasons for it, and the text that comes with it."""

    question: str
    choices: tuple[str, ...]
    solution: str
    hint: str = ""


def _others(rng: random.Random, pool, right: str, count: int) -> list[str]:
    rest = sorted(set(pool) - {right})
    return rng.sample(rest, min(count, len(rest)))


def _single(scene: Scene) -> list[Thing]:
    """The things whose kind occurs once, so that `the car` means one thing."""
    kinds = [t.kind for t in scene.things]
    return [t for t in scene.things if kinds.count(t.kind) == 1]


def _where(thing: Thing) -> str:
    return f"{capitalise(a(noun(thing)))} is {SIDE_PHRASES[thing.side]}."


def living_things(rng, scene):
    here = {t.kind for t in scene.things}
    for group in rng.sample(sorted(GROUPS), len(GROUPS)):
        found = sorted(here & set(GROUPS[group]))
        absent = sorted(set(GROUPS[group]) - here)
        if len(found) == 1 and absent:
            wrong = rng.sample(absent, min(len(absent), rng.choice((1, 2, 3))))
            return Draft(f"Which {group} is in the picture?", (found[0], *wrong), f"The picture shows {a(found[0])}.")
    return None


def use_and_colour(rng, scene):
    uses = [USES.get(t.kind) for t in scene.things]
    able = [t for t in scene.things if t.kind in USES and uses.count(USES[t.kind]) == 1]
    if not able:
        return None
    thing = rng.choice(able)
    question = f"What colour is the thing in the picture that one can use to {USES[thing.kind]}?"
    wrong = _others(rng, COLOURS, thing.colour, rng.choice((1, 2, 3)))
    solution = f"One can use {a(thing.kind)} to {USES[thing.kind]}. The {thing.kind} is {thing.colour}."
    return Draft(question, (thing.colour, *wrong), solution)


def what_flies(rng, scene):
    kinds = sorted({t.kind for t in scene.things})
    fly = [k for k in kinds if k in CAN_FLY]
    still = [k for k in kinds if k not in CAN_FLY and k not in DEBATABLE["fly"]]
    if not fly or not still:
        return None
    right, wrong = rng.choice(fly), rng.sample(still, min(len(still), rng.choice((1, 2))))
    solution = f"{capitalise(join_words([a(k) for k in wrong]))} cannot fly. What can fly is the {right}."
    return Draft("Which of these things in the picture can fly?", (right, *wrong), solution)


def member_of_group(rng, scene):
    group = rng.choice(sorted(GROUPS))
    right = rng.choice(GROUPS[group])
    pool = [k for k in KINDS if k not in GROUPS[group] and k != "person" and k not in DEBATABLE.get(group, ())]
    wrong = _others(rng, pool, right, rng.choice((1, 2, 3)))
    return Draft(f"Which of these is {a(group)}?", (right, *wrong), f"The {group} is the {right}.")


def habitat(rng, scene):
    kind = rng.choice([k for k in GROUPS["animal"] if KINDS[k].ground])
    elsewhere = [p for p in PLACES if p not in KINDS[kind].ground]
    seen = rng.choice(elsewhere)
    right = rng.choice(KINDS[kind].ground)
    choices = tuple(PLACES[p] for p in (right, *_others(rng, elsewhere, right, rng.choice((1, 2)))))
    solution = f"The animal is {a(kind)}. {capitalise(a(kind))} does not live {PLACES[seen]}, but {PLACES[right]}."
    hint = f"{rng.choice(PEOPLE)} saw {a(kind)} {PLACES[seen]} and was surprised."
    return Draft("Where does this animal usually live?", choices, solution, hint)


def compare_counts(rng, scene):
    kinds, counts = rng.sample(sorted(KINDS), 3), rng.sample(range(2, 7), 3)
    name, verb = rng.choice(PEOPLE), rng.choice(("most", "fewest"))
    told = [f"{NUMBER_WORDS[n]} {KINDS[k].plural}" for k, n in zip(kinds, counts)]
    best, extreme = (max(counts), "largest") if verb == "most" else (min(counts), "smallest")
    order = sorted(range(3), key=lambda i: counts[i] != best)
    solution = f"The {extreme} number is {NUMBER_WORDS[best]}. {name} counted {told[order[0]]}."
    hint = f"{name} went for a walk and counted {join_words(told)}."
    return Draft(f"Of what did {name} count the {verb}?", tuple(KINDS[kinds[i]].plural for i in order), solution, hint)


def read_map(rng, scene):
    carriers = [scene.things[t.on] for t in scene.things if t.on is not None]
    clear = [t for t in _single(scene) if t.on is None and t not in carriers]
    sides = [t.side for t in clear]
    end = rng.choice(("west", "east"))
    side = "left" if end == "west" else "right"
    wrong = [t.kind for t in clear if t.side != side]
    if sides.count(side) != 1 or not wrong:
        return None
    right = clear[sides.index(side)].kind
    solution = f"{capitalise(end)} is on the {side}. {capitalise(SIDE_PHRASES[side])} is the {right}."
    choices = (right, *rng.sample(wrong, min(2, len(wrong))))
    return Draft(f"Take the picture as a map. Which of these is farthest {end}?", choices, solution)


def name_place(rng, scene):
    wrong = _others(rng, PLACES, scene.place, rng.choice((1, 2, 3)))
    choices = tuple(PLACES[p] for p in (scene.place, *wrong))
    return Draft("Where was this picture made?", choices, f"The picture was made {PLACES[scene.place]}.")


def choose_tool(rng, scene):
    use = rng.choice(sorted(set(USES.values())))
    right = rng.choice([k for k in USES if USES[k] == use])
    pool = [k for k in KINDS if USES.get(k) != use and k != "person" and k not in DEBATABLE.get(use, ())]
    wrong = _others(rng, pool, right, rng.choice((1, 2, 3)))
    return Draft(f"Which of these could one use to {use}?", (right, *wrong), f"To {use}, one can use {a(right)}.")


def trade(rng, scene):
    use1, use2 = rng.sample(sorted(set(USES.values())), 2)  # what each of the two wants to do
    tool2, tool1 = (rng.choice([k for k in USES if USES[k] == use]) for use in (use2, use1))  # each has the other's
    extra1, extra2 = rng.sample(sorted(k for k in KINDS if k not in USES and k not in ("person", *GROUPS["animal"])), 2)
    one, two = rng.sample(PEOPLE, 2)
    hint = f"{one} has {a(tool2)} and {a(extra1)} and wants to {use1}. "
    hint += f"{two} has {a(tool1)} and {a(extra2)} and wants to {use2}."
    pairs = [(tool2, tool1), (extra1, tool1), (tool2, extra2)][: rng.choice((2, 3))]
    solution = f"{one} can use {a(tool1)} to {use1}. {two} can use {a(tool2)} to {use2}. "
    solution += f"So they trade the {tool2} for the {tool1}."
    choices = tuple(f"the {given} for the {taken}" for given, taken in pairs)
    return Draft("What can the two trade so that each gets what they want?", choices, solution, hint)


def plural_form(rng, scene):
    kind = rng.choice(sorted(KINDS))
    right = KINDS[kind].plural
    forms = [kind, kind + "s", kind + "es", kind[:-1] + "ies", kind + "en"]
    wrong = rng.sample([f for f in forms if f not in (right, "fishes", "persons")], rng.choice((1, 2, 3)))
    return Draft(f"Which word means more than one {kind}?", (right, *wrong), f"One {kind}, two {right}.")


def true_sentence(rng, scene):
    clear = _single(scene)
    if not clear:
        return None
    thing, wrong = rng.choice(clear), []
    for _ in range(rng.choice((1, 2))):
        if rng.random() < 0.5:
            other = Thing(thing.kind, rng.choice([c for c in COLOURS if c != thing.colour]), thing.side)
        else:
            other = Thing(thing.kind, thing.colour, rng.choice([s for s in SIDES if s != thing.side]))
        wrong.append(_where(other))
    choices = (_where(thing), *dict.fromkeys(wrong))
    return Draft("Which sentence is true of the picture?", choices, f"The {noun(thing)} is {SIDE_PHRASES[thing.side]}.")


def find_in_text(rng, scene):
    clear = [t for t in _single(scene) if t.on is None][:3]
    if len(clear) < 2:
        return None
    thing = rng.choice(clear)
    choices = tuple(SIDE_PHRASES[s] for s in (thing.side, *_others(rng, SIDES, thing.side, rng.choice((1, 2)))))
    solution = f"The text says that the {noun(thing)} is {SIDE_PHRASES[thing.side]}."
    return Draft(f"Where is the {thing.kind}?", choices, solution, " ".join(map(_where, clear)))


def find_question(rng, scene):
    one, two = (Thing(k, rng.choice(sorted(COLOURS))) for k in rng.sample(sorted(k for k in KINDS if k != "person"), 2))
    right = rng.choice((f"Is there {a(noun(one))}?", f"Where is the {noun(one)}?", f"Can you see {a(noun(one))}?"))
    wrong = (f"There is {a(noun(two))}.", f"The {one.kind} is {one.colour}.", f"Look at the {noun(two)}!")
    choices = (right, *rng.sample(wrong, rng.choice((1, 2, 3))))
    return Draft("Which sentence asks something?", choices, f"It ends with a question mark: {right}")


def draw_conclusion(rng, scene):
    clear = _single(scene)
    colours = [t.colour for t in clear]
    alone = [t for t in clear if colours.count(t.colour) == 1]
    if not alone or len(clear) < 2:
        return None
    thing, name = rng.choice(alone), rng.choice(PEOPLE)
    wrong = rng.sample([t.kind for t in clear if t != thing], min(len(clear) - 1, rng.choice((1, 2))))
    solution = f"{name} likes {thing.colour}. The {thing.colour} thing is the {thing.kind}."
    hint = f"{name} likes everything that is {thing.colour}."
    return Draft(f"Which thing in the picture would {name} like?", (thing.kind, *wrong), solution, hint)

"""What the science quiz asks: one maker of questions a skill, from a scene or from nothing but the world's facts.

Notable: a maker draws a question with exactly one right choice, or says that the scene has none. What one could argue
about (a plane crosses the water too) is never a wrong choice.

    python -c "from minillava.standins.drafts import *; print(plural(random.Random(0), None))"
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
DEBATABLE = {  # things of which one could argue that they serve a use too, or belong to a group; never a wrong choice there
    "cross the water": ("plane",), "carry a rider": ("bicycle", "cow", "boat"), "keep the sun off": ("umbrella", "tree", "house"),
    "find shade": ("umbrella", "house", "hat", "boat"), "stay dry": ("house", "hat", "car", "bus", "truck"), "live inside": ("boat", "bus"),
    "sit down": ("box", "bicycle", "horse", "bus", "car"), "drive": ("bicycle", "boat", "plane"), "pedal along": ("boat",),
    "play a game": ("balloon", "kite", "box"), "plant": ("mushroom",), "fly": ("duck",),
}  # fmt: skip
USES = {k.name: k.use for k in KINDS.values() if k.use}


@dataclass(frozen=True)
class Draft:
    """A question before it is filed: the right choice first."""

    question: str
    choices: tuple[str, ...]
    solution: str
    hint: str = ""


def _others(rng: random.Random, pool, right: str, count: int) -> list[str]:
    rest = sorted(set(pool) - {right})
    return rng.sample(rest, min(count, len(rest)))


def _group_of(kind: str) -> str:
    return next((g for g, kinds in GROUPS.items() if kind in kinds), "")


def _once(scene: Scene) -> list[Thing]:
    """Things whose kind occurs once, so that `the car` is clear."""
    kinds = [t.kind for t in scene.things]
    return [t for t in scene.things if kinds.count(t.kind) == 1]


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
    pool = [k for k in KINDS if _group_of(k) != group and k != "person" and k not in DEBATABLE.get(group, ())]
    wrong = _others(rng, pool, right, rng.choice((1, 2, 3)))
    return Draft(f"Which of these is {a(group)}?", (right, *wrong), f"The {group} is the {right}.")


def habitat(rng, scene):
    kind = rng.choice([k for k in GROUPS["animal"] if KINDS[k].ground])
    seen = rng.choice([p for p in PLACES if p not in KINDS[kind].ground])
    right = rng.choice(KINDS[kind].ground)
    wrong = _others(rng, [p for p in PLACES if p not in KINDS[kind].ground], right, rng.choice((1, 2)))
    name = rng.choice(PEOPLE)
    solution = f"The animal is {a(kind)}. {capitalise(a(kind))} does not live {PLACES[seen]}, but {PLACES[right]}."
    return Draft("Where does this animal usually live?", tuple(PLACES[p] for p in (right, *wrong)), solution,
                 f"{name} saw {a(kind)} {PLACES[seen]} and was surprised.")  # fmt: skip


def compare_counts(rng, scene):
    kinds, counts = rng.sample(sorted(KINDS), 3), rng.sample(range(2, 7), 3)
    name, verb = rng.choice(PEOPLE), rng.choice(("most", "fewest"))
    told = [f"{NUMBER_WORDS[n]} {KINDS[k].plural}" for k, n in zip(kinds, counts)]
    best = (max if verb == "most" else min)(counts)
    order = sorted(range(3), key=lambda i: counts[i] != best)
    solution = f"The {'largest' if verb == 'most' else 'smallest'} number is {NUMBER_WORDS[best]}. {name} counted {told[order[0]]}."
    return Draft(f"Of what did {name} count the {verb}?", tuple(KINDS[kinds[i]].plural for i in order), solution,
                 f"{name} went for a walk and counted {join_words(told)}.")  # fmt: skip


def read_map(rng, scene):
    clear = [t for t in _once(scene) if t.on is None and not any(u.on is not None and scene.things[u.on] == t for u in scene.things)]  # fmt: skip
    sides = [t.side for t in clear]
    end = rng.choice(("west", "east"))
    right = [t for t in clear if t.side == ("left" if end == "west" else "right") and sides.count(t.side) == 1]
    wrong = [t.kind for t in clear if t.side != ("left" if end == "west" else "right")]
    if not right or not wrong:
        return None
    solution = f"{capitalise(end)} is on the {right[0].side}. {capitalise(SIDE_PHRASES[right[0].side])} is the {right[0].kind}."
    return Draft(f"Take the picture as a map. Which of these is farthest {end}?", (right[0].kind, *rng.sample(wrong, min(2, len(wrong)))), solution)  # fmt: skip


def name_place(rng, scene):
    wrong = _others(rng, PLACES, scene.place, rng.choice((1, 2, 3)))
    return Draft("Where was this picture made?", tuple(PLACES[p] for p in (scene.place, *wrong)),
                 f"The picture was made {PLACES[scene.place]}.")  # fmt: skip


def choose_tool(rng, scene):
    use = rng.choice(sorted(set(USES.values())))
    able = [k for k in USES if USES[k] == use]
    right = rng.choice(able)
    pool = [k for k in KINDS if USES.get(k) != use and k != "person" and k not in DEBATABLE.get(use, ())]
    wrong = _others(rng, pool, right, rng.choice((1, 2, 3)))
    return Draft(f"Which of these could one use to {use}?", (right, *wrong), f"To {use}, one can use {a(right)}.")


def trade(rng, scene):
    wants = rng.sample(sorted(set(USES.values())), 2)
    first, second = (rng.choice([k for k in USES if USES[k] == w]) for w in wants[::-1])  # what each has for the other
    spare = rng.sample(sorted(k for k in KINDS if k not in USES and k not in ("person", *GROUPS["animal"])), 2)
    ann, ben = rng.sample(PEOPLE, 2)
    hint = f"{ann} has {a(first)} and {a(spare[0])} and wants to {wants[0]}. {ben} has {a(second)} and {a(spare[1])} and wants to {wants[1]}."
    pairs = [(first, second), (spare[0], second), (first, spare[1])][: rng.choice((2, 3))]
    solution = f"{ann} can use {a(second)} to {wants[0]}. {ben} can use {a(first)} to {wants[1]}. So they trade the {first} for the {second}."
    return Draft("What can the two trade so that each gets what they want?", tuple(f"the {x} for the {y}" for x, y in pairs), solution, hint)  # fmt: skip


def plural_form(rng, scene):
    kind = rng.choice(sorted(KINDS))
    right = KINDS[kind].plural
    forms = [kind, kind + "s", kind + "es", kind[:-1] + "ies", kind + "en"]
    wrong = rng.sample([f for f in forms if f not in (right, "fishes", "persons")], rng.choice((1, 2, 3)))
    return Draft(f"Which word means more than one {kind}?", (right, *wrong), f"One {kind}, two {right}.")


def true_sentence(rng, scene):
    clear = _once(scene)
    if not clear:
        return None
    thing, made = rng.choice(clear), []
    for _ in range(rng.choice((1, 2))):
        if rng.random() < 0.5:
            other = Thing(thing.kind, rng.choice([c for c in COLOURS if c != thing.colour]), thing.side)
        else:
            other = Thing(thing.kind, thing.colour, rng.choice([s for s in SIDES if s != thing.side]))
        made.append(other)
    say = lambda t: f"{capitalise(a(noun(t)))} is {SIDE_PHRASES[t.side]}."  # noqa: E731
    wrong = tuple(dict.fromkeys(say(t) for t in made))
    solution = f"The {noun(thing)} is {SIDE_PHRASES[thing.side]}."
    return Draft("Which sentence is true of the picture?", (say(thing), *wrong), solution)


def find_in_text(rng, scene):
    clear = [t for t in _once(scene) if t.on is None][:3]
    if len(clear) < 2:
        return None
    thing = rng.choice(clear)
    wrong = _others(rng, SIDES, thing.side, rng.choice((1, 2)))
    hint = " ".join(f"{capitalise(a(noun(t)))} is {SIDE_PHRASES[t.side]}." for t in clear)
    return Draft(f"Where is the {thing.kind}?", tuple(SIDE_PHRASES[s] for s in (thing.side, *wrong)),
                 f"The text says that the {noun(thing)} is {SIDE_PHRASES[thing.side]}.", hint)  # fmt: skip


def find_question(rng, scene):
    one, two = (Thing(k, rng.choice(sorted(COLOURS))) for k in rng.sample(sorted(k for k in KINDS if k != "person"), 2))
    right = rng.choice((f"Is there {a(noun(one))}?", f"Where is the {noun(one)}?", f"Can you see {a(noun(one))}?"))
    wrong = (f"There is {a(noun(two))}.", f"The {one.kind} is {one.colour}.", f"Look at the {noun(two)}!")
    return Draft("Which sentence asks something?", (right, *rng.sample(wrong, rng.choice((1, 2, 3)))),
                 f"It ends with a question mark: {right}")  # fmt: skip


def draw_conclusion(rng, scene):
    clear = _once(scene)
    colours = [t.colour for t in clear]
    alone = [t for t in clear if colours.count(t.colour) == 1]
    if not alone or len(clear) < 2:
        return None
    thing, name = rng.choice(alone), rng.choice(PEOPLE)
    wrong = rng.sample([t.kind for t in clear if t != thing], min(len(clear) - 1, rng.choice((1, 2))))
    return Draft(f"Which thing in the picture would {name} like?", (thing.kind, *wrong),
                 f"{name} likes {thing.colour}. The {thing.colour} thing is the {thing.kind}.",
                 f"{name} likes everything that is {thing.colour}.")  # fmt: skip

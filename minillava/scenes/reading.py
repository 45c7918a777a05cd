"""Read English about the picture book: what a text says is there, and whether that is true of a scene.

This is how the rule-based teacher and judge understand text, as GPT-4 does in the paper. The teacher reads captions
and boxes (`read_scene`), the judge also reads answers (`claims`, `holds`). Neither gets a scene or a picture. The
grammar is small: a mention (`two red cars`, `a person in blue`), and what the words up to the next mention say of it.

    python -c "from minillava.scenes.reading import claims; print(claims('A red car is on the left.'))"
"""

import re
from dataclasses import dataclass

from minillava.scenes.captions import NUMBER_WORDS, SYNONYMS
from minillava.scenes.world import COLOURS, DOINGS, KINDS, PLACES, SIDES, Scene, Thing

NUMBER_OF_WORD = {word: n for n, word in enumerate(NUMBER_WORDS)} | {str(n): n for n in range(7)}
NUMBER_OF_WORD |= {"a": 1, "an": 1, "another": 1}
KIND_OF_NOUN = {k.plural: k.name for k in KINDS.values()} | {k: k for k in KINDS}
_NOUNS = {word: name for word, name in SYNONYMS.items() if name in KINDS}
KIND_OF_NOUN |= _NOUNS | {f"{word}s": name for word, name in _NOUNS.items() if word != "bunny"} | {"bunnies": "rabbit"}
PLACE_OF_WORD = {place: place for place in PLACES} | {word: name for word, name in SYNONYMS.items() if name in PLACES}


def _any(words) -> str:
    """A pattern for any of the words, the longest first."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


MENTION = re.compile(
    rf"\b(?:(?P<det>{_any(NUMBER_OF_WORD)}|the|any|some|no)\s+)?(?:(?P<colour>{_any(COLOURS)})\s+)?"
    rf"(?P<noun>{_any(KIND_OF_NOUN)})(?!\w)(?:'s shirt)?(?:\s+(?:in|wearing)\s+(?P<worn>{_any(COLOURS)})(?!\w))?"
)
SIDE_OF = re.compile(r"\b(?:on|at|in) the (left|middle|right|centre|center)\b(?! of)")
IN_THE_AIR = re.compile(r"\bin the (?:sky|air)\b|\bon the wall\b")
IS_COLOUR = re.compile(rf"^ (?:is|are) (not )?({_any(COLOURS)})\b")
DOING_OF = re.compile(rf"\b({_any(DOINGS)})\b")
RELATION = re.compile(r"\b(riding|on top of|on|in|inside|next to|beside|to the left of|to the right of)\s*$")
RELATIONS = {"riding": "on", "on top of": "on", "in": "on", "inside": "on", "beside": "next to"}
PLACE = re.compile(rf"\b({_any(PLACE_OF_WORD)})\b")
ODD_WORD = re.compile(r"\b(odd|unusual|strange|out of place|unexpected)\b")
NEGATION = re.compile(r"\b(no|not|nothing|none|never|without|cannot|don't|isn't|aren't)\b")


@dataclass
class Mention:
    """One mention of things, and what the words up to the next mention say of them."""

    kind: str
    colour: str | None
    count: int | None  # None after `the` or `any`, or without a determiner
    denied: bool = False
    not_colour: str | None = None
    side: str | None = None
    air: bool = False
    doing: str | None = None
    relation: tuple[str, int] | None = None  # to which other mention of the sentence, by its index


def sentences(text: str) -> list[str]:
    """Sentences in lower case, without reasons (`because ...`): a reason is about the world, not about the picture."""
    parts = re.split(r"[.!?;]\s*", text.lower())
    return [re.split(r"\bbecause\b|: ", part)[0].strip() for part in parts if part.strip()]


def mentions(sentence: str) -> list[Mention]:
    """The mentions in one lower-case sentence, in order."""
    sentence = re.sub(r"^(yes|no), ?", "", sentence)
    found, out = list(MENTION.finditer(sentence)), []
    for n, match in enumerate(found):
        end = found[n + 1].start() if n + 1 < len(found) else len(sentence)
        before, gap = sentence[: match.start()], sentence[match.end() : end]
        det = match["det"]
        mention = Mention(KIND_OF_NOUN[match["noun"]], match["colour"] or match["worn"], NUMBER_OF_WORD.get(det))
        mention.denied = det == "no" or bool(NEGATION.search(before.rsplit(",", 1)[-1]))
        if is_colour := IS_COLOUR.match(gap):
            if is_colour[1]:
                mention.not_colour = is_colour[2]
            else:
                mention.colour = is_colour[2]
        side = SIDE_OF.search(gap) or (SIDE_OF.search(before) if n == 0 else None)
        if side:
            mention.side = side[1].replace("centre", "middle").replace("center", "middle")
        mention.air = bool(IN_THE_AIR.search(gap))
        doing = DOING_OF.search(gap)
        mention.doing = doing and doing[1]
        relation = RELATION.search(gap) if n + 1 < len(found) else None
        if relation:
            mention.relation = (RELATIONS.get(relation[1], relation[1]), n + 1)
        out.append(mention)
    for mention in reversed(out):  # a thing is on the side of what it stands on: `a cat on a car on the left`
        if mention.relation and mention.relation[0] == "on" and not mention.side:
            mention.side = out[mention.relation[1]].side
    return out


def place_in(text: str) -> str | None:
    """The place that a text names outside its reasons, or None when it names none or several."""
    named = {PLACE_OF_WORD[w] for s in sentences(text) for w in PLACE.findall(s)}
    return named.pop() if len(named) == 1 else None


def read_scene(captions: list[str], boxes: list[tuple] = (), name: str = "text") -> Scene:
    """The scene that captions and boxes describe. What they do not tell is None.

    The things come from the caption that says most, the place from the place that most captions name. A box whose
    category that caption does not name adds a thing, on the side where the box is. Raises ValueError without captions.
    """
    if not captions:
        raise ValueError(f"{name}: no captions to read")
    read = [[m for s in sentences(c) for m in mentions(s) if not m.denied] for c in captions]
    best = max(read, key=lambda ms: (sum(m.count or 1 for m in ms), sum(bool(m.side) + bool(m.colour) for m in ms)))
    things = []
    for m in best:
        on = len(things) + 1 if m.relation and m.relation[0] == "on" else None
        things += [Thing(m.kind, m.colour, m.side, m.air, on, m.doing)] * (m.count or 1)
    kinds = [t.kind for t in things]
    for kind, (x1, _, x2, _) in boxes:
        if kind in kinds:
            kinds.remove(kind)
        elif kind in KINDS:
            things.append(Thing(kind, side=SIDES[min(2, int((x1 + x2) / 2 * 3))]))
    places = [p for p in map(place_in, captions) if p]
    return Scene(name, max(places, key=places.count) if places else None, tuple(things))


def claims(text: str) -> list[tuple]:
    """What a text states of its picture, each claim once. A claim is one of:

    ("exists", kind, colour, count, denied), ("colour" | "side" | "air" | "doing", kind, colour, value),
    ("on" | "next to" | "to the left of" | "to the right of", kind, colour, kind, colour), ("place", place),
    ("odd", kind, or "?" where no kind is named, or None where nothing is said to be odd).
    """
    out = []
    for sentence in sentences(text):
        found = mentions(sentence)
        if ODD_WORD.search(sentence):
            none = NEGATION.search(sentence)
            out.append(("odd", None if none else found[0].kind if found else "?"))
            if none:
                continue
        for m in found:
            out.append(("exists", m.kind, m.colour, m.count if m.count != 1 else None, m.denied))
            if m.denied:
                continue
            if m.not_colour:
                out.append(("colour", m.kind, None, "not " + m.not_colour))
            if m.side:
                out.append(("side", m.kind, m.colour, m.side))
            if m.air:
                out.append(("air", m.kind, m.colour, True))
            if m.doing:
                out.append(("doing", m.kind, m.colour, m.doing))
            if m.relation:
                other = found[m.relation[1]]
                out.append((m.relation[0], m.kind, m.colour, other.kind, other.colour))
        if len(places := set(PLACE.findall(sentence))) == 1 and not NEGATION.search(sentence):
            out.append(("place", PLACE_OF_WORD[places.pop()]))
    return list(dict.fromkeys(out))


def _matching(scene, kind, colour):
    return [i for i, t in enumerate(scene.things) if t.kind == kind and colour in (None, t.colour)]


def holds(claim: tuple, scene: Scene) -> bool:
    """Whether a claim is true of a scene. Raises KeyError for an unknown claim."""
    what, things = claim[0], scene.things
    if what == "place":
        return claim[1] == scene.place
    if what == "odd":
        odd = {things[o.thing].kind for o in scene.odd}
        return claim[1] in odd if claim[1] else not odd
    found = _matching(scene, claim[1], claim[2])
    if what == "exists":
        count = 0 if claim[4] else claim[3]
        return bool(found) if count is None else len(found) == count
    if what == "colour":
        return any("not " + str(things[i].colour) != claim[3] for i in found)
    if what in ("side", "air", "doing"):
        return any(getattr(things[i], what) == claim[3] for i in found)
    pairs = [(things[i], j) for i in found for j in _matching(scene, claim[3], claim[4]) if i != j]
    if what == "on":
        return any(t.on == j for t, j in pairs)
    gaps = [SIDES.index(t.side) - SIDES.index(things[j].side) for t, j in pairs if t.side and things[j].side]
    wanted = {"next to": (-1, 1), "to the left of": (-2, -1), "to the right of": (1, 2)}[what]
    return any(gap in wanted for gap in gaps)

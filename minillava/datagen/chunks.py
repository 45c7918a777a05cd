"""Noun phrases of captions: spaCy's where it is installed, as in the paper (Appendix E), else found by rules.

Notable: taggers that are both light and good need a model to be downloaded (spaCy's, NLTK's); so there is a small
chunker of rules for those who have none. It knows the closed classes of English (determiners, prepositions, pronouns,
auxiliaries), some 200 verbs of captions with their forms, and common adjectives; what is left is a noun, or stands before
one. A verb form belongs to a phrase only before its noun: `a parked car`, but `a car | parked`. Its errors are of one
kind: an unknown verb or adjective counts as a noun. Beside spaCy 3.8 with its small English model, over 400 captions of
COCO: of the 1,306 phrases that spaCy finds the rules find 1,169, and 120 others; spaCy takes a hundred times as long.

    python -c "from minillava.datagen.chunks import *; print(phrases('A man walks two small dogs past the parked cars'))"
"""

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from minillava.errors import UserError

SPACY_MODEL = "en_core_web_sm"
DETERMINERS = frozenset(
    "a an the this that these those my your his her its our their some any no each every another both all either "
    "neither such what which whose".split()
)
NUMBERS = frozenset(
    "one two three four five six seven eight nine ten eleven twelve dozen hundred thousand several many few more most "
    "much multiple various numerous".split()
)
BREAKS = frozenset(
    # prepositions and particles
    "yes of in on at by for with from to into onto over under above below near behind beside besides between among through "
    "across along around about against before after during while as like upon within without inside outside toward "
    "towards off up down out past via per next beneath underneath amid amidst despite except since until till atop "
    # conjunctions, pronouns, question words, negation
    "and or but nor so yet if than because though although whether when where why how who whom there here it he she "
    "they we i you him them us me itself himself herself themselves something someone somebody everyone everything "
    "nothing anyone anything not n't "
    # auxiliaries
    "is are was were be been being am has have had having do does did doing can could will would shall should may might "
    "must 's 're "
    # adverbs
    "very too also just only even still already again then now later soon often always never ever really quite almost "
    "nearly perhaps maybe together apart away back forward ahead alone else once twice today tomorrow yesterday".split()
)
ADJECTIVES = frozenset(
    "red orange yellow green blue purple white black brown pink grey gray golden silver big small large little tiny huge "
    "tall short long wide narrow high low old new young beautiful pretty cute nice good great bad happy sad lovely friendly hot "
    "cold warm cool wet dry clean dirty dark bright light heavy full empty open closed round flat deep modern ancient "
    "traditional typical single own other same different certain fresh wild local famous popular sunny cloudy rainy quiet "
    "calm busy cosy wooden colorful colourful young elderly lonely curly ugly silly odd unusual strange visible available able due further soft hard rare main front giant".split()
)
_VERBS = (
    "walk run sit stand ride play hold wear look watch eat drink read wave fish paint iron fly jump swim sleep lie "
    "drive park carry talk speak smile laugh sing dance cook cut throw catch hit kick push pull open close climb hang lean "
    "rest wait work use make take give get put go come see show feed pet chase cross turn stop start move stay live grow "
    "fall rise shine float sail travel visit enjoy celebrate perform attend arrive leave enter pose point reach touch wash "
    "clean fill cover surround decorate build break bring buy sell find follow help keep know learn like love need pass pay "
    "prepare race raise relax return set share shop skate ski surf snowboard spend stretch study teach think try wander "
    "want write draw feature include contain depict display appear seem become remain belong consist provide offer allow "
    "suggest indicate create add serve line sit pick place plant pour print roll seat shake shoot spread stack stick store "
    "stir tie train wrap bite blow bend crawl dive dress drop dry face gather greet graze guide hug kiss kneel land lay lead "
    "lift load meet mix mount pack perch preach peek slide smell snow speed splash spray stare steer step swing tell toss "
    "tow trot view wander check consider describe explain happen say ask answer mean notice require position locate situate engage showcase ensure expect believe".split()
)
_IRREGULAR = {
    "ran": "run", "sat": "sit", "stood": "stand", "rode": "ride", "ridden": "ride", "held": "hold", "wore": "wear",
    "worn": "wear", "ate": "eat", "eaten": "eat", "drank": "drink", "flew": "fly", "flown": "fly", "swam": "swim",
    "slept": "sleep", "lay": "lie", "lying": "lie", "drove": "drive", "driven": "drive", "spoke": "speak", "sang": "sing",
    "threw": "throw", "thrown": "throw", "caught": "catch", "hung": "hang", "made": "make", "took": "take",
    "taken": "take", "gave": "give", "given": "give", "got": "get", "went": "go", "gone": "go", "came": "come",
    "saw": "see", "seen": "see", "shown": "show", "fed": "feed", "left": "leave", "grew": "grow", "grown": "grow",
    "fell": "fall", "fallen": "fall", "rose": "rise", "built": "build", "broke": "break", "broken": "break",
    "brought": "bring", "bought": "buy", "sold": "sell", "found": "find", "kept": "keep", "knew": "know", "known": "know",
    "spent": "spend", "taught": "teach", "thought": "think", "wrote": "write", "written": "write", "drew": "draw",
    "drawn": "draw", "became": "become", "shot": "shoot", "stuck": "stick", "tied": "tie", "tying": "tie", "led": "lead",
    "met": "meet", "said": "say", "told": "tell", "meant": "mean", "felt": "feel", "won": "win", "lost": "lose",
}  # fmt: skip
NOUNS_IN_ING = frozenset(
    "building painting wedding ceiling evening morning clothing ring king string spring wing thing drawing setting parking "
    "something earring railing lighting awning meeting crossing landing opening meaning beginning icing pudding".split()
)
NOUNS_IN_LY = frozenset(
    "butterfly dragonfly firefly family lily belly jelly assembly supply rally alley monopoly italy july reply bully ally".split()
)
SIDES = frozenset(("left", "right", "back", "front"))  # `on the left`: a noun after a determiner


def _forms(verb: str) -> Iterator[str]:
    stem = verb[:-1] if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")) else verb
    double = verb + verb[-1] if re.fullmatch(r"[^aeiou]*[aeiou][bdgklmnprt]", verb) and verb[-1] != "k" else stem
    third = verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + ("es" if re.search(r"(s|x|z|ch|sh|o)$", verb) else "s")  # fmt: skip
    past = verb[:-1] + "ied" if re.search(r"[^aeiou]y$", verb) else double + "ed"
    return iter((verb, third, double + "ing", past))


# Verbs whose bare form is more often a noun in captions (`a donut shop`); their -ing and -ed forms are verbs.
NOUN_FIRST = frozenset(
    "shop park race face line store plant train display guide load place point view snow paint fish dress feature cover "
    "drink catch smell hug kiss stop work surf ski skate splash spray stack wrap roll drop mix bite picture shake swing "
    "slide dive share step press print perch pack pass iron mean".split()
)
VERBS = {form: verb for verb in _VERBS for form in _forms(verb)} | _IRREGULAR  # form -> verb
TOKEN = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*|[^\w\s]")
WORD, VERB, ADJECTIVE, DETERMINER, BREAK = range(5)


@lru_cache(maxsize=1 << 17)
def word_class(word: str) -> int:
    """The class of a lower-case word: WORD is a noun or what may stand before one."""
    if word in DETERMINERS or word in NUMBERS or word[0].isdigit():
        return DETERMINER
    if word in BREAKS or not word[0].isalnum():
        return BREAK
    if word in ADJECTIVES:
        return ADJECTIVE
    if (
        word in SIDES
        or word in NOUNS_IN_ING
        or word in NOUNS_IN_LY
        or word in NOUN_FIRST
        or word.removesuffix("s") in NOUN_FIRST
    ):
        return WORD
    if word in VERBS or (len(word) > 5 and word.endswith(("ing", "ed"))):
        return VERB
    return BREAK if len(word) > 4 and word.endswith("ly") else WORD


def _scan(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """(phrase, verbs before it) pairs of a text, word by word; the last phrase may be empty."""
    phrase, verbs = [], []
    noun = verbal = (
        False  # whether the phrase has a noun; whether it has a verb form, which alone may be one: `the painting`
    )
    for word in TOKEN.findall(text):
        kind = word_class(word.lower())
        if kind == WORD:
            phrase.append(word)
            noun = True
        elif kind == ADJECTIVE and not noun:
            phrase.append(word)
        elif kind == VERB and phrase and not noun and not verbal and word_class(phrase[0].lower()) == DETERMINER:
            phrase.append(word)
            verbal = True
        else:
            if noun or verbal:
                yield phrase, verbs
                verbs = []
            phrase, noun, verbal = [word] if kind in (DETERMINER, ADJECTIVE) else [], False, False
            if kind == VERB:
                verbs.append(word)
    yield (phrase if noun or verbal else []), verbs


def noun_phrases(text: str) -> list[str]:
    """The noun phrases of a text by the rules, with their determiners, as they are written."""
    return [" ".join(words) for words, _ in _scan(text) if words]


def nouns_and_verbs(text: str) -> tuple[list[str], list[str]]:
    """The head nouns and the verbs (in their base form) of a text by the rules, lower-case, for statistics."""
    nouns, verbs = [], []
    for words, before in _scan(text):
        nouns += [words[-1].lower()] if words else []
        verbs += [VERBS.get(v.lower(), v.lower()) for v in before]
    return nouns, verbs


def normalise(phrase: str, lower: bool = True, determiners: bool = False) -> str:
    """A phrase as it is counted: in lower case, and without determiners at its front unless they are to be kept."""
    phrase = phrase.lower() if lower else phrase
    if determiners:
        return phrase
    while True:
        first, _, rest = phrase.partition(" ")
        if not rest or first.lower() not in DETERMINERS:
            return phrase
        phrase = rest


class ChunkerError(UserError):
    """A chunker that is not here; the message says how to get it."""


def find_chunker(name: str = "auto") -> tuple[str, Callable[[Iterable[str]], Iterator[list[str]]]]:
    """(name, captions -> their phrases): `spacy`, `rules`, or `auto`, which is spaCy where it and its model are installed.

    Raises ChunkerError for spaCy without its model, and for an unknown name.
    """
    if name not in ("auto", "spacy", "rules"):
        raise ChunkerError(f"--chunker {name}: choose auto, spacy or rules")
    there = importlib.util.find_spec("spacy") is not None and importlib.util.find_spec(SPACY_MODEL) is not None
    if name == "spacy" and not there:
        raise ChunkerError(
            f"spaCy or its model is not installed: pip install spacy; python -m spacy download {SPACY_MODEL}"
        )
    if name == "rules" or not there:
        return "rules", lambda captions: map(noun_phrases, captions)
    return "spacy", _spacy


def _spacy(captions: Iterable[str]) -> Iterator[list[str]]:
    import spacy

    pipeline = spacy.load(SPACY_MODEL, exclude=["ner", "lemmatizer"])
    for document in pipeline.pipe(captions, batch_size=1000):
        yield [chunk.text for chunk in document.noun_chunks]

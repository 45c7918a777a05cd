"""Noun phrases of captions: by spaCy if it is installed, as in the paper (Appendix E), else by rules.

Good taggers such as spaCy's and NLTK's need a model to be downloaded. The rules here need none. They know the closed
classes of English (determiners, prepositions, pronouns, auxiliaries), about 200 verbs of captions with their forms, and
common adjectives. Any other word is a noun or belongs to the noun after it. A verb form is part of a phrase only before
the noun: `a parked car`, but `a car | parked`. The rules take an unknown verb or adjective for a noun. Compared with
spaCy 3.8 and its small English model on 400 captions of COCO, they find 1,169 of spaCy's 1,306 phrases and 120 others;
spaCy takes a hundred times as long.

    python -c "from minillava.datagen.chunks import *; print(noun_phrases('A man walks past the parked cars'))"
"""

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from minillava.errors import UserError

SPACY_MODEL = "en_core_web_sm"
DETERMINERS = frozenset(
    """
    a an the this that these those my your his her its our their some any no each every another both all either neither
    such what which whose
    """.split()
)
NUMBERS = frozenset(
    """
    one two three four five six seven eight nine ten eleven twelve dozen hundred thousand several many few more most
    much multiple various numerous
    """.split()
)
# Words that end a phrase: prepositions; conjunctions, pronouns, question words, negation; auxiliaries; adverbs.
BREAKS = frozenset(
    """
    yes of in on at by for with from to into onto over under above below near behind beside besides between among
    through across along around about against before after during while as like upon within without inside outside
    toward towards off up down out past via per next beneath underneath amid amidst despite except since until till atop
    and or but nor so yet if than because though although whether when where why how who whom there here it he she they
    we i you him them us me itself himself herself themselves something someone somebody everyone everything nothing
    anyone anything not n't
    is are was were be been being am has have had having do does did doing can could will would shall should may might
    must 's 're
    very too also just only even still already again then now later soon often always never ever really quite almost
    nearly perhaps maybe together apart away back forward ahead alone else once twice today tomorrow yesterday
    """.split()
)
ADJECTIVES = frozenset(
    """
    red orange yellow green blue purple white black brown pink grey gray golden silver big small large little tiny huge
    tall short long wide narrow high low old new young beautiful pretty cute nice good great bad happy sad lovely
    friendly hot cold warm cool wet dry clean dirty dark bright light heavy full empty open closed round flat deep
    modern ancient traditional typical single own other same different certain fresh wild local famous popular sunny
    cloudy rainy quiet calm busy cosy wooden colorful colourful elderly lonely curly ugly silly odd unusual strange
    visible available able due further soft hard rare main front giant
    """.split()
)
_VERBS = """
    walk run sit stand ride play hold wear look watch eat drink read wave fish paint iron fly jump swim sleep lie drive
    park carry talk speak smile laugh sing dance cook cut throw catch hit kick push pull open close climb hang lean rest
    wait work use make take give get put go come see show feed pet chase cross turn stop start move stay live grow fall
    rise shine float sail travel visit enjoy celebrate perform attend arrive leave enter pose point reach touch wash
    clean fill cover surround decorate build break bring buy sell find follow help keep know learn like love need pass
    pay prepare race raise relax return set share shop skate ski surf snowboard spend stretch study teach think try
    wander want write draw feature include contain depict display appear seem become remain belong consist provide offer
    allow suggest indicate create add serve line pick place plant pour print roll seat shake shoot spread stack stick
    store stir tie train wrap bite blow bend crawl dive dress drop dry face gather greet graze guide hug kiss kneel land
    lay lead lift load meet mix mount pack perch preach peek slide smell snow speed splash spray stare steer step swing
    tell toss tow trot view check consider describe explain happen say ask answer mean notice require position locate
    situate engage showcase ensure expect believe
""".split()
_IRREGULAR = dict(
    pair.split(":")
    for pair in """
    ran:run sat:sit stood:stand rode:ride ridden:ride held:hold wore:wear worn:wear ate:eat eaten:eat drank:drink
    flew:fly flown:fly swam:swim slept:sleep lay:lie lying:lie drove:drive driven:drive spoke:speak sang:sing
    threw:throw thrown:throw caught:catch hung:hang made:make took:take taken:take gave:give given:give got:get went:go
    gone:go came:come saw:see seen:see shown:show fed:feed left:leave grew:grow grown:grow fell:fall fallen:fall
    rose:rise built:build broke:break broken:break brought:bring bought:buy sold:sell found:find kept:keep knew:know
    known:know spent:spend taught:teach thought:think wrote:write written:write drew:draw drawn:draw became:become
    shot:shoot stuck:stick tied:tie tying:tie led:lead met:meet said:say told:tell meant:mean felt:feel won:win
    lost:lose
    """.split()
)


def _forms(verb: str) -> tuple[str, str, str, str]:
    """A regular verb's forms: base, third person, -ing, -ed."""
    stem = verb[:-1] if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")) else verb
    if re.fullmatch(r"[^aeiou]*[aeiou][bdglmnprt]", verb):
        stem += verb[-1]  # `sit`, `sitting`
    if re.search(r"[^aeiou]y$", verb):
        return verb, verb[:-1] + "ies", stem + "ing", verb[:-1] + "ied"
    return verb, verb + ("es" if re.search(r"(s|x|z|ch|sh|o)$", verb) else "s"), stem + "ing", stem + "ed"


# Verbs whose base form is usually a noun in captions (`a donut shop`); their -ing and -ed forms are verbs.
NOUN_FIRST = frozenset(
    """
    shop park race face line store plant train display guide load place point view snow paint fish dress feature cover
    drink catch smell hug kiss stop work surf ski skate splash spray stack wrap roll drop mix bite picture shake swing
    slide dive share step press print perch pack pass iron mean
    """.split()
)
# Nouns that look like verb forms, adverbs or adjectives (`on the left`).
NOUNS = NOUN_FIRST | frozenset(
    """
    building painting wedding ceiling evening morning clothing ring king string spring wing thing drawing setting
    parking something earring railing lighting awning meeting crossing landing opening meaning beginning icing pudding
    butterfly dragonfly firefly family lily belly jelly assembly supply rally alley monopoly italy july reply bully ally
    left right back front
    """.split()
)
VERBS = {form: verb for verb in _VERBS for form in _forms(verb)} | _IRREGULAR  # form -> verb
TOKEN = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*|[^\w\s]")
WORD, VERB, ADJECTIVE, DETERMINER, BREAK = range(5)


@lru_cache(maxsize=1 << 17)
def word_class(word: str) -> int:
    """The class of a lower-case word. WORD is a noun, or a word that may come before one."""
    if word in DETERMINERS or word in NUMBERS or word[0].isdigit():
        return DETERMINER
    if word in BREAKS or not word[0].isalnum():
        return BREAK
    if word in ADJECTIVES:
        return ADJECTIVE
    if word in NOUNS or word.removesuffix("s") in NOUN_FIRST:
        return WORD
    if word in VERBS or (len(word) > 5 and word.endswith(("ing", "ed"))):
        return VERB
    return BREAK if len(word) > 4 and word.endswith("ly") else WORD


def _scan(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """(words of a phrase, verbs before it) pairs of a text; the last phrase may be empty."""
    phrase, verbs = [], []
    noun = verbal = False  # whether the phrase has a noun, or a verb form, which alone can be one: `the painting`
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
    """The noun phrases of a text by the rules, as written, with their determiners."""
    return [" ".join(words) for words, _ in _scan(text) if words]


def nouns_and_verbs(text: str) -> tuple[list[str], list[str]]:
    """The head nouns and the verbs (in base form) of a text by the rules, in lower case, for statistics."""
    nouns, verbs = [], []
    for words, before in _scan(text):
        nouns += [words[-1].lower()] if words else []
        verbs += [VERBS.get(v.lower(), v.lower()) for v in before]
    return nouns, verbs


def normalise(phrase: str, lower: bool = True, determiners: bool = False) -> str:
    """A phrase as it is counted: in lower case if `lower`, without its first determiners unless `determiners`."""
    phrase = phrase.lower() if lower else phrase
    if determiners:
        return phrase
    while True:
        first, _, rest = phrase.partition(" ")
        if not rest or first.lower() not in DETERMINERS:
            return phrase
        phrase = rest


class ChunkerError(UserError):
    """A chunker that is unknown or not installed; the message says which to choose or how to install it."""


def find_chunker(name: str = "auto") -> tuple[str, Callable[[Iterable[str]], Iterator[list[str]]]]:
    """(name, function from captions to their phrases). `auto`: `spacy` if it and its model are installed, else `rules`.

    Raises ChunkerError for an unknown name, and for spaCy without its model.
    """
    if name not in ("auto", "spacy", "rules"):
        raise ChunkerError(f"--chunker {name}: choose auto, spacy or rules")
    installed = importlib.util.find_spec("spacy") is not None and importlib.util.find_spec(SPACY_MODEL) is not None
    if name == "spacy" and not installed:
        raise ChunkerError(
            f"spaCy or its model is not installed: pip install spacy; python -m spacy download {SPACY_MODEL}"
        )
    if name == "rules" or not installed:
        return "rules", lambda captions: map(noun_phrases, captions)
    return "spacy", _spacy


def _spacy(captions: Iterable[str]) -> Iterator[list[str]]:
    import spacy

    pipeline = spacy.load(SPACY_MODEL, exclude=["ner", "lemmatizer"])
    for document in pipeline.pipe(captions, batch_size=1000):
        yield [chunk.text for chunk in document.noun_chunks]

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
from pathlib import Path

from minillava.errors import UserError

SPACY_MODEL = "en_core_web_sm"
_TEXT = re.sub("#.*", "", (Path(__file__).parent / "english.txt").read_text(encoding="utf-8"))
_WORDS = {name: dict.fromkeys(words.split()) for name, words in re.findall(r"\[(.+)\]([^\[]*)", _TEXT)}
DETERMINERS, ADJECTIVES = _WORDS["determiners"], _WORDS["adjectives"]


def _forms(verb: str) -> tuple[str, str, str, str]:
    """A regular verb's forms: base, third person, -ing, -ed."""
    stem = verb[:-1] if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")) else verb
    if re.fullmatch(r"[^aeiou]*[aeiou][bdglmnprt]", verb):
        stem += verb[-1]  # `sit`, `sitting`
    if re.search(r"[^aeiou]y$", verb):
        return verb, verb[:-1] + "ies", stem + "ing", verb[:-1] + "ied"
    return verb, verb + ("es" if re.search(r"(s|x|z|ch|sh|o)$", verb) else "s"), stem + "ing", stem + "ed"


NOUNS = _WORDS["noun first"] | _WORDS["nouns"]
_IRREGULAR = dict(pair.split(":") for pair in _WORDS["irregular"])
VERBS = {form: verb for verb in _WORDS["verbs"] for form in _forms(verb)} | _IRREGULAR  # form -> verb
TOKEN = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*|[^\w\s]")
WORD, VERB, ADJECTIVE, DETERMINER, BREAK = range(5)


@lru_cache(maxsize=1 << 17)
def word_class(word: str) -> int:
    """The class of a lower-case word. WORD is a noun, or a word that may come before one."""
    if word in DETERMINERS or word in _WORDS["numbers"] or word[0].isdigit():
        return DETERMINER
    if word in _WORDS["breaks"] or not word[0].isalnum():
        return BREAK
    if word in ADJECTIVES:
        return ADJECTIVE
    if word in NOUNS or word.removesuffix("s") in _WORDS["noun first"]:
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

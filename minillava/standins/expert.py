"""A text-only expert for the science quiz, in GPT-4's place (section 5.2): it knows the world, but sees no picture.

It reads question, context and choices as text, never a lecture, a solution or a scene. Where the text and common
knowledge settle a question, it gives reasons and answers. Where only the picture could settle it, it says so and names
the most common choice, right or wrong, as GPT-4 does. Where nothing speaks for any choice, it names none. Given LLaVA's
answer too (`second_answer`), it keeps what it knew. Where it had guessed, it trusts LLaVA, who saw the picture, if
LLaVA's reasons fit LLaVA's letter.

    python -c "from minillava.standins import expert, quiz; print(expert.expert_answer(quiz.quiz('test', 4)[3]))"
"""

import re
from functools import partial

from minillava.data.scienceqa import Problem
from minillava.judging.ensembles import answer_with_reason
from minillava.judging.scienceqa import AnswerError, read_answer
from minillava.scenes.captions import SIDE_PHRASES
from minillava.scenes.reading import KIND_OF_NOUN, NUMBER_OF_WORD
from minillava.scenes.world import CAN_FLY, KINDS, PLACES
from minillava.standins.drafts import GROUPS, USES

UNSEEN = "I cannot see the picture."
# What the expert guesses, the most common first.
COMMONEST = (*"tree person dog car house cat bird".split(), "in a park", "on a street", *"red white green blue".split())
PLURALS = {kind.name: kind.plural for kind in KINDS.values()}


def _only(choices, fits) -> int | None:
    """The index of the one choice that fits, or None where none or several do."""
    found = [n for n, choice in enumerate(choices) if fits(choice)]
    return found[0] if len(found) == 1 else None


def _counts(match, problem) -> tuple[int, str] | None:
    pairs = re.findall(r"\b(\w+)(?= (\w+))", problem.hint)
    told = {KIND_OF_NOUN[n]: NUMBER_OF_WORD[word] for word, n in pairs if word in NUMBER_OF_WORD and n in KIND_OF_NOUN}
    if not told:
        return None
    best = (max if match[1] == "most" else min)(told, key=told.get)
    index = _only(problem.choices, lambda c: KIND_OF_NOUN.get(c) == best)
    return None if index is None else (index, f"There are {told[best]} {KINDS[best].plural}, the {match[1]}.")


def _home(match, problem) -> tuple[int, str] | None:
    kinds = [KIND_OF_NOUN.get(word) for word in re.findall(r"\w+", problem.hint)]
    animal = next((kind for kind in kinds if kind in GROUPS["animal"]), None)
    index = animal and _only(problem.choices, lambda c: any(PLACES[p] == c for p in KINDS[animal].ground))
    return None if index is None else (index, f"A {animal} belongs {problem.choices[index]}.")


def _trade(match, problem) -> tuple[int, str] | None:
    people = re.findall(r"\w+ has an? (\w+) and an? (\w+) and wants to ([^.]+)\.", problem.hint)
    if len(people) != 2:
        return None
    (*mine, my_want), (*yours, your_want) = people
    give = [k for k in mine if USES.get(k) == your_want]
    take = [k for k in yours if USES.get(k) == my_want]
    index = _only(problem.choices, lambda c: any(c == f"the {g} for the {t}" for g in give for t in take))
    return None if index is None else (index, f"One wants to {my_want}, the other to {your_want}.")


def _side(match, problem) -> tuple[int, str] | None:
    said = re.search(rf"\b{match[1]}\b[^.]*?({'|'.join(SIDE_PHRASES.values())})", problem.hint)
    index = said and _only(problem.choices, lambda c: c == said[1])
    return None if index is None else (index, f"The text says {said[1]}.")


def _choice(fits, reason):
    """A solver that takes the one choice for which fits(match, choice) holds."""

    def solve(match, problem) -> tuple[int, str] | None:
        index = _only(problem.choices, partial(fits, match))
        return None if index is None else (index, reason.format(problem.choices[index]))

    return solve


# What can be settled without a picture: a pattern of the question -> what solves it.
SOLVERS = (
    (r"Which of these is an? (\w+)\?", _choice(lambda m, c: c in GROUPS.get(m[1], ()), "A {} is one.")),
    (r"Which of these things in the picture can fly", _choice(lambda m, c: c in CAN_FLY, "A {} can fly, seen or not.")),
    (r"Which of these could one use to ([^?]+)\?", _choice(lambda m, c: USES.get(c) == m[1], "A {} serves for that.")),
    (r"Which sentence asks something\?", _choice(lambda m, c: c.endswith("?"), "{} is a question.")),
    (r"Of what did \w+ count the (most|fewest)\?", _counts),
    (r"Where does this animal usually live\?", _home),
    (r"What can the two trade", _trade),
    (r"Which word means more than one (\w+)\?", _choice(lambda m, c: c == PLURALS.get(m[1]), "Two {}.")),
    (r"Where is the (\w+)\?", _side),
)


def answer_from_text(problem: Problem) -> tuple[int, str] | None:
    """(index, reason) where the text alone settles a question, else None."""
    for pattern, solve in SOLVERS:
        match = re.match(pattern, problem.question)
        if match:
            return solve(match, problem)
    return None


def expert_answer(problem: Problem) -> str:
    """The expert's answer to one problem, as text. It reads nothing but question, hint and choices."""
    known = answer_from_text(problem)
    if known:
        return answer_with_reason(problem, *known)
    usual = [n for word in COMMONEST for n, choice in enumerate(problem.choices) if choice == word]
    if usual:
        return answer_with_reason(problem, usual[0], f"{UNSEEN} Such a thing is often {problem.choices[usual[0]]}.")
    if all(choice in KINDS for choice in problem.choices):
        return answer_with_reason(problem, 0, f"{UNSEEN} I name the first.")
    return f"{UNSEEN} Nothing in the text speaks for any of these."


def second_answer(problem: Problem, own: str, other: str) -> str:
    """The expert's final answer where LLaVA (`other`) disagrees (section 5.2, Table 10).

    It is the other's answer where the expert had guessed and the other's reasons name what its letter stands for, else
    the expert's own.
    """
    if UNSEEN not in own:
        return own
    try:
        index = read_answer(other, len(problem.choices))
    except AnswerError:
        return own
    reasons = other.rpartition("The answer is")[0].lower()
    core = re.sub(r"^(?:an?|the) | is .*$|\.$", "", problem.choices[index].lower())
    if core.split()[-1] in re.findall(r"\w+", reasons):
        return answer_with_reason(problem, index, "The other has seen the picture, and its reasons fit.")
    return own

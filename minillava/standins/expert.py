"""A text-only expert for the science quiz, who plays GPT-4 (section 5.2): knows the world, reads well, sees no picture.

Notable: it is given question, context and options as text, never a lecture, a solution or a scene. Where the text and what
everybody knows settle a question, it reasons and answers; where only the picture could, it says so and names what it finds
most usual, right or wrong, as GPT-4 does; and where nothing speaks for any choice, it names none. Shown another's answer
(`again`), it keeps what it knew, and trusts the one who saw where it had guessed, if that one's reasons fit its letter.

    python -c "from minillava.standins.expert import *; from minillava.standins.quiz import quiz; print(expert(quiz('test', 4)[3]))"
"""

import re
from functools import partial

from minillava.data.scienceqa import Problem
from minillava.judging.ensembles import expert_answer
from minillava.judging.scienceqa import AnswerError, read_answer
from minillava.scenes.captions import SIDE
from minillava.scenes.reading import COUNT, NOUNS
from minillava.scenes.world import CAN_FLY, KINDS, PLACES
from minillava.standins.drafts import GROUPS, USES

UNSEEN = "I cannot see the picture."
# How often things are met: the expert's habit where it has to guess.
USUAL = (
    "tree",
    "person",
    "dog",
    "car",
    "house",
    "cat",
    "bird",
    "in a park",
    "on a street",
    "red",
    "white",
    "green",
    "blue",
)


def _only(choices, fits) -> int | None:
    """The index of the one choice that fits; None where none or several do."""
    found = [n for n, choice in enumerate(choices) if fits(choice)]
    return found[0] if len(found) == 1 else None


def _most(match, problem) -> tuple[int, str] | None:
    told = {NOUNS[noun]: COUNT[word] for word, noun in re.findall(r"\b(\w+)(?= (\w+))", problem.hint) if word in COUNT and noun in NOUNS}  # fmt: skip
    if not told:
        return None
    best = (max if match[1] == "most" else min)(told, key=told.get)
    index = _only(problem.choices, lambda c: NOUNS.get(c) == best)
    return None if index is None else (index, f"There are {told[best]} {KINDS[best].plural}, the {match[1]}.")


def _home(match, problem) -> tuple[int, str] | None:
    animal = next((NOUNS[w] for w in re.findall(r"\w+", problem.hint) if NOUNS.get(w) in GROUPS["animal"]), None)
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
    said = re.search(rf"\b{match[1]}\b[^.]*?({'|'.join(SIDE.values())})", problem.hint)
    index = said and _only(problem.choices, lambda c: c == said[1])
    return None if index is None else (index, f"The text says {said[1]}.")


def _plural(match, problem) -> tuple[int, str] | None:
    index = _only(problem.choices, lambda c: c == KINDS[match[1]].plural) if match[1] in KINDS else None
    return None if index is None else (index, f"Two {problem.choices[index]}.")


def _fits(match, problem, fits, reason) -> tuple[int, str] | None:
    index = _only(problem.choices, partial(fits, match))
    return None if index is None else (index, reason.format(problem.choices[index]))


# What can be settled without vision towers: how the question is put -> how it is solved.
SOLVERS = (
    (r"Which of these is an? (\w+)\?", partial(_fits, fits=lambda m, c: c in GROUPS.get(m[1], ()), reason="A {} is one.")),
    (r"Which of these things in the picture can fly\?", partial(_fits, fits=lambda m, c: c in CAN_FLY, reason="A {} can fly, seen or not.")),
    (r"Which of these could one use to ([^?]+)\?", partial(_fits, fits=lambda m, c: USES.get(c) == m[1], reason="A {} serves for that.")),
    (r"Which sentence asks something\?", partial(_fits, fits=lambda m, c: c.endswith("?"), reason="{} is a question.")),
    (r"Of what did \w+ count the (most|fewest)\?", _most),
    (r"Where does this animal usually live\?", _home),
    (r"What can the two trade", _trade),
    (r"Which word means more than one (\w+)\?", _plural),
    (r"Where is the (\w+)\?", _side),
)  # fmt: skip


def settled(problem: Problem) -> tuple[int, str] | None:
    """(index, reason) where the text alone settles a question, None where it does not."""
    for pattern, solve in SOLVERS:
        match = re.match(pattern, problem.question)
        if match:
            return solve(match, problem)
    return None


def expert(problem: Problem) -> str:
    """The expert's answer to one problem, as text. Reads question, hint and choices, nothing else of it."""
    known = settled(problem)
    if known:
        return expert_answer(problem, *known)
    usual = [n for word in USUAL for n, choice in enumerate(problem.choices) if choice == word]
    if usual:
        return expert_answer(problem, usual[0], f"{UNSEEN} Such a thing is often {problem.choices[usual[0]]}.")
    if all(choice in KINDS for choice in problem.choices):
        return expert_answer(problem, 0, f"{UNSEEN} I name the first.")
    return f"{UNSEEN} Nothing in the text speaks for any of these."


def again(problem: Problem, own: str, other: str) -> str:
    """The expert's final answer to a disagreement: its own where it knew, the other's where it guessed and that one's
    reasons name what its letter stands for, else its own (section 5.2, Table 10)."""
    if UNSEEN not in own:
        return own
    try:
        index = read_answer(other, len(problem.choices))
    except AnswerError:
        return own
    reasons = other.rpartition("The answer is")[0].lower()
    core = re.sub(r"^(?:an?|the) | is .*$|\.$", "", problem.choices[index].lower())
    if core.split()[-1] in re.findall(r"\w+", reasons):
        return expert_answer(problem, index, "The other has seen the picture, and its reasons fit.")
    return own

"""Exercise 15, ScienceQA: the strict parser, both ensembles of Table 7, and the order of reasons and answer."""

import random
import re
from itertools import product

from minillava.data.scienceqa import LETTERS, Problem, ScienceError, answer_text
from minillava.exercises.engine import Task
from minillava.judging.ensembles import predictions
from minillava.judging.scienceqa import read_answer

FORMATS = ("QCM-LEPA", "QCM-LEA", "QCM-ALE")


def _said(seed):
    draw = random.Random(f"letters {seed}")
    a, b = draw.sample("ABC", 2)
    return [
        (f"Birds have wings. The answer is {a}.", 3), (b, 3), (f"{b}. It is the smaller one.", 4),
        (f"The answer is {a}. BECAUSE: A cat is not a bird.", 5),
        (f"Choice {b} is hot. The answer is {a}. So the answer is {b}", 4), ("The answer is E.", 4), ("", 2),
        ("I cannot tell.", 5), (f"The answer is {a}. No: The answer is {b}.", 4), (f"I think it is {a}", 3),
    ]  # fmt: skip


def _index(letter, choices):
    if letter is None or ord(letter) - ord("A") >= choices:
        raise ValueError
    return ord(letter) - ord("A")


def _any_letter(text, choices):
    found = re.search(r"[A-E]", text)
    return _index(found and found[0], choices)


def _unbounded(text, choices):
    return read_answer(text, 26)


def _guessing(text, choices):
    try:
        return read_answer(text, choices)
    except ValueError:
        return 0


def _last(text, choices):
    found = re.findall(r"The answer is ([A-Z])\.", text)
    return _index(found[-1], choices) if found else read_answer(text, choices)


def _sentence(text, choices):
    found = re.findall(r"The answer is ([A-Z])\.", text)
    return _index(found[0] if len(found) == 1 else None, choices)


def _both(seed):
    """(LLaVA's answers, the expert's, the expert's second ones): question -> index, without unanswered questions."""
    cases = []
    for count in (6, 20, 40):
        draw = random.Random(f"ensemble {seed} {count}")
        ours, theirs = (
            {f"q{n}": draw.randrange(3) for n in range(count) if draw.random() < share} for share in (0.9, 0.6)
        )
        ours |= {"q0": 0, "q1": 1}
        theirs |= {"q0": 1, "q1": 2, "q2": 0}
        ours.pop("q2", None)
        differ = [q for q in ours if q in theirs and ours[q] != theirs[q]]
        cases.append((ours, theirs, {q: draw.randrange(3) for q in differ if q != "q0"}))
    return cases


def _joined(llava, expert, again):
    names = {*llava, *expert}
    problems = {q: Problem(q, "?", ("a", "b", "c"), 0) for q in names}

    def text(found):
        return {q: f"The answer is {LETTERS[found[q]]}." if q in found else "I cannot tell." for q in names}

    differ = [q for q in names if q in llava and q in expert and llava[q] != expert[q]]
    rows = predictions(problems, text(expert), text(llava), {q: text(again)[q] for q in differ})
    return {name: dict(sorted(rows[name].items())) for name in ("complement", "judge")}


def _rows(complement, judge):
    return lambda llava, expert, again: {"complement": complement(llava, expert), "judge": judge(llava, expert, again)}


_complement = lambda llava, expert: llava | expert  # noqa: E731
_judge = lambda llava, expert, again: _joined(llava, expert, again)["judge"]  # noqa: E731


def _targets(seed):
    draw = random.Random(f"targets {seed}")
    texts = [("Fish have gills.", "A trout is a fish."), ("", "Ice is cold."), ("", ""), ("Iron is a metal.", "")]
    cases = []
    for (lecture, solution), name in product(texts, FORMATS):
        ended = solution and f"{solution}{draw.choice(['', ' So it is.'])}"
        cases.append((lecture, ended, draw.choice("ABC"), name))
    return [*cases, ("Fish.", "Trout.", "B", "QCM-XYZ")]


def _target(lecture, solution, letter, format):
    if format not in FORMATS:
        raise ScienceError(format)
    return answer_text(
        Problem("q", "?", ("a", "b", "c"), LETTERS.index(letter), lecture=lecture, solution=solution), format
    )


def _changed(name, change):
    """A version that is wrong only for one format."""
    return lambda L, E, letter, format: change(L, E, letter) if format == name else _target(L, E, letter, format)


def _answers(seed):
    cases = []
    for count in (4, 6, 9):
        draw = random.Random(f"gaps {seed} {count}")
        llava = {q: draw.randrange(3) for q in range(1, count + 1) if q != 2}
        expert = {q: (llava.get(q, 0) + draw.randrange(2)) % 3 for q in range(1, count + 1) if q != 3}
        cases.append((llava, expert))
    return cases


TASKS = (
    Task(
        "15.1", 1, "The strict parser", _said, read_answer,
        (
            (_any_letter, "the first capital letter of the text is taken. `A cat ...` is no answer: look for `The answer is X.`, or a letter alone at the beginning."),
            (_unbounded, "a letter that the question does not have is accepted. E of four choices is a failure: one of the 4,241 answers of LLaVA-13B is such a one."),
            (_guessing, "a guess stands where nothing can be read. The authors' older script drew one at random, and its result moved from run to run."),
            (_last, "of several answers the last one counts. Two answers are none."),
            (_sentence, "a bare letter is not read: later models answer `B`, or `B. ...`."),
        ),
        ("re.findall(r'The answer is ([A-Z])\\.', text) gives all that are stated.",
         "None stated: does the stripped text consist of a letter, or begin with a letter, a full stop and a blank?",
         "Anything but exactly one letter, or one beyond the choices: a ValueError."),
    ),
    Task(
        "15.2a", 0, "Fill the gaps", _answers, lambda llava, expert: llava | expert,
        (
            (lambda llava, expert: expert | llava, "LLaVA's answer wins where both answered. The expert's does."),
            (lambda llava, expert: dict(expert), "what the expert left open stays open."),
        ),
        ("a | b holds the keys of both; where both have one, b's value.",),
    ),
    Task(
        "15.2b", 0, "Where they differ", _answers, lambda llava, expert: [q for q in llava if q in expert and llava[q] != expert[q]],
        (
            (lambda llava, expert: [q for q in llava if llava[q] != expert.get(q)], "a question that the expert left open counts. Both must have answered."),
            (lambda llava, expert: [q for q in llava if llava[q] == expert.get(q)], "questions are given where both agree."),
        ),
        ("Go through LLaVA's questions: is it among the expert's, and is the answer another?",),
    ),
    Task(
        "15.2", 2, "Both ensembles of Table 7", _both, _joined,
        (
            (_rows(lambda llava, expert: expert | llava, _judge), "complement prefers LLaVA. The paper takes GPT-4's answer, and LLaVA's only where GPT-4 gives none."),
            (_rows(_complement, lambda llava, expert, again: llava | expert | again), "a second answer that cannot be read leaves the expert's first one. LLaVA's stands there: that is who was doubted."),
            (_rows(_complement, lambda llava, expert, again: llava | again), "judge forgets what only the expert answered."),
            (_rows(lambda llava, expert: dict(expert), _judge), "complement leaves out what the expert cannot answer: there LLaVA's answer stands."),
        ),
        ("A dict beside a dict: `one | other` takes the other's where both have a key.",
         "judge begins as complement. Where both answered and differ: the second answer, or LLaVA's where there is none."),
    ),
    Task(
        "15.3", 3, "Reasons first, or the answer first", _targets, _target,
        (
            (_changed("QCM-LEA", lambda L, E, a: f"The answer is {a}. {L} {E}".replace("  ", " ").strip()), "in LEA the answer stands first. The letters of a format's name are its order: lecture, explanation, answer."),
            (_changed("QCM-LEPA", lambda L, E, a: _target(L, E, a, "QCM-LEPA").replace("###\n", "")), "the ### before ANSWER is missing in LEPA; the authors' code cuts there."),
            (_changed("QCM-ALE", lambda L, E, a: f"The answer is {a}. {L} {E}".replace("  ", " ").strip()), "BECAUSE is missing in ALE, between the answer and its reasons."),
            (_changed("QCM-LEPA", lambda L, E, a: f"LECTURE: {L}\nSOLUTION: {E}\n###\nANSWER: {a}."), "an empty lecture or solution leaves its heading behind."),
        ),
        ("LEPA has lines, each only where there is something to say: `LECTURE: ...`, `SOLUTION: ...`, `###`, `ANSWER: B.`.",
         "LEA and ALE are one line. Join what is not empty by single blanks.",
         "ALE without any reasons is the answer's sentence alone. Another format's name: a ValueError."),
    ),
)  # fmt: skip

"""What the stand-in for Vicuna reads: scenes in words, questions before or after them, and the quiz.

A lesson is the records of one training step, in groups that share its loss (`Lesson`). Nine courses follow one another
(`standins/language_model.py`):

- first, second: the scene comes first, then eight questions; half of the records are what the teacher writes.
- orders: the question may come first (Eq. 2), and the quiz is among the forms.
- drill: only what the orders course did not learn: existence, count and relation asked before a short scene.
- letters, letters of the quiz: the letter of a choice that the question names, then the quiz's own.
- both: all of that.
- unnamed: only the letter of a choice that is named behind the choices, as the quiz's reasons name it.
- all: everything.

Notable: two things need a drill, and both are about order. In a mixture, questions before their scene stayed near
chance for 600 steps, and letters of choices named behind them for 1,200. 160 and 30 steps of nothing else taught them
(LOG.md).
"""

import random
from typing import NamedTuple

from minillava.data.scienceqa import answer_text, question_text
from minillava.datagen.messages import TYPES
from minillava.scenes.captions import SIDE_PHRASES, captions, phrase, preposition
from minillava.scenes.compose import compose
from minillava.scenes.questions import EXACT_KINDS, answer_group, questions
from minillava.scenes.world import COLOURS, KINDS, PLACES, Scene, Thing
from minillava.standins.quiz import SKILLS, problem
from minillava.standins.records import instruction_record, one_question
from minillava.standins.teacher import BRIEF_QUESTIONS, brief_description

BATCH_SIZE = 32  # of the first two courses
QUESTIONS_PER_SCENE = 8  # the model reads the scene once for all of them
LATE_PHASE = 0.7  # after this share of the steps look-ups are asked more often, as they are learnt last (LOG.md)
LOOKUP_KINDS = ("colour", "side", "count", "relation")  # answered by looking a word up in the scene's words
DRILLED = {"existence": 2, "count": 1, "relation": 1}  # kind -> how often, in the drill
BEFORE = {"existence": 4, "count": 3, "relation": 3, "odd": 1, "colour": 1, "side": 1, "place": 0.5}
# Group -> (records, share of the loss). Letters are few and come late in an answer, so they have a group of their own.
ORDERS = {"after": (8, 0.4), "before": (48, 0.45), "quiz": (6, 0.15)}
DRILL = {"drill": (128, 1.0)}
LETTERS = {"choices": (112, 0.6), "quiz": (12, 0.4)}
LETTERS_OF_QUIZ = {"choices": (32, 0.2), "letter": (64, 0.6), "quiz": (12, 0.2)}
LETTER_TOKENS = 8  # `\n###\nANSWER: B.` and the stop
BOTH = {"after": (10, 0.3), "before": (24, 0.2), "drill": (40, 0.2), "quiz": (12, 0.15), "letter": (24, 0.15)}
UNNAMED = {"unnamed": (160, 1.0)}
ALL = {"after": (10, 0.25), "before": (20, 0.17), "drill": (32, 0.18), "quiz": (10, 0.12), "letter": (24, 0.13),
       "sentence": (24, 0.15)}  # fmt: skip

COURSES = {  # name -> steps, groups; after the first two
    "orders": (600, ORDERS),
    "drill": (200, DRILL),
    "letters": (500, LETTERS),
    "letters-of-the-quiz": (300, LETTERS_OF_QUIZ),
    "both": (900, BOTH),
    "unnamed": (300, UNNAMED),
    "all": (900, ALL),
}
# What stands between the choices and the letter: questions that do not name the choice, and sentences that end with it.
LECTURES = [skill.lecture for skill in SKILLS]
ASKED = ("Which one is it?", "What is in the picture?", "Where is it?", "What can one see?", "Which of these is it?")
SAID = ("{}.", "It is {}.", "The picture shows {}.", "This is {}.", "What can be seen is {}.", "One can see {}.")


class Lesson(NamedTuple):
    """Records that share a part of a step's loss. last: how many of a record's last tokens carry it; 0: all that do."""

    share: float
    records: list[dict]
    last: int = 0


def as_notes(scene: Scene, rng: random.Random) -> str:
    """The scene as notes in random order, one thing per line: `a red car on the left`."""
    lines = [f"{phrase(scene, i)} {SIDE_PHRASES[t.side]}" for i, t in enumerate(scene.things)]
    return "\n".join([*rng.sample(lines, len(lines)), PLACES[scene.place]])


def table_line(scene: Scene, thing: Thing) -> str:
    """A thing in single words: `cup white left on table`."""
    on = [preposition(thing, scene.things[thing.on]), scene.things[thing.on].kind] if thing.on is not None else []
    doing = [thing.doing] if thing.doing else []
    return " ".join([thing.kind, thing.colour, thing.side, *doing, *on, *["up"] * thing.air])


def as_table(scene: Scene, rng: random.Random) -> str:
    """The scene as a table in random order, one thing per line (`table_line`); the first line is the place."""
    lines = [table_line(scene, thing) for thing in scene.things]
    return "\n".join([scene.place, *rng.sample(lines, len(lines))])


SCENE_FORMATS = {"captions": lambda scene, rng: "\n".join(captions(scene)), "notes": as_notes, "table": as_table}


def choose_questions(
    scene: Scene, rng: random.Random, kinds: tuple[str, ...], lookups: int = 1
) -> list[tuple[str, str]]:
    """QUESTIONS_PER_SCENE (question, answer) pairs of these kinds, balanced within a kind where the scene allows it.

    lookups: how many times as often LOOKUP_KINDS are asked.
    """
    pool = {}
    for q in questions(scene):
        if q.kind in kinds:
            pool.setdefault(q.kind, {}).setdefault(answer_group(q), []).append(q)
    # The harder "no" is for a thing that is there in another colour: half of the answers "no".
    near = [q for q in pool.get("existence", {}).get("no", []) if any(c in q.text.split() for c in COLOURS)]
    # Two scenes in three have nothing odd, so the third is asked about it twice as often.
    weights = [lookups if kind in LOOKUP_KINDS else 2 if kind == "odd" and scene.odd else 1 for kind in pool]
    chosen = {}
    while len(chosen) < QUESTIONS_PER_SCENE:
        kind = rng.choices(list(pool), weights)[0]
        key = rng.choice(list(pool[kind]))
        some = near if near and (kind, key) == ("existence", "no") and rng.random() < 0.5 else pool[kind][key]
        q = rng.choice(some)
        chosen[q.text] = q.answer
    return list(chosen.items())


def text_record(name: str, told: str, pairs: list[tuple[str, str]]) -> dict:
    """A text-only instruction record, with the scene in words before the first question."""
    turns = []
    for n, (question, answer) in enumerate(pairs):
        turns.append({"from": "human", "value": question if n else f"{told}\n{question}"})
        turns.append({"from": "gpt", "value": answer})
    return {"id": name, "conversations": turns}


def teacher_turns(scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
    """(question, answer) pairs that the teacher writes about the scene, of one of its types, or a brief description."""
    kind = rng.choices((*TYPES, "brief"), (2, 4, 1, 2))[0]
    if kind == "brief":
        return [(rng.choice(BRIEF_QUESTIONS), brief_description(scene))]
    values = [t["value"].replace("<image>", "").strip() for t in instruction_record(scene, kind)["conversations"]]
    return list(zip(values[::2], values[1::2]))


def curriculum_records(step: int, steps: int, seed: int, done: int = 0) -> list[dict]:
    """The records of one step: half of them questions, half what the teacher writes. The first scenes are small.

    done: steps of an earlier phase; then all batches are late ones. Descriptions teach the model to look up words, as
    each of their words is copied from the scene's words. With questions alone it learnt only the form of the answers
    for a thousand steps (LOG.md).
    """
    progress = 1.0 if done else step / steps
    step += done
    rng = random.Random(f"brain {seed} {step}")
    most = 2 if progress < 0.06 else 3 if progress < 0.15 else 9  # things in a scene
    asked, lookups = (0.5, 1) if progress < LATE_PHASE else (0.75, 3)
    out, index = [], 10_000_000 * (seed + 1) + 1000 * step
    while len(out) < BATCH_SIZE:
        scene = compose("train", index)
        index += 1
        if len(scene.things) > most:
            continue
        how = rng.choice(("captions", "captions", "notes", "table"))
        if rng.random() < asked:
            pairs = choose_questions(scene, rng, EXACT_KINDS, lookups)
        else:
            pairs = teacher_turns(scene, rng)
        out.append(text_record(f"{scene.id}-{how}", SCENE_FORMATS[how](scene, rng), pairs))
    return out


def asked_before(name: str, told: str, pair: tuple[str, str]) -> dict:
    """A text-only record of one question, which comes before the scene in words."""
    turns = [{"from": "human", "value": f"{pair[0]}\n{told}"}, {"from": "gpt", "value": pair[1]}]
    return {"id": name, "conversations": turns}


def small_scene(rng: random.Random, most: int, share: float) -> Scene:
    """A training scene; with this probability of at most `most` things."""
    limit = most if rng.random() < share else 9
    while len((scene := compose("train", rng.randrange(10**9))).things) > limit:
        pass
    return scene


def quiz_record(rng: random.Random) -> dict:
    """A problem of the quiz; its picture is told in words, before or after the question."""
    made, scene = problem("train", rng.randrange(10**6))
    told = [] if scene is None else [SCENE_FORMATS[rng.choice(tuple(SCENE_FORMATS))](scene, rng)]
    parts = rng.sample([question_text(made), *told], 1 + len(told))
    answer = answer_text(made, rng.choice(("QCM-LEPA", "QCM-LEPA", "QCM-LEA", "QCM-ALE")))
    turns = [{"from": "human", "value": "\n".join(parts)}, {"from": "gpt", "value": answer}]
    return {"id": made.id, "conversations": turns}


def choice_record(rng: random.Random, progress: float) -> dict:
    """One of several choices is named; its letter is the answer. One word each and two choices at first."""
    scene, easy = small_scene(rng, 9, 0.0), rng.random() < 0.8 - 2 * progress
    phrases = {phrase(scene, i) for i in range(len(scene.things))}
    kinds = [list(KINDS), list(COLOURS), list(PLACES.values())]
    pool = rng.choice(kinds if easy or len(phrases) < 2 else [*kinds, sorted(phrases), captions(scene)])
    most = 2 if progress < 0.15 else 3 if progress < 0.3 else 5
    choices = rng.sample(pool, min(len(pool), rng.randint(2, most)))
    right = rng.randrange(len(choices))
    named, letters = choices[right].rstrip("."), "ABCDE"
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip(letters, choices))
    turns = [
        {"from": "human", "value": f"Take {named}.\nOptions: {options}"},
        {"from": "gpt", "value": f"SOLUTION: {named}.\n###\nANSWER: {letters[right]}."},
    ]
    return {"id": f"choice-{named}", "conversations": turns}


def unnamed_record(rng: random.Random, progress: float, sentence: bool = False) -> dict:
    """As `choice_record`, but the choice is named only behind the choices. sentence: at the end of a quiz's reasons."""
    record = choice_record(rng, 0.6 * progress - 0.1)
    asked, answer = (turn["value"] for turn in record["conversations"])
    question = f"{rng.choice(ASKED)}\n{asked[asked.index('Options') :]}"
    if sentence:
        named, letter = answer.removeprefix("SOLUTION: ").split(".\n###\n")
        lecture = f"LECTURE: {rng.choice(LECTURES)}\n" if rng.random() < 0.7 else ""
        question = question.replace("\n", "\nContext: N/A\n", 1) if rng.random() < 0.7 else question
        answer = f"{lecture}SOLUTION: {rng.choice(SAID).format(named)}\n###\n{letter}"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return record | {"conversations": turns}


def letter_record(rng: random.Random) -> dict:
    """A problem of the quiz without its picture: its reasons say enough for the letter, which alone is scored."""
    made, _ = problem("train", rng.randrange(10**6))
    answer = answer_text(made, "QCM-LEPA")
    answer = answer[answer.index("SOLUTION") :] if rng.random() < 0.5 else answer
    turns = [{"from": "human", "value": question_text(made)}, {"from": "gpt", "value": answer}]
    return {"id": made.id, "conversations": turns}


def lesson_records(group: str, progress: float, rng: random.Random) -> dict:
    """One record of a group. progress: share of the course's steps that are done."""
    if group in ("quiz", "letter"):
        return quiz_record(rng) if group == "quiz" else letter_record(rng)
    if group == "choices":
        return choice_record(rng, progress)
    if group in ("unnamed", "sentence"):
        return unnamed_record(rng, progress) if group == "unnamed" else unnamed_record(rng, 1.0, sentence=True)
    drill = group == "drill"
    scene = small_scene(rng, 2 if progress < 0.3 else 3 if progress < 0.6 else 9, 0.7 if drill else 0.2)
    how = rng.choice(("captions", "notes", "table") if drill else ("captions", "notes", "notes", "table", "table"))
    told, name = SCENE_FORMATS[how](scene, rng), f"{scene.id}-{how}"
    if group == "after":
        exact = rng.random() < 0.7
        return text_record(
            name, told, choose_questions(scene, rng, EXACT_KINDS, 2) if exact else teacher_turns(scene, rng)
        )
    if drill or rng.random() < 0.88:
        return asked_before(name, told, one_question(scene, rng, DRILLED if drill else BEFORE))
    return asked_before(name, told, rng.choice(teacher_turns(scene, rng)))


def lessons(groups: dict, step: int, steps: int, seed: int) -> list[Lesson]:
    """The lessons of one step. groups: such as ORDERS."""
    rng = random.Random(f"orders {sorted(groups)} {seed} {step}")
    return [
        Lesson(
            share,
            [lesson_records(group, step / steps, rng) for _ in range(count)],
            LETTER_TOKENS * (group in ("letter", "sentence", "unnamed")),
        )
        for group, (count, share) in groups.items()
    ]

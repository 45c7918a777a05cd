"""The picture book's science quiz in ScienceQA's format: subjects, hints, grades, lectures, solutions (section 5.2).

`SKILLS` is the whole quiz. As in ScienceQA some questions need the picture, some have one but do not need it, some come
with a text, and some with neither. So a text-only reader is good at some and guesses others. No question is in two
splits: pictures come from the scenes' own splits, and questions without one are split by a hash of text and choices.
The position of the right choice is drawn evenly.

    python -c "from minillava.standins.quiz import quiz; print(*quiz('train', 8), sep='\\n')"
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minillava.data.scienceqa import Problem
from minillava.scenes.compose import bucket, compose
from minillava.scenes.draw import draw_file
from minillava.scenes.world import Scene
from minillava.standins import drafts

SCENE_SPLITS = {"train": "train", "val": "dev", "test": "bench"}
# Split -> which of 20 buckets its questions without a picture hash to.
TEXT_BUCKETS = {"train": range(14), "val": range(14, 16), "test": range(16, 20)}
FIRST_SCENE = 20_000  # so that no scene is also in the chat benchmark


@dataclass(frozen=True)
class Skill:
    """One skill: its subject, topic, grade and lecture, and what makes its questions.

    picture: whether the question shows the scene. make(rng, scene): a Draft, or None where the scene allows none.
    """

    name: str
    subject: str
    topic: str
    grade: int
    lecture: str
    picture: bool
    make: Callable[[random.Random, Scene], drafts.Draft | None]


NAT, SOC, LAN = "natural science", "social science", "language science"
SKILLS = (
    Skill("identify living things", NAT, "biology", 2, "Animals move and eat. Plants grow where they stand. Vehicles carry people.", True, drafts.living_things),
    Skill("link uses and properties", NAT, "physics", 8, "To find a thing by its use, first name the thing, then look at it.", True, drafts.use_and_colour),
    Skill("identify what flies", NAT, "physics", 7, "Things with wings fly. Things that are light or full of gas fly too.", True, drafts.what_flies),
    Skill("classify things", NAT, "biology", 3, "Animals move and eat. Plants grow where they stand. Vehicles carry people.", False, drafts.member_of_group),
    Skill("identify habitats", NAT, "biology", 5, "An animal lives where it finds food.", False, drafts.habitat),
    Skill("compare counts", NAT, "science practices", 4, "To compare, look at the numbers.", False, drafts.compare_counts),
    Skill("read a map", SOC, "geography", 6, "On a map, west is on the left and east is on the right.", True, drafts.read_map),
    Skill("identify places", SOC, "geography", 1, "A place is known by its ground and its sky or walls.", True, drafts.name_place),
    Skill("identify tools", SOC, "economics", 9, "A tool is made for a use.", False, drafts.choose_tool),
    Skill("trade", SOC, "economics", 10, "In a good trade, each gives what the other wants.", False, drafts.trade),
    Skill("form plurals", LAN, "vocabulary", 2, "Most words for more than one end in s. Some change, and some stay as they are.", False, drafts.plural_form),
    Skill("check statements", LAN, "reading", 9, "A sentence is true if every word of it is.", True, drafts.true_sentence),
    Skill("find details in a text", LAN, "reading", 5, "Read the text again and look for the word.", False, drafts.find_in_text),
    Skill("identify sentence types", LAN, "grammar", 3, "A sentence that asks ends with a question mark.", False, drafts.find_question),
    Skill("draw conclusions", LAN, "reading", 11, "Take what the text says to what the picture shows.", True, drafts.draw_conclusion),
)  # fmt: skip


def problem(split: str, number: int) -> tuple[Problem, Scene | None]:
    """Problem `number` of a split and the scene it shows, always the same. Raises KeyError for an unknown split."""
    rng = random.Random(f"quiz 1 {split} {number}")
    skill = SKILLS[number % len(SKILLS)]
    for attempt in range(1000):
        scene = compose(SCENE_SPLITS[split], FIRST_SCENE + 1000 * number + attempt)
        draft = skill.make(rng, scene)
        if draft is None:
            continue
        text = "|".join((draft.question, draft.hint, *sorted(draft.choices)))
        if not skill.picture and bucket(text, 20) not in TEXT_BUCKETS[split]:
            continue
        order = list(range(len(draft.choices)))
        rng.shuffle(order)
        name = f"{split}-{number:05d}"
        choices, image = tuple(draft.choices[i] for i in order), f"{name}/image.png" if skill.picture else None
        place = (skill.subject, skill.topic, skill.topic, skill.name, f"grade{skill.grade}")  # topic and category
        texts = (draft.question, choices, order.index(0), draft.hint, image)
        made = Problem(name, *texts, *place, skill.lecture, draft.solution, split=split)
        return made, scene if skill.picture else None
    raise RuntimeError(f"no question found for {split} {number} ({skill.name})")


def quiz(split: str, count: int) -> list[Problem]:
    """The first `count` problems of a split (train, val, test). The skills take turns."""
    return [problem(split, n)[0] for n in range(count)]


def draw_quiz(
    split: str, count: int, folder: Path, size: int = 96, progress: Callable[[], None] = lambda: None
) -> list[Problem]:
    """The first `count` problems. Their pictures are drawn into `folder`/ID/image.png unless they are already there."""
    out = []
    for n in range(count):
        made, scene = problem(split, n)
        if scene:
            draw_file(scene, Path(folder) / made.image, size)
        out.append(made)
        progress()
    return out

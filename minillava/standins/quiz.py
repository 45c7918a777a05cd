"""The picture book's science quiz, in ScienceQA's format: three subjects, hints, grades, lectures, solutions (section 5.2).

Notable: `SKILLS` is the whole quiz, one maker (drafts.py) a skill. As in ScienceQA some questions need the picture,
some have one and do not need it, some come with a text instead, some with neither, so that a reader without vision towers is
strong on some and guesses on others. No question of one split stands in another: pictures come from the scenes' own splits, and what has no
picture is split by a hash of its text and choices. The place of the right choice is drawn evenly.

    python -c "from minillava.standins.quiz import quiz; print(*quiz('train', 8), sep='\\n')"
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minillava.data.scienceqa import SPLITS, Problem
from minillava.files import whole
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw
from minillava.scenes.world import Scene
from minillava.standins.drafts import (
    Draft,
    asks,
    can_fly,
    colour_of_use,
    describes,
    farthest,
    home,
    likes,
    most,
    plural,
    read_side,
    trade,
    use_of,
    where,
    which_animal,
    which_group,
)

SCENES = {"train": "train", "val": "dev", "test": "bench"}
BUCKETS = {"train": range(14), "val": range(14, 16), "test": range(16, 20)}  # of 20, for questions without a picture
START = 20_000  # scenes from here on: others than those of the chat benchmark


@dataclass(frozen=True)
class Skill:
    """One skill: where it stands in the subjects' tree, its grade, its lecture, and what makes a question of it.

    picture: whether the question shows the scene. make(rng, scene) gives a Draft, or None where the scene has none.
    """

    name: str
    subject: str
    topic: str
    grade: int
    lecture: str
    picture: bool
    make: Callable[[random.Random, Scene], Draft | None]


NAT, SOC, LAN = "natural science", "social science", "language science"
SKILLS = (
    Skill("identify living things", NAT, "biology", 2, "Animals move and eat. Plants grow where they stand. Vehicles carry people.", True, which_animal),
    Skill("link uses and properties", NAT, "physics", 8, "To find a thing by its use, first name the thing, then look at it.", True, colour_of_use),
    Skill("identify what flies", NAT, "physics", 7, "Things with wings fly. Things that are light or full of gas fly too.", True, can_fly),
    Skill("classify things", NAT, "biology", 3, "Animals move and eat. Plants grow where they stand. Vehicles carry people.", False, which_group),
    Skill("identify habitats", NAT, "biology", 5, "An animal lives where it finds food.", False, home),
    Skill("compare counts", NAT, "science practices", 4, "To compare, look at the numbers.", False, most),
    Skill("read a map", SOC, "geography", 6, "On a map, west is on the left and east is on the right.", True, farthest),
    Skill("identify places", SOC, "geography", 1, "A place is known by its ground and its sky or walls.", True, where),
    Skill("identify tools", SOC, "economics", 9, "A tool is made for a use.", False, use_of),
    Skill("trade", SOC, "economics", 10, "In a good trade, each gives what the other wants.", False, trade),
    Skill("form plurals", LAN, "vocabulary", 2, "Most words for more than one end in s. Some change, and some stay as they are.", False, plural),
    Skill("check statements", LAN, "reading", 9, "A sentence is true if every word of it is.", True, describes),
    Skill("find details in a text", LAN, "reading", 5, "Read the text again and look for the word.", False, read_side),
    Skill("identify sentence types", LAN, "grammar", 3, "A sentence that asks ends with a question mark.", False, asks),
    Skill("draw conclusions", LAN, "reading", 11, "Take what the text says to what the picture shows.", True, likes),
)  # fmt: skip


def _bucket(draft: Draft) -> int:
    text = "|".join((draft.question, draft.hint, *sorted(draft.choices)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 20


def problem(split: str, number: int) -> tuple[Problem, Scene | None]:
    """Problem `number` of a split, and the scene it shows. Deterministic; raises KeyError for an unknown split."""
    rng = random.Random(f"quiz 1 {split} {number}")
    skill = SKILLS[number % len(SKILLS)]
    for attempt in range(1000):
        scene = compose(SCENES[split], START + 1000 * number + attempt)
        draft = skill.make(rng, scene)
        if draft is None or not skill.picture and _bucket(draft) not in BUCKETS[split]:
            continue
        order = list(range(len(draft.choices)))
        rng.shuffle(order)
        name = f"{split}-{number:05d}"
        made = Problem(
            name, draft.question, tuple(draft.choices[i] for i in order), order.index(0), draft.hint,
            f"{name}/image.png" if skill.picture else None, skill.subject, skill.topic, skill.topic, skill.name,
            f"grade{skill.grade}", skill.lecture, draft.solution, split=split,
        )  # fmt: skip
        return made, scene if skill.picture else None
    raise RuntimeError(f"no question found for {split} {number} ({skill.name})")


def quiz(split: str, count: int) -> list[Problem]:
    """The first `count` problems of a split (train, val, test); skills take turns."""
    return [problem(split, n)[0] for n in range(count)]


def draw_quiz(split: str, count: int, folder: Path, size: int = 96, progress: Callable[[], None] = lambda: None) -> list[Problem]:  # fmt: skip
    """The first `count` problems, their pictures drawn into `folder`/ID/image.png, each once."""
    if split not in SPLITS:
        raise KeyError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    out = []
    for n in range(count):
        made, scene = problem(split, n)
        path = Path(folder) / made.image if made.image else None
        if path and not path.exists():
            with whole(path, sync=False) as temporary:
                draw(scene, size).save(temporary, compress_level=1)
        out.append(made)
        progress()
    return out

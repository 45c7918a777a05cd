"""The page of `minillava progress`: which tasks pass on this machine (`progress_file.py` stores it)."""

from minillava.exercises.engine import STARS, exercise_numbers, tasks_of
from minillava.exercises.progress_file import read_progress


def progress() -> str:
    """The page: one line per exercise, with one mark per task (● passes, ○ tried, · not begun)."""
    known, lines, done, count = read_progress(), [], 0, 0
    for number in exercise_numbers():
        some = tasks_of(number).values()
        marks = [{True: "●", False: "○"}.get(known.get(t.id), "·") for t in some]
        lines.append(f"{number}  " + "   ".join(f"{m} {STARS[t.stars]} {t.title}" for m, t in zip(marks, some)))
        done, count = done + marks.count("●"), count + len(marks)
    return "\n".join([*lines, "", f"{done} of {count} tasks pass here.  ● passes   ○ tried   · not begun"])

"""The exercises' checks: each task with its cases, the package as oracle, hints, and the mistakes that learners make.

Notable: exercise NN of exercises/ has its tasks in exercises/tasks/exNN.py, found by its name. Nothing here holds a solution that is not
already in the package.

    python -m minillava.exercises exercises    # writes the student's files from exercises/solutions
    minillava progress                         # which tasks pass here
"""

from minillava.exercises.engine import NotYet, Task, Unsolved, check, hint
from minillava.exercises.progress import progress

__all__ = ["NotYet", "Task", "Unsolved", "check", "hint", "progress"]

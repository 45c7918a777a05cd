"""The exercises' checks: each task has cases, the package as oracle, hints, and the mistakes that learners make.

The tasks of exercise NN are in exercises/tasks/exNN.py. They contain no solution that is not in the package anyway.

    python -m minillava.exercises.build        # writes the students' notebooks from exercises/solutions
    minillava progress                         # which tasks pass on this machine
"""

from minillava.exercises.engine import NotYet, Task, Unsolved, check, hint, progress, show

__all__ = ["NotYet", "Task", "Unsolved", "check", "hint", "progress", "show"]

"""`python -m minillava.exercises exercises`: write the students' notebooks from exercises/solutions."""

import sys
from pathlib import Path

from minillava.exercises.build import build_exercises

if __name__ == "__main__":
    for path in build_exercises(Path(sys.argv[1] if len(sys.argv) > 1 else "exercises")):
        print(path)

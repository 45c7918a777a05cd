"""`minillava course zh`: the Chinese edition of notebooks and exercises, built from its translations."""

from pathlib import Path

from minillava.course.chinese import build

ROOT = Path(__file__).parents[2]


def arguments(parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("edition", choices=["zh"], help="zh: Chinese, into notebooks/zh and exercises/zh")


def run(options) -> None:
    """Write the notebooks, and print what is missing or stale."""
    problems = build(ROOT)
    print(*problems, sep="\n" if problems else "")
    print(
        f"The Chinese edition is in {ROOT / 'notebooks' / options.edition} and {ROOT / 'exercises' / options.edition}."
    )

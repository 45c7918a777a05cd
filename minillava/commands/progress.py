"""`minillava progress`: which tasks of the exercises pass on this machine; nothing is sent anywhere."""

from minillava.exercises import progress


def arguments(parser) -> None:
    """The verb has no arguments."""


def run(options) -> None:
    """Print the page of tasks."""
    print(progress())

"""`minillava progress`: which tasks of the exercises pass on this machine; nothing is sent anywhere."""

from minillava.exercises import progress


def arguments(parser) -> None:
    """It is given nothing."""


def run(options) -> None:
    """Print the page."""
    print(progress())

"""Notebook 17: its opt-in cells start what `minillava` has, and nothing by themselves; recorded figures are those read."""

import re

import pytest
from cells import Failed, notebook, run

from minillava import cli

NEEDED = ("HOME = WEIGHTS", "RECORDED = {", "from minillava import paper", "import SMOLLM2", "RESULTS =", "def foresee", "RUN_ON")  # fmt: skip
READ = (
    "HOME = WEIGHTS",
    "from minillava import paper",
    "RECORDED = {",
    "def prompt_table",
    "def review_table",
    "def science_table",
)
SWITCHES = ("RUN_ON_A_LAPTOP = ", "RUN_ON_A_T4 = ", "RUN_ON_80_GB, SIZE = ")


@pytest.fixture
def started(monkeypatch):
    """The commands that the notebook would run; each is parsed, and none is run."""
    found = []
    monkeypatch.setattr(cli, "main", lambda command: found.append(cli.parser(command[0]).parse_args(command)))
    return found


def test_nothing_larger_is_started_unasked(started):
    run(notebook("17"), compare=False, only=NEEDED)
    assert not started


def test_each_larger_training_is_commands_that_there_are(started):
    run(notebook("17"), compare=False, only=NEEDED, instead=[(f"{name}False", f"{name}True") for name in SWITCHES])
    assert [command.verb for command in started] == 3 * ["fetch", "fetch", "train"]
    for one, two, train in zip(started[::3], started[1::3], started[2::3]):
        assert one.out == two.out == train.data and (one.source, two.source) == ("pretrain", "instruct")


def test_the_recorded_figures_are_what_the_real_files_hold(real, monkeypatch):
    folder = real("scienceqa/llava_test_CQM-A.json").parents[1]
    monkeypatch.setenv("MINILLAVA_REAL", str(folder))
    run(notebook("17"), only=READ)
    wrong = [('"llava-v1.5-13b-eval1.jsonl"', '"review_gpt35_vicuna-13b.jsonl"')]
    with pytest.raises(Failed, match=re.escape(" instead of ")):
        run(notebook("17"), only=READ, instead=wrong)

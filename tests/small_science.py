"""The science quiz at a scale for tests, in another process: `python small_science.py FOLDER WEIGHTS SEEDS`."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from minillava.experiments import science
from minillava.judging import answer_scienceqa
from minillava.training import checkpoints

SMALL = replace(
    science.SMOKE, name="test", boxes=12, pairs=12, train=30, val=15, test=15, stage1_batch=4, stage2_batch=10
)

if __name__ in ("__main__", "__mp_main__"):  # also in the workers it starts
    torch.set_num_threads(1)
    checkpoints.SAVE_SECONDS = 0.0
    answer_scienceqa.MAX_REASONS = 8  # untrained models do not stop by themselves
if __name__ == "__main__":
    science.run_science(Path(sys.argv[1]), SMALL, int(sys.argv[3]), Path(sys.argv[2]))

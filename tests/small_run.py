"""The whole paper at a scale for tests, in another process: `python small_run.py FOLDER WEIGHTS SEEDS`."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from minillava import scales
from minillava.experiments import miniature
from minillava.experiments.report import write_report
from minillava.training import checkpoints

DATA = dict(pictures=40, pairs=32, conversation=24, detail=20, complex=20)
TESTS = dict(bench_scenes=2, exact_scenes=150, exact_per_kind=2)
SMALL = replace(scales.SMOKE, name="test", stage1_batch=4, stage2_batch=4, **DATA, **TESTS)

if __name__ in ("__main__", "__mp_main__"):  # also in the workers it starts
    torch.set_num_threads(1)
    checkpoints.SAVE_SECONDS = 0.3
if __name__ == "__main__":
    write_report(miniature.run_paper(Path(sys.argv[1]), SMALL, int(sys.argv[3]), Path(sys.argv[2])))

"""Measuring a model while it trains: figures every few hundred steps, in gates.jsonl."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from minillava.files import read_jsonl, write_jsonl

Progress = Callable[[int, int, float], None]


def with_evaluation(
    progress: Progress, model: nn.Module, measure: Callable[[], dict], folder: Path, times: int = 12
) -> Progress:
    """A `progress` for `fit` that also measures the model about `times` times, as rows of `folder`/gates.jsonl.

    measure(): figures by name; called in eval mode without gradients. A resumed run measures no step twice.
    """

    def show(step, steps, loss):
        progress(step, steps, loss)
        if step % max(1, steps // times) and step != steps:
            return
        path = Path(folder) / "gates.jsonl"
        rows = [row for row in (read_jsonl(path) if path.exists() else []) if row["step"] < step]
        model.eval()
        with torch.no_grad():
            rows.append({"step": step, **measure()})
        model.train()
        write_jsonl(rows, path)

    return show

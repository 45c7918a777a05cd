"""Measuring a model while it trains: figures every few hundred steps, in gates.jsonl."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

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
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [row for row in map(json.loads, lines) if row["step"] < step]
        model.eval()
        with torch.no_grad():
            rows.append({"step": step, **measure()})
        model.train()
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return show

"""What a stage of `minillava train` shows while it runs, and what its loss says at the end."""

import importlib.util
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path

from minillava import curves
from minillava.machine import loss_reporter
from minillava.training.parallel import rank


def mover(bar, beat):
    """A function of how much is done that moves the bar, and tells the waiting ranks that rank 0 is still at work."""

    def move(done, *_):
        bar.update(done - bar.n)
        beat()

    return move


@contextmanager
def step_reporter(folder: Path, bar):
    """A function for `fit` to call after each step: it moves the bar and, with TensorBoard installed, logs the loss."""
    report = loss_reporter(bar)
    if rank() > 0 or not importlib.util.find_spec("tensorboard"):
        yield report
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def both(step, steps, loss):
            report(step, steps, loss)
            writer.add_scalar("loss", loss, step)

        yield both


def loss_verdict(options: Namespace, scale, number: int, folder: Path) -> str:
    """Whether the loss follows the reference curve, if one ships for this scale with these parts."""
    try:
        curve = curves.read_curve(f"{scale.name}-stage{number}")
    except curves.CurveError:
        return f"no reference curve ships for {scale.name}; see `python -m minillava.curves` to make one"
    if (options.vision_tower, options.language_model) != (scale.vision_tower, scale.language_model):
        return f"not compared: {curve.name} is of another vision tower or language model"
    return f"{curves.describe_run(folder, curve)}; the reference is of the scale's own records, in {curve.steps} steps"

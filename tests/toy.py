"""A toy training for test_training.py, also run in a process of its own that is killed: `python toy.py FOLDER`."""

import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from minillava.model import LanguageConfig, LanguageModel
from minillava.training import loop
from minillava.training.optim import muon

STEPS = 12


def train(
    folder, progress=lambda *a: None, seed=0, steps=STEPS, change=lambda t, loss: loss, wrap=lambda optimizer: optimizer
):
    """(losses, weights, optimizer states) after `steps` steps of a tiny language model on random tokens."""
    torch.manual_seed(seed)
    model = LanguageModel(LanguageConfig(61, 16, 24, num_layers=2, num_heads=2))
    optimizer = wrap(muon([model], 0.02, 0.01))

    def loss_at(t):
        ids = torch.randint(0, 61, (4, 9), generator=torch.Generator().manual_seed(t))
        logits = model.head(model(model.embed(ids[:, :-1])))
        return change(t, F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))

    losses = loop.fit(model, optimizer, loss_at, steps, folder, {"toy": seed, "steps": steps}, progress)
    return losses, dict(model.state_dict()), [part.state_dict()["state"] for part in optimizer.parts]


def stored(folder):
    """The tensors of the newest checkpoint, one process's."""
    return load_file(next(sorted((folder / "checkpoints").iterdir())[-1].glob("*.safetensors")))


if __name__ == "__main__":
    torch.set_num_threads(1)
    loop.SAVE_SECONDS = 0.0
    train(sys.argv[1], lambda *a: time.sleep(0.05))

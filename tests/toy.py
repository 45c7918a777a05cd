"""A toy training and toy models for the tests."""

import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from minillava.data import IGNORE, IMAGE
from minillava.data.samples import Sample
from minillava.model import LanguageConfig, LanguageModel, Llava, LlavaConfig, VisionConfig
from minillava.training import loop
from minillava.training.features import Features
from minillava.training.optim import Optimizer, muon

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
    return losses, dict(model.state_dict()), [part.state_dict()["state"] for part in optimizer.optimizers]


def assert_same(one, two):
    """Compare two results of `train` bit for bit."""
    assert one[0] == two[0]
    assert one[1].keys() == two[1].keys() and all(torch.equal(one[1][k], two[1][k]) for k in one[1])
    for mine, other in zip(one[2], two[2], strict=True):
        assert mine.keys() == other.keys() and all(torch.equal(mine[p][k], other[p][k]) for p in mine for k in mine[p])


def stop_at(last):
    """A `progress` that interrupts a training after step `last`, as Ctrl-C does."""

    def progress(step, *_):
        if step == last:
            raise KeyboardInterrupt

    return progress


def tiny_llava(seed=0):
    """A LLaVA with a few thousand random weights."""
    torch.manual_seed(seed)
    sizes = LlavaConfig(VisionConfig(16, 8, 16, 32, 2, 2), LanguageConfig(61, 16, 24, 2, 2, max_position=64))
    return Llava(sizes)


def tiny_samples(count, seed=0, text_only=()):
    """`count` samples with different lengths and numbers of labels, and the features of their pictures by name."""
    generator, samples, seen = torch.Generator().manual_seed(seed), [], {}
    for n in range(count):
        length, asked = (int(torch.randint(*span, (1,), generator=generator)) for span in ((10, 30), (3, 8)))
        ids = torch.randint(0, 61, (length,), generator=generator)
        images = () if n in text_only else (f"{n}.png",)
        if images:
            ids[1], seen[images[0]] = IMAGE, torch.randn(4, 16, generator=generator)
        samples.append(Sample(f"lesson-{n}", ids, torch.where(torch.arange(length) < asked, IGNORE, ids), images))
    return samples, Features(
        {name: n for n, name in enumerate(seen)}, torch.stack([*seen.values()] or [torch.empty(0)])
    )


def sgd(modules, lr):
    """Replaces Adam where roundings are compared: Adam's first steps are as large for a gradient of 1e-9 as for 1."""
    return Optimizer([torch.optim.SGD([p for m in modules for p in m.parameters() if p.requires_grad], lr)])


def checkpoint_tensors(folder):
    """The tensors of the newest checkpoint of a single process."""
    return load_file(next(sorted((folder / "checkpoints").iterdir())[-1].glob("*.safetensors")))


def flip(path, at=-5):
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def empty(path):
    os.truncate(path, 0)


HARMS = [flip, cut, zero, empty]  # what disks, power cuts and people do to a file

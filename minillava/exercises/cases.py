"""What the cases of several exercises are made of."""

import random

import torch


def digits(seed: int, *shape: int, below: int = 50) -> torch.Tensor:
    """Whole numbers from 0 to `below` - 1, each once as long as they last, so that a picture shows where each went."""
    count, draw = torch.Size(shape).numel(), random.Random(f"digits {seed} {shape}")
    some = [n for _ in range(0, count, below) for n in draw.sample(range(below), below)]
    return torch.tensor(some[:count]).reshape(shape)

"""What changes the weights: Adam as in the paper, or Muon for the matrices of small models, and the cosine schedule.

The paper trains with Adam without weight decay; the rate follows a cosine after a 3 % warm-up (Appendix C). At the tiny
scale `torch.optim.Muon` trains the two-dimensional weights inside the blocks and Adam the rest: the model then learns
to look things up in a fraction of the steps (LOG.md).
"""

import math

import torch
from torch import nn


class Optimizer:
    """One or two torch optimizers that step together.

    scaler: for float16, where small gradients would become zero. A step whose gradients are not finite is skipped.
    """

    def __init__(self, optimizers: list[torch.optim.Optimizer], scaler: torch.amp.GradScaler | None = None):
        self.optimizers = optimizers
        self.scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]

    def step(self, factor: float) -> None:
        """Change the weights and clear the gradients. factor: the schedule's, in [0, 1], for each group's rate."""
        for optimizer, rates in zip(self.optimizers, self.base_rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * factor
            self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()

    def skip(self) -> None:
        """Clear gradients that are not finite, and lower the scaler's factor.

        Of two optimizers the scaler itself would skip only the one with such gradients. Clipping has made the gradients
        of the other not finite too, as one norm is taken of all.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.scaler.update()

    def set_rate(self, module: nn.Module, lr: float) -> None:
        """Give the parameters of a module a rate of their own."""
        mine = set(module.parameters())
        for optimizer, rates in zip(self.optimizers, self.base_rates):
            for group in list(optimizer.param_groups):
                if some := [p for p in group["params"] if p in mine]:
                    group["params"] = [p for p in group["params"] if p not in mine]
                    optimizer.add_param_group(group | {"params": some, "lr": lr})
                    rates.append(lr)

    def unscale(self) -> None:
        """Divide the gradients by the scaler's factor, so that they can be clipped."""
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)


def adam(modules: list[nn.Module], lr: float) -> Optimizer:
    """The paper's: Adam, no weight decay, betas 0.9 / 0.999 (Appendix C)."""
    params = [p for m in modules for p in m.parameters() if p.requires_grad]
    return Optimizer([torch.optim.AdamW(params, lr=lr, weight_decay=0.0, fused=True)])


def muon(modules: list[nn.Module], lr: float, lr_adam: float) -> Optimizer:
    """Muon for matrices inside transformer blocks (`...layers.N...`), Adam for embeddings, norms, heads and W."""
    matrices, rest = [], []
    for module in modules:
        for name, p in module.named_parameters():
            if p.requires_grad:
                (matrices if p.ndim == 2 and "layers." in name else rest).append(p)
    inner = torch.optim.Muon(matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    outer = torch.optim.AdamW(rest, lr=lr_adam, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
    return Optimizer([inner, outer])


def cosine(step: int, steps: int, warmup: float = 0.03) -> float:
    """The schedule's factor at `step` of `steps`: a line up over the first 3 %, then a cosine to 0 (Appendix C)."""
    up = max(1, round(steps * warmup))
    if step < up:
        return (step + 1) / up
    return 0.5 * (1 + math.cos(math.pi * (step - up) / max(1, steps - up)))

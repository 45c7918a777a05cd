"""What changes the weights: Adam as in the paper, or Muon for the matrices of small models, and the cosine schedule.

Notable: at the paper's scale Adam without weight decay (Appendix C). The tiny scale uses `torch.optim.Muon` for the
two-dimensional weights inside the blocks and Adam for the rest: it learns to look things up in a fraction of the
steps (LOG.md). The paper's schedule is a cosine after a 3 % warm-up.
"""

import math

import torch
from torch import nn


class Optimizer:
    """One or two torch optimizers stepped together; `factor` in [0, 1] is the schedule's, on each one's own rate.

    scaler: for float16, whose small gradients would vanish; it leaves out a step whose gradients are not finite.
    """

    def __init__(self, parts: list[torch.optim.Optimizer], scaler: torch.amp.GradScaler | None = None):
        self.parts = parts
        self.scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
        self.base = [[group["lr"] for group in part.param_groups] for part in parts]

    def step(self, factor: float) -> None:
        for part, rates in zip(self.parts, self.base):
            for group, rate in zip(part.param_groups, rates):
                group["lr"] = rate * factor
            self.scaler.step(part)
            part.zero_grad(set_to_none=True)
        self.scaler.update()

    def unscale(self) -> None:
        """Gradients as they are, before they are clipped."""
        for part in self.parts:
            self.scaler.unscale_(part)


def adam(modules: list[nn.Module], lr: float) -> Optimizer:
    """The paper's: Adam, no weight decay, betas 0.9 / 0.999 (Appendix C)."""
    params = [p for m in modules for p in m.parameters() if p.requires_grad]
    return Optimizer([torch.optim.AdamW(params, lr=lr, weight_decay=0.0, fused=True)])


def muon(modules: list[nn.Module], lr: float, lr_adam: float) -> Optimizer:
    """Muon for the matrices inside transformer blocks (`...layers.N...`), Adam for embeddings, norms, heads, the projector."""
    inner, outer = [], []
    for module in modules:
        for name, p in module.named_parameters():
            if p.requires_grad:
                (inner if p.ndim == 2 and "layers." in name else outer).append(p)
    return Optimizer([
        torch.optim.Muon(inner, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=lr_adam, weight_decay=0.0, betas=(0.9, 0.98), fused=True),
    ])  # fmt: skip


def cosine(step: int, steps: int, warmup: float = 0.03) -> float:
    """The schedule's factor at `step` of `steps`: up in a line over the first 3 %, then down a cosine (Appendix C)."""
    up = max(1, round(steps * warmup))
    if step < up:
        return (step + 1) / up
    return 0.5 * (1 + math.cos(math.pi * (step - up) / max(1, steps - up)))

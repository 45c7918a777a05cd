"""LoRA (arXiv 2106.09685): beside every frozen matrix W of the blocks a product of two thin ones is trained.

    y = W x + (alpha / r) B A x        A: (r, in), random; B: (out, r), zero, so training starts from the model as it is

Notable: after training, W + (alpha / r) B A is a matrix like any other: `merge` makes the model what it was, faster by
nothing and slower by nothing. Not the paper's: the authors offered it later, for cards of 24 GB and below.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn


class LoraLinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.a = nn.Parameter(torch.empty(rank, base.in_features, device=base.weight.device))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x):  # (..., in) to (..., out)
        return self.base(x) + F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype)) * self.scale


def matrices(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(owner, name, matrix) of every matrix in the language model's blocks, adapted or not."""
    owners = [owner for block in model.language_model.layers for owner in (block.self_attn, block.mlp)]
    return [(owner, *item) for owner in owners for item in owner.named_children() if isinstance(item[1], (nn.Linear, LoraLinear))]  # fmt: skip


def frozen_matrices(model: nn.Module) -> list[nn.Module]:
    """What LoRA leaves as it is and every step multiplies with: the matrices of the blocks, and the head where it has one."""
    language = model.language_model
    return [m for _, _, m in matrices(model)] + ([] if language.config.tie_embeddings else [language.lm_head])


def add(model: nn.Module, rank: int, alpha: float | None = None, dtype: torch.dtype = torch.float32) -> None:
    """Put LoRA beside every matrix, alpha twice the rank as in the authors' script; only it and W of Eq. 1 then train.

    dtype: what the device calculates in. The frozen matrices of the blocks and of the head are kept in it, as autocast
    would make them in every step anyway: the same result from half the memory. The rest is kept in float32.
    """
    model.language_model.requires_grad_(False).float()
    for matrix in frozen_matrices(model):
        matrix.to(dtype)
    for owner, name, matrix in matrices(model):
        setattr(owner, name, LoraLinear(matrix, rank, alpha or 2 * rank))


def merge(model: nn.Module) -> None:
    """Add the products to their matrices: the model computes the same, and is of its first form again, in float32: what
    training added is small beside half precision's steps."""
    model.language_model.float()
    for owner, name, adapted in matrices(model):
        if isinstance(adapted, LoraLinear):
            with torch.no_grad():
                added = adapted.scale * adapted.b.double() @ adapted.a.double()
                adapted.base.weight.copy_(adapted.base.weight.double() + added)
            setattr(owner, name, adapted.base)


def adapters(model: nn.Module) -> dict[str, torch.Tensor]:
    """What LoRA added, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if name.rpartition(".")[2] in ("a", "b")}


def save_adapters(model: nn.Module, path: Path) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in adapters(model).items()}, path)


def load_adapters(model: nn.Module, path: Path) -> None:
    """Fill what `add` put there. Raises ValueError where the file is of another model, rank, or not LoRA's."""
    stored, mine = load_file(path), adapters(model)
    if {name: t.shape for name, t in stored.items()} != {name: t.shape for name, t in mine.items()}:
        raise ValueError(f"{path}: these are not the adapters of this model and rank")
    for name, tensor in mine.items():
        tensor.copy_(stored[name])

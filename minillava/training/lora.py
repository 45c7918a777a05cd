"""LoRA (arXiv 2106.09685): beside every frozen matrix W of the blocks, the product of two thin matrices is trained.

    y = W x + (alpha / r) B A x        A: (r, in), random; B: (out, r), zero, so training starts from the model as it is

After training `merge` adds (alpha / r) B A to W, so the model has its first form and speed again. LoRA is not in the
paper: the authors offered it later, for cards of 24 GB and less.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from minillava.errors import CheckpointError
from minillava.files import atomic_write, write_json

ALPHA = 2  # alpha per rank, as in the authors' script


class LoraLinear(nn.Module):
    """A frozen matrix with its two trained ones."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.a = nn.Parameter(torch.empty(rank, base.in_features, device=base.weight.device))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x):  # (..., in) to (..., out)
        return self.base(x) + F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype)) * self.scale


def matrices(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(owner, name, matrix) of every matrix in the language model's blocks, with or without LoRA."""
    owners = [owner for block in model.language_model.layers for owner in (block.self_attn, block.mlp)]
    named = [(owner, name, module) for owner in owners for name, module in owner.named_children()]
    return [found for found in named if isinstance(found[2], (nn.Linear, LoraLinear))]


def frozen_matrices(model: nn.Module) -> list[nn.Module]:
    """The large matrices that LoRA leaves as they are: those of the blocks, and the head's where it has its own."""
    language = model.language_model
    return [m for _, _, m in matrices(model)] + ([] if language.config.tie_embeddings else [language.lm_head])


def add(model: nn.Module, rank: int, alpha: float | None = None, dtype: torch.dtype = torch.float32) -> None:
    """Put LoRA beside every matrix; then only LoRA and W of Eq. 1 train.

    alpha: by default ALPHA times the rank. dtype: the precision the device computes in. The large
    frozen matrices are stored in it, since autocast would convert them in every step anyway: the same result with half
    the memory. All else is stored in float32.
    """
    model.language_model.requires_grad_(False).float()
    for matrix in frozen_matrices(model):
        matrix.to(dtype)
    for owner, name, matrix in matrices(model):
        setattr(owner, name, LoraLinear(matrix, rank, alpha or ALPHA * rank))


def merge(model: nn.Module) -> None:
    """Add each product to its matrix, so that the model computes the same without LoRA; in float32, as the products are
    small compared with the rounding of half precision."""
    model.language_model.float()
    for owner, name, module in matrices(model):
        if isinstance(module, LoraLinear):
            with torch.no_grad():
                added = module.scale * module.b.double() @ module.a.double()
                module.base.weight.copy_(module.base.weight.double() + added)
            setattr(owner, name, module.base)


def adapters(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that LoRA added, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if name.rpartition(".")[2] in ("a", "b")}


def save_adapters(model: nn.Module, path: Path) -> None:
    with atomic_write(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in adapters(model).items()}, temporary)


def load_adapters(model: nn.Module, paths: list[Path]) -> None:
    """Merge what `save_adapters` wrote, in one file or several, into a model without LoRA.

    Raises CheckpointError for files that were made for another model.
    """
    stored = {name: tensor for path in paths for name, tensor in load_file(path).items()}
    rank = min((len(tensor) for name, tensor in stored.items() if name.endswith(".a")), default=1)
    add(model, rank)
    own = adapters(model)
    if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in stored.items()}:
        raise CheckpointError(
            f"{paths[0].parent if paths else 'no file'}: this LoRA was made for another language model"
        )
    for name, tensor in own.items():
        tensor.copy_(stored[name])
    merge(model)


def save_peft(path: Path, folder: Path, base: str) -> None:
    """Write what `save_adapters` wrote as a folder of PEFT, for the language model `base`, with the default alpha."""
    tensors, parts = {}, {"a": "lora_A", "b": "lora_B"}
    for name, tensor in load_file(path).items():  # language_model.layers.0.mlp.up_proj.a
        matrix, _, part = name.removeprefix("language_model.").rpartition(".")
        tensors[f"base_model.model.model.{matrix}.{parts[part]}.weight"] = tensor
    rank = min(tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": ALPHA * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
    }
    with atomic_write(folder / "adapter_model.safetensors") as temporary:  # without it the folder is no adapter
        save_file(tensors, temporary, metadata={"format": "pt"})
        write_json(folder / "adapter_config.json", config)

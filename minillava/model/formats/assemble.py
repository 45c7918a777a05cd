"""A LLaVA from its parts, and what a folder needs besides weights so that one can talk with it."""

import math
import shutil
from pathlib import Path

import torch

from minillava.model import Llava, LlavaConfig, load_language, load_vision, save_llava
from minillava.model.formats.files import meant


def assemble(
    eye: str | Path, brain: str | Path, seed: int, select_layer: int = -2, dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Llava:  # fmt: skip
    """LLaVA before any training: a frozen eye, a language model, and a W that is random by `seed`."""
    vision, language = load_vision(eye, dtype, device), load_language(brain, dtype, device)
    torch.manual_seed(seed)
    model = Llava(LlavaConfig(vision.config, language.config, select_layer), vision, language)
    model.projector.to(device, dtype)
    return model


def normalisation(eye: str | Path) -> tuple[tuple, tuple]:
    """(mean, std) that the eye's own preprocessor_config.json states. Raises CheckpointError where it states none."""
    with meant(Path(eye) / "preprocessor_config.json") as stated:
        mean, std = (tuple(map(float, stated[name])) for name in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise ValueError("image_mean and image_std must be three numbers each, those of image_std above 0")
    return mean, std


def save_trained(model: Llava, tokenizer, eye: str | Path, folder: str | Path, about: dict, dtype=None) -> None:
    """A trained LLaVA with all that talking with it needs: weights, tokenizer, and how the eye wants its pictures."""
    save_llava(model, folder, about, dtype)
    tokenizer.save_pretrained(folder)
    shutil.copy(Path(eye) / "preprocessor_config.json", Path(folder) / "preprocessor_config.json")

"""A LLaVA from its parts, and a folder with all that talking with it needs."""

import math
import shutil
from pathlib import Path

import torch

from minillava.model import Llava, LlavaConfig, load_language, load_vision, save_llava
from minillava.model.formats.files import reading_config


def assemble(vision_tower, language_model, seed, select_layer=-2, dtype=torch.float32, device="cpu") -> Llava:
    """LLaVA before any training, of two folders or hub ids: frozen vision tower, language model, random W by `seed`."""
    vision, language = load_vision(vision_tower, dtype, device), load_language(language_model, dtype, device)
    torch.manual_seed(seed)
    model = Llava(LlavaConfig(vision.config, language.config, select_layer), vision, language)
    model.projector.to(device, dtype)
    return model


def normalisation(vision_tower: str | Path) -> tuple[tuple, tuple]:
    """(mean, std) from the vision tower's own preprocessor_config.json. Raises CheckpointError without them."""
    with reading_config(Path(vision_tower) / "preprocessor_config.json") as config:
        mean, std = (tuple(map(float, config[name])) for name in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise ValueError("image_mean and image_std must each be three numbers, image_std above 0")
    return mean, std


def save_trained(
    model: Llava, tokenizer, vision_tower: str | Path, folder: str | Path, about: dict, dtype=None
) -> None:
    """Write a trained LLaVA with all that talking with it needs: weights, tokenizer, and the pictures' preparation."""
    save_llava(model, folder, about, dtype)
    tokenizer.save_pretrained(folder)
    shutil.copy(Path(vision_tower) / "preprocessor_config.json", Path(folder) / "preprocessor_config.json")

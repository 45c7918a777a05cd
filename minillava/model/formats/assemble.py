"""A LLaVA from its parts, and a folder with all that talking with it needs."""

from pathlib import Path

import torch

from minillava.model import Llava, LlavaConfig, load_language, load_vision, save_llava
from minillava.model.formats.chat_template import retrained
from minillava.model.formats.preparation import read_preparation, write_preparation


def assemble(vision_tower, language_model, seed, select_layer=-2, dtype=torch.float32, device="cpu") -> Llava:
    """LLaVA before any training, of two folders or hub ids: frozen vision tower, language model, random W by `seed`."""
    vision, language = load_vision(vision_tower, dtype, device), load_language(language_model, dtype, device)
    torch.manual_seed(seed)
    model = Llava(LlavaConfig(vision.config, language.config, select_layer), vision, language)
    model.projector.to(device, dtype)
    return model


def save_trained(
    model: Llava, tokenizer, vision_tower: str | Path, folder: str | Path, about: dict, dtype=None
) -> None:
    """Write a trained LLaVA with all that talking with it needs: weights, tokenizer, and the pictures' preparation."""
    save_llava(model, folder, about, dtype)
    retrained(tokenizer).save_pretrained(folder)
    write_preparation(read_preparation(vision_tower, model.config.vision.image_size), folder)

"""The model, written out in plain PyTorch. Fig. 1 is vision.py, rope.py, language.py, llava.py, in reading order.

cache.py and generate.py write answers; kernels.py has quick forms of what these write out; formats/ reads and writes
published checkpoints.
"""

from minillava.data import IGNORE, IMAGE
from minillava.model.cache import Cache
from minillava.model.formats.checkpoint import (
    load_language,
    load_llava,
    load_projector,
    load_vision,
    save_language,
    save_llava,
    save_vision,
)
from minillava.model.formats.files import CheckpointError, find_checkpoint
from minillava.model.formats.pretrained import save_pretrained
from minillava.model.generate import Session, generate, generate_text, stream
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.model.llava import Batch, Llava, LlavaConfig, SpliceError, set_trainable
from minillava.model.rope import Rope
from minillava.model.vision import VisionConfig, VisionTower, attend

__all__ = [
    "IGNORE",
    "IMAGE",
    "Batch",
    "Cache",
    "CheckpointError",
    "LanguageConfig",
    "LanguageModel",
    "Llava",
    "LlavaConfig",
    "Rope",
    "Session",
    "SpliceError",
    "VisionConfig",
    "VisionTower",
    "attend",
    "find_checkpoint",
    "generate",
    "generate_text",
    "load_language",
    "load_llava",
    "load_projector",
    "load_vision",
    "save_language",
    "save_llava",
    "save_pretrained",
    "save_vision",
    "set_trainable",
    "stream",
]

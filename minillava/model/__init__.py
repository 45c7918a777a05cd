"""The model, written out in plain PyTorch: the forward path is vision.py, language.py, llava.py, in this order.

generate.py answers, checkpoint.py reads and writes the published formats.
"""

from minillava.model.checkpoint import (
    CheckpointError,
    load_language,
    load_llava,
    load_vision,
    save_language,
    save_llava,
    save_vision,
)
from minillava.model.generate import generate, stream
from minillava.model.language import Cache, LanguageConfig, LanguageModel
from minillava.model.llava import (
    IGNORE,
    IMAGE,
    Batch,
    Llava,
    LlavaConfig,
    SpliceError,
    account,
    set_trainable,
)
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
    "SpliceError",
    "VisionConfig",
    "VisionTower",
    "account",
    "attend",
    "generate",
    "load_language",
    "load_llava",
    "load_vision",
    "save_language",
    "save_llava",
    "save_vision",
    "set_trainable",
    "stream",
]

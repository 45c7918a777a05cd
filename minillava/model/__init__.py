"""The model, written out in plain PyTorch: the forward path is vision.py, rope.py, language.py, llava.py, in this order.

generate.py answers; costs.py says what a model costs; published.py, files.py and checkpoint.py read and write the
published formats.
"""

from minillava.model.cache import Cache
from minillava.model.checkpoint import (
    load_language,
    load_llava,
    load_projector,
    load_vision,
    save_language,
    save_llava,
    save_pretrained,
    save_vision,
)
from minillava.model.costs import account, cache_bytes, flops, memory, parameters
from minillava.model.files import CheckpointError, find
from minillava.model.generate import Session, generate, generate_text, stream
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.model.llava import (
    IGNORE,
    IMAGE,
    Batch,
    Llava,
    LlavaConfig,
    SpliceError,
    set_trainable,
)
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
    "account",
    "attend",
    "cache_bytes",
    "find",
    "flops",
    "generate",
    "generate_text",
    "load_language",
    "load_llava",
    "load_projector",
    "load_vision",
    "memory",
    "parameters",
    "save_language",
    "save_llava",
    "save_pretrained",
    "save_vision",
    "set_trainable",
    "stream",
]

"""What a model costs before it is built: parameters, arithmetic, memory. `minillava doctor` prints it.

Everything follows from a LlavaConfig. Tests compare each figure with PyTorch's own count: parameters with the modules,
arithmetic with torch's FLOP counter, activations with what autograd keeps, byte for byte.

A multiply-add counts as 2, and attention as all T x T pairs, as is usual; a causal kernel may skip half. A frozen part
still passes gradients on to W below it: the language model costs 2 forwards in stage 1 and 3 in stage 2; the vision
tower costs 1 in both, or 0 where its features are stored.

Try it: `memory(SHAPES["full-7b"], stage=2, batch=4, tokens=512, supervised=128)`.

B batch, P patches, T tokens after splicing, D width, F width within the MLP, H heads of size d, V vocabulary, L layers.
"""

from dataclasses import replace
from functools import lru_cache

import torch

from minillava.model import LanguageConfig, LlavaConfig, VisionConfig
from minillava.model.llava import STAGES, Llava

VIT_L = VisionConfig(224, 14, 1024, 4096, 24, 16)  # openai/clip-vit-large-patch14, the paper's
VIT_B = VisionConfig(224, 16, 768, 3072, 12, 12)  # openai/clip-vit-base-patch16
SMALL_VIT = VisionConfig(96, 12, 128, 512, 4, 4)  # the shipped one; its files are not in a wheel
SHAPES = {
    "tiny": LlavaConfig(SMALL_VIT, LanguageConfig(848, 128, 336, 4, 4, rope_theta=1e7, max_position=1024)),
    # SmolLM2-135M
    "smol": LlavaConfig(
        SMALL_VIT,
        LanguageConfig(
            49_152, 576, 1536, 30, 9, 3, rope_theta=1e5, rms_norm_eps=1e-5, max_position=8192, tie_embeddings=True
        ),
    ),
    # the size of Qwen2.5-0.5B
    "colab": LlavaConfig(
        VIT_B, LanguageConfig(151_936, 896, 4864, 24, 14, 2, rope_theta=1e6, tie_embeddings=True, attention_bias=True)
    ),
    "full-7b": LlavaConfig(VIT_L, LanguageConfig(32_000, 4096, 11_008, 32, 32)),
    "full-13b": LlavaConfig(VIT_L, LanguageConfig(32_000, 5120, 13_824, 40, 40)),
}
# Bytes of a weight (also of its gradient and of each of Adam's two moments) and of an activation. "mixed": autocast to
# bfloat16 over float32 weights; a bfloat16 copy of the matrices is kept during the step.
PRECISION_BYTES = {"float32": (4, 4), "mixed": (4, 2), "bfloat16": (2, 2)}


def count_parameters(model):
    """How many parameters each part of a model has, and their "total", which is checked to be the sum of the parts."""

    def count(part):
        return sum(p.numel() for p in part.parameters())

    language = model.language_model
    parts = {
        "vision_tower": count(model.vision_tower),
        "projector": count(model.projector),
        "embedding": count(language.embed_tokens),
        "decoder": count(language.layers) + count(language.norm),
        "head": 0 if language.config.tie_embeddings else count(language.lm_head),
    }
    total = count(model)
    assert sum(parts.values()) == total, f"{parts} do not sum to {total}"
    return parts | {"total": total}


@lru_cache
def parameters(config):
    """`count_parameters` of a config's model, and how many of them "stage 1" and "stage 2" train."""

    def of_layers(count):
        vision, language = (replace(part, num_layers=count) for part in (config.vision, config.language))
        with torch.device("meta"):  # shapes without memory
            return count_parameters(Llava(replace(config, vision=vision, language=language)))

    parts, two = of_layers(1), of_layers(2)  # building all takes long for many, and every layer has as many
    for name, layers in (("vision_tower", config.vision.num_layers), ("decoder", config.language.num_layers)):
        more = (layers - 1) * (two[name] - parts[name])
        parts |= {name: parts[name] + more, "total": parts["total"] + more}
    language = sum(parts[name] for name in ("embedding", "decoder", "head"))
    of = {"projector": parts["projector"], "language_model": language}
    return parts | {f"stage {stage}": sum(of[name] for name in names) for stage, names in STAGES.items()}


def flops(config, tokens, scored, pictures=1, stage=None):
    """Floating-point operations for one sample, by part, and their "total".

    tokens: T after splicing. scored: the number of tokens whose next token is predicted: the supervised ones, or 1 when
    reading a prompt. pictures: 0 where features are stored. stage: None for a forward pass, 1 or 2 for forward and
    backward; training computes the last MLP at the scored tokens only.
    Writing one token after `tokens - 1` others costs flops(config, T, 1, 0) - flops(config, T - 1, 0, 0).
    """
    vision, language = config.vision, config.language
    P, Dv = vision.num_patches, vision.hidden_size
    D, V, L = language.hidden_size, language.vocab_size, language.num_layers
    blocks = config.select_layer % (vision.num_layers + 1)  # those that are run
    patches = 2 * P * 3 * vision.patch_size**2 * Dv
    block = 2 * (P + 1) * (4 * Dv**2 + 2 * Dv * vision.intermediate_size) + 4 * (P + 1) ** 2 * Dv
    unread = 3 * D * language.intermediate_size * (tokens - scored) if stage else 0  # not computed in the last MLP
    first, second = 2 * P * Dv * D, 2 * P * D * D if config.projector != "linear" else 0
    parts = {
        "vision_tower": pictures * (patches + blocks * block),
        # The first layer's input needs no gradient, the second layer's does.
        "projector": pictures * (first * (2 if stage else 1) + second * (3 if stage else 1)),
        "decoder": 2 * (tokens * _matrices(language) - unread) * {None: 1, 1: 2, 2: 3}[stage],
        "attention": 4 * L * tokens**2 * language.num_heads * language.head_dim * (3 if stage else 1),
        "head": 2 * scored * D * V * {None: 1, 1: 2, 2: 3}[stage],
    }
    return parts | {"total": sum(parts.values())}


def cache_bytes(config, bytes_each=2):
    """Bytes of keys and values per token while answering. bytes_each: 2 in half precision, 4 in float32."""
    language = config.language
    return 2 * language.num_layers * language.num_kv_heads * language.head_dim * bytes_each


def memory(
    config, stage, batch, tokens, supervised, precision="mixed", checkpointing=False, fused=True, parts=2, devices=1,
    compiled=False,
):  # fmt: skip
    """The least bytes that a training step needs, by what needs them, and their "total".

    tokens, supervised: of each sample, after splicing. Adam keeps two moments per trainable parameter. checkpointing:
    only each block's input is kept, and one block at a time is computed again. fused: False where attention is written
    out (`attend`: half precision on a CPU), which keeps every probability. parts: how many times the step does a forward
    and backward pass of `batch` samples. Of several the later ones find the gradients of the first there. With one alone
    gradients take the place of activations as these are freed, up to the last block's, and only what is beyond it
    counts. devices: over how many gradients and moments are split. compiled: blocks by `stages.compile_blocks`, which
    compute the norms again. Not included: the features of the pictures, and the
    allocator's gaps.
    """
    language, count = config.language, parameters(config)
    weight, value = PRECISION_BYTES[precision]
    D, L = language.hidden_size, language.num_layers
    block = _block_activations(language, tokens, stage, precision, fused, compiled)
    enters = D * (4 if precision == "mixed" else value)
    matrices = _matrices(language) + D * language.vocab_size
    freed = batch * tokens * (L * enters if checkpointing else (L - 1) * block)
    gradients = count[f"stage {stage}"] * weight / devices
    needs = {
        "weights": count["total"] * weight + (2 * matrices if precision == "mixed" else 0),
        "gradients": max(0, gradients - freed) if parts == 1 else gradients,
        "optimizer": gradients * 2,
        "activations": freed + batch * tokens * block,
        "logits": batch * supervised * language.vocab_size * (4 + 4 + value),  # log-probabilities and two gradients
    }
    return needs | {"total": sum(needs.values())}


def _matrices(language):
    """Parameters of all matrices within the blocks, without biases."""
    D, d = language.hidden_size, language.head_dim
    attention = D * d * (2 * language.num_heads + 2 * language.num_kv_heads)
    return language.num_layers * (attention + 3 * D * language.intermediate_size)


def _block_activations(language, tokens, stage, precision, fused, compiled):
    """Bytes per token that a block keeps for its backward pass; weight gradients also need each matrix's input."""
    D, F, H = language.hidden_size, language.intermediate_size, language.num_heads
    wide, value = H * language.head_dim, PRECISION_BYTES[precision][1]
    norms = 2 * (4 * D + 4)  # the normalised value in float32, and its scale
    if stage == 2:  # times the gain, for the matrices' gradients: cast once per matrix by autocast
        norms += {"float32": 2 * 4, "mixed": 5 * 2, "bfloat16": 2 * (2 + 2)}[precision] * D
        norms += 2 * 4 * D if precision == "mixed" and fused else 0  # on a GPU, PyTorch's norm keeps its input too
    norms = 0 if compiled else norms
    attention = 4 * wide * value + 4 * H  # queries, keys, values, the output and its scale
    if not fused:
        attention = 3 * wide * value + H * tokens * value + (wide * value if stage == 2 else 0)
    return norms + attention + (4 if stage == 2 else 3) * F * value

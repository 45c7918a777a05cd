"""Rotary positions (RoPE, arXiv 2104.09864): queries and keys are turned by an angle that grows with their position.

Pair i of a head of size d turns by position x theta^(-2i/d). So q.k depends only on the distance between two tokens.
Models that read longer texts than they were trained on turn more slowly. The variants published for the Llama family:

    linear    every pair `factor` times slower                                       (LongChat, Vicuna 16K)
    dynamic   the longer the row, the larger theta; exact within the trained length  (NTK-aware)
    llama3    slow pairs `factor` times slower, fast ones unchanged, a ramp between  (Llama 3.1)
    yarn      the same idea with another ramp, and sharper attention                 (YaRN, arXiv 2309.00071; Qwen2.5)

Notable: each variant equals `transformers` 5, by test. The plain form is a few lines of `rotations`; the rest is for
long texts. Beyond the trained length `dynamic` turns all tokens of a row by its present length, but keys already in a
cache stay as they were turned. Only there does decoding with a cache differ from reading the whole text again, as in
`transformers`.

Try it: `rotations(torch.arange(7)[None], LanguageConfig(100, 64, 128, 2, 4))[0].shape` is (1, 1, 7, 16).

B batch, T tokens, H heads, d size of a head.
"""

import math
from dataclasses import dataclass

import torch

KINDS = ("linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True)
class Rope:
    """How positions are stretched beyond the trained length. Raises ValueError for an unknown kind."""

    kind: str
    factor: float  # how many times further the model reads
    original: int  # tokens: the length that it was trained on
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    truncate: bool = True  # yarn
    attention_factor: float = 1.0  # yarn: cos and sin are multiplied by it

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"rope type {self.kind!r}: only {', '.join(KINDS)} are written out here")


def rotations(positions, config):
    """cos and sin of every position's angles, (B, 1, T, d) each, as `rotate` takes them.

    positions: (B, T), counted from 0. config: a LanguageConfig.
    """
    d, theta, rope = config.head_dim, config.rope_theta, config.rope
    if rope and rope.kind == "dynamic":
        length = (positions.amax(-1) + 1).clamp(min=rope.original).view(-1, 1, 1, 1)  # (B, 1, 1, 1), of each row
        theta = theta * (rope.factor * length / rope.original - (rope.factor - 1)) ** (d / (d - 2))
    rates = theta ** -(
        torch.arange(0, d, 2, device=positions.device, dtype=torch.float32) / d
    )  # (d/2,) radians per token
    if rope:
        rates = _stretched(rates, config)
    angles = positions[:, None, :, None].float() * rates  # (B, 1, T, d/2)
    angles, scale = torch.cat([angles, angles], dim=-1), rope.attention_factor if rope else 1.0  # (B, 1, T, d)
    return angles.cos() * scale, angles.sin() * scale


def rotate(x, cos, sin):
    """Turn each pair (x_i, x_{i+d/2}) by its angle: (a, b) becomes (a cos - b sin, b cos + a sin), Eq. 34 of RoPE.

    Number i is paired with i + d/2, not with its neighbour, as in all published Llama weights.
    x: (B, H, T, d). cos, sin: from `rotations`. Returns (B, H, T, d).
    """
    a, b = x.chunk(2, dim=-1)  # (B, H, T, d/2) each
    return x * cos.to(x.dtype) + torch.cat([-b, a], dim=-1) * sin.to(x.dtype)


def _stretched(rates, config):
    """Radians per token, (d/2,), of a model that reads `factor` times further than it was trained."""
    rope = config.rope
    slow = rates / rope.factor
    if rope.kind == "linear":
        return slow
    if rope.kind == "llama3":
        turns = rope.original * rates / (2 * math.pi)  # full turns within the trained length
        keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        keep = keep.clamp(0, 1)  # 1: a fast pair, unchanged; 0: a slow one
        return keep * rates + (1 - keep) * slow
    if rope.kind == "yarn":
        first, last = _pair(rope.beta_fast, config), _pair(rope.beta_slow, config)
        if rope.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, config.head_dim - 1)
        ramp = torch.arange(len(rates), device=rates.device, dtype=torch.float32) - first
        ramp = (ramp / max(last - first, 0.001)).clamp(0, 1)
        return (1 - ramp) * rates + ramp * slow
    return rates  # dynamic has changed theta instead


def _pair(turns, config):
    """The pair, as a fraction, that makes so many full turns within the trained length (YaRN, section 3.2)."""
    d, original = config.head_dim, config.rope.original
    return d * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

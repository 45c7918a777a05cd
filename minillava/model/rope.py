"""Rotary positions: a token's place is an angle by which its queries and keys are turned (RoPE, arXiv 2104.09864).

Pair i of a head of size d turns by position x theta^(-2i/d), so that q.k depends on the distance of two tokens only.
Models that read longer texts than they were trained on turn more slowly; the variants published for the Llama family:

    linear    every pair `factor` times slower                                      (LongChat, Vicuna 16K)
    dynamic   the longer the row, the larger theta; exact within the trained length (NTK-aware)
    llama3    slow pairs `factor` times slower, fast ones as they were, a ramp in between (Llama 3.1)
    yarn      the same idea with another ramp, and attention sharpened              (YaRN, arXiv 2309.00071; Qwen2.5)

Notable: equal to `transformers` 5, each by test. The default is four lines of `rotations`; the rest is for long texts.
Beyond the trained length `dynamic` turns all tokens of a row by its present length; keys already in a cache stay as they
were turned, as in `transformers`, so that only there decoding with a cache differs from reading all anew.

Try it: `rotations(torch.arange(7)[None], LanguageConfig(100, 64, 128, 2, 4))[0].shape` is (1, 1, 7, 16).

B batch, T tokens, d size of a head.
"""

import math
from dataclasses import dataclass

import torch

from minillava.model.kernels import Turned

KINDS = ("linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True)
class Rope:
    """How positions are stretched. `original`: the length the model was trained on; low/high: llama3; the rest: yarn."""

    kind: str
    factor: float
    original: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0  # what cos and sin are multiplied by

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"rope type {self.kind!r}: only {', '.join(KINDS)} are written out here")


def rotations(positions, config):
    """cos and sin of every position's angles, (B, 1, T, d) each, as `rotate` takes them: the first half of sin negated.

    positions: (B, T), from 0. config: a LanguageConfig.
    """
    d, theta, rope = config.head_dim, config.rope_theta, config.rope
    if rope and rope.kind == "dynamic":
        length = (positions.amax(-1) + 1).clamp(min=rope.original).view(-1, 1, 1, 1)  # of each row
        theta = theta * (rope.factor * length / rope.original - (rope.factor - 1)) ** (d / (d - 2))
    rates = theta ** -(torch.arange(0, d, 2, device=positions.device, dtype=torch.float32) / d)  # (d/2,)
    if rope:
        rates = _stretched(rates, config)
    angles = positions[:, None, :, None].float() * rates  # (B, 1, T, d/2)
    cos, sin, scale = angles.cos(), angles.sin(), rope.attention_factor if rope else 1.0
    return torch.cat([cos, cos], dim=-1) * scale, torch.cat([-sin, sin], dim=-1) * scale


def rotate(x, cos, sin):
    """Turn each pair (x_i, x_{i+d/2}) by its angle. x: (B, H, T, d); cos, sin: from `rotations`.

    A pair (a, b) becomes (a cos - b sin, b cos + a sin): x times cos, and x with its halves exchanged times -sin, sin.
    """
    return Turned.apply(x, cos.to(x.dtype), sin.to(x.dtype))


def _stretched(rates, config):
    """Radians per token, (d/2,), of a model that reads `factor` times further than it was trained."""
    rope = config.rope
    slow = rates / rope.factor
    if rope.kind == "linear":
        return slow
    if rope.kind == "llama3":
        turns = rope.original * rates / (2 * math.pi)  # full turns within the trained length
        keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        keep = keep.clamp(0, 1)  # 1: a fast pair, it stays; 0: a slow one
        return keep * rates + (1 - keep) * slow
    if rope.kind == "yarn":
        d = config.head_dim

        def pair(turns):  # the pair that makes this many turns within the trained length
            return d * math.log(rope.original / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

        first, last = pair(rope.beta_fast), pair(rope.beta_slow)
        if rope.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, d - 1)
        ramp = torch.arange(d // 2, device=rates.device, dtype=torch.float32) - first
        ramp = (ramp / max(last - first, 0.001)).clamp(0, 1)
        return (1 - ramp) * rates + ramp * slow
    return rates

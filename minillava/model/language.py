"""The language model f_phi of section 4.1: a Llama decoder, written out.

The paper's Vicuna is a Llama. The same lines are Llama, Vicuna, Mistral and Qwen2: what differs between them is data in
`LanguageConfig`. New beside the vision tower: a token sees only what came before it, and positions are rotations.

Notable
- It takes *embeddings*, not ids: that is all that LLaVA needs to show pictures to a text-only model (llava.py).
- `forward` stops at the last norm; `head` is apart, so the vocabulary projection runs only where a token is wanted.
- A `Cache` (cache.py) keeps keys and values while decoding; batches are padded on the left, so that the newest token is
  always last.

Try it: `m = LanguageModel(LanguageConfig(100, 64, 128, 2, 4)); m.head(m(m.embed(torch.arange(7)[None])))`, (1, 7, 100).

B batch, T tokens, D width, H heads (keys and values may have fewer), S slots (cached and new tokens), V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from minillava.model.kernels import Normed, lowered
from minillava.model.rope import Rope, rotate, rotations
from minillava.model.vision import attend, init_weights


@dataclass(frozen=True)
class LanguageConfig:
    """The sizes of one language model. Vicuna-7B: LanguageConfig(32000, 4096, 11008, 32, 32)."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int | None = None  # None: as many as num_heads
    head_dim: int | None = None  # None: hidden_size / num_heads
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_position: int = 2048
    tie_embeddings: bool = False  # the head is the embedding table
    attention_bias: bool = False  # in q, k, v (Qwen2)
    rope: Rope | None = None  # None: plain rotations (rope.py)

    def __post_init__(self):
        if self.num_kv_heads is None:
            object.__setattr__(self, "num_kv_heads", self.num_heads)
        if self.head_dim is None:
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_heads)
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} heads cannot share {self.num_kv_heads} key-value heads evenly")
        if not (self.max_position >= 1 and self.rms_norm_eps >= 0 and self.rope_theta > 0):
            raise ValueError("max_position must be 1 or more, rms_norm_eps 0 or more and rope_theta above 0")
        if isinstance(self.rope, dict):  # read from JSON
            object.__setattr__(self, "rope", Rope(**self.rope))


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return self.weight * Normed.apply(x, self.eps)


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        D, d = config.hidden_size, config.head_dim
        self.head_dim = d
        self.q_proj = nn.Linear(D, config.num_heads * d, bias=config.attention_bias)
        self.k_proj = nn.Linear(D, config.num_kv_heads * d, bias=config.attention_bias)
        self.v_proj = nn.Linear(D, config.num_kv_heads * d, bias=config.attention_bias)
        self.o_proj = nn.Linear(config.num_heads * d, D, bias=False)

    def forward(self, x, cos, sin, allowed, cache, layer):  # x: (B, T, D)
        x = lowered(x)
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H, T, d) and two (B, H_kv, T, d)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is None:
            seen = attend(q, k, v, allowed, causal=allowed is None)  # (B, H, T, d)
        else:
            seen = cache.attend(layer, q, k, v, allowed)
        return self.o_proj(seen.transpose(1, 2).flatten(2))  # (B, T, D)


class MLP(nn.Module):
    """SwiGLU: one projection gates the other."""

    def __init__(self, config):
        super().__init__()
        D, wide = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(D, wide, bias=False)
        self.up_proj = nn.Linear(D, wide, bias=False)
        self.down_proj = nn.Linear(wide, D, bias=False)

    def forward(self, x):
        x = lowered(x)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x, *where, wanted=None):
        x = x + self.self_attn(self.input_layernorm(x), *where)
        x = x if wanted is None else x[wanted]  # (N, D): behind the last attention nobody looks at the others
        return x + self.mlp(self.post_attention_layernorm(x))


class LanguageModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.apply(init_weights)

    def embed(self, ids):
        """(...) token ids to (..., D)."""
        return self.embed_tokens(ids)

    def head(self, hidden):
        """(..., D) to (..., V): a score for every token of the vocabulary to come next."""
        return F.linear(hidden, self.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight)

    def forward(self, embeds, positions=None, mask=None, cache=None, wanted=None):
        """(B, T, D) embeddings to (B, T, D) hidden states after the last norm; always causal.

        wanted: (B, T), True at the N tokens whose states are asked for: then (N, D), and no more is computed.
        mask: (B, T), True at a real token - needed for left padding only, as no token sees the padding to its right -
            or (B, T, T), True where a token (row) may see another, for several samples packed in a row.
        positions: (B, T); None counts each row's real tokens from 0, behind those in the cache.
        cache: holds the tokens before these; gets these too.
        """
        B, T, _ = embeds.shape
        allowed = None  # plain causal
        if cache is not None or mask is not None:
            allowed, real = self._who_sees_whom(B, T, mask, cache, embeds.device)
            if positions is None:
                positions = (real.cumsum(1) - 1).clamp(min=0)[:, -T:]
                if cache is not None:
                    positions = positions + cache.before
        elif positions is None:
            positions = torch.arange(T, device=embeds.device)[None]
        cos, sin = rotations(positions, self.config)
        x = embeds
        for i, block in enumerate(self.layers):
            x = block(x, cos, sin, allowed, cache, i, wanted=wanted if i == len(self.layers) - 1 else None)
        if cache is not None:
            cache.length += T
        return self.norm(x)

    def _who_sees_whom(self, B, T, mask, cache, device):
        """(B, 1, T, S) True where a new token may see a slot, and (B, S) True at the slots that hold a real token."""
        start = 0 if cache is None else cache.length
        real = torch.ones(B, T, dtype=torch.bool, device=device) if mask is None or mask.dim() == 3 else mask.bool()
        if cache is not None:
            if start + T > cache.seen.shape[1]:
                raise ValueError(f"the cache has {cache.seen.shape[1]} slots, {start} in use: no room for {T} tokens")
            cache.seen[:, start : start + T] = real
            real = cache.seen[:, : start + T]
        slots = torch.arange(start + T, device=device)
        allowed = (slots <= slots[start:, None]) & real[:, None, :]  # (B, T, S)
        if mask is not None and mask.dim() == 3:
            allowed = allowed & mask
        # Padding sees itself: a row that sees nothing would be 0/0, and NaN spreads.
        return (allowed | (slots == slots[start:, None]))[:, None], real

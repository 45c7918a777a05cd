"""The language model f_phi of section 4.1: a Llama decoder (arXiv 2302.13971), written out.

The paper's Vicuna is a Llama. The same lines are Llama, Vicuna, Mistral and Qwen2: only their `LanguageConfig` differs.
New beside the vision tower: a token sees only what came before it, and positions are rotations (rope.py).

Notable
- It takes *embeddings*, not ids. LLaVA needs nothing else to show pictures to a text-only model (llava.py).
- `forward` stops at the last norm. `head` is apart, so that the vocabulary is scored only where a token is wanted.
- A `Cache` (cache.py) keeps keys and values while decoding. Batches are then padded on the left, so that the newest
  token is always last.

Try it: `m = LanguageModel(LanguageConfig(100, 64, 128, 2, 4)); m.head(m(m.embed(torch.arange(7)[None])))`, (1, 7, 100).

B batch, T tokens, D width, H heads (H_kv of keys and values), V vocabulary, L layers; d size of a head, S tokens to
look at (those in the cache and the new ones).
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from minillava.model import kernels
from minillava.model.rope import Rope, rotate, rotations
from minillava.model.vision import attend, init_weights


@dataclass(frozen=True)
class LanguageConfig:
    """The sizes of one language model. Vicuna-7B: LanguageConfig(32000, 4096, 11008, 32, 32).

    Raises ValueError for sizes that do not fit each other.
    """

    vocab_size: int  # V
    hidden_size: int  # D
    intermediate_size: int
    num_layers: int  # L
    num_heads: int  # H
    num_kv_heads: int | None = None  # H_kv; None: as many as num_heads
    head_dim: int | None = None  # d; None: hidden_size / num_heads
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    max_position: int = 2048  # tokens
    tie_embeddings: bool = False  # the head is the embedding table
    attention_bias: bool = False  # in q, k, v (Qwen2)
    rope: Rope | None = None  # None: plain rotations (rope.py)
    ends: tuple = ()  # the token ids that end an answer, whatever the template's stop

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
        object.__setattr__(self, "ends", tuple(self.ends))


@kernels.run_instead(kernels.normalise)
def normalise(x, eps):
    """x / sqrt(mean(x^2) + eps) over the last dimension, in the type of x."""
    wide = x.float()  # in half precision the squares would overflow
    return (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)).to(x.dtype)


class RMSNorm(nn.Module):
    """The normalised input times a learned gain (arXiv 1910.07467, Eq. 4): LayerNorm without mean and bias."""

    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):  # (..., D)
        return self.weight * normalise(x, self.eps)


class Attention(nn.Module):
    """Causal self-attention with rotated queries and keys; the heads may share keys and values."""

    def __init__(self, config):
        super().__init__()
        D, d = config.hidden_size, config.head_dim
        self.head_dim = d
        self.q_proj = nn.Linear(D, config.num_heads * d, bias=config.attention_bias)
        self.k_proj = nn.Linear(D, config.num_kv_heads * d, bias=config.attention_bias)
        self.v_proj = nn.Linear(D, config.num_kv_heads * d, bias=config.attention_bias)
        self.o_proj = nn.Linear(config.num_heads * d, D, bias=False)

    def forward(self, x, cos, sin, allowed, read):  # x: (B, T, D); read: how a cache is read, None without one
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H, T, d) and two (B, H_kv, T, d)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if read is None:
            seen = attend(q, k, v, allowed, causal=allowed is None)  # (B, H, T, d)
        else:
            seen = read(q, k, v, allowed)  # (B, H, T, d)
        return self.o_proj(seen.transpose(1, 2).flatten(2))  # (B, T, D)


class MLP(nn.Module):
    """SwiGLU: one projection gates the other (arXiv 2002.05202, Eq. 6)."""

    def __init__(self, config):
        super().__init__()
        D, wide = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(D, wide, bias=False)
        self.up_proj = nn.Linear(D, wide, bias=False)
        self.down_proj = nn.Linear(wide, D, bias=False)

    def forward(self, x):  # (B, T, D)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """A pre-norm transformer block: attention, then the MLP, each added to what came in."""

    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x, *where, wanted=None):  # (B, T, D); where: what `Attention` takes beside it
        x = x + self.self_attn(self.input_layernorm(x), *where)
        if wanted is not None:
            x = x.flatten(0, 1).index_select(0, wanted)  # (N, D): after the last attention, no token sees the others
        return x + self.mlp(self.post_attention_layernorm(x))


class LanguageModel(nn.Module):
    """f_phi. `model(model.embed(ids))` are hidden states (B, T, D), `model.head` of them scores (B, T, V)."""

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
        """Token ids (...) to embeddings (..., D)."""
        return self.embed_tokens(ids)

    def head(self, hidden):
        """Hidden states (..., D) to logits (..., V): a score for each token of the vocabulary to come next."""
        return F.linear(hidden, self.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight)

    def forward(self, embeds, positions=None, mask=None, cache=None, wanted=None):
        """Embeddings (B, T, D) to hidden states (B, T, D) after the last norm; always causal.

        positions: (B, T). None counts the real tokens of each row from 0, after those in the cache.
        mask: (B, T), True at real tokens. Padding on the left needs it; no token sees padding on its right.
        cache: a `Cache` with the tokens before these; it takes these in. Raises ValueError when it is full.
        wanted: (N,) places in the flattened (B, T). Then the result is their hidden states (N, D), and the last MLP,
            which needs no other token, is computed for them alone: a training step takes 0.9 times as long (LOG.md,
            2026-11-27).
        """
        T = embeds.shape[1]
        allowed = None  # plain causal
        if cache is not None or mask is not None:
            allowed, real = self._visible(embeds, mask, cache)  # (B, 1, T, S), (B, S)
            if positions is None:
                positions = (real.cumsum(1) - 1).clamp(min=0)[:, -T:]  # (B, T)
                if cache is not None:
                    positions = positions + cache.before
        elif positions is None:
            positions = torch.arange(T, device=embeds.device)[None]  # (1, T)
        cos, sin = rotations(positions, self.config)  # (B, 1, T, d) each
        x = embeds
        for layer, block in enumerate(self.layers):
            read = None if cache is None else partial(cache.attend, layer)
            last = layer == len(self.layers) - 1
            x = block(x, cos, sin, allowed, read, wanted=wanted if last else None)  # (B, T, D)
        if cache is not None:
            cache.length += T
        return self.norm(x)

    def _visible(self, embeds, mask, cache):
        """Where each new token may look, (B, 1, T, S), and which tokens are real, (B, S). Marks these in the cache."""
        B, T, _ = embeds.shape
        device, start = embeds.device, 0
        real = torch.ones(B, T, dtype=torch.bool, device=device) if mask is None else mask.bool()
        if cache is not None:
            start, slots = cache.length, cache.seen.shape[1]
            if start + T > slots:
                raise ValueError(f"the cache has {slots} slots, {start} in use: no room for {T} tokens")
            cache.seen[:, start : start + T] = real
            real = cache.seen[:, : start + T]  # (B, S)
        place = torch.arange(start + T, device=device)  # (S,)
        new = place[start:, None]  # (T, 1)
        allowed = (place <= new) & real[:, None, None]  # (B, 1, T, S)
        # Padding sees itself: softmax over nothing is 0 / 0, and NaN would spread.
        return allowed | (place == new), real

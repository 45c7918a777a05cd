"""The vision tower g(Xv) of Eq. 1: CLIP's vision transformer, written out.

Section 4.1: the paper uses CLIP ViT-L/14, frozen, and takes its *grid features*: one vector a patch, no class token,
read before the last layer. Table 8 compares that with the last layer: -2 is the penultimate entry of `hidden_states`.

Notable
- `forward` runs only the blocks that the chosen layer needs: with -2 the last block is never computed.
- Parameters carry the published names, so checkpoints map one to one; the misspelt `pre_layrnorm` is CLIP's own.
- `attend` is the one attention of the whole project; language.py uses it too.

Try it: `VisionTower(VisionConfig(32, 8, 64, 128, 4, 4))(torch.randn(2, 3, 32, 32)).shape` is (2, 16, 64).

Shapes everywhere in `model/`: B batch, P patches, T tokens, D width, H heads, V vocabulary, L layers.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class VisionConfig:
    """The sizes of one vision tower. ViT-L/14 at 224 px: VisionConfig(224, 14, 1024, 4096, 24, 16)."""

    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    layer_norm_eps: float = 1e-5

    def __post_init__(self):
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads")

    @property
    def num_patches(self):
        """P: 256 for ViT-L/14 at 224 px, the 256 visual tokens of the paper."""
        return (self.image_size // self.patch_size) ** 2


def attend(q, k, v, mask=None, causal=False):
    """softmax(q k' / sqrt(d)) v. q: (B, H, T, d); k, v: (B, H_kv, S, d), H/H_kv heads share one; returns (B, H, T, d).

    mask: True where a row may look, broadcast to (B, H, T, S); every row must see something. None: all see all,
    or with `causal` (T = S) each sees itself and what came before.
    """
    B, H, T, d = q.shape
    if H > k.shape[1]:
        if T == 1:  # decoding: the heads of a group stand where tokens stand, so that no key is copied
            return attend(q.view(B, k.shape[1], -1, d), k, v, mask).view(B, H, 1, d)
        k, v = (x.repeat_interleave(H // x.shape[1], dim=1) for x in (k, v))
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not q.requires_grad:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    # The fused kernel's backward is slow in bfloat16 on CPU; in float32 it is the quick way. Forward + backward at
    # B=64, H=4, T=200, d=32, one thread of an EPYC, torch 2.13, in ms (causal / no mask):
    # bfloat16 fused 99 / 111, written out 55 / 35; float32 fused 72 / 71, written out 203 / 151.
    S = k.shape[2]
    if causal:
        mask = torch.ones(T, S, dtype=torch.bool).tril()
    if mask is None:
        scores = (q * d**-0.5) @ k.transpose(-2, -1)  # (B, H, T, S)
    else:  # added inside the product: cheaper than to fill the scores afterwards
        hidden = torch.zeros((), dtype=q.dtype).masked_fill(~mask, -math.inf).expand(B, H, T, S).reshape(-1, T, S)
        scores = torch.baddbmm(hidden, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=d**-0.5)
    return scores.view(B, H, T, S).softmax(dim=-1) @ v


class Attention(nn.Module):
    """Every patch looks at every patch: no mask, biases in all four projections."""

    def __init__(self, config):
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x):  # (B, P+1, D)
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, P+1, D/H)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(q, k, v).transpose(1, 2).flatten(2))  # (B, P+1, D)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))  # quick-GELU, what CLIP was trained with


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x):  # (B, P+1, D)
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    """Pixels to P patch vectors with the class token in front, plus learned positions."""

    def __init__(self, config):
        super().__init__()
        D, size = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.randn(D) * 0.02)
        self.patch_embedding = nn.Conv2d(3, D, kernel_size=size, stride=size, bias=False)
        self.position_embedding = nn.Embedding(config.num_patches + 1, D)

    def forward(self, pixels):  # (B, 3, S, S)
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)  # (B, P, D), row by row as one reads
        first = self.class_embedding.to(patches.dtype).expand(len(pixels), 1, -1)  # (B, 1, D)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight  # (B, P+1, D)


class VisionTower(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.apply(init_weights)

    def hidden_states(self, pixels, upto=None):
        """What goes into block 1, then what each block puts out: 1 + L tensors (B, P+1, D).

        pixels: (B, 3, S, S), already normalised. upto: how many blocks to run; None runs all L.
        """
        size = self.config.image_size
        if pixels.dim() != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(f"pixels must be (B, 3, {size}, {size}) for this vision tower, not {tuple(pixels.shape)}")
        states = [self.pre_layrnorm(self.embeddings(pixels))]
        for block in self.layers[:upto]:
            states.append(block(states[-1]))
        return states

    def forward(self, pixels, layer=-2):
        """Zv = g(Xv) of Eq. 1: (B, P, D), the patches of entry `layer` of `hidden_states`, class token dropped."""
        count = self.config.num_layers + 1
        if not -count <= layer < count:
            raise ValueError(f"layer {layer}: this vision tower has hidden states {-count} to {count - 1}")
        return self.hidden_states(pixels, upto=layer % count)[-1][:, 1:]

    def pooled(self, pixels):
        """(B, D): the class token after the last block, normed. CLIP compares it with captions; LLaVA does not."""
        return self.post_layernorm(self.hidden_states(pixels)[-1][:, 0])


def init_weights(module):
    """Normal, 0.02, biases zero: for towers trained from nothing. What is loaded from a checkpoint overwrites it."""
    if isinstance(module, (nn.Linear, nn.Embedding, nn.Conv2d)):
        nn.init.normal_(module.weight, std=0.02)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)

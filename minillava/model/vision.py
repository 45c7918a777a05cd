"""The vision tower g(Xv) of Eq. 1: CLIP's vision transformer, written out.

Section 4.1: the paper uses CLIP ViT-L/14 (arXiv 2103.00020), frozen, and reads its *grid features* before the last
layer: one vector per patch, without the class token. Table 8 compares that layer with the last one.

Notable
- `forward` runs only the blocks that the chosen layer needs: with layer -2 the last block is never computed.
- Parameters carry the published names, so checkpoints map one to one; the misspelt `pre_layrnorm` is CLIP's own.
- `attend` is the one attention of the project; language.py uses it too.

Try it: `VisionTower(VisionConfig(32, 8, 64, 128, 4, 4))(torch.randn(2, 3, 32, 32)).shape` is (2, 16, 64).

Shapes in all of `model/`: B batch, P patches, T tokens, D width, H heads, V vocabulary, L layers.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from minillava.model import kernels


@dataclass(frozen=True)
class VisionConfig:
    """The sizes of one vision tower. ViT-L/14 at 224 pixels: VisionConfig(224, 14, 1024, 4096, 24, 16).

    Raises ValueError for an image that does not divide into patches, or a width that does not divide into heads.
    """

    image_size: int  # pixels per side
    patch_size: int  # pixels per side
    hidden_size: int  # D
    intermediate_size: int
    num_layers: int  # L
    num_heads: int  # H
    layer_norm_eps: float = 1e-5

    def __post_init__(self):
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads")

    @property
    def num_patches(self):
        """P. ViT-L/14 at 224 pixels has 256 patches, the 256 visual tokens of the paper."""
        return (self.image_size // self.patch_size) ** 2


@kernels.run_instead(kernels.attend)
def attend(q, k, v, mask=None, causal=False):
    """softmax(q k' / sqrt(d)) v: Eq. 1 of "Attention Is All You Need" (arXiv 1706.03762).

    q: (B, H, T, d). k, v: (B, H_kv, S, d), where H / H_kv query heads share one key head (arXiv 2305.13245).
    mask: True where a row may look, broadcast to (B, H, T, S); each row must see something. None: each sees all S.
    causal: each row sees itself and what came before it; for T = S, without a mask.
    Returns (B, H, T, d).
    """
    H, T, d = q.shape[1:]
    k, v = (x.repeat_interleave(H // x.shape[1], dim=1) for x in (k, v))  # (B, H, S, d)
    scores = q @ k.transpose(-2, -1) / math.sqrt(d)  # (B, H, T, S)
    if causal:
        mask = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1) @ v


class Attention(nn.Module):
    """Self-attention: every patch looks at every patch. All four projections have a bias."""

    def __init__(self, config):
        super().__init__()
        D = config.hidden_size
        self.num_heads = config.num_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x):  # (B, P+1, D)
        q, k, v = (
            project(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, P+1, d)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(q, k, v).transpose(1, 2).flatten(2))  # (B, P+1, D)


class MLP(nn.Module):
    """Two layers, with quick-GELU between them: CLIP was trained with it."""

    def __init__(self, config):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x):  # (B, P+1, D)
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class Block(nn.Module):
    """A pre-norm transformer block: attention, then the MLP, each added to what came in."""

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
    """Pixels to P patch vectors behind the class token, plus learned positions (ViT, arXiv 2010.11929, Eq. 1)."""

    def __init__(self, config):
        super().__init__()
        D, size = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.randn(D) * 0.02)
        self.patch_embedding = nn.Conv2d(3, D, kernel_size=size, stride=size, bias=False)
        self.position_embedding = nn.Embedding(config.num_patches + 1, D)

    def forward(self, pixels):  # (B, 3, image_size, image_size)
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)  # (B, P, D), in reading order
        first = self.class_embedding.to(patches.dtype).expand(len(pixels), 1, -1)  # (B, 1, D)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight  # (B, P+1, D)


class VisionTower(nn.Module):
    """g of Eq. 1. `VisionTower(config)(pixels)` are the grid features Zv (B, P, D)."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.apply(init_weights)

    def hidden_states(self, pixels, upto=None):
        """The input of block 1, then the output of each block: 1 + L tensors (B, P+1, D).

        pixels: (B, 3, image_size, image_size), normalised. upto: how many blocks to run; None runs all L.
        Raises ValueError for pixels of another shape.
        """
        size = self.config.image_size
        if pixels.dim() != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(f"pixels must be (B, 3, {size}, {size}) for this vision tower, not {tuple(pixels.shape)}")
        states = [self.pre_layrnorm(self.embeddings(pixels))]
        for block in self.layers[:upto]:
            states.append(block(states[-1]))
        return states

    def forward(self, pixels, layer=-2):
        """Zv = g(Xv) of Eq. 1: entry `layer` of `hidden_states` without the class token, (B, P, D).

        -2, the default, is the layer before the last (Table 8). Raises ValueError for a layer that does not exist.
        """
        count = self.config.num_layers + 1
        if not -count <= layer < count:
            raise ValueError(f"layer {layer}: this vision tower has hidden states {-count} to {count - 1}")
        return self.hidden_states(pixels, upto=layer % count)[-1][:, 1:]

    def pooled(self, pixels):
        """The class token after the last block, normed, (B, D): CLIP compares it with captions, LLaVA does not."""
        return self.post_layernorm(self.hidden_states(pixels)[-1][:, 0])


def init_weights(module):
    """Weights normal with deviation 0.02, biases 0: for towers trained from scratch. A checkpoint overwrites them."""
    if isinstance(module, (nn.Linear, nn.Embedding, nn.Conv2d)):
        nn.init.normal_(module.weight, std=0.02)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)

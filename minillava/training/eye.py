"""Make the stand-in for CLIP: a small CLIP trained on pictures and captions of the picture book (contrastive, as CLIP was).

Notable: the vision tower is the project's own (`model/vision.py`), the text tower is `transformers`'; only the first is
used after. Half of every batch are twins (`compose.twin`): scenes that differ in one colour or in left and right, so
that the class token cannot get by without looking where and at what.

    python -m minillava.weights --only eye
"""

import random
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from minillava.data.images import pixels
from minillava.data.tokenizer import train_tokenizer
from minillava.model.vision import VisionConfig, VisionTower
from minillava.scenes.captions import captions
from minillava.scenes.compose import compose, scenes, twin
from minillava.scenes.draw import draw
from minillava.training.loop import Ahead, bar, compute_dtype, fit, follow
from minillava.training.optim import muon

EYE = VisionConfig(image_size=96, patch_size=12, hidden_size=128, intermediate_size=512, num_layers=4, num_heads=4)
MEAN, STD = (0.70, 0.74, 0.75), (0.26, 0.22, 0.25)  # of the training pictures
SHARED = 128  # width of the space in which pictures and captions are compared
PAIRS = 64  # scenes a batch; as many twins


class Clip(nn.Module):
    """CLIP: both towers, their projections into one space, and the temperature; named as the published checkpoints are."""

    def __init__(self, config: VisionConfig, text: CLIPTextConfig):
        super().__init__()
        self.vision_model = VisionTower(config)
        self.text_model = CLIPTextModel._from_config(
            text, attn_implementation="eager"
        )  # written out: quick in bf16 on a CPU
        self.visual_projection = nn.Linear(config.hidden_size, SHARED, bias=False)
        self.text_projection = nn.Linear(text.hidden_size, SHARED, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))  # ln(1 / 0.07), CLIP's start

    def forward(self, pixels, ids, mask):
        """The symmetric contrastive loss of a batch: (B, 3, S, S) pictures against (B, T) captions."""
        seen = F.normalize(self.visual_projection(self.vision_model.pooled(pixels)).float(), dim=-1)  # (B, SHARED)
        said = F.normalize(
            self.text_projection(self.text_model(input_ids=ids, attention_mask=mask).pooler_output).float(), dim=-1
        )
        with torch.autocast(seen.device.type, enabled=False):
            scores = self.logit_scale.exp().clamp(max=100) * seen @ said.T  # (B, B)
        same = (ids[:, None] == ids).all(dim=-1).float()  # two identical captions are both right
        target = same / same.sum(dim=1, keepdim=True)
        return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def batch(step: int, seed: int, tokenizer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures (2 * PAIRS, 3, S, S) and caption ids, mask (2 * PAIRS, T) of one step; half the captions are the fullest ones."""
    rng = random.Random(f"eye {seed} {step}")
    chosen = [compose("train", 1_000_000 * seed + step * PAIRS + i) for i in range(PAIRS)]
    chosen += [twin(scene, rng) for scene in chosen]
    full = rng.random() < 0.6
    texts = [max(captions(s), key=len) if full else rng.choice(captions(s)) for s in chosen]
    coded = tokenizer([t + tokenizer.eos_token for t in texts], padding=True, return_tensors="pt")
    views = pixels([draw(s, EYE.image_size) for s in chosen], EYE.image_size, MEAN, STD)
    return views, coded.input_ids, coded.attention_mask


def make(seed: int):
    """The untrained CLIP and its tokenizer."""
    tokenizer = train_tokenizer((c for s in scenes("train", 4000) for c in captions(s)), 512)
    torch.manual_seed(seed)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=tokenizer.eos_token_id, pad_token_id=0, projection_dim=SHARED,
    )  # fmt: skip
    return Clip(EYE, text), tokenizer


def train(folder: Path, steps: int, seed: int = 0, lr: float = 2e-3) -> tuple[Clip, object]:
    """Train the stand-in; goes on where `folder` stands."""
    clip, tokenizer = make(seed)
    optimizer = muon([clip], lr=lr, lr_adam=lr)
    dtype = compute_dtype()

    batches = Ahead(partial(batch, seed=seed, tokenizer=tokenizer), steps)

    def loss_at(step):
        views, ids, mask = batches(step)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return clip(views, ids, mask)

    with bar(steps, "step", "eye") as progress:
        fit(
            clip,
            optimizer,
            loss_at,
            steps,
            folder,
            {"stand-in": "eye", "seed": seed, "steps": steps, "lr": lr},
            follow(progress),
        )
    return clip, tokenizer

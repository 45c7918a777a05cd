"""Make the stand-in for CLIP: a small CLIP trained on pictures and captions of the picture book (contrastive, as CLIP was).

Notable: the vision tower is the project's own (`model/vision.py`), the text tower is `transformers`'; only the first is
used after. Half of every batch are twins (`compose.twin`): scenes that differ in one colour or in left and right. CLIP
saw 400 million pairs; here every patch is a pair too: it is compared with what a person would say of the thing it
shows ("a red car on the left"), which teaches kinds in a tenth of the steps (LOG.md). A quarter of the pictures are
of the other style: like CLIP, the vision tower has seen more of the world than the instruction data will show.

    python -m minillava.standins.weights --only vision tower
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from minillava.data.images import pixels
from minillava.data.tokenizer import train_tokenizer
from minillava.machine import bar, compute_dtype, follow
from minillava.model.vision import VisionConfig, VisionTower
from minillava.scenes.captions import SIDE, captions, noun
from minillava.scenes.compose import compose, scenes, twin
from minillava.scenes.draw import cover, draw
from minillava.scenes.world import Thing, a
from minillava.training.evaluation import with_evaluation
from minillava.training.loop import fit
from minillava.training.optim import muon
from minillava.training.parallel import Prefetch

TINY_CLIP = VisionConfig(
    image_size=96, patch_size=12, hidden_size=128, intermediate_size=512, num_layers=4, num_heads=4
)
MEAN, STD = (0.70, 0.74, 0.75), (0.26, 0.22, 0.25)  # of the training pictures
SHARED = 128  # width of the space in which pictures and captions are compared
PAIRS = 64  # scenes a batch; as many twins
STICKERS = 0.25  # the share of pictures in the other style


def contrast(scores: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """CLIP's loss: each picture is to find its caption (rows), each caption its picture (columns); the mean of the two.

    scores: (B, B), pictures by captions. same: (B, B), 1 where a caption is right for a picture, else 0; symmetric.
    """
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


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

    def say(self, ids, mask):
        """(N, T) captions to (N, SHARED), of length 1."""
        said = self.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return F.normalize(self.text_projection(said).float(), dim=-1)

    def forward(self, pixels, ids, mask, names, names_mask, at, which):
        """The loss of a batch: CLIP's symmetric one over whole pictures, plus the one over patches.

        (B, 3, S, S) pictures and (B, T) captions; (N, T) names of things, and of M patches the place `at` (M,) among
        the B * P patches and `which` (M,) of the N names is its own.
        """
        states = self.vision_model.hidden_states(pixels)[-1]  # (B, 1 + P, D)
        seen = F.normalize(self.visual_projection(self.vision_model.post_layernorm(states)).float(), dim=-1)
        said, named = self.say(ids, mask), self.say(names, names_mask)
        with torch.autocast(seen.device.type, enabled=False):
            scale = self.logit_scale.exp().clamp(max=100)
            scores = scale * seen[:, 0] @ said.T  # (B, B)
            patches = scale * seen[:, 1:].flatten(0, 1)[at] @ named.T  # (M, N)
        same = (ids[:, None] == ids).all(dim=-1).float()  # two identical captions are both right
        return contrast(scores, same) + F.cross_entropy(patches, which)


def name(thing: Thing) -> str:
    """What a patch of the thing is compared with: `a person in red waving on the left`."""
    return " ".join(filter(None, (a(noun(thing)), thing.doing, SIDE[thing.side])))


def batch(step: int, seed: int, tokenizer, vision_tower: VisionConfig = TINY_CLIP) -> tuple[torch.Tensor, ...]:
    """What `Clip.forward` takes, of one step: 2 * PAIRS pictures; half the captions are the fullest ones.

    vision tower: whose pictures and patches they are. A text longer than its tokenizer allows (CLIP's: 77 tokens) is cut.
    """
    size, grid = vision_tower.image_size, vision_tower.image_size // vision_tower.patch_size
    rng = random.Random(f"eye {seed} {step}")
    chosen = [compose("train", 1_000_000 * seed + step * PAIRS + i) for i in range(PAIRS)]
    chosen += [twin(scene, rng) for scene in chosen]
    full = rng.random() < 0.6
    texts = [max(captions(s), key=len) if full else rng.choice(captions(s)) for s in chosen]
    drawn = [draw(replace(s, style="sticker") if rng.random() < STICKERS else s, size) for s in chosen]
    names, at, which = {}, [], []
    for row, scene in enumerate(chosen):
        for cell, i in enumerate(cover(scene, grid)):
            if i >= 0:
                at.append(row * grid * grid + cell)
                which.append(names.setdefault(name(scene.things[i]), len(names)))

    def coded(some):
        most = min(tokenizer.model_max_length, 128)
        out = tokenizer(
            [text + tokenizer.eos_token for text in some],
            padding=True,
            truncation=True,
            max_length=most,
            return_tensors="pt",
        )
        return out.input_ids, out.attention_mask

    views = pixels(drawn, size, MEAN, STD)
    return views, *coded(texts), *coded(names), torch.tensor(at), torch.tensor(which)


def make(seed: int):
    """The untrained CLIP and its tokenizer."""
    tokenizer = train_tokenizer((c for s in scenes("train", 4000) for c in captions(s)), 512)
    torch.manual_seed(seed)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=tokenizer.eos_token_id, pad_token_id=0, projection_dim=SHARED,
    )  # fmt: skip
    return Clip(TINY_CLIP, text), tokenizer


def train(folder: Path, steps: int, measure: Callable[[Clip], dict], seed: int = 0, lr: float = 2e-3):
    """Train the stand-in, measured on the way (gates.jsonl); goes on where `folder` stands. Returns it and its tokenizer."""
    clip, tokenizer = make(seed)
    optimizer = muon([clip], lr=lr, lr_adam=lr)
    dtype = compute_dtype("cpu")

    batches = Prefetch(partial(batch, seed=seed, tokenizer=tokenizer), steps)

    def loss_at(step):
        parts = batches(step)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return clip(*parts)

    recipe = {"stand-in": "vision_tower", "seed": seed, "steps": steps, "lr": lr}
    with bar(steps, "step", "vision_tower") as progress:
        watch = with_evaluation(follow(progress), clip, lambda: measure(clip), folder)
        fit(clip, optimizer, loss_at, steps, folder, recipe, watch)
    return clip, tokenizer

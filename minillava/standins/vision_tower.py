"""Train the stand-in for CLIP: a small CLIP, contrastive pre-training on pictures and captions of the picture book.

The vision tower is the project's own (`model/vision.py`), the text tower is from `transformers`; only the first is used
afterwards. Half of every batch are twins (`compose.twin`), hard negatives that differ in one colour or in left and
right. A quarter of the pictures have the other style: like CLIP, the vision tower sees more of the world than the
instruction data shows.

Notable: CLIP saw 400 million pairs. Here every patch is paired with text too, with what a person would say of the thing
that it shows ("a red car on the left"). This teaches kinds in a tenth of the steps (LOG.md).

    python -m minillava.standins.weights --only vision_tower
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

from minillava.data.images import Preparation, pixels
from minillava.data.tokenizer import train_tokenizer
from minillava.machine import compute_dtype, loss_reporter, progress_bar
from minillava.model.vision import VisionConfig, VisionTower
from minillava.scenes.captions import SIDE_PHRASES, captions, noun
from minillava.scenes.compose import compose, scenes, twin
from minillava.scenes.draw import draw, topmost_things
from minillava.scenes.world import Thing, a
from minillava.standins.evaluation import with_evaluation
from minillava.training.loop import fit
from minillava.training.optim import muon
from minillava.training.parallel import Prefetch

TINY_CLIP = VisionConfig(
    image_size=96, patch_size=12, hidden_size=128, intermediate_size=512, num_layers=4, num_heads=4
)
MEAN, STD = (0.70, 0.74, 0.75), (0.26, 0.22, 0.25)  # of the training pictures
SEED, LR = 0, 2e-3
PROJECTION_DIM = 128  # width of the space in which pictures and captions are compared
SCENES_PER_BATCH = 64  # and as many twins
STICKER_SHARE = 0.25  # of the pictures, in the other style


def contrastive_loss(scores: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """CLIP's loss: the mean of the cross-entropies of finding each picture's caption and each caption's picture.

    scores: (B, B), one row per picture, one column per caption. same: (B, B), symmetric, 1 where a caption fits a
    picture, else 0.
    """
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


class Clip(nn.Module):
    """CLIP: both towers, their projections into one space, and the temperature, named as in published checkpoints."""

    def __init__(self, config: VisionConfig, text: CLIPTextConfig):
        super().__init__()
        self.vision_model = VisionTower(config)
        self.text_model = CLIPTextModel._from_config(text, attn_implementation="eager")  # fast in bf16 on a CPU
        self.visual_projection = nn.Linear(config.hidden_size, PROJECTION_DIM, bias=False)
        self.text_projection = nn.Linear(text.hidden_size, PROJECTION_DIM, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))  # ln(1 / 0.07), CLIP's start

    def embed_text(self, ids, mask):
        """(N, T) ids of captions to (N, PROJECTION_DIM) vectors of length 1."""
        pooled = self.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return F.normalize(self.text_projection(pooled).float(), dim=-1)

    def forward(self, pixels, ids, mask, names, names_mask, at, which):
        """The loss of a batch: CLIP's symmetric loss over whole pictures, plus the loss over patches.

        pixels: (B, 3, S, S). ids, mask: (B, T) captions. names, names_mask: (N, T) texts for things. at, which: (M,)
        indices of the patches that show a thing, among all B * P, and of their texts among the N.
        """
        states = self.vision_model.hidden_states(pixels)[-1]  # (B, 1 + P, D)
        rows = F.normalize(self.visual_projection(self.vision_model.post_layernorm(states)).float(), dim=-1)
        texts, things = self.embed_text(ids, mask), self.embed_text(names, names_mask)
        with torch.autocast(rows.device.type, enabled=False):
            scale = self.logit_scale.exp().clamp(max=100)
            scores = scale * rows[:, 0] @ texts.T  # (B, B)
            patches = scale * rows[:, 1:].flatten(0, 1)[at] @ things.T  # (M, N)
        same = (ids[:, None] == ids).all(dim=-1).float()  # two identical captions both fit
        return contrastive_loss(scores, same) + F.cross_entropy(patches, which)


def thing_text(thing: Thing) -> str:
    """The text that a patch of the thing is compared with: `a person in red waving on the left`."""
    return " ".join(filter(None, (a(noun(thing)), thing.doing, SIDE_PHRASES[thing.side])))


def make_batch(step: int, seed: int, tokenizer, vision_tower: VisionConfig = TINY_CLIP) -> tuple[torch.Tensor, ...]:
    """The arguments of `Clip.forward` for one step: 2 * SCENES_PER_BATCH pictures, their captions and their patches.

    In three steps of five every caption is the longest of its scene's five. vision_tower: sets the sizes of pictures
    and patches. A text that is longer than the tokenizer allows (CLIP's: 77 tokens) is cut.
    """
    size, grid = vision_tower.image_size, vision_tower.image_size // vision_tower.patch_size
    rng = random.Random(f"eye {seed} {step}")
    chosen = [compose("train", 1_000_000 * seed + step * SCENES_PER_BATCH + i) for i in range(SCENES_PER_BATCH)]
    chosen += [twin(scene, rng) for scene in chosen]
    longest = rng.random() < 0.6
    texts = [max(captions(s), key=len) if longest else rng.choice(captions(s)) for s in chosen]
    drawn = [draw(replace(s, style="sticker") if rng.random() < STICKER_SHARE else s, size) for s in chosen]
    names, at, which = {}, [], []
    for row, scene in enumerate(chosen):
        for cell, i in enumerate(topmost_things(scene, grid)):
            if i >= 0:
                at.append(row * grid * grid + cell)
                which.append(names.setdefault(thing_text(scene.things[i]), len(names)))

    def encoded(some):
        ended, most = [text + tokenizer.eos_token for text in some], min(tokenizer.model_max_length, 128)
        out = tokenizer(ended, padding=True, truncation=True, max_length=most, return_tensors="pt")
        return out.input_ids, out.attention_mask

    return (
        pixels(drawn, Preparation(size, MEAN, STD)),
        *encoded(texts),
        *encoded(names),
        torch.tensor(at),
        torch.tensor(which),
    )


def untrained():
    """The untrained CLIP and its tokenizer.

    As in CLIP the end mark has the highest id. With end mark 2 `transformers` would read a caption at its highest id,
    often in the middle (exercise 06).
    """
    tokenizer = train_tokenizer((c for s in scenes("train", 4000) for c in captions(s)), 511)
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    torch.manual_seed(SEED)
    sizes = dict(hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4)
    tokens = dict(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    text = CLIPTextConfig(**sizes, **tokens, max_position_embeddings=128, projection_dim=PROJECTION_DIM)
    return Clip(TINY_CLIP, text), tokenizer


def train(folder: Path, steps: int, measure: Callable[[Clip], dict]):
    """Train CLIP in `folder`, or resume there. Returns it and its tokenizer. measure: figures for gates.jsonl."""
    clip, tokenizer = untrained()
    optimizer, dtype = muon([clip], lr=LR, lr_adam=LR), compute_dtype("cpu")
    batches = Prefetch(partial(make_batch, seed=SEED, tokenizer=tokenizer), steps)

    def loss_at(step):
        parts = batches(step)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return clip(*parts)

    recipe = {"stand-in": "vision_tower", "seed": SEED, "steps": steps, "lr": LR}
    with progress_bar(steps, "step", "vision_tower") as progress:
        watch = with_evaluation(loss_reporter(progress), clip, lambda: measure(clip), folder)
        fit(clip, optimizer, loss_at, steps, folder, recipe, watch)
    return clip, tokenizer

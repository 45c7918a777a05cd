"""LLaVA itself (section 4.1, Fig. 1): a vision tower, a matrix W and a language model.

    Zv = g(Xv)       vision_tower    frozen always       `features`
    Hv = W Zv        projector       stages 1 and 2      Eq. 1, inside `splice`
    Xa = f(Hv, Hq)   language_model  stage 2             `loss`, Eq. 3

Notable
- A picture is `IMAGE` once among the token ids; its P projected patches take that place: T ids become T - 1 + P rows.
- `splice` is the whole trick: to the language model a patch is one more token embedding.
- `loss` runs the last MLP and the vocabulary only where there is a label: the answers and the stop after them (Table 2,
  green).
- What is wrong with a batch is an error that names the sample, before anything is computed.

Try it: `model.splice(torch.tensor([5, IMAGE, 6]), [model.features(pixels)[0]])`.

B batch, P patches, T tokens (T' after splicing), D width of the language model, Dv of the vision tower, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from minillava.data import IGNORE, IMAGE
from minillava.errors import UserError
from minillava.model.kernels import _widened, few_sizes
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.model.vision import VisionConfig, VisionTower

STAGES = {1: ("projector",), 2: ("projector", "language_model")}  # section 4.2: theta = W, then theta = {W, phi}


class SpliceError(UserError):
    """A sample cannot become one sequence; the message names the sample."""


@dataclass(frozen=True)
class LlavaConfig:
    vision: VisionConfig
    language: LanguageConfig
    select_layer: int = -2  # Table 8: the features before the last layer are better
    projector: str = "linear"  # the paper's W; "mlp2x_gelu" is LLaVA-1.5's


@dataclass
class Batch:
    """B samples of any lengths. ids and labels: (T,) each, features: a list of (P, Dv) each, in reading order.

    names: what an error calls each, the ids of their records; None: their numbers.
    """

    ids: list
    labels: list
    features: list
    names: list | None = None


class Llava(nn.Module):
    def __init__(self, config, vision_tower=None, language_model=None):
        """Parts already loaded are used as they are; a part left out starts from random weights."""
        super().__init__()
        self.config = config
        self.vision_tower = vision_tower or VisionTower(config.vision)
        self.language_model = language_model or LanguageModel(config.language)
        if self.vision_tower.config != config.vision or self.language_model.config != config.language:
            raise ValueError("a part has other sizes than the LlavaConfig; build it from the parts' own configs")
        Dv, D = config.vision.hidden_size, config.language.hidden_size
        if config.projector == "linear":
            self.projector = nn.Linear(Dv, D)  # W of Eq. 1, with a bias as in the authors' code
        elif config.projector == "mlp2x_gelu":
            self.projector = nn.Sequential(nn.Linear(Dv, D), nn.GELU(), nn.Linear(D, D))
        else:
            raise ValueError(f"projector {config.projector!r}: 'linear' or 'mlp2x_gelu'")
        self.vision_tower.requires_grad_(False)

    @torch.no_grad()
    def features(self, pixels):
        """Zv = g(Xv): (B, 3, S, S) normalised pixels to (B, P, Dv). The vision tower is frozen, so these can be kept."""
        return self.vision_tower(pixels, layer=self.config.select_layer)

    def splice(self, ids, features):
        """Put each picture's projected patches where its image token stands (Fig. 1: Hv beside Hq).

        ids: (T,) token ids of one sample, `IMAGE` once per picture. features: one (P, Dv) per picture, in order.
        Returns embeddings (T', D) and position map (T',): the index into `ids` that each row came from, -1 for a patch.
        """
        embeds, source, _ = self.splice_batch([ids], [features])
        return embeds[0], source[0]

    def splice_batch(self, ids, features, labels=None, pad="right", names=None):
        """Splice B samples at once: one look-up for all text, one projection for all pictures, each row to its slot.

        Returns embeddings (B, T', D), zero at padding; position map (B, T'), -1 for a patch and at padding;
        and mask (B, T'), True at a real row. All samples go through `check` first, with their labels where given, under
        their `names`, or else numbers.
        """
        samples = zip(ids, features, labels or [None] * len(ids), names or range(len(ids)), strict=True)
        lengths = [self.check(*sample) for sample in samples]
        B, longest = len(lengths), max(lengths)
        text_at, patch_at, source = [], [torch.empty(0, dtype=torch.long)], torch.full((B * longest,), -1)
        for row, (tokens, pictures, length) in enumerate(zip(ids, features, lengths, strict=True)):
            tokens = tokens.cpu()
            start = row * longest + (longest - length if pad == "left" else 0)
            size = torch.ones_like(tokens)  # (T,) how many rows each id becomes
            size[tokens == IMAGE] = torch.tensor([len(picture) for picture in pictures], dtype=torch.long)
            at = start + size.cumsum(0) - size  # (T,) the slot where each id begins
            words = (tokens != IMAGE).nonzero().flatten()
            text_at.append(at[words])
            source[at[words]] = words
            for first, picture in zip(at[tokens == IMAGE].tolist(), pictures, strict=True):
                patch_at.append(torch.arange(first, first + len(picture)))
        weight = self.language_model.embed_tokens.weight
        every = torch.cat(ids).to(weight.device)
        text = self.language_model.embed(every[every != IMAGE])  # (all words, D)
        W = next(self.projector.parameters())  # may be float32 beside a frozen language model in bfloat16
        pictures = [picture.to(W.device, W.dtype) for sample in features for picture in sample]
        if not pictures:  # all text: W stays in the graph with gradient 0, where DDP waits for it
            pictures = [W.new_empty(0, self.config.vision.hidden_size)]
        patches = self.projector(torch.cat(pictures))  # (all patches, D), Eq. 1: Hv = W Zv
        embeds = text.new_zeros(B * longest, weight.shape[1])
        embeds = embeds.index_copy(0, torch.cat(text_at).to(weight.device), text)
        embeds = embeds.index_copy(0, torch.cat(patch_at).to(weight.device), patches.to(text.dtype))
        slots, lengths = torch.arange(longest), torch.tensor(lengths)[:, None]
        mask = slots >= longest - lengths if pad == "left" else slots < lengths
        return embeds.view(B, longest, -1), source.view(B, longest).to(weight.device), mask.to(weight.device)

    def check(self, ids, features, labels=None, name=0):
        """The length T' of one sample after splicing, or a SpliceError that says what is wrong with sample `name`."""
        vision, language = self.config.vision, self.config.language
        Dv, V, context = vision.hidden_size, language.vocab_size, language.max_position
        count = int((ids == IMAGE).sum())
        if len(ids) == 0:
            raise SpliceError(f"sample {name}: no tokens")
        if count != len(features):
            raise SpliceError(
                f"sample {name}: {count} image tokens but {len(features)} pictures; give one picture for each <image>, and "
                "where a text was shortened, keep its <image>"
            )
        for picture in features:
            if picture.dim() != 2 or picture.shape[1] != Dv:
                raise SpliceError(f"sample {name}: a picture's features are {tuple(picture.shape)}, not (P, {Dv})")
        outside = ids[((ids < 0) | (ids >= V)) & (ids != IMAGE)]
        if len(outside):
            raise SpliceError(
                f"sample {name}: token id {int(outside[0])} is outside the vocabulary of {V}; "
                "use the tokenizer that belongs to these weights"
            )
        length = len(ids) - count + sum(len(picture) for picture in features)
        if length > context:
            raise SpliceError(
                f"sample {name}: {length} tokens after splicing, the language model reads {context}; shorten its text, "
                "or give fewer pictures or turns"
            )
        if labels is None:
            return length
        if labels.shape != ids.shape:
            raise SpliceError(f"sample {name}: {len(ids)} ids but {len(labels)} labels")
        kept = labels[labels != IGNORE]
        if ((kept < 0) | (kept >= V)).any() or (labels[ids == IMAGE] != IGNORE).any():
            raise SpliceError(f"sample {name}: a label is outside the vocabulary of {V}, or stands on an image token")
        if not (labels[1:] != IGNORE).any():  # nothing stands before the first token, so nothing predicts it
            raise SpliceError(f"sample {name}: no supervised token, so it would teach nothing")
        return length

    def loss(self, batch, packed=False):
        """Eq. 3: the mean of -log p(x_i | Xv, X_instruct, X_a before i) over supervised tokens, and their number.

        packed: all samples in one row without padding, each seeing itself alone, its positions from 0: the same loss.
        """
        embeds, source, mask = self.splice_batch(batch.ids, batch.features, batch.labels, names=batch.names)
        T = max(len(labels) for labels in batch.labels)
        labels = torch.stack([F.pad(labels, (0, T - len(labels)), value=IGNORE) for labels in batch.labels])  # (B, T)
        labels = labels.to(source.device).gather(1, source.clamp(min=0)).masked_fill(source < 0, IGNORE)  # (B, T')
        target = F.pad(labels[:, 1:], (0, 1), value=IGNORE)  # a row predicts the token after it
        wanted, count = target != IGNORE, int((target != IGNORE).sum())
        if packed:
            row = torch.arange(len(mask), device=mask.device)[:, None].expand_as(mask)[mask]  # whose each token is
            positions, alone = (mask.cumsum(1) - 1)[mask], row[:, None] == row
            rows = embeds[mask][None], positions[None], alone[None]
            hidden = self.language_model(*rows, wanted=wanted[mask][None])
        else:
            if few_sizes(embeds):
                embeds, target, wanted = _widened(embeds, target, wanted, self.config.language.max_position)
            hidden = self.language_model(embeds, wanted=wanted)  # causal, so padding on the right needs no mask
        logits = self.language_model.head(hidden)  # (N, V): only where there is a label
        return F.cross_entropy(logits.float(), target[wanted], ignore_index=IGNORE), count

    forward = loss  # what DDP and FSDP wrap


def set_trainable(model, stage):
    """Section 4.2: stage 1 trains W alone, stage 2 W and the language model; the vision tower never moves."""
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: the paper has stage 1 and stage 2")
    for name, part in model.named_children():
        part.requires_grad_(name in STAGES[stage])

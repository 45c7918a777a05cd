"""LLaVA itself (section 4.1, Fig. 1): a vision tower, a matrix W and a language model.

    Zv = g(Xv)       vision_tower    frozen always       `features`
    Hv = W Zv        projector       stages 1 and 2      Eq. 1, inside `splice`
    Xa = f(Hv, Hq)   language_model  stage 2             `loss`, Eq. 3

Notable
- `splice` is the whole trick: to the language model a patch is one more token embedding. For a picture `IMAGE` stands
  once among the ids, and its P projected patches take that place: T ids become T' = T - 1 + P embeddings.
- `loss` scores the vocabulary only where there is a label: at the answers and the stop after them (Table 2, green).
- A sample that cannot be spliced raises an error that names it, before anything is computed.

Try it: `model.splice(torch.tensor([5, IMAGE, 6]), [model.features(pixels)[0]])`.

B batch, P patches, T tokens (T' after splicing), D width of the language model (Dv of the vision tower), V vocabulary;
N tokens with a label.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from minillava.data import IGNORE, IMAGE
from minillava.errors import UserError
from minillava.model import kernels
from minillava.model.language import LanguageConfig, LanguageModel
from minillava.model.vision import VisionConfig, VisionTower

STAGES = {1: ("projector",), 2: ("projector", "language_model")}  # section 4.2: theta = W, then theta = {W, phi}


class SpliceError(UserError):
    """A sample cannot become one sequence; the message names the sample."""


@dataclass(frozen=True)
class LlavaConfig:
    """The parts of one LLaVA. The paper's: VisionConfig of ViT-L/14, LanguageConfig of Vicuna, and the defaults."""

    vision: VisionConfig
    language: LanguageConfig
    select_layer: int = -2  # Table 8: the features before the last layer are better
    projector: str = "linear"  # the paper's W; "mlp2x_gelu" is LLaVA-1.5's


@dataclass
class Batch:
    """B samples of any lengths, one entry of each list per sample."""

    ids: list  # (T,) token ids, `IMAGE` once per picture
    labels: list  # (T,) the ids that are supervised, IGNORE elsewhere
    features: list  # a list of (P, Dv), one per picture, in reading order
    names: list | None = None  # what an error calls the sample: its record's id; None: its number


class Llava(nn.Module):
    """Fig. 1. Parts that are given are used as they are; a part left out starts from random weights.

    Raises ValueError for a part of other sizes than the config's, and for an unknown projector.
    """

    def __init__(self, config, vision_tower=None, language_model=None):
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
        """Zv = g(Xv) of Eq. 1: normalised pixels (B, 3, image_size, image_size) to (B, P, Dv), without gradient.

        The vision tower is frozen, so features can be computed once per picture and kept.
        """
        return self.vision_tower(pixels, layer=self.config.select_layer)

    def splice(self, ids, features):
        """Put each picture's projected patches where its image token stands (Fig. 1: Hv beside Hq).

        ids: (T,) token ids of one sample, `IMAGE` once per picture. features: a (P, Dv) per picture, in reading order.
        Returns embeddings (T', D) and position map (T',): the index into `ids` that each row came from, -1 for a patch.
        Raises SpliceError for a sample that `check` refuses.
        """
        embeds, source, _ = self.splice_batch([ids], [features])
        return embeds[0], source[0]

    def splice_batch(self, ids, features, labels=None, pad="right", names=None):
        """Splice B samples and pad them to the longest one.

        ids, features: as in `splice`, one of each per sample. labels: (T,) per sample, only to be checked; None: not.
        pad: the side of the padding. names: what an error calls each sample; None: its number.
        Returns embeddings (B, T', D), 0 at padding; position map (B, T'), -1 for a patch and at padding; and mask
        (B, T'), True at real tokens. Raises SpliceError, before anything is computed, for what `check` refuses.
        """
        embeds, source, mask = self._spliced(ids, features, labels, pad, names)
        return embeds, source.to(embeds.device), mask.to(embeds.device)

    def _spliced(self, ids, features, labels, pad, names):
        """What `splice_batch` returns, position map and mask on the CPU: it computes them and never waits for a GPU."""
        samples = zip(ids, features, labels or [None] * len(ids), names or range(len(ids)), strict=True)
        lengths, shown = [self.check(*sample) for sample in samples], [x for pictures in features for x in pictures]
        table, W = self.language_model.embed_tokens.weight, next(self.projector.parameters())
        every = torch.cat(ids).cpu()  # (all T,)
        words = self.language_model.embed(to_device(every.masked_fill(every == IMAGE, 0), table.device))  # (all T, D)
        none = W.new_empty(0, self.config.vision.hidden_size)  # so that W has a gradient, 0, which DDP waits for
        seen = torch.cat([none, *(to_device(x, W.device) for x in shown)]).to(W.dtype)
        patches = self.projector(seen).to(words.dtype)  # (all P, D), Eq. 1: Hv = W Zv
        count = torch.ones_like(every)  # of positions after splicing: a word has 1, a picture P
        count[every == IMAGE] = torch.tensor([len(x) for x in shown], dtype=torch.long)
        origin = torch.arange(len(every)).repeat_interleave(count)  # (all T',): the id that each position comes from
        is_patch = every[origin] == IMAGE
        place = torch.where(is_patch, len(every) + is_patch.cumsum(0) - 1, origin)  # patches stand after all words
        starts = torch.tensor([0, *map(len, ids[:-1])]).cumsum(0).repeat_interleave(torch.tensor(lengths))
        source = (origin - starts).masked_fill(is_patch, -1)
        pad, zero = partial(pad_sequence, batch_first=True, padding_side=pad), len(every) + len(patches)
        place, source = pad(place.split(lengths), padding_value=zero), pad(source.split(lengths), padding_value=-1)
        rows = torch.cat([words, patches, words.new_zeros(1, words.shape[1])])
        embeds = rows.index_select(0, to_device(place.flatten(), rows.device)).unflatten(0, place.shape)
        return embeds, source, place < zero

    def check(self, ids, features, labels=None, name=0):
        """The length T' of one sample after splicing. Raises SpliceError: what is wrong with sample `name`."""
        vision, language = self.config.vision, self.config.language
        Dv, V, context = vision.hidden_size, language.vocab_size, language.max_position
        count = int((ids == IMAGE).sum())
        if len(ids) == 0:
            raise SpliceError(f"sample {name}: no tokens")
        if count != len(features):
            raise SpliceError(
                f"sample {name}: {count} image tokens but {len(features)} pictures; give one picture for each <image>, "
                "and where a text was shortened, keep its <image>"
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

    def loss(self, batch):
        """Eq. 3: the mean of -log p(x_i | Xv, X_instruct, X_a before i) over supervised tokens, and their number.

        Raises SpliceError, which names the sample, for one that `check` refuses.
        """
        embeds, source, _ = self._spliced(batch.ids, batch.features, batch.labels, "right", batch.names)  # (B, T', D)
        labels = pad_sequence(batch.labels, batch_first=True).cpu().gather(1, source.clamp(min=0))
        labels = labels.masked_fill(source < 0, IGNORE)  # (B, T'): none at patches and padding
        target = F.pad(labels[:, 1:], (0, 1), value=IGNORE)  # each position predicts the token after it
        longest = self.config.language.max_position
        embeds, target, wanted = kernels.in_few_sizes(embeds, target, target != IGNORE, longest)
        at = wanted.flatten().nonzero().flatten()  # (N,)
        # causal, so padding on the right needs no mask
        hidden = self.language_model(embeds, wanted=to_device(at, embeds.device))  # (N, D)
        logits = self.language_model.head(hidden)  # (N, V): only where there is a label
        loss = F.cross_entropy(logits.float(), to_device(target.flatten()[at], logits.device), ignore_index=IGNORE)
        return loss, int((target != IGNORE).sum())

    forward = loss  # what DDP and FSDP wrap


def to_device(x, device):
    """A tensor on this device. A copy from the CPU to a GPU is only begun, so that the CPU can go on."""
    if x.device.type == "cpu" and device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def set_trainable(model, stage):
    """Section 4.2: stage 1 trains W alone, stage 2 W and the language model; the vision tower stays frozen.

    Raises ValueError for another stage.
    """
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r}: the paper has stage 1 and stage 2")
    for name, part in model.named_children():
        part.requires_grad_(name in STAGES[stage])

"""Exercise 06, the eye: patches by hand, CLIP's contrastive loss, and the same vision tower on a larger picture."""

import torch
import torch.nn.functional as F
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from minillava.exercises.cases import digits
from minillava.exercises.engine import Task
from minillava.exercises.pictures import both_maps
from minillava.model.vision import Embeddings, VisionConfig
from minillava.standins.vision_tower import contrastive_loss


def _pictures(seed):
    draw = torch.Generator().manual_seed(seed)
    of = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    sizes = ((1, 8, 4, 5), (2, 12, 4, 6), (3, 6, 2, 3), (1, 9, 3, 4), (1, 10, 4, 5))  # 4 does not divide 10
    return [(of(B, 3, S, S), of(D, 3, p, p) / p) for B, S, p, D in sizes]


def _patched(pixels, W):
    size, p = pixels.shape[-1], W.shape[-1]
    first = Embeddings(VisionConfig(size, p, len(W), len(W), 1, 1)).requires_grad_(False)
    first.patch_embedding.weight.copy_(W)
    return first.patch_embedding(pixels).flatten(2).transpose(1, 2)


def _cut(order, fits=True):
    """Patches by hand. order: of the axes (batch, colour, patch row, patch column, pixel row, pixel column)."""

    def patches(pixels, W):
        p, side = W.shape[-1], pixels.shape[-1] // W.shape[-1]
        if fits and side * p != pixels.shape[-1]:
            raise ValueError
        cut = pixels[..., : side * p, : side * p].unfold(2, p, p).unfold(3, p, p)
        return cut.permute(order).flatten(3).flatten(1, 2) @ W.flatten(1).T

    return patches


def _as_it_lies(pixels, W):
    _patched(pixels, W)
    return pixels.reshape(len(pixels), -1, W[0].numel()) @ W.flatten(1).T


def _pairs(seed):
    draw = torch.Generator().manual_seed(seed)
    of = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    sizes = ((4, 8, 2.6592), (7, 5, 1.0), (2, 6, 0.0), (6, 4, 5.5))
    return [(V := of(B, D) * 3, V + of(B, D) * 2, torch.tensor(t)) for B, D, t in sizes]


def _scores(V, C, t, unit=True, scale=lambda t: t.exp().clamp(max=100)):
    V, C = (F.normalize(x, dim=-1) if unit else x for x in (V, C))
    return scale(t) * V @ C.T


def _contrasted(V, C, t, **wrong):
    scores = _scores(V, C, t, **wrong)
    return scores, contrastive_loss(scores, torch.eye(len(V)))


def _other(loss):
    """A wrong version: another loss of the right scores and of the right column of each row."""

    def wrong(V, C, t):
        scores = _scores(V, C, t)
        return scores, loss(scores, torch.arange(len(V)))

    return wrong


def _places(seed):
    draw = torch.Generator().manual_seed(seed)
    sizes = ((16, 6, 6), (9, 4, 5), (64, 3, 12), (16, 5, 4), (25, 4, 3), (12, 4, 5))  # the last one is not a square
    return [(torch.randn(1 + P, D, generator=draw), side) for P, D, side in sizes]


def _side(positions):
    side = int((len(positions) - 1) ** 0.5)
    if side * side != len(positions) - 1:
        raise ValueError(f"{len(positions) - 1} places are no square")
    return side


def _stretched(positions, side):
    """By `transformers`, which does the same for a larger picture."""
    old, D = _side(positions), positions.shape[1]
    config = CLIPVisionConfig(hidden_size=D, num_attention_heads=1, image_size=old, patch_size=1)
    first = CLIPVisionEmbeddings(config).requires_grad_(False)
    first.position_embedding.weight.copy_(positions)
    return first.interpolate_pos_encoding(torch.zeros(1, 1 + side * side, D), side, side)[0]


def _grid(mode="bicubic", lay=lambda rows, old: rows.T.reshape(1, -1, old, old), **more):
    """Stretched positions by hand. lay: (P, D) rows as a (1, D, old, old) picture."""

    def stretch(positions, side):
        picture = lay(positions[1:], _side(positions))
        return torch.cat([positions[:1], F.interpolate(picture, size=(side, side), mode=mode, **more)[0].flatten(1).T])

    return stretch


def _line(positions, side):
    _side(positions)
    return F.interpolate(positions.T[None], size=1 + side * side, mode="linear")[0].T


def _plane(positions):
    """The first number of each position, as a map."""
    return positions[1:, 0].unflatten(0, (_side(positions),) * 2)


TASKS = (
    Task(
        "06.1", 1, "Patches", _pictures, _patched,
        (
            (_as_it_lies, "the numbers are cut as they lie in memory: three rows of pixels are no square. Unfold height and width first."),
            (_cut((0, 3, 2, 1, 4, 5)), "the patches are read column by column. The eye reads row by row."),
            (_cut((0, 2, 3, 4, 5, 1)), "the colours of a pixel stand together in a patch. W is (D, 3, p, p): all of red first, then green, then blue."),
            (_cut((0, 2, 3, 1, 5, 4)), "rows and columns within a patch are exchanged."),
            (_cut((0, 2, 3, 1, 4, 5), fits=False), "what does not fill a patch is cut off in silence. A side that p does not divide is a ValueError: part of the picture would be lost."),
        ),
        ("pixels.unfold(2, p, p).unfold(3, p, p) is (B, 3, S/p, S/p, p, p).",
         "Bring the two grid axes to the front, behind the batch: permute(0, 2, 3, 1, 4, 5). Then flatten what belongs to one patch.",
         "W.flatten(1) is (D, 3 p p): one product makes all patches."),
        draw=lambda got, wanted: both_maps(got[0], wanted[0]),
        tolerance=2e-3,  # a convolution on a GPU may round to TF32
    ),
    Task(
        "06.2a", 0, "Rows of length 1", lambda seed: [(1.0 + digits(9 * seed + n, B, D),) for n, (B, D) in enumerate(((2, 3), (3, 2), (1, 4)))],
        lambda V: V / V.norm(dim=-1, keepdim=True),
        (
            (lambda V: V / V.norm(), "all numbers are divided by one length. Each row has its own."),
            (lambda V: V / V.norm(dim=0, keepdim=True), "columns get length 1. A row is a picture."),
            (lambda V: V / V.sum(-1, keepdim=True), "each row sums to 1. Its length is the root of the sum of squares."),
        ),
        ("V.norm(dim=-1, keepdim=True) is (B, 1): one length per row.",),
    ),
    Task(
        "06.2b", 0, "Each with each", lambda seed: [(digits(9 * seed + n, B, 3, below=4), digits(9 * seed + n + 5, B, 3, below=4)) for n, B in enumerate((3, 2, 4))],
        lambda V, C: V @ C.T,
        (
            (lambda V, C: C @ V.T, "captions stand in the rows. The rows are the pictures'."),
            (lambda V, C: (V * C).sum(-1), "each picture meets its own caption alone: that is the diagonal."),
        ),
        ("One product of matrices: (B, D) times (D, B).",),
    ),
    Task(
        "06.2", 2, "CLIP's loss", _pairs, _contrasted,
        (
            (_other(lambda scores, right: F.cross_entropy(scores, right)), "only pictures look for captions. The loss is symmetric: columns too, and the mean of both."),
            (lambda V, C, t: _contrasted(V, C, t, unit=False), "the vectors are not brought to length 1: a long one wins against all."),
            (lambda V, C, t: _contrasted(V, C, t, scale=lambda t: t), "t itself multiplies the scores. It is kept as a logarithm: exp(t)."),
            (lambda V, C, t: _contrasted(V, C, t, scale=lambda t: t.neg().exp()), "scores are divided by exp(t). It is one over the temperature already: 14.3 at the start, for a temperature of 0.07."),
            (lambda V, C, t: _contrasted(V, C, t, scale=torch.exp), "exp(t) is not held at 100: an eye that is nearly always right would raise it without end."),
            (_other(lambda scores, right: F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)), "the two directions are added up. Take their mean: who knows nothing pays ln B."),
        ),
        ("x / x.norm(dim=-1, keepdim=True) has length 1; the scores are exp(t) * V @ C.T.",
         "Row n is a question with B answers, and answer n is right: F.cross_entropy(scores, torch.arange(B)).",
         "Columns are the rows of scores.T. Mean of both; and t.exp().clamp(max=100)."),
        draw=lambda got, wanted: both_maps(got[0], wanted[0]),
    ),
    Task(
        "06.3", 3, "A larger picture", _places, _stretched,
        (
            (_grid(lay=lambda rows, old: rows.reshape(1, -1, old, old)), "numbers of different places are mixed: (P, D) was given a new shape where its axes had to be exchanged. The axis D comes to the front first: .T"),
            (_line, "the list is stretched, class token and all. Places are a plane: the neighbour below stands a whole row further on."),
            (lambda positions, side: _stretched(positions, side)[1:], "the class token's row is lost. It belongs to no place, and goes along unchanged."),
            (_grid(lay=lambda rows, old: rows.T.reshape(1, -1, old, old).transpose(2, 3)), "rows and columns are exchanged."),
            (_grid(mode="nearest"), "each new place copies its nearest old one. Between two places lies a mixture: mode='bicubic'."),
            (_grid(align_corners=True), "the middles of the corner patches are held fast (align_corners=True). The picture's edges are: a patch is an area, not a point."),
        ),
        ("Row 0 is the class token's. The others, positions[1:], are P = old * old places, row by row.",
         "F.interpolate wants (1, D, old, old): positions[1:].T.reshape(1, D, old, old). mode='bicubic', align_corners=False.",
         "And back: [0].flatten(1).T, behind positions[:1]. A number of places that is no square: ValueError."),
        draw=lambda got, wanted: both_maps(_plane(got), _plane(wanted)),
        tolerance=1e-3,
    ),
)  # fmt: skip

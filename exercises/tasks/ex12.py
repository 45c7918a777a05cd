"""Exercise 12, stage 2: what is trained, a LoRA layer and its merge, and what a rank costs."""

from functools import lru_cache

import torch
from torch import nn

from minillava.exercises.cases import digits
from minillava.exercises.engine import Task
from minillava.exercises.pictures import both_maps
from minillava.model import Llava, LlavaConfig, set_trainable
from minillava.model.language import LanguageConfig
from minillava.model.vision import VisionConfig
from minillava.training import lora


@lru_cache
def _llava(projector: str) -> Llava:
    return Llava(LlavaConfig(VisionConfig(8, 4, 6, 12, 2, 2), LanguageConfig(20, 8, 16, 1, 2), projector=projector))


def _names(seed):
    order = (1, -1)[seed % 2]
    return [
        ([n for n, _ in _llava(kind).named_parameters()][::order], stage)
        for kind in ("linear", "mlp2x_gelu")
        for stage in (1, 2)
    ]


def _moving(names, stage):
    model = _llava("mlp2x_gelu" if any(n.startswith("projector.0") for n in names) else "linear")
    set_trainable(model, stage)
    return [n for n in names if dict(model.named_parameters())[n].requires_grad]


def _starting(*beginnings):
    """A wrong version. beginnings: of the names of what is trained in stage 1, and in stage 2."""
    return lambda names, stage: [n for n in names if n.startswith(beginnings[stage - 1])]


def _layers(seed):
    cases = []
    for n, (wide, deep, rank, alpha) in enumerate(((6, 4, 2, 4.0), (5, 5, 1, 2.0), (8, 3, 3, 6.0), (4, 6, 4, 4.0))):
        draw = torch.Generator().manual_seed(10 * seed + n)
        of = lambda *shape, draw=draw: torch.randn(*shape, generator=draw)  # noqa: E731
        cases.append((of(2, 5, wide), of(deep, wide), of(rank, wide), of(deep, rank), alpha))
    return cases


class _Owner(nn.Module):
    """The smallest model that `lora.merge` accepts: one block with one matrix."""

    def __init__(self, adapted):
        super().__init__()
        self.language_model = nn.Module()
        block = nn.Module()
        block.self_attn, block.mlp = nn.Module(), nn.Module()
        block.self_attn.q_proj = adapted
        self.language_model.layers = nn.ModuleList([block])


def _adapted(x, W, A, B, alpha):
    base = nn.Linear(W.shape[1], W.shape[0], bias=False)
    base.weight.data = W.clone()
    adapted = lora.LoraLinear(base, len(A), alpha)
    adapted.a.data, adapted.b.data = A, B
    with torch.no_grad():
        y, model = adapted(x), _Owner(adapted)
    lora.merge(model)
    return y, model.language_model.layers[0].self_attn.q_proj.weight.detach()


def _formula(y, merged):
    return lambda x, W, A, B, alpha: (y(x, W, A, B, alpha), merged(x, W, A, B, alpha))


_y = lambda x, W, A, B, alpha: _adapted(x, W, A, B, alpha)[0]  # noqa: E731
_merged = lambda x, W, A, B, alpha: _adapted(x, W, A, B, alpha)[1]  # noqa: E731


def _matrices(seed):
    return [([(16 + seed, 8), (8, 16)], 2), ([(5, 5)] * 4, 1), ([(32, 8), (8, 32), (8, 8)], 4 + seed), ([], 3)]


def _added(shapes, rank):
    layers = [lora.LoraLinear(nn.Linear(wide, deep, bias=False), rank, 1.0) for deep, wide in shapes]
    return sum(p.numel() for layer in layers for p in (layer.a, layer.b))


TASKS = (
    Task(
        "12.1", 1, "What moves in which stage", _names, _moving,
        (
            (_starting(("projector",), ("projector", "language_model", "vision_tower")), "the eye moves in stage 2. It is frozen in both stages (section 4.2)."),
            (_starting(("projector",), ("language_model",)), "W stands still in stage 2. There theta is W and phi, both."),
            (_starting(("projector", "language_model"), ("projector", "language_model")), "the language model moves in stage 1. There W learns to speak to a language model that stays as it is."),
            (lambda names, stage: [n for n in _moving(names, stage) if not n.startswith("projector") or n.endswith("weight")], "the biases of the projector are forgotten."),
        ),
        ("A parameter's name begins with its part: vision_tower., projector., language_model.", "names in their order, those that begin with a part that moves."),
    ),
    Task(
        "12.2a", 0, "A column times a row", lambda seed: [(1 + digits(seed + n, out, below=4), 1 + digits(seed + n + 9, wide, below=4)) for n, (out, wide) in enumerate(((3, 2), (2, 4), (1, 3)))],
        lambda b, a: b[:, None] * a,
        (
            (lambda b, a: a[:, None] * b, "the two are exchanged: b runs down, a runs to the right."),
            (lambda b, a: b[:, None] + a, "they are added. Each number is a product."),
        ),
        ("b[:, None] is a column; a column times a row is a matrix.",),
    ),
    Task(
        "12.2b", 0, "Two thin matrices", lambda seed: [(1 + digits(seed + n, out, 2, below=3), 1 + digits(seed + n + 9, 2, wide, below=3)) for n, (out, wide) in enumerate(((3, 4), (2, 3), (4, 2)))],
        lambda B, A: B @ A,
        (
            (lambda B, A: B[:, :1] @ A[:1], "only the first column of B meets the first row of A. Rank r is the sum of r such products."),
            (lambda B, A: (B @ A).T, "the product lies on its side: it is (out, in)."),
        ),
        ("Puzzle a for each of the r columns, added up, is one product of matrices.",),
    ),
    Task(
        "12.2", 2, "A LoRA layer, and its merge", _layers, _adapted,
        (
            (_formula(lambda x, W, A, B, alpha: x @ W.T + alpha * x @ A.T @ B.T, lambda x, W, A, B, alpha: W + alpha * B @ A), "alpha is not divided by the rank."),
            (_formula(lambda x, W, A, B, alpha: alpha / len(A) * (x @ W.T + x @ A.T @ B.T), lambda x, W, A, B, alpha: alpha / len(A) * (W + B @ A)), "the frozen matrix is scaled too; only what LoRA adds is."),
            (_formula(_y, lambda x, W, A, B, alpha: W + B @ A), "the merged matrix lacks the scale: before and after the merge the layer gives different results."),
            (_formula(lambda x, W, A, B, alpha: alpha / len(A) * x @ A.T @ B.T, lambda x, W, A, B, alpha: alpha / len(A) * B @ A), "the frozen matrix is left out: what is trained stands beside W, not in its place."),
        ),
        ("y = W x + (alpha / r) B A x, and r is the number of A's rows.",
         "x has its vectors in rows: W x is x @ W.T, and B A x is x @ A.T @ B.T.",
         "Merged: W + (alpha / r) * B @ A, of W's shape."),
        draw=lambda got, wanted: both_maps(got[1], wanted[1]),
    ),
    Task(
        "12.3", 3, "What a rank costs", _matrices, _added,
        (
            (lambda shapes, rank: sum(rank * deep * wide for deep, wide in shapes), "rank times the whole matrix is counted. The point of LoRA: two thin ones."),
            (lambda shapes, rank: sum(deep + wide for deep, wide in shapes), "the rank is forgotten."),
            (lambda shapes, rank: sum(rank * wide for _, wide in shapes), "A alone is counted; B trains too."),
            (lambda shapes, rank: sum(deep * wide + rank * (deep + wide) for deep, wide in shapes), "the frozen matrices are counted: they do not train."),
        ),
        ("A is (rank, in), B is (out, rank).", "rank * (in + out), summed over the matrices."),
    ),
)  # fmt: skip

"""Exercise 08, the translator: the projector of Eq. 1, the splice of Fig. 1, and fewer visual tokens."""

from functools import lru_cache, partial

import torch

from minillava.data import IMAGE
from minillava.exercises.cases import digits
from minillava.exercises.engine import Task
from minillava.exercises.pictures import both_maps
from minillava.model import Llava, LlavaConfig
from minillava.model.language import LanguageConfig
from minillava.model.vision import VisionConfig


@lru_cache
def _llava() -> Llava:
    """A small LLaVA for the parts of the cases: Dv 6, D 4, V 256 (so that E[IMAGE] exists, IMAGE being -200)."""
    return Llava(LlavaConfig(VisionConfig(8, 4, 6, 12, 2, 2), LanguageConfig(256, 4, 8, 1, 2))).requires_grad_(False)


def _parts(seed: int):
    draw = torch.Generator().manual_seed(seed)
    return draw, torch.randn(4, 6, generator=draw), torch.randn(4, generator=draw), torch.randn(256, 4, generator=draw)


def _translated(Zv, W, b):
    model = _llava()
    model.projector.load_state_dict({"weight": W, "bias": b})
    return model.projector(Zv)


def _translations(seed):
    draw, W, b, _ = _parts(seed)
    return [(torch.randn(*shape, 6, generator=draw), W, b) for shape in ((4,), (1,), (9,), (2, 4))]


def _spliced(ids, pictures, E, W, b):
    model = _llava()
    model.projector.load_state_dict({"weight": W, "bias": b})
    model.language_model.embed_tokens.weight.copy_(E)
    return model.splice(ids, pictures)[0]


def _samples(seed):
    draw, W, b, E = _parts(seed)
    look = lambda P: torch.randn(P, 6, generator=draw)  # noqa: E731
    rows = [
        ([IMAGE, 3, 5], [4]),
        ([3, 5, 7, IMAGE], [4]),
        ([1, IMAGE, 2, IMAGE, 9], [4, 2]),
        ([1, 2, 3], []),
        ([8, IMAGE, 8], [1]),
    ]
    return [(torch.tensor(ids), [look(P) for P in sizes], E, W, b) for ids, sizes in rows] + [
        (torch.tensor([1, IMAGE, IMAGE]), [look(4)], E, W, b),
        (torch.tensor([1, 2]), [look(4)], E, W, b),
    ]


def _naive(where):
    """A splice by hand. where: puts the patches between the words."""

    def splice(ids, pictures, E, W, b):
        words = ids.tolist()
        if words.count(IMAGE) != len(pictures):
            raise ValueError
        patches, rows = iter([p @ W.T + b for p in pictures]), []
        return where(words, patches, rows, E)

    return splice


def _in_place(words, patches, rows, E, cut=slice(None), keep=False):
    for i in words:
        if i != IMAGE:
            rows.append(E[i][None])
            continue
        rows += [E[i][None]] * keep + [next(patches)[cut]]
    return torch.cat(rows)


def _all_first(words, patches, rows, E):
    return torch.cat([*patches, E[[i for i in words if i != IMAGE]]])


def _only_first(ids, pictures, E, W, b, rest=lambda words: words, at=lambda words: words.index(IMAGE)):
    """One picture is put in. rest: what is left of the ids behind it. at: where its image token is."""
    words = ids.tolist()
    n = at(words)
    return torch.cat([E[words[:n]], pictures[0] @ W.T + b, E[rest(words[n + 1 :])]])


def _the_one(words):
    (n,) = [n for n, i in enumerate(words) if i == IMAGE]
    return n


def _first_again(ids, pictures, E, W, b):
    return _unchecked(ids, pictures[:1] * ids.tolist().count(IMAGE), E, W, b)


def _unchecked(ids, pictures, E, W, b):
    patches = iter([p @ W.T + b for p in pictures])
    return torch.cat([E[i][None] if i != IMAGE else next(patches) for i in ids.tolist()])


def _pooled(Zv, k):
    """The mean of k x k neighbours of the grid, by torch's own pooling."""
    side = int(len(Zv) ** 0.5)
    if side * side != len(Zv) or side % k:
        raise ValueError(f"{len(Zv)} patches are no square grid that {k} divides")
    grid = Zv.T.reshape(1, -1, side, side)
    return torch.nn.functional.avg_pool2d(grid, k)[0].flatten(1).T


def _grids(seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(P, 5, generator=draw), k)
        for P, k in ((16, 2), (36, 3), (36, 2), (4, 1), (64, 4), (12, 2), (25, 2))
    ]


def _like(change):
    """A wrong version of `_pooled` that raises the same errors."""

    def pooled(Zv, k):
        _pooled(Zv, k)
        return change(Zv, k, int(len(Zv) ** 0.5))

    return pooled


def _ids_with_images(seed):
    rows = ((3, (1,)), (5, (0, 3)), (4, (2, 3)))
    cases = [(digits(seed + n, T), P) for n, (T, _) in enumerate(rows) for P in [2 + n % 2]]
    for (ids, _), (_, places) in zip(cases, rows):
        ids[list(places)] = IMAGE
    return [cases[1], cases[0], cases[2]]


TASKS = (
    Task(
        "08.1", 1, "Eq. 1", _translations, _translated,
        (
            (lambda Zv, W, b: Zv @ W.T, "the bias is left out: the paper writes Hv = W Zv, the authors' code has a bias too."),
            (lambda Zv, W, b: Zv @ W, "W is not turned: its shape is (D, Dv), as nn.Linear keeps it, so each row of Zv meets W.T."),
            (lambda Zv, W, b: (Zv + b.mean()) @ W.T, "the bias is added before the product."),
            (lambda Zv, W, b: torch.relu(Zv @ W.T + b), "there is a non-linearity behind W. LLaVA-1.5 has one between two matrices; the paper has one matrix and nothing."),
        ),
        ("Every patch is a row of Zv and is translated alone: from Dv numbers to D.",
         "nn.Linear keeps its weight as (out, in) and computes x @ weight.T + bias."),
        draw=both_maps,
    ),
    Task(
        "08.2a", 0, "Rows between rows", lambda seed: [(digits(seed, T, 3), digits(seed + 9, N, 3), at) for T, N, at in ((4, 2, 1), (3, 3, 0), (2, 1, 2))],
        lambda rows, new, at: torch.cat([rows[:at], new, rows[at:]]),
        (
            (lambda rows, new, at: torch.cat([rows[:at], new, rows[at + 1 :]]), "the row at `at` is lost. Here it only moves back."),
            (lambda rows, new, at: torch.cat([new, rows]), "the new rows stand in front of all others, whatever `at` says."),
        ),
        ("rows[:at] stands before, rows[at:] behind; torch.cat joins a list of them.",),
    ),
    Task(
        "08.2b", 0, "An image token makes room", _ids_with_images, lambda ids, P: ids.repeat_interleave(torch.where(ids == IMAGE, P, 1)),
        (
            (lambda ids, P: torch.cat([ids[: ids.tolist().index(IMAGE)], ids.new_full((P,), IMAGE), ids[ids.tolist().index(IMAGE) + 1 :]]), "only the first image token makes room."),
            (lambda ids, P: ids.repeat_interleave(torch.where(ids == IMAGE, P + 1, 1)), "the image token stays beside its P places. They take its place."),
            (lambda ids, P: ids.repeat_interleave(P), "every id stands there P times. A word keeps its one place."),
        ),
        ("ids.repeat_interleave(counts) repeats each id as often as its count says; torch.where makes the counts.",),
    ),
    Task(
        "08.2", 2, "The splice", _samples, _spliced,
        (
            (_naive(lambda w, p, r, E: _in_place(w, p, r, E, keep=True)), "the image token keeps a row of its own. T ids become T - 1 + P rows: the patches take its place."),
            (_naive(_all_first), "the patches stand in front of all words. Eq. 2 allows the picture behind the question, and a conversation may have several: they stand where their image token is."),
            (_naive(lambda w, p, r, E: _in_place(w, p, r, E, cut=slice(1, None))), "the first patch is dropped as if it were the class token. The class token was taken off by the eye already."),
            *((wrong, "only the first picture is handled. A sample may hold several pictures, or none: go through all ids, and let each image token take the next picture.") for wrong in (_only_first, partial(_only_first, rest=lambda words: [i for i in words if i != IMAGE]), partial(_only_first, at=_the_one), _first_again)),
            (_unchecked, "image tokens and pictures are not counted. Where their numbers differ, a splice must refuse (a ValueError): it would shift all that follows."),
        ),
        ("Go through the ids: a word brings one row of E, an image token all rows of the next picture.",
         "Translate each picture first (task 1), and take them one after another: patches = iter(...), next(patches).",
         "Before anything, compare ids.tolist().count(IMAGE) with len(pictures), and raise ValueError where they differ."),
        draw=both_maps,
    ),
    Task(
        "08.3", 3, "Fewer visual tokens", _grids, _pooled,
        (
            (_like(lambda Zv, k, side: Zv.unflatten(0, (-1, k * k)).mean(1)), "patches that follow each other in the row are joined. Neighbours are those of the grid: k in a row, and those below them."),
            (_like(lambda Zv, k, side: torch.nn.functional.max_pool2d(Zv.T.reshape(1, -1, side, side), k)[0].flatten(1).T), "the largest number of each k x k is taken, not their mean."),
            (_like(lambda Zv, k, side: Zv.unflatten(0, (side // k, k, side // k, k)).mean((1, 3)).transpose(0, 1).flatten(0, 1)), "the joined patches are read column by column. The eye gives them row by row, as one reads."),
            (lambda Zv, k: Zv.unflatten(0, (int(len(Zv) ** 0.5),) * 2)[: int(len(Zv) ** 0.5) // k * k, : int(len(Zv) ** 0.5) // k * k].unflatten(1, (-1, k)).unflatten(0, (-1, k)).mean((1, 3)).flatten(0, 1) if int(len(Zv) ** 0.5) ** 2 == len(Zv) else Zv.unflatten(0, (7, 7)), "a grid that k does not divide is cut short. Refuse it (a ValueError): the patches at the edge would be lost."),
        ),
        ("P patches are a square grid of side sqrt(P), row by row.",
         "Give Zv the shape (side / k, k, side / k, k, Dv) with unflatten: two of these axes are the neighbours.",
         "Their mean is .mean((1, 3)); the rest back into rows is .flatten(0, 1)."),
        draw=both_maps,
    ),
)  # fmt: skip

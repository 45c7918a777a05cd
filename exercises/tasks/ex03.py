"""Exercise 03, the architecture: every tensor's shape, Fig. 1, and the cost of more patches or a deeper W."""

import random
from functools import lru_cache

import torch
from torch import nn

from minillava.costs.model import SHAPES, VIT_L, cache_bytes, flops, parameters
from minillava.data import IMAGE
from minillava.exercises.cases import digits
from minillava.exercises.engine import Task
from minillava.exercises.pictures import both_maps
from minillava.model import Llava, LlavaConfig
from minillava.model.language import LanguageConfig
from minillava.model.vision import VisionConfig, VisionTower

VICUNA = {"7B": SHAPES["full-7b"].language, "13B": SHAPES["full-13b"].language}
VIT_L_336 = VisionConfig(336, 14, 1024, 4096, 24, 16)  # LLaVA-1.5's vision tower: the same on more pixels


def _sizes(seed):
    """(size, patch, L, Dv, D, T): the paper's 13B, LLaVA-1.5's 7B, the small model, another one, and an invalid one."""
    draw = random.Random(f"sizes {seed}")
    rows = [(224, 14, 24, 1024, 5120), (336, 14, 24, 1024, 4096), (96, 12, 4, 128, 128), (160, 32, 7, 64, 96)]
    rows += [(230, 14, 24, 1024, 4096)]
    return [(*row, draw.randint(20, 60)) for row in rows]


@lru_cache
@torch.no_grad()
def _shapes(size, patch, layers, Dv, D, T):
    """The shapes of real tensors. The vision tower has width 4 here, which changes no number of states or rows."""
    states = VisionTower(VisionConfig(size, patch, 4, 4, layers, 1)).hidden_states(torch.zeros(1, 3, size, size))
    model = Llava(LlavaConfig(VisionConfig(size, patch, Dv, 4, 0, 1), LanguageConfig(9, D, 4, 0, 1)))
    Zv, ids = torch.zeros(states[-2].shape[1] - 1, Dv), torch.tensor([IMAGE] + [1] * (T - 1))
    return {
        "states": (len(states), states[0].shape[1], Dv),
        "Zv": tuple(Zv.shape),
        "Hv": tuple(model.projector(Zv).shape),
        "Hq": tuple(model.language_model.embed(ids[1:]).shape),
        "read": tuple(model.splice(ids, [Zv])[0].shape),
    }


def _counted(patches=lambda side: side**2, states=1, kept=0, word=0, row=0, strict=True):
    """Wrong shapes. patches: from the grid's side. kept: rows besides the patches. word, row: the image token's."""

    def shapes(size, patch, L, Dv, D, T):
        if strict and size % patch:
            raise ValueError
        P = patches(size // patch)
        rows = P + kept
        return {
            "states": (L + states, P + 1, Dv), "Zv": (rows, Dv), "Hv": (rows, D), "Hq": (T - 1 + word, D),
            "read": (T - 1 + row + rows, D),
        }  # fmt: skip

    return shapes


def _twice(*sizes):
    """The patches of two layers of the vision tower, one after the other."""
    right, P = _shapes(*sizes), (sizes[0] // sizes[1]) ** 2
    return right | {name: (P + right[name][0], right[name][1]) for name in ("Zv", "Hv", "read")}


def _forwards(seed):
    """(model, ids, pixels): small LLaVAs that select different layers; the picture first, last, or between the words."""
    cases = []
    kinds = ((-2, "linear", 3), (-1, "linear", 0), (-3, "mlp2x_gelu", 6), (-2, "mlp2x_gelu", 2))
    for n, (layer, projector, at) in enumerate(kinds):
        torch.manual_seed(10 * seed + n)
        model = Llava(LlavaConfig(VisionConfig(8, 4, 6, 12, 3, 2), LanguageConfig(20, 8, 16, 2, 2), layer, projector))
        for part in model.modules():
            if isinstance(part, (nn.Linear, nn.Embedding, nn.Conv2d)):
                nn.init.normal_(part.weight, std=0.5)
            if isinstance(part, nn.LayerNorm):  # so that one more norm changes the result
                nn.init.uniform_(part.weight, 0.5, 1.5)
        ids = torch.randint(0, 20, (7,))
        ids[at] = IMAGE
        cases.append((model.requires_grad_(False), ids, torch.randn(1, 3, 8, 8)))
    return cases


def _scored(model, ids, pixels):
    rows, _ = model.splice(ids, [model.features(pixels)[0]])
    return model.language_model.head(model.language_model(rows[None])[0])


def _seen(model, pixels, cut=1, layer=None):
    states = model.vision_tower.hidden_states(pixels)
    return states[model.config.select_layer if layer is None else layer][0, cut:]


def _wired(see=_seen, order=None, head=True):
    """A wrong Fig. 1. see: (model, pixels) -> Zv. order: of the words before, the patches, and the words after."""

    def forward(model, ids, pixels):
        at, language = ids.tolist().index(IMAGE), model.language_model
        before, after = language.embed(ids[:at]), language.embed(ids[at + 1 :])
        Hv = model.projector(see(model, pixels))
        rows = torch.cat(order(before, Hv, after) if order else [before, Hv, after])
        hidden = language(rows[None])[0]
        return language.head(hidden) if head else hidden

    return forward


def _configs(seed):
    """(config, T): the paper's 13B, what LLaVA-1.5 changed (one change, then both), and a small model."""
    draw = random.Random(f"configs {seed}")
    small = LlavaConfig(VisionConfig(96, 12, 48, 96, 4, 4), LanguageConfig(500, 64, 172, 3, 4), projector="mlp2x_gelu")
    both = LlavaConfig(VIT_L_336, VICUNA["7B"], projector="mlp2x_gelu")
    some = (LlavaConfig(VIT_L, VICUNA["13B"]), LlavaConfig(VIT_L_336, VICUNA["13B"]), both, small)
    return [(config, draw.randint(20, 90)) for config in some]


def _cost(config, T):
    rows = T - 1 + config.vision.num_patches
    read = flops(config, rows, 0, pictures=0)
    return {
        "W": parameters(config)["projector"],
        "cache": rows * cache_bytes(config, 2),
        "flops": read["decoder"] + read["attention"],
    }


def _priced(hidden=False, bias=1, rows=lambda T, P: T - 1 + P, kept=2, each=2, pairs=4):
    """Wrong costs. hidden: an MLP as wide as the vision tower. kept: keys or values. each: operations per product."""

    def cost(config, T):
        vision, language = config.vision, config.language
        Dv, D, F, L = vision.hidden_size, language.hidden_size, language.intermediate_size, language.num_layers
        n, W = rows(T, vision.num_patches), Dv * D + bias * D
        if config.projector == "mlp2x_gelu":
            W += Dv * Dv + Dv if hidden else D * D + bias * D
        work = each * n * L * (4 * D * D + 3 * D * F) + pairs * L * n * n * D
        return {"W": W, "cache": n * kept * L * D * 2, "flops": work}

    return cost


TASKS = (
    Task(
        "03.1", 1, "Every tensor's shape", _sizes, _shapes,
        (
            (_counted(kept=1), "the class token is kept: 257 rows in place of 256. The paper wants grid features, one vector a patch; the row in front is dropped."),
            (_twice, "the layers before and after the last one are both taken, 512 rows. It is either the one or the other (section 4.1, Table 8)."),
            (_counted(row=1), "the image token keeps a row of its own. The patches take its place: T ids become T - 1 + P rows."),
            (_counted(word=1, row=1), "the image token is embedded as a word, and so keeps a row of its own. It has no embedding: the patches take its place."),
            (_counted(patches=lambda side: side), "one side of the grid is counted. A picture has side x side patches."),
            (_counted(states=0), "the hidden states are as many as the blocks. What goes into block 1 is one too: 1 + L of them, and -2 is what block L - 1 puts out."),
            (_counted(strict=False), "pixels at the edge are lost where the patch does not divide the size. Refuse it: a ValueError."),
        ),
        ("side = size // patch; P = side * side. Within the eye there is one row more, the class token in front.",
         "Zv: P rows of Dv numbers. W changes their width, not their number: Hv has P rows of D.",
         "One of the T ids is the image token: T - 1 words, and T - 1 + P rows that the language model reads."),
    ),
    Task(
        "03.2a", 0, "One state, without its first row", lambda seed: [(digits(seed, N, 4, 2), layer) for N, layer in ((3, -2), (4, 1), (5, -2))],
        lambda states, layer: states[layer, 1:],
        (
            (lambda states, layer: states[layer], "the first row is still there. It is the class token's and no patch."),
            (lambda states, layer: states[-1, 1:], "the last state is taken, whatever `layer` says."),
        ),
        ("states[layer] is (P + 1, Dv); [1:] leaves out row 0.",),
    ),
    Task(
        "03.2b", 0, "A row per id", lambda seed: [(digits(seed, 6, 3), digits(seed + n, T, below=6)) for n, T in enumerate((4, 1, 5))],
        lambda E, ids: E[ids],
        (
            (lambda E, ids: E[: len(ids)], "the first rows of E are taken, whatever the ids are."),
            (lambda E, ids: E[ids.sort().values], "the rows come in the order of E. They come in the order of the ids."),
        ),
        ("A tensor of whole numbers may stand in the brackets: it says which rows, in which order.",),
    ),
    Task(
        "03.2", 2, "Fig. 1, wired", _forwards, _scored,
        (
            (_wired(lambda model, pixels: _seen(model, pixels, layer=-1)), "the eye's last layer is read. Which one this model was trained on stands in model.config.select_layer."),
            (_wired(lambda model, pixels: _seen(model, pixels, cut=0)), "the class token goes along, one row too many. [0, 1:] leaves it out."),
            (_wired(order=lambda before, Hv, after: [Hv, before, after]), "the patches stand in front of all words. They belong where the image token is."),
            (_wired(head=False), "hidden states come out, of width D. `language_model.head` turns each into V scores."),
            (_wired(lambda model, pixels: model.vision_tower.post_layernorm(_seen(model, pixels))), "the eye's last norm is applied. It is for the class token that CLIP compares with captions; LLaVA reads the states as they are."),
        ),
        ("Left half of Fig. 1: hidden_states(pixels), choose one, drop batch and class token, then the projector.",
         "at = ids.tolist().index(IMAGE). Embed ids[:at] and ids[at + 1 :], and put Hv between them with torch.cat.",
         "The language model wants a batch: language_model(rows[None])[0] is (T', D); its head makes (T', V) of it."),
        draw=both_maps,
    ),
    Task(
        "03.3", 3, "What a finer eye or a deeper W costs", _configs, _cost,
        (
            (_priced(rows=lambda T, P: T), "the picture counts as one token. It is one among the ids; the language model reads its P patches."),
            (_priced(hidden=True), "the hidden layer of the MLP is as wide as the eye. LLaVA-1.5 goes to D at once, then from D to D."),
            (_priced(bias=0), "the biases are forgotten, D for each layer. Eq. 1 has none, the authors' code has."),
            (_priced(kept=1), "keys are kept without values, or values without keys. The cache holds both."),
            (_priced(each=1), "a multiplication and the addition behind it count as one operation. As is usual, they are two."),
            (_priced(pairs=0), "attention itself is left out: every row's query meets every key, and every weight its value, 4 D operations a pair and layer."),
        ),
        ("rows = T - 1 + P. All that the language model spends goes by rows, or by rows squared.",
         "One matrix of (a, b) costs 2 * a * b operations a row. A block has four of (D, D) and three of (D, F).",
         "cache: rows * L * 2 (keys, values) * D * 2 bytes. Attention: 4 * L * rows**2 * D. W as an MLP: Dv * D + D, and D * D + D."),
        tolerance=1e-6,
    ),
)  # fmt: skip

"""Exercise 07, the brain: RoPE, causal attention with a cache, and the choice of the next token."""

import torch

from minillava.exercises.engine import Task
from minillava.exercises.pictures import both_maps
from minillava.model.generate import choose
from minillava.model.language import LanguageConfig
from minillava.model.rope import rotate, rotations
from minillava.model.vision import attend


def _turned_cases(seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(H, T, d, generator=draw), base)
        for H, T, d, base in ((2, 5, 4, 10000.0), (1, 9, 8, 100.0), (3, 2, 6, 1e6))
    ]


def _turned(x, base, positions=None, sign=1):
    H, T, d = x.shape
    config = LanguageConfig(8, H * d, 8, 1, H, rope_theta=base)
    cos, sin = rotations(torch.arange(T)[None] if positions is None else positions(T), config)
    return rotate(x[None], cos, sign * sin)[0]


def _neighbours(x, base):
    """Pairs (0, 1), (2, 3), ...: reorder x, rotate the halves, and put the order back."""
    halves = torch.cat([x[..., ::2], x[..., 1::2]], dim=-1)
    return torch.stack(_turned(halves, base).chunk(2, dim=-1), dim=-1).flatten(-2)


def _whole_width(x, base):
    """Angles t * base ** (-i / d), as if every one of d numbers had its own rate."""
    T, d = x.shape[1:]
    angles = torch.arange(T)[:, None] * base ** (-torch.arange(d // 2) / d)
    angles = torch.cat([angles, angles], dim=-1)
    a, b = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-b, a], dim=-1) * angles.sin()


def _read(seed):
    draw = torch.Generator().manual_seed(seed)
    of = lambda *shape: torch.randn(*shape, generator=draw)  # noqa: E731
    sizes = ((2, 3, 4, 5), (1, 1, 4, 6), (2, 4, 6, 0), (3, 5, 2, 1))
    return [(of(H, T, d), of(H, T, d), of(H, T, d), of(H, S, d), of(H, S, d)) for H, T, d, S in sizes]


def _attended(q, k, v, old_k, old_v, mask=lambda T, S: torch.ones(T, S + T, dtype=torch.bool).tril(S), scale=1.0):
    k, v = torch.cat([old_k, k], dim=1), torch.cat([old_v, v], dim=1)
    T, S = q.shape[1], old_k.shape[1]
    return attend(scale * q[None], k[None], v[None], mask(T, S))[0], k, v


def _forgetful(q, k, v, old_k, old_v):
    seen, _, _ = _attended(q, k, v, old_k[:, :0], old_v[:, :0])
    return seen, torch.cat([old_k, k], dim=1), torch.cat([old_v, v], dim=1)


class _Drawn(float):
    """A number between 0 and 1, and the seed of a generator whose first draw it is, as the package draws by itself."""

    seed: int


def _draw(seed):
    u = _Drawn(torch.rand(1, generator=torch.Generator().manual_seed(seed)))
    u.seed = seed
    return u


def _clear(logits, temperature, top_p, u):
    """Whether rounding cannot change the drawn token: neither top_p nor u is close to a border."""
    chance, _ = (logits / temperature).softmax(-1).sort(descending=True)
    total = chance.cumsum(-1)
    kept = total[: int((total - chance < top_p).sum())]
    borders = torch.cat([kept - u * kept[-1], total - top_p if top_p < 1 else total])
    return borders.abs().min() > 1e-3


def _scores(seed):
    draw, cases, number = torch.Generator().manual_seed(seed), [], 1000 * seed
    for temperature, top_p in ((1.0, 1.0), (0.7, 0.9), (1.5, 0.6), (1.0, 0.8), (0.5, 0.7)) * 6:
        case = None
        while case is None or not _clear(*case):
            number += 1
            case = (torch.randn(20, generator=draw) * 1.2, temperature, top_p, _draw(number))
        cases.append(case)
    return [*cases, *((torch.randn(20, generator=draw), 0.0, top_p, _draw(number)) for top_p in (1.0, 0.5))]


def _chosen(logits, temperature, top_p, u):
    draw = torch.Generator().manual_seed(u.seed)
    return int(choose(logits[None], temperature, top_p, [draw])[0])


def _sampled(logits, temperature, top_p, u, short=False, scaled=True):
    """Sampling by hand. short, scaled: its mistakes."""
    if temperature == 0:
        return int(logits.argmax())
    chance, order = (logits / temperature).softmax(-1).sort(descending=True)
    total = chance.cumsum(-1)
    count = int((total <= top_p).sum()) if short else int((total - chance < top_p).sum())
    kept = total[: max(1, count)]
    place = int((kept <= u * (float(kept[-1]) if scaled else 1.0)).sum())
    return int(order[min(place, len(kept) - 1)])


def _hot(logits, temperature, top_p, u):
    return _chosen(logits * temperature**2, temperature, top_p, u) if temperature else _chosen(logits, 0.0, top_p, u)


def _divided(logits, temperature, top_p, u):
    """No case for temperature 0: all numbers are nan, which gives an error or the first token."""
    return 1 / 0 if temperature == 0 else _chosen(logits, temperature, top_p, u)


def _first(logits, temperature, top_p, u):
    return 0 if temperature == 0 else _chosen(logits, temperature, top_p, u)


def _sorted_only(logits, temperature, top_p, u):
    """The rank of the token among the sorted ones, not its id."""
    chosen = _chosen(logits, temperature, top_p, u)
    return chosen if temperature == 0 else int((logits > logits[chosen]).sum())


DIVIDED = "temperature 0 divides by 0. It means: take the likeliest."

TASKS = (
    Task(
        "07.1", 1, "RoPE", _turned_cases, _turned,
        (
            (_neighbours, "neighbours are paired: (0, 1), (2, 3). Llama's published weights pair the halves: i with i + d/2."),
            (lambda x, base: _turned(x, base, positions=lambda T: torch.arange(1, T + 1)[None]), "positions begin at 1. The first token is at 0 and is not turned."),
            (lambda x, base: _turned(x, base, sign=-1), "the turn goes the other way: (a, b) becomes (a cos - b sin, b cos + a sin)."),
            (_whole_width, "the rates are those of d numbers in place of d / 2 pairs: base ** (-2 i / d)."),
        ),
        ("angles = t * base ** (-2 i / d), i from 0 to d/2 - 1: (T, d/2).",
         "a, b = x.chunk(2, dim=-1); then torch.cat([a cos - b sin, b cos + a sin], dim=-1)."),
        draw=lambda got, wanted: both_maps(got[0], wanted[0]),
    ),
    Task(
        "07.2a", 0, "A triangle", lambda seed: [(T,) for T in (4 + seed, 2, 6 + seed)],
        lambda T: torch.arange(T) <= torch.arange(T)[:, None],
        (
            (lambda T: torch.arange(T) < torch.arange(T)[:, None], "the diagonal is missing: a token sees itself too."),
            (lambda T: torch.arange(T) >= torch.arange(T)[:, None], "the triangle points the wrong way: tokens see what comes after them."),
        ),
        ("torch.arange(T) is a row of places, torch.arange(T)[:, None] a column. Compare them: column <= row.",),
    ),
    Task(
        "07.2b", 0, "A triangle behind S old tokens", lambda seed: [(T, S) for T, S in ((2 + seed, 3), (3, 0), (4, 2 + seed))],
        lambda T, S: torch.arange(S + T) <= torch.arange(T)[:, None] + S,
        (
            (lambda T, S: torch.arange(S + T) <= torch.arange(T)[:, None], "the triangle begins at the first old token. The first new one stands at place S."),
            (lambda T, S: torch.ones(T, S + T, dtype=torch.bool), "every token sees all others, also new ones that come after it."),
        ),
        ("New token t stands at place S + t.",),
    ),
    Task(
        "07.2", 2, "Attention with a cache", _read, _attended,
        (
            (lambda *a: _attended(*a, mask=lambda T, S: torch.ones(T, S + T, dtype=torch.bool).tril()), "the causal mask begins at the cache's first token: new token i sees only i + 1 of all. It sees all S old ones, and the new ones up to itself."),
            (lambda *a: _attended(*a, mask=lambda T, S: torch.ones(T, S + T, dtype=torch.bool)), "new tokens see those that come after them."),
            (lambda *a: _attended(*a, scale=a[0].shape[-1] ** 0.5), "the scores are not divided by the root of d."),
            (_forgetful, "the old keys and values are kept, but not looked at."),
        ),
        ("Join old and new along the tokens' axis: (H, S + T, d).",
         "Of T new tokens, row i may see columns 0 to S + i: torch.ones(T, S + T).tril(S).",
         "masked_fill(~mask, -inf) before the softmax."),
        draw=lambda got, wanted: both_maps(got[0][0], wanted[0][0]),
    ),
    Task(
        "07.3", 3, "Choosing the next token", _scores, _chosen,
        (
            (lambda *a: _sampled(*a, short=True), "the token that crosses top_p is dropped. The set is the smallest that holds at least top_p."),
            (lambda logits, t, p, u: _chosen(logits, t, 1.0, u), "top_p is not used."),
            (_hot, "scores are multiplied by the temperature. Divided: above 1 it flattens, below 1 it sharpens."),
            (lambda *a: _sampled(*a, scaled=False), "what is left does not add up to 1 again: u has to be scaled by the mass of the set."),
            (_sorted_only, "it gives the place among the sorted tokens. Look up which token stands there: `order`."),
            (_divided, DIVIDED),
            (_first, DIVIDED),
        ),
        ("Temperature 0: argmax. Else softmax(logits / temperature), sorted, largest first.",
         "Keep a token as long as what stands before it holds less than top_p.",
         "The first kept token whose cumulated mass is above u times the mass of all kept."),
    ),
)  # fmt: skip

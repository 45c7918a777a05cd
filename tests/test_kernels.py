"""Every quick form equals the plain form that it stands for: value and gradient, in every precision it is used in."""

import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st

from minillava.data import IGNORE
from minillava.model import Batch, Cache, LanguageConfig, attend, kernels
from minillava.model.kernels import rounded
from minillava.model.language import normalise

torch.set_num_threads(1)

PLAIN = attend.__wrapped__
CLOSE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
B, H, T, d = 2, 4, 7, 8


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def looking(how):
    """The mask and causal of one way to look."""
    left = torch.arange(T) >= torch.tensor([0, 3])[:, None]  # (B, T): the second row has three tokens of padding
    mask = (torch.ones(T, T, dtype=torch.bool).tril() & left[:, None] | torch.eye(T, dtype=torch.bool))[:, None]
    return {"all": (None, False), "causal": (None, True), "masked": (mask, False)}[how]


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("heads", [H, 2, 1], ids=lambda n: f"{n} key heads")
@pytest.mark.parametrize("how", ["all", "causal", "masked"])
def test_attention_and_its_gradients_are_those_of_the_formula(how, heads, dtype):
    given = draw(B, H, T, d, dtype=dtype), draw(B, heads, T, d, dtype=dtype, seed=1), draw(B, heads, T, d, dtype=dtype, seed=2)  # fmt: skip
    g, results = draw(B, H, T, d, dtype=dtype, seed=3), []
    for form, kind in ((attend, dtype), (PLAIN, torch.float32)):
        x = [t.detach().to(kind).requires_grad_() for t in given]
        out = form(*x, *looking(how))
        assert out.dtype == kind
        results.append([out, *torch.autograd.grad(out, x, g.to(kind))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours.float(), theirs, atol=CLOSE[dtype], rtol=CLOSE[dtype])
    with torch.inference_mode():  # in bfloat16 this is another kernel
        torch.testing.assert_close(attend(*given, *looking(how)).float(), results[1][0], atol=CLOSE[dtype], rtol=CLOSE[dtype])  # fmt: skip


def test_only_training_in_bfloat16_on_a_cpu_is_written_out(monkeypatch):
    ran = []
    monkeypatch.setattr(kernels, "attend_in_bfloat16", lambda *a: ran.append("written out"))
    monkeypatch.setattr(kernels.F, "scaled_dot_product_attention", lambda *a, **k: ran.append("fused"))
    for dtype, training, device in (
        (torch.float32, True, "cpu"), (torch.bfloat16, False, "cpu"), (torch.bfloat16, True, "meta"), (torch.bfloat16, True, "cpu")
    ):  # fmt: skip
        attend(*[draw(B, H, T, d, dtype=dtype).to(device).requires_grad_(training) for _ in range(3)])
    assert ran == ["fused", "fused", "fused", "written out"]


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("groups", [[0, 0, 1, 0, 1], [0, 1, 1, 2, 2], [1, 0]], ids=str)
@pytest.mark.parametrize("heads", [H, 2], ids=lambda n: f"{n} key heads")
def test_a_beginning_looked_at_once_for_all_its_rows_is_the_beginning_beside_each_row(groups, heads, dtype):
    config = LanguageConfig(9, 32, 8, num_layers=1, num_heads=H, num_kv_heads=heads, head_dim=d)
    G, rows = max(groups) + 1, len(groups)
    begin = Cache(config, G, 6, dtype=dtype)
    begin.add(0, draw(G, heads, 6, d, dtype=dtype), draw(G, heads, 6, d, dtype=dtype, seed=1))
    begin.seen[:] = torch.arange(6) >= torch.arange(G)[:, None]  # beginnings of unequal lengths, padded on the left
    cache = Cache(config, rows, 5, dtype=dtype, begin=begin, groups=groups)
    cache.add(0, draw(rows, heads, 4, d, dtype=dtype, seed=2), draw(rows, heads, 4, d, dtype=dtype, seed=3))
    cache.length = 4
    q, k, v = (draw(rows, n, 1, d, dtype=dtype, seed=4 + n) for n in (H, heads, heads))
    allowed = (torch.arange(5) >= torch.arange(rows)[:, None] % 3)[:, None, None]  # (B, 1, 1, S)
    out = cache.attend(0, q, k, v, allowed)
    whole_k, whole_v = (torch.cat([a[groups], b], dim=2).float() for a, b in ((begin.keys[0], cache.keys[0]), (begin.values[0], cache.values[0])))  # fmt: skip
    expected = PLAIN(q.float(), whole_k, whole_v, torch.cat([begin.seen[groups][:, None, None], allowed], dim=-1))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, atol=CLOSE[dtype], rtol=CLOSE[dtype])


def test_what_runs_instead_keeps_the_plain_form_and_its_words():
    @kernels.run_instead(lambda x, more=1: x + more)
    def plain(x, more=1):
        """Words."""
        return x - more

    assert plain(3) == 4 and plain(3, more=2) == 5 and plain.__wrapped__(3) == 2 and plain.__doc__ == "Words."
    assert attend.__doc__ == PLAIN.__doc__ and "Eq. 1" in attend.__doc__


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_the_norm_and_its_gradient_are_those_of_the_formula(dtype, size):
    x, g, results = draw(3, 5, 16, dtype=dtype) * size, draw(3, 5, 16, dtype=dtype, seed=1), []
    for form, kind in ((normalise, dtype), (normalise.__wrapped__, torch.float32)):
        one = x.detach().to(kind).requires_grad_()
        out = form(one, 1e-6)
        assert out.dtype == kind
        results.append([out, *torch.autograd.grad(out, one, g.to(kind))])
    for ours, theirs in zip(*results, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours.float() / scale, theirs / scale, atol=CLOSE[dtype], rtol=CLOSE[dtype])


@given(st.integers(1, 100_000))
def test_rounded_is_at_most_an_eighth_larger(n):
    assert n <= rounded(n) <= n * 1.125 and rounded(rounded(n)) == rounded(n)


def test_in_bfloat16_on_a_cpu_matrices_come_in_few_sizes_and_the_loss_is_the_same(monkeypatch):
    assert len({rounded(n) for n in range(129, 257)}) == 8
    model, (samples, seen) = toy.tiny_llava(), toy.tiny_samples(40)
    sizes, losses = {True: set(), False: set()}, {True: [], False: []}
    for few in (True, False):
        monkeypatch.setattr(kernels, "rounded", rounded if few else lambda n: n)
        first = model.language_model.layers[0].input_layernorm  # it sees (B, T', D)
        hook = first.register_forward_hook(lambda _, x, __, few=few: sizes[few].add(x[0].shape[1]))
        for n in range(0, 40, 4):
            some = samples[n : n + 4]
            pictures = [[seen[s.image]] if s.image else [] for s in some]
            with torch.autocast("cpu", torch.bfloat16):
                loss, count = model(Batch([s.ids for s in some], [s.labels for s in some], pictures))
            assert count == sum(int((s.labels[1:] != IGNORE).sum()) for s in some)
            losses[few].append(loss.item())
        hook.remove()
    assert len(sizes[True]) < len(sizes[False])
    assert losses[True] == pytest.approx(losses[False], abs=0.02)

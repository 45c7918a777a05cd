"""Quick forms of what other modules write out plainly, each with the figure that earned its place.

tests/test_kernels.py holds each equal to its plain form, value and gradient. What makes its benchmark less than 10 %
quicker is deleted; LOG.md (2026-11-27) lists what was.

Figures are from `python benchmarks/kernels.py --shapes tiny`: CPU time on one core of an AMD EPYC with AVX512-bf16,
torch 2.13. It times the norm alone, a step of stage 2 (32 samples), and answering 90 questions about 30 pictures.

B batch, T tokens, H heads (H_kv of keys and values); S tokens to look at, d size of a head; G beginnings, n rows each.
"""

import math
from functools import wraps

import torch
import torch.nn.functional as F

from minillava.data import IGNORE


def run_instead(quick):
    """A decorator: `quick` runs in place of the function below it, which stays as `__wrapped__`.

    Delete the decorator's line, and what is written below it runs.
    """

    def swap(plain):
        @wraps(plain)
        def run(*args, **kwargs):
            return quick(*args, **kwargs)

        return run

    return swap


def attend(q, k, v, mask=None, causal=False):
    """`vision.attend` by PyTorch's fused kernel; in training in bfloat16 on a CPU by `attend_in_bfloat16`.

    A step in float32 takes 1.53 times as long without it.
    """
    if q.shape[1] > k.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))  # (B, H, S, d)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        return attend_in_bfloat16(q, k, v, mask, causal)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def attend_in_bfloat16(q, k, v, mask=None, causal=False):
    """`vision.attend` for H = H_kv, where what is hidden gets -inf inside the product that makes the scores.

    A step in bfloat16 takes 1.19 times as long with `vision.attend` as it is written, and 1.49 times as long with the
    fused kernel, whose backward pass is slow there.
    """
    (B, H, T, d), S = q.shape, k.shape[2]
    if causal:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril()
    if mask is None:
        scores = (q * d**-0.5) @ k.transpose(-2, -1)  # (B, H, T, S)
    else:
        hidden = torch.zeros((), dtype=q.dtype, device=q.device).masked_fill(~mask, -math.inf)
        hidden = hidden.expand(B, H, T, S).reshape(-1, T, S)  # (B x H, T, S)
        scores = torch.baddbmm(hidden, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=d**-0.5)
    return scores.view(B, H, T, S).softmax(dim=-1) @ v


def attend_behind(q, k, v, allowed, first_k, first_v, first_seen, place, most):
    """`vision.attend` for one new token per row, where rows share a beginning: its keys are read once for all of them.

    q: (B, H, 1, d). k, v: (B, H_kv, S, d), each row's own; allowed: (B, 1, 1, S), True where it may look.
    first_k, first_v: (G, H_kv, S', d), of each beginning; first_seen: (G, S'), True at real tokens.
    place: (B,); row i is number `place[i] % most` of the rows that continue beginning `place[i] // most`. most: n.
    Returns (B, H, 1, d).

    Where each token copies its beginning beside its own keys, answering takes 1.34 times as long in float32 and 1.67
    times in bfloat16. Where each row copies its beginning once, it takes 1.17 and 1.33 times as long, and keys and
    values need 1.4 times the memory (1.8 times at the Colab shape).
    """
    B, H, _, d = q.shape
    q = (q * d**-0.5).view(B, k.shape[1], -1, d)  # (B, H_kv, R, d): R heads that share a key stand where tokens stand

    def together(x):  # (B, H_kv, R, .) to (G, H_kv, n x R, .), 0 where a beginning has fewer than n rows
        out = x.new_zeros(len(first_k) * most, *x.shape[1:])
        out[place] = x
        return out.unflatten(0, (-1, most)).transpose(1, 2).flatten(2, 3)

    def apart(x):  # and back
        return x.unflatten(2, (most, -1)).transpose(1, 2).flatten(0, 1)[place]

    first = (together(q) @ first_k.transpose(-2, -1)).masked_fill_(~first_seen[:, None, None], -math.inf)
    first = apart(first)  # (B, H_kv, R, S')
    own = (q @ k.transpose(-2, -1)).masked_fill_(~allowed, -math.inf)  # (B, H_kv, R, S)
    shares = torch.cat([first, own], dim=-1).softmax(-1, dtype=torch.float32).to(q.dtype)
    of_first, of_own = shares.split([first.shape[-1], own.shape[-1]], dim=-1)
    return (apart(together(of_first) @ first_v) + of_own @ v).view(B, H, 1, d)


def normalise(x, eps):
    """`language.normalise`, with its gradient written out; on a GPU PyTorch's own.

    Without it a norm's forward and backward pass takes 2.3 times as long in float32, 1.8 times in bfloat16. A step
    takes 0.98 to 1.04 times as long, but its activations need 1.11 times the memory in float32, 1.14 times in bfloat16.
    """
    if x.is_cuda:
        return F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype)
    return _Normalise.apply(x, eps)


class _Normalise(torch.autograd.Function):
    """With n = x / r, r the root of the mean square, and g the gradient of n, that of x is (g - n mean(g n)) / r."""

    @staticmethod
    def forward(ctx, x, eps):
        wide = x.float()
        over = torch.rsqrt(torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / x.shape[-1] + eps)
        normed = wide * over
        ctx.save_for_backward(normed, over)
        return normed.to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        normed, over = ctx.saved_tensors
        wide = g.float()
        along = (wide * normed).mean(-1, keepdim=True)
        return torch.addcmul(wide, normed, along, value=-1).mul_(over).to(g.dtype), None


def in_few_sizes(embeds, target, wanted, longest):
    """The same batch with a little more padding, in bfloat16 on a CPU; elsewhere as it is.

    For each size of a matrix that it has not met, oneDNN compiles a kernel: 3 to 8 ms on a processor with AMX, where a
    product of the small model takes 0.2 to 1 ms. So lengths T' and the number of wanted rows N become one of eight
    sizes between powers of two. Added rows have the label IGNORE, so the loss is the same.

    On a Xeon with AMX two epochs of ever new batches take 1.2 times as long without it (LOG.md, 2026-11-26; a script
    that was not kept). On the EPYC above, without AMX, steps on ever new batches take 0.94 to 1.06 times as long.

    embeds: (B, T', D). target, wanted: (B, T'). longest: tokens that the language model reads. Returns the first three.
    """
    if embeds.device.type != "cpu" or not (torch.is_autocast_enabled("cpu") or embeds.dtype == torch.bfloat16):
        return embeds, target, wanted
    more = min(rounded(embeds.shape[1]), longest) - embeds.shape[1]
    embeds = F.pad(embeds, (0, 0, 0, more))
    target, wanted = F.pad(target, (0, more), value=IGNORE), F.pad(wanted, (0, more))
    count = int(wanted.sum())
    spare = (~wanted).flatten().nonzero().flatten()[: rounded(count) - count]
    return embeds, target, wanted.flatten().index_fill(0, spare, True).view_as(wanted)


def rounded(n):
    """n or somewhat more: one of eight sizes between a power of two and the next."""
    step = 1 << max(0, n.bit_length() - 4)
    return -(-n // step) * step

"""Quick forms of what other modules write out plainly, each with the figure that earned its place.

tests/test_kernels.py hold each equal to its plain form; benchmarks/kernels.py times both side by side. A form that makes
its own benchmark less than 10 % quicker is deleted; LOG.md (2026-11-27) has those that were. E: 2 cores of an AMD EPYC.

B batch, T tokens, H heads (H_kv of keys and values), S slots, d size of a head; G beginnings of at most n rows each.
"""

import math
from functools import wraps

import torch
import torch.nn.functional as F


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
    """As `vision.attend`: PyTorch's fused kernel, or in training in bfloat16 on a CPU batched products."""
    if q.shape[1] > k.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))  # (B, H, S, d)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        return attend_in_bfloat16(q, k, v, mask, causal)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def attend_in_bfloat16(q, k, v, mask=None, causal=False):
    """As `vision.attend` with H = H_kv: what is hidden is added to the scores inside the product that makes them."""
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
    """As `vision.attend` of one new token per row, where rows share a beginning: its keys are read once for all of them.

    q: (B, H, 1, d). k, v: (B, H_kv, S, d) of each row, with allowed (B, 1, 1, S), True at slots that it may see.
    first_k, first_v: (G, H_kv, S', d) of each beginning, with first_seen (G, S'), True at real tokens.
    place: (B,), row i is number `place[i] % most` of the rows behind beginning `place[i] // most`. most: n.
    Returns (B, H, 1, d).
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

"""Quick forms of what the taught files write out plainly, each equal to the plain form by test."""

import torch
import torch.nn.functional as F

from minillava.data import IGNORE


def few_sizes(x):
    """Whether matrices should come in few sizes: in bfloat16 on a CPU. For each size that it has not met oneDNN makes a
    kernel anew, 3 to 8 ms on a processor with AMX, where a product of the small model takes 0.2 to 1 ms."""
    return x.device.type == "cpu" and (torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16)


def rounded(n):
    """n or somewhat more: one of eight sizes between a power of two and the next."""
    step = 1 << max(0, n.bit_length() - 4)
    return -(-n // step) * step


class Normed(torch.autograd.Function):
    """x over the root of its mean square, with its gradient written out: half the time of what autograd strings together.

    With n = x / r, r the root, and g the gradient of n, that of x is (g - n mean(g n)) / r.
    """

    @staticmethod
    def forward(ctx, x, eps):
        wide = x.float()  # the sum of squares overflows in half precision
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


def lowered(x):
    """Under autocast, x in the precision to which every projection would else cast it again; otherwise x."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Turned(torch.autograd.Function):
    """x turned, with its gradient written out: what comes back is turned back, by the same angles the other way. Autograd
    would string it together from the four products and sums; an epoch of the small scale takes 2 to 5 % longer so."""

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)

    @staticmethod
    def backward(ctx, g):
        cos, sin = ctx.saved_tensors
        return torch.addcmul(g * cos, g.roll(g.shape[-1] // 2, dims=-1), sin, value=-1), None, None


def _widened(embeds, target, wanted, context):
    """The batch with some more padding, T' and N `rounded`: what is wanted without a label counts for nothing."""
    more = min(rounded(embeds.shape[1]), context) - embeds.shape[1]
    embeds = F.pad(embeds, (0, 0, 0, more))
    target, wanted = F.pad(target, (0, more), value=IGNORE), F.pad(wanted, (0, more))
    count = int(wanted.sum())
    spare = (~wanted).flatten().nonzero().flatten()[: rounded(count) - count]
    return embeds, target, wanted.flatten().index_fill(0, spare, True).view_as(wanted)

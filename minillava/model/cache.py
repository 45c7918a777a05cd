"""Keys and values of the tokens read so far, so that a further token costs only itself.

Notable
- Allocated once. All rows use the same slots: shorter rows are padded on the left, and `seen` says which slots are real.
- A finished row leaves at the price of one copied row.
- Rows may stand behind one beginning that is kept, read and looked at once for all of them: what several questions about
  one picture have in common, the picture first of all.

Try it: `cache = Cache(model.config, 1, 9); model(embeds, cache=cache); cache.length`.

B batch, T tokens, H heads (H_kv of keys and values), S slots, d size of a head; G beginnings, each before at most n rows.
"""

import math

import torch

from minillava.model.vision import attend


class Cache:
    """(B, H_kv, S, d) keys and values a layer. begin: a Cache that is read; row i goes on behind its row groups[i]."""

    def __init__(self, config, batch, slots, device="cpu", dtype=torch.float32, begin=None, groups=None):
        shape = (batch, config.num_kv_heads, slots, config.head_dim)
        # Not set to 0: a slot is written, with padding too, before it is read.
        self.keys = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.values = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.seen = torch.zeros(batch, slots, dtype=torch.bool, device=device)  # True at a real token
        self.length = 0  # slots in use
        self.before = torch.zeros(batch, 1, dtype=torch.long, device=device)  # real tokens in a row's beginning
        self.begin = begin
        if begin is not None:
            self.widest = max(groups.count(group) for group in groups)  # n
            place = [group * self.widest + groups[:row].count(group) for row, group in enumerate(groups)]
            self.group, self.place = torch.tensor([groups, place], device=device)  # the row's G, and place in G x n
            self.before = begin.seen[groups].sum(1, keepdim=True)

    def add(self, layer, k, v):
        """Store (B, H_kv, T, d) behind what is there; returns all keys and values of this layer so far."""
        end = self.length + k.shape[2]
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def attend(self, layer, q, k, v, allowed):
        """What new tokens see: themselves, the slots that are `allowed` (B, 1, T, S), and their row's beginning.

        q: (B, H, T, d); k, v: (B, H_kv, T, d), which are stored; returns (B, H, T, d).
        """
        k, v = self.add(layer, k, v)
        if self.begin is None:
            return attend(q, k, v, allowed)
        first_k, first_v, seen = self.begin.keys[layer], self.begin.values[layer], self.begin.seen  # (G, H_kv, S', d)
        (B, H, T, d), S = q.shape, k.shape[2]
        if T > 1:  # reading: beside its own, each row gets its beginning for a moment
            k, v = torch.cat([first_k[self.group], k], dim=2), torch.cat([first_v[self.group], v], dim=2)
            allowed = torch.cat([seen[self.group][:, None, None].expand(-1, -1, T, -1), allowed], dim=-1)
            return attend(q, k, v, allowed)
        # Writing is bound by how many keys come from memory, so a beginning's are looked at by all its rows at once.
        q = (q * d**-0.5).view(B, k.shape[1], -1, d)  # heads that share a key stand where tokens stand: R of them
        first = self._together(q) @ first_k.transpose(-2, -1)  # (G, H_kv, n x R, S')
        first = self._apart(first.masked_fill_(~seen[:, None, None], -math.inf))  # (B, H_kv, R, S')
        own = (q @ k.transpose(-2, -1)).masked_fill_(~allowed, -math.inf)  # (B, H_kv, R, S)
        shares = torch.cat([first, own], dim=-1).softmax(-1, dtype=torch.float32).to(q.dtype)
        of_first, of_own = shares.split([first.shape[-1], S], dim=-1)
        return (self._apart(self._together(of_first) @ first_v) + of_own @ v).view(B, H, T, d)

    def _together(self, x):
        """(B, H_kv, R, .) a row to (G, H_kv, n x R, .) a beginning; 0 where a beginning has fewer than n rows."""
        out = x.new_zeros(len(self.begin.seen) * self.widest, *x.shape[1:])
        out[self.place] = x
        return out.unflatten(0, (-1, self.widest)).transpose(1, 2).flatten(2, 3)

    def _apart(self, x):
        """The inverse of `_together`."""
        return x.unflatten(2, (self.widest, -1)).transpose(1, 2).flatten(0, 1)[self.place]

    def keep(self, rows):
        """Go on with these rows (indices, rising) only: a finished answer stops costing. Returns their new order.

        Rows from the end move into the gaps, so that only they are copied.
        """
        gaps, movers = sorted(set(range(len(rows))) - set(rows)), [row for row in rows if row >= len(rows)]
        order = list(range(len(rows)))
        for gap, row in zip(gaps, movers, strict=True):
            order[gap] = row
        for table in (*self.keys, *self.values, self.seen):
            table[gaps] = table[movers]
        self.keys, self.values = ([table[: len(rows)] for table in tables] for tables in (self.keys, self.values))
        self.seen, self.before = self.seen[: len(rows)], self.before[order]
        if self.begin is not None:
            self.group, self.place = self.group[order], self.place[order]
        return order

    def copy_of(self, other):
        """Begin with what `other`, of as many rows, holds."""
        for mine, theirs in zip(self.keys + self.values, other.keys + other.values, strict=True):
            mine[:, :, : other.length] = theirs[:, :, : other.length]
        self.seen[:, : other.length] = other.seen[:, : other.length]
        self.length = other.length

    def back_to(self, length):
        """Forget all slots from `length` on; what follows takes their place."""
        self.seen[:, length:] = False
        self.length = length

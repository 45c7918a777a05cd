"""Keys and values of the tokens read so far, so that each further token costs only itself.

Notable
- Memory is allocated once. All rows use the same slots. Shorter rows are padded on the left, and `seen` says which
  slots hold real tokens.
- Rows may share a beginning, which is kept and read once for all of them. Several questions about one picture share at
  least the picture.

Try it: `cache = Cache(model.config, 1, 9); model(embeds, cache=cache); cache.length`.

B batch, T tokens, H heads (H_kv of keys and values), L layers; S slots, d size of a head; G beginnings with S' slots.
"""

import torch
import torch.nn.functional as F

from minillava.model import kernels
from minillava.model.vision import attend


class Cache:
    """Keys and values of L layers, (B, H_kv, S, d) each.

    config: a LanguageConfig. batch: B. slots: S. begin: a Cache of G rows that has been filled; row i of this one
    continues its row groups[i].
    """

    def __init__(self, config, batch, slots, device="cpu", dtype=torch.float32, begin=None, groups=None):
        shape = (batch, config.num_kv_heads, slots, config.head_dim)
        # Not set to 0: every slot is written, padding too, before it is read.
        self.keys = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.values = [torch.empty(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.seen = torch.zeros(batch, slots, dtype=torch.bool, device=device)  # (B, S), True at a real token
        self.length = 0  # slots in use
        self.before = torch.zeros(batch, 1, dtype=torch.long, device=device)  # (B, 1) real tokens in a row's beginning
        self.begin = begin
        if begin is not None:
            self.most = max(groups.count(group) for group in groups)  # rows that share one beginning
            place = [group * self.most + groups[:row].count(group) for row, group in enumerate(groups)]
            self.place = torch.tensor(place, device=device)  # (B,), as in `kernels.attend_behind`
            self.before = begin.seen[groups].sum(1, keepdim=True)

    def add(self, layer, k, v):
        """Store (B, H_kv, T, d) in the next slots. Returns all keys and values of this layer, (B, H_kv, S, d)."""
        end = self.length + k.shape[2]
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def attend(self, layer, q, k, v, allowed):
        """What T new tokens read: from the `allowed` slots, their own included, and from their row's beginning.

        q: (B, H, T, d). k, v: (B, H_kv, T, d), which are stored. allowed: (B, 1, T, S), without the beginning.
        Returns (B, H, T, d).
        """
        k, v = self.add(layer, k, v)  # (B, H_kv, S, d)
        if self.begin is None:
            return attend(q, k, v, allowed)
        first = self.begin.keys[layer], self.begin.values[layer], self.begin.seen
        if q.shape[2] == 1:
            return kernels.attend_behind(q, k, v, allowed, *first, self.place, self.most)
        first_k, first_v, seen = (x[self.place // self.most] for x in first)  # (B, H_kv, S', d) twice, (B, S')
        seen = seen[:, None, None].expand(-1, -1, q.shape[2], -1)  # (B, 1, T, S')
        k, v, allowed = torch.cat([first_k, k], 2), torch.cat([first_v, v], 2), torch.cat([seen, allowed], 3)
        return attend(q, k, v, allowed)

    def keep(self, rows):
        """Continue with these rows only: rows that have ended cost nothing more. rows: rising indices.

        Returns their new order: rows from the end move into the gaps, so that only they are copied.
        """
        order, last = list(range(len(rows))), [row for row in rows if row >= len(rows)]
        for gap in sorted(set(order) - set(rows)):
            order[gap] = last.pop()
        # Indices go to the device once: a list would be sent, and waited for, at every layer.
        new = torch.tensor(order, device=self.seen.device)  # (B,)
        moved = (new != torch.arange(len(rows), device=new.device)).nonzero().flatten()
        for tables in (self.keys, self.values):
            for layer, table in enumerate(tables):
                table[moved] = table[new[moved]]
                tables[layer] = table[: len(rows)]
        self.seen, self.before = self.seen[new], self.before[new]
        if self.begin is not None:
            self.place = self.place[new]
        return order

    def join(self, other, room):
        """Take in the rows of `other` behind these, with `room` free slots. Neither may have a shared beginning.

        The newest tokens stay last. Slots in which no row holds a token any more are dropped.
        """
        length, both = max(self.length, other.length), (self, other)
        seen = [F.pad(one.seen[:, : one.length], (length - one.length, room)) for one in both]
        unused = int(torch.cat(seen).any(0).long().argmax())  # slots before the first token of any row
        for layer in range(len(self.keys)):
            for name in ("keys", "values"):
                tables = [getattr(one, name)[layer][:, :, : one.length] for one in both]
                tables = [F.pad(x, (0, 0, length - x.shape[2], room))[:, :, unused:] for x in tables]
                getattr(self, name)[layer] = torch.cat(tables)
        self.seen, self.length = torch.cat(seen)[:, unused:], length - unused
        self.before = torch.cat([self.before, other.before])

    def copy_of(self, other):
        """Take over what `other`, a Cache of as many rows, holds."""
        for mine, theirs in zip(self.keys + self.values, other.keys + other.values, strict=True):
            mine[:, :, : other.length] = theirs[:, :, : other.length]
        self.seen[:, : other.length] = other.seen[:, : other.length]
        self.length = other.length

    def back_to(self, length):
        """Forget all slots from `length` on; the next tokens take their place."""
        self.seen[:, length:] = False
        self.length = length

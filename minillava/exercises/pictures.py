"""An answer beside its target, drawn: as curves over one axis, as maps, or as pieces of text with their loss.

Notable: both are drawn to the target's scale, so what looks alike is alike. An answer that cannot be drawn is an error
here; the check then continues without a picture.
"""

import torch
from matplotlib.figure import Figure

from minillava.figures import charts, panels
from minillava.figures.model import TOKENS
from minillava.figures.style import HEAT, canvas

COLOURS = {"read": TOKENS["read"], "picture": TOKENS["image"], "loss": TOKENS["answer"]}


def both_curves(got, wanted) -> Figure:
    """Two lines over one axis, the target in grey behind yours. got, wanted: lists of numbers or (N,) tensors."""
    both = {"wanted": wanted, "yours": got}
    both = {name: torch.as_tensor(values).detach().cpu().flatten().tolist() for name, values in both.items()}
    x = range(max(map(len, both.values())))
    return charts.lines(x, both, "place", "value", "Yours over the target, which is grey")


def both_maps(got, wanted) -> Figure:
    """Two maps side by side, in the colours of the target's range. got, wanted: (N, M) tensors."""
    wanted, got = (values.detach().cpu().float() for values in (wanted, got))  # on any device
    finite = wanted[wanted.isfinite()]
    scale = {"vmin": float(finite.min()), "vmax": float(finite.max())} if finite.numel() else {}
    figure, both = canvas(6, 2.4, 2)
    for axis, name, values in zip(both, ("yours", "wanted"), (got, wanted)):
        axis.imshow(values.numpy(), aspect="auto", cmap=HEAT, **scale)
        axis.set_title(f"{name}  {tuple(values.shape)}", fontsize=9)
        axis.set(xticks=[], yticks=[])
    return figure


def both_pieces(got, wanted) -> Figure:
    """Your pieces above the target's, as boxes; a pink rim differs. got, wanted: (text, key of COLOURS) pairs."""
    alike = [mine == theirs for mine, theirs in zip(got, wanted)] + [False] * abs(len(got) - len(wanted))
    off, both = alike[: len(got)].count(False), {}
    for name, some in (("yours", got), ("wanted", wanted)):
        both[name] = [
            panels.Piece(text, COLOURS[kind], kind == "loss", not same) for (text, kind), same in zip(some, alike)
        ]
    return panels.pieces(both, COLOURS, f"{off} of your {len(got)} pieces differ (with a pink rim)")

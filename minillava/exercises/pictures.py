"""An answer beside its target, drawn: as curves over one axis, as maps, or as pieces of text in the colours of the loss.

Notable: both are drawn to the target's scale, so what looks alike is alike. An answer of a form that cannot be drawn is an
error here; the check then goes on without a picture.
"""

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minillava.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK

LOOK = {"read": ("#E6E6EA", INK), "picture": (ORANGE, INK), "loss": (GREEN, "white")}
LEGEND = "green carries loss, orange is the picture, a pink rim differs"


def curves(got, wanted) -> Figure:
    """Two lines over one axis, the target dashed behind yours. got, wanted: lists of numbers or (N,) tensors."""
    figure = Figure(figsize=(5, 2.2), layout="constrained")
    axes = figure.subplots()
    for values, style in ((wanted, dict(color=GREY, ls="--", lw=3, label="wanted")), (got, dict(color=BLUE, label="yours"))):  # fmt: skip
        axes.plot(torch.as_tensor(values).detach().cpu().flatten().tolist(), **style)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def maps(got, wanted) -> Figure:
    """Two maps side by side, in the colours of the target's range. got, wanted: (N, M) tensors."""
    wanted, got = (values.detach().cpu().float() for values in (wanted, got))  # on any device
    finite = wanted[wanted.isfinite()]
    scale = dict(vmin=float(finite.min()), vmax=float(finite.max())) if finite.numel() else {}
    figure = Figure(figsize=(6, 2.4), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, 2), (("yours", got), ("wanted", wanted))):
        axes.imshow(values.numpy(), aspect="auto", cmap="viridis", **scale)
        axes.set_title(f"{name}  {tuple(values.shape)}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


def pieces(got, wanted, width: int = 92) -> Figure:
    """Two rows of boxes, one above the other: grey is read, orange the picture, green carries loss; pink rims differ.

    got, wanted: (text, kind) pairs, kind a key of LOOK. width: characters a line.
    """
    placed = []
    for some in (got, wanted):
        boxes, x, y = [], 0.0, 0
        for text, kind in some:
            text = text.replace("\n", "↵")
            if x and x + len(text) > width:
                x, y = 0.0, y + 1
            boxes.append((x, y, len(text) + 0.6, text, kind))
            x += len(text) + 1.2
        placed.append(boxes)
    lines = [1 + max((box[1] for box in boxes), default=0) for boxes in placed]
    figure = Figure(figsize=(8, 0.28 * sum(lines) + 0.7), layout="constrained")
    both = figure.subplots(2, 1, height_ratios=lines)
    for axes, name, boxes, count in zip(both, (f"yours   ({LEGEND})", "wanted"), placed, lines):
        for n, (x, y, w, text, kind) in enumerate(boxes):
            off = n >= min(map(len, (got, wanted))) or got[n] != wanted[n]
            fill, ink = LOOK[kind]
            axes.add_patch(
                Rectangle((x, -y - 0.38), w, 0.76, fc=fill, ec=PINK if off else "white", lw=2 if off else 0.5)
            )
            axes.text(x + w / 2, -y, text, ha="center", va="center", fontsize=6.5, family="monospace", color=ink)
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xlim(-0.5, width + 2)
        axes.set_ylim(-count + 0.5, 0.5)
        axes.set_axis_off()
    return figure

"""An answer beside its target, drawn: as curves over one axis, or as maps."""

import torch
from matplotlib.figure import Figure


def curves(got, wanted) -> Figure | None:
    """Two lines over one axis, the target dashed behind yours. got, wanted: lists of numbers or (N,) tensors."""
    figure = Figure(figsize=(5, 2.2), layout="constrained")
    axes = figure.subplots()
    for values, style in ((wanted, dict(color="#999999", ls="--", lw=3, label="wanted")), (got, dict(color="#1f6fb4", label="yours"))):  # fmt: skip
        axes.plot(torch.as_tensor(values).detach().cpu().flatten().tolist(), **style)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def maps(got, wanted) -> Figure | None:
    """Two maps side by side. got, wanted: (N, M) tensors; None where yours is no map."""
    if not isinstance(got, torch.Tensor) or got.dim() != 2:
        return None
    figure = Figure(figsize=(6, 2.4), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, 2), (("yours", got), ("wanted", wanted))):
        axes.imshow(values.detach().cpu().float(), aspect="auto", cmap="viridis")
        axes.set_title(f"{name}  {tuple(values.shape)}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure

"""Shared by the checks of gpu_right.py: a row of their table, gradients in each precision, and how far results differ.

Tolerances were fixed on a CPU, before the first run on a GPU.
"""

import math
from contextlib import contextmanager
from functools import cache

import forward
import torch

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
AUTOCAST = {f"{name} autocast": dtype for name, dtype in HALF.items()}
MIXED = ("float32", "TF32", *AUTOCAST)  # with weights in float32
# Relative to the loss, and to the norm of the gradients: of two ways to compute them in the same precision.
LOSS = {"float32": 1e-5, "TF32": 1e-3, "float16 autocast": 2e-3, "bfloat16 autocast": 1e-2, "bfloat16": 1e-2}
GRADIENT = {"float32": 1e-4, "TF32": 2e-2, "float16 autocast": 2e-2, "bfloat16 autocast": 0.1, "bfloat16": 0.1}
VALUE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}  # relative to the largest value
setting = cache(forward.setting)  # checks change only copies of its models


def row(check, precision, difference, tolerance, note=""):
    """One line of the table. A difference that is not finite becomes None and does not hold; the note says it."""
    finite = math.isfinite(difference)
    kept, note = (difference, note) if finite else (None, f"{difference}; {note}")
    ok = finite and difference <= tolerance
    return dict(check=check, precision=precision, difference=kept, tolerance=tolerance, ok=ok, note=note)


def apart(one, other):
    """The largest difference of two tensors, relative to the largest value of the second."""
    one, other = one.detach().double().cpu(), other.detach().double().cpu()
    return ((one - other).abs().max() / other.abs().max()).item()


def norm_apart(ones, others):
    """The norm of the difference of two dicts of tensors, relative to the norm of the second."""
    assert ones.keys() == others.keys() and ones, "the sides have other tensors"
    over = under = 0.0
    for name, other in others.items():
        other = other.double()
        over += (ones[name].to(other.device).double() - other).square().sum().item()
        under += other.square().sum().item()
    return math.sqrt(over / under)


@contextmanager
def computing(precision, device):
    """Autocast and TF32 as the precision asks for them."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "TF32"
    try:
        with torch.autocast(device, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def our_loss(model, batch):
    """Eq. 3 of a LLaVA of this package."""
    return model.loss(batch)[0]


def gradients(precision, loss_of, model, *given):
    """(the loss, {name: gradient}) of `loss_of(model, *given)`; scaled in float16, so that none becomes 0."""
    model.zero_grad(set_to_none=True)
    device, scale = next(model.parameters()).device.type, 4096 if precision == "float16 autocast" else 1
    with computing(precision, device):
        loss = loss_of(model, *given)
        with torch.autocast(device, enabled=False):
            (loss * scale).backward()  # TF32 is for this pass too
    found = {name: p.grad.float() / scale for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return loss.item(), found


def beside(what, precision, one, other, note=""):
    """Two rows: the losses, and the gradients of W or of the language model, whichever differ more."""
    far = {}
    for part in ("projector", "language_model"):
        far[part] = norm_apart(*({k: g for k, g in found.items() if k.startswith(part)} for _, found in (one, other)))
    said = f"{one[0]:.5f} and {other[0]:.5f}"
    yield row(f"{what}: loss", precision, abs(one[0] / other[0] - 1), LOSS[precision], said)
    said = ", ".join(f"{part} {value:.1e}" for part, value in far.items()) + note
    yield row(f"{what}: gradients", precision, max(far.values()), GRADIENT[precision], said)

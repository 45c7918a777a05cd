"""Compare the result of an answer with the expected one: by value, within float32's precision, on any device."""

import math
import reprlib
from dataclasses import dataclass

import torch

_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict, _SHORT.maxother, _SHORT.maxlevel = 90, 6, 6, 5, 90, 3


@dataclass(frozen=True)
class Raised:
    """An error that was raised instead of a result."""

    error: Exception


def one_line(value) -> str:
    """A value as one short line; a tensor as its shape and first numbers."""
    if isinstance(value, Raised):
        return f"{type(value.error).__name__}: {value.error}"
    if isinstance(value, torch.Tensor):
        some = value.detach().cpu().flatten()[:5].tolist()
        numbers = ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in some)
        return f"tensor {tuple(value.shape)} [{numbers}{', ...' if value.numel() > 5 else ''}]"
    if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
        return "[" + ", ".join(map(one_line, value[:4])) + (", ...]" if len(value) > 4 else "]")
    if isinstance(value, dict) and value and all(isinstance(v, torch.Tensor) for v in value.values()):
        return f"{len(value)} tensors by name"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return _SHORT.repr(value)


def difference(got, want, tolerance: float = 1e-4, at: str = "") -> str | None:
    """None when `got` equals `want`, else a sentence that says how they differ. at: the position within the result."""
    place = f"at {at}: " if at else ""
    if isinstance(want, Raised) or isinstance(got, Raised):
        return _errors(got, want, place)
    if isinstance(want, torch.Tensor):
        return _tensors(got, want, tolerance, place)
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.item()
    if isinstance(want, (int, float)) and not isinstance(want, bool):
        if not isinstance(got, (int, float)) or isinstance(got, bool):
            return f"{place}{type(got).__name__} where a number was wanted"
        exact = isinstance(want, int)  # a count is right or wrong, but as a float32 it may have lost its last digits
        room = (0 if isinstance(got, int) else 1e-6) if exact else tolerance
        close = math.isclose(got, want, rel_tol=room, abs_tol=0 if exact else tolerance)
        return None if close or (math.isnan(want) and math.isnan(got)) else f"{place}{got:.9g} is not {want:.9g}"
    if isinstance(want, dict):
        if not isinstance(got, dict) or got.keys() != want.keys():
            keys = one_line(list(got)) if isinstance(got, dict) else type(got).__name__
            return f"{place}the keys are {keys}, not {one_line(list(want))}"
        return _first(difference(got[k], want[k], tolerance, f"{at}[{k!r}]") for k in want)
    if isinstance(want, (list, tuple)):
        if not isinstance(got, (list, tuple)):
            return f"{place}{type(got).__name__} where a {type(want).__name__} was wanted"
        if len(got) != len(want):
            return f"{place}{len(got)} entries, not {len(want)}"
        return _first(difference(g, w, tolerance, f"{at}[{n}]") for n, (g, w) in enumerate(zip(got, want)))
    return None if type(got) is type(want) and got == want else f"{place}{one_line(got)} is not {one_line(want)}"


def _first(reasons) -> str | None:
    return next(filter(None, reasons), None)


def _errors(got, want, place: str) -> str | None:
    if not isinstance(want, Raised):
        return f"{place}an error where there should be a result"
    kind = next(c for c in type(want.error).__mro__ if c.__module__ == "builtins")  # a SpliceError is a ValueError
    if not isinstance(got, Raised):
        return f"{place}no error; this input has no right answer, and a {kind.__name__} should say so"
    return None if isinstance(got.error, kind) else f"{place}{type(got.error).__name__} in place of {kind.__name__}"


def _tensors(got, want: torch.Tensor, tolerance: float, place: str) -> str | None:
    if not isinstance(got, torch.Tensor):
        return f"{place}{type(got).__name__} where a tensor was wanted"
    if got.shape != want.shape:
        return f"{place}the shape is {tuple(got.shape)}, not {tuple(want.shape)}"
    if not want.is_floating_point() and got.dtype.is_floating_point:
        return f"{place}the numbers are {got.dtype}, not {want.dtype}"
    mine, theirs = (x.detach().cpu().double() for x in (got, want))
    finite = theirs[theirs.isfinite()]
    room = tolerance * max(1.0, float(finite.abs().max()) if finite.numel() else 1.0)
    if torch.allclose(mine, theirs, rtol=0, atol=room, equal_nan=True):
        return None
    gap = (mine - theirs).abs().nan_to_num(nan=math.inf)
    worst = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    values = f"{mine[worst]:.4g} is not {theirs[worst]:.4g}"
    return f"{place}{float((gap > room).double().mean()):.0%} of the numbers differ, most at {list(worst)}: {values}"

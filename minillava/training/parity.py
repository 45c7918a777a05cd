"""Does Apple's GPU compute what the CPU computes? A test of some seconds, before anything runs there.

PyTorch's `mps` has been wrong without an error: a loss of 19.9 where the CPU has 3.8 (rasbt/LLMs-from-scratch, issue
791), or a linear layer that is wrong from nine samples on (pytorch/pytorch, issue 109457). So a small LLaVA takes three
steps of stage 2 on a fixed batch, on both. The losses must agree, or the device is refused. It is used only when it is
asked for by name.
"""

from collections.abc import Callable

import torch

from minillava.data import IGNORE, IMAGE
from minillava.errors import UserError
from minillava.model import Batch, LanguageConfig, Llava, LlavaConfig, VisionConfig, set_trainable
from minillava.training.optim import muon

SAMPLES, STEPS = 12, 3
SAME = 1e-5  # of the first loss. Rounding moves it by less than 1e-6; later steps amplify that
SAME_LATER = 1e-2


class DeviceError(UserError):
    """A device that is not here, or that computes something else than the CPU."""


def fixed_losses(device: str) -> list[float]:
    """The losses of a small LLaVA in three steps of stage 2 on one batch; the same on every correct device."""
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(0)
        sizes = LlavaConfig(VisionConfig(32, 8, 32, 64, 2, 2), LanguageConfig(61, 32, 64, 2, 4, 2, max_position=64))
        model, pictures = Llava(sizes), torch.randn(SAMPLES, 3, 32, 32)
        ids = [torch.cat([torch.tensor([IMAGE]), torch.randint(0, 61, (9 + n,))]) for n in range(SAMPLES)]
    for name, p in model.named_parameters():
        p.data *= 30 if "projector" in name else 3  # at first, attention and picture would hardly change the loss
    model.to(device)
    set_trainable(model, 2)
    labels = [torch.where(torch.arange(len(x)) < 5, IGNORE, x) for x in ids]
    optimizer = muon([model.projector, model.language_model], 0.02, 0.01)
    losses = []
    for _ in range(STEPS):
        features = model.features(pictures.to(device))  # (B, P, Dv)
        loss, _ = model(Batch(ids, labels, [[f] for f in features]))
        loss.backward()
        optimizer.step(1.0)
        losses.append(loss.item())
    return losses


def check_device(name: str | None, losses: Callable[[str], list[float]] = fixed_losses) -> None:
    """Raise DeviceError when the device of this name is not here, or is `mps` and disagrees with the CPU."""
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if name in there and not there[name]():
        raise DeviceError(f"--device {name}: PyTorch {torch.__version__} finds none here; use --device cpu")
    if name != "mps":
        return
    right, advice = losses("cpu"), "use --device cpu, or try another version of PyTorch or macOS"
    try:
        got = losses("mps")
    except RuntimeError as error:  # also an operation that mps does not have
        raise DeviceError(f"--device mps fails with PyTorch {torch.__version__} ({error}); {advice}") from error
    for n, (mine, wanted) in enumerate(zip(got, right, strict=True)):
        if not abs(mine - wanted) <= (SAME_LATER if n else SAME) * abs(wanted):  # also refuses nan
            raise DeviceError(
                f"--device mps computes wrongly with PyTorch {torch.__version__}: in step {n + 1} of a fixed test the "
                f"loss is {mine:.4f}, on the CPU {wanted:.4f}; {advice}"
            )

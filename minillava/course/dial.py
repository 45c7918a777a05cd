"""The dial of the notebooks: one line picks what all their cells run on, and says what it picked.

    scale = dial()            # by the machine: `tiny` on a laptop, `colab` on a T4, `full` on a large GPU
    scale = dial("colab")     # or MINILLAVA_SCALE=colab: whatever the machine

Notable: the cells do not know the scale. `scale.chat()` is the model to talk with, `scale.records` and `scale.pairs` are
pictures with their records, `scale.reply` is the teacher, `scale.judge()` who scores. Drawn scenes stay where a cell needs to
know exactly what is in the picture. Nothing is fetched before a cell asks for it, and nothing twice. A key comes from
OPENAI_API_KEY, else from Colab's secrets, an address from OPENAI_BASE_URL; without them teacher and judge are the offline ones.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from minillava import scales
from minillava.asking import AskingError, Budget, Journal, Teacher, ask_all, chat, key, price, read_reply
from minillava.chat import Chat
from minillava.data.images import open_picture
from minillava.data.records import read_records
from minillava.datagen.teachers import MODEL, OFFLINE, openai_teacher
from minillava.fetch.hub import shown
from minillava.judging.judges import ApiJudge, Judge
from minillava.machine import compute_dtype
from minillava.model import Llava, find_checkpoint
from minillava.model.formats.assemble import assemble
from minillava.scales import WEIGHTS, ScaleError
from minillava.scenes.compose import compose, scenes
from minillava.scenes.draw import draw
from minillava.standins.judge import OfflineJudge
from minillava.standins.records import caption_record, instruct
from minillava.standins.teacher import OfflineTeacher, offline_reply

TINY, NAMES = "tiny", ("tiny", "colab", "full", "full-7b", "full-13b")
ROOM = {
    "full-13b": 40e9,
    "full-7b": 20e9,
    "colab": 0,
}  # bytes of a GPU from which each is taken; answering, in bfloat16
# The authors' stage-1 W for these very parts (facts: their MODEL_ZOO), linear as in the paper. Colab's parts have none.
PROJECTORS = {
    "full-7b": "liuhaotian/llava-pretrain-vicuna-7b-v1.3",
    "full-13b": "liuhaotian/llava-pretrain-vicuna-13b-v1.3",
}
BUDGET = Budget(usd=1.0)  # the most that all replies of a teacher, and all reviews of a judge, may cost
TOKENS = Budget(tokens=400_000)  # the same for a model without a known price, such as one on this machine


class Example(NamedTuple):
    """A record in the authors' JSON, and its picture."""

    record: dict
    picture: Image.Image


@dataclass(frozen=True)
class Dial:
    """What the cells run on. name: one of NAMES (never "full"). why: who chose it. weights: a trained LLaVA instead of the
    scale's own: a folder of `minillava train`, or a hub id. data: the folder of what is fetched and replied."""

    name: str
    why: str
    weights: str | None
    data: Path

    @property
    def device(self) -> str:
        """Where models go: the GPU from `colab` on, if there is one."""
        return "cuda" if self.name != TINY and torch.cuda.is_available() else "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """float32, and at full scale on a GPU what that multiplies best: 7B in float32 would be 28 GB."""
        return compute_dtype("cuda") if self.name.startswith("full") and self.device == "cuda" else torch.float32

    def chat(self) -> Chat:
        """The model, as a conversation. Raises CheckpointError where its parts are neither here nor to be fetched."""
        if self.weights or self.name == TINY:
            return Chat(self.weights or WEIGHTS / "llava", device=self.device, dtype=self.dtype)
        real = scales.REAL[self.name]
        return Chat.assembled(
            real.vision_tower, real.language_model, PROJECTORS.get(self.name), self.device, self.dtype
        )

    @property
    def vision_tower(self) -> Path:
        """The folder of the vision tower; fetched where it is not here yet."""
        return WEIGHTS / "vision_tower" if self.name == TINY else find_checkpoint(scales.REAL[self.name].vision_tower)

    @property
    def language_model(self) -> Path:
        """The folder of the language model and its tokenizer; fetched where it is not here yet."""
        return (
            WEIGHTS / "language_model" if self.name == TINY else find_checkpoint(scales.REAL[self.name].language_model)
        )

    def assemble(self, seed: int) -> Llava:
        """LLaVA before any training: vision tower, language model, and a W that is random by `seed`."""
        return assemble(self.vision_tower, self.language_model, seed, dtype=self.dtype, device=self.device)

    def records(self, kind: str, count: int, size: int = 96) -> list[Example]:
        """`count` instruction records of one type: conversation, detail or complex. size: of a drawn picture, in pixels."""
        if self.name == TINY:
            return [Example(instruct(s, kind), draw(s, size)) for s in scenes("train", count)]
        return self._fetched("instruct", kind, count)

    def record(self, kind: str, number: int, size: int = 96) -> Example:
        """The record of one picture: scene `number` of the training split, or one of 64 records of the hub."""
        if self.name == TINY:
            return Example(instruct(compose("train", number), kind), draw(compose("train", number), size))
        found = self.records(kind, 64)
        return found[number % len(found)]

    def pairs(self, count: int, size: int = 96) -> list[Example]:
        """`count` pairs of a picture and its caption, stage 1's."""
        if self.name == TINY:
            return [Example(caption_record(s), draw(s, size)) for s in scenes("train", count)]
        return self._fetched("pretrain", "all", count)

    def _fetched(self, source: str, part: str, count: int) -> list[Example]:
        folder, stage = self.data / f"{source}-{part}-{count}", "stage1" if source == "pretrain" else "stage2"
        if not (folder / f"{stage}.json").is_file():
            shown(source, folder, part, count)
        found = read_records(folder / f"{stage}.json")
        return [Example(r, open_picture(folder / "images" / r["image"])) for r in found if "image" in r]

    def teacher(self) -> Teacher:
        """Who writes the data: beyond `tiny` a model behind an API (MINILLAVA_TEACHER), without a key the offline one."""
        return self._teacher()[0]

    def _teacher(self) -> tuple[Teacher, str]:
        """The teacher, and why it is not a live one."""
        model, why = self._live("MINILLAVA_TEACHER")
        return model or OfflineTeacher(), why

    def judge(self) -> Judge:
        """Who scores answers: beyond `tiny` a model behind an API (MINILLAVA_JUDGE), without a key the offline rule, which
        reads the picture book's contexts only. What an API's judge replied is kept, and may cost BUDGET at most."""
        return self._judge()[0]

    def _judge(self) -> tuple[Judge, str]:
        """The judge, and why it is not a live one."""
        model, why = self._live("MINILLAVA_JUDGE")
        if model is None:
            return OfflineJudge(), why
        known = price(model.model)
        return ApiJudge(model, self.data / "judged", budget=budget(model.model), price=known, yes=True), ""

    def _live(self, variable: str) -> tuple[Teacher | None, str]:
        """The model behind an API that a variable names, else MODEL; or None, and why there is none."""
        if self.name == TINY:
            return None, ""
        try:
            return openai_teacher(os.environ.get(variable, MODEL)), ""
        except AskingError as error:
            return None, str(error)

    def reply(self, messages: list[dict], seed: int = 0) -> str:
        """The teacher's text for the messages of one request. Asked again, it costs nothing.

        Raises AskingError where no reply came; what it may cost at most is BUDGET, or TOKENS where no price is known.
        """
        teacher = self.teacher()
        body = chat(teacher.model, messages, seed=seed)
        if teacher.model == OFFLINE:
            return read_reply(offline_reply(body), body).text
        with Journal(self.data / "replies") as journal:
            outcome = ask_all([body], teacher, journal, budget(teacher.model), price(teacher.model))
        if key(body) not in outcome.replies:
            raise AskingError(outcome.failures.get(key(body)) or outcome.stopped)
        return outcome.replies[key(body)].text

    @property
    def rates(self) -> dict[str, float]:
        """What stage 2 of a notebook gives `train_stage`: the rates, and how many tokens go through the model at once."""
        if self.name == TINY:
            return {"lr": 3e-3, "lr_muon": 3e-3}
        stage = scales.REAL[self.name].stage("stage 2")
        return {"lr": stage.lr, "tokens": stage.micro * stage.reach}

    def training(self, stage: int) -> dict[str, float]:
        """What stage 1 or 2 of a notebook gives `train_stage`: batch, rate, and how many tokens go through the model at once."""
        if self.name == TINY:
            tiny = scales.TINY
            batch, lr = (tiny.stage1_batch, tiny.stage1_lr) if stage == 1 else (tiny.stage2_batch, tiny.stage2_lr)
            return {"batch_size": batch, "lr": lr}
        real = scales.REAL[self.name].stage(f"stage {stage}")
        return {"batch_size": real.batch, "lr": real.lr, "tokens": real.micro * real.reach}

    def __str__(self) -> str:
        if self.name == TINY:
            return f"scale tiny ({self.why}): the small LLaVA that ships here, drawn scenes, the offline teacher"
        real, (teacher, why), judge = scales.REAL[self.name], self._teacher(), self._judge()[0]
        w = (
            "the authors' W"
            if self.name in PROJECTORS
            else "W not trained yet (`minillava train`, then MINILLAVA_WEIGHTS)"
        )
        model = self.weights or f"{real.vision_tower} + {real.language_model}, {w}"
        return (
            f"scale {self.name} ({self.why}), on {self.device}: {model}; the paper's records; teacher: {teacher.endpoint}; judge: {judge.id}"
            + (f" ({why})" if why else "")
        )


def budget(model: str) -> Budget:
    """The most that may be spent on a model: BUDGET where its price is known, else TOKENS."""
    return BUDGET if price(model) else TOKENS


def _choose(memory: float | None, offline: bool) -> tuple[str, str]:
    """(scale, why) for a GPU of so many bytes, or None."""
    if memory is None:
        return TINY, "no NVIDIA GPU here"
    if offline:
        return TINY, "a GPU is here, but HF_HUB_OFFLINE keeps the hub away"
    name = next(name for name, room in ROOM.items() if memory >= room)
    return name, f"a GPU with {memory / 1e9:.0f} GB"


def dial(scale: str | None = None, weights: str | None = None, say: Callable[[str], None] = print) -> Dial:
    """The scale by name, else MINILLAVA_SCALE, else by the machine; prints what it is and why.

    weights: a trained LLaVA to talk with, else MINILLAVA_WEIGHTS, else the scale's own. Fetched data go to MINILLAVA_DATA,
    by default ~/.cache/minillava. Raises ScaleError for a name that is none of NAMES.
    """
    from huggingface_hub import constants

    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    by = "asked for by name" if scale else "asked for by MINILLAVA_SCALE"
    name, why = scale or os.environ.get("MINILLAVA_SCALE"), by
    if not name:
        name, why = _choose(memory, constants.HF_HUB_OFFLINE)
    elif name not in NAMES:
        raise ScaleError(f"no scale of the notebooks is called {name!r} ({by}); there are: {', '.join(NAMES)}")
    elif name == "full":
        name = "full-13b" if (memory or 0) >= ROOM["full-13b"] else "full-7b"
    data = Path(os.environ.get("MINILLAVA_DATA") or Path.home() / ".cache" / "minillava")
    made = Dial(name, why, weights or os.environ.get("MINILLAVA_WEIGHTS") or None, data)
    say(str(made))
    return made

"""The dial of the notebooks: one line chooses the model, data, teacher and judge of all cells, and prints the choice.

    scale = dial()            # by the machine: `tiny` on a laptop, `colab` on a T4, `full` on a large GPU
    scale = dial("colab")     # on any machine; or MINILLAVA_SCALE=colab

The cells are the same at every scale: `scale.chat()` is the model to talk with, `scale.records` and `scale.pairs` give
pictures with their records, `scale.reply` asks the teacher, `scale.judge()` scores. A cell that has to know exactly
what is in a picture always uses drawn scenes. Nothing is fetched before a cell needs it, and nothing is fetched twice.
The API key is OPENAI_API_KEY, else Colab's secret of that name; its address is OPENAI_BASE_URL. Without a key teacher
and judge are the offline ones.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from minillava import asking, scales
from minillava.chat import Chat
from minillava.data.images import open_picture
from minillava.data.valid import read_records
from minillava.datagen.teachers import OFFLINE_MODEL, OPENAI_MODEL, openai_teacher
from minillava.fetch.hub import fetch_with_bar
from minillava.judging.judges import ApiJudge, Judge
from minillava.machine import compute_dtype
from minillava.model import Llava, find_checkpoint
from minillava.model.formats.assemble import assemble
from minillava.scales import WEIGHTS, ScaleError
from minillava.scenes.compose import compose, scenes
from minillava.scenes.draw import draw
from minillava.standins.judge import OfflineJudge
from minillava.standins.records import caption_record, instruction_record
from minillava.standins.teacher import OfflineTeacher, offline_reply

SCALE_NAMES = ("tiny", "colab", "full", "full-7b", "full-13b")
# Bytes of GPU memory from which each is chosen: enough to answer with it in bfloat16.
MIN_MEMORY = {"full-13b": 40e9, "full-7b": 20e9, "colab": 0}
# The authors' stage-1 W for exactly these parts, linear as in the paper (their MODEL_ZOO). There is none for `colab`.
PROJECTORS = {
    "full-7b": "liuhaotian/llava-pretrain-vicuna-7b-v1.3",
    "full-13b": "liuhaotian/llava-pretrain-vicuna-13b-v1.3",
}
USD_BUDGET = asking.Budget(usd=1.0)  # for all replies of a teacher, and again for all reviews of a judge
TOKEN_BUDGET = asking.Budget(tokens=400_000)  # the same for a model without a known price, such as one on this machine


class Example(NamedTuple):
    """A record in the authors' JSON, and its picture."""

    record: dict
    picture: Image.Image


@dataclass(frozen=True)
class Dial:
    """What the cells run on.

    name: one of SCALE_NAMES, but never "full". why: who chose it. weights: a trained LLaVA instead of the scale's own,
    as a folder of `minillava train` or a hub id. data: the folder for fetched data and replies.
    """

    name: str
    why: str
    weights: str | None
    data: Path

    @property
    def real(self) -> scales.RealScale | None:
        """The scale's real parts, or None at `tiny`, which uses what ships here."""
        return scales.REAL_SCALES.get(self.name)

    @property
    def device(self) -> str:
        """Where models run: on a GPU, except at `tiny`."""
        return "cuda" if self.real and torch.cuda.is_available() else "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """float32, but at full scale on a GPU its fastest type: 7B would take 28 GB in float32."""
        return compute_dtype("cuda") if self.name.startswith("full") and self.device == "cuda" else torch.float32

    def chat(self) -> Chat:
        """The model to talk with. Raises CheckpointError when its parts are not here and cannot be fetched."""
        if self.weights or self.real is None:
            return Chat(self.weights or WEIGHTS / "llava", device=self.device, dtype=self.dtype)
        parts = self.real.vision_tower, self.real.language_model, PROJECTORS.get(self.name)
        return Chat.assembled(*parts, self.device, self.dtype)

    @property
    def vision_tower(self) -> Path:
        """The folder of the vision tower, fetched where needed."""
        return WEIGHTS / "vision_tower" if self.real is None else find_checkpoint(self.real.vision_tower)

    @property
    def language_model(self) -> Path:
        """The folder of the language model and its tokenizer, fetched where needed."""
        return WEIGHTS / "language_model" if self.real is None else find_checkpoint(self.real.language_model)

    def assemble(self, seed: int) -> Llava:
        """LLaVA before any training: vision tower, language model, and a W initialised from `seed`."""
        return assemble(self.vision_tower, self.language_model, seed, dtype=self.dtype, device=self.device)

    def records(self, kind: str, count: int, size: int = 96) -> list[Example]:
        """`count` instruction records of one type: conversation, detail or complex. size: pixels per side if drawn."""
        if self.real is None:
            return [Example(instruction_record(s, kind), draw(s, size)) for s in scenes("train", count)]
        return self._fetched("instruct", kind, count)

    def record(self, kind: str, number: int, size: int = 96) -> Example:
        """The record of one picture: scene `number` of the training split, or one of 64 records of the hub."""
        if self.real is None:
            return Example(instruction_record(compose("train", number), kind), draw(compose("train", number), size))
        found = self.records(kind, 64)
        return found[number % len(found)]

    def pairs(self, count: int, size: int = 96) -> list[Example]:
        """`count` pairs of a picture and its caption, as in stage 1."""
        if self.real is None:
            return [Example(caption_record(s), draw(s, size)) for s in scenes("train", count)]
        return self._fetched("pretrain", "all", count)

    def _fetched(self, source: str, part: str, count: int) -> list[Example]:
        folder, stage = self.data / f"{source}-{part}-{count}", "stage1" if source == "pretrain" else "stage2"
        if not (folder / f"{stage}.json").is_file():
            fetch_with_bar(source, folder, part, count)
        found = read_records(folder / f"{stage}.json")
        return [
            Example(r, open_picture(folder / "images" / r["image"])) for r in found if isinstance(r.get("image"), str)
        ]

    def teacher(self) -> asking.ChatClient:
        """The teacher: a model behind an API (MINILLAVA_TEACHER), or the offline one at `tiny` and without a key."""
        return self._api_model("MINILLAVA_TEACHER")[0] or OfflineTeacher()

    def judge(self) -> Judge:
        """The judge: a model behind an API (MINILLAVA_JUDGE), or the offline rule at `tiny` and without a key.

        The offline rule reads only the picture book's contexts. Replies of an API are stored, and their cost is limited
        (`budget_of`).
        """
        model = self._api_model("MINILLAVA_JUDGE")[0]
        if model is None:
            return OfflineJudge()
        name, folder = model.model, self.data / "judged"
        return ApiJudge(model, folder, budget=budget_of(name), price=asking.price_of(name), yes=True)

    def _api_model(self, variable: str) -> tuple[asking.ChatClient | None, str]:
        """The model behind an API that an environment variable names, by default MODEL; or None, and why."""
        if self.real is None:
            return None, ""
        try:
            return openai_teacher(os.environ.get(variable, OPENAI_MODEL)), ""
        except asking.AskingError as error:
            return None, str(error)

    def reply(self, messages: list[dict], seed: int = 0) -> str:
        """The teacher's reply to the messages of one request. The same request is paid for only once.

        The cost is limited (`budget_of`). Raises AskingError when no reply came.
        """
        teacher = self.teacher()
        body = asking.chat_request(teacher.model, messages, seed=seed)
        if teacher.model == OFFLINE_MODEL:
            return asking.read_reply(offline_reply(body), body).text
        with asking.Journal(self.data / "replies") as journal:
            outcome = asking.ask_all([body], teacher, journal, budget_of(teacher.model), asking.price_of(teacher.model))
        key = asking.request_key(body)
        if key not in outcome.replies:
            raise asking.AskingError(outcome.failures.get(key) or outcome.stopped)
        return outcome.replies[key].text

    @property
    def short_run_rates(self) -> dict[str, float]:
        """Arguments of `train_stage` for a short stage 2: learning rates, and tokens that the model takes at once."""
        if self.real is None:
            return {"lr": 3e-3, "lr_muon": 3e-3}
        stage = self.real.stage("stage 2")
        return {"lr": stage.lr, "tokens": stage.micro * stage.longest_sample}

    def stage_settings(self, number: int) -> dict[str, float]:
        """Arguments of `train_stage` for stage 1 or 2: batch size, learning rate, tokens the model takes at once."""
        stage = (self.real or scales.TINY).stage(f"stage {number}")
        tokens = {"tokens": stage.micro * stage.longest_sample} if self.real else {}
        return {"batch_size": stage.batch, "lr": stage.lr} | tokens

    def __str__(self) -> str:
        if self.real is None:
            model = self.weights or "the small LLaVA that ships here"
            return f"scale tiny ({self.why}): {model}, drawn scenes, the offline teacher"
        why = self._api_model("MINILLAVA_TEACHER")[1]
        untrained = "W not trained yet (`minillava train`, then MINILLAVA_WEIGHTS)"
        w = "the authors' W" if self.name in PROJECTORS else untrained
        model = self.weights or f"{self.real.vision_tower} + {self.real.language_model}, {w}"
        asked = f"teacher: {self.teacher().endpoint}; judge: {self.judge().id}" + (f" ({why})" if why else "")
        return f"scale {self.name} ({self.why}), on {self.device}: {model}; the paper's records; {asked}"


def budget_of(model: str) -> asking.Budget:
    """The most that a model may cost: USD_BUDGET where its price is known, else TOKEN_BUDGET."""
    return USD_BUDGET if asking.price_of(model) else TOKEN_BUDGET


def _choose_scale(memory: float | None, offline: bool) -> tuple[str, str]:
    """(scale, why). memory: bytes of the GPU, None without one. offline: whether the hub may not be reached."""
    if memory is None:
        return "tiny", "no NVIDIA GPU here"
    if offline:
        return "tiny", "a GPU is here, but HF_HUB_OFFLINE keeps the hub away"
    name = next(name for name, least in MIN_MEMORY.items() if memory >= least)
    return name, f"a GPU with {memory / 1e9:.0f} GB"


def dial(scale: str | None = None, weights: str | None = None) -> Dial:
    """The scale by its name, else MINILLAVA_SCALE, else by the machine. Prints which it is, and why.

    weights: a trained LLaVA to talk with, else MINILLAVA_WEIGHTS, else the scale's own. Fetched data go to
    MINILLAVA_DATA, by default ~/.cache/minillava. Raises ScaleError for a name that is not in SCALE_NAMES.
    """
    from huggingface_hub import constants

    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None
    by = "asked for by name" if scale else "asked for by MINILLAVA_SCALE"
    name, why = scale or os.environ.get("MINILLAVA_SCALE"), by
    if not name:
        name, why = _choose_scale(memory, constants.HF_HUB_OFFLINE)
    elif name not in SCALE_NAMES:
        raise ScaleError(f"no scale of the notebooks is called {name!r} ({by}); there are: {', '.join(SCALE_NAMES)}")
    elif name == "full":
        name = "full-13b" if (memory or 0) >= MIN_MEMORY["full-13b"] else "full-7b"
    data = Path(os.environ.get("MINILLAVA_DATA") or Path.home() / ".cache" / "minillava")
    if name == "tiny" and (advice := scales.without_weights(WEIGHTS)):  # here, not in every cell
        raise ScaleError(advice)
    made = Dial(name, why, weights or os.environ.get("MINILLAVA_WEIGHTS") or None, data)
    print(made)
    return made

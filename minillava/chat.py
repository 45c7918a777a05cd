"""Talk with a trained LLaVA about a picture: one class for the terminal, the notebooks and the end of the demo.

A conversation keeps its turns and what it has computed, so each further question costs only its own tokens; answers
stream. The weights are a folder that `save_llava` wrote, with the tokenizer and the pictures' preparation, or a
LlavaForConditionalGeneration folder or hub id. No code from them is run.

    python -m minillava chat picture.png
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from minillava.data.images import Preparation, open_picture, pixels, to_rgb
from minillava.data.samples import prompt_ids
from minillava.data.template import Template
from minillava.data.tokenizer import load_tokenizer
from minillava.errors import UserError
from minillava.model import Session, find_checkpoint, load_llava, load_projector, stream
from minillava.model.formats.assemble import assemble
from minillava.model.formats.chat_template import choose_template, training_template
from minillava.model.formats.preparation import read_preparation
from minillava.training.parity import check_device


class ChatError(UserError):
    """A question that cannot be asked, or weights that cannot be used for a conversation."""


class Chat:
    """A conversation about one picture at a time.

    `Chat(weights)`, then `look(picture)`, then `ask(question)` any number of times; `look` starts a new conversation.
    weights: a folder or a hub id. template: the name of the conversation's format; by default the one that the weights
    name, or that their chat template writes. Raises CheckpointError, FileNotFoundError, ImageError or ChatError, each
    naming the file.
    """

    def __init__(
        self, weights: str | Path, template: str | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
    ):
        model, about = load_llava(weights, dtype, device)
        folder = find_checkpoint(weights)
        tokenizer = load_tokenizer(folder)
        chosen = choose_template(template, about.get("template"), tokenizer, folder)
        preparation = read_preparation(folder, model.config.vision.image_size)
        self._begin(model, about, tokenizer, preparation, chosen)

    @classmethod
    def assembled(
        cls,
        vision_tower: str,
        language_model: str,
        projector: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Chat":
        """A conversation with a vision tower and a language model that were not trained together, folders or hub ids.

        projector: the authors' W of stage 1 (`model.load_projector`); without it W is random and the picture is not
        used. Raises CheckpointError that names what does not fit.
        """
        model = assemble(vision_tower, language_model, 0, dtype=dtype, device=device)
        if projector:
            load_projector(model, projector)
        made = cls.__new__(cls)
        folder = find_checkpoint(language_model)
        words, template = load_tokenizer(folder), training_template(folder)
        about = {"template": template.name, "trained on": f"W: {projector or 'not trained'}"}
        preparation = read_preparation(vision_tower, model.config.vision.image_size)
        made._begin(model, about, words, preparation, template)
        return made

    def _begin(self, model, about: dict, tokenizer, preparation: Preparation, template: Template) -> None:
        self.model, self.about, self.tokenizer, self.preparation = model.eval(), about, tokenizer, preparation
        self.template = template
        self.turns: list[tuple[str, str]] = []
        self.features, self.session = None, Session()

    def look(self, picture: str | Path | Image.Image) -> Image.Image:
        """Show the model a picture (a file or an image); returns the opened picture."""
        image = to_rgb(picture) if isinstance(picture, Image.Image) else open_picture(picture)
        view = pixels([image], self.preparation)  # (1, 3, S, S)
        weight = self.model.vision_tower.pre_layrnorm.weight
        self.features = self.model.features(view.to(weight.device, weight.dtype))[0]  # (P, Dv)
        self.turns, self.session = [], Session()
        return image

    @torch.inference_mode()
    def stream(
        self, question: str, max_new_tokens: int = 120, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> Iterator[str]:
        """The answer in pieces, as they are made.

        Raises ChatError before a picture was shown and for a question that is empty or not text, SpliceError for one
        that does not fit into the context. The conversation then stays as it was.
        """
        if self.features is None:
            raise ChatError("show a picture first: look(picture)")
        if not question.strip():
            raise ChatError("an empty question")
        if any("\ud800" <= letter <= "\udfff" for letter in question):
            raise ChatError("the question is not valid UTF-8 text")
        asked = question if self.turns else f"<image>\n{question}"
        ids, answer = prompt_ids(asked, self.template, self.tokenizer, self.turns), ""
        for piece in stream(
            self.model, ids, [self.features], self.tokenizer, max_new_tokens, [self.template.stop], temperature, top_p,
            seed, self.session,
        ):  # fmt: skip
            piece = piece if answer else piece.lstrip()  # a template's blank before the answer
            answer += piece
            if piece:
                yield piece
        self.turns.append((asked, answer.strip()))

    def ask(self, question: str, **settings) -> str:
        """The whole answer."""
        return "".join(self.stream(question, **settings)).strip()


def terminal_picture(image: Image.Image, columns: int = 48) -> str:
    """The picture for a terminal: two pixels per character, in 24-bit colour; at most as high as it is wide."""
    rows = max(1, min(columns // 2, round(columns * image.height / image.width / 2)))
    small = image.convert("RGB").resize((columns, 2 * rows))
    lines = []
    for y in range(0, 2 * rows, 2):
        cells = [(*small.getpixel((x, y)), *small.getpixel((x, y + 1))) for x in range(columns)]
        lines.append("".join("\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*c) for c in cells) + "\x1b[0m")
    return "\n".join(lines)


def device_and_dtype(dtype: str | None, device: str | None = None) -> tuple[str, torch.dtype]:
    """Where to answer and in which precision: on an NVIDIA GPU in bfloat16, else in float32, or as named.

    Raises DeviceError for a device that is not here, or that computes wrongly.
    """
    check_device(device)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return device, getattr(torch, dtype or ("bfloat16" if device == "cuda" else "float32"))

"""Talk with a trained LLaVA about a picture: one class for the terminal, the notebooks and the end of the demo.

Notable: a conversation keeps its turns and what it has computed, so that each further question costs its own words only;
answers stream. The weights are what `save_llava` wrote, with the tokenizer and the vision tower's preprocessor_config.json beside
it, or a LlavaForConditionalGeneration folder or hub id; nothing in it is run as code.

    python -m minillava chat picture.png
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from minillava.data.images import as_rgb, open_picture, pixels
from minillava.data.samples import prompt
from minillava.data.template import TEMPLATES
from minillava.data.tokenizer import load_tokenizer
from minillava.errors import UserError
from minillava.model import Session, find_checkpoint, load_llava, load_projector, stream
from minillava.model.formats.assemble import assemble, normalisation


class ChatError(UserError):
    """A question that cannot be asked, or weights that one cannot talk with."""


class Chat:
    """A conversation about one picture at a time.

    `Chat(weights)`, then `look(picture)`, then `ask(question)` as often as one likes; `look` starts afresh.
    weights: a folder or a hub id. template: the name of the conversation's form, where the weights do not say theirs.
    Raises CheckpointError, FileNotFoundError, ImageError or ChatError, each naming the file.
    """

    def __init__(
        self, weights: str | Path, template: str | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
    ):
        folder = find_checkpoint(weights)
        model, about = load_llava(weights, dtype, device)
        template = template or about.get("template")
        if template not in TEMPLATES:
            said = (
                f"are for the template {template!r}, which is"
                if template
                else "do not say which template they are for:"
            )
            raise ChatError(f"{weights}: these weights {said} none of {', '.join(TEMPLATES)}; name one with --template")
        self._begin(model, about, load_tokenizer(folder), normalisation(folder), template)

    @classmethod
    def assembled(
        cls,
        vision_tower: str,
        language_model: str,
        projector: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Chat":
        """A conversation with parts that were never together: a vision tower and a language model, each a folder or a hub id.

        projector: the authors' W of stage 1 (`model.load_projector`); without it W is random, and no answer looks.
        Raises CheckpointError that names what does not fit.
        """
        model = assemble(vision_tower, language_model, 0, dtype=dtype, device=device)
        if projector:
            load_projector(model, projector)
        made = cls.__new__(cls)
        about = {"template": "chat", "trained on": f"W: {projector or 'not trained'}"}
        words, normal = load_tokenizer(find_checkpoint(language_model)), normalisation(find_checkpoint(vision_tower))
        made._begin(model, about, words, normal, "chat")
        return made

    def _begin(self, model, about: dict, tokenizer, normal: tuple, template: str) -> None:
        self.model, self.about, self.tokenizer, self.normal = model.eval(), about, tokenizer, normal
        self.template = TEMPLATES[template]
        self.turns: list[tuple[str, str]] = []
        self.features, self.session = None, Session()

    def look(self, picture: str | Path | Image.Image) -> Image.Image:
        """Show it a picture (a file or an image); returns what was opened."""
        image = as_rgb(picture) if isinstance(picture, Image.Image) else open_picture(picture)
        shown = pixels([image], self.model.config.vision.image_size, *self.normal)  # (1, 3, S, S)
        weight = self.model.vision_tower.pre_layrnorm.weight
        self.features = self.model.features(shown.to(weight.device, weight.dtype))[0]  # (P, Dv)
        self.turns, self.session = [], Session()
        return image

    @torch.inference_mode()
    def stream(
        self, question: str, max_new_tokens: int = 120, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
    ) -> Iterator[str]:
        """The answer in pieces as they are made.

        Raises ChatError before a picture was shown, for an empty question or for no text, SpliceError for one that does not fit in
        what the model reads; the conversation stays as it was.
        """
        if self.features is None:
            raise ChatError("show a picture first: look(picture)")
        if not question.strip():
            raise ChatError("an empty question")
        if any("\ud800" <= letter <= "\udfff" for letter in question):
            raise ChatError("a question that is no text in UTF-8")
        asked = question if self.turns else f"<image>\n{question}"
        ids, said = prompt(asked, self.template, self.tokenizer, self.turns), ""
        for piece in stream(
            self.model, ids, [self.features], self.tokenizer, max_new_tokens, [self.template.stop], temperature, top_p,
            seed, self.session,
        ):  # fmt: skip
            said += piece
            yield piece
        self.turns.append((asked, said.strip()))

    def ask(self, question: str, **settings) -> str:
        """The whole answer."""
        return "".join(self.stream(question, **settings)).strip()


def blocks(image: Image.Image, columns: int = 48) -> str:
    """The picture for a terminal: two pixels a character cell, in 24-bit colour; at most as high as it is wide."""
    rows = max(1, min(columns // 2, round(columns * image.height / image.width / 2)))
    small = image.convert("RGB").resize((columns, 2 * rows))
    lines = []
    for y in range(0, 2 * rows, 2):
        cells = [(*small.getpixel((x, y)), *small.getpixel((x, y + 1))) for x in range(columns)]
        lines.append("".join("\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*c) for c in cells) + "\x1b[0m")
    return "\n".join(lines)


def on(dtype: str | None) -> tuple[str, torch.dtype]:
    """Where to answer, and in what: the GPU where there is one, there in bfloat16 unless another dtype is named."""
    gpu = torch.cuda.is_available()
    return "cuda" if gpu else "cpu", getattr(torch, dtype or ("bfloat16" if gpu else "float32"))

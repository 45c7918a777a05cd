"""Talk with a trained LLaVA about a picture: one class for the terminal, the notebooks and the end of the demo.

Notable: a conversation keeps its turns; answers stream. The folder is what `save_llava` wrote, with its tokenizer and
the eye's preprocessor_config.json beside it; nothing in it is run as code.

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
from minillava.model import load_llava, stream
from minillava.training.stages import normalisation


class ChatError(ValueError):
    """A question that cannot be asked."""


class Chat:
    """A conversation about one picture at a time.

    `Chat(folder)`, then `look(picture)`, then `ask(question)` as often as one likes; `look` starts afresh.
    Raises CheckpointError, FileNotFoundError or ImageError, each naming the file.
    """

    def __init__(self, folder: str | Path):
        self.model, self.about = load_llava(folder)
        self.model.eval()
        self.tokenizer = load_tokenizer(folder)
        self.normal = normalisation(folder)
        self.template = TEMPLATES[self.about["template"]]
        self.turns: list[tuple[str, str]] = []
        self.features = None

    def look(self, picture: str | Path | Image.Image) -> Image.Image:
        """Show it a picture (a file or an image); returns what was opened."""
        image = as_rgb(picture) if isinstance(picture, Image.Image) else open_picture(picture)
        self.features = self.model.features(pixels([image], self.model.config.vision.image_size, *self.normal))[0]
        self.turns = []
        return image

    @torch.inference_mode()
    def stream(
        self, question: str, max_new_tokens: int = 120, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[str]:
        """The answer in pieces as they are made. Raises ChatError before a picture was shown, or for an empty question."""
        if self.features is None:
            raise ChatError("show a picture first: look(picture)")
        if not question.strip():
            raise ChatError("an empty question")
        asked = question if self.turns else f"<image>\n{question}"
        ids = prompt(asked, self.template, self.tokenizer, self.turns)
        stop, said = [self.tokenizer.encode(self.template.stop, add_special_tokens=False)], ""
        for piece in stream(
            self.model, ids, [self.features], self.tokenizer, max_new_tokens, stop, temperature, seed=seed
        ):
            said += piece
            yield piece
        self.turns.append((asked, said.strip()))

    def ask(self, question: str, **settings) -> str:
        """The whole answer."""
        return "".join(self.stream(question, **settings)).strip()


def blocks(image: Image.Image, columns: int = 48) -> str:
    """The picture for a terminal: two pixels a character cell, in 24-bit colour."""
    small = image.convert("RGB").resize((columns, columns * image.height // image.width // 2 * 2))
    lines = []
    for y in range(0, small.height - 1, 2):
        cells = [(*small.getpixel((x, y)), *small.getpixel((x, y + 1))) for x in range(columns)]
        lines.append("".join("\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*c) for c in cells) + "\x1b[0m")
    return "\n".join(lines)

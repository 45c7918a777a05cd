"""The messages of Table 13: a system message, few-shot pairs as user and assistant turns, then the picture's context.

Notable: a prompt is a folder in the authors' layout (facts C): `system_message.txt`, and `NNN_caps.txt` with
`NNN_conv.txt` for each few-shot pair. The shipped ones, in `prompts/`, are this project's own wording and its own scenes;
the authors' folders dropped in work unchanged.

    python -c "from minillava.datagen.messages import *; print(messages(read_prompt(PROMPTS / FOLDERS['complex']), 'a cat')[0])"
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PROMPTS = Path(__file__).parent / "prompts"
FOLDERS = {"conversation": "conversation", "detail": "detail_description", "complex": "complex_reasoning"}


class PromptError(ValueError):
    """A prompt folder that cannot be used; the message names the file."""


@dataclass(frozen=True)
class Prompt:
    """A system message and (context, reply) pairs."""

    system: str
    shots: tuple[tuple[str, str], ...]


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise PromptError(f"{path}: not UTF-8") from None
    except OSError as error:
        raise PromptError(f"{path}: cannot be read ({error.strerror})") from None
    if not text:
        raise PromptError(f"{path}: empty")
    return text


def read_prompt(folder: Path) -> Prompt:
    """The prompt in a folder, its pairs in the order of their numbers. Raises PromptError naming what is missing."""
    folder = Path(folder)
    if not folder.is_dir():
        raise PromptError(
            f"{folder}: no such prompt folder; expected system_message.txt, NNN_caps.txt, NNN_conv.txt in it"
        )
    names = {
        kind: {p.name.removesuffix(f"_{kind}.txt") for p in folder.glob(f"*_{kind}.txt")} for kind in ("caps", "conv")
    }
    for name in sorted(names["caps"] ^ names["conv"]):
        here, gone = ("caps", "conv") if name in names["caps"] else ("conv", "caps")
        raise PromptError(f"{folder}: {name}_{here}.txt has no {name}_{gone}.txt beside it")
    pairs = [(_read(folder / f"{n}_caps.txt"), _read(folder / f"{n}_conv.txt")) for n in sorted(names["caps"])]
    return Prompt(_read(folder / "system_message.txt"), tuple(pairs))


@lru_cache
def _shared(prompt: Prompt) -> tuple[dict, ...]:
    """The messages that are the same for every picture: one copy, however many pictures there are."""
    turns = [{"role": "system", "content": prompt.system}]
    for shown, reply in prompt.shots:
        turns += [{"role": "user", "content": shown}, {"role": "assistant", "content": reply}]
    return tuple(turns)


def messages(prompt: Prompt, context: str) -> list[dict]:
    """The messages for one picture, as Table 13 puts them together. All but the last are shared: do not change them."""
    return [*_shared(prompt), {"role": "user", "content": context}]

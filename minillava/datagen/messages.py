"""The messages of Table 13: a system message, few-shot pairs as user and assistant turns, then the picture's context.

A prompt is a folder in the authors' layout (facts C): `system_message.txt`, and `NNN_caps.txt` with `NNN_conv.txt` for
each few-shot pair. The prompts shipped in `prompts/` have this project's own wording and scenes. The authors' folders
work unchanged.

    python -c "from minillava.datagen.messages import *; print(read_prompt(PROMPTS / PROMPT_FOLDERS['complex']).system)"
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from minillava.errors import UserError

TYPES = ("conversation", "detail", "complex")  # of response, section 3
USES_BOXES = {"conversation": False, "detail": True, "complex": True}  # as in the paper (facts B1)
BRIEF_INSTRUCTIONS = (  # as many as in Table 11, in our own words
    "What is this, in a few words?",
    "Put this picture into one sentence.",
    "What would a short caption of this say?",
    "Tell me in brief what is to be seen.",
    "Name the main things here, nothing more.",
    "How would you sum this up?",
    "Say what the picture is about, shortly.",
    "One line about this picture, please.",
    "What does a quick glance at this show?",
    "Give the gist of the picture.",
    "Write a caption that fits on a postcard.",
)
DETAILED_INSTRUCTIONS = (  # as many as in Table 12, in our own words
    "Tell me everything that can be seen here.",
    "I cannot see the picture. What is in it, from one side to the other?",
    "Go through the picture bit by bit.",
    "What is there, and where is each of the things?",
    "Give me a full account of this scene.",
    "Please describe it so that somebody could draw it.",
    "Look closely: what do you notice, down to the small things?",
    "Take your time and write down all that the picture holds.",
    "How does this place look, and what is in it?",
    "Describe what is in front, what is behind, and how things stand to each other.",
    "Write a long description, leaving nothing out.",
    "What would I see if I stood there and looked around?",
    "Paint this picture for me in words.",
    "List what there is, then say how it all belongs together.",
    "Report on this picture as thoroughly as you can.",
    "Can you explain in depth what is shown?",
)
PROMPTS = Path(__file__).parent / "prompts"
PROMPT_FOLDERS = {"conversation": "conversation", "detail": "detail_description", "complex": "complex_reasoning"}


class PromptError(UserError):
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
    """The prompt in a folder, with its pairs in numeric order. Raises PromptError naming the file that is missing."""
    folder = Path(folder)
    if not folder.is_dir():
        raise PromptError(
            f"{folder}: no such prompt folder; expected system_message.txt, NNN_caps.txt, NNN_conv.txt in it"
        )
    caps, conv = ({p.name[: -len(end)] for p in folder.glob(f"*{end}")} for end in ("_caps.txt", "_conv.txt"))
    for name in sorted(caps ^ conv):
        found, missing = ("caps", "conv") if name in caps else ("conv", "caps")
        raise PromptError(f"{folder}: {name}_{found}.txt needs {name}_{missing}.txt")
    pairs = [(_read(folder / f"{n}_caps.txt"), _read(folder / f"{n}_conv.txt")) for n in sorted(caps)]
    return Prompt(_read(folder / "system_message.txt"), tuple(pairs))


@lru_cache
def _shared(prompt: Prompt) -> tuple[dict, ...]:
    """The messages that are the same for every picture, made once."""
    turns = [{"role": "system", "content": prompt.system}]
    for context, reply in prompt.shots:
        turns += [{"role": "user", "content": context}, {"role": "assistant", "content": reply}]
    return tuple(turns)


def messages(prompt: Prompt, context: str) -> list[dict]:
    """The messages for one picture, as in Table 13. All but the last are shared by all pictures: do not change them."""
    return [*_shared(prompt), {"role": "user", "content": context}]


def context(captions: list[str], boxes: list[tuple] = ()) -> str:
    """The text for a text-only teacher or judge: captions, an empty line, `category: [x1, y1, x2, y2]` lines."""
    lines = [f"{kind}: [{', '.join(f'{v:.3f}' for v in box)}]" for kind, box in boxes]
    return "\n".join(captions) + ("\n\n" + "\n".join(lines) if lines else "")


def parse_context(text: str, name: str = "context") -> tuple[list[str], list[tuple]]:
    """The captions and the (category, box) pairs of a context. Raises ValueError naming the line that is not a box."""
    captions, _, rest = text.partition("\n\n")
    boxes = []
    for line in filter(None, rest.split("\n")):
        kind, _, numbers = line.rpartition(": ")
        try:
            box = tuple(float(v) for v in numbers.strip("[]").split(","))
            if len(box) != 4 or not kind:
                raise ValueError
        except ValueError:
            raise ValueError(f"{name}: {line!r} is not a box line; expected `category: [x1, y1, x2, y2]`") from None
        boxes.append((kind, box))
    return [c for c in captions.split("\n") if c.strip()], boxes

"""`minillava chat`: questions about a picture, from --ask or line by line; answers stream.

minillava chat data_samples/pictures/train-000000.png --ask "What colour is the car?"
"""

import math
import sys
from pathlib import Path

from minillava import scales
from minillava.chat import Chat, ChatError, device_and_dtype, terminal_picture
from minillava.commands import add_device
from minillava.data.images import frame_count
from minillava.model import SpliceError
from minillava.model.generate import LEAST_TEMPERATURE


def arguments(parser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    add("picture", type=Path)
    add("--ask", action="append", metavar="QUESTION", help="ask this instead of reading questions line by line")
    add("--weights", default=scales.WEIGHTS / "llava", help="a trained LLaVA: a folder, a hub id or id@revision")
    add("--template", help="the conversation's format: chat, chat_v1, plain, vicuna_v1 or own (default: the weights')")
    add("--max-new-tokens", type=int, default=120, help="the longest answer (default: 120)")
    add("--temperature", type=float, default=0.0, help="0 takes the likeliest token (default: 0)")
    add(
        "--top-p",
        type=float,
        default=1.0,
        help="draw from the likeliest tokens that hold this share of the probability",
    )
    add("--seed", type=int, default=0, help="of the draws")
    add_device(add)
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="(default: bfloat16 on a GPU, else float32)")


def run(options) -> None:
    """Questions about a picture, from --ask or line by line; answers stream. Raises ChatError for invalid settings."""
    cold = options.temperature != 0 and not LEAST_TEMPERATURE <= options.temperature < math.inf
    if options.max_new_tokens < 1 or cold or not 0 < options.top_p <= 1:
        what = f"--temperature: 0, or {LEAST_TEMPERATURE:g} or above"
        raise ChatError(f"--max-new-tokens: at least 1; {what}; --top-p: above 0, at most 1")
    if not 0 <= options.seed < 2**32:
        raise ChatError(f"--seed {options.seed}: from 0 to {2**32 - 1}")
    chat = Chat(options.weights, options.template, *device_and_dtype(options.dtype, options.device))
    image = chat.look(options.picture)
    count = frame_count(options.picture)
    if count > 1:
        print(f"{options.picture} has {count} frames; this is about the first one.", file=sys.stderr)
    if sys.stdout.isatty() and not options.ask:
        print(terminal_picture(image), "\nAsk about the picture; an empty line ends.", sep="")
    for question in options.ask or iter(_line, ""):
        pieces = chat.stream(question, options.max_new_tokens, options.temperature, options.top_p, options.seed)
        try:
            first = next(pieces, "")
        except (ChatError, SpliceError) as error:
            if options.ask:
                raise
            print(f"({error})", file=sys.stderr)  # the conversation continues
            continue
        print("Assistant: ", first, sep="", end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
        print()


def _line() -> str:
    try:
        return input("Human: ").strip() if sys.stdin.isatty() else sys.stdin.readline().strip()
    except UnicodeDecodeError as error:
        raise ChatError(f"questions must be text in UTF-8 ({error})") from error

"""`minillava chat`: questions about a picture, from --ask or line by line; answers stream.

minillava chat data_samples/pictures/train-000000.png --ask "What colour is the car?"
"""

import math
import sys
from pathlib import Path

from minillava import scales
from minillava.chat import Chat, ChatError, device_and_dtype, terminal_picture
from minillava.data.images import frames
from minillava.model import SpliceError


def arguments(parser) -> None:
    """Declare what the verb is given."""
    parser.add_argument("picture", type=Path)
    parser.add_argument(
        "--ask", action="append", metavar="QUESTION", help="ask this instead of reading questions line by line"
    )
    parser.add_argument(
        "--weights", default=scales.WEIGHTS / "llava", help="a folder or a hub id that holds a trained LLaVA"
    )
    parser.add_argument("--template", help="the form of the conversation, where the weights do not say theirs")
    parser.add_argument("--max-new-tokens", type=int, default=120, help="the longest answer (default: 120)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest word (default: 0)")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest words that hold this share")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="(default: bfloat16 on a GPU, else float32)"
    )


def run(options) -> None:
    """Questions about a picture, from --ask or line by line; answers stream. Raises ChatError for settings without sense."""
    if options.max_new_tokens < 1 or not 0 <= options.temperature < math.inf or not 0 < options.top_p <= 1:
        raise ChatError("--max-new-tokens: at least 1; --temperature: 0 or above; --top-p: above 0, 1 at the most")
    if not 0 <= options.seed < 2**32:
        raise ChatError(f"--seed {options.seed}: from 0 to {2**32 - 1}")
    talk = Chat(options.weights, options.template, *device_and_dtype(options.dtype))
    image = talk.look(options.picture)
    count = frames(options.picture)
    if count > 1:
        print(f"{options.picture} has {count} frames; this is about the first one.", file=sys.stderr)
    if sys.stdout.isatty() and not options.ask:
        print(terminal_picture(image), "\nAsk about the picture; an empty line ends.", sep="")
    for question in options.ask or iter(_line, ""):
        pieces = talk.stream(question, options.max_new_tokens, options.temperature, options.top_p, options.seed)
        try:
            first = next(pieces, "")
        except (ChatError, SpliceError) as error:
            if options.ask:
                raise
            print(f"({error})", file=sys.stderr)  # and the conversation goes on
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

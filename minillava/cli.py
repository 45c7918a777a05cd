"""One command per verb of the paper: `minillava paper`, `minillava chat`, `minillava judge`; each has a module in commands/.

A mistake of the user ends in one line that says what to do and in a status other than 0; a traceback means a bug. Ctrl-C
stops cleanly, and the same command resumes.
"""

import argparse
import errno
import importlib
import os
import sys

from safetensors import SafetensorError

from minillava.errors import UserError

# Verb -> its line of help. Only the module of the verb that is asked for is loaded: some need torch, others start at once.
VERBS = {
    "paper": "run the whole paper: data, two stages, judge, tables",
    "chat": "talk with the small LLaVA about a picture",
    "answer": "answer a file of questions about pictures: what `judge` reads",
    "train": "the two stages on your own records and pictures; also under torchrun",
    "doctor": "what this machine is, what each scale costs, and which fits here",
    "cost": "what each scale trains, how long that takes, what it costs",
    "fetch": "the paper's real data, or a part of it, from the hub and from COCO",
    "progress": "which tasks of the exercises pass on this machine; nothing is sent",
    "judge": "scores: reviews, LLaVA-Bench, ScienceQA, POPE",
    "generate": "instruction data from captioned pictures, by the offline teacher or any model",
    "filter": "keep the captions that cover concepts evenly (Appendix E, Fig. 7)",
    "serve-teacher": "the offline teacher behind an OpenAI-compatible API on this machine",
}
RENAMED = {"--eye": "--vision-tower", "--brain": "--language-model"}  # options as they were once called


def parser(asked: str | None) -> argparse.ArgumentParser:
    """The command line. asked: the verb whose arguments are declared; the others are there by name alone."""
    main = argparse.ArgumentParser(
        prog="minillava", description="Visual Instruction Tuning (LLaVA), the whole paper, at any size."
    )
    verbs = main.add_subparsers(dest="verb", required=True)
    for name, what in VERBS.items():
        verb = verbs.add_parser(name, help=what)
        if name == asked:
            module = importlib.import_module(f"minillava.commands.{name.replace('-', '_')}")
            module.arguments(verb)
            verb.set_defaults(run=module.run)
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        for name in (argument.partition("=")[0] for argument in arguments):
            if name in RENAMED:
                raise UserError(f"{name} is now called {RENAMED[name]}")
        options = parser(arguments[0] if arguments else None).parse_args(arguments)
        status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("\nStopped; what was done is kept. The same command goes on from here.", file=sys.stderr)
        return 130
    except EOFError:
        return 0
    except BrokenPipeError:  # whoever read our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed goes nowhere
        return 1
    except (UserError, OSError, SafetensorError) as error:
        said = str(error).encode("utf-8", "replace").decode()  # it may quote half a character of a file
        full = os.strerror(errno.ENOSPC) in said  # safetensors' own error says it in words only
        print(
            f"minillava: {said}" + (" - make room, then run the same command again: it goes on" if full else ""),
            file=sys.stderr,
        )
        return 2

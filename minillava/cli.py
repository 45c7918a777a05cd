"""One command per verb: `minillava paper`, `minillava chat`, `minillava judge`, ...; each has a module in commands/.

A user's mistake ends in one line that says what to do, and in a status other than 0; a traceback means a bug. Ctrl-C,
SIGTERM and SIGHUP (a terminal that is closed) stop cleanly, and the same command resumes.
"""

import argparse
import errno
import importlib
import os
import re
import signal
import sys
import threading
from contextlib import contextmanager, suppress

from safetensors import SafetensorError

from minillava.errors import UserError
from minillava.text import printable

# Verb -> its line of help. Only the chosen verb's module is loaded: some need torch, others start at once.
VERBS = {
    "paper": "run the whole paper: data, two stages, judge, tables",
    "chat": "talk with the small LLaVA about a picture",
    "answer": "answer a file of questions about pictures: what `judge` reads",
    "train": "the two stages on your own records and pictures; also under torchrun",
    "doctor": "what this machine is, what each scale costs, and which fits here",
    "cost": "what each scale trains, how long it takes, and what it costs",
    "fetch": "the paper's real data, or a part of it, from the hub and from COCO",
    "import": "a language model in a GGUF file becomes a folder that `train` reads",
    "export": "a trained LLaVA for transformers, llama.cpp (GGUF) or, its LoRA, for PEFT",
    "course": "build the Chinese edition of the notebooks",
    "progress": "which tasks of the exercises pass on this machine; nothing is sent",
    "judge": "scores: reviews, LLaVA-Bench, ScienceQA, POPE",
    "generate": "instruction data from captioned pictures, by the offline teacher or any model",
    "filter": "keep the captions that cover concepts evenly (Appendix E, Fig. 7)",
    "serve": "a trained LLaVA behind an OpenAI-compatible address, and a chat page",
    "serve-teacher": "the offline teacher behind an OpenAI-compatible API on this machine",
}
RENAMED = {  # options as they were once called
    "--eye": "--vision-tower",
    "--brain": "--language-model",
    "--dataset": "--format parquet",
}


def parser(asked: str | None) -> argparse.ArgumentParser:
    """The command line. asked: the verb whose arguments are declared; of the others only the names."""
    main = argparse.ArgumentParser(prog="minillava", description="Visual Instruction Tuning (LLaVA), at any size.")
    verbs = main.add_subparsers(dest="verb", required=True)
    for name, what in VERBS.items():
        verb = verbs.add_parser(name, help=what)
        if name == asked:
            module = importlib.import_module(f"minillava.commands.{name.replace('-', '_')}")
            module.arguments(verb)
            verb.set_defaults(run=module.run)
    return main


def open_streams() -> None:
    """Open what was closed before the start, to nothing; print a ? where a terminal has no such character."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # the lowest free number first
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def stopping_as_ctrl_c():
    """Until the block ends, SIGTERM and SIGHUP do what Ctrl-C does at that moment. `nohup` keeps its meaning.

    Only the first counts: a terminal that is closed sends several, and what is being saved must be finished. Under
    torchrun they are left alone, as all processes must stop after the same step (training/parallel.py).
    """
    received = []

    def stop(kind, frame):
        handler = signal.getsignal(signal.SIGINT)
        if received:
            return
        if (
            frame is not None
            and frame.f_code.co_filename.startswith("<frozen importlib")
            and hasattr(signal, "setitimer")
        ):
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # perhaps a callback, where Python ignores errors: come again
            return
        received.append(kind)
        (handler if callable(handler) else signal.default_int_handler)(kind, frame)

    before = {}
    if "LOCAL_RANK" not in os.environ and threading.current_thread() is threading.main_thread():
        kinds = {getattr(signal, name, signal.SIGTERM) for name in ("SIGTERM", "SIGHUP", "SIGALRM")}
        before = {kind: signal.getsignal(kind) for kind in kinds if signal.getsignal(kind) != signal.SIG_IGN}
    for kind in before:
        signal.signal(kind, stop)
    try:
        yield
    finally:
        if getattr(signal, "SIGALRM", None) in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for kind, handler in before.items():
            signal.signal(kind, handler)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    open_streams()
    try:
        for name in (argument.partition("=")[0] for argument in arguments):
            if name in RENAMED:
                raise UserError(f"{name} is now called {RENAMED[name]}")
        options = parser(arguments[0] if arguments else None).parse_args(arguments)
        with stopping_as_ctrl_c():
            status = options.run(options) or 0
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be closed
            print("\nStopped. Finished work is kept; the same command resumes.", file=sys.stderr)
        return 130
    except EOFError:
        return 0
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discard what is still to be flushed
        return 1
    except RuntimeError as error:
        if "home directory" not in str(error):  # the words of pathlib, which other libraries use too
            raise
        print("minillava: this account has no home folder; set HOME to a folder of yours", file=sys.stderr)
        return 2
    except (UserError, OSError, SafetensorError) as error:
        message = printable(str(error))
        # Two libraries' errors of a full disk have no number, only words: safetensors' and numpy's.
        if os.strerror(errno.ENOSPC) in message or re.search(r"\d requested and \d+ written", message):
            message += " - free some space, then run the same command again: it resumes"
        print(f"minillava: {message}", file=sys.stderr)
        return 2

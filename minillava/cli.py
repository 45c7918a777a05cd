"""One command per verb of the paper: `minillava paper`, `minillava chat`, `minillava judge`.

Notable: what a user can get wrong ends in one line that says what to do and a status other than 0; a traceback means a
bug. Ctrl-C stops cleanly, and the same command goes on.
"""

import argparse
import errno
import os
import sys
from pathlib import Path

from minillava import hardware, scales
from minillava.datagen import command as data
from minillava.datagen.scienceqa import FORMATS
from minillava.judging import verbs as judging

# What a user can get wrong, by module: only those that are loaded can have been raised, and torch is loaded only by
# the verbs that need it.
USER_ERRORS = {
    "minillava.scales": "ScaleError",
    "minillava.run": "RunError",
    "minillava.preflight": "DoesNotFit",
    "minillava.data.images": "ImageError",
    "minillava.data.tokenizer": "TokenizerError",
    "minillava.data.remote": "FetchError",
    "minillava.datagen.records": "RecordError",
    "minillava.datagen.sources": "SourceError",
    "minillava.datagen.messages": "PromptError",
    "minillava.datagen.chunks": "ChunkerError",
    "minillava.datagen.concepts": "CaptionError",
    "minillava.datagen.scienceqa": "ScienceError",
    "minillava.judging.files": "BenchError",
    "minillava.asking.request": "AskingError",
    "minillava.model.files": "CheckpointError",
    "minillava.model.llava": "SpliceError",
    "minillava.training.checkpoints": "TrainingError",
    "minillava.chat": "ChatError",
    "safetensors": "SafetensorError",
    "builtins": "OSError",
    "minillava.exercises.kept": "ProgressError",
}
UNSEEN = 100_001  # a scene like the benchmark's that no benchmark uses
QUESTIONS = ("Describe this picture in detail.", "What is odd in this picture?")


def paper(options) -> int | None:
    """The whole paper in miniature, and at its end a picture that the new model has not seen; or one of its tables."""
    from minillava import miniature
    from minillava.chat import Chat, blocks
    from minillava.datagen.questions import questions
    from minillava.figures import answered, report_figures
    from minillava.figures_curves import health
    from minillava.report import show, write_report
    from minillava.run import RunError
    from minillava.scenes.compose import compose
    from minillava.scenes.draw import draw

    scale = scales.get(options.scale)
    if options.seeds < 1:
        raise RunError(f"--seeds {options.seeds}: at least 1 is needed")
    if options.table:
        from minillava.tables import paper_table

        return paper_table(options.table, options.scale, options.seeds, options.out)
    print(f"Visual Instruction Tuning in miniature, scale {scale.name}, in {options.out}")
    run = miniature.run_paper(options.out, scale, options.seeds)
    report = write_report(run)
    report_figures(report, run.folder)
    print(show(report, run.folder))
    for line in health(run.folder, scale.name):
        print(line)
    unseen = compose("bench", UNSEEN)
    picture = run.folder / "unseen.png"
    draw(unseen, 256).save(picture)
    chat = Chat(run.folder / "seed-0" / miniature.slug(miniature.FULL) / "model")
    chat.look(picture)
    asked = [*QUESTIONS, *(q.text for q in questions(unseen) if q.kind in ("colour", "side"))][:4]
    pairs = [(text, chat.ask(text)) for text in asked]
    answered(draw(unseen, 256), pairs).savefig(run.folder / "figures" / "unseen.png")
    print(f"\nA picture it has not seen ({picture}), and what the model you just trained says of it:\n")
    if sys.stdout.isatty():
        print(blocks(draw(unseen, 96)))
    for question, answer in pairs:
        print(f"  Human: {question}\n  Assistant: {answer}")
    print(f"\nTalk with the one that trained longer: minillava chat {picture}")


def chat(options) -> None:
    """Questions about a picture, from --ask or line by line; answers stream."""
    from minillava.chat import chat

    chat(options)


def answer(options) -> None:
    """Answers to a file of questions, in the authors' format, by a trained LLaVA. The same command goes on."""
    from minillava.answering import run

    run(options)


def doctor(options) -> None:
    """What this machine is, what each scale costs, which of them fits."""
    from minillava.doctor import doctor

    doctor(options)


def cost(options) -> None:
    """What each scale trains, how long that takes and what it costs."""
    from minillava.cost import cost

    cost(options)


def fetch(options) -> None:
    """The paper's real data, or a part of it, into a folder."""
    from minillava.fetch import run

    run(options)


def train(options) -> None:
    """The two stages on records and pictures of one's own, in this process or as one of torchrun's."""
    from minillava.train import train

    train(options)


def data_figures():
    """The module that draws generated data, loaded when it is needed."""
    from minillava import figures_data

    return figures_data


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="minillava", description="Visual Instruction Tuning (LLaVA), the whole paper, at any size."
    )
    verbs = main.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("paper", help="run the whole paper: data, two stages, judge, tables")
    verb.add_argument("--scale", default="tiny", help=f"one of: {', '.join(scales.SCALES)} (default: tiny)")
    verb.add_argument("--seeds", type=int, default=1, help="how many seeds; 3 show the spread")
    verb.add_argument(
        "--out",
        type=Path,
        default=Path("runs/paper"),
        help="where everything goes; a stopped run goes on here (Tables 7 and 8: in its folder `science`)",
    )
    verb.add_argument(
        "--table",
        type=int,
        choices=(3, 4, 5, 6, 7, 8, 10),
        help="rebuild this table of the paper, over at least 3 seeds",
    )
    verb.set_defaults(do=paper)
    verb = verbs.add_parser("chat", help="talk with the small LLaVA about a picture")
    verb.add_argument("picture", type=Path)
    verb.add_argument(
        "--ask", action="append", metavar="QUESTION", help="ask this instead of reading questions line by line"
    )
    verb.add_argument(
        "--weights", default=scales.WEIGHTS / "llava", help="a folder or a hub id that holds a trained LLaVA"
    )
    verb.add_argument("--template", help="the form of the conversation, where the weights do not say theirs")
    verb.add_argument("--max-new-tokens", type=int, default=120, help="the longest answer (default: 120)")
    verb.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest word (default: 0)")
    verb.add_argument("--top-p", type=float, default=1.0, help="draw from the likeliest words that hold this share")
    verb.add_argument("--seed", type=int, default=0, help="of what is drawn")
    verb.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="(default: bfloat16 on a GPU, else float32)"
    )
    verb.set_defaults(do=chat)
    verb = verbs.add_parser("answer", help="answer a file of questions about pictures: what `judge` reads")
    verb.add_argument("questions", type=Path, help="JSONL; with --format ScienceQA's problems.json, folder or parquet")
    verb.add_argument("--images", type=Path, required=True, help="the folder of the pictures")
    verb.add_argument("--out", type=Path, required=True, help="a JSONL of answers; a stopped run goes on there")
    verb.add_argument(
        "--weights", default=scales.WEIGHTS / "llava", help="a folder or a hub id that holds a trained LLaVA"
    )
    verb.add_argument("--template", help="the form of the conversation, where the weights do not say theirs")
    verb.add_argument(
        "--look",
        choices=("picture", "blank", "shuffled", "text"),
        default="picture",
        help="the controls: what is shown",
    )
    verb.add_argument("--format", choices=FORMATS, help="ScienceQA: the form that the weights were trained under")
    verb.add_argument("--authors-joint", action="store_true", help="QCM-LEPA: between the two steps what the authors' script put there, not what stands in training")  # fmt: skip
    verb.add_argument("--split", default="test", help="ScienceQA: train, val or test (default: test)")
    verb.add_argument("--limit", type=int, help="only so many questions, the first")
    verb.add_argument("--batch", type=int, default=32, help="questions at a time (default: 32)")
    verb.add_argument(
        "--max-new-tokens",
        type=int,
        help="the longest answer (default: 120; ScienceQA's reasons: 1024, as the authors)",
    )
    verb.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="(default: bfloat16 on a GPU, else float32)"
    )
    verb.set_defaults(do=answer)
    verb = verbs.add_parser("train", help="the two stages on your own records and pictures; also under torchrun")
    verb.add_argument("data", type=Path, help="a folder with stage1.json, stage2.json and images/")
    verb.add_argument("--scale", default="tiny", help="whose recipe and parts to take (default: tiny)")
    verb.add_argument(
        "--recipe", default="stage 2", choices=("stage 2", "ScienceQA"), help="what stage2.json is trained by"
    )
    verb.add_argument("--out", type=Path, default=Path("runs/train"), help="a stopped run goes on here")
    verb.add_argument("--images", type=Path, help="where the pictures are (default: DATA/images)")
    verb.add_argument("--eye", help="a CLIP folder or hub id (default: the scale's)")
    verb.add_argument("--brain", help="a Llama, Mistral or Qwen2 folder or hub id (default: the scale's)")
    verb.add_argument("--batch", type=int, help="samples of one step, over all processes (default: the recipe's)")
    verb.add_argument("--micro", type=int, help="of the longest samples, how many one process takes at once")
    verb.add_argument("--tokens", type=int, default=0, help="instead of --micro: how many tokens at once")
    verb.add_argument("--lr", type=float, help="of the last stage there is")
    verb.add_argument("--epochs", type=int)
    verb.add_argument(
        "--lora", type=int, metavar="RANK", help="stage 2 trains LoRA of this rank instead of the matrices"
    )
    verb.add_argument(
        "--checkpointing", action="store_const", const=True, help="compute activations again: less memory, more time"
    )
    verb.add_argument(
        "--packed", action="store_true", help="samples end to end without padding, each seeing itself alone"
    )
    verb.add_argument("--replicate", action="store_true", help="many processes: each holds all weights (DDP)")
    verb.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="(default: what the machine does best)"
    )
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(do=train)
    verb = verbs.add_parser("doctor", help="what this machine is, what each scale costs, and which fits here")
    verb.add_argument("--json", action="store_true", help="the same figures for a program")
    verb.set_defaults(do=doctor)
    verb = verbs.add_parser("cost", help="what each scale trains, how long that takes, what it costs")
    verb.add_argument("--scale", help=f"one of: {', '.join(scales.SCALES | scales.REAL)} (default: all)")
    verb.add_argument(
        "--hardware",
        help=f"here, {', '.join(hardware.CARDS)}, or several: 8xa100-80gb (default: what the scale is for)",
    )
    verb.add_argument(
        "--utilisation", type=float, default=hardware.UTILISATION, help="share of the peak reached (default: 0.4)"
    )
    verb.add_argument("--price", type=float, help="dollars an hour and card, instead of those assumed")
    verb.add_argument("--json", action="store_true", help="the same figures for a program")
    verb.set_defaults(do=cost)
    verb = verbs.add_parser("fetch", help="the paper's real data, or a part of it, from the hub and from COCO")
    verb.add_argument(
        "source", choices=("pretrain", "instruct", "scienceqa"), help="data of stage 1, of stage 2, or ScienceQA"
    )
    verb.add_argument(
        "--out", type=Path, required=True, help="where stage1.json or stage2.json and images/ go; goes on there"
    )
    verb.add_argument("--part", help="instruct: conversation, detail or complex; scienceqa: train, validation or test")
    verb.add_argument("--limit", type=int, help="so many records, by chance (default: all)")
    verb.add_argument("--seed", type=int, default=0, help="of that chance")
    verb.add_argument(
        "--missing", type=float, default=0.02, help="share of pictures that may be missing (default: 0.02)"
    )
    verb.set_defaults(do=fetch)
    verb = verbs.add_parser("progress", help="which tasks of the exercises pass on this machine; nothing is sent")
    verb.set_defaults(do=progress)
    judging.add(verbs)
    data.add(verbs, data_figures)
    return main


def progress(options) -> None:
    from minillava.exercises import progress as page

    print(page())


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        status = options.do(options) or 0
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
    except tuple(getattr(sys.modules[m], name) for m, name in USER_ERRORS.items() if m in sys.modules) as error:
        said = str(error).encode("utf-8", "replace").decode()  # it may quote half a character of a file
        full = os.strerror(errno.ENOSPC) in said  # safetensors' own error says it in words only
        print(
            f"minillava: {said}" + (" - make room, then run the same command again: it goes on" if full else ""),
            file=sys.stderr,
        )
        return 2

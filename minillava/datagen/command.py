"""`minillava generate`, `minillava filter`, `minillava serve-teacher`: section 3 and Appendix E on the command line.

Notable: `generate` ends with status 0 only when every record was made; 1 says that something was left out, quarantined
or not asked (the summary says what), 2 that it could not be done. The same command goes on where it stopped.

    minillava generate --source picture-book --limit 20 --out runs/generated
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from minillava.asking import AskingError, Budget, Price, confirm, price
from minillava.asking.request import LOOPBACK
from minillava.asking.server import serve
from minillava.datagen.concepts import (
    LEAST,
    MOST,
    CaptionError,
    concept_filter,
    read_captions,
    write_captions,
    write_phrases,
)
from minillava.datagen.generate import INSTRUCT, KINDS, SUMMARY, Settings, generate, guess, plan, show, write_requests
from minillava.datagen.messages import PROMPTS
from minillava.datagen.records import read_records
from minillava.datagen.sources import BOOK, SourceError, read_source
from minillava.datagen.statistics import statistics, table
from minillava.datagen.teacher import TYPES, USES_BOXES
from minillava.datagen.teachers import OFFLINE, OfflineTeacher, Recorded, offline_reply, openai_teacher

MODEL = "gpt-4o"  # of the openai teacher, unless --model names another; the paper's GPT-4 is gone
SHOWN = 20  # problems on the terminal; the quarantine file has all


def do_generate(options, figures: Callable) -> int:
    """Read the source, ask the teacher, write records, quarantine, summary, statistics; or show or write the requests."""
    out, offline = Path(options.out), options.teacher == "offline"
    settings = Settings(
        types=_names(options.types), model=options.model or (OFFLINE if offline else MODEL), prompts=options.prompts,
        boxes=_names(options.boxes), max_tokens=options.max_tokens, temperature=options.temperature, seed=options.seed,
    )  # fmt: skip
    book = options.source.partition(":")[0] == BOOK
    if options.images is None and not book:
        raise SourceError("--images: name the folder that the pictures are in")
    if out.exists() and not out.is_dir():
        raise AskingError(f"{out} is a file; name a folder with --out")
    images = options.images or out / "pictures"
    pictures, problems = read_source(options.source, images, options.instances, options.limit)
    for problem in problems[:SHOWN]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"left out: ... and {len(problems) - SHOWN:,} more", file=sys.stderr)
    if not pictures:
        raise SourceError(f"{options.source}: no picture that can be used ({len(problems)} left out)")
    cost = Price(0.0, 0.0) if offline else price(settings.model, options.price)
    if options.dry_run:
        return _dry_run([item for item in plan(pictures, settings) if item.body], cost)
    if options.write_batch:
        paths, count = write_requests(pictures, out, settings)
        print(f"{count:,} requests in {len(paths)} files: {', '.join(map(str, paths)) or 'all are answered'}")
        print(
            f"Upload them; when done, run the same command with --read-batch FILE... instead of --write-batch (to {out})"
        )
        return 0
    budget, teacher = Budget(options.budget, options.budget_tokens), _teacher(options, settings.model)
    summary = generate(
        pictures, teacher, out, settings, problems, cost, budget, options.concurrency,
        lambda estimate: None if offline or options.replay else confirm(estimate, budget, teacher.endpoint, options.yes),
        options.read_batch,
    )  # fmt: skip
    print(summary)
    _describe({kind: read_records(out / f"{kind}.json") for kind in settings.types}, out, images, options, figures)
    print(f"written to {out}: {', '.join(f'{k}.json' for k in settings.types)}, {INSTRUCT}, {SUMMARY}, statistics.png")
    return 0 if summary.complete else 1


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _teacher(options, model: str):
    if options.replay:
        return Recorded(options.replay, model)
    if options.teacher == "offline" or options.read_batch:
        return OfflineTeacher()
    return openai_teacher(model, options.base_url, options.timeout)


def _dry_run(items: list, cost: Price | None) -> int:
    for item in items:
        print(show(item), end="\n\n")
    print(f"nothing was sent; it would be {guess(items, cost)}", file=sys.stderr)
    return 0


def _describe(records: dict[str, list[dict]], out: Path, images: Path, options, figures: Callable) -> None:
    """Statistics as a table, a file and a figure; a dataset where one is asked for."""
    found = statistics(records)
    print(table(found))
    words = {k: {**one.row(), "nouns": one.nouns, "verbs": one.verbs} for k, one in found.items()}
    try:
        (out / "statistics.json").write_text(json.dumps(words, indent=1) + "\n")
        figures().statistics_figure(found).savefig(out / "statistics.png")
    except OSError as error:
        raise AskingError(f"{out}: the statistics cannot be written ({error.strerror}); the records are there") from error  # fmt: skip
    if options.dataset:
        from minillava.datagen.export import to_dataset

        try:
            to_dataset(records, images).save_to_disk(str(options.dataset))
        except OSError as error:
            raise AskingError(f"{options.dataset}: the dataset cannot be written ({error.strerror or error}); the records are there") from error  # fmt: skip
        print(f"dataset: {options.dataset}")


def do_filter(options, figures: Callable) -> int:
    """Captions to the captions that cover all concepts evenly, with the figures behind Fig. 7."""
    out = Path(options.out)
    captions, raw, problems = read_captions(options.captions)
    for problem in problems[:SHOWN]:
        print(f"left out: {problem}", file=sys.stderr)
    concepts = concept_filter(
        captions, options.least, options.most, options.seed, options.chunker, not options.keep_case, options.determiners,
        options.occurrences, options.pooled, progress=True,
    )  # fmt: skip
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_captions([raw[i] for i in concepts.kept], out / f"captions{options.captions.suffix}")
        write_phrases(concepts, out / "phrases.tsv")
        counts = concepts.counts() | {"left out": len(problems), "chunker": concepts.chunker}
        (out / SUMMARY).write_text(json.dumps(counts | {"problems": problems}, indent=1) + "\n")
        figures().concept_figure(concepts, options.least, options.most).savefig(out / "phrases.png")
    except OSError as error:
        raise CaptionError(f"{out}: cannot be written to ({error.strerror})") from error
    print("\n".join(f"{name}: {n:,}" if isinstance(n, int) else f"{name}: {n}" for name, n in counts.items()))
    print(f"written to {out}: captions{options.captions.suffix}, phrases.tsv, phrases.png, {SUMMARY}")
    return 1 if problems else 0


def do_serve(options) -> int:
    """The offline teacher behind an OpenAI-compatible API, until Ctrl-C."""
    server = serve(offline_reply, options.port, options.host, OFFLINE)
    if options.host not in LOOPBACK:
        print(f"warning: whoever can reach {options.host} can use this; it has no key and no limits", file=sys.stderr)
    address = f"http://{options.host}:{server.server_port}/v1"
    print(f"The offline teacher is at {address} (Ctrl-C stops it). In another terminal:")
    print(
        f"  minillava generate --teacher openai --base-url {address} --model {OFFLINE} --yes --source ... --out ...",
        flush=True,
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        server.server_close()
    return 0


def add(verbs: argparse._SubParsersAction, figures: Callable) -> None:
    """Add the three verbs. figures: gives the module that draws, which stands above this one, when it is needed."""
    verb = verbs.add_parser(
        "generate", help="instruction data from captioned pictures, by the offline teacher or any model"
    )
    verb.add_argument("--source", required=True, help=f"COCO's captions_*.json, a caps_boxes .jsonl, a .csv (image, caption), or {BOOK}")  # fmt: skip
    verb.add_argument("--images", type=Path, help=f"the folder the pictures are in ({BOOK}: they are drawn into it)")
    verb.add_argument("--instances", type=Path, help="COCO's instances_*.json (default: the one beside the captions)")
    verb.add_argument("--types", default=",".join(TYPES), help=f"of {', '.join(KINDS)} (default: %(default)s)")
    verb.add_argument("--boxes", default=",".join(k for k, used in USES_BOXES.items() if used), help="types that are told the boxes (default, as in the paper: %(default)s)")  # fmt: skip
    verb.add_argument("--teacher", choices=("offline", "openai"), default="offline", help="(default: offline)")
    verb.add_argument("--model", help=f"the openai teacher's model (default: {MODEL})")
    verb.add_argument("--base-url", help="where the API is (default: OPENAI_BASE_URL, else OpenAI)")
    verb.add_argument("--prompts", type=Path, default=PROMPTS, help="a folder with conversation/, detail_description/, complex_reasoning/ (default: this project's)")  # fmt: skip
    verb.add_argument(
        "--out", type=Path, required=True, help="a folder for records and replies; a stopped run goes on here"
    )
    verb.add_argument("--limit", type=int, metavar="N", help="the first N pictures")
    verb.add_argument(
        "--budget", type=float, metavar="USD", help="spend at most this, all runs of this folder together"
    )
    verb.add_argument(
        "--budget-tokens", type=int, metavar="N", help="use at most so many tokens, prompt and completion"
    )
    verb.add_argument("--price", metavar="PROMPT,COMPLETION", help="dollars a million tokens, for a model without a known price")  # fmt: skip
    verb.add_argument("--concurrency", type=int, default=16, help="requests at a time (default: 16)")
    verb.add_argument("--timeout", type=float, default=120.0, help="seconds for one reply (default: 120)")
    verb.add_argument("--max-tokens", type=int, default=1024, help="the longest reply (default: 1024)")
    verb.add_argument("--temperature", type=float, help="(default: the endpoint's)")
    verb.add_argument(
        "--seed", type=int, default=0, help="of where the image stands and which description is asked for"
    )
    verb.add_argument("--dry-run", action="store_true", help="print the exact messages and the estimate, send nothing")
    verb.add_argument("--yes", action="store_true", help="do not ask before sending")
    verb.add_argument(
        "--replay", type=Path, metavar="FILE", help="recorded replies (a replies.jsonl) instead of a teacher"
    )
    verb.add_argument("--write-batch", action="store_true", help="write input files for the Batch API and stop")
    verb.add_argument("--read-batch", type=Path, nargs="+", metavar="FILE", help="take the replies from the Batch API's output files")  # fmt: skip
    verb.add_argument("--dataset", type=Path, metavar="DIR", help="also save the records as a `datasets` dataset")
    verb.set_defaults(do=lambda options: do_generate(options, figures))

    verb = verbs.add_parser("filter", help="keep the captions that cover concepts evenly (Appendix E, Fig. 7)")
    verb.add_argument("captions", type=Path, help="a .txt (a caption a line), .tsv (CC3M's), .csv, or .json of records")
    verb.add_argument("--out", type=Path, required=True)
    verb.add_argument("--least", type=int, default=LEAST, help="skip phrases that are rarer (default: %(default)s, the paper's)")  # fmt: skip
    verb.add_argument("--most", type=int, default=MOST, help="draw this many captions of a phrase that has more (default: %(default)s, the paper's)")  # fmt: skip
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--chunker", default="auto", help="spacy, rules, or auto: spaCy where it is installed (default)")
    verb.add_argument("--keep-case", action="store_true", help="compare phrases as they are written")
    verb.add_argument("--determiners", action="store_true", help="`a dog` and `the dog` are two phrases")
    verb.add_argument(
        "--occurrences", action="store_true", help="count a phrase as often as it occurs, not once a caption"
    )
    verb.add_argument(
        "--pooled", action="store_true", help="captions that rarer phrases brought in count toward --most"
    )
    verb.set_defaults(do=lambda options: do_filter(options, figures))

    verb = verbs.add_parser("serve-teacher", help="the offline teacher behind an OpenAI-compatible API on this machine")
    verb.add_argument("--port", type=int, default=8000, help="(default: 8000; 0 takes a free one)")
    verb.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1, this machine only)")
    verb.set_defaults(do=do_serve)

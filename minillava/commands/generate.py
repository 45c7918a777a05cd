"""`minillava generate`: section 3 on the command line.

Notable: `generate` ends with status 0 only when every record was made; 1 says that something was left out, quarantined
or not asked (the summary says what), 2 that it could not be done. The same command goes on where it stopped.

    minillava generate --source picture-book --limit 20 --out runs/generated
"""

import json
import sys
from pathlib import Path

from minillava.asking import AskingError, Budget, Price, confirm, price_of
from minillava.data.records import read_records
from minillava.datagen.generate import INSTRUCT, KINDS, SUMMARY, Settings, generate, guess, plan, show, write_requests
from minillava.datagen.messages import PROMPTS, TYPES, USES_BOXES
from minillava.datagen.sources import SourceError, read_source
from minillava.datagen.statistics import statistics, statistics_table
from minillava.datagen.teachers import MODEL, OFFLINE, Recorded, openai_teacher
from minillava.standins.pictures import BOOK, picture_book
from minillava.standins.teacher import OfflineTeacher
from minillava.text import aligned, listed

SHOWN = 20  # problems on the terminal; the quarantine file has all


def arguments(parser) -> None:
    """Declare what the verb is given."""
    parser.add_argument("--source", required=True, help=f"COCO's captions_*.json, a caps_boxes .jsonl, a .csv (image, caption), or {BOOK}")  # fmt: skip
    parser.add_argument("--images", type=Path, help=f"the folder the pictures are in ({BOOK}: they are drawn into it)")
    parser.add_argument("--instances", type=Path, help="COCO's instances_*.json (default: the one beside the captions)")
    parser.add_argument("--types", default=",".join(TYPES), help=f"of {', '.join(KINDS)} (default: %(default)s)")
    parser.add_argument("--boxes", default=",".join(k for k, used in USES_BOXES.items() if used), help="types that are told the boxes (default, as in the paper: %(default)s)")  # fmt: skip
    parser.add_argument("--teacher", choices=("offline", "openai"), default="offline", help="(default: offline)")
    parser.add_argument("--model", help=f"the openai teacher's model (default: {MODEL})")
    parser.add_argument("--base-url", help="where the API is (default: OPENAI_BASE_URL, else OpenAI)")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="a folder with conversation/, detail_description/, complex_reasoning/ (default: this project's)")  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, help="a folder for records and replies; a stopped run goes on here"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N pictures")
    parser.add_argument(
        "--budget", type=float, metavar="USD", help="spend at most this, all runs of this folder together"
    )
    parser.add_argument(
        "--budget-tokens", type=int, metavar="N", help="use at most so many tokens, prompt and completion"
    )
    parser.add_argument("--price", metavar="PROMPT,COMPLETION", help="dollars a million tokens, for a model without a known price")  # fmt: skip
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time (default: 16)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one reply (default: 120)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="the longest reply (default: 1024)")
    parser.add_argument("--temperature", type=float, help="(default: the endpoint's)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of where the image stands and which description is asked for"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the exact messages and the estimate, send nothing"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before sending")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="recorded replies (a replies.jsonl) instead of a teacher"
    )
    parser.add_argument("--write-batch", action="store_true", help="write input files for the Batch API and stop")
    parser.add_argument("--read-batch", type=Path, nargs="+", metavar="FILE", help="take the replies from the Batch API's output files")  # fmt: skip
    parser.add_argument("--dataset", type=Path, metavar="DIR", help="also save the records as a `datasets` dataset")


def run(options) -> int:
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
    if book:
        pictures, problems = picture_book(options.source, images, options.limit), []
    else:
        pictures, problems = read_source(options.source, images, options.instances, options.limit)
    if problems:
        print(f"left out, {len(problems):,}:\n{listed(problems, SHOWN)}", file=sys.stderr)
    if not pictures:
        raise SourceError(f"{options.source}: no picture that can be used ({len(problems)} left out)")
    cost = Price(0.0, 0.0) if offline else price_of(settings.model, options.price)
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
    _describe({kind: read_records(out / f"{kind}.json") for kind in settings.types}, out, images, options)
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


def _describe(records: dict[str, list[dict]], out: Path, images: Path, options) -> None:
    """Statistics as a table, a file and a figure; a dataset where one is asked for."""
    from minillava.figures.data import statistics_figure  # matplotlib takes a while; --dry-run needs none of it

    found = statistics(records)
    print(aligned(statistics_table(found)))
    words = {k: {**one.row(), "nouns": one.nouns, "verbs": one.verbs} for k, one in found.items()}
    try:
        (out / "statistics.json").write_text(json.dumps(words, indent=1) + "\n")
        statistics_figure(found).savefig(out / "statistics.png")
    except OSError as error:
        raise AskingError(f"{out}: the statistics cannot be written ({error.strerror}); the records are there") from error  # fmt: skip
    if options.dataset:
        from minillava.datagen.export import to_dataset

        try:
            to_dataset(records, images).save_to_disk(str(options.dataset))
        except OSError as error:
            raise AskingError(f"{options.dataset}: the dataset cannot be written ({error.strerror or error}); the records are there") from error  # fmt: skip
        print(f"dataset: {options.dataset}")

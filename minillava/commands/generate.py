"""`minillava generate`: instruction data from captioned pictures (section 3).

The status is 0 only if every record was made; 1 if something was left out, quarantined or not asked (the summary says
what); 2 if nothing could be done. The same command resumes a stopped run. OUT is then a folder for `minillava train`.
Two more sources ask no teacher: the science quiz, and single questions about drawn pictures (`--scale smol`).

    minillava generate --source picture-book --limit 20 --out runs/generated
    minillava generate --source picture-book --limit 20 --out runs/generated --format messages  # also for TRL, ms-swift
    minillava generate --source quiz --limit 1000 --out runs/quiz      # or quiz:test, to ask about
    minillava generate --source questions --limit 6000 --out runs/seeing
"""

import json
import os
import sys
from pathlib import Path

from minillava import paper
from minillava.asking import AskingError, Budget, Price, confirm, price_of
from minillava.commands import MOST_LISTED
from minillava.data.records import write_records
from minillava.data.scienceqa import FORMATS, SPLITS, science_record, write_problems
from minillava.data.valid import read_records
from minillava.datagen.export import FORMS, check_form, write_as
from minillava.datagen.generate import (
    ALL_TYPES,
    CAPTION,
    INSTRUCT,
    SUMMARY,
    PlannedRecord,
    Settings,
    estimate_cost,
    generate,
    plan_records,
    record_of,
    request_text,
    write_requests,
)
from minillava.datagen.messages import PROMPTS, TYPES, USES_BOXES
from minillava.datagen.sources import SourceError, read_source
from minillava.datagen.statistics import statistics, statistics_table
from minillava.datagen.teachers import OFFLINE_MODEL, OPENAI_MODEL, RecordedTeacher, openai_teacher
from minillava.standins.pictures import PICTURE_BOOK, SIZE_NOTE, picture_book
from minillava.standins.quiz import draw_quiz
from minillava.standins.seeing import write_seeing
from minillava.standins.teacher import OfflineTeacher
from minillava.text import aligned, few, listed


def arguments(parser) -> None:
    """Declare the verb's arguments."""
    add, boxed = parser.add_argument, ",".join(kind for kind, used in USES_BOXES.items() if used)
    add(
        "--source",
        required=True,
        help=f"COCO's captions_*.json, a caps_boxes .jsonl, a .csv of captions, {PICTURE_BOOK}, quiz, or questions",
    )
    add("--images", type=Path, help=f"the folder of the pictures ({PICTURE_BOOK}: they are drawn into it)")
    add("--instances", type=Path, help="COCO's instances_*.json (default: the one in the folder of the captions)")
    add("--types", default=",".join(TYPES), help=f"of {', '.join(ALL_TYPES)} (default: %(default)s)")
    add("--boxes", default=boxed, help="types whose context has the boxes (default, as in the paper: %(default)s)")
    add("--teacher", choices=("offline", "openai"), default="offline", help="(default: offline)")
    add("--model", help=f"the openai teacher's model (default: {OPENAI_MODEL})")
    add("--base-url", help="where the API is (default: OPENAI_BASE_URL, else OpenAI)")
    add("--prompts", type=Path, default=PROMPTS, help="a folder with one folder per type (default: this project's)")
    add("--out", type=Path, required=True, help="a folder for records and replies; a stopped run resumes here")
    add("--limit", type=int, metavar="N", help="the first N pictures")
    add("--budget", type=float, metavar="USD", help="spend at most this, over all runs in this folder")
    add("--budget-tokens", type=int, metavar="N", help="use at most N tokens, prompt and completion")
    add("--price", metavar="PROMPT,COMPLETION", help="dollars per million tokens, for a model without a known price")
    add("--concurrency", type=int, default=16, help="requests at a time (default: 16)")
    add("--timeout", type=float, default=120.0, help="seconds for one reply (default: 120)")
    add("--max-tokens", type=int, default=1024, help="the longest reply (default: 1024)")
    add("--temperature", type=float, help="(default: the endpoint's)")
    add("--seed", type=int, default=0, help="of the image's place and of the description that is asked for")
    add("--dry-run", action="store_true", help="print the exact messages and the estimate, send nothing")
    add("--yes", action="store_true", help="do not ask before sending")
    add("--replay", type=Path, metavar="FILE", help="recorded replies (a replies.jsonl) instead of a teacher")
    add("--write-batch", action="store_true", help="write input files for the Batch API and stop")
    add("--read-batch", type=Path, nargs="+", metavar="FILE", help="take the replies from the Batch API's output files")
    add(
        "--format",
        choices=FORMS,
        default=FORMS[0],
        help="also write stage1 and stage2 as other tools read them, into OUT/FORMAT",
    )


def run(options) -> int:
    """Read the source, ask the teacher, write records, quarantine, summary, statistics; or show or write requests."""
    out, offline = Path(options.out), options.teacher == "offline"
    settings = Settings(
        types=_names(options.types), model=options.model or (OFFLINE_MODEL if offline else OPENAI_MODEL),
        prompts=options.prompts, boxes=_names(options.boxes), max_tokens=options.max_tokens,
        temperature=options.temperature, seed=options.seed,
    )  # fmt: skip
    if options.source.partition(":")[0] in ("quiz", "questions"):
        return _write_ready(options, out)
    book = options.source.partition(":")[0] == PICTURE_BOOK
    if options.images is None and not book:
        raise SourceError("--images: name the folder of the pictures")
    if out.exists() and not out.is_dir():
        raise AskingError(f"{out} is a file; name a folder with --out")
    images = options.images or out / "pictures"
    if book:
        pictures, problems = picture_book(options.source, images, options.limit), []
    else:
        pictures, problems = read_source(options.source, images, options.instances, options.limit)
    if problems:
        print(f"left out, {len(problems):,}:\n{listed(problems, MOST_LISTED)}", file=sys.stderr)
    if not pictures:
        raise SourceError(f"{options.source}: no usable picture ({len(problems)} left out)")
    cost = Price(0.0, 0.0) if offline else price_of(settings.model, options.price)
    check_form(options.format, (picture.image for picture in pictures))
    if options.dry_run:
        return _dry_run([item for item in plan_records(pictures, settings) if item.body], cost)
    if options.write_batch:
        paths, count = write_requests(pictures, out, settings)
        print(f"{count:,} requests in {len(paths)} files: {', '.join(map(str, paths)) or 'all are answered'}")
        print(f"Upload them. Then run the same command with --read-batch FILE... instead of --write-batch (to {out})")
        return 0
    budget, teacher = Budget(options.budget, options.budget_tokens), _teacher(options, settings.model)

    def consent(estimate):
        if not offline and not options.replay:
            confirm(estimate, budget, teacher.endpoint, options.yes)

    summary = generate(
        pictures, teacher, out, settings, problems, cost, budget, options.concurrency, consent, options.read_batch
    )
    print(summary)
    records = {kind: read_records(out / f"{kind}.json") for kind in settings.types}
    _describe(records, out)
    print(f"written to {out}: {', '.join(f'{k}.json' for k in settings.types)}, {INSTRUCT}, {SUMMARY}, statistics.png")
    _write_for_training(records, pictures, images, out, settings.seed, options.format)
    if book:
        print(SIZE_NOTE)
    return 0 if summary.complete else 1


def mixture(records: dict[str, list[dict]], pictures: int) -> tuple[list[dict], str]:
    """Instruction records in the paper's proportions (58K : 23K : 77K), and how many of each type, as text.

    records: by type. The commonest of these types gets a record per picture; where fewer were made than the proportions
    ask for, all are taken. The types take turns, so that the first N records have these proportions too.
    """
    shares = {kind: share for kind, share in paper.DATA["instruct_types"].value.items() if kind in records}
    turns, said = [], []
    for kind, share in shares.items():
        wanted = -(-pictures * share // max(shares.values()))
        taken = records[kind][:wanted]
        turns += [((n + 0.5) / len(taken), record) for n, record in enumerate(taken)]
        said.append(f"{len(taken):,} {kind}" + (f" ({wanted:,} wanted)" if len(taken) < wanted else ""))
    return [record for _, record in sorted(turns, key=lambda turn: turn[0])], ", ".join(said)


def _write_for_training(records: dict, pictures: list, images: Path, out: Path, seed: int, form: str) -> None:
    """stage1.json, a caption of every picture; stage2.json, the `mixture`; `out`/images, a link to the pictures.

    form: other tools' form in which both are also written, into a folder of its name (`datagen/export.py`).
    """
    stages = {"stage1": [record_of(PlannedRecord(picture, CAPTION), None, seed) for picture in pictures]}
    print(f"stage1.json: {len(pictures):,} pairs of a picture and a caption")
    if set(records) & set(TYPES):
        stages["stage2"], said = mixture(records, len(pictures))
        print(f"stage2.json, in the paper's proportions: {said}")
    for name, some in stages.items():
        write_records(some, out / f"{name}.json")
    if form != FORMS[0]:
        written = write_as(form, stages, images, out / form)
        if written[0].suffix == ".json":
            _link_pictures(images, out / form, out)
        print(f"as {form}: {few(map(str, written))}")
    more = "" if _link_pictures(images, out, out) else f" --images {images}"
    print(f"train on it: minillava train {out}{more}")


def _link_pictures(images: Path, folder: Path, out: Path) -> bool:
    """Make `folder`/images a link to the pictures; whether they are there now. `out`: what can be moved as a whole."""
    link, target, home = folder / "images", images.resolve(), out.resolve()
    try:
        if link.resolve() != target:
            link.unlink(missing_ok=True)  # a link of a run with other pictures; a folder is an error
            near = os.path.relpath(target, folder.resolve()) if target.is_relative_to(home) else target
            link.symlink_to(near, target_is_directory=True)
    except OSError as error:
        print(f"{link}: no link to the pictures could be made ({error.strerror})", file=sys.stderr)
        return False
    return True


def _write_ready(options, out: Path) -> int:
    """Records that no teacher is asked for, as stage2.json with images/: the first problems of a split of the science
    quiz, in ScienceQA's own files too, or single questions about the first pictures."""
    kind, _, split = options.source.partition(":")
    split, count = split or "train", 100 if options.limit is None else options.limit
    splits = SPLITS if kind == "quiz" else ("train",)
    if split not in splits or count < 1:
        raise SourceError(f"{options.source}, --limit {count}: splits are {', '.join(splits)}; --limit is 1 or more")
    if options.images or options.dry_run or options.write_batch or options.format != FORMS[0]:
        raise SourceError(f"--source {options.source} takes only --limit and --out: no teacher is asked")
    if kind == "questions":
        print(f"written to {out}: stage2.json, {write_seeing(count, out):,} records; images")
        print(f"train on it: minillava train {out} --scale smol --projector runs/real/projector.safetensors")
        return 0
    problems, format = draw_quiz(split, count, out / "images"), FORMATS[0]
    write_problems(problems, out)
    write_records((science_record(problem, format) for problem in problems), out / "stage2.json")
    print(f"written to {out}: stage2.json, {count:,} problems as {format}; problems.json, pid_splits.json, images")
    print(f"train on it: minillava train {out} --recipe ScienceQA --scale SCALE, with --weights or --projector")
    print(f"ask about it: minillava answer {out} --split {split} --format {format} --images {out / 'images'} ...")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _teacher(options, model: str):
    if options.replay:
        return RecordedTeacher(options.replay, model)
    if options.teacher == "offline" or options.read_batch:
        return OfflineTeacher()
    return openai_teacher(model, options.base_url, options.timeout)


def _dry_run(items: list, cost: Price | None) -> int:
    for item in items:
        print(request_text(item), end="\n\n")
    print(f"nothing was sent; it would be {estimate_cost(items, cost)}", file=sys.stderr)
    return 0


def _describe(records: dict[str, list[dict]], out: Path) -> None:
    """Statistics as a table, a file and a figure."""
    from minillava.figures.data import statistics_figure  # matplotlib takes a while, and --dry-run does not need it

    found = statistics(records)
    print(aligned(statistics_table(found)))
    rows = {kind: {**one.row(), "nouns": one.nouns, "verbs": one.verbs} for kind, one in found.items()}
    try:
        (out / "statistics.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        statistics_figure(found).savefig(out / "statistics.png")
    except OSError as error:
        raise AskingError(f"{out}: the statistics cannot be written ({error.strerror})") from error

"""Section 3 as code: pictures with captions and boxes, asked about through any teacher, to instruction records.

Notable: everything is planned first (which messages for which picture), then asked (`asking.ask_all`: journal, budget,
retries), then read from the journal alone. So the records do not depend on the order of the replies, on interruptions,
or on whether the replies came one by one, in a batch or from a recording. What becomes no record is in the quarantine
file with its reason. Neither torch nor transformers is needed.

    minillava generate --source data_samples/caps_boxes.jsonl --images data_samples/pictures --out runs/generated
"""

import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from minillava.asking import (
    NO_LIMIT,
    AskingError,
    Budget,
    Estimate,
    Journal,
    Outcome,
    Price,
    Teacher,
    ask_all,
    chat,
    estimate,
    key,
    read_batch,
    write_batch,
)
from minillava.asking.request import likely_tokens
from minillava.data.records import IMAGE_TOKEN, make_record, write_records
from minillava.datagen.messages import (
    BRIEF,
    DETAILED,
    FOLDERS,
    PROMPTS,
    TYPES,
    USES_BOXES,
    context,
    messages,
    read_prompt,
)
from minillava.datagen.pictures import Picture, Problem
from minillava.datagen.replies import ReplyError, pairs_of
from minillava.files import write_text

CAPTION = "caption"  # stage-1 pairs: a brief question and a caption; nobody is asked
KINDS = (*TYPES, CAPTION)
INSTRUCT = "instruct.json"  # the three types in one file
QUARANTINE, SUMMARY = "quarantine.jsonl", "summary.json"
FAILED = "request failed"


@dataclass(frozen=True)
class Settings:
    """How data is made. boxes: the types whose context has them; in the paper detailed description and complex reasoning do,
    conversation does not (facts B1). temperature: None leaves the endpoint's own."""

    types: tuple[str, ...] = TYPES
    model: str = "offline-teacher"
    prompts: Path = PROMPTS
    boxes: tuple[str, ...] = tuple(kind for kind, used in USES_BOXES.items() if used)
    max_tokens: int = 1024
    temperature: float | None = None
    seed: int = 0

    def __post_init__(self):
        for name, given, known in (("--types", self.types, KINDS), ("--boxes", self.boxes, TYPES)):
            for kind in given:
                if kind not in known:
                    raise AskingError(f"{name} {kind}: choose from {', '.join(known)}")
        if not self.types or len(set(self.types)) < len(self.types):
            raise AskingError("--types: name each type once, and at least one")
        if self.max_tokens < 1:
            raise AskingError(f"--max-tokens {self.max_tokens}: at least 1 is needed")


@dataclass(frozen=True)
class Item:
    """One record to be made: of which picture, of which type, and the request for it (None: nobody is asked)."""

    picture: Picture
    kind: str
    body: dict | None = None

    @property
    def name(self) -> str:
        return f"{self.picture.id}-{self.kind}"

    @cached_property
    def key(self) -> str | None:
        """What its reply is filed under."""
        return key(self.body) if self.body else None


@dataclass
class Summary:
    """What came of it, as in summary.json. complete: whether every record was made."""

    pictures: int
    wanted: int
    made: dict[str, int] = field(default_factory=dict)  # by type
    quarantined: dict[str, int] = field(default_factory=dict)  # by reason
    left_out: int = 0  # records of the source
    not_asked: int = 0
    unknown: int = 0  # replies of a batch that were never asked for
    stopped: str = ""
    asked: int = 0
    reused: int = 0
    retries: int = 0
    tokens: dict[str, int] = field(default_factory=dict)  # of this run
    usd: float | None = None  # of this run
    usd_in_all: float | None = None  # of this folder, unsettled attempts at their worst
    unsettled: int = 0
    settings: dict = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return sum(self.made.values()) == self.wanted and not self.left_out

    def __str__(self) -> str:
        made = ", ".join(f"{n:,} {kind}" for kind, n in self.made.items())
        lines = [f"{sum(self.made.values()):,} of {self.wanted:,} records of {self.pictures:,} pictures: {made}"]
        if self.quarantined:
            why = ", ".join(f"{n:,} {reason}" for reason, n in self.quarantined.items())
            lines.append(f"quarantined: {sum(self.quarantined.values()):,} ({why}); see {QUARANTINE}")
        if self.left_out:
            lines.append(f"left out of the source: {self.left_out:,} records; see {QUARANTINE}")
        if self.not_asked:
            lines.append(f"not asked: {self.not_asked:,}" + (f", because {self.stopped}" if self.stopped else ""))
        if self.unknown:
            lines.append(
                f"{self.unknown:,} replies in the batch files were never asked for: other files, or other settings"
            )
        cost = f"${self.usd:.4f} (${self.usd_in_all:.4f} in this folder)" if self.usd is not None else "no price known"
        lines.append(
            f"asked {self.asked:,}, reused {self.reused:,}, retried {self.retries:,}; "
            f"{self.tokens.get('prompt', 0):,} prompt and {self.tokens.get('completion', 0):,} completion tokens, {cost}"
        )
        if self.unsettled:
            lines.append(
                f"{self.unsettled:,} attempts were cut off before an answer came; the endpoint may have billed them"
            )
        return "\n".join(lines)


def plan(pictures: list[Picture], settings: Settings) -> list[Item]:
    """What is to be made, type by type in the order of the pictures. Raises PromptError for a prompt folder."""
    items = []
    for kind in settings.types:
        if kind == CAPTION:
            items += [Item(picture, kind) for picture in pictures]
            continue
        prompt = read_prompt(Path(settings.prompts) / FOLDERS[kind])
        for picture in pictures:
            text = context(list(picture.captions), picture.boxes if kind in settings.boxes else ())
            body = chat(settings.model, messages(prompt, text), settings.max_tokens, settings.temperature)
            items.append(Item(picture, kind, body))
    return items


def guess(items: list[Item], price: Price | None) -> Estimate:
    """The estimate for items: a reply is taken to be as long as the few-shot replies of its type are on average."""
    bodies, shown = [], []
    for item in items:
        said = [likely_tokens(m["content"]) for m in item.body["messages"] if m["role"] == "assistant"]
        bodies.append(item.body)
        shown += [sum(said) / len(said)] if said else []
    return estimate(bodies, price, round(sum(shown) / len(shown)) if shown else None)


def missing(items: list[Item], journal: Journal) -> list[Item]:
    """The items that have to be asked, each different request once."""
    unique = {item.key: item for item in items if item.body}
    return [item for name, item in unique.items() if name not in journal.replies]


def record_of(item: Item, journal: Journal, seed: int) -> dict:
    """The record of an item, from its reply in the journal. Raises ReplyError when the reply is none."""
    rng = random.Random(f"record {item.kind} {item.picture.id} {seed}")
    if item.kind == CAPTION:
        pairs = [(rng.choice(BRIEF), _plain(rng.choice(item.picture.captions)))]
    else:
        reply = journal.replies[item.key]
        pairs = pairs_of(item.kind, _plain(reply.text), reply.finish, reply.refusal)
        if item.kind == "detail":
            pairs = [(rng.choice(DETAILED), pairs[0][1])]
    return make_record(item.name, item.picture.image, pairs, rng)


def _plain(text: str) -> str:
    """Without the image token, which a caption or a reply may hold by accident, and a record must hold once."""
    return " ".join(text.split(IMAGE_TOKEN)).strip() if IMAGE_TOKEN in text else text


def generate(
    pictures: list[Picture],
    teacher: Teacher,
    out: Path,
    settings: Settings,
    problems: list[Problem] = (),
    price: Price | None = None,
    budget: Budget = NO_LIMIT,
    concurrency: int = 16,
    consent: Callable[[Estimate], None] = lambda estimate: None,
    batch: list[Path] | None = None,
    progress: bool = True,
    backoff: float = 0.5,
) -> Summary:
    """Make the records of all pictures and types and write them into `out`; goes on where an earlier call stopped.

    `out` gets one JSON file a type, `instruct.json` with the three, the quarantine and summary files, and the journal.
    consent: called with the estimate before the first request; it raises to stop. batch: output files of the Batch API; then
    nobody is asked. problems: what the source left out, for the quarantine file. Raises AskingError as `ask_all` does.
    """
    items = plan(pictures, settings)
    with Journal(out) as journal:
        asked = [item for item in items if item.body]
        before, spent, unknown = len(journal.replies), copy.copy(journal.spent), 0
        if batch is not None:
            reused = len({item.key for item in asked} & set(journal.replies))
            taken = read_batch(batch, [item.body for item in asked], journal, price)
            outcome, unknown = Outcome(failures=taken.failures, reused=reused), len(taken.unknown)
        else:
            todo = missing(asked, journal)
            if todo:
                consent(guess(todo, price))
            outcome = ask_all(
                [item.body for item in asked], teacher, journal, budget, price, concurrency,
                [item.name for item in asked], progress, backoff,
            )  # fmt: skip
        summary = _write(items, journal, outcome, Path(out), settings, problems, len(pictures))
        summary.asked, summary.unknown = len(journal.replies) - before, unknown
        used = [getattr(journal.spent, n) - getattr(spent, n) for n in ("prompt", "completion", "usd")]
        summary.tokens, summary.usd = {"prompt": used[0], "completion": used[1]}, used[2] if price else None
        summary.usd_in_all = journal.spent.usd if price else None
        _write_text(Path(out) / SUMMARY, json.dumps(vars(summary) | {"complete": summary.complete}, indent=1) + "\n")
    return summary


def _write(items, journal, outcome, out: Path, settings: Settings, problems, pictures: int) -> Summary:
    """The record files and the quarantine file; returns the summary so far."""
    made, held = {kind: [] for kind in settings.types}, []
    summary = Summary(pictures, len(items), left_out=len(problems), stopped=outcome.stopped, reused=outcome.reused)
    reasons: Counter[str] = Counter()
    for item in items:
        name = item.key
        if name is not None and name not in journal.replies:
            if name in outcome.failures:
                reasons[FAILED] += 1
                held.append({"id": item.name, "stage": "request", "reason": FAILED, "detail": outcome.failures[name]})
            else:
                summary.not_asked += 1
            continue
        try:
            made[item.kind].append(record_of(item, journal, settings.seed))
        except ReplyError as error:
            reasons[error.reason] += 1
            held.append({"id": item.name, "stage": "reply", "reason": error.reason, "detail": error.detail,
                         "reply": journal.replies[name].text, "key": name})  # fmt: skip
    held += [{"id": p.record, "stage": "source", "reason": p.reason, "file": p.file} for p in problems]
    try:
        for kind, records in made.items():
            write_records(records, out / f"{kind}.json")
        if set(made) & set(TYPES):
            write_records([r for kind in TYPES for r in made.get(kind, [])], out / INSTRUCT)
    except OSError as error:
        raise AskingError(f"{out}: the records cannot be written ({error.strerror}); the replies are kept") from error
    _write_text(out / QUARANTINE, "".join(json.dumps(row) + "\n" for row in held))
    summary.made, summary.quarantined = (
        {kind: len(records) for kind, records in made.items()},
        dict(reasons.most_common()),
    )
    summary.retries, summary.unsettled = outcome.retries, journal.unsettled
    summary.settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(settings).items()}
    summary.settings["prompts"] = Path(settings.prompts).name  # not where it lies on this machine
    return summary


def _write_text(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise AskingError(f"{path}: cannot be written ({error.strerror}); the replies are kept") from error


def write_requests(pictures: list[Picture], out: Path, settings: Settings) -> tuple[list[Path], int]:
    """The Batch API's input files for all that the journal does not hold, in `out`/batch: (paths, how many requests)."""
    items = plan(pictures, settings)
    with Journal(out) as journal:
        todo = missing(items, journal)
        return write_batch([item.body for item in todo], Path(out) / "batch"), len(todo)


def show(item: Item) -> str:
    """A request as people read it: each message with its role, word for word."""
    settings = {k: v for k, v in item.body.items() if k != "messages"}
    parts = [f"##### {item.name} {json.dumps(settings)}"]
    return "\n".join(parts + [f"##### {m['role']}\n{m['content']}" for m in item.body["messages"]])

"""Section 3 as code: pictures with captions and boxes become instruction records, with the help of any teacher.

`plan_records` decides which messages to send for which picture, and `asking.ask_all` sends them (journal, budget,
retries). The records are then made from the journal alone, so they do not depend on the order of the replies, on
interruptions, or on the way the replies came (one by one, in a batch, from a recording). A reply that does not become a
record is in the quarantine file with the reason. Neither torch nor transformers is needed.

    minillava generate --source data_samples/caps_boxes.jsonl --images data_samples/pictures --out runs/generated
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from minillava import asking
from minillava.asking.request import likely_tokens
from minillava.data.records import IMAGE_TOKEN, make_record, write_records
from minillava.datagen.messages import (  # fmt: skip
    BRIEF_INSTRUCTIONS,
    DETAILED_INSTRUCTIONS,
    PROMPT_FOLDERS,
    PROMPTS,
    TYPES,
    USES_BOXES,
    context,
    messages,
    read_prompt,
)
from minillava.datagen.pictures import LeftOut, Picture
from minillava.datagen.replies import ReplyError, checked_pairs
from minillava.files import read_json, write_json, write_jsonl

CAPTION = "caption"  # stage-1 pairs of a brief question and a caption; they need no teacher
ALL_TYPES = (*TYPES, CAPTION)
INSTRUCT = "instruct.json"  # the records of TYPES in one file
FAILED = "request failed"
QUARANTINE, SUMMARY = "quarantine.jsonl", "summary.json"


@dataclass(frozen=True)
class Settings:
    """How data is made. boxes: the types whose context has boxes; in the paper conversation has none (facts B1).
    temperature: None leaves it to the endpoint."""

    types: tuple[str, ...] = TYPES
    model: str = "offline-teacher"
    prompts: Path = PROMPTS
    boxes: tuple[str, ...] = tuple(kind for kind, used in USES_BOXES.items() if used)
    max_tokens: int = 1024
    temperature: float | None = None
    seed: int = 0

    def __post_init__(self):
        for name, given, known in (("--types", self.types, ALL_TYPES), ("--boxes", self.boxes, TYPES)):
            for kind in given:
                if kind not in known:
                    raise asking.AskingError(f"{name} {kind}: choose from {', '.join(known)}")
        if not self.types or len(set(self.types)) < len(self.types):
            raise asking.AskingError("--types: name each type once, and at least one")
        if self.max_tokens < 1:
            raise asking.AskingError(f"--max-tokens {self.max_tokens}: at least 1 is needed")


@dataclass(frozen=True)
class PlannedRecord:
    """A record to be made: its picture, its type, and the request for it (None if no teacher is asked)."""

    picture: Picture
    kind: str
    body: dict | None = None

    @property
    def name(self) -> str:
        return f"{self.picture.id}-{self.kind}"

    @cached_property
    def key(self) -> str | None:
        """The key of its reply in the journal."""
        return asking.request_key(self.body) if self.body else None


@dataclass(frozen=True)
class Summary:
    """The result of `generate`, as in summary.json."""

    pictures: int
    wanted: int
    made: dict[str, int]  # by type
    quarantined: dict[str, int]  # by reason
    left_out: int  # records of the source
    not_asked: int
    unknown: int  # replies of a batch without a request
    stopped: str  # why not all were asked
    asked: int
    reused: int
    retries: int
    tokens: dict[str, int]  # of this run
    usd: float | None  # of this run
    usd_in_all: float | None  # of all runs of this folder, unsettled attempts at their highest cost
    unsettled: int
    not_sent: list[str]  # settings that the model does not take
    settings: dict

    @property
    def complete(self) -> bool:
        """Whether every record was made."""
        return sum(self.made.values()) == self.wanted and not self.left_out

    def __str__(self) -> str:
        made = ", ".join(f"{n:,} {kind}" for kind, n in self.made.items())
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.quarantined.items())
        because = f", because {self.stopped}" if self.stopped else ""
        cost = "no price known" if self.usd is None else f"${self.usd:.4f} (${self.usd_in_all:.4f} in this folder)"
        tokens = f"{self.tokens['prompt']:,} prompt and {self.tokens['completion']:,} completion tokens"
        counted = {
            f"quarantined: {sum(self.quarantined.values()):,} ({reasons}); see {QUARANTINE}": self.quarantined,
            f"left out of the source: {self.left_out:,} records; see {QUARANTINE}": self.left_out,
            f"not asked: {self.not_asked:,}{because}": self.not_asked,
            f"{self.unknown:,} replies in the batch files were never asked for: other files or settings": self.unknown,
            f"asked {self.asked:,}, reused {self.reused:,}, retried {self.retries:,}; {tokens}, {cost}": True,
            f"not sent, because the model does not take it: {', '.join(self.not_sent)}": self.not_sent,
            f"{self.unsettled:,} attempts broke off before an answer; the endpoint may bill them": self.unsettled,
        }
        first = f"{sum(self.made.values()):,} of {self.wanted:,} records of {self.pictures:,} pictures: {made}"
        return "\n".join([first, *(line for line, said in counted.items() if said)])


def plan_records(pictures: list[Picture], settings: Settings) -> list[PlannedRecord]:
    """The records to make, type by type in the order of the pictures. Raises PromptError for a prompt folder."""
    items = []
    for kind in settings.types:
        if kind == CAPTION:
            items += [PlannedRecord(picture, kind) for picture in pictures]
            continue
        prompt = read_prompt(Path(settings.prompts) / PROMPT_FOLDERS[kind])
        for picture in pictures:
            text = context(list(picture.captions), picture.boxes if kind in settings.boxes else ())
            body = asking.chat_request(
                settings.model, messages(prompt, text), settings.max_tokens, settings.temperature
            )
            items.append(PlannedRecord(picture, kind, body))
    return items


def estimate_cost(items: list[PlannedRecord], price: asking.Price | None) -> asking.Estimate:
    """The estimate for items, if a reply is as long as the few-shot replies of its type on average."""
    lengths = []
    for item in items:
        examples = [likely_tokens(m["content"]) for m in item.body["messages"] if m["role"] == "assistant"]
        lengths += [sum(examples) / len(examples)] if examples else []
    mean = round(sum(lengths) / len(lengths)) if lengths else None
    return asking.estimate_cost([item.body for item in items], price, mean)


def unanswered(items: list[PlannedRecord], journal: asking.Journal) -> list[PlannedRecord]:
    """The items without a reply in the journal, one for each different request."""
    unique = {item.key: item for item in items if item.body}
    return [item for name, item in unique.items() if name not in journal.replies]


def record_of(item: PlannedRecord, journal: asking.Journal, seed: int) -> dict:
    """The record of an item, from its reply in the journal. Raises ReplyError when the reply cannot become one."""
    rng = random.Random(f"record {item.kind} {item.picture.id} {seed}")
    if item.kind == CAPTION:
        pairs = [(rng.choice(BRIEF_INSTRUCTIONS), _without_image_token(rng.choice(item.picture.captions)))]
    else:
        reply = journal.replies[item.key]
        pairs = checked_pairs(item.kind, _without_image_token(reply.text), reply.finish, reply.refusal)
        if item.kind == "detail":
            pairs = [(rng.choice(DETAILED_INSTRUCTIONS), pairs[0][1])]
    return make_record(item.name, item.picture.image, pairs, rng)


def _without_image_token(text: str) -> str:
    """A caption or a reply without the image token, which a record must have only once."""
    return text.replace(IMAGE_TOKEN, " ").strip() if IMAGE_TOKEN in text else text


def generate(pictures: list[Picture], teacher: asking.ChatClient, out: Path, settings: Settings,
             problems: list[LeftOut] = (), price: asking.Price | None = None, budget: asking.Budget = asking.NO_LIMIT,
             concurrency: int = 16, consent: Callable[[asking.Estimate], None] = lambda estimate: None,
             batch: list[Path] | None = None, progress: bool = True, backoff: float = 0.5) -> Summary:  # fmt: skip
    """Make the records of all pictures and types and write them into `out`. Called again, it resumes a stopped run.

    `out` gets one JSON file per type, `instruct.json` with TYPES together, quarantine, summary and the journal.
    consent: called with the estimate before the first request; it raises an error to stop. batch: output files of the
    Batch API, which replace the teacher. problems: what the source left out, for the quarantine file.
    Raises AskingError as `ask_all` does, and when a file cannot be written.
    """
    items, out = plan_records(pictures, settings), Path(out)
    asked = [item for item in items if item.body]
    bodies = [item.body for item in asked]
    with asking.Journal(out) as journal:
        if batch is not None:
            outcome = asking.read_batch(batch, bodies, journal, price)
        else:
            if todo := unanswered(asked, journal):
                consent(estimate_cost(todo, price))
            names = [item.name for item in asked]
            outcome = asking.ask_all(bodies, teacher, journal, budget, price, concurrency, names, progress, backoff)
        made, refused, not_asked = _read(items, journal, outcome.failures, settings)
        spent, not_sent = outcome.spent, _not_sent(asked, outcome, settings)
        summary = Summary(
            pictures=len(pictures), wanted=len(items), made={kind: len(records) for kind, records in made.items()},
            quarantined=dict(Counter(row["reason"] for row in refused).most_common()), left_out=len(problems),
            not_asked=not_asked, unknown=outcome.unknown, stopped=outcome.stopped,
            asked=len(outcome.replies) - outcome.reused, reused=outcome.reused, retries=outcome.retries,
            tokens={"prompt": spent.prompt, "completion": spent.completion}, usd=spent.usd if price else None,
            usd_in_all=journal.spent.usd if price else None, unsettled=journal.unsettled, not_sent=not_sent,
            settings=vars(settings) | {"prompts": Path(settings.prompts).name} | dict.fromkeys(not_sent),
        )  # fmt: skip
        if not_asked or outcome.failures:
            _check_nothing_lost(made, not_asked + len(outcome.failures), out)
        left_out = [{"id": p.record, "stage": "source", "reason": p.reason, "file": p.file} for p in problems]
        _write(made, refused + left_out, summary, out)
    return summary


def _not_sent(asked: list[PlannedRecord], outcome: asking.Outcome, settings: Settings) -> list[str]:
    """The settings that the endpoint did not get, because this model does not take them."""
    names = {name for reply in outcome.replies.values() for name in reply.not_sent}
    unused = settings.temperature is not None and any("temperature" not in item.body for item in asked)
    return sorted(names | {"temperature"} if unused else names)


def _check_nothing_lost(made: dict[str, list[dict]], missing: int, out: Path) -> None:
    """Raise AskingError when an incomplete run would overwrite records that it could not make."""
    for kind, records in made.items():
        path = out / f"{kind}.json"
        before = read_json(path) if path.exists() else []
        before = before if isinstance(before, list) else [before]
        if not {json.dumps(record) for record in records}.issuperset(map(json.dumps, before)):
            raise asking.AskingError(
                f"{path} holds {len(before):,} records of a run with other settings or pictures, and {missing:,} "
                "replies of this one are missing, so nothing was overwritten. The replies are kept: run the same "
                "command again (with a larger budget), or name another --out"
            )


def _read(items: list[PlannedRecord], journal: asking.Journal, failures: dict[str, str], settings: Settings) -> tuple:
    """(type -> records, rows of the quarantine file, number of items that were not asked)."""
    made, rows, not_asked = {kind: [] for kind in settings.types}, [], 0
    for item in items:
        name = item.key
        if name is None or name in journal.replies:
            try:
                made[item.kind].append(record_of(item, journal, settings.seed))
            except ReplyError as error:
                row = {"id": item.name, "stage": "reply", "reason": error.reason, "detail": error.detail}
                rows.append(row | {"reply": journal.replies[name].text, "key": name})
        elif name in failures:
            rows.append({"id": item.name, "stage": "request", "reason": FAILED, "detail": failures[name]})
        else:
            not_asked += 1
    return made, rows, not_asked


def _write(made: dict[str, list[dict]], quarantine: list[dict], summary: Summary, out: Path) -> None:
    """Write the files of `out`. Raises AskingError when one cannot be written."""
    try:
        for kind, records in made.items():
            write_records(records, out / f"{kind}.json")
        if set(made) & set(TYPES):
            write_records([record for kind in TYPES for record in made.get(kind, [])], out / INSTRUCT)
        write_jsonl(quarantine, out / QUARANTINE)
        write_json(out / SUMMARY, vars(summary) | {"complete": summary.complete})
    except OSError as error:
        raise asking.AskingError(f"{out}: cannot be written ({error.strerror}); the replies are kept") from error


def write_requests(pictures: list[Picture], out: Path, settings: Settings) -> tuple[list[Path], int]:
    """Write the Batch API's input files for all unanswered requests into `out`/batch. Returns (paths, requests)."""
    items = plan_records(pictures, settings)
    with asking.Journal(out) as journal:
        todo = unanswered(items, journal)
        return asking.write_batch([item.body for item in todo], Path(out) / "batch"), len(todo)


def request_text(item: PlannedRecord) -> str:
    """A request for people to read: its settings, then each message with its role, word for word."""
    settings = {k: v for k, v in item.body.items() if k != "messages"}
    parts = [f"##### {item.name} {json.dumps(settings)}"]
    return "\n".join(parts + [f"##### {m['role']}\n{m['content']}" for m in item.body["messages"]])

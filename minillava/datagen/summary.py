"""The result of a run of `generate`: what was made, what was not and why, and what it cost (summary.json).

minillava generate --source picture-book --limit 2 --out runs/generated && cat runs/generated/summary.json
"""

from dataclasses import dataclass

QUARANTINE, SUMMARY = "quarantine.jsonl", "summary.json"


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
        lines = [f"{sum(self.made.values()):,} of {self.wanted:,} records of {self.pictures:,} pictures: {made}"]
        if self.quarantined:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.quarantined.items())
            lines.append(f"quarantined: {sum(self.quarantined.values()):,} ({reasons}); see {QUARANTINE}")
        if self.left_out:
            lines.append(f"left out of the source: {self.left_out:,} records; see {QUARANTINE}")
        if self.not_asked:
            lines.append(f"not asked: {self.not_asked:,}" + (f", because {self.stopped}" if self.stopped else ""))
        if self.unknown:
            lines.append(f"{self.unknown:,} replies in the batch files were never asked for: other files or settings")
        cost = "no price known" if self.usd is None else f"${self.usd:.4f} (${self.usd_in_all:.4f} in this folder)"
        lines.append(
            f"asked {self.asked:,}, reused {self.reused:,}, retried {self.retries:,}; "
            f"{self.tokens['prompt']:,} prompt and {self.tokens['completion']:,} completion tokens, {cost}"
        )
        if self.not_sent:
            lines.append(f"not sent, because the model does not take it: {', '.join(self.not_sent)}")
        if self.unsettled:
            lines.append(f"{self.unsettled:,} attempts broke off before an answer; the endpoint may bill them")
        return "\n".join(lines)

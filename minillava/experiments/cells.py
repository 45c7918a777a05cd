"""Cells of our tables and verdicts on the paper's claims: worked out in one way, and written in one way.

Notable: a claim of the paper is an order of figures, so it is carried by comparisons of rows. It holds where every
comparison holds, question by question and over all seeds (`judging/scores.py`).
"""

import statistics

from minillava import paper
from minillava.judging.scores import UNDECIDED, overall_verdict


def accuracy(right: list[bool]) -> float:
    """Per cent right."""
    return 100 * sum(right) / len(right)


def over(values: list[float]) -> dict:
    """A figure over seeds: its mean and its standard deviation (None for one seed)."""
    spread = round(statistics.stdev(values), 1) if len(values) > 1 else None
    return {"ours": round(statistics.mean(values), 1), "spread": spread}


def cell(ours: dict | None, theirs: float | tuple | None = None) -> str:
    """`ours ± spread (the paper's)`; for one seed its 95 % interval, where there is one; `-` where ours is missing."""
    text = "-" if not ours else f"{ours['ours']:.1f}"
    if ours and ours["spread"] is not None:
        text += f" ± {ours['spread']:.1f}"
    elif ours and "interval" in ours:
        text += " [{:.0f}, {:.0f}]".format(*ours["interval"])
    theirs = f"{theirs[0]} ± {theirs[1]}" if isinstance(theirs, tuple) else theirs
    return text if theirs is None else f"{text} ({theirs})"


def signed(gap: dict) -> str:
    """A difference with its 95 % interval."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(gap["ours"], *gap["interval"])


def can_be_told(gap: dict) -> bool:
    """Whether a difference can be told from none: its interval does not hold zero."""
    low, high = gap["interval"]
    return low > 0 or high < 0


def judged(claim: paper.Claim, comparisons: list[dict], why: str = "") -> dict:
    """A claim with the paper's figures, ours and the verdict. why: what the verdict rests on."""
    return {
        "id": claim.id, "statement": claim.statement, "source": claim.source, "paper": claim.figures,
        "ours": comparisons, "verdict": overall_verdict([c["verdict"] for c in comparisons]), "why": why,
    }  # fmt: skip


def claims_for(table: paper.Table, claims: list[dict]) -> list[dict]:
    """The claims that rest on a table of the paper."""
    return [claim for claim in claims if claim["source"].startswith(table.source)]


def verdict_lines(claims: list[dict]) -> list[str]:
    """Each claim with its verdict, the paper's figures and ours."""
    lines = []
    for claim in claims:
        lines.append(f"{claim['verdict'].upper()}: {claim['statement']} ({claim['source']})")
        lines.append("   the paper: " + ", ".join(f"{name} {value}" for name, value in claim["paper"].items()))
        for c in claim["ours"]:
            epochs = c.get("epochs to answer first's last accuracy, by seed")
            more = f"; epochs to answer first's last accuracy, by seed: {epochs}" if epochs else ""
            low, high = c["interval"]
            gap = f"{c['ours']:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}"
            lines.append(f"   here: {c['better']} - {c['worse']}, {c['column']}: {gap}: {c['verdict']}{more}")
        if claim["why"] and (not claim["ours"] or claim["verdict"] == UNDECIDED):
            lines.append(f"   {claim['why']}")
    return lines

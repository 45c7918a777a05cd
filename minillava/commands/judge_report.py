"""Scores as people read them on a terminal: aligned columns, and what was left out and why.

Notable: the same figures leave as JSON (`summary`), so the text is made from them and holds nothing that they do not.

    python -c "from minillava.text import aligned; print(aligned([['', 'score'], ['all', '85.1']]))"
"""

from minillava.files import Excluded
from minillava.judging.reviews import Reviews, position_bias, relative_scores
from minillava.text import aligned

SHOWN = 20  # of what was left out, on the terminal; --json has all


def left_out(excluded: list) -> list[str]:
    """What was left out, for the terminal."""
    if not excluded:
        return []
    more = [f"  ... and {len(excluded) - SHOWN} more (--json has all)"] if len(excluded) > SHOWN else []
    return [f"Left out, {len(excluded):,}:", *(f"  {e}" for e in excluded[:SHOWN]), *more]


def summary(reviews: Reviews) -> dict:
    """What a file of reviews says, as JSON: scores, what was left out, what standing first is worth."""
    bias = position_bias(reviews.used)
    return {
        "file": str(reviews.path),
        "judges": sorted({r.judge for r in reviews.used if r.judge}),
        "used": len(reviews.used),
        "excluded": [vars(e) for e in reviews.excluded],
        "noticed": reviews.noticed,
        "scores": relative_scores(reviews.used),
        **({"position": bias} if bias else {}),
    }


def shown(summary: dict, excluded: list[Excluded]) -> str:
    """A `summary` for the terminal."""
    rows = [["", "relative score", "95 % interval", "reference", "candidate", "questions"]]
    for name, s in summary["scores"].items():
        low, high = s["interval"]
        rows.append([name, f"{s['relative']:.1f}", f"{low:.1f} to {high:.1f}", f"{s['reference']:.2f}", f"{s['candidate']:.2f}", str(s["questions"])])  # fmt: skip
    lines = [f"{summary['file']}: {summary['used']} reviews used, {len(excluded)} left out; judge: {', '.join(summary['judges']) or 'not named'}"]  # fmt: skip
    lines.append(aligned(rows))
    if bias := summary.get("position"):
        lines.append(f"Standing first is worth {bias['points']:+.2f} points; the order turns the verdict in {bias['turned']:.0f} % of {bias['questions']} questions.")  # fmt: skip
    return "\n".join([*lines, *summary["noticed"], *left_out(excluded)])


def by_control(files: list[dict], controls: dict[str, dict]) -> list[str]:
    """The relative score by category: of the judged files (their `summary`), then of each control (`scores`)."""
    rows = [(f["file"], f["scores"]) for f in files] + list(controls.items())
    names = list(rows[0][1]) if rows else []
    cell = lambda found, name: f"{found[name]['relative']:.1f}" if name in found else "-"  # noqa: E731
    return aligned([["", *names], *([name, *(cell(found, c) for c in names)] for name, found in rows)]).splitlines()


def spread(runs: dict, title: str) -> str:
    """Mean and standard deviation over runs (`over_runs`) for the terminal."""
    rows = [[name, f"{v['mean']:.1f}", f"{v['std']:.1f}", str(v["questions"])] for name, v in runs.items()]
    return f"{title}\n{aligned([['', 'mean', 'std', 'questions'], *rows])}"

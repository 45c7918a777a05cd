"""Scores for the terminal: aligned columns, and what was left out and why. `--json` prints the same figures."""

from minillava.commands import MOST_LISTED
from minillava.files import Excluded
from minillava.judging.reviews import Reviews, position_bias, relative_scores
from minillava.text import aligned, listed


def left_out(excluded: list) -> list[str]:
    """What was left out, for the terminal."""
    return [f"Left out, {len(excluded):,}:", listed(excluded, MOST_LISTED)] if excluded else []


def summary(reviews: Reviews) -> dict:
    """A file of reviews as JSON: scores, what was left out, and what being first is worth."""
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


def summary_text(summary: dict, excluded: list[Excluded]) -> str:
    """A `summary` for the terminal."""
    rows = [["", "relative score", "95 % interval", "reference", "candidate", "questions"]]
    for name, s in summary["scores"].items():
        low, high = s["interval"]
        means = [f"{s['reference']:.2f}", f"{s['candidate']:.2f}"]
        rows.append([name, f"{s['relative']:.1f}", f"{low:.1f} to {high:.1f}", *means, str(s["questions"])])
    judges = ", ".join(summary["judges"]) or "not named"
    lines = [f"{summary['file']}: {summary['used']} reviews used, {len(excluded)} left out; judge: {judges}"]
    lines.append(aligned(rows))
    if bias := summary.get("position"):
        share = f"{bias['turned']:.0f} % of {bias['questions']} questions"
        lines.append(f"Being first is worth {bias['points']:+.2f} points; the order changes the verdict in {share}.")
    return "\n".join([*lines, *summary["noticed"], *left_out(excluded)])


def scores_beside_controls(files: list[dict], controls: dict[str, dict]) -> list[str]:
    """The relative score by category, of the judged files (their `summary`) and then of each control."""
    scored = [(f["file"], f["scores"]) for f in files] + list(controls.items())
    categories = list(scored[0][1]) if scored else []
    rows = [["", *categories]]
    for name, scores in scored:
        rows.append([name, *(f"{scores[c]['relative']:.1f}" if c in scores else "-" for c in categories)])
    return aligned(rows).splitlines()


def spread_text(runs: dict, title: str) -> str:
    """Mean and standard deviation over runs (`spread_over_runs`) for the terminal."""
    rows = [[name, f"{v['mean']:.1f}", f"{v['std']:.1f}", str(v["questions"])] for name, v in runs.items()]
    return f"{title}\n{aligned([['', 'mean', 'std', 'questions'], *rows])}"

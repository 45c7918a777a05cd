"""The figures of a report, as files beside it."""

import json
from pathlib import Path

from minillava.figures.data import gallery
from minillava.figures.tables import question_bars, table_bars
from minillava.figures.training import loss_curves


def report_figures(report: dict, folder: Path) -> None:
    """The figures that report.md shows, into `folder`/figures."""
    out = folder / "figures"
    out.mkdir(exist_ok=True)
    for table in report["tables"]:
        best, worst = (
            max(table["rows"], key=lambda r: r["All"]["ours"]),
            min(table["rows"], key=lambda r: r["All"]["ours"]),
        )
        title = f"{best['row']}: {best['All']['ours']:.0f}; {worst['row'][0].lower() + worst['row'][1:]}: {worst['All']['ours']:.0f}"
        table_bars(table, title).savefig(out / f"{table['table'].lower().replace(' ', '-')}.png")
    question_bars(report).savefig(out / "questions.png")
    curves = {}
    for path in sorted(folder.glob(f"seed-{report['seeds'][0]}/*/metrics.jsonl")):
        curves[path.parent.name] = [json.loads(line)["loss"] for line in path.read_text().splitlines()]
    loss_curves(curves, "The loss of every training, seed 0").savefig(out / "loss.png")
    gallery().savefig(out / "gallery.png")

"""Tables 4 and 5 in miniature beside the paper's, the controls, the claims and their verdicts: report.json, report.md.

Notable: nothing here is a constant - every figure of ours is computed from reviews and answers on disk, every figure of
the paper comes from `paper.py`. A claim "holds" only when the 95 % interval of the difference, over questions resampled
in pairs and all seeds, lies above zero and every seed agrees; otherwise it "does not hold" or "cannot be told".
"""

import json
import statistics
from pathlib import Path

from minillava import paper
from minillava.experiments.miniature import CAPTIONER, CONTROLS, FULL, MIXTURES, POPE_ROWS, UNTUNED, slug
from minillava.experiments.run import Run
from minillava.files import read_jsonl
from minillava.judging.bench import CATEGORIES, score_pairs
from minillava.judging.pope import NEGATIVES, evaluate
from minillava.judging.scores import interval, overall_verdict, paired_difference, relative_score
from minillava.machine import describe_machine
from minillava.standins.judge import RULE_ID

COLUMNS = dict(zip(("Conv", "Detail", "Complex", "All"), (*CATEGORIES, None)))
TABLE_4_ROWS = (*MIXTURES, UNTUNED)
WILD_ROWS = {FULL: "LLaVA", CAPTIONER: "BLIP-2", UNTUNED: None}  # our row -> the paper's row it stands beside
# Claim of the paper -> the comparisons that carry it: (bench, column, better row, worse row).
TESTS = {
    "more_data_types": [("coco", "All", FULL, row) for row in list(MIXTURES)[1:]],
    "reasoning_helps_chat": [("coco", "Conv", FULL, "Conversation")],
    "tuning_is_needed": [("coco", "All", row, UNTUNED) for row in (FULL, "Conversation")],
    "little_goes_far": [("coco", "All", "Conv + 5% Detail + 10% Complex", "Conversation")],
    "beats_captioners": [("wild", "All", FULL, CAPTIONER)],
}


def reviews_of(run: Run, seed: int, row: str, bench: str) -> list[dict]:
    tag = CONTROLS.get(row, "")
    return read_jsonl(run.folder / f"seed-{seed}" / slug(FULL if tag else row) / f"reviews-{bench}{tag}.jsonl")


def cell(run: Run, row: str, bench: str, column: str) -> dict:
    """Our figure of one cell: the mean over seeds, its standard deviation (None for one seed), its interval over questions."""
    pairs = [score_pairs(reviews_of(run, seed, row, bench), COLUMNS[column]) for seed in run.seeds]
    scores = [relative_score(p) for p in pairs]
    spread = round(statistics.stdev(scores), 1) if len(scores) > 1 else None
    return {
        "ours": round(statistics.mean(scores), 1),
        "spread": spread,
        "interval": [round(v, 1) for v in interval(pairs, relative_score)],
    }


def table(run: Run, name: str, bench: str, rows: dict[str, dict]) -> dict:
    """rows: our row -> the paper's figures by column (empty where the paper has no such row)."""
    out = [
        {"row": row, **{c: cell(run, row, bench, c) | {"paper": figures.get(c)} for c in COLUMNS}}
        for row, figures in rows.items()
    ]
    return {"table": name, "bench": bench, "rows": out}


def difference(run: Run, bench: str, column: str, better: str, worse: str, draws: int = 1000) -> dict:
    """Relative score of one row minus another's, its 95 % interval (questions resampled in pairs), and whether all seeds agree."""
    rows = lambda row, seed: score_pairs(reviews_of(run, seed, row, bench), COLUMNS[column])  # noqa: E731
    found = paired_difference([(rows(better, seed), rows(worse, seed)) for seed in run.seeds], relative_score, draws)
    return {"better": better, "worse": worse, "column": column, **found}


def claims(run: Run) -> list[dict]:
    """Every claim of `paper.CLAIMS` with the paper's figures, ours and a verdict."""
    out = []
    for claim in paper.CLAIMS:
        tests = [difference(run, *test) for test in TESTS.get(claim.id, ())]
        verdict = overall_verdict([t["verdict"] for t in tests])
        out.append(
            {
                "id": claim.id,
                "statement": claim.statement,
                "source": claim.source,
                "paper": claim.figures,
                "ours": tests,
                "verdict": verdict,
                "why": "95 % interval over questions, all seeds" if tests else "this run does not make that comparison",
            }
        )
    return out


def vqa(run: Run, tag: str = "", row: str = FULL) -> tuple[dict, dict]:
    """Exact-match accuracy per kind, mean over seeds, and its spread (None for one seed)."""
    scores = [json.loads((run.folder / f"seed-{s}" / slug(row) / f"exact{tag}.json").read_text()) for s in run.seeds]
    mean = {k: round(statistics.mean(s[k] for s in scores), 1) for k in scores[0]}
    return mean, {k: round(statistics.stdev(s[k] for s in scores), 1) if len(scores) > 1 else None for k in mean}


def pope_of(run: Run) -> dict[str, dict]:
    """Hallucination: POPE's measures over all kinds of negatives and for each, mean over seeds, of the rows asked and the controls."""
    questions = read_jsonl(run.folder / "bench" / "pope.jsonl")
    out = {}
    for row, tag in [*((row, "") for row in POPE_ROWS), *CONTROLS.items()]:
        homes = [run.folder / f"seed-{s}" / slug(row if not tag else FULL) for s in run.seeds]
        each = [evaluate(questions, read_jsonl(home / f"pope{tag}.jsonl")) for home in homes]
        kinds = [k for k in each[0]["scores"] if all(k in e["scores"] for e in each)]
        mean = lambda kind, name, each=each: round(statistics.mean(e["scores"][kind][name] for e in each), 1)  # noqa: E731
        out[row] = {kind: {name: mean(kind, name) for name in each[0]["scores"][kind]} for kind in kinds}
        out[row]["left out"] = sum(len(e["excluded"]) for e in each)
    return out


def build_report(run: Run) -> dict:
    """Everything that was measured, as one JSON value."""
    others = dict.fromkeys((*CONTROLS, CAPTIONER), {})
    table4 = {r: {c: paper.TABLE_4.value(r, c) for c in COLUMNS} for r in TABLE_4_ROWS} | others
    table5 = {
        ours: {c: paper.TABLE_5.value(theirs, c)[0] for c in COLUMNS} if theirs else {}
        for ours, theirs in WILD_ROWS.items()
    } | dict.fromkeys(CONTROLS, {})
    scores, spread = vqa(run)
    return {
        "scale": run.scale.name, "recipe": run.recipe, "seeds": run.seeds, "judge": RULE_ID, "machine": describe_machine(),
        "seconds": run.state["seconds"] | {"all": round(sum(run.state["seconds"].values()), 1)},
        "vqa": scores, "vqa_spread": spread, "vqa_blank": vqa(run, "-blank")[0], "vqa_shuffled": vqa(run, "-shuffled")[0],
        "vqa_text": vqa(run, "-text")[0], "pope": pope_of(run),
        "vqa_rows": {row: vqa(run, row=row)[0] for row in (*TABLE_4_ROWS, CAPTIONER)},
        "tables": [table(run, "Table 4", "coco", table4), table(run, "Table 5", "wild", table5)],
        "claims": claims(run),
    }  # fmt: skip


def _figure(c: dict) -> str:
    spread = f" ± {c['spread']}" if c["spread"] is not None else f" [{c['interval'][0]:.0f}, {c['interval'][1]:.0f}]"
    return f"{c['ours']:.1f}{spread}" + (f" (paper {c['paper']})" if c["paper"] is not None else "")


def markdown(report: dict) -> str:
    """The report for reading; pictures beside it in figures/."""
    lines = ["# The paper in miniature", "", f"Scale `{report['scale']}`, seeds {report['seeds']}, judge `{report['judge']}`, "
             f"{report['seconds']['all'] / 60:.1f} minutes on {report['machine']['cores']} cores ({report['machine']['precision']}).", ""]  # fmt: skip
    about = {"Table 4": "Relative score by training data, benchmark drawn like the training pictures (Table 4)",
             "Table 5": "Relative score in the wild: another drawing style, combinations held out of training (Table 5)"}  # fmt: skip
    for t in report["tables"]:
        lines += [f"## {about[t['table']]}", "", f"![{t['table']}](figures/{slug(t['table'])}.png)", "",
                  "| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]  # fmt: skip
        lines += [f"| {r['row']} | " + " | ".join(_figure(r[c]) for c in COLUMNS) + " |" for r in t["rows"]]
        several = len(report["seeds"]) > 1
        lines += [
            "",
            "± the standard deviation over seeds." if several else "In brackets the 95 % interval over questions.",
            "",
        ]
    lines += ["## Does it look? Exact-match questions on held-out scenes, per cent right", "", "![questions](figures/questions.png)", "",
              "| | " + " | ".join(report["vqa"]) + " |", "|---" * (len(report["vqa"]) + 1) + "|"]  # fmt: skip
    for name, key in (
        ("with the picture", "vqa"),
        ("picture blanked", "vqa_blank"),
        ("picture shuffled", "vqa_shuffled"),
        ("text only", "vqa_text"),
    ):
        lines.append(f"| {name} | " + " | ".join(f"{v:.1f}" for v in report[key].values()) + " |")
    lines += [
        f"| {row} | " + " | ".join(f"{v:.1f}" for v in scores.values()) + " |"
        for row, scores in report["vqa_rows"].items()
        if row != FULL
    ]
    lines += ["", "## Does it see what is not there? Yes-or-no questions about what is in the picture (POPE), per cent", "",
              "| | accuracy | precision | recall | F1 | says yes | accuracy: random, popular, adversarial |", "|---" * 7 + "|"]  # fmt: skip
    for row, of in report["pope"].items():
        kinds = ", ".join(f"{of[k]['accuracy']:.1f}" for k in NEGATIVES if k in of)
        cells = " | ".join(
            f"{of['all'][k]:.1f}" if "all" in of else "-" for k in ("accuracy", "precision", "recall", "f1", "yes")
        )
        lines.append(f"| {row} | {cells} | {kinds} |")
    lines += ["", "## The paper's claims", "", "| claim | the paper | here | verdict |", "|---|---|---|---|"]
    for c in report["claims"]:
        theirs = "; ".join(f"{k} {v}" for k, v in c["paper"].items())
        ours = "; ".join(
            f"{t['better']} - {t['worse']} ({t['column']}): {t['ours']:+.1f} [{t['interval'][0]}, {t['interval'][1]}]"
            for t in c["ours"]
        )
        lines.append(f"| {c['statement']} ({c['source']}) | {theirs} | {ours or c['why']} | **{c['verdict']}** |")
    lines += ["", "![loss](figures/loss.png)", "", "## What took how long", "", "| step | seconds |", "|---|---|"]
    return "\n".join([*lines, *(f"| {k} | {v:.0f} |" for k, v in report["seconds"].items()), ""])


def write_report(run: Run) -> dict:
    """report.json and report.md in the run's folder; figures are `report_figures.report_figures`."""
    report = build_report(run)
    (run.folder / "report.json").write_text(json.dumps(report, indent=1))
    (run.folder / "report.md").write_text(markdown(report), encoding="utf-8")
    return report


def show(report: dict, folder: Path) -> str:
    """The tables as plain text, for a terminal."""
    lines = []
    for t in report["tables"]:
        lines += [
            "",
            f"{t['table']} in miniature: relative score (the paper's in brackets)",
            f"{'':34s}" + "".join(f"{c:>16s}" for c in COLUMNS),
        ]
        for r in t["rows"]:
            cells = [
                f"{r[c]['ours']:.1f}" + (f" ({r[c]['paper']})" if r[c]["paper"] is not None else "") for c in COLUMNS
            ]
            lines.append(f"{r['row']:34s}" + "".join(f"{c:>16s}" for c in cells))
    lines += ["", "Questions with one right answer, % right", f"{'':34s}" + "".join(f"{k:>11s}" for k in report["vqa"])]
    for name, key in (
        ("with the picture", "vqa"),
        ("picture blanked", "vqa_blank"),
        ("picture shuffled", "vqa_shuffled"),
        ("text only", "vqa_text"),
    ):
        lines.append(f"{name:34s}" + "".join(f"{v:>11.1f}" for v in report[key].values()))
    lines += [
        "",
        *(f"{c['verdict'] if c['ours'] else '(not compared here)':>22s}   {c['statement']}" for c in report["claims"]),
        "",
        f"The whole report: {folder / 'report.md'}",
    ]
    return "\n".join(lines)

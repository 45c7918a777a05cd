"""`minillava paper --table N`: a table of the paper beside the miniature's, over three seeds, and the verdicts on its claims.

Notable: Table 3 is a picture with the answers of three models, 6 the two pictures in the wild that went worst; 4 and 5 come
from the run of the whole paper (`report.py`), 7, 8 and 10 from the science quiz (`science.py`); behind 8 its choices are asked
once more of the chat data (`designs.py`). Every figure of ours is computed from answers on disk; the paper's rows that have
no counterpart here stand beside an empty place.

    minillava paper --table 7
"""

import json
from pathlib import Path

from minillava import paper, scales
from minillava.experiments import designs, miniature, science
from minillava.experiments.miniature import CAPTIONER, FULL, UNTUNED, slug
from minillava.experiments.report import build_report
from minillava.experiments.run import Run
from minillava.experiments.science import texts_of
from minillava.experiments.science_report import cell, claims_for, said, science_report, text_10, text_78
from minillava.figures import answers as figures_answers
from minillava.figures import tables as figures_judge
from minillava.files import read_jsonl
from minillava.judging.bench import read_bench
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw
from minillava.scenes.reading import mentions

NUMBERS = (3, 4, 5, 6, 7, 8, 10)  # the tables that are rebuilt
SEEDS = 3  # at least, for a table with a spread
ODD = "What is unusual about this picture, and why?"
REFERENCE = "Text-only teacher (the reference)"
THERE, APART, NOWHERE = "it is there", "thing and colour are there, but apart", "nothing there has that colour"
THREE = "Table 3 in miniature: one odd picture, three models, and the text-only teacher"
SIX = "Table 6 in miniature: the two pictures in the wild on which the tuned model scores lowest"


def text_45(report: dict, number: int) -> str:
    """Table 4 or 5 of a run of the whole paper."""
    table, theirs = report["tables"][number - 4], paper.TABLES[f"Table {number}"]
    rows = [["", *theirs.columns]]
    for row in table["rows"]:
        rows.append([row["row"], *(cell(row[c], row[c]["paper"]) for c in theirs.columns)])
    used = {FULL: "LLaVA", CAPTIONER: "BLIP-2"}.values() if number == 5 else [r["row"] for r in table["rows"]]
    rows += [[name, *(cell(None, v) for v in values)] for name, values in theirs.rows.items() if name not in used]
    lines = [f"{theirs.source}: {theirs.caption}", f"Ours, mean ± standard deviation over {len(report['seeds'])} seeds, judge {report['judge']!r} (the paper's)", "", table(rows), ""]  # fmt: skip
    lines += said(claims_for(theirs, report["claims"]))
    if number == 4:
        lines += ["", "The paper's own arithmetic: printed differences to the first row that its scores do not give"]
        lines += [f"   {row}, {column}: printed {printed:+}, the scores give {found:+}" for row, column, printed, found in paper.table4_arithmetic()]  # fmt: skip
    return "\n".join(lines)


def odd_scene(run: Run) -> list[dict]:
    """The questions on the picture that Table 3's is like: the first whose oddity is asked for (someone ironing, if any)."""
    items = [(bench, i) for bench in ("coco", "wild") for i in read_bench(run.folder / "bench" / bench)]
    odd = [(b, i) for b, i in items if i.text == ODD and not i.reference.startswith("Nothing")] or items
    bench, chosen = next(((b, i) for b, i in odd if "ironing" in i.reference), odd[0])
    return [{"bench": b, **vars(i)} for b, i in items if b == bench and i.image == chosen.image]


def table_3(run: Run, seed: int = 0) -> dict:
    """Table 3 in miniature: a picture, the questions on it, and what three models and the text-only teacher say."""
    asked = odd_scene(run)
    out = {"image": asked[0]["image"], "questions": [q["text"] for q in asked], "answers": {}}
    for row in (FULL, CAPTIONER, UNTUNED):
        texts = texts_of(run.folder / f"seed-{seed}" / slug(row) / f"answers-{asked[0]['bench']}.jsonl")
        out["answers"][row] = [texts[q["question_id"]] for q in asked]
    out["answers"][REFERENCE] = [q["reference"] for q in asked]
    return out


def text_3(table: dict) -> str:
    lines = ["Table 3, p.6: a picture with something odd in it, and what each model says", f"Picture: {table['image']}"]
    for n, question in enumerate(table["questions"]):
        lines += ["", f"Human: {question}", *(f"  {row}: {said[n]}" for row, said in table["answers"].items())]
    return "\n".join(lines)


def hardest(run: Run, seed: int = 0, count: int = 2) -> list[dict]:
    """Table 6 in miniature: the pictures in the wild on which the tuned model scores lowest, with what the judge is told."""
    items = {i.question_id: i for i in read_bench(run.folder / "bench" / "wild")}
    home, tables = run.folder / f"seed-{seed}" / slug(FULL), {}
    texts = texts_of(home / "answers-wild.jsonl")
    for row in read_jsonl(home / "reviews-wild.jsonl"):
        item, (best, ours) = items[row["question_id"]], row["tuple"]
        table = tables.setdefault(item.image, {"image": item.image, "annotation": item.context, "questions": [],
                                               "answers": {FULL: [], REFERENCE: []}, "scores": []})  # fmt: skip
        table["questions"].append(item.text)
        table["answers"][FULL].append(f"{texts[item.question_id]} (score {ours:g} of 10)")
        table["answers"][REFERENCE].append(f"{item.reference} (score {best:g})")
        table["scores"].append(ours)
    return sorted(tables.values(), key=lambda t: sum(t["scores"]))[:count]


def patches(run: Run) -> dict[str, list[int]]:
    """The bag of patches that Table 6's strawberry-flavoured yogurt stands for: [said yes, asked], over all seeds, of questions
    whether a thing of some colour is there, by whether it is, or both are there but apart, or nothing has that colour."""
    out = {name: [0, 0] for name in (THERE, APART, NOWHERE)}
    for seed in run.seeds:
        for row in read_jsonl(run.folder / f"seed-{seed}" / slug(FULL) / "exact.jsonl"):
            asked = mentions(row["question"].lower())
            if row["key"] not in ("yes", "no") or len(asked) != 1 or not asked[0].colour:
                continue
            split, _, scene = Path(row["image"]).stem.rpartition("-")
            things = compose(split, int(scene)).things
            if not any(t.kind == asked[0].kind for t in things):
                continue
            same = any(t.colour == asked[0].colour for t in things)
            count = out[THERE if row["key"] == "yes" else APART if same else NOWHERE]
            count[0] += row["answer"].lower().startswith("yes")
            count[1] += 1
    return out


def text_6(tables: list[dict], bag: dict[str, list[int]]) -> str:
    lines = [
        "Table 6, p.8: two hard pictures in the wild, what the judge is told of them, and what the tuned model says"
    ]
    for table in tables:
        lines += [
            "",
            f"Picture: {table['image']}",
            "Annotation:",
            *(f"  {line}" for line in table["annotation"].splitlines()),
        ]
        for n, question in enumerate(table["questions"]):
            lines += [f"Human: {question}", *(f"  {row}: {said[n]}" for row, said in table["answers"].items())]
    lines += ["", 'A bag of patches? How often the model says yes to "Is there a red car?", all seeds together']
    return "\n".join([*lines, *(f"   {name}: {yes} of {asked}" for name, (yes, asked) in bag.items())])


def pictured(table: dict):
    """The picture that a table is about, drawn anew."""
    split, _, scene = Path(table["image"]).stem.rpartition("-")
    return draw(compose(split, int(scene)), 400)


def write_table(number: int, run: Run) -> str:
    """A table of a finished run as text; its figure and its report go into the run's folder. Raises KeyError for others."""
    figures = run.folder / "figures"
    figures.mkdir(exist_ok=True)
    target = figures / f"table-{number}.png"
    if number == 3:
        table = table_3(run)
        figures_answers.answered_pictures([(table, pictured(table))], THREE).savefig(target)
        text = text_3(table)
    elif number == 6:
        hard = hardest(run)
        figures_answers.answered_pictures([(t, pictured(t)) for t in hard], SIX).savefig(target)
        text = text_6(hard, patches(run))
    elif number in (4, 5):
        report = build_report(run)
        figures_judge.by_column(report["tables"][number - 4]["rows"], paper.TABLES[f"Table {number}"]).savefig(target)
        text = text_45(report, number)
    elif number in (7, 8):
        report = science_report(run)
        (run.folder / "report.json").write_text(json.dumps(report, indent=1))
        (figures_judge.table_7 if number == 7 else figures_judge.table_8)(report).savefig(target)
        text = text_78(report, number)
    elif number == 10:
        text = text_10(run)
    else:
        raise KeyError(f"no Table {number} is rebuilt; there are {', '.join(map(str, NUMBERS))}")
    (run.folder / f"table-{number}.txt").write_text(text + "\n", encoding="utf-8")
    return text


def write_designs(run: Run) -> str:
    """Table 8's choices on the chat data as text; figure and report go into the run's folder."""
    report = designs.designs_report(run)
    (run.folder / "report.json").write_text(json.dumps(report, indent=1))
    figures_judge.designs(report).savefig(run.folder / "table-8-chat.png")
    return designs.text_of(report)


def paper_table(number: int, scale: str, seeds: int, out: Path) -> int:
    """What `minillava paper --table N` does: run what is missing, then print the table. Goes on where it stood.

    The quiz of Tables 7 and 8 goes into `out`/science, Table 8's choices on the chat data into `out`/designs.
    """
    seeds = seeds if number in (3, 10) else max(seeds, SEEDS)
    if number in (7, 8, 10):
        if scale not in science.SCALES:
            raise scales.ScaleError(f"no scale of the quiz is called {scale!r}; there are: {', '.join(science.SCALES)}")
        run = science.run_science(out / "science", science.SCALES[scale], seeds)
    else:
        run = miniature.run_paper(out, scales.get(scale), seeds)
    print(
        f"\n{write_table(number, run)}\n\nThe table and its figure: {run.folder / f'table-{number}.txt'}, {run.folder / 'figures'}"
    )
    if number == 8:
        print(f"\n{write_designs(designs.run_designs(out / 'designs', scales.get(scale), seeds))}")
    return 0

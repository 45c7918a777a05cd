"""`minillava paper --table N`: a table of the paper beside the miniature's, three seeds, and verdicts on its claims.

Notable: Table 3 is a picture with the answers of four models, 6 the two pictures in the wild that went worst; 4 and 5
come from the run of the whole paper (`report.py`), 7, 8 and 10 from the science quiz (`science_report.py`); after 8 its
choices are asked once more of the chat data. A row of the paper without a counterpart here has a dash.

    minillava paper --table 7
"""

from pathlib import Path

from minillava import paper, scales
from minillava.experiments import miniature, science
from minillava.experiments.cells import cell, claims_for, verdict_lines
from minillava.experiments.miniature import FULL, STANDS_FOR, UNTUNED
from minillava.experiments.report import BESIDE, build_report, designs_page, designs_report, named, notation, score_rows
from minillava.experiments.run import Run
from minillava.experiments.science_report import science_report, text_10, text_78
from minillava.experiments.study import texts_of
from minillava.figures import tables as drawn
from minillava.figures.answers import answered_pictures
from minillava.files import read_jsonl, write_json, write_text
from minillava.judging.bench import read_bench
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw
from minillava.scenes.reading import mentions
from minillava.scenes.world import Scene
from minillava.standins.bench import SPLIT_OF
from minillava.text import aligned

SEEDS = 3  # at least, for a table with a spread
ODD = "What is unusual about this picture, and why?"
REFERENCE = "Text-only teacher (the reference)"
THERE, APART, NOWHERE = "it is there", "thing and colour are there, but apart", "nothing there has that colour"
THREE = "Table 3 in miniature: one odd picture, four models, and the text-only teacher"
SIX = "Table 6 in miniature: the two pictures in the wild on which the tuned model scores lowest"


def scene_of(image: str) -> Scene:
    """The scene that a picture of the run shows."""
    split, _, number = Path(image).stem.rpartition("-")
    return compose(split, int(number))


def questions_of(table: dict) -> list[str]:
    """The questions about a picture, each with what everybody says."""
    said = [[f"  {who}: {text}" for text in texts] for who, texts in table["answers"].items()]
    return ["\n".join([f"Human: {question}", *texts]) for question, *texts in zip(table["questions"], *said)]


def table_3(run: Run) -> dict:
    """Table 3 in miniature: a picture, the questions on it, and what four models and the text-only teacher say.

    The picture is the first whose oddity is asked for; someone ironing comes first, as in the paper.
    """
    items = [(bench, i) for bench in SPLIT_OF for i in read_bench(run.folder / "bench" / bench)]
    odd = [(b, i) for b, i in items if i.text == ODD and not i.reference.startswith("Nothing")] or items
    bench, chosen = next(((b, i) for b, i in odd if "ironing" in i.reference), odd[0])
    asked, answers = [i for b, i in items if b == bench and i.image == chosen.image], {}
    for row in (FULL, *STANDS_FOR, UNTUNED):
        texts = texts_of(run.home(0, row) / f"answers-{bench}.jsonl")
        answers[named(row)] = [texts[i.question_id] for i in asked]
    answers[REFERENCE] = [i.reference for i in asked]
    return {"image": chosen.image, "questions": [i.text for i in asked], "answers": answers}


def text_3(table: dict) -> str:
    """Table 3 as text."""
    title = "Table 3, p.6: a picture with something odd in it, and what each model says"
    return "\n\n".join([f"{title}\nPicture: {table['image']}", *questions_of(table)])


def text_45(report: dict, number: int) -> str:
    """Table 4 or 5 of a run of the whole paper, and the paper's rows that have no counterpart here."""
    table, theirs = report["tables"][number - 4], paper.TABLES[f"Table {number}"]
    others = {row: values for row, values in theirs.rows.items() if row not in BESIDE[theirs.id].values()}
    rows = [*score_rows(table), *([row, *(cell(None, v) for v in values)] for row, values in others.items())]
    about = f"{len(report['seeds'])} seeds, judge {report['judge']!r}: {notation(report)}"
    lines = [f"{theirs.source}: {theirs.caption}", about, "", aligned(rows), ""]
    lines += verdict_lines(claims_for(theirs, report["claims"]))
    if number == 4:
        lines += ["", "The paper's own arithmetic: printed differences to the first row that its scores do not give"]
        for row, column, printed, found in theirs.mismatches():
            lines.append(f"   {row}, {column}: printed {printed:+}, the scores give {found:+}")
    return "\n".join(lines)


def hardest(run: Run) -> list[dict]:
    """The two pictures in the wild on which the tuned model scores lowest, with what the judge is told of them."""
    items = {i.question_id: i for i in read_bench(run.folder / "bench" / "wild")}
    texts, tables = texts_of(run.home(0, FULL) / "answers-wild.jsonl"), {}
    for row in read_jsonl(run.home(0, FULL) / "reviews-wild.jsonl"):
        item, (best, ours) = items[row["question_id"]], row["tuple"]
        new = {"image": item.image, "annotation": item.context, "questions": [], "scores": []}
        table = tables.setdefault(item.image, new | {"answers": {FULL: [], REFERENCE: []}})
        table["questions"].append(item.text)
        table["answers"][FULL].append(f"{texts[item.question_id]} (score {ours:g} of 10)")
        table["answers"][REFERENCE].append(f"{item.reference} (score {best:g})")
        table["scores"].append(ours)
    return sorted(tables.values(), key=lambda table: sum(table["scores"]))[:2]


def patches(run: Run) -> dict[str, list[int]]:
    """Does the model see a bag of patches, as with Table 6's strawberry-flavoured yogurt? [said yes, asked], all seeds.

    Of the questions for a thing of some colour: it is there, or both are there but apart, or nothing has that colour.
    """
    out = {name: [0, 0] for name in (THERE, APART, NOWHERE)}
    for row in (row for seed in run.seeds for row in read_jsonl(run.home(seed, FULL) / "exact.jsonl")):
        asked = mentions(row["question"].lower())
        if row["key"] not in ("yes", "no") or len(asked) != 1 or not asked[0].colour:
            continue
        things = scene_of(row["image"]).things
        if any(thing.kind == asked[0].kind for thing in things):
            same = any(thing.colour == asked[0].colour for thing in things)
            count = out[THERE if row["key"] == "yes" else APART if same else NOWHERE]
            count[0] += row["answer"].lower().startswith("yes")
            count[1] += 1
    return out


def text_6(tables: list[dict], bag: dict[str, list[int]]) -> str:
    """Table 6: `hardest` and `patches` as text."""
    title = "Table 6, p.8: two hard pictures in the wild, what the judge is told of them, and what the tuned model says"
    lines = [title]
    for table in tables:
        told = [f"  {line}" for line in table["annotation"].splitlines()]
        lines += ["", f"Picture: {table['image']}", "Annotation:", *told, *questions_of(table)]
    lines += ["", 'A bag of patches? How often the model says yes to "Is there a red car?", all seeds together']
    return "\n".join([*lines, *(f"   {name}: {yes} of {asked}" for name, (yes, asked) in bag.items())])


def write_table(number: int, run: Run) -> str:
    """Table 3, 4, 5, 6, 7, 8 or 10 of a finished run as text; text, figure and report go into its folder."""
    figure = None
    if number in (3, 6):
        tables = [table_3(run)] if number == 3 else hardest(run)
        text = text_3(*tables) if number == 3 else text_6(tables, patches(run))
        pictures = [(table, draw(scene_of(table["image"]), 400)) for table in tables]
        figure = answered_pictures(pictures, THREE if number == 3 else SIX)
    elif number in (4, 5):
        report = build_report(run)
        text = text_45(report, number)
        figure = drawn.by_column(report["tables"][number - 4]["rows"], paper.TABLES[f"Table {number}"])
    elif number in (7, 8):
        report = science_report(run)
        write_json(run.folder / "report.json", report)
        text, figure = text_78(report, number), (drawn.table_7 if number == 7 else drawn.table_8)(report)
    else:
        text = text_10(run)
    write_text(run.folder / f"table-{number}.txt", text + "\n")
    if figure:
        figure.savefig(run.folder / "figures" / f"table-{number}.png")
    return text


def write_designs(run: Run) -> str:
    """Table 8's choices on the chat data as Markdown; figure and report go into the run's folder."""
    report = designs_report(run)
    write_json(run.folder / "report.json", report)
    drawn.designs(report).savefig(run.folder / "figures" / "table-8-chat.png")
    return designs_page(report)


def paper_table(number: int, scale: str, seeds: int, out: Path) -> None:
    """What `minillava paper --table N` does: run what is missing, resume what was stopped, then print the table.

    The quiz of Tables 7 and 8 goes into `out`/science, Table 8's choices on the chat data into `out`/designs.
    """
    seeds = seeds if number in (3, 10) else max(seeds, SEEDS)
    if number in (7, 8, 10):
        run = science.run_science(out / "science", science.SCALES[scale], seeds)
    else:
        run = miniature.run_paper(out, scales.PICTURE_BOOK_SCALES[scale], seeds)
    text = write_table(number, run)
    print(f"\n{text}\n\nThe table and its figure: {run.folder / f'table-{number}.txt'}, {run.folder / 'figures'}")
    if number == 8:
        print(f"\n{write_designs(miniature.run_designs(out / 'designs', scales.PICTURE_BOOK_SCALES[scale], seeds))}")

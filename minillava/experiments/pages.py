"""What the repository keeps of its own making: the samples and the pages of data_samples/.

Samples are the first scenes of a split, so a test can make them again and compare. A page is made of the JSON beside it,
which is a run's report.json: of `minillava paper` report.json, of its science/ science.json, of designs/ designs.json.

    python -m minillava.experiments.pages samples
    python -m minillava.experiments.pages results
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from minillava import paper
from minillava.data.records import write_records
from minillava.data.scienceqa import SPLITS, write_problems
from minillava.datagen.generate import Settings, generate
from minillava.datagen.messages import TYPES
from minillava.datagen.sources import read_source
from minillava.experiments.cells import cell, signed
from minillava.experiments.gates_page import gate_curves, page, ten_pictures
from minillava.experiments.report import designs_page, markdown
from minillava.experiments.science import BEST
from minillava.experiments.science_report import GROUPS, SHARES, TABLE_7, text_78, why
from minillava.figures.data import gallery
from minillava.files import atomic_write, read_json, write_json, write_jsonl, write_text
from minillava.judging.bench import write_bench
from minillava.judging.pope import build_pope
from minillava.judging.rubric import RULES
from minillava.scales import WEIGHTS
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.bench import SPLIT_OF, build_bench
from minillava.standins.quiz import SKILLS, draw_quiz
from minillava.standins.records import caption_record, instruction_record
from minillava.standins.teacher import OfflineTeacher
from minillava.text import markdown_table

COUNT, BENCH, SIZE = 12, 4, 256  # training scenes, scenes of each benchmark, pixels of a picture's side


def save_pictures(some: list, folder: Path) -> None:
    """The scenes as pictures."""
    for scene in some:
        with atomic_write(folder / f"{scene.id}.png", sync=False) as temporary:
            draw(scene, SIZE).save(temporary, optimize=True)


def write_samples(folder: Path) -> None:
    """Pictures with captions and boxes, one file of records per type, caption pairs, two benchmarks of four scenes, the
    judge's rubric, one problem of each skill and split of the quiz, and the teacher's replies, to be replayed."""
    some = scenes("train", COUNT)
    save_pictures(some, folder / "pictures")
    write_jsonl([caps_boxes(s) for s in some], folder / "caps_boxes.jsonl")
    for kind in TYPES:
        write_records([instruction_record(s, kind) for s in some], folder / f"{kind}.json")
    write_records([caption_record(s) for s in some], folder / "caption.json")
    for name, split in SPLIT_OF.items():
        write_bench(build_bench(name, BENCH), folder / "bench" / name)
        save_pictures(scenes(split, BENCH), folder / "bench" / name / "images")
        write_jsonl(build_pope([caps_boxes(s) for s in scenes(split, BENCH)]), folder / "bench" / name / "pope.jsonl")
    write_json(folder / "bench" / "rule.json", RULES)
    images = folder / "quiz" / "images"
    problems = [p for split in SPLITS for p in draw_quiz(split, len(SKILLS), images / split, SIZE // 2)]
    write_problems(problems, folder / "quiz")
    gallery().savefig(folder / "gallery.png")
    pictures, _ = read_source(folder / "caps_boxes.jsonl", folder / "pictures")
    with tempfile.TemporaryDirectory() as out:
        generate(pictures, OfflineTeacher(), Path(out), Settings(), concurrency=1, progress=False)  # in this order
        shutil.copy(Path(out) / "replies.jsonl", folder / "replies.jsonl")


def brief(science: dict) -> str:
    """The short table of the results' README.md: Table 7's and Table 8's, per cent right over all questions."""
    gaps = ["difference to the best variant", "the paper"]
    rows = [["ScienceQA", "here, % right", "the paper", *gaps, "reasons right, %"]]
    for r in science["table 7"]:
        if r["row"] in TABLE_7.values() and r["row"] != TABLE_7["LLaVA"]:
            rows.append([r["row"], cell(r["ours"]["Avg"]), f"{r['paper']['Avg']:.2f}", "", "", ""])
    reasons = {r["row"]: cell(r["reasons"]["all"]) for r in science["reasons"]}
    for r in science["table 8"]:
        gap = [signed(r["gap"]), f"{paper.TABLE_8.delta(r['row'], 'Avg'):+}"] if r["gap"] else ["", ""]
        rows.append([r["row"], cell(r["ours"]["Avg"]), f"{r['paper']['Avg']:.2f}", *gap, reasons[r["row"]]])
    return markdown_table(rows)


def science_page(science: dict) -> str:
    """science.md: Tables 7 and 8 of the quiz, and why an effect does not show."""
    reasons = [["", *GROUPS, "difference, all", "difference, with a picture"]]
    for r in science["reasons"]:
        gaps = map(signed, r["gap"].values()) if r["gap"] else ["", ""]
        reasons.append([r["row"], *(cell(r["reasons"][group]) for group in GROUPS), *gaps])
    letters = [["questions", "picture", "chance, %", *SHARES]]
    for r in science["letters"]:
        picture = {None: "", True: "yes", False: "no"}[r["picture"]]
        letters.append([r["what"], picture, f"{r['chance']}", *(f"{r[share]:,}" for share in SHARES)])
    parts = [
        "# ScienceQA in miniature",
        f"Scale `{science['scale']}`, seeds {science['seeds']}, {science['questions']:,} test questions, "
        f"chance {science['chance']} %.",
        *(f"## Table {number}\n\n```\n{text_78(science, number)}\n```" for number in (7, 8)),
        "![Table 8](figures/table-8.png)",
        "## Why", "\n".join(f"- {line}" for line in why(science)),
        "## Are the reasons right?",
        "Per cent of answers whose reasons end in the right conclusion, whatever letter goes with them; in brackets "
        "the 95 % interval of the difference to the best variant.",
        markdown_table(reasons), f"## Where answers go wrong: {BEST}, all seeds together", markdown_table(letters),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def write_pages(results: Path) -> None:
    """Every page of `results` from the JSON there, the figures that no run draws, and the short table on screen."""
    report, science, chat = (read_json(results / f"{name}.json") for name in ("report", "science", "designs"))
    write_text(results / "report.md", markdown(report))
    write_text(results / "science.md", science_page(science))
    write_text(results / "designs.md", designs_page(chat))
    figure, rows = ten_pictures(WEIGHTS / "llava")
    write_json(results / "ten-pictures.json", rows)
    write_text(results / "gates.md", page(WEIGHTS, results))
    figure.savefig(results / "ten-pictures.png", dpi=80)
    gate_curves(WEIGHTS).savefig(results / "gates.png")
    print(brief(science))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("samples", "results"))
    if parser.parse_args().what == "samples":
        write_samples(WEIGHTS.parent)
    else:
        write_pages(WEIGHTS.parent / "results")

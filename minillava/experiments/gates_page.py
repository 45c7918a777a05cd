"""The gates on one page: what was wanted of the small model, what was measured, what it still gets wrong, what made it.

Notable: every figure is read from files - gates.jsonl (the shipped weights on scenes that chose nothing), report.json (the
live run, three seeds), science.json and designs.json (Table 8, where they are there), ten-pictures.json and the weights' cards - so the page
can be made again after any of them, and a gate that is not passed says so.

    python -m minillava.experiments.gates_page data_samples/weights data_samples/results
"""

import json
import statistics
import sys
from pathlib import Path

from minillava.experiments.miniature import CAPTIONER, FULL, UNTUNED
from minillava.experiments.science_page import at_the_letter
from minillava.files import read_jsonl
from minillava.paper import TABLE_8
from minillava.scenes.questions import EXACT

NUMBER = {"vision_tower": 1, "language_model": 2, "llava": 4, "controls": 4}
BINDING = ("existence", "colour", "side")  # gate 3 asks them of the whole; gate 4 has all kinds
FIRST_FOUR = ("existence", "colour", "place", "side")
MINUTES = 10.0  # of the live run
COLUMNS = ("gate", "figure", "wanted", "measured", "picture blank", "shuffled", "passed")


def row(gate: int, figure: str, wanted: str, measured: str, passed: bool, blank="", shuffled="") -> list[str]:
    return [str(gate), figure, wanted, measured, str(blank), str(shuffled), "yes" if passed else "**no**"]


def shipped(rows: list[dict]) -> list[list[str]]:
    """Gates 1 to 4: the shipped weights."""
    names = {
        "vision_tower": "the vision tower: ",
        "language_model": "the language model, in words: ",
        "llava": "",
        "controls": "",
    }
    out = []
    for r in rows:
        number = 3 if r["gate"] == "llava" and r["figure"] in BINDING else NUMBER[r["gate"]]
        wanted = f"{'<' if r['gate'] == 'controls' else '>='} {r['wanted']}"
        out.append(row(number, names[r["gate"]] + r["figure"], wanted, f"{r['measured']:.1f}", r["passed"],
                       r.get("blank", ""), r.get("shuffled", "")))  # fmt: skip
    return sorted(out, key=lambda r: r[0])


def live(report: dict) -> list[list[str]]:
    """Gate 5: the live run, its rows of Table 4 apart by more than the spread over seeds."""
    four = statistics.mean(report["vqa"][k] for k in FIRST_FOUR)
    seeds, seconds = report["seeds"], report["seconds"]
    once = [v for name, v in seconds.items() if name != "all" and not any(name.endswith(f"-{s}") for s in seeds[1:])]
    minutes = sum(once) / 60
    (table,) = (t["rows"] for t in report["tables"] if t["table"] == "Table 4")
    of = {r["row"]: r["All"] for r in table}
    out = [row(5, "the live run: minutes for one seed, on 2 cores", f"<= {MINUTES:g}", f"{minutes:.1f}", minutes <= MINUTES),
           row(5, f"the live run: {', '.join(FIRST_FOUR)}", ">= 80", f"{four:.1f}", four >= 80)]  # fmt: skip
    for better, worse in ((FULL, "Conversation"), ("Conversation", UNTUNED)):
        gap, spread = of[better]["ours"] - of[worse]["ours"], max(of[r]["spread"] or 0 for r in (better, worse))
        out.append(row(5, f"Table 4, All: {better} above {worse}", f"> {spread:.1f}, the spread", f"{gap:+.1f}", gap > spread))  # fmt: skip
    tuned, other = report["vqa"]["all"], report["vqa_rows"][CAPTIONER]["all"]
    out.append(row(5, "questions: tuned on instructions, tuned on captions only", "far below", f"{tuned:.1f}, {other:.1f}", other < tuned / 2))  # fmt: skip
    return out


def choices(science: dict) -> list[list[str]]:
    """Gate 6: what each choice of Table 8 is worth here; passed where an effect can be told from none."""
    out = []
    for r in science["table 8"]:
        if r["gap"]:
            low, high = r["gap"]["interval"]
            out.append(row(6, f"Table 8: {r['row']}, difference to the best (the paper's {TABLE_8.delta(r['row'], 'Avg'):+})",
                           "an effect, or why not", f"{r['gap']['ours']:+.1f} [{low:+.1f}, {high:+.1f}]", low > 0 or high < 0))  # fmt: skip
    if "letters" in science:
        wrong, lost, _ = at_the_letter(science["letters"])
        share = 100 * lost / wrong
        out.append(row(6, "Table 8, [why](science.md): wrong answers with right reasons", "> 50, or another reason", f"{share:.1f}", share > 50))  # fmt: skip
    return out


def on_chat(report: dict) -> list[list[str]]:
    """Gate 6 on the chat data (`designs.py`), where the model sees: each choice's difference, and the control."""
    out = []
    for r in (r for r in report["rows"] if r["gap"]):
        low, high = r["gap"]["interval"]
        out.append(row(6, f"Table 8 [on the chat data](designs.md): {r['row']}, difference to the best", "an effect, or why not",
                       f"{r['gap']['ours']:+.1f} [{low:+.1f}, {high:+.1f}]", low > 0 or high < 0, "", r["shuffled"]["ours"]))  # fmt: skip
    return out


def weak(scores: dict[str, float], least: float) -> str:
    """The kinds of questions under `least` per cent, the weakest first."""
    found = sorted((v, k) for k, v in scores.items() if k in EXACT and v < least)
    return ", ".join(f"{kind} {value:.0f} %" for value, kind in found) or "none"


def failures(card: dict, report: dict, answers: list[dict]) -> list[str]:
    """What the shipped model and the live run get wrong, in words."""
    picture = card["figures"]["exact match, dev split, per cent"]["picture"]
    more = card["recipe"]["pictures"] / report["recipe"]["scale"]["pictures"]
    wrong = [a for a in answers if not a["right"]]
    (wild,) = (t["rows"] for t in report["tables"] if t["table"] == "Table 5")
    full = next(r for r in wild if r["row"] == FULL)["All"]["ours"]
    lines = [
        f"- The shipped model, kinds of questions under 90 %: {weak(picture, 90)}.",
        f"- The live run, which saw one picture where that saw {more:.0f}, kinds under 80 %: {weak(report['vqa'], 80)}.",
        f"- In the wild - another drawing style, combinations held out of training - the live run's relative score is {full:.1f}: things are taken for others of like shape (the two worst pictures: [figures/table-6.png](figures/table-6.png)).",
        f"- Of the {len(answers)} answers about ten pictures drawn by a seed (ten-pictures.png), {len(wrong)} wrong:",
    ]
    return lines + [f'  - {a["scene"]}: {a["question"]} - "{a["answer"]}" ({a["why"]})' for a in wrong]


def page(weights: Path, results: Path) -> str:
    """The page, as Markdown. weights: the folder of vision tower, language model and llava; results: of what was measured."""
    report = json.loads((results / "report.json").read_text())
    answers = json.loads((results / "ten-pictures.json").read_text())
    rows = [*shipped(read_jsonl(results / "gates.jsonl")), *live(report)]
    if (results / "science.json").exists():
        rows += choices(json.loads((results / "science.json").read_text()))
    if (results / "designs.json").exists():
        rows += on_chat(json.loads((results / "designs.json").read_text()))
    cards = {part: json.loads((weights / part / "card.json").read_text()) for part in ("vision_tower", "language_model", "language_model_small", "llava")}  # fmt: skip
    lines = ["# Does the small model look?", "", "Per cent right on held-out scenes that chose nothing, questions balanced. Gates 1 to 4: the weights that ship; 5: `make demo`'s run, three seeds; 6: `minillava paper --table 8`.", ""]  # fmt: skip
    lines += [
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        *("| " + " | ".join(r) + " |" for r in rows),
    ]
    lines += [
        "",
        "![The gates while vision tower, language model and the whole were trained](gates.png)",
        "",
        "## What it gets wrong",
        "",
    ]
    lines += [*failures(cards["llava"], report, answers), "", "## What made the weights", "", "| part | made as | minutes | machine |", "|---|---|---|---|"]  # fmt: skip
    for part, card in cards.items():
        m = card["machine"]
        gpu = m["gpu"]["name"] if m.get("gpu") else "no GPU"
        lines.append(f"| {part} | {card['recipe']['made as']} | {card['minutes']} | {m['cores']} cores ({m['processor']}, {m['precision']}), {gpu}, torch {m['torch']} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    weights, results = map(Path, sys.argv[1:3])
    (results / "gates.md").write_text(page(weights, results), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The page and the figure of what a GPU gave: benchmarks/results/gpu.md and gpu.png, from the files of gpu.sh.

python benchmarks/gpu_page.py        # --dry, --json and the like belong to the scripts that measure
"""

import json
import statistics
from pathlib import Path

from minillava.figures.style import BLUE, DOTTED, GREEN, GREY, SKY, THEIRS, WHISKER, canvas, fill, headline
from minillava.files import write_text
from minillava.text import markdown_table

HERE = Path(__file__).parent / "results"
KINDS = ("place", "colour", "relation", "existence", "side", "odd", "count")
LOOKS = {"picture": "its picture", "blank": "blank", "shuffled": "shuffled"}
MIXTURES = {"whole": "conversations of eight questions", "turns": "conversations of two questions",
            "book": "the same and single questions"}  # fmt: skip
GOAL = {"0.5B, stage 1": 100_000, "0.5B, stage 2": 86_000}


def read(name: str) -> dict:
    return json.loads((HERE / f"gpu-{name}.json").read_text(encoding="utf-8"))


def speeds(fast: dict) -> list[tuple]:
    """(what, way, tokens per second, share of the large product, peak GB, foreseen GB) of everything measured."""
    rows = []
    for part, ways in fast["parts"].items():
        for way, one in ways.items():
            if not isinstance(one, dict) or "tokens a second" not in one:
                continue
            share = one.get("utilisation") or 100 * one["FLOP/s"] / fast["parts"]["ceilings"]["matmul"]
            memory = one["peak memory"] / 1e9, one["foreseen memory"] / 1e9
            rows.append((part, way, one["tokens a second"], share, *memory))
    return rows


def sight(seen: dict, model: str, order: str, look: str) -> dict[str, list[float]]:
    """Kind -> % right of each seed of a model."""
    runs = [r["sight"][order][look] for r in seen["results"] if r["job"] == model]
    return {kind: [run[kind] for run in runs] for kind in (*KINDS, "all")}


def sight_table(seen: dict) -> str:
    """What `smol` sees, by the place of the picture and what was shown: mean (lowest to highest seed)."""
    rows = [[f"{order}, {LOOKS[look]}", *(f"{statistics.fmean(v):.0f} ({min(v):.0f} to {max(v):.0f})"
             for v in sight(seen, "smol", order, look).values())]
            for order in ("first", "after") for look in LOOKS]  # fmt: skip
    return markdown_table([["picture", *KINDS, "all"], *rows])


def models_table(seen: dict) -> list[list[str]]:
    """Each model: its steps and their time, what it still knows, the quiz."""
    rows = []
    for r in seen["results"]:
        stages = [r.get(f"stage {n}") for n in (1, 2)]
        cells = [
            f"{s['steps']} in {s['seconds']} s" if s else f"least squares, {r['start']['seconds']} s" for s in stages
        ]
        know = [str(sum(a["right"] for a in answers)) for answers in r["knowledge"].values()]
        know = " / ".join(know) if r["job"] == "smol" else "-"
        rows.append([f"{r['job']} {r['seed']}", *cells, know, f"{r['quiz']['right']} %" if "quiz" in r else "-"])
    return rows


def mixtures(seen: dict) -> list[list[str]]:
    """The small models: what they learned from, and what they see in both orders."""
    rows = []
    for r in (r for r in seen["results"] if r["job"] in MIXTURES):
        steps, batch = r["stage 2"]["steps"], seen["recipe"][r["job"]]["stage2_batch"]
        both = [" / ".join(f"{r['sight'][order][look]['all']:.1f}" for look in LOOKS) for order in ("first", "after")]
        rows.append([MIXTURES[r["job"]], f"{steps:,} x {batch}", *both, " / ".join(map(str, r["relative"].values()))])
    return rows


def lost(seen: dict) -> str:
    """Fewest to most plain questions that a seed lost, in its own template or in ours."""
    found = [g["measured"] for gates in seen["gates"].values() for g in gates if g["gate"].startswith("lost")]
    return f"{min(found)} to {max(found)}"


def page(fast: dict, right: dict, seen: dict, first: dict) -> str:
    machine, parts = fast["machine"], fast["parts"]
    rows = [row for check in right["checks"].values() for row in check["rows"]]
    held, wide = sum(row["ok"] for row in rows), {}
    for row in (row for row in rows if not row["check"].endswith("losses and first")):  # those show that it learns
        wide.setdefault(row["precision"], []).append((row["difference"], row["check"]))
    table = [[f"{what}, {way}", f"{t:,.0f}", f"{s:.0f} %", f"{m:.1f}", f"{f:.1f}"]
             for what, way, t, s, m, f in speeds(fast)]  # fmt: skip
    far = [[name, f"{max(found)[0]:.1e}", max(found)[1]] for name, found in wide.items()]

    def ratio(part: str) -> float:
        """How many times as fast as `transformers` ours is, compiled."""
        return parts[part]["ratios"]["ours compiled"]

    answers, steps, before = parts["7B, answers"], seen["steps"]["smol"][1], first["steps"]["smol"][1]
    clock, known = answers["seconds"], "20 plain questions right: before / after / after, ours"
    looks = "its picture / blank / shuffled"
    models = [["model and seed", "stage 1", "stage 2", known, "quiz"], *models_table(seen)]
    small = [["records", "steps x batch", f"first: {looks}", f"after: {looks}", "relative score / shuffled"]]
    return f"""# What a GPU gave

One {machine["gpu"]["name"]} (driver {machine["driver"]}, CUDA {machine["cuda"]}), 16 cores of an {machine["model"]},
torch {machine["torch"]}; three times 15 minutes, on 2026-11-27 and 28. Made by `bash benchmarks/gpu.sh` and
`python benchmarks/gpu_page.py` from the JSON files beside this page. LOG.md (2026-11-27) has the numbers of the first
attempt and of what was foreseen, which no file here holds.

![speeds and what the models see](gpu.png)

## Right

{held} of {len(rows)} comparisons hold, each within a tolerance that was fixed before. The widest of each precision:

{markdown_table([["precision", "difference", "of"], *far])}

## Fast

A large matrix product runs at {parts["ceilings"]["matmul"] / 1e12:.0f} TFLOP/s here, a large copy at
{parts["ceilings"]["copy"] / 1e12:.1f} TB/s. Tokens are real ones: padding does not count. The goals were 100,000 in
stage 1 and 86,000 in stage 2 at 0.5B, and 60 % of the large product at 7B. Memory in GB, beside what was foreseen.

{markdown_table([["what", "tokens/s", "of a large product", "memory", "foreseen"], *table])}

"compiled" of stage 2 holds one step of 6.7 s in which a shape was compiled. In the first run of all, with two
micro-batches per step, the same loop reached 74,500 and 15,400 tokens/s: the CPU could not give the GPU its work in
time. Features of photographs computed at every use ("live") cost nothing here. `--packed` was slower in every run, so
it is gone.

What is foreseen is by today's rule (`costs.model.memory`), which was corrected after these figures: PyTorch's norm keeps
its input too, and compiled blocks compute the norms again. Every step of ours is within 4 % of it, compiled or plain.
The loop at 0.5B is 9 % below to 6 % above it in stage 1, and 5 to 9 % above it in stage 2. It is foreseen for the part
that needs most. The longest samples have half as many labels again as the mean, so their logits alone are 5 GB more.
With the mean of all samples the loop of stage 2 was 17 to 20 % above.
Beside `transformers`, ours compiled is {ratio("0.5B, a step of stage 1"):.1f} times as fast in stage 1 and
{ratio("0.5B, a step of stage 2"):.1f} times in stage 2 at 0.5B, {ratio("7B, a step of stage 1"):.1f} and
{ratio("7B, a step of stage 2"):.1f} times at 7B, {ratio("7B, a step of stage 2, recomputed"):.1f} times with
activations computed again.

{answers["questions"]} questions about 30 pictures at the size of 7B, {answers["tokens"]:,} tokens of answers, seconds:
ours {clock["ours"]:.1f}, `transformers` in one batch {clock["batched"]:.1f}, one by one {clock["one by one"]:.0f} (from
every tenth). So ours takes {clock["ours"] / clock["batched"]:.1f} times as long as one batch of `transformers` here,
where on a CPU it is quicker. A profile says why (a script that was not kept): reading all prompts takes 0.42 s, and then
each token of all rows 40 to 56 ms, of which the GPU works 13 ms and waits for about 1,850 launches from Python.
(`transformers` reads each picture three times.) Recording a step once as a CUDA graph would take these launches away;
here rows leave and the cache grows, so it was not done. When a row leaves, its index now goes to the GPU once instead of
once per layer; that made no difference which could be told from the noise.

## Seen

SmolLM2-135M behind the vision tower that ships here, three seeds
and three small models at once, in {seen["seconds"]:.0f} s for everything ({seen["drawn"]} s until 48,000 pictures were
drawn and their records written). % right of 100 held-out questions of each kind: mean (lowest to highest seed); by the
place of the picture and what was shown.

{sight_table(seen)}

{markdown_table(models)}

It sees. All gates of sight are passed by every seed and in both orders (85 % in colour, side, place and existence;
foreseen 90, 70, 100 and 60), and so is the quiz (75 %; chance 39.5; not asked with blank pictures). The gate of
knowledge is not: it lost {lost(seen)} of 20 plain questions, where at most 2 were hoped for. Text of its own was at
most 8 % of what it learned. Counts are its weakest kind. What changed since the first recipe: the vision tower is
another one, W starts by least squares from the boxes of 1,200 scenes instead of from captions, most records are one
question about one picture, half of them asked before it, and it had {steps} steps of 64 instead of {before} of 32.
Which of these did it is not known, as there was time for one run. In that first run (`gpu-seen-first.json`), four
trainings waited for each other's launches and saw little:

{sight_table(first)}

The small model of the picture book on three mixtures of records, one seed each (% right over all kinds, by the place of
the picture, and the relative score):

{markdown_table(small + mixtures(seen))}

With conversations of eight questions only the first one can be asked before the picture, so that order learns late. (It
also had fewer steps than the others.)
"""


def draw(fast: dict, seen: dict):
    """Three panels: tokens per second at 0.5B, a step at 7B, what `smol` sees of its picture and of none."""
    figure, (one, two, three) = canvas(13, 3.8, 3, width_ratios=(1, 1, 1.7))
    rows = [row for row in speeds(fast) if row[0] in GOAL and row[1] in ("plain", "compiled, live")]
    names = [f"{what[6:]}\n{'plain' if way == 'plain' else 'compiled'}" for what, way, *_ in rows]
    one.bar(names, [row[2] / 1000 for row in rows], color=[BLUE if "1" in name else SKY for name in names])
    for at, (what, *_) in enumerate(rows):
        one.plot([at - 0.4, at + 0.4], [GOAL[what] / 1000] * 2, **THEIRS)
    one.set_ylabel("thousand real tokens/s")
    headline(one, "0.5B: both goals (grey) are met")
    rows = [row for row in speeds(fast) if row[0] == "7B, a step of stage 2"]
    two.bar([way.replace("ours", "ours,\nplain") if way == "ours" else way.replace(" ", ",\n") for _, way, *_ in rows],
            [row[3] for row in rows], color=[GREEN, GREEN, GREY])  # fmt: skip
    two.axhline(60, **DOTTED)
    two.set_ylabel("% of a large product")
    headline(two, "7B, stage 2: 61 % of the product")
    for n, look in enumerate(LOOKS):
        found = sight(seen, "smol", "after", look)
        heights = [statistics.fmean(found[kind]) for kind in KINDS]
        spread = [
            [h - min(found[k]) for h, k in zip(heights, KINDS)],
            [max(found[k]) - h for h, k in zip(heights, KINDS)],
        ]
        places = [at + (n - 1) * 0.27 for at in range(len(KINDS))]
        three.bar(places, heights, 0.27, label=LOOKS[look], **fill(LOOKS[look]))
        three.errorbar(places, heights, spread, fmt="none", **{k: v for k, v in WHISKER.items() if k == "color"})
    three.set_xticks(range(len(KINDS)), KINDS)
    three.set_ylabel("% right, picture after the question")
    three.set_ylim(0, 118)  # the legend stands above the bars
    three.set_yticks(range(0, 101, 20))
    three.legend(frameon=False, ncols=3, loc="upper right")
    headline(three, f"SmolLM2-135M after {seen['steps']['smol'][1]} steps sees; counts are its weakest")
    return figure


if __name__ == "__main__":
    fast, right, seen, first = map(read, ("fast", "right", "seen", "seen-first"))
    write_text(HERE / "gpu.md", page(fast, right, seen, first))
    draw(fast, seen).savefig(HERE / "gpu.png", dpi=110, bbox_inches="tight", facecolor="white")

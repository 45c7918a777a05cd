"""What the data looks like: the picture book, statistics of records, and Fig. 7 before and after the concept filter.

statistics_figure(statistics({"detail": read_records("data_samples/detail.json")})).savefig("statistics.png")
"""

from matplotlib.figure import Figure

from minillava.datagen.concepts import FilterResult
from minillava.datagen.statistics import Statistics
from minillava.figures.charts import bars
from minillava.figures.panels import Line, beside, tiles
from minillava.figures.style import BLUE, DOTTED, INK, ORANGE, canvas, fill, headline, pen
from minillava.paper import DATA
from minillava.scenes.captions import captions
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw

WORDS = 15  # most frequent ones shown


def gallery(columns: int = 8) -> Figure:
    """The picture book: three rows as in training, one in the style kept for the benchmark in the wild."""
    shown = [draw(scene, 192) for scene in (*scenes("train", 3 * columns), *scenes("wild", columns))]
    title = "The picture book: scenes drawn by code; the last row is kept for the benchmark in the wild"
    return tiles(shown, [""] * len(shown), title, columns, inch=1.5)


def scene_card(scene, size: int = 320) -> Figure:
    """One scene with its boxes, and its captions: what the teacher reads in the picture's place."""
    told = [[Line(text)] for text in captions(scene)]
    title = f"What the teacher reads: {len(told)} captions and {len(scene.things)} boxes"
    figure = beside([(draw(scene, size), {"": told})], title)
    axis = figure.axes[0]
    for thing in scene.things:
        x1, y1, x2, y2 = (value / 1000 * size for value in thing.box)
        axis.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=INK, lw=1)
        axis.text(x1, y1, thing.kind, fontsize=8, color="white", backgroundcolor=INK, va="bottom")
    return figure


def statistics_figure(found: dict[str, Statistics]) -> Figure:
    """Questions and records of each type, lengths of the answers, and the most frequent nouns and verbs of all."""
    figure, ((counts, lengths), (nouns, verbs)) = canvas(11, 7, 2, 2)
    whole, kinds = found["all"], {kind: one for kind, one in found.items() if kind != "all"}
    title, shades = f"{whole.records:,} records of {whole.pictures:,} pictures", list(map(fill, kinds))
    names = [f"{kind}, {one.records:,} records" for kind, one in kinds.items()]  # often equally many
    bars(names, [one.turns for one in kinds.values()], "questions with answers", title, shades=shades, axis=counts)
    told = {kind: one.answer_words for kind, one in kinds.items() if one.answer_words}
    most = max(map(max, told.values()), default=1)
    for kind, words in told.items():
        share, line = [100 / len(words)] * len(words), pen(fill(kind))
        lengths.hist(words, [most * n / 30 for n in range(31)], weights=share, histtype="step", label=kind, **line)
    lengths.set(xlabel="words per answer", ylabel="% of the type's answers")
    if told:
        lengths.legend(frameon=False)
    longest = max(told, key=lambda kind: sum(told[kind]) / len(told[kind]), default="nothing")
    headline(lengths, f"The longest answers: {longest}")
    for axis, name, words in ((nouns, "nouns", whole.nouns[:WORDS]), (verbs, "verbs", whole.verbs[:WORDS])):
        title = f"Most frequent {name}: {', '.join(word for word, _ in words[:3])}" if words else f"No {name}"
        some, counted = [word for word, _ in words], [count for _, count in words]
        bars(some, counted, "times, in questions and answers", title, shades=[fill("", INK)] * len(words), axis=axis)
    return figure


def concept_figure(concepts: FilterResult, least: int, most: int) -> Figure:
    """Fig. 7: how often each noun phrase occurs, before and after the filter, most frequent before first."""
    figure, axis = canvas(8, 4)
    before = sorted(concepts.before.items(), key=lambda item: (-item[1], item[0]))
    unique = len(concepts.before), len(concepts.after)
    paper = DATA["phrases"].value
    ranks, counts = range(1, len(before) + 1), [count for _, count in before]
    axis.plot(ranks, counts, color=BLUE, lw=2, label=f"before: {unique[0]:,} unique phrases")
    if kept := [(rank, concepts.after[p]) for rank, (p, _) in zip(ranks, before) if p in concepts.after]:
        axis.plot(*zip(*kept), ".", color=ORANGE, ms=3, label=f"after: {unique[1]:,} unique phrases")
    place = {"transform": axis.get_yaxis_transform(), "ha": "right"}  # there the curve is below both lines
    for value, text in ((most, f"a random {most} of more"), (least, f"under {least}: skipped")):
        axis.axhline(value, **DOTTED)
        axis.text(0.99, value * 1.08, text, color=INK, fontsize=8, **place)
    told = f"the paper, CC3M with spaCy: {paper['before']:,} unique phrases before, {paper['after']:,} after"
    axis.set(xlabel=f"noun phrases, the most frequent first\n{told}", ylabel="captions that hold it")
    axis.loglog()
    axis.legend(frameon=False, loc="upper right")
    share = 100 * len(concepts.kept) / max(1, concepts.captions)
    some = f"{len(concepts.kept):,} of {concepts.captions:,} captions ({share:.0f} %)"
    headline(axis, f"{some} keep {unique[1]:,} phrases")
    return figure

"""What generated data looks like, as pictures: statistics of records, and Fig. 7 before and after the concept filter.

python -m minillava.figures.data data_samples/results
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from minillava.data.records import read_records
from minillava.datagen.concepts import FilterResult, concept_filter
from minillava.datagen.statistics import Statistics, statistics
from minillava.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, canvas, headline
from minillava.paper import DATA
from minillava.scenes.captions import captions
from minillava.scenes.compose import scenes

COLOURS = {"conversation": BLUE, "detail": GREEN, "complex": ORANGE, "caption": PINK}
WORDS = 15  # most frequent ones shown
SCENES = 20_000  # five captions each, for Fig. 7 in miniature


def statistics_figure(found: dict[str, Statistics]) -> Figure:
    """Records a type, lengths of the answers, and the most frequent nouns and verbs of all."""
    figure, axes = canvas(11, 7, 2, 2)
    kinds, whole = [k for k in found if k != "all"], found["all"]
    counts, lengths, nouns, verbs = axes.flat
    for y, kind in enumerate(reversed(kinds)):
        one = found[kind]
        counts.barh(y, one.records, color=COLOURS.get(kind, GREY), height=0.6)
        counts.text(one.records, y, f" {one.records:,} records, {one.turns:,} turns", va="center")
    counts.set_yticks(range(len(kinds)), kinds[::-1])
    counts.set_xlim(0, 1.6 * max(1, *(found[k].records for k in kinds)))
    counts.set_xlabel("records")
    headline(counts, f"{whole.records:,} records of {whole.pictures:,} pictures")
    told = [k for k in kinds if found[k].answer_words]
    most = max(max(found[k].answer_words) for k in told) if told else 1
    bins = [most * n / 30 for n in range(31)]
    for kind in told:
        words = found[kind].answer_words
        share = [100 / len(words)] * len(words)
        lengths.hist(words, bins, weights=share, histtype="step", lw=2, color=COLOURS.get(kind, GREY), label=kind)
    lengths.set_xlabel("words an answer")
    lengths.set_ylabel("% of the type's answers")
    lengths.legend(frameon=False)
    longest = max(told, key=lambda k: sum(found[k].answer_words) / len(found[k].answer_words), default="nothing")
    headline(lengths, f"The longest answers: {longest}")
    for axis, name, words in ((nouns, "nouns", whole.nouns[:WORDS]), (verbs, "verbs", whole.verbs[:WORDS])):
        axis.barh(range(len(words)), [n for _, n in words[::-1]], color=INK, height=0.6)
        axis.set_yticks(range(len(words)), [w for w, _ in words[::-1]], fontsize=8)
        axis.set_xlabel("times, in questions and answers")
        headline(axis, f"Most frequent {name}: {', '.join(w for w, _ in words[:3])}" if words else f"No {name}")
    return figure


def concept_figure(concepts: FilterResult, least: int, most: int) -> Figure:
    """Fig. 7: how often each noun phrase occurs, before and after the filter, phrases ordered by their frequency before."""
    figure, axis = canvas(8, 4)
    before = sorted(concepts.before.items(), key=lambda item: (-item[1], item[0]))
    ranks = range(1, len(before) + 1)
    unique = len(concepts.before), len(concepts.after)
    paper = DATA["phrases"].value
    axis.plot(ranks, [n for _, n in before], color=BLUE, lw=2, label=f"before: {unique[0]:,} unique phrases")
    kept = [(rank, concepts.after[p]) for rank, (p, _) in zip(ranks, before) if p in concepts.after]
    if kept:
        axis.plot(*zip(*kept), ".", color=ORANGE, ms=3, label=f"after: {unique[1]:,} unique phrases")
    for value, text in ((most, f"a random {most} of more"), (least, f"under {least}: skipped")):
        axis.axhline(value, color=GREY, lw=1, ls="--")
        place = {"transform": axis.get_yaxis_transform(), "ha": "right"}  # there the curve is below both lines
        axis.text(0.99, value * 1.08, text, color=GREY, fontsize=8, **place)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(
        "noun phrases, the most frequent first\n"
        f"the paper, CC3M with spaCy: {paper['before']:,} unique phrases before, {paper['after']:,} after"
    )
    axis.set_ylabel("captions that hold it")
    axis.legend(frameon=False, loc="upper right")
    share = 100 * len(concepts.kept) / max(1, concepts.captions)
    headline(
        axis, f"{len(concepts.kept):,} of {concepts.captions:,} captions ({share:.0f} %) keep {unique[1]:,} phrases"
    )
    return figure


def main(folder: Path) -> None:
    """The two figures of the picture book: of the shipped records, and of the captions of 20,000 scenes."""
    from minillava.scales import WEIGHTS

    kinds = ("conversation", "detail", "complex", "caption")
    records = {kind: read_records(WEIGHTS.parent / f"{kind}.json") for kind in kinds}
    statistics_figure(statistics(records)).savefig(folder / "statistics.png")
    texts = [text for scene in scenes("train", SCENES) for text in captions(scene)]
    found = concept_filter(texts, chunker="rules")
    concept_figure(found, DATA["rare_below"].value, DATA["common_above"].value).savefig(folder / "concepts.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

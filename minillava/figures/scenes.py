"""Figures of the picture book: a gallery, and one scene with its captions and boxes."""

from matplotlib.figure import Figure

from minillava.figures.style import INK, canvas
from minillava.scenes.captions import captions
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw


def gallery(columns: int = 8) -> Figure:
    """The picture book: three rows as in training, one in the style kept for the benchmark in the wild."""
    figure, axes = canvas(columns * 1.5, 4 * 1.5 + 0.6, columns, 4)
    shown = [*scenes("train", 3 * columns), *scenes("wild", columns)]
    for axis, scene in zip(axes.flat, shown):
        axis.imshow(draw(scene, 192))
        axis.set_axis_off()
    figure.suptitle(
        "The picture book: scenes drawn by code; the last row is kept for the benchmark in the wild", fontsize=11
    )
    return figure


def scene_card(scene, size: int = 320) -> Figure:
    """One scene with its five captions and its boxes."""
    figure, (left, right) = canvas(9, 3.4, 2)
    left.imshow(draw(scene, size), extent=(0, 1, 1, 0))
    for thing in scene.things:
        x1, y1, x2, y2 = (v / 1000 for v in thing.box)
        left.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=INK, lw=1)
        left.text(x1, y1 - 0.01, thing.kind, fontsize=8, color="white", backgroundcolor=INK)
    left.set_axis_off()
    right.set_axis_off()
    for n, text in enumerate(captions(scene)):
        right.text(0, 0.9 - 0.2 * n, text, wrap=True, fontsize=9)
    return figure

"""What a figure looks like once it is drawn: texts that leave it, texts that cover each other."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg


def _boxes(figure):
    """(text, its box in pixels) of every text that is drawn, but not of ticks outside their axis."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    labels = [x for axis in figure.axes for x in (axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label)]
    for axis in figure.axes:
        labels += axis.texts
        labels += [cell.get_text() for table in axis.tables for cell in table.get_celld().values()]
        for side in (axis.xaxis, axis.yaxis) if axis.axison else ():
            low, high = sorted(side.get_view_interval())
            labels += [tick.label1 for tick in side.get_major_ticks() if low <= tick.get_loc() <= high]
    labels += [text for legend in figure.legends for text in legend.get_texts()]
    labels += [figure._suptitle] if figure._suptitle else []
    return [(text, text.get_window_extent(renderer)) for text in labels if text.get_text().strip()]


def outside(figure, by=1.5):
    """The texts of a figure that reach over its edge by more than so many pixels."""
    edge = figure.bbox
    return [
        text.get_text()
        for text, box in _boxes(figure)
        if box.x0 < edge.x0 - by or box.y0 < edge.y0 - by or box.x1 > edge.x1 + by or box.y1 > edge.y1 + by
    ]


def over_one_another(figure, by=2.0):
    """The pairs of texts of a figure that cover each other by more than so many pixels in both directions. Slanted ones
    are left out: the boxes around them do."""
    pairs = combinations([(text, box) for text, box in _boxes(figure) if text.get_rotation() in (0, 90)], 2)
    return [
        (one.get_text(), two.get_text())
        for (one, a), (two, b) in pairs
        if min(a.x1, b.x1) - max(a.x0, b.x0) > by and min(a.y1, b.y1) - max(a.y0, b.y0) > by
    ]

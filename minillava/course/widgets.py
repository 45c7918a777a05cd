"""Widgets of the notebooks: a few controls, and a figure, picture or text that changes with them.

They use built-in controls only, no `Output` and no display updates. So a cell with a widget also runs without a browser
(nbval), and a test can set `.value`. A pure function makes what they display, and a static figure of the same function
stands before every widget. When the function is a generator, each value replaces the one before, so one can watch an
answer being written.

    explore(lambda n: gallery(n), n=Slider(min=2, max=8, value=4))
"""

import html
import io
from collections.abc import Callable, Iterator

import ipywidgets
from ipywidgets import Dropdown, Layout, ToggleButtons
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["Dropdown", "Slider", "Text", "ToggleButtons", "explore"]

NAME_WIDTH = {"description_width": "80px"}


def Slider(**options) -> ipywidgets.IntSlider:
    """A slider 400 pixels wide that takes effect when it is released. options: those of `ipywidgets.IntSlider`."""
    return ipywidgets.IntSlider(continuous_update=False, layout=Layout(width="400px"), style=NAME_WIDTH, **options)


def Text(**options) -> ipywidgets.Text:
    """A line of text as wide as the cell that takes effect on Enter. options: those of `ipywidgets.Text`."""
    return ipywidgets.Text(continuous_update=False, layout=Layout(width="100%"), style=NAME_WIDTH, **options)


class Explorer(ipywidgets.VBox):
    """Controls of a pure function: `show(**values)` returns a figure, a picture or text, or yields several in turn.

    It is called again at each change.
    """

    buttons: tuple[ipywidgets.Widget, ...] = ()  # between the controls and what is displayed

    def __init__(self, show: Callable[..., object], **controls: ipywidgets.Widget):
        self.show, self.controls = show, controls
        for name, control in controls.items():
            control.description = control.description or name
            control.observe(self.update, "value")
        self.view: ipywidgets.Widget | None = None
        super().__init__([], layout=Layout(padding="0 8px 0 0"))  # room for the margins of a wide child
        self.update()

    def update(self, change=None) -> None:
        """Display what `show` returns for the present values."""
        made = self.show(**{name: control.value for name, control in self.controls.items()})
        for n, stage in enumerate(made if isinstance(made, Iterator) else (made,)):
            view = _view(stage)
            if n and type(view) is type(self.view):
                self.view.value = view.value  # the same widget, so that nothing flickers
                continue
            self.view = view
            self.children = (*self.controls.values(), *self.buttons, self.view)

    def __repr__(self) -> str:
        return f"(run this cell in Jupyter to move: {', '.join(self.controls)})"


def _view(made: object) -> ipywidgets.Widget:
    if isinstance(made, str):
        text = f"<pre style='line-height:1.35; white-space:pre-wrap'>{html.escape(made, quote=False)}</pre>"
        return ipywidgets.HTML(text, layout=Layout(width="100%"))
    data = io.BytesIO()
    if isinstance(made, Figure):
        made.savefig(data, format="png", dpi=90, bbox_inches="tight")
    elif isinstance(made, Image.Image):
        made.save(data, "png")
    else:
        raise TypeError(f"show() returned {type(made).__name__}; a figure, a picture or text is expected")
    return ipywidgets.Image(value=data.getvalue(), format="png", layout=Layout(max_width="100%", width="fit-content"))


explore = Explorer

"""What training changes and what it takes: answers before and after beside their picture, one loss computed in two ways,
and memory by what needs it.

Notable: the figures draw what they are given; whoever calls says what is right, and how many bytes.

    from minillava.costs.preflight import device_bytes
    memory_bars({"one card": device_bytes(config, stage)}, room=80e9)
"""

import textwrap

from matplotlib.figure import Figure
from PIL import Image

from minillava.figures.style import BLUE, GREEN, GREY, INK, ORANGE, PINK, canvas, headline

WRONG = "#D55E00"  # Okabe and Ito's vermilion: against green also by its lightness
PARTS = {"weights": BLUE, "gradients": PINK, "optimizer": ORANGE, "activations": GREEN, "logits": GREY}
LETTERS = 36  # of a line of an answer


def before_after(
    picture: Image.Image,
    questions: list[str],
    said: dict[str, list[str]],
    right: dict[str, list[bool | None]],
    title: str = "",
) -> Figure:
    """A picture, and beside it a column of answers for each model. said: model -> an answer a question.

    right: model -> whether each answer is; None where nobody says so. Raises ValueError where the lengths differ.
    """
    figure, axes = canvas(3.2 * (1 + len(said)), 3.6, 1 + len(said))
    axes[0].imshow(picture)
    axes[0].set_axis_off()
    lines = [max(len(textwrap.wrap(texts[n], LETTERS)) or 1 for texts in said.values()) for n in range(len(questions))]
    step = min(0.075, 0.94 / (sum(lines) + 1.6 * len(questions)))
    for axis, (model, texts) in zip(axes[1:], said.items()):
        axis.set_axis_off()
        axis.set_title(model, loc="left", fontweight="bold", fontsize=10)
        y = 0.98
        for question, text, good, high in zip(questions, texts, right[model], lines, strict=True):
            mark, colour = {True: ("✓ ", GREEN), False: ("✗ ", WRONG), None: ("", INK)}[good]
            axis.text(0, y, question, fontsize=9, color=GREY, va="top")
            wrapped = "\n".join(textwrap.wrap(mark + (text or "(nothing)"), LETTERS))
            axis.text(0, y - step, wrapped, fontsize=9, color=colour, va="top")
            y -= step * (high + 1.6)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def both_ways(losses: dict[str, tuple[list[float], list[float]]], title: str) -> Figure:
    """The loss of every step computed twice, a panel a training: yours as dots on the package's line. losses: name ->
    (yours, the package's)."""
    figure, axes = canvas(8.5, 3.1, len(losses))
    for axis, (name, (mine, theirs)) in zip(axes, losses.items(), strict=True):
        axis.plot(theirs, color=GREY, lw=4, label="the package")
        axis.plot(mine, "o", color=BLUE, ms=5, label="yours")
        axis.set_ylim(0)
        axis.set_xlabel("step")
        axis.set_title(name, loc="left", fontsize=10)
    axes[0].set_ylabel("loss, nats a token")
    axes[-1].legend(frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def memory_bars(needs: dict[str, dict[str, float]], room: float, title: str = "") -> Figure:
    """Bytes a device by what needs them, a bar a way of training. needs: name -> parts and their "total". room: of a device."""
    figure, axis = canvas(9, 0.5 * len(needs) + 1.4)
    for y, parts in enumerate(reversed(needs.values())):
        left = 0.0
        for part, colour in PARTS.items():
            axis.barh(y, parts[part] / 1e9, left=left, color=colour, height=0.62, label="" if y else part)
            left += parts[part] / 1e9
        axis.text(left, y, f" {left:.0f}" if left >= 10 else f" {left:.1f}", va="center", fontsize=9)
    axis.axvline(room / 1e9, color=INK, ls="--", lw=1)
    axis.set_yticks(range(len(needs)), list(needs)[::-1])
    axis.set_xlim(0, 1.08 * max(room, *(parts["total"] for parts in needs.values())) / 1e9)
    axis.set_xlabel(f"GB a device; dashed: {room / 1e9:.0f} GB, what a device has")
    figure.legend(frameon=False, fontsize=8, ncols=len(PARTS), loc="outside lower center")
    headline(axis, title or f"{sum(parts['total'] <= room for parts in needs.values())} of {len(needs)} fit")
    return figure

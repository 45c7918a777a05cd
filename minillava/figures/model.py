"""What happens inside LLaVA, as pictures: Fig. 1 with live shapes, Table 2's sequence, patches, their words, attention.

Notable: every figure is drawn from the model, the picture and the question that it is given; nothing is drawn by hand. Colour
never stands alone: what carries loss is also underlined, and every box says its shape.

    python -c "from minillava.figures.model import *; from minillava.chat import Chat; c = Chat('data_samples/weights/llava'); \
               architecture(c, c.look('data_samples/pictures/train-000000.png'), 'Where is this?').savefig('fig1.png')"
"""

import textwrap
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from minillava.chat import Chat
from minillava.costs.model import count_parameters
from minillava.data import IGNORE, IMAGE
from minillava.data.images import crop
from minillava.data.samples import Sample, prompt_ids
from minillava.figures.style import BLUE, GREEN, GREY, INK, ORANGE, canvas, headline
from minillava.model import Llava
from minillava.model.rope import rotate

PALE = "#EDEDED"


def _box(axis, x, y, w, h, text, colour, size=9.0) -> None:
    axis.add_patch(FancyBboxPatch((x, y), w, h, boxstyle="round,pad=0,rounding_size=0.12", fc=colour, ec=INK, lw=1))
    ink = INK if colour in (PALE, ORANGE) else "white"
    axis.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=size, color=ink, linespacing=1.4)


def _arrow(axis, start, end) -> None:
    axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=INK, lw=1.2))


@torch.no_grad()
def architecture(chat: Chat, picture: Image.Image, question: str, answer: str = "") -> Figure:
    """Fig. 1 of this very model, picture and question: every tensor with its shape, every part with its size and stage.

    The striped panels are the tensors' own values, a row a patch or a word. Leaves the chat's conversation as it was.
    """
    model, count = chat.model, count_parameters(chat.model)
    ids = prompt_ids(f"<image>\n{question}", chat.template, chat.tokenizer)
    Zv = chat.features
    Hv, Hq = model.projector(Zv), model.language_model.embed(ids[ids != IMAGE])
    rows = len(ids) - 1 + len(Zv)
    figure, axis = canvas(11.5, 5.4)
    axis.set_xlim(0, 23)
    axis.set_ylim(0, 10.6)
    axis.set_axis_off()
    axis.imshow(crop(picture, 192), extent=(0.2, 3.2, 0.7, 3.7), aspect="auto", zorder=2)
    side = model.config.vision.image_size
    axis.text(1.7, 0.5, f"$X_v$ picture\n(3, {side}, {side})", ha="center", va="top", fontsize=9)
    _box(axis, 4.2, 1.2, 3, 2, f"vision tower $g$\n{count['vision_tower']:,}\nfrozen always", BLUE)
    _box(axis, 10.2, 1.2, 3, 2, f"projector $W$\n{count['projector']:,}\nstages 1 and 2", ORANGE)
    words = "\n".join(textwrap.wrap(question, 24))
    _box(axis, 14.6, 1.2, 3.6, 2, f"$X_q$ question\n{words}", PALE, 8.5)
    language = count["total"] - count["vision_tower"] - count["projector"]
    label = f"language model $f_\\phi$   {language:,}   trained in stage 2\nreads ({rows}, {Hv.shape[1]}): {len(Zv)} patches among {len(ids) - 1} tokens of text"
    _box(axis, 10.2, 6.6, 12.5, 1.6, label, GREEN)
    for x, value, name in ((8, Zv, "$Z_v$"), (10.95, Hv, "$H_v$"), (19.6, Hq, "$H_q$")):
        y = 1.2 if name == "$Z_v$" else 4.1
        shown = value.float()
        spread = float(shown.std()) * 2
        axis.imshow(shown, extent=(x, x + 1.5, y, y + 1.9), cmap="cividis", vmin=-spread, vmax=spread, aspect="auto")
        below = name == "$Z_v$"
        axis.text(
            x + (0.75 if below else 1.7), y - 0.15 if below else y + 0.95, f"{name}\n({value.shape[0]}, {value.shape[1]})",
            ha="center" if below else "left", va="top" if below else "center", fontsize=9,
        )  # fmt: skip
    _arrow(axis, (3.25, 2.2), (4.15, 2.2))
    _arrow(axis, (7.25, 2.2), (7.95, 2.2))
    _arrow(axis, (9.55, 2.2), (10.15, 2.2))
    _arrow(axis, (11.7, 3.25), (11.7, 4.05))
    _arrow(axis, (11.7, 6.05), (11.7, 6.55))
    _arrow(axis, (18.25, 2.6), (20.3, 4.05))
    _arrow(axis, (20.35, 6.05), (20.35, 6.55))
    axis.text(18.4, 1.9, "embedding\nlook-up", fontsize=8, color=INK)
    _arrow(axis, (16.4, 8.25), (16.4, 8.85))
    said = textwrap.shorten(answer, 70) if answer else "one token after the other"
    axis.text(16.4, 8.95, f"$X_a$ answer: {said}", ha="center", va="bottom", fontsize=9.5)
    axis.text(0.2, 8.6, "$H_v = W\\,Z_v,\\quad Z_v = g(X_v)$   (Eq. 1)", fontsize=12)
    axis.text(0.2, 7.9, "striped: the tensors' own values,\na row a patch or a token", fontsize=8, va="top", color=INK)
    axis.set_aspect("auto")
    share = 100 * count["projector"] / count["total"]
    headline(
        axis, f"Fig. 1, live: between vision tower and language stands one matrix, {share:.1f} % of the parameters"
    )
    return figure


def shown(tokenizer, token: int) -> str:
    """A token as people read it: line ends and spaces visible."""
    return tokenizer.decode([token]).replace("\n", "↵").replace(" ", "·")


def token_kinds(sample: Sample, stop: list[int]) -> list[str]:
    """What each id of a sample is: "image", "read" (no loss), "answer" or "stop" (loss on both, Eq. 3). stop: its ids."""
    supervised, kinds = (sample.labels != IGNORE).tolist(), []
    for n, token in enumerate(sample.ids.tolist()):
        kinds.append("image" if token == IMAGE else "answer" if supervised[n] else "read")
    for n in range(len(kinds)):
        if n + 1 == len(kinds) or kinds[n + 1] not in ("answer", "stop"):
            if kinds[n] == "answer" and sample.ids[max(0, n + 1 - len(stop)) : n + 1].tolist() == stop:
                kinds[n + 1 - len(stop) : n + 1] = ["stop"] * len(stop)
    return kinds


def sequence(sample: Sample, tokenizer, stop: str, patches: int, width: int = 108, rows: int = 40) -> Figure:
    """Table 2 as this model reads it: each token a box; what carries loss is coloured and underlined.

    patches: how many rows the image token becomes. width: characters a line. rows: lines at most, the rest is not drawn.
    """
    kinds = token_kinds(sample, tokenizer.encode(stop, add_special_tokens=False))
    look = {"image": (ORANGE, INK), "read": (PALE, INK), "answer": (GREEN, "white"), "stop": (BLUE, "white")}
    x, y, boxes = 0.0, 0, []
    for token, kind in zip(sample.ids.tolist(), kinds):
        text = f"picture: {patches} patches" if kind == "image" else shown(tokenizer, token)
        if x and x + len(text) + 1 > width and text != "↵":
            x, y = 0.0, y + 1
        boxes.append((x, y, len(text) + 0.7, text, kind))
        x += len(text) + 1.1
        if "↵" in text:
            x, y = 0.0, y + 1
    lines = min(rows, int(max(b[1] for b in boxes)) + 1)
    figure, axis = canvas(11.5, 0.25 * lines + 0.9)
    for x, y, w, text, kind in boxes:
        if y >= lines:
            continue
        fill, ink = look[kind]
        axis.add_patch(Rectangle((x, -y - 0.4), w, 0.8, fc=fill, ec="white", lw=0.6))
        axis.text(x + w / 2, -y, text, ha="center", va="center", fontsize=7.5, family="monospace", color=ink)
        if kind in ("answer", "stop"):
            axis.plot([x, x + w], [-y - 0.44] * 2, color=INK, lw=1.4)
    for n, (kind, name) in enumerate(
        (("read", "read, no loss"), ("image", "picture, no loss"), ("answer", "answer: loss"), ("stop", "stop: loss"))
    ):
        axis.add_patch(Rectangle((n * 24, -lines - 0.9), 2, 0.8, fc=look[kind][0], ec="none"))
        axis.text(n * 24 + 2.6, -lines - 0.5, name, va="center", fontsize=8.5)
    axis.set_xlim(0, width + 2)
    axis.set_ylim(-lines - 1, 0.6)
    axis.set_axis_off()
    loss, whole = sum(k in ("answer", "stop") for k in kinds), len(kinds) - kinds.count("image") * (1 - patches)
    headline(axis, f"{loss} of {whole} positions carry loss")
    return figure


def _grid(axis, side: int) -> None:
    for n in range(side + 1):
        axis.plot([n, n], [0, side], color="white", lw=0.7)
        axis.plot([0, side], [n, n], color="white", lw=0.7)
    axis.set_axis_off()
    axis.set_xlim(0, side)
    axis.set_ylim(side, 0)


def patch_grid(picture: Image.Image, side: int, words: list[str] | None = None, title: str = "") -> Figure:
    """The picture with its grid of side x side patches: their numbers in reading order, or a word for each."""
    size = 4.6 if words is None else 7.6
    figure, axis = canvas(size, size + 0.3)
    axis.imshow(crop(picture, 384), extent=(0, side, side, 0), alpha=0.55)
    _grid(axis, side)
    for n in range(side * side):
        text = str(n) if words is None else words[n]
        axis.text(n % side + 0.5, n // side + 0.5, text, ha="center", va="center", fontsize=8 if len(text) < 9 else 7)
    headline(axis, title or f"{side} x {side} = {side * side} patches, numbered as they are read")
    return figure


def scene_patches(boxes: list[tuple], side: int) -> list[str]:
    """What most covers each patch: the name of the last box over its middle, "" where there is none. boxes: in [0, 1]."""
    out = [""] * (side * side)
    for kind, (x1, y1, x2, y2) in boxes:
        for n in range(side * side):
            x, y = (n % side + 0.5) / side, (n // side + 0.5) / side
            if x1 <= x <= x2 and y1 <= y <= y2:
                out[n] = kind
    return out


@torch.no_grad()
def nearest_words(model: Llava, tokenizer, projected: torch.Tensor) -> list[str]:
    """The whole word whose embedding points most like each projected patch. projected: Hv (P, D). By cosine.

    Means are taken off both first: patches and words lie in two clouds, and the distance of the clouds says nothing.
    """
    words = {t: tokenizer.decode([t]) for t in range(model.config.language.vocab_size)}
    whole = [t for t, w in words.items() if w.startswith(" ") and w[1:].isalpha() and len(w) > 3]
    table = model.language_model.embed_tokens.weight[whole].float()  # (N, D)
    one = torch.nn.functional.normalize(projected.float() - projected.float().mean(0), dim=-1)
    two = torch.nn.functional.normalize(table - table.mean(0), dim=-1)
    return [words[whole[i]].strip() for i in (one @ two.T).argmax(-1).tolist()]


@torch.no_grad()
def attention_of(model: Llava, embeds: torch.Tensor) -> torch.Tensor:
    """Who looks at whom in the language model: (L, H, T, T), each row sums to 1. embeds: (T, D), one spliced sequence.

    The model's own attention is one fused kernel, which keeps no weights: they are computed again from what goes into it.
    """
    seen = []

    def keep(module, given):
        x, cos, sin = given[:3]
        q, k = (p(x).unflatten(-1, (-1, module.head_dim)).transpose(1, 2) for p in (module.q_proj, module.k_proj))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scores = q @ k.transpose(-2, -1) * module.head_dim**-0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        seen.append(scores.masked_fill(later, float("-inf")).softmax(-1)[0])

    hooks = [block.self_attn.register_forward_pre_hook(keep) for block in model.language_model.layers]
    try:
        model.language_model(embeds[None])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(seen)


@dataclass(frozen=True)
class Look:
    """Where the model looked for one token of its answer. map: (side, side), its share on the picture; sums to `share`."""

    token: str
    map: torch.Tensor
    share: float


@torch.no_grad()
def looks(chat: Chat, question: str, answer: str) -> list[Look]:
    """Attention over the picture at the position that *predicts* each token of an answer; mean of heads and layers."""
    asked = prompt_ids(f"<image>\n{question}", chat.template, chat.tokenizer)
    said = answer or chat.template.stop  # an empty answer is the stop alone
    told = torch.tensor(chat.tokenizer.encode(said, add_special_tokens=False))
    embeds, source = chat.model.splice(torch.cat([asked, told]), [chat.features])
    weights = attention_of(chat.model, embeds).mean((0, 1))  # (T', T')
    patches, side = source == -1, round(len(chat.features) ** 0.5)
    out = []
    for n, token in enumerate(told.tolist()):
        row = int((source == len(asked) + n).nonzero()) - 1  # the row before it
        on = weights[row][patches]
        out.append(Look(chat.tokenizer.decode([token]).strip(), on.view(side, side), float(on.sum())))
    return out


def attention_figure(picture: Image.Image, found: list[Look], columns: int = 8) -> Figure:
    """The picture once for each token of the answer, bright where the model looked when it chose that token."""
    rows = -(-len(found) // columns)
    figure, axes = canvas(1.4 * columns, 1.65 * rows + 0.5, columns, rows)
    flat = list(axes.flat) if hasattr(axes, "flat") else [axes]
    side = found[0].map.shape[0]
    for axis in flat:
        axis.set_axis_off()
    for axis, look in zip(flat, found):
        axis.imshow(crop(picture, 192), extent=(0, side, side, 0))
        bright = look.map / look.map.max()
        veil = torch.zeros(side, side, 4)
        veil[..., 3] = 0.85 * (1 - bright)
        axis.imshow(veil.numpy(), extent=(0, side, side, 0), interpolation="nearest")
        axis.set_title(f"{look.token}  {100 * look.share:.0f} %", fontsize=9)
    figure.suptitle(
        "Where it looked for each token; in %: how much of the attention was on the picture at all", fontsize=10
    )
    return figure


def loss_bars(tokens: list[str], losses: list[float], title: str) -> Figure:
    """-log p of each supervised token, in order (Eq. 3). Grey line: their mean, the loss."""
    figure, axis = canvas(min(11.5, max(5.0, 0.34 * len(tokens) + 1.5)), 3.1)
    axis.bar(range(len(tokens)), losses, color=[BLUE if t == "###" else GREEN for t in tokens], width=0.75)
    mean = sum(losses) / len(losses)
    axis.axhline(mean, color=GREY, lw=1.5)
    axis.text(len(tokens) - 0.4, mean, f" mean {mean:.2f}", va="bottom", ha="right", fontsize=9, color=INK)
    axis.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right", fontsize=8)
    axis.set_ylabel("-log p, nats")
    headline(axis, title)
    return figure

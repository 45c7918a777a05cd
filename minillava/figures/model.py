"""What happens inside LLaVA, as pictures: Fig. 1 with live shapes, Table 2, the splice, patches, RoPE, attention.

Notable: every figure is drawn from the model, the picture and the question that it is given. Colour never stands alone:
what carries loss is also underlined, and every box says its shape.

    chat = Chat("data_samples/weights/llava")
    picture = chat.look("data_samples/pictures/train-000000.png")
    architecture(chat, picture, "Where is this?", chat.ask("Where is this?")).savefig("fig1.png")
"""

import math
import textwrap
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from minillava.chat import Chat
from minillava.costs.model import count_parameters
from minillava.data import IGNORE, IMAGE
from minillava.data.images import crop
from minillava.data.samples import Sample, encode_segments, prompt_ids
from minillava.figures import style
from minillava.figures.panels import Piece, outlined, pieces, tiles
from minillava.figures.style import BLUE, GREEN, ORANGE, PALE, VERMILION, canvas, headline, ink_on, short
from minillava.model import Llava
from minillava.model.cache import Cache

TOKENS = {"read": PALE, "image": ORANGE, "answer": GREEN, "stop": BLUE}  # the last two carry loss


@torch.no_grad()
def architecture(chat: Chat, picture: Image.Image, question: str, answer: str) -> Figure:
    """Fig. 1 of this very model, picture and question: every tensor with its shape, every part with its size and stage.

    The striped panels are the tensors' own values, one row per patch or token. The chat's conversation does not change.
    """
    model, count = chat.model, count_parameters(chat.model)
    ids = prompt_ids(f"<image>\n{question}", chat.template, chat.tokenizer)
    Zv = chat.features
    Hv, Hq = model.projector(Zv), model.language_model.embed(ids[ids != IMAGE])
    side, text, rows = model.config.vision.image_size, len(ids) - 1, len(ids) - 1 + len(Zv)
    language = count["total"] - count["vision_tower"] - count["projector"]
    figure, axis = canvas(11.5, 5.4)
    axis.imshow(crop(picture, 192), extent=(0.2, 3.2, 0.7, 3.7))
    for x, y, wide, colour, words in (
        (4.2, 1.2, 3, BLUE, f"vision tower $g$\n{count['vision_tower']:,}\nfrozen always"),
        (10.2, 1.2, 3, ORANGE, f"projector $W$\n{count['projector']:,}\nstages 1 and 2"),
        (14.6, 1.2, 3.6, PALE, "$X_q$ question\n" + textwrap.fill(question, 24)),
        (10.2, 6.4, 12.5, GREEN, f"language model $f_\\phi$   {language:,}   trained in stage 2\n"
                                 f"reads ({rows}, {Hv.shape[1]}): {len(Zv)} patches among {text} tokens of text"),
    ):  # fmt: skip
        box = {"boxstyle": "round,pad=0,rounding_size=0.12", "fc": colour, "ec": style.INK}
        axis.add_patch(FancyBboxPatch((x, y), wide, 2, **box))
        middle = {"ha": "center", "va": "center", "fontsize": 9, "linespacing": 1.4}
        axis.text(x + wide / 2, y + 1, words, color=ink_on(colour), **middle)
    for x, y, value, name, at, ha, va in (
        (8, 1.2, Zv, "$Z_v$", (8.75, 1.05), "center", "top"),
        (10.95, 4.1, Hv, "$H_v$", (12.65, 5.05), "left", "center"),
        (19.6, 4.1, Hq, "$H_q$", (21.3, 5.05), "left", "center"),
    ):
        numbers = value.float().cpu().numpy()
        most = 2 * numbers.std()
        axis.imshow(numbers, extent=(x, x + 1.5, y, y + 1.9), cmap=style.HEAT, vmin=-most, vmax=most)
        axis.text(*at, f"{name}\n({value.shape[0]}, {value.shape[1]})", ha=ha, va=va, fontsize=9)
    for start, end in (((3.25, 2.2), (4.15, 2.2)), ((7.25, 2.2), (7.95, 2.2)), ((9.55, 2.2), (10.15, 2.2)),
                       ((11.7, 3.25), (11.7, 4.05)), ((11.7, 6.05), (11.7, 6.35)), ((18.25, 2.6), (20.3, 4.05)),
                       ((20.35, 6.05), (20.35, 6.35)), ((16.4, 8.45), (16.4, 8.95))):  # fmt: skip
        axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": style.INK, "shrinkA": 0, "shrinkB": 0})
    for x, y, words, size, ha in (
        (1.7, 0.5, f"$X_v$ picture\n(3, {side}, {side})", 9, "center"), (18.4, 2.0, "embedding\nlook-up", 8, "left"),
        (16.4, 9.6, f"$X_a$ answer: {textwrap.shorten(answer, 70)}", 9.5, "center"),
        (0.2, 9.2, "$H_v = W\\,Z_v,\\quad Z_v = g(X_v)$   (Eq. 1)", 12, "left"),
        (0.2, 7.9, "striped: the tensors' own values,\none row per patch or token", 8, "left"),
    ):  # fmt: skip
        axis.text(x, y, words, ha=ha, va="top", fontsize=size)
    axis.set(xlim=(0, 23), ylim=(-0.6, 9.8), aspect="auto")
    axis.set_axis_off()
    share = 100 * count["projector"] / count["total"]
    headline(axis, f"Fig. 1, live: one matrix joins vision tower and language model, {share:.1f} % of the parameters")
    return figure


def shown(tokenizer, token: int) -> str:
    """A token as people read it: line ends and spaces visible."""
    return tokenizer.decode([token]).replace("\n", "↵").replace(" ", "·")


def token_kinds(sample: Sample, stop: list[int]) -> list[str]:
    """What each id of a sample is: "image", "read", or with loss (Eq. 3) "answer" or "stop". stop: ids of the stop."""
    loss, ids = (sample.labels != IGNORE).tolist(), sample.ids.tolist()
    kinds = ["image" if token == IMAGE else "answer" if loss[n] else "read" for n, token in enumerate(ids)]
    for end in range(len(stop), len(ids) + 1):
        if loss[end - 1] and not any(loss[end : end + 1]) and ids[end - len(stop) : end] == stop:
            kinds[end - len(stop) : end] = ["stop"] * len(stop)
    return kinds


def sequence(sample: Sample, tokenizer, stop: str, patches: int, labels: torch.Tensor | None = None) -> Figure:
    """Table 2 as this model reads it: each token a box; what carries loss is coloured and underlined.

    patches: how many rows the image token becomes. labels: (T,) others than the sample's, which say what carries loss;
    where that is no answer and no stop, it has a colour of its own.
    """
    kinds = token_kinds(sample, tokenizer.encode(stop, add_special_tokens=False))
    loss = ((sample.labels if labels is None else labels) != IGNORE).tolist()
    colours, boxes = TOKENS | {"neither": VERMILION}, []
    for token, kind, scored in zip(sample.ids.tolist(), kinds, loss):
        text = f"picture: {patches} patches" if kind == "image" else shown(tokenizer, token)
        kind = kind if scored == (kind in ("answer", "stop")) else "neither" if scored else "read"
        boxes.append(Piece(text, colours[kind], loss=scored))
    whole = len(kinds) + kinds.count("image") * (patches - 1)
    legend = {f"{kind}{': loss' * (kind in ('answer', 'stop'))}": colour for kind, colour in TOKENS.items()}
    if any(box.colour == VERMILION for box in boxes):
        legend["no answer and no stop: loss all the same"] = VERMILION
    return pieces({"": boxes}, legend, f"{sum(loss)} of {whole} positions carry loss")


def splice_step(spelt: list[str], patches: int, step: int) -> Figure:
    """The splice after `step` ids (Fig. 1): the ids, and below them their rows, coloured once they are there.

    spelt: each id as text, "<image>" where a picture is; it brings `patches` rows, every other id one. The last id and
    its rows have a rim.
    """
    ids, rows = [], []
    for n, text in enumerate(spelt):
        colour, count = (ORANGE, patches) if text == "<image>" else (BLUE, 1)
        look = {"colour": colour if n < step else PALE, "rim": n == step - 1}
        ids.append(Piece(text, **look))
        rows += [Piece(" ", **look)] * count
    brought = sum(row.colour != PALE for row in rows)
    title = f"{len(spelt)} ids, no row yet"
    if step:
        what = f"{patches} rows of W Zv" if spelt[step - 1] == "<image>" else "one row of the embedding"
        title = f"Id {step} of {len(spelt)}, {short(spelt[step - 1], 12)}: {what}, {brought} so far"
    sections = {f"T = {len(spelt)} ids": ids, f"T' = {len(rows)} rows of width D": rows}
    return pieces(sections, {"text": BLUE, "picture": ORANGE, "to come": PALE}, title)


def clocks(rates, positions: list[int], title: str) -> Figure:
    """RoPE: how far each pair is turned at each position, a dial for each. rates: (pairs,), radians per token."""
    angles = np.outer(positions, rates.cpu().numpy())
    y, x = np.indices(angles.shape)
    figure, axis = canvas(0.62 * angles.shape[1] + 2.2, 0.62 * angles.shape[0] + 1.4)
    axis.scatter(x, y, s=1000, facecolors="none", edgecolors=style.GREY, linewidths=0.6)
    hands = (x + 0.4 * np.cos(angles)).ravel(), (y - 0.4 * np.sin(angles)).ravel()  # positions grow downwards
    axis.plot([x.ravel(), hands[0]], [y.ravel(), hands[1]], color=BLUE, lw=1.8)
    axis.set_xticks(x[0], [f"{2 * math.pi / rate:,.0f}" for rate in rates.tolist()])
    axis.set_yticks(y[:, 0], [f"{position:,}" for position in positions])
    axis.set(xlabel="each column is one pair of numbers: tokens per turn", ylabel="position")
    axis.set(xlim=(-0.6, x.max() + 0.6), ylim=(y.max() + 0.6, -0.6))
    headline(axis, title)
    return figure


def patch_grid(picture: Image.Image, side: int, words: list[str] | None = None, title: str = "") -> Figure:
    """The picture with its grid of side x side patches: their numbers in reading order, or a word for each."""
    size = 4.6 if words is None else 7.6
    figure, axis = canvas(size, size + 0.3)
    axis.imshow(crop(picture, 384), extent=(0, side, side, 0), alpha=0.55)
    axis.hlines(range(side + 1), 0, side, color=style.WHITE, lw=0.7)
    axis.vlines(range(side + 1), 0, side, color=style.WHITE, lw=0.7)
    axis.set(xlim=(0, side), ylim=(side, 0))
    axis.set_axis_off()
    for n, word in enumerate(words or map(str, range(side * side))):
        axis.text(n % side + 0.5, n // side + 0.5, word, ha="center", va="center", fontsize=8 if len(word) < 9 else 7)
    headline(axis, title or f"{side} x {side} = {side * side} patches, numbered as they are read")
    return figure


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


class WatchedCache(Cache):
    """A cache that also notes who looks at whom in each layer, (H, T, T); the fused kernels keep no weights."""

    weights = ()

    def attend(self, layer, q, k, v, allowed):
        shared = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scores = (q @ shared.transpose(-2, -1)) * q.shape[-1] ** -0.5
        self.weights += (scores.masked_fill(~allowed, float("-inf")).softmax(-1)[0],)
        return super().attend(layer, q, k, v, allowed)


@torch.no_grad()
def attention_of(model: Llava, embeds: torch.Tensor) -> torch.Tensor:
    """Who looks at whom in the language model: (L, H, T, T), each row sums to 1. embeds: (T, D), one spliced sequence."""
    cache = WatchedCache(model.config.language, 1, len(embeds), embeds.device, embeds.dtype)
    model.language_model(embeds[None], cache=cache)
    return torch.stack(cache.weights)


class Look(NamedTuple):
    """Where the model looked for one token of its answer. map: (side, side), of the picture; it sums to `share`."""

    token: str
    map: torch.Tensor
    share: float


@torch.no_grad()
def looks(chat: Chat, question: str, answer: str, before: list[tuple[str, str]] = ()) -> list[Look]:
    """Attention over the picture at the position that *predicts* each token of an answer; mean of heads and layers.

    before: the turns before this one, as in `Chat.turns`; the first question of all holds `<image>`.
    """
    question = question if before else f"<image>\n{question}"
    asked = prompt_ids(question, chat.template, chat.tokenizer, before)
    pieces = chat.template.segments([*before, (question, None)])
    pieces.append((chat.template.lead + answer if answer else chat.template.stop, True))  # the stop alone is an answer
    whole = torch.tensor(encode_segments(pieces, chat.tokenizer)[0])
    told = whole[len(asked) :]
    embeds, source = chat.model.splice(whole, [chat.features])
    weights = attention_of(chat.model, embeds).mean((0, 1))  # (T', T')
    patches, side = source == -1, round(len(chat.features) ** 0.5)
    out = []
    for n, token in enumerate(told.tolist()):
        row = int((source == len(asked) + n).nonzero()) - 1  # the row before it
        on = weights[row][patches]
        out.append(Look(chat.tokenizer.decode([token]).strip(), on.view(side, side), float(on.sum())))
    return out


def attention_figure(picture: Image.Image, found: list[Look]) -> Figure:
    """The picture once for each token of the answer, with a rim where the model looked when it chose that token."""
    names = [f"{look.token}  {100 * look.share:.0f} %" for look in found]
    title = "Where it looked for each token: rims hold half of what the picture got; in %: how much the picture got"
    return tiles([outlined(picture, look.map) for look in found], names, title, min(8, len(found)), 1.6)


def loss_bars(tokens: list[str], losses: list[float], title: str) -> Figure:
    """-log p of each supervised token, in order (Eq. 3). Dotted line: their mean, the loss."""
    figure, axis = canvas(min(11.5, max(5.0, 0.34 * len(tokens) + 1.5)), 3.1)
    axis.bar(range(len(tokens)), losses, color=[BLUE if t == "###" else GREEN for t in tokens], width=0.75)
    mean = sum(losses) / len(losses)
    axis.axhline(mean, **style.DOTTED)
    said = f"{mean:.2f}" if mean >= 0.01 else f"{mean:.1g}"
    axis.text(len(tokens) - 0.4, mean, f" mean {said}", va="bottom", ha="right", fontsize=9, color=style.INK)
    axis.set_xticks(range(len(tokens)), tokens, rotation=60, ha="right", fontsize=8)
    axis.set_ylabel("-log p, nats")
    headline(axis, title)
    return figure

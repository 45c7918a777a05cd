"""Exercise 11, stage 1: the schedule, one step that trains only W, and the question that the plain form drops."""

import math

import torch

from minillava.data import IGNORE, IMAGE
from minillava.data.template import TEMPLATES
from minillava.exercises.cases import digits
from minillava.exercises.engine import Task
from minillava.exercises.pictures import both_curves
from minillava.model import Batch, Llava, LlavaConfig, set_trainable
from minillava.model.language import LanguageConfig
from minillava.model.vision import VisionConfig
from minillava.training.optim import cosine

CHOICES = ((100,), (40,), (1000,), (10,))


def _schedule(steps):
    return [cosine(step, steps) for step in range(steps)]


def _up(steps):
    return max(1, round(0.03 * steps))


def _from_zero(steps):
    return [t / _up(steps) if t < _up(steps) else cosine(t, steps) for t in range(steps)]


def _over_all(steps):
    return [(t + 1) / _up(steps) if t < _up(steps) else 0.5 * (1 + math.cos(math.pi * t / steps)) for t in range(steps)]


def _line(steps):
    up = _up(steps)
    return [(t + 1) / up if t < up else 1 - (t - up) / (steps - up) for t in range(steps)]


def _cold(steps):
    return [0.5 * (1 + math.cos(math.pi * t / steps)) for t in range(steps)]


def _steps(seed):
    """(model, batch, rate): a very small LLaVA, and two samples."""
    cases = []
    for n, rate in enumerate((0.1, 1.0, 0.01)):
        torch.manual_seed(10 * seed + n)
        model = Llava(LlavaConfig(VisionConfig(8, 4, 6, 12, 2, 2), LanguageConfig(30, 8, 16, 1, 2)))
        ids = [torch.tensor([3, IMAGE, 5, 6, 7]), torch.tensor([IMAGE, 9, 11])]
        labels = [torch.tensor([IGNORE, IGNORE, IGNORE, 6, 7]), torch.tensor([IGNORE, IGNORE, 11])]
        cases.append((model, Batch(ids, labels, [[torch.randn(4, 6)] for _ in ids]), rate))
    return cases


def _stepped(model, batch, rate, stage=1, sign=-1, only=""):
    set_trainable(model, stage)
    model.loss(batch)[0].backward()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.grad is not None and name.endswith(only):
                p += sign * rate * p.grad
    return model.projector.weight, model.projector.bias, model.language_model.embed_tokens.weight


def _everything(model, batch, rate):
    return _stepped(model.requires_grad_(True), batch, rate, stage=2)


def _segments(seed):
    texts = (
        ("<image>\nWhat is this?", "A red bus."),
        ("Describe it.\n<image>", "A lamp on a boat."),
        ("Who are you?", "An assistant."),
    )
    return [(question, f"{answer} {seed}", name) for question, answer in texts for name in ("plain", "chat")]


def _pieces(question, answer, name):
    return TEMPLATES[name].segments([(question, answer)])


def _plainly(change):
    """A version that is wrong only for the plain template."""
    return lambda q, a, name: change(q, a, _pieces(q, a, name)) if name == "plain" else _pieces(q, a, name)


TASKS = (
    Task(
        "11.1", 1, "The schedule", lambda seed: [(steps + seed,) for (steps,) in CHOICES], _schedule,
        (
            (_cold, "there is no warm-up. Adam's first steps go by signs alone, and at full rate they do harm (Appendix C: 3 %)."),
            (_from_zero, "the warm-up begins at 0, so the first step is wasted: step t of the first `up` has (t + 1) / up."),
            (_over_all, "the cosine runs over all steps. It begins behind the warm-up, at 1."),
            (_line, "it goes down in a line; the paper's is a cosine."),
        ),
        ("up = max(1, round(0.03 * steps)) steps go up in a line: (t + 1) / up.",
         "Behind them, with u = (t - up) / (steps - up): half of 1 + cos(pi u)."),
        draw=both_curves,
    ),
    Task(
        "11.2a", 0, "A step downhill", lambda seed: [(digits(seed + n, R, 3), digits(seed + n + 9, R, 3), rate) for n, (R, rate) in enumerate(((2, 0.5), (1, 2.0), (3, 0.1)))],
        lambda w, slope, rate: w - rate * slope,
        (
            (lambda w, slope, rate: w + rate * slope, "the step goes up. The gradient points to where the loss grows."),
            (lambda w, slope, rate: w - slope, "the rate is left out."),
        ),
        ("Down: minus. How far: the rate times the gradient.",),
    ),
    Task(
        "11.2b", 0, "Only marked rows move", lambda seed: [(digits(seed + n, 3, 3), 1 + digits(seed + n + 9, 3, 3), torch.tensor(moves)) for n, moves in enumerate(([True, False, True], [False, False, True], [False, True, False]))],
        lambda w, slope, moves: torch.where(moves[:, None], w - slope, w),
        (
            (lambda w, slope, moves: w - slope, "all rows move. The others are frozen."),
            (lambda w, slope, moves: torch.where(moves, w - slope, w), "columns move in place of rows: moves[:, None] stands beside the rows."),
            (lambda w, slope, moves: torch.where(moves[:, None], w, w - slope), "the frozen rows move and the marked ones stay."),
        ),
        ("torch.where(mark, then, else) takes a mark per row when it is a column: moves[:, None].",),
    ),
    Task(
        "11.2", 2, "One step in which only W moves", _steps, _stepped,
        (
            (_everything, "the language model moves too. Stage 1 trains W alone; the embeddings must stay as they are, to the bit."),
            (lambda m, b, r: _stepped(m, b, r, sign=1), "the step goes up the slope: the loss grows."),
            (lambda m, b, r: _stepped(m, b, r, only="weight"), "the bias of W stays. In the authors' code W has one, and it is trained."),
            (lambda m, b, r: _stepped(m, b, 1.0) if r != 1.0 else _stepped(m, b, 0.5), "the learning rate is not what was asked for."),
        ),
        ("model.requires_grad_(False), then model.projector.requires_grad_(True).",
         "loss, _ = model.loss(batch); loss.backward() fills .grad of what may move.",
         "with torch.no_grad(): p -= rate * p.grad"),
    ),
    Task(
        "11.3", 3, "The question that is thrown away", _segments, _pieces,
        (
            (_plainly(lambda q, a, right: [(q, False), (a, True), ("\n", True)]), "the question is kept. The plain form has the picture alone before the caption."),
            (_plainly(lambda q, a, right: [("<image>", False), *right[1:]]), "a picture stands there even where the question had none: the splice would have nothing to put in."),
            (_plainly(lambda q, a, right: [*right[:2], (right[2][0], False)]), "the stop carries no loss: the model never learns to end a caption."),
            (_plainly(lambda q, a, right: right[:2]), "the stop is missing behind the caption."),
        ),
        ("Plain: `<image>` (or nothing), the caption, and a newline as the stop; loss on the last two.",
         "For chat use the template: TEMPLATES['chat'].segments([(question, answer)])."),
    ),
)  # fmt: skip

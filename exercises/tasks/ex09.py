"""Exercise 09, the loss: the shift, Eq. 3 by hand, and the parts of a batch that does not fit into memory."""

import math
import random

import torch
import torch.nn.functional as F

from minillava.data import IGNORE
from minillava.exercises.cases import digits
from minillava.exercises.engine import Task


def _labelled(seed):
    cases = []
    for n, length in enumerate((6, 9, 12, 4)):
        draw = torch.Generator().manual_seed(10 * seed + n)
        labels = torch.randint(0, 50, (length,), generator=draw)
        labels[torch.rand(length, generator=draw) < 0.4] = IGNORE
        labels[0], labels[-1] = IGNORE, 7 + seed
        cases.append((labels,))
    return cases


def _asked(labels):
    """(row, token) pairs from the loss itself: a row is asked for the token whose score has a negative gradient."""
    logits = torch.zeros(len(labels), 50, requires_grad=True)
    F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE).backward()
    return [(int(row), int(logits.grad[row].argmin())) for row in logits.grad.abs().sum(1).nonzero().flatten()]


def _scored(seed):
    cases = []
    for n, (labels,) in enumerate(_labelled(seed)):
        draw = torch.Generator().manual_seed(100 * seed + n)
        cases.append((torch.randn(len(labels), 50, generator=draw) * 3, labels))
    return [*cases, (torch.zeros(3, 50), torch.full((3,), IGNORE))]


def _eq3(logits, labels):
    if (labels[1:] == IGNORE).all():
        raise ValueError("no token carries loss")
    return F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE)


def _other(loss):
    """A wrong version that raises the same errors as Eq. 3."""

    def wrong(logits, labels):
        _eq3(logits, labels)
        return loss(logits, labels)

    return wrong


def _parts(seed):
    cases = []
    for count in (2, 4, 8):
        draw = random.Random(f"parts {seed} {count}")
        cases.append(([(draw.uniform(0.5, 4), draw.randint(1, 90), draw.randint(1, 8)) for _ in range(count)],))
    return [*cases, ([(2.0, 10, 4), (4.0, 30, 4)],)]


def _whole(parts):
    """The mean over tokens, as if each token had the mean of its part."""
    return torch.cat([torch.full((tokens,), mean, dtype=torch.float64) for mean, tokens, _ in parts]).mean().item()


TASKS = (
    Task(
        "09.1", 1, "Who is asked for what", _labelled, _asked,
        (
            (lambda labels: [(t, int(y)) for t, y in enumerate(labels) if y != IGNORE], "a row is asked for its own token. It has read that one: row t is asked for token t + 1."),
            (lambda labels: [(t + 1, int(y)) for t, y in enumerate(labels[:-1]) if y != IGNORE], "the shift goes the other way: a row is asked for the token before it."),
            (lambda labels: [(t, int(y)) for t, y in enumerate(labels[1:])], "rows are asked for tokens without loss, too. A label IGNORE asks for nothing."),
        ),
        ("The token at place 1 is the first that anybody is asked for: by row 0.", "for t, y in enumerate(labels[1:].tolist()), and leave out IGNORE."),
    ),
    Task(
        "09.2a", 0, "Shift by one", lambda seed: [(digits(9 * seed + n, T),) for n, T in enumerate((5, 3, 7))],
        lambda ids: torch.cat([ids[1:], torch.tensor([IGNORE])]),
        (
            (lambda ids: ids.roll(-1), "the first id comes behind the last one. Nothing comes there: IGNORE."),
            (lambda ids: torch.cat([torch.tensor([IGNORE]), ids[:-1]]), "each row gets the id before it. It is asked for the one that comes next."),
        ),
        ("ids[1:] is what comes next; the last row has nothing to say.",),
    ),
    Task(
        "09.2b", 0, "One number of each row", lambda seed: [(digits(9 * seed + n, T, 4), digits(9 * seed + n + 5, T, below=4)) for n, T in enumerate((3, 5, 2))],
        lambda scores, wanted: scores[torch.arange(len(wanted)), wanted],
        (
            (lambda scores, wanted: scores.max(-1).values, "the largest of each row is taken. Asked for is the wanted one, however small."),
            (lambda scores, wanted: scores[:, wanted], "every row gives all wanted columns. A row gives its own alone: name the rows too."),
        ),
        ("Two lists of numbers in the brackets are read in pairs: scores[rows, columns].",),
    ),
    Task(
        "09.2", 2, "Eq. 3 by hand", _scored, _eq3,
        (
            (_other(lambda logits, labels: F.cross_entropy(logits, labels, ignore_index=IGNORE)), "nothing is shifted: what row t says is compared with the label of t + 1."),
            (_other(lambda logits, labels: F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE, reduction="sum")), "the sum is taken; Eq. 3 is used as a mean, so that a long answer does not pull harder."),
            (_other(lambda logits, labels: F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE, reduction="sum") / (len(labels) - 1)), "the mean is over all rows. Divide by the number of labels that are not IGNORE."),
            (_other(lambda logits, labels: F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE) / math.log(2)), "the logarithm has base 2; the loss is in nats."),
            (lambda logits, labels: F.cross_entropy(logits[:-1], labels[1:], ignore_index=IGNORE), "a sample in which nothing carries loss gives nan, and training goes on with it. Refuse it with a ValueError: most often a cut-off answer."),
        ),
        ("log_softmax over the vocabulary; then pick, in each row, the entry of the next token.",
         "keep = labels[1:] != IGNORE picks the rows; rows[torch.arange(n), y] picks their entries.",
         "minus, mean. Nothing to keep: a ValueError."),
    ),
    Task(
        "09.3", 3, "The parts of a batch", _parts, _whole,
        (
            (lambda parts: sum(m for m, _, _ in parts) / len(parts), "the mean of the parts' means is taken: a token in a short part weighs more than one in a long part."),
            (lambda parts: sum(m for m, _, _ in parts), "the parts' losses are summed: twice as many parts, and the step is twice as long."),
            (lambda parts: sum(m * n for m, _, n in parts) / sum(n for _, _, n in parts), "parts are weighed by their samples. Eq. 3's mean is over tokens, and samples are of unequal length."),
        ),
        ("A part's mean times its supervised tokens is its sum.", "All sums, divided by all tokens."),
    ),
)  # fmt: skip

"""A notebook's checks can fail: with one taught function broken, each notebook's run fails, and without it does not.

Notable: cells run in this process (cells.py) up to the first that fails, so a mutant costs the seconds before it. A mutant
is a plausible mistake, not a crash: the cell that fails has to notice it.
"""

import re
from dataclasses import replace

import pytest
import torch
from cells import FOLDER, Failed, notebook, run

from minillava import chat, model, paper
from minillava.costs import model as costs
from minillava.data import template
from minillava.datagen import concepts
from minillava.datagen import messages as sent
from minillava.judging import answers, reviews, scienceqa, scores
from minillava.model import language, llava, vision
from minillava.training import stages


def blind(real):
    """The model is shown the same grey whatever it is to look at."""

    def look(self, picture):
        image = real(self, picture)
        self.features = torch.zeros_like(self.features)
        return image

    return look


def lazy(real):
    """Trains nothing, and says that the loss stayed where it was."""
    return lambda *a, steps, **more: [1.0] * steps


def without_examples(real):
    """The few-shot examples are left out of the messages."""
    return lambda prompt, query: [real(prompt, query)[0], real(prompt, query)[-1]]


def patches_last(real):
    """The patches are put behind the text, not where the image token stands."""

    def splice(self, ids, features):
        embeds, source = real(self, ids, features)
        order = torch.argsort((source == -1).int(), stable=True)
        return embeds[order], source[order]

    return splice


def no_stop(real):
    """The stop after an answer carries no loss: what many re-implementations do."""
    return lambda self, pairs: [(text, on and text != self.stop) for text, on in real(self, pairs)]


def mean_of_ratios(real):
    """The mean of the ratios in place of the ratio of the means."""
    return lambda pairs: 100 * sum(c / r for r, c in pairs) / len(pairs)


def exact_gelu(real):
    """The exact GELU, where CLIP was trained with a quicker one."""
    return lambda self, x: self.fc2(torch.nn.functional.gelu(self.fc1(x)))


def forgets_places(real):
    """Queries and keys are not turned, so no token knows its place."""
    return lambda x, cos, sin: x


def upside_down(real):
    """The patches are spliced in from the last to the first."""

    def splice(self, ids, features):
        return real(self, ids, [picture.flip(0) for picture in features])

    return splice


def mean_of_means(real):
    """Each sample's own mean, then their mean: a token of a short answer weighs more than one of a long one."""

    def loss(self, batch, packed=False):
        alone = zip(batch.ids, batch.labels, batch.features)
        losses, counts = zip(*(real(self, llava.Batch([i], [k], [f]), packed) for i, k, f in alone))
        return sum(losses) / len(losses), sum(counts)

    return loss


def keeps_the_rare(real):
    """Every caption is kept, however rare its phrases."""

    def concept_filter(captions, *a, **more):
        return replace(real(captions, *a, **more), kept=list(range(len(captions))))

    return concept_filter


def always_both(real):
    """The language model moves in stage 1 too."""
    return lambda model, stage: real(model, 2)


def stays(real):
    """The control shows each question its own picture, and calls it another's."""
    return lambda names: list(names)


def last_letter(real):
    """Of several letters that an answer names the last one counts."""
    return lambda text, choices: real(text[max(0, text.rfind("The answer is")) :], choices)


def first_two_numbers(real):
    """The first two numbers of a review count as its scores, whatever they are numbers of."""

    def read_scores(text):
        numbers = re.findall(r"\d+(?:\.\d+)?", text)
        return tuple(map(float, numbers[:2])) if len(numbers) > 1 else real(text)

    return read_scores


def one_moment(real):
    """Adam's state is counted as one number a parameter."""

    def memory(*a, **more):
        found = real(*a, **more)
        return found | {"optimizer": found["optimizer"] // 2}

    return memory


def last_layer(real):
    """The vision tower is read after its last block, not before it."""

    def features(self, pixels):
        with torch.no_grad():
            return self.vision_tower(pixels, layer=-1)

    return features


# Cells that are needed, of notebooks that train before they come to the one that notices.
ONLY = {"12": ("from dataclasses import replace", "needs = memory("), "14": ("def simply(text)",)}
MUTANTS = {
    "00": (chat.Chat, "look", blind),
    "01": (stages, "train_stage", lazy),
    "02": (sent, "messages", without_examples),
    "03": (llava.Llava, "splice", patches_last),
    "04": (template.Template, "segments", no_stop),
    "05": (scores, "relative_score", mean_of_ratios),
    "06": (vision.MLP, "forward", exact_gelu),
    "07": (language, "rotate", forgets_places),
    "08": (llava.Llava, "splice", upside_down),
    "09": (llava.Llava, "loss", mean_of_means),
    "10": (concepts, "concept_filter", keeps_the_rare),
    "11": (model, "set_trainable", always_both),
    "12": (costs, "memory", one_moment),
    "13": (answers, "shuffled", stays),
    "14": (reviews, "read_scores", first_two_numbers),
    "15": (scienceqa, "read_answer", last_letter),
    "16": (llava.Llava, "features", last_layer),
}
THERE = sorted(path.name[:2] for path in FOLDER.glob("[01][0-9]_*.ipynb"))


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    """As on a laptop, in a folder of its own."""
    for name in ("MINILLAVA_SCALE", "MINILLAVA_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_notebook_has_a_mutant():
    assert set(THERE) <= set(MUTANTS)


@pytest.mark.parametrize("number", [n for n in sorted(MUTANTS) if n in THERE])
def test_a_broken_function_makes_its_notebook_fail(monkeypatch, number):
    home, name, broken = MUTANTS[number]
    monkeypatch.setattr(home, name, broken(getattr(home, name)))
    with pytest.raises(Failed) as failed:
        run(notebook(number), only=ONLY.get(number, ()))
    assert " instead of " in str(failed.value), "an error in the mutant itself proves nothing"


@pytest.mark.parametrize("number", ["02", "04"])
def test_unbroken_they_run_to_their_end(number):
    assert len(run(notebook(number))) > 15


def test_a_wrong_figure_of_the_paper_is_noticed_too(monkeypatch):
    right = paper.TABLES["Table 4"]
    row = next(iter(right.rows))
    wrong = replace(right, rows=right.rows | {row: (99.9, *right.rows[row][1:])})
    monkeypatch.setitem(paper.TABLES, "Table 4", wrong)
    with pytest.raises(Failed, match="instead of"):
        run(notebook("05"))

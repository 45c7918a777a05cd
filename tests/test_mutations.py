"""Every notebook's checks can fail: with a mutant in place of one function it runs into a failing cell.

Cells run in this process (cells.py) up to the first that fails, so a mutant takes only the time until there. A mutant
is a plausible mistake, not a crash: a check in a cell has to notice it.
"""

import re
from dataclasses import replace

import pytest
import torch
from cells import FOLDER, Failed, notebook, run

from minillava import asking, chat, model, paper
from minillava.costs import model as costs
from minillava.course import note
from minillava.data import template
from minillava.datagen import concepts
from minillava.datagen import messages as sent
from minillava.judging import answers, reviews, scienceqa, scores
from minillava.model import language, llava, vision
from minillava.model.formats import published
from minillava.training import stages


def blind(real):
    """The model sees the same grey for every picture."""

    def look(self, picture):
        image = real(self, picture)
        self.features = torch.zeros_like(self.features)
        return image

    return look


def lazy(real):
    """Trains nothing, and returns a loss that does not change."""
    return lambda *a, steps, **more: [1.0] * steps


def without_examples(real):
    """The few-shot examples are left out of the messages."""
    return lambda prompt, query: [real(prompt, query)[0], real(prompt, query)[-1]]


def patches_last(real):
    """The patches follow the text instead of taking the image token's place."""

    def splice(self, ids, features):
        embeds, source = real(self, ids, features)
        order = torch.argsort((source == -1).int(), stable=True)
        return embeds[order], source[order]

    return splice


def no_stop(real):
    """The stop after an answer carries no loss, as in many re-implementations."""
    return lambda self, pairs: [(text, on and text != self.stop) for text, on in real(self, pairs)]


def mean_of_ratios(real):
    """The mean of the ratios instead of the ratio of the means."""
    return lambda pairs: 100 * sum(c / r for r, c in pairs) / len(pairs)


def always_agrees(real):
    """Every mark of the learner is counted as the paper's."""
    return lambda claim, mark: True


def exact_gelu(real):
    """The exact GELU, although CLIP was trained with an approximation."""
    return lambda self, x: self.fc2(torch.nn.functional.gelu(self.fc1(x)))


def forgets_places(real):
    """Queries and keys are not rotated, so no token knows its position."""
    return lambda x, cos, sin: x


def upside_down(real):
    """The patches are spliced in from the last to the first."""

    def splice(self, ids, features):
        return real(self, ids, [picture.flip(0) for picture in features])

    return splice


def mean_of_means(real):
    """The mean of the samples' means: a token of a short answer counts more than one of a long answer."""

    def loss(self, batch):
        alone = zip(batch.ids, batch.labels, batch.features)
        losses, counts = zip(*(real(self, llava.Batch([i], [k], [f])) for i, k, f in alone))
        return sum(losses) / len(losses), sum(counts)

    return loss


def keeps_the_rare(real):
    """Every caption is kept, however rare its phrases."""

    def concept_filter(captions, *a, **more):
        return replace(real(captions, *a, **more), kept=list(range(len(captions))))

    return concept_filter


def always_both(real):
    """Stage 1 trains the language model too."""
    return lambda model, stage: real(model, 2)


def stays(real):
    """The control for shuffled pictures gives each question its own picture."""
    return lambda names: list(names)


def last_letter(real):
    """The last letter counts when an answer names several."""
    return lambda text, choices: real(text[max(0, text.rfind("The answer is")) :], choices)


def first_two_numbers(real):
    """The first two numbers of a review are its scores, whatever they mean."""

    def read_scores(text):
        numbers = re.findall(r"\d+(?:\.\d+)?", text)
        return tuple(map(float, numbers[:2])) if len(numbers) > 1 else real(text)

    return read_scores


def of_the_messages(real):
    """A reply is stored under its messages alone, so that another temperature is not asked for."""
    return lambda body: real({"messages": body["messages"]})


def one_moment(real):
    """Adam's state is counted as one number per parameter."""

    def memory(*a, **more):
        found = real(*a, **more)
        return found | {"optimizer": found["optimizer"] // 2}

    return memory


def last_layer(real):
    """The vision tower's last layer is used, not the layer before it."""

    def features(self, pixels):
        with torch.no_grad():
            return self.vision_tower(pixels, layer=-1)

    return features


def bare_names(real):
    """A language model's tensors keep their own names in a published file."""
    return lambda ours: ours


# For notebooks that train before the cell that notices: texts of the cells that are needed.
ONLY = {"12": ("from dataclasses import replace", "needs = memory("), "14": ("def simply(text)",)}
MUTANTS = {
    "00": (chat.Chat, "look", blind),
    "01": (stages, "train_stage", lazy),
    "02": (sent, "messages", without_examples),
    "03": (llava.Llava, "splice", patches_last),
    "04": (template.Template, "segments", no_stop),
    "05": (scores, "relative_score", mean_of_ratios),
    "05b": (note, "agrees", always_agrees),
    "06": (vision.MLP, "forward", exact_gelu),
    "07": (language, "rotate", forgets_places),
    "08": (llava.Llava, "splice", upside_down),
    "09": (llava.Llava, "loss", mean_of_means),
    "10": (concepts, "concept_filter", keeps_the_rare),
    "10b": (asking, "request_key", of_the_messages),
    "11": (model, "set_trainable", always_both),
    "12": (costs, "memory", one_moment),
    "13": (answers, "shuffled", stays),
    "14": (reviews, "read_scores", first_two_numbers),
    "15": (scienceqa, "read_answer", last_letter),
    "16": (llava.Llava, "features", last_layer),
    "17": (published, "language_name", bare_names),
}
THERE = sorted(path.name.split("_")[0] for path in FOLDER.glob("[01][0-9]*_*.ipynb"))


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    """The laptop's scale, in a folder of its own."""
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
def test_a_notebook_without_a_mutant_runs_to_its_end(number):
    assert len(run(notebook(number))) > 15


def test_a_wrong_figure_of_the_paper_is_noticed_too(monkeypatch):
    right = paper.TABLES["Table 4"]
    row = next(iter(right.rows))
    wrong = replace(right, rows=right.rows | {row: (99.9, *right.rows[row][1:])})
    monkeypatch.setitem(paper.TABLES, "Table 4", wrong)
    with pytest.raises(Failed, match="instead of"):
        run(notebook("05"))

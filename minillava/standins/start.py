"""A start of W by least squares, in place of stage 1: a patch should look like the words for the thing that it shows.

Not the paper's: it reads the boxes of some training pictures, where caption pairs need none, but it takes seconds. Each
scene is written as a table, one thing per line, and the language model reads it. The target of every patch that shows a
thing is the mean over that thing's line of the states after the first block; that of the others comes from the place's
line. W is the ridge regression from patches to targets.

    project_by_least_squares(model, tokenizer, some_scenes, features)     # benchmarks/speedrun.py
"""

import random
from collections.abc import Callable, Sequence

import torch

from minillava.data.template import CHAT
from minillava.model import Llava
from minillava.model.rope import rotations
from minillava.scenes.draw import topmost_things
from minillava.scenes.world import Scene
from minillava.standins.text_lessons import table_line
from minillava.training.features import Features

RIDGE, BACKGROUND, LONGER = 1e-3, 0.3, 1.5  # of the mean square, weight of patches without a thing, factor of W
AT_ONCE = 64  # scenes


@torch.no_grad()
def line_states(model: Llava, tokenizer, scenes: Sequence[Scene]) -> list[torch.Tensor]:
    """For each scene the mean states of its lines after the first block, (1 + things, D); the last is the place's."""
    language, rows, places = model.language_model, [], []
    for scene in scenes:
        rng = random.Random(f"start {scene.id}")
        order = rng.sample(range(len(scene.things)), len(scene.things))
        ids, spans = list(tokenizer(f"{CHAT.system}{CHAT.stop}\n{CHAT.human}").input_ids), {}
        for line in (-1, *order):  # the place is the first line, and has the last row
            words = tokenizer(scene.place if line < 0 else table_line(scene, scene.things[line])).input_ids
            spans[line] = (len(ids), len(ids) + len(words))
            ids += words + tokenizer("\n").input_ids
        rows.append(torch.tensor(ids))
        places.append([spans[line] for line in (*range(len(scene.things)), -1)])
    x = language.embed(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))  # (B, T, D)
    cos, sin = rotations(torch.arange(x.shape[1])[None], language.config)
    x = language.layers[0](x, cos, sin, None, None)
    return [torch.stack([row[a:b].mean(0) for a, b in spans]) for row, spans in zip(x, places)]


@torch.no_grad()
def line_words(model: Llava, tokenizer, scenes: Sequence[Scene]) -> list[torch.Tensor]:
    """The same of the words alone, before any block: for language models whose states outgrow their embeddings."""
    texts = [[*(table_line(scene, thing) for thing in scene.things), scene.place] for scene in scenes]
    ids = [[torch.tensor(tokenizer(f" {text}").input_ids) for text in lines] for lines in texts]
    return [torch.stack([model.language_model.embed(one).mean(0) for one in lines]) for lines in ids]


@torch.no_grad()
def project_by_least_squares(
    model: Llava, tokenizer, scenes: Sequence[Scene], features: Features, targets: Callable = line_states
) -> None:
    """Set the model's W and its bias from these scenes, whose pictures are `ID.png` among the features.

    targets: `line_states` or `line_words`.
    """
    grid, Dv = model.config.vision.image_size // model.config.vision.patch_size, model.config.vision.hidden_size
    left = torch.zeros(Dv + 1, Dv + 1, dtype=torch.float64)  # the last column is the bias's
    right = torch.zeros(Dv + 1, model.config.language.hidden_size, dtype=torch.float64)
    for start in range(0, len(scenes), AT_ONCE):
        some = scenes[start : start + AT_ONCE]
        for scene, states in zip(some, targets(model, tokenizer, some)):
            shown = torch.tensor(topmost_things(scene, grid))  # (P,); -1, the background, is the place's row
            Zv = torch.cat([features[f"{scene.id}.png"], torch.ones(len(shown), 1)], dim=1).double()
            weight = torch.where(shown < 0, BACKGROUND, 1.0).double()[:, None]
            left += Zv.T @ (weight * Zv)
            right += Zv.T @ (weight * states[shown].double())
    left.diagonal()[:-1].add_(RIDGE * left.diagonal()[:-1].mean())
    solved = LONGER * torch.linalg.solve(left, right)  # (Dv + 1, D)
    model.projector.weight.copy_(solved[:-1].T)
    model.projector.bias.copy_(solved[-1])

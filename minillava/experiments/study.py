"""One study: pictures seen once, a stage 1 that rows share, then stage 2 of every row and seed in worker processes.

Notable: the paper's tables in miniature (`miniature.py`), the science quiz (`science.py`) and Table 8's choices on the
chat data (`miniature.run_designs`) are three uses of it. A use makes its data, names its rows, and says what one row learns and
answers. Every step leaves files in the paper's own formats and is done once. A study that was killed resumes, also in
the middle of a training.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.data.valid import read_records
from minillava.experiments.run import Job, Run, RunError, side_by_side, slug, still_wanted
from minillava.files import FileError, atomic_write, read_checked, read_jsonl, write_checked, write_jsonl
from minillava.judging.answers import BLANK, blank_picture
from minillava.machine import progress_bar
from minillava.model.formats.assemble import assemble
from minillava.model.formats.preparation import read_preparation
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.scenes.world import Scene
from minillava.standins.start import project_by_least_squares
from minillava.training.features import Features
from minillava.training.stages import train_stage

SIZE = 96  # pixels of a picture's side
CAPTIONS = "records/caption.json"  # the picture-caption pairs of stage 1, in the run's folder


@dataclass(frozen=True)
class Variant:
    """How the model of a row is built and trained (Table 8); the defaults are the paper's choices."""

    layer: int = -2  # the vision tower's layer whose features are read
    language_model: str = "language_model"  # its folder among the weights
    start: str | None = "stage1"  # the stage 1 that it begins with; rows alike in layer and language model share one
    w_ratio: float | None = None  # W's rate in stage 2, as a share of its rate in stage 1; None: that of all the rest
    part: float = 1.0  # of stage 2's steps

    @property
    def features(self) -> str:
        """The file of the features that it reads."""
        return f"features{self.layer}.jsonl"


def draw_scenes(some: list[Scene], folder: Path, progress: Callable[[], None]) -> None:
    """A picture of each scene that has none yet, and the blank picture of the controls."""
    for scene in some:
        path = folder / f"{scene.id}.png"
        if not path.exists():
            with atomic_write(path, sync=False) as temporary:
                draw(scene, SIZE).save(temporary, format="PNG", compress_level=1)
        progress()
    with atomic_write(folder / BLANK, sync=False) as temporary:
        blank_picture(SIZE).save(temporary)


def make_features(run: Run, variant: Variant) -> None:
    """What the frozen vision tower sees in every picture of the run, at the variant's layer."""
    folder, tower = run.folder / "pictures", run.weights / "vision_tower"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    model = assemble(tower, run.weights / "language_model", 0, variant.layer)
    preparation = read_preparation(tower, model.config.vision.image_size)
    with progress_bar(len(names), "picture", f"layer {variant.layer}") as bar:
        path, update = run.folder / variant.features, lambda n, _: bar.update(n - bar.n)
        Features.cached(path, model, folder, names, preparation, update)


def load_learner(run: Run, seed: int, variant: Variant, stage: int) -> tuple:
    """(model, tokenizer, features) as a stage finds them: stage 2 begins with the W of stage 1, where there was one."""
    language_model = run.weights / variant.language_model
    model = assemble(run.weights / "vision_tower", language_model, seed, variant.layer)
    if stage == 2 and variant.start:
        home = run.home(seed, variant.start)
        try:
            read_checked(home / "projector.json")
        except FileError as error:
            raise RunError(f"{error}; remove {home / 'done'}, and the same command makes it again") from error
        model.projector.load_state_dict(load_file(home / "projector.safetensors"))
    return model, load_tokenizer(language_model), Features.load(run.folder / variant.features)


def align(run: Run, seed: int, variant: Variant) -> None:
    """Stage 1, feature alignment: W alone learns from caption pairs (section 4.2), after its start by least squares."""
    model, tokenizer, features = load_learner(run, seed, variant, 1)
    project_by_least_squares(model, tokenizer, scenes("train", run.scale.boxes), features)
    samples = [encode(record, CHAT, tokenizer) for record in read_records(run.folder / CAPTIONS)]
    home, batch, lr = run.home(seed, variant.start), run.scale.stage1_batch, run.scale.stage1_lr
    settings = {"batch_size": batch, "steps": len(samples) // batch, "lr": lr, "seed": seed}
    train_stage(model, 1, samples, features, home, progress=still_wanted, **settings)
    with atomic_write(home / "projector.safetensors") as temporary:
        save_file(model.projector.state_dict(), temporary)
    write_checked(home / "projector.json", {}, [home / "projector.safetensors"])


def steps_of(scale, records: int, part: float = 1.0) -> int:
    """The steps of a stage 2 on so many records, or of a part of it."""
    return round(records // scale.stage2_batch * scale.stage2_epochs * part)


def tune(
    run: Run, seed: int, home: Path, learner: tuple, records: list[dict], variant: Variant, progress=still_wanted
) -> None:
    """Stage 2: W and the language model of a learner learn from records (section 4.2)."""
    (model, tokenizer, features), scale = learner, run.scale
    samples = [encode(record, CHAT, tokenizer) for record in records]
    settings = {"batch_size": scale.stage2_batch, "steps": steps_of(scale, len(samples), variant.part), "seed": seed}
    settings |= {"lr": scale.stage2_lr, "lr_muon": scale.stage2_lr_muon, "progress": progress}
    rate = None if variant.w_ratio is None else scale.stage1_lr * variant.w_ratio
    train_stage(model, 2, samples, features, home, lr_w=rate, **settings)


def looked_at(features: Features, images: list[str | None], look: Callable) -> list[torch.Tensor | None]:
    """The features that go with each question. look: which pictures are shown instead of its own (`CONDITIONS`).

    None where a question has no picture, or where it is asked without one.
    """
    names = iter(look([image for image in images if image]))
    found = [next(names) if image else None for image in images]
    return [None if name is None else features[name] for name in found]


def write_answers(path: Path, model_id: str, asked: Iterable[tuple], texts: list[str]) -> None:
    """A file of answers in the authors' format. asked: (question_id, prompt)."""
    rows = zip(asked, texts, strict=True)
    write_jsonl(
        [{"question_id": name, "prompt": prompt, "text": text, "answer_id": f"{slug(model_id)}-{name}",
          "model_id": model_id, "metadata": {}} for (name, prompt), text in rows], path,
    )  # fmt: skip


def texts_of(path: Path) -> dict:
    """The texts of a file of answers, by question."""
    return {row["question_id"]: row["text"] for row in read_jsonl(path)}


def train_rows(run: Run, rows: dict[str, Variant], steps: dict, learn_row: Callable, asks=lambda row: 1) -> None:
    """The features; then for each seed every stage 1 that the rows begin with, and every row.

    steps: of each row's stage 2. learn_row(run, seed, row): trains a row and writes its answers, in a worker process.
    asks(row): how often a row answers.
    """
    layers = {run.folder / variant.features: variant for variant in rows.values()}
    what = "Section 4.1: the frozen vision tower looks at every picture once"
    run.do("features", what, lambda: [make_features(run, variant) for variant in layers.values()], layers)
    starts = {variant.start: variant for variant in rows.values() if variant.start}
    pairs = run.scale.pairs // run.scale.stage1_batch
    for seed in run.seeds:
        first = [Job(run.home(seed, name), pairs, partial(align, run, seed, v)) for name, v in starts.items()]
        what = f"Section 4.2, stage 1 (seed {seed}): feature alignment, only W learns"
        run.do(f"stage1-{seed}", what, partial(side_by_side, first), [job.done for job in first])
        second = [Job(run.home(seed, r), steps[r], partial(learn_row, run, seed, r), asks(r)) for r in rows]
        what = f"Section 4.2, stage 2 (seed {seed}): W and the language model learn; {len(rows)} models answer"
        run.do(f"stage2-{seed}", what, partial(side_by_side, second), [job.done for job in second])

"""ScienceQA in miniature (section 5.2): the small LLaVA learns the picture book's quiz; what Tables 7 and 8 are made of.

Notable: as in the paper, the language model is the one that no chat data has tuned, W comes from stage 1, both learn
together, and the answer follows its reasons. Each row of Table 8 changes one thing: the features' layer, the order of reasons
and answer, stage 1, the language model's size. The learning curves are taken on the validation split, the tables on the test
split. A stopped run goes on where it stood.

    minillava paper --table 7
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from minillava.data.records import read_records, write_records
from minillava.data.samples import encode
from minillava.data.scienceqa import Problem, read_problems, science_record, write_problems
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.experiments.miniature import slug
from minillava.experiments.run import Run
from minillava.experiments.workers import side_by_side, still_wanted
from minillava.files import read_jsonl, write_jsonl
from minillava.judging.answer_scienceqa import answer_problems
from minillava.judging.answers import BLANK, CONDITIONS, blank_picture
from minillava.judging.ensembles import disagreements
from minillava.judging.scienceqa import read_predictions
from minillava.machine import progress_bar
from minillava.model.formats.assemble import assemble, normalisation
from minillava.scales import WEIGHTS, Scale
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.expert import again, expert
from minillava.standins.quiz import draw_quiz
from minillava.standins.records import caption_record
from minillava.training.features import Features
from minillava.training.loop import along
from minillava.training.stages import train_stage

SIZE = 96  # pixels a side


@dataclass(frozen=True)
class QuizScale:
    """Everything a run of the quiz depends on; a `Run` takes it as its scale. Counts are problems or pairs."""

    name: str
    pairs: int  # stage 1: picture-caption pairs, 1 epoch
    train: int  # paper: 12,726
    val: int  # the learning curves
    test: int  # paper: 4,241
    epochs: int  # paper: 12
    stage1_lr: float
    stage1_batch: int
    batch: int  # paper: 32
    lr: float  # paper: 2e-5
    lr_muon: float

    def recipe(self) -> dict:
        return asdict(self)


TINY = QuizScale(
    "tiny",
    pairs=6000,
    train=6000,  # half the paper's
    val=300,
    test=1500,
    epochs=6,  # the 89.77 of answer first took the paper 12, reasons first 6; here 6 epochs are 1,125 steps
    stage1_lr=4e-3,  # as in scales.TINY
    stage1_batch=64,
    batch=32,
    lr=2e-3,  # 1M parameters bear, and need, a far higher rate than 13B; at 1e-3 letters stayed at chance (LOG.md)
    lr_muon=2e-3,
)
SMOKE = replace(TINY, name="smoke", pairs=64, train=60, val=15, test=30, epochs=2, stage1_batch=16, batch=12)
SCALES = {scale.name: scale for scale in (TINY, SMOKE)}


@dataclass(frozen=True)
class Variant:
    """One row of Table 8: the layer of the vision tower that is read, the prompt's format, stage 1 or none, which language model."""

    layer: int = -2
    format: str = "QCM-LEPA"
    stage1: bool = True
    language_model: str = "language_model"

    @property
    def start(self) -> str:
        """The name of the stage 1 it starts from."""
        return f"stage1{self.layer}-{self.language_model}"


BEST, ANSWER_FIRST = "Best variant", "Answer first"
VARIANTS = {
    BEST: Variant(),
    "Last layer": Variant(layer=-1),
    ANSWER_FIRST: Variant(format="QCM-ALE"),
    "No stage 1": Variant(stage1=False),
    "7B": Variant(language_model="language_model_small"),  # the smaller language model, in the place of the paper's
}
CURVES = (BEST, ANSWER_FIRST)  # rows whose accuracy is taken after every epoch


def variants(weights: Path) -> dict[str, Variant]:
    """The rows that can be trained: one whose language model is not among the weights is left out."""
    return {row: v for row, v in VARIANTS.items() if (Path(weights) / v.language_model / "model.safetensors").is_file()}


def make_data(run: Run) -> None:
    """The quiz in ScienceQA's files with its pictures, and the caption pairs of stage 1."""
    scale, pictures = run.scale, run.folder / "pictures"
    counts = {"train": scale.train, "val": scale.val, "test": scale.test}
    with progress_bar(sum(counts.values()) + scale.pairs, "picture") as progress:
        problems = [p for split, n in counts.items() for p in draw_quiz(split, n, pictures, SIZE, progress.update)]
        some = scenes("train", scale.pairs)
        for scene in some:
            path = pictures / f"{scene.id}.png"
            if not path.exists():
                draw(scene, SIZE).save(path.with_suffix(".part"), format="PNG", compress_level=1)
                path.with_suffix(".part").replace(path)
            progress.update()
    blank_picture(SIZE).save(pictures / BLANK)
    write_problems(problems, run.folder / "quiz")
    write_records([caption_record(s) for s in some], run.folder / "caption.json")


def make_features(run: Run) -> None:
    """What the frozen vision tower sees in every picture, at each layer that a row reads."""
    names = sorted(p.relative_to(run.folder / "pictures").as_posix() for p in (run.folder / "pictures").rglob("*.png"))
    for layer in sorted({v.layer for v in VARIANTS.values()}):
        model = assemble(run.weights / "vision_tower", run.weights / "language_model", 0, layer)
        with progress_bar(len(names), "picture", f"layer {layer}") as progress:
            show = lambda done, _, progress=progress: progress.update(done - progress.n)  # noqa: E731
            made = Features.of(
                model, run.folder / "pictures", names, *normalisation(run.weights / "vision_tower"), show
            )
        made.save(run.folder / f"features{layer}.safetensors")


def parts(folder: Path, weights: Path, variant: Variant, seed: int):
    """(model before any training, tokenizer, features) of a row."""
    model = assemble(weights / "vision_tower", weights / variant.language_model, seed, variant.layer)
    return (
        model,
        load_tokenizer(weights / variant.language_model),
        Features.load(folder / f"features{variant.layer}.safetensors"),
    )


def run_stage1(
    folder: Path, weights: Path, scale: QuizScale | Scale, seed: int, variant: Variant, pairs: Path | None = None
) -> None:
    """Stage 1 for one vision tower's layer and one language model: W alone learns from caption pairs. In a process of its own.

    pairs: the file they are in; the quiz's own where none is named.
    """
    torch.set_num_threads(1)
    home = folder / f"seed-{seed}" / variant.start
    model, tokenizer, features = parts(folder, weights, variant, seed)
    samples = [encode(r, CHAT, tokenizer) for r in read_records(pairs or folder / "caption.json")]
    train_stage(model, 1, samples, features, home, batch_size=scale.stage1_batch, steps=len(samples) // scale.stage1_batch,
                lr=scale.stage1_lr, seed=seed, progress=still_wanted)  # fmt: skip
    save_file(model.projector.state_dict(), home / "projector.safetensors")
    (home / "done").touch()


def seen(features: Features, problems: list[Problem], look=CONDITIONS[""]) -> list[torch.Tensor | None]:
    """The features that go with each problem; `look` says which picture those with one are shown (answers.CONDITIONS)."""
    shown = iter(look([p.image for p in problems if p.image]))
    names = [next(shown) if p.image else None for p in problems]
    return [None if name is None else features[name] for name in names]


def steps_of(scale: QuizScale) -> int:
    return scale.train // scale.batch * scale.epochs


def run_variant(folder: Path, weights: Path, scale: QuizScale, seed: int, row: str) -> None:
    """One row learns the quiz and answers the test split. Runs in a process of its own."""
    torch.set_num_threads(1)
    variant, home = VARIANTS[row], folder / f"seed-{seed}" / slug(row)
    model, tokenizer, features = parts(folder, weights, variant, seed)
    if variant.stage1:
        model.projector.load_state_dict(load_file(home.parent / variant.start / "projector.safetensors"))
    train, val, test = (list(read_problems(folder / "quiz", split).values()) for split in ("train", "val", "test"))

    def measure():
        texts = answer_problems(model, tokenizer, CHAT, val, seen(features, val), variant.format)
        found, failed = read_predictions({p.id: p for p in val}, {p.id: t for p, t in zip(val, texts)})
        right = [found.get(p.id) == p.answer for p in val]
        return {"accuracy": round(100 * sum(right) / len(val), 2), "failures": len(failed), "right": "".join("01"[r] for r in right)}  # fmt: skip

    progress = along(still_wanted, model, measure, home, scale.epochs) if row in CURVES else still_wanted
    home.mkdir(parents=True, exist_ok=True)
    samples = [encode(science_record(p, variant.format), CHAT, tokenizer) for p in train]
    train_stage(model, 2, samples, features, home, batch_size=scale.batch, steps=steps_of(scale), lr=scale.lr,
                lr_muon=scale.lr_muon, seed=seed, progress=progress)  # fmt: skip
    model.eval()
    for tag, look in (CONDITIONS if row == BEST else {"": CONDITIONS[""]}).items():
        still_wanted()
        texts = answer_problems(model, tokenizer, CHAT, test, seen(features, test, look), variant.format)
        rows = [{"question_id": p.id, "text": t, "answer_id": f"{slug(row)}{tag}-{seed}-{p.id}", "model_id": f"{row} (seed {seed})", "metadata": {}} for p, t in zip(test, texts)]  # fmt: skip
        write_jsonl(rows, home / f"answers{tag}.jsonl")
    (home / "done").touch()


def run_seed(run: Run, seed: int) -> None:
    """Every stage 1 that is needed, then every row, as many at a time as there are cores."""
    rows, base = variants(run.weights), run.folder / f"seed-{seed}"
    starts = {v.start: v for v in rows.values() if v.stage1}
    arguments = (run.folder, run.weights, run.scale, seed)
    once = run.scale.pairs // run.scale.stage1_batch
    side_by_side({base / s: (run_stage1, *arguments, v) for s, v in starts.items()}, {base / s: once for s in starts})
    homes = {row: base / slug(row) for row in rows}
    side_by_side({h: (run_variant, *arguments, row) for row, h in homes.items()}, {h: steps_of(run.scale) for h in homes.values()})  # fmt: skip


def texts_of(path: Path) -> dict[str, str]:
    """Answers by problem id."""
    return {row["question_id"]: row["text"] for row in read_jsonl(path)}


def run_expert(run: Run) -> None:
    """The text-only expert answers the test split once, and again where it and LLaVA differ, for each seed."""
    test = read_problems(run.folder / "quiz", "test")
    own = {name: expert(problem) for name, problem in test.items()}
    write_jsonl(
        [{"question_id": n, "text": t, "model_id": "expert"} for n, t in own.items()], run.folder / "expert.jsonl"
    )
    for seed in run.seeds:
        home = run.folder / f"seed-{seed}" / slug(BEST)
        llava = texts_of(home / "answers.jsonl")
        final = {n: again(test[n], own[n], llava[n]) for n in disagreements(test, own, llava)}
        write_jsonl(
            [{"question_id": n, "text": t, "model_id": "expert"} for n, t in final.items()], home / "again.jsonl"
        )


def run_science(folder: Path, scale: QuizScale, seeds: int, weights: Path = WEIGHTS) -> Run:
    """All of it. Raises RunError for a folder that cannot be used."""
    run = Run(folder, scale, seeds, weights)
    try:
        what = f"ScienceQA in miniature: {scale.train + scale.val + scale.test:,} problems in ScienceQA's files"
        run.do("data", what, lambda: make_data(run))
        run.do(
            "features",
            "Section 4.1: the frozen vision tower looks at every picture once a layer",
            lambda: make_features(run),
        )
        for seed in run.seeds:
            if not all((run.folder / f"seed-{seed}" / slug(row) / "done").exists() for row in variants(run.weights)):
                run.state["seconds"].pop(f"quiz-{seed}", None)  # a language model was added to the weights
            what = f"Section 5.2 (seed {seed}): stage 1, then {len(variants(weights))} models learn the quiz and answer"
            run.do(f"quiz-{seed}", what, partial(run_seed, run, seed))
        if not all((run.folder / f"seed-{s}" / slug(BEST) / "again.jsonl").exists() for s in run.seeds):
            run.state["seconds"].pop("expert", None)  # seeds were added
        run.do(
            "expert",
            "Section 5.2: the text-only expert answers, and again where the two differ",
            lambda: run_expert(run),
        )
    finally:
        run.lock.release()
    return run


def looks_of(run: Run, row: str, seed: int) -> list[dict]:
    """What was measured of a row after every epoch: step, accuracy (per cent), failures, right (0 or 1 a problem)."""
    return read_jsonl(run.folder / f"seed-{seed}" / slug(row) / "gates.jsonl")

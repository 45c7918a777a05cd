"""The whole paper in one run: data, stage 1, stage 2 for the rows of Table 4, answers, judge, tables, report.

Notable: every step leaves files in the paper's own formats and is done once; a run that was stopped goes on where it
stood, in the middle of a training too. Rows are trained two at a time, each on one core. What is measured goes to
`report.json` beside the paper's figure and its controls (`report.py`).

    minillava paper                 # what `make demo` runs
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from minillava.data.records import read_records, write_records
from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.messages import TYPES
from minillava.experiments.run import Run
from minillava.experiments.workers import side_by_side, still_wanted
from minillava.files import read_jsonl, write_jsonl
from minillava.judging.answers import BLANK, CONDITIONS, answer, blank_picture
from minillava.judging.bench import read_bench, write_bench
from minillava.judging.pope import build_pope
from minillava.machine import loss_reporter, progress_bar
from minillava.model.formats.assemble import assemble, normalisation, save_trained
from minillava.scales import WEIGHTS, Scale
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.scenes.questions import Question, exact_match
from minillava.standins.bench import build_bench, exact_questions, judge_answers
from minillava.standins.records import caption_record, instruction_record
from minillava.training.features import Features
from minillava.training.stages import train_stage

# Row of Table 4 -> the share of conversation, detail and complex-reasoning records that stage 2 trains on.
MIXTURES = {
    "Full data": (1.0, 1.0, 1.0),
    "Detail + Complex": (0.0, 1.0, 1.0),
    "Conv + 5% Detail + 10% Complex": (1.0, 0.05, 0.10),
    "Conversation": (1.0, 0.0, 0.0),
}
UNTUNED, CAPTIONER, FULL = "No Instruction Tuning", "Caption-only tuning", "Full data"
ROWS = (*MIXTURES, UNTUNED, CAPTIONER)
SHUFFLED_ROW = "Full data, pictures shuffled"
CONTROLS = {SHUFFLED_ROW: "-shuffled", "Full data, pictures blank": "-blank", "Full data, text only": "-text"}
POPE_ROWS, POPE_SCENES = (
    (FULL, UNTUNED, CAPTIONER),
    50,
)  # who is asked whether things are there, and about how many scenes


def slug(row: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in row.lower()).split())


def make_data(run: Run) -> None:
    """Pictures, instruction records of the three types, caption pairs, both benchmarks and the exact-match questions."""
    scale, folder = run.scale, run.folder
    train = scenes("train", scale.pictures)
    held = {
        "bench": scenes("bench", max(scale.bench_scenes, scale.exact_scenes)),
        "wild": scenes("wild", scale.bench_scenes),
    }
    (folder / "pictures").mkdir(exist_ok=True)
    with progress_bar(len(train) + sum(map(len, held.values())), "picture") as progress:
        for scene in [*train, *held["bench"], *held["wild"]]:
            path = folder / "pictures" / f"{scene.id}.png"
            if not path.exists():
                draw(scene, 96).save(path.with_suffix(".part"), format="PNG", compress_level=1)
                path.with_suffix(".part").replace(path)
            progress.update()
    blank_picture(96).save(folder / "pictures" / BLANK)
    (folder / "records").mkdir(exist_ok=True)
    counts = dict(zip(TYPES, (scale.conversation, scale.detail, scale.complex)))
    for kind, count in counts.items():
        write_records([instruction_record(s, kind) for s in train[:count]], folder / "records" / f"{kind}.json")
    write_records([caption_record(s) for s in train[: scale.pairs]], folder / "records" / "caption.json")
    for name in ("coco", "wild"):
        write_bench(build_bench(name, scale.bench_scenes), folder / "bench" / name)
    rows = [
        {"image": f"{s.id}.png", **asdict(q)}
        for s, q in exact_questions("bench", scale.exact_scenes, scale.exact_per_kind)
    ]
    write_jsonl(rows, folder / "bench" / "exact.jsonl")
    some = held["bench"][: min(POPE_SCENES, scale.bench_scenes)]
    write_jsonl(build_pope([caps_boxes(s) for s in some]), folder / "bench" / "pope.jsonl")


def make_features(run: Run) -> None:
    """What the frozen vision tower sees in every picture, once for all stages and rows."""
    model = assemble(run.weights / "vision_tower", run.weights / "language_model", 0)
    names = sorted(p.name for p in (run.folder / "pictures").glob("*.png"))
    with progress_bar(len(names), "picture") as progress:
        features = Features.compute(
            model,
            run.folder / "pictures",
            names,
            *normalisation(run.weights / "vision_tower"),
            lambda done, _: progress.update(done - progress.n),
        )
    features.save(run.folder / "features.safetensors")


def load_parts(run_folder: Path, weights: Path, seed: int):
    model, tokenizer = (
        assemble(weights / "vision_tower", weights / "language_model", seed),
        load_tokenizer(weights / "language_model"),
    )
    return model, tokenizer, Features.load(run_folder / "features.safetensors")


def run_stage1(run: Run, seed: int) -> None:
    """Stage 1, feature alignment: W alone learns from caption pairs (section 4.2)."""
    scale, folder = run.scale, run.folder / f"seed-{seed}" / "stage1"
    model, tokenizer, features = load_parts(run.folder, run.weights, seed)
    samples = [encode(r, CHAT, tokenizer) for r in read_records(run.folder / "records" / "caption.json")]
    steps = len(samples) // scale.stage1_batch
    with progress_bar(steps, "step") as progress:
        train_stage(
            model,
            1,
            samples,
            features,
            folder,
            batch_size=scale.stage1_batch,
            steps=steps,
            lr=scale.stage1_lr,
            seed=seed,
            progress=loss_reporter(progress),
        )
    save_file(model.projector.state_dict(), folder / "projector.safetensors")


def records_of(folder: Path, row: str, scale: Scale) -> list[dict]:
    """The records that stage 2 of this row trains on."""
    if row == CAPTIONER:
        return read_records(folder / "records" / "caption.json")[: scale.conversation + scale.detail]
    out = []
    for kind, share in zip(TYPES, MIXTURES.get(row, (0, 0, 0))):
        records = read_records(folder / "records" / f"{kind}.json")
        out += records[: round(share * len(records))]
    return out


def steps_of(folder: Path, row: str, scale: Scale) -> int:
    return len(records_of(folder, row, scale)) // scale.stage2_batch * scale.stage2_epochs


def run_row(folder: Path, weights: Path, scale: Scale, seed: int, row: str) -> None:
    """Stage 2 of one row from stage 1's W, then its answers to everything. Runs in a process of its own."""
    torch.set_num_threads(1)
    home = folder / f"seed-{seed}" / slug(row)
    model, tokenizer, features = load_parts(folder, weights, seed)
    model.projector.load_state_dict(load_file(folder / f"seed-{seed}" / "stage1" / "projector.safetensors"))
    records = records_of(folder, row, scale)

    if records:
        samples = [encode(r, CHAT, tokenizer) for r in records]
        train_stage(
            model, 2, samples, features, home, batch_size=scale.stage2_batch, steps=steps_of(folder, row, scale),
            lr=scale.stage2_lr, lr_muon=scale.stage2_lr_muon, seed=seed, progress=still_wanted,
        )  # fmt: skip
    home.mkdir(parents=True, exist_ok=True)
    about = {"template": CHAT.name, "trained on": row, "seed": seed, "scale": scale.name}
    if row == FULL:
        save_trained(model, tokenizer, weights / "vision_tower", home / "model", about)
    model.eval()
    looks = CONDITIONS if row == FULL else {"": CONDITIONS[""]}  # the controls of the best row stand beside every score
    see = lambda name: None if name is None else features[name]  # noqa: E731
    questions = [(r.pop("image"), Question(**r)) for r in read_jsonl(folder / "bench" / "exact.jsonl")]
    for tag, look in looks.items():
        still_wanted()
        names = look([image for image, _ in questions])
        texts = answer(model, tokenizer, CHAT, [(q.text, see(n)) for n, (_, q) in zip(names, questions)], 40)
        write_jsonl(
            [{"image": i, "question": q.text, "key": q.key, "answer": t} for (i, q), t in zip(questions, texts)],
            home / f"exact{tag}.jsonl",
        )
        (home / f"exact{tag}.json").write_text(json.dumps(exact_match(questions, texts)))
        for bench in ("coco", "wild"):
            items = read_bench(folder / "bench" / bench)
            texts = answer(
                model, tokenizer, CHAT, [(i.text, see(n)) for i, n in zip(items, look([i.image for i in items]))]
            )
            rows = [{"question_id": i.question_id, "prompt": i.text, "text": t, "answer_id": f"{slug(row)}{tag}-{seed}-{i.question_id}",
                     "model_id": f"{row} (seed {seed})", "metadata": {}} for i, t in zip(items, texts)]  # fmt: skip
            write_jsonl(rows, home / f"answers-{bench}{tag}.jsonl")
        if row in POPE_ROWS:
            asked = read_jsonl(folder / "bench" / "pope.jsonl")
            names = look([q["image"] for q in asked])
            texts = answer(model, tokenizer, CHAT, [(q["text"], see(n)) for n, q in zip(names, asked)], 30)
            rows = [{"question_id": q["question_id"], "prompt": q["text"], "text": t} for q, t in zip(asked, texts)]
            write_jsonl(rows, home / f"pope{tag}.jsonl")
    (home / "done").touch()


def run_rows(run: Run, seed: int) -> None:
    """Stage 2 and answers for every row of Table 4 and for the caption-only baseline, as many at a time as there are cores."""
    homes = {row: run.folder / f"seed-{seed}" / slug(row) for row in ROWS}
    jobs = {homes[row]: (run_row, run.folder, run.weights, run.scale, seed, row) for row in ROWS}
    side_by_side(jobs, {homes[row]: steps_of(run.folder, row, run.scale) for row in ROWS})


def reviews_beside(answers: Path) -> Path:
    return answers.with_name(answers.name.replace("answers", "reviews"))


def run_judge(run: Run) -> None:
    """Reviews of every file of answers, in the authors' format."""
    for path in sorted(run.folder.glob("seed-*/*/answers-*.jsonl")):
        bench = "wild" if "wild" in path.stem else "coco"
        rows = read_jsonl(path)
        answers = {r["question_id"]: r["text"] for r in rows}
        reviews = judge_answers(read_bench(run.folder / "bench" / bench), answers, rows[0]["model_id"])
        write_jsonl(reviews, reviews_beside(path))


def run_paper(folder: Path, scale: Scale, seeds: int, weights: Path = WEIGHTS) -> Run:
    """All of it, up to the reviews. Raises RunError for a folder that cannot be used."""
    run = Run(folder, scale, seeds, weights)
    try:
        what = f"Section 3: {scale.pictures:,} pictures; a text-only teacher writes instruction data; benchmarks"
        run.do("data", what, lambda: make_data(run))
        run.do(
            "features", "Section 4.1: the frozen vision tower looks at every picture once", lambda: make_features(run)
        )
        for seed in run.seeds:
            what = f"Section 4.2, stage 1 (seed {seed}): feature alignment, only W learns"
            run.do(f"stage1-{seed}", what, partial(run_stage1, run, seed))
            what = f"Section 4.2, stage 2 (seed {seed}): W and the language model learn; six models answer"
            run.do(f"stage2-{seed}", what, partial(run_rows, run, seed))
        if not all(reviews_beside(path).exists() for path in run.folder.glob("seed-*/*/answers-*.jsonl")):
            run.state["seconds"].pop("judge", None)  # seeds were added
        run.do("judge", "Section 5.1: the judge reads captions, boxes and answers", lambda: run_judge(run))
    finally:
        run.lock.release()
    return run

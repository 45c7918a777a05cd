"""The whole paper in one run: data, stage 1, stage 2 of Table 4's rows, answers, judge; `report.py` reports on it.

`run_designs` asks Table 8's design choices of the chat data: the vision tower's layer, stage 1, the language model's
size. The paper asks them of ScienceQA (`science.py`). Answer first is a choice of ScienceQA's form alone, so it has no
row. Then stage 1 is asked for twice more (`WITHOUT`), where stage 2 has less in its hands.

    minillava paper                 # what `make demo` runs
    minillava paper --table 8       # the choices, after the quiz
"""

import random
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from minillava.data.records import IMAGE_TOKEN, write_records
from minillava.data.template import CHAT
from minillava.data.valid import read_records
from minillava.datagen.messages import TYPES
from minillava.experiments import study
from minillava.experiments.run import Run, still_wanted
from minillava.experiments.science import ANSWER_FIRST, VARIANTS
from minillava.experiments.study import CAPTIONS, Variant
from minillava.files import read_jsonl, write_json, write_jsonl
from minillava.judging.answers import CONDITIONS, OTHER_ORDER, answer, answer_segments
from minillava.judging.bench import read_bench, write_bench
from minillava.judging.pope import build_pope
from minillava.machine import progress_bar
from minillava.model.formats.assemble import save_trained
from minillava.paper import RECIPES
from minillava.scales import WEIGHTS, Scale
from minillava.scenes.captions import caps_boxes
from minillava.scenes.compose import scenes
from minillava.scenes.questions import Question, exact_match, is_correct
from minillava.standins.bench import SPLIT_OF, build_bench, exact_questions, judge_answers
from minillava.standins.records import caption_record, in_turns, instruction_record, interleaved

# Row of Table 4 -> the share of conversation, detail and complex-reasoning records that stage 2 trains on.
MIXTURES = {
    "Full data": (1.0, 1.0, 1.0),
    "Detail + Complex": (0.0, 1.0, 1.0),
    "Conv + 5% Detail + 10% Complex": (1.0, 0.05, 0.10),
    "Conversation": (1.0, 0.0, 0.0),
}
UNTUNED, CAPTIONER, FULL = "No Instruction Tuning", "Caption-only tuning", "Full data"
INTERLEAVED = "Interleaved tuning"  # several pictures with their captions to a record; asked behind EXAMPLES questions
EXAMPLES = 2  # of another picture, a question and its answer each
SHARED = 8  # questions have the same ones, which are then read once for all of them
ROWS = (*MIXTURES, UNTUNED, CAPTIONER, INTERLEAVED)
STANDS_FOR = {CAPTIONER: "BLIP-2", INTERLEAVED: "OpenFlamingo"}  # rows in the place of the paper's other models
SHUFFLED_ROW, AFTER_ROW = "Full data, pictures shuffled", "Full data, picture after the question"
CONTROLS = {SHUFFLED_ROW: "-shuffled", "Full data, pictures blank": "-blank", "Full data, text only": "-text"}
STAND_IN_CONTROLS = {
    f"{row}, pictures {what}": (row, f"-{what}") for row in STANDS_FOR for what in ("shuffled", "blank")
}  # asked the exact-match questions only
# Row that is not trained -> the row that answers, and under which of the CONDITIONS.
ASKED = {row: (FULL, tag) for row, tag in {AFTER_ROW: OTHER_ORDER, **CONTROLS}.items()} | STAND_IN_CONTROLS
POPE_ROWS = (FULL, UNTUNED, CAPTIONER)  # the rows that answer POPE's questions
POPE_SCENES = 50  # at most so many scenes are asked about
CHOICES = {row: variant for row, variant in VARIANTS.items() if row != ANSWER_FIRST}  # rows of Table 8
# Stage 1 once more, without -> with: where in stage 2 W learns at the paper's ratio of rates, and in a quarter of it.
RATIO = RECIPES["stage 2"].learning_rate / RECIPES["stage 1"].learning_rate
STAGE_1 = {"W at the paper's ratio": Variant(w_ratio=RATIO), "Short stage 2": Variant(part=0.25)}
WITHOUT = dict(zip(("No stage 1, W at the paper's ratio", "No stage 1, short stage 2"), STAGE_1))
DESIGNS = CHOICES | STAGE_1 | {row: replace(STAGE_1[other], start=None) for row, other in WITHOUT.items()}


def make_data(run: Run) -> None:
    """Pictures, instruction records of the three types, caption pairs, both benchmarks, the exact-match questions."""
    scale, records, bench = run.scale, run.folder / "records", run.folder / "bench"
    train = scenes("train", scale.pictures)
    held_out = scenes("bench", max(scale.bench_scenes, scale.exact_scenes))
    every = [*train, *held_out, *scenes("wild", scale.bench_scenes)]
    with progress_bar(len(every), "picture") as progress:
        study.draw_scenes(every, run.folder / "pictures", progress.update)
    for kind, count in zip(TYPES, (scale.conversation, scale.detail, scale.complex)):
        write_records([instruction_record(s, kind) for s in train[:count]], records / f"{kind}.json")
    write_records([caption_record(s) for s in train[: scale.pairs]], run.folder / CAPTIONS)
    for name in SPLIT_OF:
        write_bench(build_bench(name, scale.bench_scenes), bench / name)
    exact = exact_questions("bench", scale.exact_scenes, scale.exact_per_kind)
    write_jsonl([{"image": f"{s.id}.png", **asdict(q)} for s, q in exact], bench / "exact.jsonl")
    some = held_out[: min(POPE_SCENES, scale.bench_scenes)]
    write_jsonl(build_pope([caps_boxes(s) for s in some]), bench / "pope.jsonl")


def records_of(run: Run, row: str) -> list[dict]:
    """The records that stage 2 of this row trains on."""
    if row in STANDS_FOR:  # the same pictures and captions for both
        captions = read_records(run.folder / CAPTIONS)[: run.scale.conversation + run.scale.detail]
        return captions if row == CAPTIONER else interleaved(captions, EXAMPLES + 1)
    out = []
    for kind, share in zip(TYPES, MIXTURES.get(row, (0, 0, 0))):
        records = read_records(run.folder / "records" / f"{kind}.json")
        out += [part for r in records[: round(share * len(records))] for part in in_turns(r, run.scale.turns)]
    return out


def ask(run: Run, learner: tuple, row: str, control: str, questions: str, most: int) -> tuple[list[dict], list[str]]:
    """A file of questions, and a row's answers of at most so many tokens under one of the CONDITIONS."""
    (model, tokenizer, features), rows = learner, read_jsonl(run.folder / "bench" / questions)
    shown = study.looked_at(features, [row["image"] for row in rows], CONDITIONS[control])
    asked = [(row["text"], z) for row, z in zip(rows, shown)]
    if row == INTERLEAVED:
        return rows, answer_behind_examples(run, learner, asked, most)
    return rows, answer(model, tokenizer, CHAT, asked, most, after=control == OTHER_ORDER)


def answer_behind_examples(run: Run, learner: tuple, asked: list[tuple], most: int) -> list[str]:
    """Answers of a model that was taught no questions, prompted as OpenFlamingo is: behind EXAMPLES answered ones.

    asked: as in `answer`. An example is the first question of a training record, its picture and answer.
    """
    (model, tokenizer, features), prompts, pictures = learner, [], []
    records = read_records(run.folder / "records" / "conversation.json")
    for n, (question, z) in enumerate(asked):
        examples = random.Random(f"examples {n // SHARED}").sample(records, EXAMPLES)
        turns = [tuple(turn["value"] for turn in r["conversations"][:2]) for r in examples]
        prompts.append(CHAT.segments([*turns, (f"{IMAGE_TOKEN}\n{question}", None)]))
        pictures.append([*(features[r["image"]] for r in examples), z])
    return answer_segments(model, tokenizer, CHAT, prompts, pictures, most)


def answer_exact(run: Run, learner: tuple, row: str, control: str, home: Path) -> None:
    """The answers to the exact-match questions, each with whether it is right, and the accuracy of each kind."""
    asked, texts = ask(run, learner, row, control, "exact.jsonl", 40)
    questions = [(row.pop("image"), Question(**row)) for row in asked]
    rows = [
        {"image": image, "question": q.text, "kind": q.kind, "key": q.key, "answer": text, "right": is_correct(q, text)}
        for (image, q), text in zip(questions, texts)
    ]
    write_jsonl(rows, home / f"exact{control}.jsonl")
    write_json(home / f"exact{control}.json", exact_match(questions, texts))


def conditions_of(row: str) -> tuple[str, ...]:
    """The tags of the CONDITIONS under which a trained row answers."""
    return "", *(tag for trained, tag in ASKED.values() if trained == row)


def learn_row(run: Run, seed: int, row: str) -> None:
    """Stage 2 of one row from stage 1's W, then its answers to everything."""
    home, records = run.home(seed, row), records_of(run, row)
    learner = model, tokenizer, _ = study.load_learner(run, seed, Variant(), 2)
    if records:
        study.tune(run, seed, home, learner, records, Variant())
    if row == FULL:
        about = {"template": CHAT.name, "trained on": row, "seed": seed, "scale": run.scale.name}
        save_trained(model, tokenizer, run.weights / "vision_tower", home / "model", about)
    model.eval()
    for control in conditions_of(row):
        still_wanted()
        answer_exact(run, learner, row, control, home)
        if control and row != FULL:
            continue
        files = {f"answers-{bench}": (f"{bench}/questions.jsonl", 120) for bench in SPLIT_OF}
        files |= {"pope": ("pope.jsonl", 30)} if row in POPE_ROWS else {}
        for name, (questions, most) in files.items():
            asked, texts = ask(run, learner, row, control, questions, most)
            ids = [(question["question_id"], question["text"]) for question in asked]
            study.write_answers(home / f"{name}{control}.jsonl", f"{row}{control} (seed {seed})", ids, texts)


def review_files(run: Run) -> dict[Path, Path]:
    """Every file of answers to a LLaVA-Bench, and where its reviews are."""
    found = sorted(run.folder.glob("seed-*/*/answers-*.jsonl"))
    return {path: path.with_name(path.name.replace("answers", "reviews")) for path in found}


def run_judge(run: Run) -> None:
    """Reviews of every file of answers, in the authors' format."""
    for answers, reviews in review_files(run).items():
        items = read_bench(run.folder / "bench" / answers.stem.split("-")[1])
        write_jsonl(judge_answers(items, study.texts_of(answers), read_jsonl(answers)[0]["model_id"]), reviews)


def run_paper(folder: Path, scale: Scale, seeds: int, weights: Path = WEIGHTS) -> Run:
    """All of it, up to the reviews. Raises RunError for a folder that cannot be used."""
    with Run(folder, scale, seeds, weights) as run:
        what = f"Section 3: {scale.pictures:,} pictures; a text-only teacher writes instruction data; benchmarks"
        run.do("data", what, partial(make_data, run))
        steps = {row: study.steps_of(scale, len(records_of(run, row))) for row in ROWS}
        study.train_rows(run, dict.fromkeys(ROWS, Variant()), steps, learn_row, lambda row: len(conditions_of(row)))
        what, reviews = "Section 5.1: the judge reads captions, boxes and answers", review_files(run).values()
        run.do("judge", what, partial(run_judge, run), reviews)
    return run


def learn_choice(run: Run, seed: int, row: str) -> None:
    """Stage 2 of one of the DESIGNS on the full data, then its answers in both orders, and with others' pictures."""
    home, learner = run.home(seed, row), study.load_learner(run, seed, DESIGNS[row], 2)
    study.tune(run, seed, home, learner, records_of(run, FULL), DESIGNS[row])
    learner[0].eval()
    for control in ("", OTHER_ORDER, "-shuffled"):
        still_wanted()
        answer_exact(run, learner, row, control, home)


def run_designs(folder: Path, scale: Scale, seeds: int, weights: Path = WEIGHTS) -> Run:
    """The DESIGNS on the chat data. Raises RunError for a folder that cannot be used."""
    with Run(folder, scale, seeds, weights) as run:
        run.do("data", f"Table 8 on the chat data: {scale.pictures:,} pictures", partial(make_data, run))
        records = len(records_of(run, FULL))
        steps = {row: study.steps_of(scale, records, variant.part) for row, variant in DESIGNS.items()}
        study.train_rows(run, DESIGNS, steps, learn_choice)
    return run

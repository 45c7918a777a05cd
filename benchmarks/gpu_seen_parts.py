"""What `gpu_seen.py` trains on and asks: features, samples, questions; and the gates that its results must pass.

Everything is drawn and encoded before any training, by one process for each core: about 10 ms for a scene with its
two captions, five records and their encoding by two tokenizers.
"""

import multiprocessing
import os
import random
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from environment import describe_machine

from minillava.curves import CurveError, make_curve, read_losses, write_curve
from minillava.data.samples import Sample, encode, without_stop
from minillava.data.scienceqa import science_record
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.datagen.messages import TYPES
from minillava.files import read_json, write_json
from minillava.judging.answer_scienceqa import answer_problems
from minillava.judging.answers import BLANK, CONDITIONS, answer, blank_picture, vision_features
from minillava.judging.scienceqa import read_predictions
from minillava.model.formats.assemble import assemble, save_trained
from minillava.model.formats.chat_template import training_template
from minillava.model.formats.preparation import read_preparation
from minillava.scales import WEIGHTS
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw
from minillava.scenes.questions import Question, exact_match, is_correct
from minillava.standins.bench import ANSWER_COUNTS, exact_questions
from minillava.standins.quiz import problem, quiz
from minillava.standins.records import caption_record, in_turns, instruction_record, question_record
from minillava.standins.seeing import SINGLE
from minillava.standins.start import line_words, project_by_least_squares
from minillava.training.features import Features

VISION_TOWER, SIZE, FORMAT = WEIGHTS / "vision_tower", 96, "QCM-LEPA"
ORDERS, LOOKS = ("first", "after"), {"picture": "", "blank": "-blank", "shuffled": "-shuffled"}
KINDS = "colour", "side", "place", "existence"
WHATS = ("captions", "instructions", "quiz")

# Question -> accepted answers, as words of the answer. SmolLM2-135M-Instruct knew these 20 on a CPU, greedily.
KNOWLEDGE = {
    "What is the capital of France?": "paris",
    "What is the capital of Japan?": "tokyo",
    "What is the capital of Germany?": "berlin",
    "What is the capital of England?": "london",
    "What is the largest planet of the solar system?": "jupiter",
    "Which planet is known as the Red Planet?": "mars",
    "How many days are in a week?": "7 seven",
    "What is the boiling point of water in degrees Celsius?": "100 hundred",
    "What is the chemical formula of water?": "h2o h₂o",
    "What is the chemical symbol of gold?": "au",
    "What is the opposite of hot?": "cold cool",
    "Which animal gives us milk?": "cow cows",
    "Which organ pumps blood through the body?": "heart",
    "Which gas do plants take from the air?": "carbon co2 co₂",
    "Who wrote Romeo and Juliet?": "shakespeare",
    "Who painted the Mona Lisa?": "leonardo vinci",
    "Who invented the telephone?": "bell",
    "Who developed the theory of relativity?": "einstein",
    "Which language is spoken in Brazil?": "portuguese",
    "What is the currency of the United States?": "dollar dollars",
}

WORD_QUESTIONS = (
    "What is the meaning of the word {}?",
    "What do you know about {}?",
    "Tell me a fact about {}.",
    "Explain {} in one sentence.",
    "What is {} used for?",
    "Who knows most about {}?",
    "How many kinds of {} are there?",
    "Where does {} come from?",
    "When does one speak of {}?",
    "Which country is known for {}?",
    "Who first wrote about {}?",
    "How long does {} last?",
    "How many days does {} take?",
    "Which animal is most like {}?",
    "Which part of the body needs {}?",
    "What is {} made of?",
)


def preparation():
    """What the vision tower expects of a picture."""
    return read_preparation(VISION_TOWER, SIZE)


def records_of(scene, recipe, number: int) -> list[dict]:
    """The instruction records of a scene; in each the picture is before or after the first question, by a coin."""
    wanted = {kind for kind, every in zip(TYPES, recipe.every) if number % every == 0}
    out = [instruction_record(scene, kind) for kind in TYPES if kind in wanted]
    if "conversation" in wanted and number // recipe.every[0] % recipe.whole:
        out = [*in_turns(out[0], recipe.turns), *out[1:]]
    return out + [question_record(scene, n, SINGLE, recipe.after) for n in range(recipe.questions)]


@torch.no_grad()
def start_by_least_squares(model, tokenizer, recipe, features) -> None:
    """W from the boxes of some training scenes, on the CPU (`standins/start.py`); then back to its device."""
    device, some = next(model.parameters()).device, [compose("train", n) for n in range(recipe.boxes)]
    small = {f"{s.id}.png": features[f"{s.id}.png"].float().cpu() for s in some}
    project_by_least_squares(model.cpu(), tokenizer, some, small, line_words)
    model.to(device)


def held_out(recipe) -> int:
    """How many held-out pictures are asked about: enough to balance the answers."""
    return 8 * recipe.per_kind + 24


def make_part(recipe, models: dict[str, tuple], path: Path, part: int, parts: int) -> None:
    """One picture in `parts` as features, and its records as samples for each model, in a file; on one core.

    models: name -> (its language model's folder, its recipe).
    """
    torch.set_num_threads(1)
    train = {n: compose("train", n) for n in range(part, recipe.scenes, parts)}
    bench = [compose("bench", n) for n in range(part, held_out(recipe), parts)]
    learned, asked = ([problem(s, n) for n in range(part, c, parts)] for s, c in zip(("train", "test"), recipe.quiz))
    pictures = {f"{s.id}.png": draw(s, SIZE) for s in (*train.values(), *bench)}
    pictures |= {p.image: draw(s, SIZE) for p, s in (*learned, *asked) if s}
    pictures |= {BLANK: blank_picture(SIZE)} if part == 0 else {}
    model = assemble(VISION_TOWER, WEIGHTS / "language_model", 0)
    values = vision_features(model, preparation(), list(pictures.values()))
    out = {"names": list(pictures), "values": values.bfloat16()}
    for name, (folder, own) in models.items():
        records = {
            "captions": [caption_record(s, n) for s in train.values() for n in range(own.captions)],
            "instructions": [r for n, s in train.items() if n < own.scenes for r in records_of(s, own, n)],
            "quiz": [science_record(p, FORMAT) for p, _ in learned],
        }
        tokenizer, template = load_tokenizer(folder), training_template(folder)
        for what, some in records.items():
            samples = [encode(record, template, tokenizer) for record in some]
            flat = {key: torch.cat([getattr(s, key) for s in samples] or [torch.empty(0)]) for key in ("ids", "labels")}
            out[f"{name} {what}"] = flat | {"rows": [(s.id, len(s.ids), *s.images) for s in samples]}
    torch.save(out, path / f"{part:02}.pt")


def make_questions(recipe, path: Path) -> None:
    """The questions about held-out pictures, in a file; choosing them takes as long as drawing."""
    asked = exact_questions("bench", held_out(recipe), recipe.per_kind)
    write_json(path / "asked.json", [{"image": f"{scene.id}.png", **asdict(q)} for scene, q in asked])


def draw_all(recipe, models: dict[str, tuple], folder: Path) -> None:
    """Pictures and records into the folder, on all cores. Forked, which is quick: this process never meets the GPU."""
    cores = min(os.cpu_count() or 1, recipe.scenes // 8)
    with ProcessPoolExecutor(cores + 1, multiprocessing.get_context("fork")) as pool:
        asked = pool.submit(make_questions, recipe, folder)
        make = partial(make_part, recipe, models, folder, parts=cores)
        list(pool.map(make, range(cores)))
        asked.result()


def read_data(path: Path, name: str, device: str) -> tuple[Features, dict[str, list[Sample]], list]:
    """All features, on the device; the samples of a model; (picture, question) pairs to ask it."""
    parts = [torch.load(file, weights_only=True) for file in sorted(path.glob("*.pt"))]
    index = {image: n for n, image in enumerate(image for part in parts for image in part["names"])}
    samples = {what: [] for what in WHATS}
    for part in parts:
        for what, found in samples.items():
            flat = part[f"{name} {what}"]
            lengths = [length for _, length, *_ in flat["rows"]]
            texts = zip(flat["rows"], flat["ids"].split(lengths), flat["labels"].split(lengths))
            found += [Sample(row[0], ids, labels, tuple(row[2:])) for row, ids, labels in texts]
    asked = [(row.pop("image"), Question(**row)) for row in read_json(path / "asked.json")]
    return Features(index, torch.cat([part["values"] for part in parts]).to(device)), samples, asked


def ask_about_pictures(model, tokenizer, template, asked, features) -> tuple[dict, list[dict]]:
    """{order: {look: accuracy of each kind in per cent}}, and 20 answers to look at. asked: of `read_data`."""
    names, scores, examples = [name for name, _ in asked], {}, []
    for order in ORDERS:
        scores[order] = {}
        for look, tag in LOOKS.items():
            pairs = [(q.text, features[name]) for (_, q), name in zip(asked, CONDITIONS[tag](names))]
            texts = answer(model, tokenizer, template, pairs, 40, order == "after")
            scores[order][look] = exact_match(asked, texts)
            rows = zip(names, asked, texts)
            rows = [(n, order, q.text, q.answer, text, is_correct(q, text)) for n, (_, q), text in rows]
            examples += rows[:: max(1, len(rows) // 10)][:10] if look == "picture" else []
    keys = ("picture", "order", "question", "right answer", "answer", "is right")
    return scores, [dict(zip(keys, row)) for row in examples]


def ask_knowledge(model, tokenizer, template) -> list[dict]:
    """The answers to the plain questions, without a picture, in a template."""
    texts = answer(model, tokenizer, template, [(question, None) for question in KNOWLEDGE], 40)
    rows = zip(KNOWLEDGE.items(), texts)
    return [{"question": q, "answer": t, "right": bool({*words.split()} & {*re.findall(r"\w+", t.lower())})}
            for (q, words), t in rows]  # fmt: skip


def own_pairs(model, tokenizer, template, count: int) -> list[tuple[str, str]]:
    """Questions about words of the model's vocabulary, and its own answers, up to their last full sentence."""
    words = sorted(word[1:] for word in tokenizer.get_vocab() if re.fullmatch("Ġ[a-z]{5,}", word))
    chosen = random.Random("own answers").sample(words, min(count, len(words)))
    asked = [WORD_QUESTIONS[n % len(WORD_QUESTIONS)].format(word) for n, word in enumerate(chosen)]
    texts = answer(model, tokenizer, template, [(question, None) for question in asked], 40)
    texts = [(re.match(r"(?s).*[a-z]\.", text) or [""])[0] for text in texts]
    return [(question, text) for question, text in zip(asked, texts) if text and "<image>" not in text]


def own_answers(model, tokenizer, templates: list, count: int, copies: int) -> list[Sample]:
    """Text alone, to keep what the model knew. It answers in the first template, and learns the answers in all of them,
    each so many times."""
    samples = []
    for n, (question, text) in enumerate(own_pairs(model, tokenizer, templates[0], count)):
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": text}]
        for template in templates:
            record = without_stop({"id": f"own-{n}", "conversations": turns}, template.stop)
            samples.append(encode(record, template, tokenizer))
    return samples * copies


def ask_quiz(model, tokenizer, template, features, count: int) -> float:
    """The share of right letters, in per cent, among the first problems of the test split."""
    problems = quiz("test", count)
    shown = [features[p.image] if p.image else None for p in problems]
    texts = answer_problems(model, tokenizer, template, problems, shown, FORMAT)
    found, _ = read_predictions({p.id: p for p in problems}, {p.id: text for p, text in zip(problems, texts)})
    return round(100 * sum(found.get(p.id) == p.answer for p in problems) / count, 1)


def keep(job, model, tokenizer) -> None:
    """Write a small model with all that asking it needs, in half precision."""
    about = {"template": CHAT.name, "trained on": f"benchmarks/gpu_seen.py, {job.name}", "seed": job.seed}
    save_trained(model, tokenizer, VISION_TOWER, job.home / "model", about, torch.float16)


def gates_of(result: dict, recipe) -> list[dict]:
    """Each gate of one seed of `smol`: what was wanted, what was measured."""
    rows = []
    for order, scores in result.get("sight", {}).items():
        for kind in KINDS:
            rows.append((f"{kind}, picture {order}", ">=", recipe.seen, scores["picture"][kind]))
            for look in ("blank", "shuffled"):
                most = round(100 / ANSWER_COUNTS[kind] + recipe.above_chance, 1)
                rows.append((f"{kind}, picture {order}, {look}", "<=", most, scores[look][kind]))
    knowledge = result.get("knowledge", {})
    for when in [when for when in knowledge if when != "before"]:
        pairs = zip(knowledge["before"], knowledge[when])
        rows.append((f"lost {when}", "<=", recipe.lost, sum(b["right"] and not a["right"] for b, a in pairs)))
    if "quiz" in result:
        rows.append(("quiz", ">=", recipe.letters, result["quiz"]["right"]))
    keys = ("gate", "must be", "than", "measured", "passed")
    return [dict(zip(keys, (*row, row[3] >= row[2] if row[1] == ">=" else row[3] <= row[2]))) for row in rows]


def summary(out: Path, jobs: list, recipe, seconds: float) -> dict:
    """Everything so far, the gates of each seed; beside it the reference curves and the best seed's W, as files."""
    smol = [job.result for job in jobs if job.name == "smol" and job.result["done"]]
    gates = {r["seed"]: gates_of(r, recipe) for r in smol}
    plan = read_json(out / "plan.json")
    for stage in (1, 2) if not recipe.boxes else (2,):
        try:
            runs = [read_losses(out / f"smol-{r['seed']}" / f"stage{stage}") for r in smol]
            write_curve(make_curve(f"smol-stage{stage}", runs, plan["recipe"]["smol"]), out)
        except CurveError as error:
            print(f"no reference curve yet: {error}")
    if smol:
        best = max(smol, key=lambda r: sum(r["sight"][order]["picture"]["all"] for order in ORDERS))
        shutil.copy(out / f"smol-{best['seed']}" / "projector.safetensors", out / "projector.safetensors")
    return {"machine": describe_machine(), "seconds": round(seconds, 1), **plan, "gates": gates,
            "results": [job.result for job in jobs]}  # fmt: skip

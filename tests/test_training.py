"""Training: the schedule, what each stage trains, that a stopped run resumes bit for bit; how stand-ins are trained."""

import json
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import toy
from PIL import Image
from torch import nn

from minillava.data import IGNORE
from minillava.data.images import pixels
from minillava.data.samples import encode
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.files import read_jsonl
from minillava.model import LanguageConfig, LanguageModel, load_language
from minillava.model.formats.assemble import assemble
from minillava.model.formats.preparation import read_preparation
from minillava.scales import WEIGHTS
from minillava.scenes.captions import SYNONYMS
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw, topmost_things
from minillava.scenes.questions import EXACT_KINDS, questions
from minillava.scenes.world import KINDS
from minillava.standins import evaluation, language_model, text_lessons
from minillava.standins.records import caption_record, instruction_record
from minillava.training import checkpoints, parallel
from minillava.training.checkpoints import TrainingError, latest
from minillava.training.features import Features
from minillava.training.loop import fit
from minillava.training.optim import adam, cosine, muon
from minillava.training.stages import train_stage

# the schedule


def test_the_rate_rises_over_3_percent_then_falls_a_cosine_to_0():
    assert [cosine(t, 100) for t in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert cosine(3, 100) == 1.0 and cosine(3 + 97 // 2, 100) == pytest.approx(0.5, abs=0.01)
    assert 0 < cosine(99, 100) < 0.001
    factors = [cosine(t, 1000) for t in range(1000)]
    assert factors.index(max(factors)) in (29, 30) and factors[30:] == sorted(factors[30:], reverse=True)
    assert [cosine(0, steps) for steps in (1, 2, 10)] == [1, 1, 1]  # a run of one step learns


def test_the_schedule_scales_every_optimizers_own_rate():
    model = LanguageModel(LanguageConfig(61, 24, 40, num_layers=1, num_heads=4))
    optimizer = muon([model], lr=0.5, lr_adam=0.25)
    optimizer.step(0.5)
    assert [[g["lr"] for g in part.param_groups] for part in optimizer.optimizers] == [[0.25], [0.125]]
    optimizer.step(1.0)
    assert [[g["lr"] for g in part.param_groups] for part in optimizer.optimizers] == [[0.5], [0.25]]


def test_a_module_can_have_a_rate_of_its_own():
    model = LanguageModel(LanguageConfig(61, 24, 40, num_layers=1, num_heads=4))
    for optimizer in (muon([model], 0.5, 0.25), adam([model], 0.5)):
        optimizer.set_rate(model.layers[0].mlp, 0.125)
        optimizer.step(0.5)
        rates = {p: g["lr"] for part in optimizer.optimizers for g in part.param_groups for p in g["params"]}
        assert len(rates) == len(list(model.parameters()))
        mlp = set(model.layers[0].mlp.parameters())
        assert all((rate == 0.0625) == (p in mlp) for p, rate in rates.items())


def test_every_trainable_parameter_has_exactly_one_optimizer_and_muon_only_matrices_in_blocks():
    model = LanguageModel(LanguageConfig(61, 24, 40, num_layers=2, num_heads=4))
    model.norm.weight.requires_grad_(False)
    inner, outer = ([p for g in part.param_groups for p in g["params"]] for part in muon([model], 1, 1).optimizers)
    names = {id(p): name for name, p in model.named_parameters()}
    assert sorted(names[id(p)] for p in inner + outer) == sorted(n for n in names.values() if n != "norm.weight")
    assert {names[id(p)].split(".")[0] for p in inner} == {"layers"} and {p.ndim for p in inner} == {2}
    assert len(inner) == 2 * 7 and len(adam([model], 1).optimizers[0].param_groups[0]["params"]) == len(inner + outer)


# interrupted and resumed


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return toy.train(folder), (folder / "metrics.jsonl").read_text()


@pytest.mark.parametrize("stops", [(1,), (5,), (11,), (3, 4, 9)])
def test_a_run_interrupted_and_resumed_equals_an_uninterrupted_one_bit_for_bit(tmp_path, uninterrupted, stops):
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            toy.train(tmp_path, toy.stop_at(stop))
        assert latest(tmp_path)["step"] == stop
        with open(tmp_path / "metrics.jsonl", "a") as metrics:  # as after a kill: later steps, the last line incomplete
            metrics.write('{"step": 90, "loss": 9.0, "lr_factor": 1.0}\n{"step": 91, "lo')
    toy.assert_same(toy.train(tmp_path), uninterrupted[0])
    assert (tmp_path / "metrics.jsonl").read_text() == uninterrupted[1]


def test_an_interrupt_between_two_halves_of_an_update_is_not_kept(tmp_path, uninterrupted, monkeypatch):
    """Ctrl-C after Muon stepped and before Adam did: these weights belong to no step and must not be saved."""
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 1e9)

    def interrupted_between(optimizer):
        step = optimizer.optimizers[1].step

        def interrupted():
            if next(iter(optimizer.optimizers[1].state.values()), {}).get("step", 0) == 6:
                raise KeyboardInterrupt
            step()

        optimizer.optimizers[1].step = interrupted
        return optimizer

    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, wrap=interrupted_between)
    toy.assert_same(toy.train(tmp_path), uninterrupted[0])


def test_a_signal_in_the_middle_of_an_update_waits_for_its_end_and_the_step_is_kept(
    tmp_path, uninterrupted, monkeypatch
):
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 1e9)

    def signalled_between(optimizer):
        step, done = optimizer.optimizers[1].step, []

        def signalled():
            done.append(1)
            if len(done) == 6:
                signal.raise_signal(signal.SIGINT)
            step()

        optimizer.optimizers[1].step = signalled
        return optimizer

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins without one
    try:
        with pytest.raises(KeyboardInterrupt):
            toy.train(tmp_path, wrap=signalled_between)
        assert latest(tmp_path)["step"] == 6 and signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    toy.assert_same(toy.train(tmp_path), uninterrupted[0])


def test_a_finished_run_is_not_trained_again(tmp_path, uninterrupted):
    toy.train(tmp_path)
    toy.assert_same(toy.train(tmp_path, lambda *a: pytest.fail("trained again")), uninterrupted[0])


def test_another_recipe_in_the_folder_is_refused(tmp_path):
    toy.train(tmp_path, steps=2)
    for other, what in ((dict(seed=1, steps=2), "toy"), (dict(steps=3), "steps")):
        with pytest.raises(TrainingError, match=rf"another recipe \({what}\); remove the folder"):
            toy.train(tmp_path, **other)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_stops_the_run_with_its_step_and_keeps_the_weights_before(tmp_path, value):
    with pytest.raises(TrainingError, match=f"the loss of step 7 is {value}"):
        toy.train(tmp_path, change=lambda t, loss: loss * value if t == 7 else loss)
    assert latest(tmp_path)["step"] == 7 and all(w.isfinite().all() for w in toy.checkpoint_tensors(tmp_path).values())
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 7


def test_gradients_are_clipped_before_weights_change(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    norms, optimizer = [], adam([model], 0.1)
    step = optimizer.step
    optimizer.step = lambda factor: (norms.append(model.weight.grad.norm().item()), step(factor))
    fit(model, optimizer, lambda t: 1000 * model(torch.ones(1, 1)).sum(), 2, tmp_path, {})
    assert norms == pytest.approx([1, 1], rel=1e-4)


# the two stages, on real records and pictures


def untrained(weights):
    return assemble(weights / "vision_tower", weights / "language_model", seed=0)


@pytest.fixture(scope="module")
def school(weights, tmp_path_factory):
    """The parts of a tiny LLaVA, 24 pictures on disk, and their features."""
    folder, some = tmp_path_factory.mktemp("school"), scenes("train", 24)
    for scene in some:
        draw(scene, 96).save(folder / f"{scene.id}.png")
    model, tokenizer = untrained(weights), load_tokenizer(weights / "language_model")
    names = [f"{s.id}.png" for s in some]
    features = Features.compute(model, folder, names, read_preparation(weights / "vision_tower", 96), lambda *a: None)
    return weights, tokenizer, features, folder, some


@pytest.mark.parametrize("stage, muon_lr", [(1, 0.0), (2, 0.0), (2, 1e-3)])
def test_a_stage_trains_what_it_should_and_changes_nothing_else_by_a_bit(school, tmp_path, stage, muon_lr):
    weights, tokenizer, features, _, some = school
    moving = {"projector"} if stage == 1 else {"projector", "language_model"}
    model = untrained(weights)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    made = [caption_record(s) if stage == 1 else instruction_record(s, "conversation") for s in some]
    samples = [encode(r, CHAT, tokenizer) for r in made]
    losses = train_stage(model, stage, samples, features, tmp_path, batch_size=4, steps=6, lr=1e-2, lr_muon=muon_lr)
    assert len(losses) == 6 and (stage == 1 or losses[-1] < losses[0])
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) != (name.split(".")[0] in moving), name
    stored = [name.split("/")[1] for name in toy.checkpoint_tensors(tmp_path) if name.startswith("weights/")]
    assert {name.split(".")[0] for name in stored} == moving


def test_a_stage_interrupted_and_resumed_equals_an_uninterrupted_one_bit_for_bit(school, tmp_path):
    weights, tokenizer, features, _, some = school
    samples = [encode(instruction_record(s, "conversation"), CHAT, tokenizer) for s in some]

    def run(folder, progress=lambda *a: None, samples=samples, **changed):
        model = untrained(weights)
        settings = dict(batch_size=4, steps=5, lr=1e-2, lr_muon=1e-3, lr_w=1e-3, seed=3) | changed
        return train_stage(model, 2, samples, features, folder, progress=progress, **settings), model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", toy.stop_at(2))
    resumed = run(tmp_path / "parts")
    assert resumed[0] == whole[0] and all(torch.equal(resumed[1][k], whole[1][k]) for k in whole[1])
    for other in (dict(lr=2e-2), dict(lr_muon=2e-3), dict(seed=4), dict(steps=6), dict(batch_size=3)):
        with pytest.raises(TrainingError, match="another recipe"):
            run(tmp_path / "whole", **other)
    last = samples[-1]
    for change in (dict(images=samples[0].images), dict(labels=last.ids.clone()), dict(ids=last.ids.flip(0))):
        with pytest.raises(TrainingError, match="its records have changed"):
            run(tmp_path / "whole", samples=[*samples[:-1], replace(last, **change)])


def test_a_sample_learns_from_its_own_picture(school, tmp_path):
    """With two pictures' features exchanged the losses differ, so each sample gets the features of its own name."""
    weights, tokenizer, features, _, some = school
    samples = [encode(caption_record(s), CHAT, tokenizer) for s in some[:2]]
    names = [name for s in samples for name in s.images]
    exchanged = Features(dict(zip(names, [features.index[n] for n in reversed(names)], strict=True)), features.values)
    settings = dict(batch_size=2, steps=4, lr=0.1)  # an untrained vision tower tells pictures apart only a little
    one = train_stage(untrained(weights), 1, samples, features, tmp_path / "own", **settings)
    two = train_stage(untrained(weights), 1, samples, exchanged, tmp_path / "exchanged", **settings)
    assert one != two


def test_cached_features_equal_live_ones_to_rounding_and_are_the_same_after_saving(school, tmp_path):
    weights, _, features, folder, some = school
    model = untrained(weights)
    for scene in some[:5]:
        view = pixels([Image.open(folder / f"{scene.id}.png")], read_preparation(weights / "vision_tower", 96))
        live, kept = model.features(view)[0], features[f"{scene.id}.png"]
        assert kept.dtype == torch.float32 and kept.shape == live.shape
        torch.testing.assert_close(kept, live, rtol=0.03, atol=0.03)  # bfloat16 has 8 bits
        other = features[f"{some[-1].id}.png"]
        assert (kept - live).abs().mean() < 0.2 * (other - live).abs().mean()
    preparation = read_preparation(weights / "vision_tower", 96)
    Features.cached(tmp_path / "f.jsonl", model, folder, list(features.index), preparation, lambda *a: None)
    loaded = Features.load(tmp_path / "f.jsonl")
    assert loaded.index == features.index and torch.equal(loaded.values, features.values)


# the stand-ins


def test_the_language_models_records_tell_the_scene_in_words_and_never_show_a_picture():
    for step in (0, 60, 900):
        records = text_lessons.curriculum_records(step, 1000, 0)
        assert len(records) == text_lessons.BATCH_SIZE and records == text_lessons.curriculum_records(step, 1000, 0)
        for record in records:
            assert "image" not in record and "<image>" not in json.dumps(record)
            told, _, question = record["conversations"][0]["value"].rpartition("\n")
            assert question and any(kind in told for kind in KINDS)


@pytest.mark.parametrize("how", text_lessons.SCENE_FORMATS)
def test_every_way_to_tell_a_scene_names_all_its_things_with_their_colours(how):
    for n, scene in enumerate(scenes("dev", 50)):
        told = text_lessons.SCENE_FORMATS[how](scene, random.Random(n))
        for thing in scene.things:
            assert thing.colour in told and any(word in told for word in (thing.kind, *SYNONYMS)), (told, thing)


def test_half_of_the_things_that_the_language_model_is_asked_about_are_there():
    keys = Counter()
    for n, scene in enumerate(scenes("train", 300)):
        known = {q.text: q for q in questions(scene)}
        asked = text_lessons.choose_questions(scene, random.Random(n), EXACT_KINDS)
        assert len(dict(asked)) == len(asked) == text_lessons.QUESTIONS_PER_SCENE
        for text, answer in asked:
            assert known[text].answer == answer
            if known[text].kind in ("existence", "odd"):
                key = known[text].key
                keys[known[text].kind, key if key in ("yes", "no", "nothing") else "a thing"] += 1
    assert 0.8 < keys["existence", "yes"] / keys["existence", "no"] < 1.25, keys
    assert 0.5 < keys["odd", "a thing"] / keys["odd", "nothing"] < 2, keys  # two scenes in three have nothing odd


def test_a_patch_in_the_vision_towers_batch_is_named_after_the_topmost_thing_that_it_shows():
    scene = next(s for s in scenes("train", 200) if any(t.on is not None for t in s.things))
    cells, middle = topmost_things(scene, 8), [(2 * n + 1) * 500 // 8 for n in range(8)]
    assert set(cells) == {-1, *range(len(scene.things))}
    for cell, i in enumerate(cells):
        x, y = middle[cell % 8], middle[cell // 8]
        under = [t.box[0] <= x < t.box[2] and t.box[1] <= y < t.box[3] for t in scene.things]
        assert under[i] if i >= 0 else not any(under)
        if i >= 0 and scene.things[i].on is None:  # what stands on a thing is painted over it
            assert not any(here and t.on is not None for here, t in zip(under, scene.things))


def test_a_model_is_evaluated_during_training_and_no_step_twice(tmp_path):
    model, calls = torch.nn.Linear(1, 1), []

    def measure():
        assert not model.training and not torch.is_grad_enabled()
        calls.append(1)
        return {"figure": len(calls)}

    show = evaluation.with_evaluation(lambda *a: None, model, measure, tmp_path, 4)
    for step in (*range(1, 7), *range(4, 11)):  # stopped after 6 and resumed from a checkpoint at 3
        show(step, 10, 0.0)
    rows = [json.loads(line) for line in (tmp_path / "gates.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10] and model.training
    assert [row["figure"] for row in rows] == [1, 4, 5, 6, 7]


def test_a_course_pads_its_batches_to_few_sizes_and_the_loss_stays_the_same(tmp_path, monkeypatch):
    tokenizer, plain = load_tokenizer(WEIGHTS / "language_model_small"), language_model.kernels.in_few_sizes
    lessons = partial(language_model.later_lessons, steps=2, groups={"after": (3, 0.5), "letter": (3, 0.5)})
    sizes = []

    def wider(embeds, target, wanted, longest):
        sizes.append(embeds.shape[1])
        embeds, target = F.pad(embeds, (0, 0, 0, 5)), F.pad(target, (0, 5), value=IGNORE)
        return embeds, target, F.pad(wanted, (0, 5), value=True)  # rows that count nothing

    losses = []
    for name, form in (("plain", plain), ("wider", wider)):
        monkeypatch.setattr(language_model.kernels, "in_few_sizes", form)
        monkeypatch.setattr(language_model, "compute_dtype", lambda *_: torch.float32)
        model = load_language(WEIGHTS / "language_model_small").float()
        language_model.train_course(model, tokenizer, tmp_path / name, 2, lessons, lambda *_: {}, 1e-3)
        losses.append([row["loss"] for row in read_jsonl(tmp_path / name / "metrics.jsonl")])
    assert len(sizes) == 4 and losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("name", text_lessons.COURSES)
def test_a_course_has_its_records_in_the_promised_orders(name):
    steps, groups = text_lessons.COURSES[name]
    some = text_lessons.lessons(groups, steps - 1, steps, 0)
    assert some == text_lessons.lessons(groups, steps - 1, steps, 0) != text_lessons.lessons(groups, 0, steps, 0)
    assert [len(lesson.records) for lesson in some] == [count for count, _ in groups.values()]
    assert sum(lesson.share for lesson in some) == pytest.approx(1)
    for group, lesson in zip(groups, some):
        for record in lesson.records:
            assert "image" not in record
            lines = record["conversations"][0]["value"].split("\n")
            if group == "after":
                assert lines[0].strip("?.") and not lines[0].endswith("?")
            if group == "drill":
                assert lines[0].endswith("?") and record["conversations"][1]["value"]


def test_a_choices_letter_is_that_of_the_named_choice():
    rng = random.Random(0)
    for n in range(200):
        human, gpt = (turn["value"] for turn in text_lessons.choice_record(rng, n / 200)["conversations"])
        named = re.fullmatch(r"SOLUTION: (.*)\.\n###\nANSWER: ([A-E])\.", gpt)
        assert human.startswith(f"Take {named[1]}.\n") and f"({named[2]}) {named[1]}" in human


@pytest.mark.parametrize("sentence", [False, True])
def test_a_choice_can_be_named_behind_the_choices_alone(sentence):
    rng, lectures = random.Random(0), 0
    for n in range(200):
        record = text_lessons.unnamed_record(rng, n / 200, sentence)
        human, gpt = (turn["value"] for turn in record["conversations"])
        question, options = human.split("\n", 1)
        named, letter = re.search(r"(?s)^(.*)\n###\nANSWER: ([A-E])\.$", gpt).groups()
        right = re.search(rf"\({letter}\) (.*?)(?= \([A-E]\) |$)", options)[1].rstrip(".")
        assert question in text_lessons.ASKED and named.endswith(f"{right}.")
        lectures += named.startswith("LECTURE")
    assert (100 < lectures < 180) if sentence else lectures == 0


def test_loss_on_the_letter_alone(school):
    _, tokenizer, *_ = school
    sample = encode(text_lessons.letter_record(random.Random(3)), CHAT, tokenizer)
    kept = language_model.only_last(sample, 3)
    ids = sample.ids[sample.labels != IGNORE]
    assert kept.labels[kept.labels != IGNORE].tolist() == ids[-3:].tolist() and torch.equal(kept.ids, sample.ids)


def test_new_tokens_leave_the_old_ones_as_they_were():
    old, tokenizer = language_model.untrained(width=32, layers=2)
    grown, more = language_model.grow(old, tokenizer)
    assert len(more) == len(tokenizer) + len(language_model.NEW_TOKENS)
    ids = tokenizer("There is a red car.", return_tensors="pt").input_ids
    assert torch.equal(ids, more("There is a red car.", return_tensors="pt").input_ids)
    with torch.no_grad():
        before, after = (m.head(m(m.embed(ids))) for m in (old, grown))
    torch.testing.assert_close(after[..., : before.shape[-1]], before)
    parts = tokenizer("SOLUTION", add_special_tokens=False).input_ids
    row = grown.embed(torch.tensor([more.convert_tokens_to_ids("SOLUTION")]))[0]
    torch.testing.assert_close(row, old.embed(torch.tensor(parts)).mean(dim=0))
    for text in ("(B) blue", "The answer is B.", "ANSWER: B."):
        assert "B" in more.tokenize(text) and more.decode(more(text, add_special_tokens=False).input_ids) == text


def test_padding_carries_no_loss(school):
    _, tokenizer, _, _, some = school
    samples = [encode(instruction_record(s, "conversation"), CHAT, tokenizer) for s in some[:3]]
    ids, labels = language_model.pad_batch(samples)
    for row, sample in enumerate(samples):
        assert torch.equal(ids[row, : len(sample.ids)], sample.ids)
        assert torch.equal(labels[row, : len(sample.ids)], sample.labels)
        assert (labels[row, len(sample.ids) :] == IGNORE).all()


def squares(t):  # at module level, where a spawned process finds it by its name
    return torch.tensor([t, t * t])


def test_prefetched_batches_are_the_batches_from_any_step():
    ahead = parallel.Prefetch(squares, 9)
    assert [ahead(t).tolist() for t in range(4, 9)] == [[t, t * t] for t in range(4, 9)]
    with pytest.raises(StopIteration):  # and none beyond the last step
        ahead(9)


def test_a_second_process_ends_with_its_last_batch_so_that_the_next_one_does_not_inherit_it():
    code = """if 1:
        from minillava.training.parallel import Prefetch
        for n in range(4):
            ahead = Prefetch(str, 3)
            print([ahead(t) for t in range(3)])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.count("['0', '1', '2']") == 4  # it said "can only test a child process"

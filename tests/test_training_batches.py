"""A batch in parts, packed, computed again or with LoRA: each way gives the same loss and the same gradients."""

import copy
import threading
import time
from functools import partial

import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st

from minillava.data import IGNORE, IMAGE
from minillava.data.samples import divide, fill_rate, plan
from minillava.model import Batch, SpliceError, set_trainable
from minillava.training import loop, lora, parallel, stages
from minillava.training.checkpoints import TrainingError
from minillava.training.stages import recompute, train_stage


def batch_of(samples, seen):
    return Batch(
        [s.ids for s in samples], [s.labels for s in samples], [[seen[s.image]] if s.image else [] for s in samples]
    )


def grown(model, loss):
    """The loss, and the gradient of every parameter that trains."""
    model.zero_grad()
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def alike(one, two, tolerance=1e-5):
    assert one[0] == pytest.approx(two[0], abs=tolerance)
    assert one[1].keys() == two[1].keys()
    for name in one[1]:
        torch.testing.assert_close(one[1][name], two[1][name], atol=tolerance, rtol=1e-4)


# dividing a batch

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=30)


@given(LENGTHS, st.integers(0, 120), st.booleans(), st.integers(1, 4))
def test_every_sample_is_in_one_part_none_exceeds_the_budget_and_all_processes_have_as_many(
    lengths, tokens, packed, ranks
):
    parts = divide(lengths, list(range(len(lengths))), tokens, packed, ranks)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    assert len(parts) % ranks == 0 and all(parts[: min(ranks, len(parts) - ranks + 1)])
    for part in parts:
        size = sum(lengths[i] for i in part) if packed else max((lengths[i] for i in part), default=0) * len(part)
        assert tokens == 0 or size <= tokens or len(part) == 1


def test_several_get_parts_of_like_size():
    sizes = [list(map(len, divide([10] * 7, list(range(7)), tokens, ranks=ranks))) for tokens, ranks in ((30, 1), (30, 2), (0, 3), (0, 8))]  # fmt: skip
    assert sizes == [[3, 3, 1], [2, 2, 2, 1], [3, 3, 1], [1] * 7 + [0]]


@given(st.lists(st.integers(20, 400), min_size=4, max_size=40), st.integers(800, 6000), st.integers(2, 4))
def test_no_part_is_larger_than_it_need_be_for_so_many_parts(lengths, tokens, ranks):
    everything = list(range(len(lengths)))
    full, parts = (divide(lengths, everything, tokens, ranks=n) for n in (1, ranks))
    assert len(parts) == len(full) + -len(full) % ranks  # no step more than full parts need
    sizes = [max((lengths[i] for i in part), default=0) * len(part) for part in parts]
    if max(sizes) > max(lengths):
        assert len(divide(lengths, everything, max(sizes) - 1)) > len(parts)


def test_two_processes_share_a_batch_of_two_full_parts_and_not_one_of_28_and_one_of_4():
    lengths = [140 + n for n in range(32)]
    assert list(map(len, divide(lengths, list(range(32)), 4096))) == [23, 9]
    assert list(map(len, divide(lengths, list(range(32)), 4096, ranks=2))) == [15, 17]


def test_packing_fills_what_padding_leaves_empty():
    lengths = [60, 50, 40, 30, 20, 10] * 4
    everything = list(range(24))
    padded, packed = divide(lengths, everything, 128), divide(lengths, everything, 128, packed=True)
    assert len(packed) < len(padded) and fill_rate(lengths, packed, packed=True) == 1.0
    unsorted = [everything[n : n + 4] for n in range(0, 24, 4)]
    assert fill_rate(lengths, unsorted) < 0.8 < fill_rate(lengths, padded) <= 1.0
    assert fill_rate([10, 5], [[0, 1]]) == 0.75


def test_an_epoch_with_an_uneven_last_batch_leaves_no_sample_out():
    batches = plan([3] * 10, 4, 6, seed=0, uneven=True)
    for epoch in (batches[:3], batches[3:]):
        assert sorted(map(len, epoch)) == [2, 4, 4] and sorted(i for b in epoch for i in b) == list(range(10))


# the same loss and gradients


@pytest.mark.parametrize("text_only", [(), (2,), (0, 1, 2, 3, 4)])
def test_packed_equals_separate(text_only):
    model, (samples, seen) = toy.pupil(), toy.lessons(5, text_only=text_only)
    batch = batch_of(samples, seen)
    packed, separate = grown(model, model(batch, packed=True)[0]), grown(model, model(batch)[0])
    alike(packed, separate)
    parts, total = [model(batch_of([s], seen)) for s in samples], model(batch)[1]
    assert packed[0] == pytest.approx(sum(loss.item() * count for loss, count in parts) / total, abs=1e-5)


def test_in_a_pack_no_sample_sees_another():
    """A change in the first sample changes the packed loss by what it changes alone."""
    model, (samples, seen) = toy.pupil(), toy.lessons(3)
    changed = copy.deepcopy(samples)
    changed[0].ids[4] = (changed[0].ids[4] + 1) % 61
    alone = [(loss.item() * n) for loss, n in (model(batch_of(s[:1], seen)) for s in (changed, samples))]
    packed = [(loss.item() * n) for loss, n in (model(batch_of(s, seen), packed=True) for s in (changed, samples))]
    assert packed[0] - packed[1] == pytest.approx(alone[0] - alone[1], abs=1e-4) and abs(alone[0] - alone[1]) > 1e-3


def stage(folder, samples, seen, model=None, **more):
    """(losses, weights) of two steps of stage 2 with 32 samples each."""
    model = model or toy.pupil()
    settings = dict(batch_size=32, steps=2, lr=1e-2, dtype=torch.float32) | more
    return train_stage(model, 2, samples, seen, folder, **settings), dict(model.named_parameters())


@pytest.mark.parametrize("more", [dict(tokens=8 * 33), dict(tokens=100), dict(tokens=200, packed=True)])
def test_one_batch_of_32_equals_its_parts_one_after_another(tmp_path, monkeypatch, more):
    monkeypatch.setattr(stages, "adam", toy.sgd)
    samples, seen = toy.lessons(64, text_only=(3, 40))
    whole, parts = (stage(tmp_path / str(n), samples, seen, lr=1.0, **how) for n, how in enumerate(({}, more)))
    assert whole[0] == pytest.approx(parts[0], abs=2e-5)
    for name, p in whole[1].items():
        torch.testing.assert_close(parts[1][name], p, atol=1e-5, rtol=1e-5)


def test_parts_on_cores_of_their_own_are_the_same_step_whoever_is_first(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "adam", toy.sgd)
    samples, seen = toy.lessons(64, text_only=(3, 40))
    whole, *apart = (
        stage(tmp_path / str(n), samples, seen, lr=1.0, tokens=100, cores=cores) for n, cores in enumerate((1, 3, 3))
    )
    assert apart[0][0] == apart[1][0] == pytest.approx(whole[0], abs=2e-5)
    for name, p in whole[1].items():
        assert torch.equal(apart[0][1][name], apart[1][1][name]), name
        torch.testing.assert_close(apart[0][1][name], p, atol=1e-5, rtol=1e-5)


def test_gradients_are_added_in_the_order_of_the_parts(monkeypatch):
    model, (samples, seen) = toy.pupil(), toy.lessons(6)
    set_trainable(model, 2)
    parts = [lambda s=s: model(batch_of([s], seen))[0] for s in samples]
    found = {}
    for cores in (1, 4):
        model.zero_grad()
        late = [lambda part=part, n=n: (time.sleep(0.02 * (6 - n)), part())[1] for n, part in enumerate(parts)]
        found[cores] = (
            loop.gradients(model, toy.sgd([model], 1.0), late, cores),
            [p.grad.clone() for p in model.parameters() if p.requires_grad],
        )
    assert found[1][0] == found[4][0]
    assert all(torch.equal(a, b) for a, b in zip(found[1][1], found[4][1], strict=True))


def test_as_many_parts_are_at_work_as_there_are_cores_on_one_each_and_what_fails_in_one_is_raised():
    together, threads = threading.Barrier(3, timeout=20), []
    before = torch.get_num_threads(), threading.active_count()

    def work():
        together.wait()  # breaks unless three are here at the same time
        threads.append(torch.get_num_threads())

    assert list(parallel.on_cores([work] * 6, 3)) == [None] * 6 and threads == [1] * 6
    model = toy.pupil()
    with pytest.raises(SpliceError, match="sample 0: 1 image tokens but 0 pictures"):
        bad = partial(model, Batch([torch.tensor([IMAGE, 1])], [torch.tensor([IGNORE, 1])], [[]]))
        loop.gradients(model, toy.sgd([model], 1.0), [lambda: bad()[0]] * 3, 2)
    assert (torch.get_num_threads(), threading.active_count()) == before


def test_only_a_small_model_on_a_cpu_takes_parts_on_cores_of_their_own(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    model = toy.pupil()
    assert stages.cores_apart(model) == 6
    assert stages.cores_apart(model.to("meta")) == 1
    monkeypatch.setattr(stages, "SMALL", 100)
    assert stages.cores_apart(toy.pupil()) == 1


@pytest.mark.parametrize("cores", [1, 2])
def test_interrupted_and_gone_on_with_on_several_cores_it_ends_the_same(tmp_path, cores):
    samples, seen = toy.lessons(64)
    settings = dict(steps=6, tokens=100, batch_size=16, cores=cores)
    straight = stage(tmp_path / "a", samples, seen, **settings)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "b", samples, seen, progress=toy.stop_at(3), **settings)
    again = stage(tmp_path / "b", samples, seen, **settings)
    assert straight[0] == again[0]
    assert all(torch.equal(again[1][name], p) for name, p in straight[1].items())


def test_parts_are_weighted_by_their_labels_not_alike(tmp_path):
    samples, seen = toy.lessons(4)
    model, first = toy.pupil(), []
    for s in samples:
        loss, count = model(batch_of([s], seen))
        first.append((loss.item(), count))
    losses, _ = stage(tmp_path, samples, seen, batch_size=4, steps=1, tokens=1)
    mean = sum(loss * count for loss, count in first) / sum(count for _, count in first)
    assert losses[0] == pytest.approx(mean, abs=2e-5)
    assert abs(losses[0] - sum(loss for loss, _ in first) / 4) > 1e-4  # which would be the plain mean of parts


def test_activations_computed_again_change_nothing_and_keep_less():
    samples, seen = toy.lessons(6)
    kept = {}
    results = {}
    for again in (False, True):
        model = toy.pupil()
        set_trainable(model, 2)
        if again:
            recompute(model)
        sizes = []
        pack = lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1]  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = model(batch_of(samples, seen))[0]
        kept[again] = sum(sizes)
        results[again] = grown(model, loss)
    assert results[True][0] == results[False][0] and kept[True] < 0.6 * kept[False]
    for name, grad in results[False][1].items():
        assert torch.equal(results[True][1][name], grad), name


def test_what_goes_wrong_names_the_records_of_the_batch(tmp_path):
    samples, seen = toy.lessons(4)
    seen["0.png"] = seen["0.png"] * torch.nan
    with pytest.raises(TrainingError, match="loss of step 0 is nan; .* its records are lesson-"):
        stage(tmp_path, samples, seen, batch_size=4)


def test_a_sample_that_cannot_be_used_is_named_by_its_record(tmp_path):
    samples, seen = toy.lessons(4)
    samples[2].ids[5] = 61
    with pytest.raises(
        SpliceError, match="sample lesson-2: token id 61 is outside the vocabulary of 61; use the tokenizer"
    ):
        stage(tmp_path, samples, seen, batch_size=4)


# LoRA


def test_lora_starts_as_the_model_trains_only_itself_and_w_and_merges_to_the_same(tmp_path):
    samples, seen = toy.lessons(8)
    model, batch = toy.pupil(), batch_of(samples, seen)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start = model(batch)[0].item()
    lora.add(model, rank=4)
    assert model(batch)[0].item() == start
    stage(tmp_path, samples, seen, model, batch_size=8, steps=4)
    trained = model(batch)[0].item()
    assert trained < start - 0.01
    lora.save_adapters(model, tmp_path / "adapter.safetensors")
    moved = {n for n, t in model.state_dict().items() if n in before and not torch.equal(t, before[n])}
    assert moved == {"projector.weight", "projector.bias"} and len(lora.adapters(model)) == 2 * 2 * 7

    again = toy.pupil()
    again.projector.load_state_dict(model.projector.state_dict())
    lora.add(again, rank=4)
    lora.load_adapters(again, tmp_path / "adapter.safetensors")
    assert again(batch)[0].item() == trained
    lora.merge(again)
    assert again.state_dict().keys() == before.keys() and again(batch)[0].item() == pytest.approx(trained, abs=1e-5)
    other = toy.pupil()
    lora.add(other, rank=2)
    with pytest.raises(ValueError, match="not the adapters of this model and rank"):
        lora.load_adapters(other, tmp_path / "adapter.safetensors")


def test_lora_keeps_frozen_matrices_as_the_device_calculates_and_computes_the_same_by_a_bit():
    samples, seen = toy.lessons(6)
    batch, results = batch_of(samples, seen), []
    for dtype in (torch.float32, torch.bfloat16):
        model = toy.pupil()
        torch.manual_seed(1)
        lora.add(model, rank=4, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            results.append(grown(model, model(batch)[0]))
    assert results[0][0] == results[1][0] and len(results[0][1]) == 2 + 2 * 2 * 7
    assert all(torch.equal(grad, results[1][1][name]) for name, grad in results[0][1].items())
    halves = [n for n, p in model.language_model.named_parameters() if p.dtype == torch.bfloat16]
    assert len(halves) == 2 * 7 + 1 and all(".base." in name or name == "lm_head.weight" for name in halves)
    lora.merge(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}

"""A batch in parts, with activations recomputed or with LoRA: loss and gradients are the same every way."""

import threading
import time
from functools import partial

import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from minillava.data import IGNORE, IMAGE
from minillava.data.samples import fill_rate, micro_batches, plan_batches
from minillava.model import Batch, SpliceError, set_trainable
from minillava.training import loop, lora, parallel, stages
from minillava.training.checkpoints import TrainingError
from minillava.training.stages import recompute_activations, train_stage


def batch_of(samples, seen):
    return Batch(
        [s.ids for s in samples], [s.labels for s in samples], [[seen[name] for name in s.images] for s in samples]
    )


def loss_and_gradients(model, loss):
    """The loss, and the gradient of every parameter that trains."""
    model.zero_grad()
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def assert_close(one, two, tolerance=1e-5):
    assert one[0] == pytest.approx(two[0], abs=tolerance)
    assert one[1].keys() == two[1].keys()
    for name in one[1]:
        torch.testing.assert_close(one[1][name], two[1][name], atol=tolerance, rtol=1e-4)


# dividing a batch

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=30)


def padded_size(lengths, part):
    return max((lengths[i] for i in part), default=0) * len(part)


def parts_needed(lengths, tokens):
    """How many parts of at most `tokens` a batch takes if each is full before the next begins."""
    count = longest = held = 0
    for length in sorted(lengths, reverse=True):
        if not count or longest * (held + 1) > tokens:
            count, longest, held = count + 1, length, 0
        held += 1
    return count


@given(LENGTHS, st.integers(0, 120), st.integers(1, 4))
def test_every_sample_is_in_one_part_none_exceeds_the_budget_and_all_ranks_have_equally_many(lengths, tokens, ranks):
    parts = micro_batches(lengths, list(range(len(lengths))), tokens, ranks)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    assert len(parts) % ranks == 0 and all(parts[: min(ranks, len(parts) - ranks + 1)])
    for part in parts:
        assert tokens == 0 or padded_size(lengths, part) <= tokens or len(part) == 1


def test_one_process_and_many_get_parts_of_similar_size():
    cases = ((50, 1, [4, 4]), (30, 1, [3, 3, 2]), (30, 2, [2, 2, 2, 2]), (0, 3, [3, 3, 2]), (0, 9, [1] * 8 + [0]))
    for tokens, ranks, sizes in cases:
        assert list(map(len, micro_batches([10] * 8, list(range(8)), tokens, ranks))) == sizes


@given(st.lists(st.integers(20, 400), min_size=4, max_size=40), st.integers(800, 6000), st.integers(1, 4))
def test_no_part_is_larger_than_that_number_of_parts_needs(lengths, tokens, ranks):
    parts, full = micro_batches(lengths, list(range(len(lengths))), tokens, ranks), parts_needed(lengths, tokens)
    assert len(parts) == full + -full % ranks  # no more steps than full parts need
    largest = max(padded_size(lengths, part) for part in parts)
    if largest > max(lengths):
        assert parts_needed(lengths, largest - 1) > len(parts)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_batch_slightly_too_large_is_in_two_similar_parts(ranks):
    lengths = [140 + n for n in range(32)]
    assert list(map(len, micro_batches(lengths, list(range(32)), 4096, ranks))) == [15, 17]


def test_parts_of_like_lengths_fill_what_padding_wastes():
    lengths, everything = [60, 50, 40, 30, 20, 10] * 4, list(range(24))
    unsorted = [everything[n : n + 4] for n in range(0, 24, 4)]
    assert fill_rate(lengths, unsorted) < 0.8 < fill_rate(lengths, micro_batches(lengths, everything, 128)) <= 1.0
    assert fill_rate([10, 5], [[0, 1]]) == 0.75


def test_an_epoch_with_an_uneven_last_batch_contains_every_sample():
    batches = plan_batches([3] * 10, 4, 6, seed=0, uneven=True)
    for epoch in (batches[:3], batches[3:]):
        assert sorted(map(len, epoch)) == [2, 4, 4] and sorted(i for b in epoch for i in b) == list(range(10))


# the same loss and gradients


@pytest.mark.parametrize("text_only", [(), (2,), (0, 1, 2, 3, 4)])
def test_a_batch_equals_its_samples_apart(text_only):
    model, (samples, seen) = toy.tiny_llava(), toy.tiny_samples(5, text_only=text_only)
    set_trainable(model, 2)
    loss, total = model(batch_of(samples, seen))
    together = loss_and_gradients(model, loss)
    apart = [model(batch_of([s], seen)) for s in samples]
    assert_close(together, loss_and_gradients(model, sum(loss * count for loss, count in apart) / total))


def test_the_cpu_never_waits_for_the_numbers_of_a_gpu():
    """On the device "meta" tensors have no numbers, so whatever needs one (`.item()`, `x[mask]`) raises."""
    samples, seen = toy.tiny_samples(6, text_only=(2,))
    with torch.device("meta"):
        model = toy.tiny_llava()
    set_trainable(model, 2)
    loss, count = model(batch_of(samples, seen))
    loss.backward()
    assert loss.device.type == "meta" and count > 6 and model.projector.weight.grad is not None


def stage(folder, samples, seen, model=None, **more):
    """(losses, weights) of two steps of stage 2 with 32 samples each."""
    model = model or toy.tiny_llava()
    settings = dict(batch_size=32, steps=2, lr=1e-2, dtype=torch.float32) | more
    return train_stage(model, 2, samples, seen, folder, **settings), dict(model.named_parameters())


@pytest.mark.parametrize("more", [dict(tokens=8 * 33), dict(tokens=100)])
def test_one_batch_of_32_equals_its_parts_one_after_another(tmp_path, monkeypatch, more):
    monkeypatch.setattr(stages, "adam", toy.sgd)
    samples, seen = toy.tiny_samples(64, text_only=(3, 40))
    whole, parts = (stage(tmp_path / str(n), samples, seen, lr=1.0, **how) for n, how in enumerate(({}, more)))
    assert whole[0] == pytest.approx(parts[0], abs=2e-5)
    for name, p in whole[1].items():
        torch.testing.assert_close(parts[1][name], p, atol=1e-5, rtol=1e-5)


def test_parts_on_several_cores_are_the_same_step_every_time(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "adam", toy.sgd)
    samples, seen = toy.tiny_samples(64, text_only=(3, 40))
    whole, *apart = (
        stage(tmp_path / str(n), samples, seen, lr=1.0, tokens=100, cores=cores) for n, cores in enumerate((1, 3, 3))
    )
    assert apart[0][0] == apart[1][0] == pytest.approx(whole[0], abs=2e-5)
    for name, p in whole[1].items():
        assert torch.equal(apart[0][1][name], apart[1][1][name]), name
        torch.testing.assert_close(apart[0][1][name], p, atol=1e-5, rtol=1e-5)


def test_gradients_are_added_in_the_order_of_the_parts(monkeypatch):
    """Whichever part ends first, the sum equals that of one part after another on one core. (Two threads would split
    small matrix products, which then round differently: the promise is for parts on one core each.)"""
    model, (samples, seen) = toy.tiny_llava(), toy.tiny_samples(6)
    set_trainable(model, 2)
    parts = [lambda s=s: model(batch_of([s], seen))[0] for s in samples]
    found, threads = [], torch.get_num_threads()
    for cores, wait in ((1, lambda n: 0), (4, lambda n: 0.02 * (6 - n)), (4, lambda n: 0.02 * n), (3, lambda n: 0.01)):
        model.zero_grad()
        late = [lambda part=part, n=n, wait=wait: (time.sleep(wait(n)), part())[1] for n, part in enumerate(parts)]
        torch.set_num_threads(1)
        try:
            value = loop.accumulate_gradients(model, toy.sgd([model], 1.0), late, cores)
        finally:
            torch.set_num_threads(threads)
        found.append((value, [p.grad.clone() for p in model.parameters() if p.requires_grad]))
    for value, gradients in found[1:]:
        assert value == found[0][0]
        assert all(torch.equal(a, b) for a, b in zip(gradients, found[0][1], strict=True))


def test_as_many_parts_run_at_once_as_there_are_cores_each_on_one_and_an_error_in_one_is_raised():
    together, threads = threading.Barrier(3, timeout=20), []
    before = torch.get_num_threads(), threading.active_count()

    def work():
        together.wait()  # raises unless three are here at the same time
        threads.append(torch.get_num_threads())

    assert list(parallel.on_cores([work] * 6, 3)) == [None] * 6 and threads == [1] * 6
    model = toy.tiny_llava()
    with pytest.raises(SpliceError, match="sample 0: 1 image tokens but 0 pictures"):
        bad = partial(model, Batch([torch.tensor([IMAGE, 1])], [torch.tensor([IGNORE, 1])], [[]]))
        loop.accumulate_gradients(model, toy.sgd([model], 1.0), [lambda: bad()[0]] * 3, 2)
    assert (torch.get_num_threads(), threading.active_count()) == before


def test_only_a_small_model_on_a_cpu_uses_a_core_per_part(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    model = toy.tiny_llava()
    assert stages.useful_cores(model) == 6
    assert stages.useful_cores(model.to("meta")) == 1
    monkeypatch.setattr(stages, "SMALL_MODEL", 100)
    assert stages.useful_cores(toy.tiny_llava()) == 1


@pytest.mark.parametrize("cores", [1, 2])
def test_on_several_cores_interrupted_and_resumed_equals_uninterrupted(tmp_path, cores):
    samples, seen = toy.tiny_samples(64)
    settings = dict(steps=6, tokens=100, batch_size=16, cores=cores)
    straight = stage(tmp_path / "a", samples, seen, **settings)
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "b", samples, seen, progress=toy.stop_at(3), **settings)
    again = stage(tmp_path / "b", samples, seen, **settings)
    assert straight[0] == again[0]
    assert all(torch.equal(again[1][name], p) for name, p in straight[1].items())


def test_parts_are_weighted_by_their_labels(tmp_path):
    samples, seen = toy.tiny_samples(4)
    model, first = toy.tiny_llava(), []
    for s in samples:
        loss, count = model(batch_of([s], seen))
        first.append((loss.item(), count))
    losses, _ = stage(tmp_path, samples, seen, batch_size=4, steps=1, tokens=1)
    mean = sum(loss * count for loss, count in first) / sum(count for _, count in first)
    assert losses[0] == pytest.approx(mean, abs=2e-5)
    assert abs(losses[0] - sum(loss for loss, _ in first) / 4) > 1e-4  # the plain mean of parts


def test_recomputed_activations_change_nothing_and_keep_less():
    samples, seen = toy.tiny_samples(6)
    sizes, kept, results = [], {}, {}
    for recomputed in (False, True):
        model = toy.tiny_llava()
        set_trainable(model, 2)
        if recomputed:
            recompute_activations(model)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            loss = model(batch_of(samples, seen))[0]
        kept[recomputed] = sum(sizes)
        results[recomputed] = loss_and_gradients(model, loss)
        sizes.clear()
    assert results[True][0] == results[False][0] and kept[True] < 0.6 * kept[False]
    for name, grad in results[False][1].items():
        assert torch.equal(results[True][1][name], grad), name


def test_a_loss_that_is_not_finite_names_the_records_of_the_batch(tmp_path):
    samples, seen = toy.tiny_samples(4)
    seen.values[seen.index["0.png"]] *= torch.nan
    with pytest.raises(TrainingError, match="loss of step 0 is nan; .* its records are lesson-"):
        stage(tmp_path, samples, seen, batch_size=4)


def test_a_sample_that_cannot_be_used_is_named_by_its_record(tmp_path):
    samples, seen = toy.tiny_samples(4)
    samples[2].ids[5] = 61
    with pytest.raises(SpliceError, match="sample lesson-2: token id 61 is outside the vocabulary"):
        stage(tmp_path, samples, seen, batch_size=4)


# LoRA


def test_lora_starts_as_the_model_trains_only_lora_and_w_and_merges_to_the_same(tmp_path):
    samples, seen = toy.tiny_samples(8)
    model, batch = toy.tiny_llava(), batch_of(samples, seen)
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

    again = toy.tiny_llava()
    again.projector.load_state_dict(model.projector.state_dict())
    lora.add(again, rank=4)
    stored = load_file(tmp_path / "adapter.safetensors")
    assert stored.keys() == lora.adapters(again).keys()
    again.load_state_dict(again.state_dict() | stored)
    assert again(batch)[0].item() == trained
    lora.merge(again)
    assert again.state_dict().keys() == before.keys() and again(batch)[0].item() == pytest.approx(trained, abs=1e-5)


def test_lora_stores_frozen_matrices_in_the_devices_precision_and_computes_the_same_bit_for_bit():
    samples, seen = toy.tiny_samples(6)
    batch, results = batch_of(samples, seen), []
    for dtype in (torch.float32, torch.bfloat16):
        model = toy.tiny_llava()
        torch.manual_seed(1)
        lora.add(model, rank=4, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16):
            results.append(loss_and_gradients(model, model(batch)[0]))
    assert results[0][0] == results[1][0] and len(results[0][1]) == 2 + 2 * 2 * 7
    assert all(torch.equal(grad, results[1][1][name]) for name, grad in results[0][1].items())
    halves = [n for n, p in model.language_model.named_parameters() if p.dtype == torch.bfloat16]
    assert len(halves) == 2 * 7 + 1 and all(".base." in name or name == "lm_head.weight" for name in halves)
    lora.merge(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}

"""Cached decoding = uncached, batched = one by one, streaming = not streaming; rows stop where they should."""

import copy
import importlib

import pytest
import torch

from minillava.model import (
    IMAGE,
    Cache,
    LanguageConfig,
    Llava,
    LlavaConfig,
    SpliceError,
    VisionConfig,
    generate,
    stream,
)

torch.set_num_threads(1)

MODULE = importlib.import_module("minillava.model.generate")  # the package exports the function under the same name
VOCABULARY, CONTEXT, P = 300, 48, 4


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    vision = VisionConfig(16, 8, 16, 24, num_layers=2, num_heads=2)
    language = LanguageConfig(VOCABULARY, 24, 40, 2, 4, num_kv_heads=2, max_position=CONTEXT)
    model = Llava(LlavaConfig(vision, language)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape)  # far from 0, so that answers differ from prompt to prompt
    return model


@pytest.fixture
def script(monkeypatch):
    """Makes the model say the given tokens, one list a row; the rest of the machine runs as it is."""

    def say(*answers):
        def choose(logits, temperature, top_p, draws):
            return torch.tensor([answers[draw.initial_seed()].pop(0) for draw in draws])  # seed 0: row i has seed i

        answers = [list(answer) for answer in answers]
        monkeypatch.setattr(MODULE, "_choose", choose)

    return say


class Bytes:
    """A tokenizer whose tokens are bytes: a character of several bytes comes in several tokens."""

    def decode(self, ids):
        return bytes(ids).decode("utf-8", errors="replace")


def prompts_and_features():
    torch.manual_seed(1)
    prompts = [
        torch.tensor([5, IMAGE, 6, 7]),
        torch.tensor([9]),
        torch.tensor([IMAGE, 1, 2, 3, IMAGE, 4]),
        torch.tensor([8, 7, 6, 5, 4, 3, 2]),
    ]
    return prompts, [[torch.randn(P, 16) for _ in range(int((ids == IMAGE).sum()))] for ids in prompts]


def uncached(model, ids, features, count):
    """The slow way: everything again for every token, likeliest first."""
    embeds, _ = model.splice(ids, features)
    answer = []
    for _ in range(count):
        answer.append(int(model.language_model.head(model.language_model(embeds[None]))[0, -1].argmax()))
        embeds = torch.cat([embeds, model.language_model.embed(torch.tensor(answer[-1:]))])
    return answer


def test_cached_logits_equal_uncached_ones_step_by_step(model):
    prompts, features = prompts_and_features()
    lm = model.language_model
    embeds, _ = model.splice(prompts[2], features[2])
    embeds = torch.cat([embeds, lm.embed(torch.arange(20, 30))])[None].detach()
    whole = lm.head(lm(embeds))
    cache = Cache(model.config.language, 1, embeds.shape[1])
    steps = [lm.head(lm(embeds[:, :13], cache=cache))]
    steps += [lm.head(lm(embeds[:, i : i + 1], cache=cache)) for i in range(13, embeds.shape[1])]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="no room for 1 tokens"):
        lm(embeds[:, :1], cache=cache)


def test_greedy_decoding_equals_decoding_without_a_cache(model):
    prompts, features = prompts_and_features()
    answers = generate(model, prompts, features, 12, stop=[])
    assert answers == [uncached(model, *sample, 12) for sample in zip(prompts, features, strict=True)]
    assert len({tuple(answer) for answer in answers}) == 4 and all(len(set(answer)) > 3 for answer in answers)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_batch_gives_the_same_tokens_as_one_by_one(model, temperature):
    prompts, features = prompts_and_features()
    free = generate(model, prompts, features, 16, stop=[], temperature=temperature, top_p=0.9, seed=3)
    stop = [free[0][4:6], free[3][9:10]]  # rows end at different times
    batched = generate(model, prompts, features, 16, stop, temperature, top_p=0.9, seed=3)
    alone = [
        generate(model, [ids], [pictures], 16, stop, temperature, top_p=0.9, seed=3 + i)[0]
        for i, (ids, pictures) in enumerate(zip(prompts, features, strict=True))
    ]
    assert batched == alone and len({len(answer) for answer in batched}) > 1


def test_a_batch_in_bfloat16_and_under_autocast_runs(model):
    prompts, features = prompts_and_features()
    low = copy.deepcopy(model).bfloat16()
    assert [len(answer) for answer in generate(low, prompts, features, 4, stop=[])] == [4] * 4
    with torch.autocast("cpu", torch.bfloat16):
        assert [len(answer) for answer in generate(model, prompts, features, 4, stop=[])] == [4] * 4


def test_a_row_ends_before_its_stop_and_leaves_the_batch(model, script, monkeypatch):
    script([1, 2, 9, 9], [9, 1, 2, 3, 4], [1, 2, 3])
    sizes, forward = [], model.language_model.forward
    monkeypatch.setattr(model.language_model, "forward", lambda e, **k: sizes.append(len(e)) or forward(e, **k))
    prompts, features = prompts_and_features()
    answers = generate(model, prompts[:3], features[:3], 5, stop=[[9, 9], [1, 2, 3], [3]])
    assert answers == [[1, 2], [9], []]  # of two stops that fit, the longer one is taken off
    assert sizes == [3, 3, 3, 2]


def test_generation_ends_when_the_context_is_full(model):
    ids = torch.arange(CONTEXT - 5)
    answers = generate(model, [ids, torch.tensor([3, 4])], [[], []], 20, stop=[])
    assert [len(answer) for answer in answers] == [5, 20]
    with pytest.raises(SpliceError, match="sample 1: the prompt fills the context of 48, no room to answer"):
        generate(model, [ids, torch.arange(CONTEXT)], [[], []], 20, stop=[])


def test_no_prompts_give_no_answers_and_bad_prompts_are_named(model):
    assert generate(model, [], [], 5, stop=[]) == []
    with pytest.raises(SpliceError, match="sample 1: 1 image tokens but 0 pictures"):
        generate(model, [torch.tensor([1]), torch.tensor([IMAGE])], [[], []], 5, stop=[])


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"stop": [[1], []]}]
)
def test_settings_that_make_no_sense_are_refused(model, wrong):
    with pytest.raises(ValueError, match="max_new_tokens >= 1"):
        generate(model, [torch.tensor([1])], [[]], **({"max_new_tokens": 3, "stop": []} | wrong))


def test_drawing_repeats_with_its_seed_and_a_tiny_top_p_is_greedy(model):
    prompts, features = prompts_and_features()

    def draw(**settings):
        return generate(model, prompts, features, 10, stop=[], **settings)

    assert draw(temperature=1.0, seed=5) == draw(temperature=1.0, seed=5) != draw(temperature=1.0, seed=6)
    assert draw(temperature=1.0, top_p=1e-6) == draw() == draw(temperature=1e-4)


def test_draws_follow_the_probabilities_and_keep_to_top_p():
    logits = torch.tensor([0.1, 0.5, 0.25, 0.15]).log().expand(4000, 4)
    for top_p, expected in ((1.0, [0.1, 0.5, 0.25, 0.15]), (0.7, [0, 2 / 3, 1 / 3, 0]), (0.5, [0, 1, 0, 0])):
        draws = [torch.Generator().manual_seed(i) for i in range(4000)]
        drawn = MODULE._choose(logits, 1.0, top_p, draws)
        share = torch.bincount(drawn, minlength=4) / 4000
        assert torch.allclose(share, torch.tensor(expected, dtype=torch.float32), atol=0.03), (top_p, share)
        assert share[torch.tensor(expected) == 0].eq(0).all()


TEXT = "Zwei Äpfel, 猫 und 🙂🙂 é\u0301."


def test_streaming_gives_the_same_text_and_never_half_a_character(model, script):
    script(TEXT.encode() + b"##")
    pieces = list(stream(model, torch.tensor([1]), [], Bytes(), 46, stop=[list(b"##")]))
    assert "".join(pieces) == TEXT and "\ufffd" not in TEXT
    assert len(pieces) == len(TEXT) and all(len(piece) == 1 for piece in pieces)


def test_streaming_holds_back_what_could_be_a_stop(model, script):
    script(b"a#b##c###d")
    pieces = list(stream(model, torch.tensor([1]), [], Bytes(), 20, stop=[list(b"###")]))
    assert pieces == ["a", "#b", "##c"]


def test_streaming_shows_at_the_end_what_it_held_back(model, script):
    script(b"a##" + "猫".encode()[:2])
    assert "".join(stream(model, torch.tensor([1]), [], Bytes(), 3, stop=[list(b"###")])) == "a##"
    script(b"a" + "猫".encode()[:2])
    assert "".join(stream(model, torch.tensor([1]), [], Bytes(), 3, stop=[])) == "a\ufffd"
    script(b"###")
    assert list(stream(model, torch.tensor([1]), [], Bytes(), 3, stop=[list(b"###")])) == []


@pytest.mark.parametrize("seed", range(8))
def test_streaming_equals_not_streaming_for_whatever_a_model_says(model, seed):
    class Wrapped(Bytes):
        def decode(self, ids):
            return super().decode(bytes(i % 256 for i in ids))

    prompts, features = prompts_and_features()
    settings = dict(max_new_tokens=30, stop=[[50, 51], [7]], temperature=1.5, seed=seed)
    answer = generate(model, prompts[:1], features[:1], **settings)[0]
    pieces = stream(model, prompts[0], features[0], Wrapped(), **settings)
    assert "".join(pieces) == Wrapped().decode(answer)


def test_a_tokenizer_that_rewrites_what_was_shown_is_an_error(model, script):
    class Tidy(Bytes):
        def decode(self, ids):
            return super().decode(ids).replace(" .", ".")

    script(b"a .")
    with pytest.raises(ValueError, match="clean_up_tokenization_spaces=False"):
        list(stream(model, torch.tensor([1]), [], Tidy(), 3, stop=[]))


def test_generating_leaves_no_gradient_and_no_inference_mode_behind(model):
    pieces = stream(model, torch.tensor([1]), [], Bytes(), 3, stop=[])
    next(pieces, None)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    pieces.close()
    assert all(p.grad is None for p in model.parameters())

"""Cached decoding = uncached, batched = one by one, streaming = not streaming; rows stop where they should."""

import copy
import importlib
from dataclasses import replace

import pytest
import torch

from minillava.data import IMAGE
from minillava.model import (
    Cache,
    LanguageConfig,
    Llava,
    LlavaConfig,
    Session,
    SpliceError,
    VisionConfig,
    generate,
    generate_text,
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
        monkeypatch.setattr(MODULE, "choose", choose)

    return say


class Bytes:
    """A tokenizer whose tokens are bytes: a character of several bytes comes in several tokens."""

    def encode(self, text, **settings):
        return list(text.encode())

    def decode(self, ids, **settings):
        return bytes(ids).decode("utf-8", errors="replace")

    def convert_ids_to_tokens(self, id):
        return f"byte {id}"


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


@pytest.mark.parametrize("order", [[0, 2], [1, 2, 4], [4], [3, 4], [0, 1, 2, 3, 4]])
def test_a_cache_goes_on_with_the_rows_that_are_kept(model, order):
    ids = torch.arange(50).view(5, 10)
    whole, cache = model.language_model.embed(ids), Cache(model.config.language, 5, 12)
    mask = torch.arange(10) >= torch.arange(5)[:, None]  # row i has i tokens of padding
    model.language_model(whole, mask=mask, cache=cache)
    kept, order = order, cache.keep(order)
    assert sorted(order) == kept
    step = model.language_model.embed(torch.tensor([[7]] * len(order)))
    out = model.language_model(step, cache=cache)
    for hidden, row in zip(out, order, strict=True):
        alone = Cache(model.config.language, 1, 12)
        model.language_model(whole[row : row + 1, row:], cache=alone)
        torch.testing.assert_close(hidden, model.language_model(step[:1], cache=alone)[0], atol=1e-5, rtol=1e-5)


def questions_about_two_pictures():
    """Three questions about one picture, two about another, one about both, one about none, and a single token."""
    torch.manual_seed(2)
    one, two = torch.randn(P, 16), torch.randn(P, 16)
    texts = [
        [5, IMAGE, 6, 7],
        [5, IMAGE, 6, 8, 9],
        [5, IMAGE],
        [5, IMAGE, 6, 7],
        [5, IMAGE, 1, 2, 3, 4],
        [5, IMAGE, IMAGE, 6],
        [4, 3, 2],
        [9],
    ]
    pictures = [[one], [one.clone()], [one], [two], [two], [one, two], [], []]
    return [torch.tensor(t) for t in texts], pictures  # fmt: skip


def test_questions_about_one_picture_read_it_once_and_are_answered_as_one_by_one(model, monkeypatch):
    prompts, features = questions_about_two_pictures()
    alone = [generate(model, [ids], [shown], 10)[0] for ids, shown in zip(prompts, features, strict=True)]
    read, forward = [], model.projector.forward
    monkeypatch.setattr(model.projector, "forward", lambda x: read.append(len(x)) or forward(x))
    assert generate(model, prompts, features, 10) == alone
    # A question of nothing but one id begins with nothing, so that there all are read apart.
    assert sum(read) == P * 7
    read.clear()
    prompts, features, alone = prompts[:-1], features[:-1], alone[:-1]
    assert generate(model, prompts, features, 10) == alone
    # A question that ends with its picture has no id of its own behind it, so its group shares what comes before.
    assert sum(read) == P * (3 + 1 + 2)
    read.clear()
    del prompts[2], features[2], alone[2]
    assert generate(model, prompts, features, 10) == alone
    assert sum(read) == P * (1 + 1 + 1)  # the one about both reads only the second picture itself
    assert generate(model, prompts, features, [3, 9, 1, 5, 7, 2]) == [a[:n] for a, n in zip(alone, [3, 9, 1, 5, 7, 2], strict=True)]  # fmt: skip


def test_examples_that_stand_before_several_questions_are_read_once(model, monkeypatch):
    torch.manual_seed(3)
    first, second, third, *own = torch.randn(6, P, 16)
    prompts = [torch.tensor([5, IMAGE, 6, IMAGE, 7, IMAGE, n]) for n in (1, 2, 3)]
    features = [[first.clone(), second.clone(), mine] for mine in own]
    alone = [generate(model, [ids], [shown], 10)[0] for ids, shown in zip(prompts, features, strict=True)]
    read, forward = [], model.projector.forward
    monkeypatch.setattr(model.projector, "forward", lambda x: read.append(len(x)) or forward(x))
    assert generate(model, prompts, features, 10) == alone
    assert sum(read) == P * (2 + 3)
    read.clear()
    features[2][1] = third  # with another second example only the first one is shared
    alone[2] = generate(model, prompts[2:], features[2:], 10)[0]
    read.clear()
    assert generate(model, prompts, features, 10) == alone
    assert sum(read) == P * (1 + 3 * 2)


def test_each_prompt_may_have_its_own_limit(model):
    prompts, features = prompts_and_features()
    free = generate(model, prompts, features, 9)
    assert generate(model, prompts, features, [3, 9, 1, 6]) == [a[:n] for a, n in zip(free, [3, 9, 1, 6], strict=True)]


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
    "wrong",
    [{"max_new_tokens": 0}, {"max_new_tokens": [1, 2]}, {"temperature": -1}, {"temperature": 1e-320}, {"top_p": 0.0}, {"top_p": 1.5}, {"stop": [[1], []]}, {"stop": ["###"]}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(model, wrong):
    with pytest.raises(ValueError, match="temperature|max_new_tokens >= 1|empty stop|a tokenizer is needed"):
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
        drawn = MODULE.choose(logits, 1.0, top_p, draws)
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


@pytest.mark.parametrize("stop", ["##", "b#", "é", " é猫", "none"])
def test_a_stop_string_is_found_wherever_tokens_begin_and_end(model, script, stop):
    said = "a b### é猫"
    limit, before = len(said.encode()), said.split(stop)[0]
    script(said.encode())
    pieces = list(stream(model, torch.tensor([1]), [], Bytes(), limit, [stop]))
    assert "".join(pieces) == before
    script(said.encode())
    assert generate_text(model, Bytes(), [torch.tensor([1])], [[]], limit, [stop]) == [before]
    script(said.encode())
    ids = generate(model, [torch.tensor([1])], [[]], limit, [stop], tokenizer=Bytes())[0]
    assert Bytes().decode(ids) == before


class Pairs(Bytes):
    """Tokens of two characters, so that a stop begins in the middle of one."""

    def encode(self, text, **settings):
        return [2, 3, 4]

    def decode(self, ids, **settings):
        return "".join("ab cd. ## e"[2 * i : 2 * i + 2] for i in ids)


def test_a_stop_string_that_begins_inside_a_token_is_cut_at_the_character(model, script):
    script([0, 1, 2, 3, 4])  # "ab", " c", "d.", " #", "# "
    assert generate_text(model, Pairs(), [torch.tensor([1])], [[]], 5, [". ##"]) == ["ab cd"]
    script([0, 1, 2, 3, 4])
    assert "".join(stream(model, torch.tensor([1]), [], Pairs(), 5, [". ##"])) == "ab cd"
    script([0, 1, 2, 3, 4])
    assert generate(model, [torch.tensor([1])], [[]], 5, [". ##"], tokenizer=Pairs()) == [[0, 1]]


class Special(Bytes):
    """Bytes, of which those under 32 are special tokens: <0> to <31>."""

    def encode(self, text, **settings):
        return [int(text[1:-1])] if text.startswith("<") else list(text.encode())

    def decode(self, ids, skip_special_tokens=False, **settings):
        return "".join(chr(i) if i >= 32 else "" if skip_special_tokens else f"<{i}>" for i in ids)


def with_ends(model, *ends):
    model = copy.copy(model)
    model.config = replace(model.config, language=replace(model.config.language, ends=ends))
    return model


@pytest.mark.parametrize(
    "said", [b"One.\x02two\x02", b"One.\x05###", b"One.###\x02", b"One.\x07\x02\x02", b"O\x03n\x03e.\x07"]
)
def test_answers_end_at_the_weights_own_ends_and_at_the_templates_stop_and_show_no_special_token(model, script, said):
    ended, limit = with_ends(model, 2, 5), len(said)
    for stops in (["###", "<7>"], [[35, 35, 35], [7]]):  # "<7>" is a template's stop that no text shows
        script(said)
        assert generate_text(ended, Special(), [torch.tensor([1])], [[]], limit, stops) == ["One."]
        script(said)
        assert "".join(stream(ended, torch.tensor([1]), [], Special(), limit, stops)) == "One."
    script(said, b"x" * limit)
    rows = generate(ended, [torch.tensor([1])] * 2, [[], []], limit, [[35, 35, 35], [7]])
    assert Special().decode(rows[0], skip_special_tokens=True) == "One." and rows[1] == list(b"x" * limit)
    assert not {2, 5, 7} & set(rows[0])


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
        def decode(self, ids, **settings):
            return super().decode(bytes(i % 256 for i in ids))

    prompts, features = prompts_and_features()
    settings = dict(max_new_tokens=30, stop=[[50, 51], [7]], temperature=1.5, seed=seed)
    answer = generate(model, prompts[:1], features[:1], **settings)[0]
    pieces = stream(model, prompts[0], features[0], Wrapped(), **settings)
    assert "".join(pieces) == Wrapped().decode(answer)


def test_a_tokenizer_that_rewrites_what_was_shown_is_an_error(model, script):
    class Tidy(Bytes):
        def decode(self, ids, **settings):
            return super().decode(ids).replace(" .", ".")

    script(b"a .")
    with pytest.raises(ValueError, match="clean_up_tokenization_spaces=False"):
        list(stream(model, torch.tensor([1]), [], Tidy(), 3, stop=[]))


# over turns


def talk(model, session, ids, shown, count=6, wanted=None):
    """The bytes of an answer, streamed; `wanted` ends the listening early."""
    pieces = stream(model, torch.tensor(ids), shown, Wide(), count, session=session)
    said = [piece for _, piece in zip(range(wanted or count), pieces, strict=False)]
    pieces.close()
    return [ord(c) - 1000 for c in "".join(said)]


class Wide(Bytes):
    """One character a token, whatever the token."""

    def decode(self, ids, **settings):
        return "".join(chr(1000 + i) for i in ids)


def test_a_conversation_in_a_session_equals_one_read_anew_and_reads_only_what_is_new(model, monkeypatch):
    torch.manual_seed(3)
    one, two = torch.randn(P, 16), torch.randn(P, 16)
    session, ids, sizes = Session(), [5, IMAGE, 6], []
    forward = model.language_model.forward
    monkeypatch.setattr(model.language_model, "forward", lambda e, **k: sizes.append(e.shape[1]) or forward(e, **k))

    def both(ids, shown, read, **settings):
        sizes.clear()
        said = talk(model, session, ids, shown, **settings)
        assert sizes[0] == read
        assert said == talk(model, None, ids, shown, **settings)
        return said

    answer = both(ids, [one], 1 + P + 1)
    ids = [*ids, *answer, 7, 8]
    answer = both(ids, [one], 1 + 2)  # the last token of an answer was never read
    ids = [*ids, *answer, 9]
    both(ids, [one], 2, wanted=2)  # nobody listens to the rest
    both([*ids[:-1], 10, 11], [one], 2)  # another question instead
    both([5, IMAGE, 6, 3], [one], 1)  # from an earlier point
    both([5, IMAGE, 6, 3], [one], 1)  # the same again: the last token is read anew
    both([5, IMAGE, 6, 3], [two], P + 2)  # another picture in its place
    both([5, IMAGE, IMAGE, 3], [two, one], P + 1)


def test_a_conversation_ends_when_its_context_is_full_and_can_be_taken_up_before(model):
    session, ids = Session(), list(range(CONTEXT - 10))
    assert len(talk(model, session, ids, [], 20)) == 10
    with pytest.raises(SpliceError, match="fills the context of 48, no room to answer; ask a shorter question"):
        talk(model, session, list(range(CONTEXT)), [])
    assert talk(model, session, ids[:20], []) == talk(model, None, ids[:20], [])


def test_generating_leaves_no_gradient_and_no_inference_mode_behind(model):
    pieces = stream(model, torch.tensor([1]), [], Bytes(), 3, stop=[])
    next(pieces, None)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    pieces.close()
    assert all(p.grad is None for p in model.parameters())

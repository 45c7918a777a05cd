"""Figures of the model's inside are drawn from it: attention is its own, the mask is the sample's, widgets redraw."""

import io

import ipywidgets
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from minillava.chat import Chat
from minillava.course.widgets import Slider, Text, ToggleButtons, explore
from minillava.data import IGNORE, IMAGE
from minillava.data.samples import encode, prompt_ids
from minillava.data.template import CHAT
from minillava.figures.model import (
    architecture,
    attention_figure,
    attention_of,
    looks,
    loss_bars,
    nearest_words,
    patch_grid,
    sequence,
    token_kinds,
)
from minillava.figures.style import canvas
from minillava.figures.tables import paper_bars
from minillava.model.rope import rotations
from minillava.paper import TABLES
from minillava.scenes.compose import compose
from minillava.scenes.draw import draw
from minillava.standins.records import instruction_record


@pytest.fixture(scope="module")
def chat(weights):
    talk = Chat(weights / "llava")
    talk.look(draw(compose("bench", 0), 96))
    return talk


@pytest.fixture(scope="module")
def sample(chat):
    return encode(instruction_record(compose("train", 0), "conversation"), CHAT, chat.tokenizer)


def words(figure):
    return " ".join(text.get_text() for axis in figure.axes for text in (*axis.texts, axis.title, axis._left_title))


@torch.no_grad()
def test_attention_is_what_the_model_itself_computes(chat):
    ids = prompt_ids("<image>\nWhere is this?", CHAT, chat.tokenizer)
    embeds, _ = chat.model.splice(ids, [chat.features])
    weights = attention_of(chat.model, embeds)
    T, config = len(embeds), chat.model.config.language
    assert weights.shape == (config.num_layers, config.num_heads, T, T)
    assert torch.allclose(weights.sum(-1), torch.ones(1), atol=1e-5) and not weights.triu(1).any()
    first = chat.model.language_model.layers[0]
    x = first.input_layernorm(embeds[None])
    cos, sin = rotations(torch.arange(T)[None], config)
    v = first.self_attn.v_proj(x).unflatten(-1, (-1, config.head_dim)).transpose(1, 2)
    by_hand = first.self_attn.o_proj((weights[0] @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(by_hand, first.self_attn(x, cos, sin, None, None), atol=1e-5)


def test_a_look_is_the_attention_of_the_row_before_the_token(chat):
    found = looks(chat, "Where is this?", "In a park.")
    assert "".join(one.token for one in found) == "Inapark."
    for one in found:
        assert one.map.shape == (4, 4) and 0 < one.share < 1
        assert float(one.map.sum()) == pytest.approx(one.share, abs=1e-5)
    longer = looks(chat, "Where is this?", "In a park. It is")  # what comes later changes nothing
    assert torch.allclose(longer[0].map, found[0].map, atol=1e-5)
    assert isinstance(attention_figure(draw(compose("bench", 0), 96), found), Figure)


@torch.no_grad()
def test_a_look_at_a_later_answer_is_taken_with_the_turns_before_it(chat):
    before = [("<image>\nWhere is this?", "In a park.")]
    (word, *_) = looks(chat, "Why?", "Trees.", before)
    ids = prompt_ids("Why?", CHAT, chat.tokenizer, before)
    embeds, source = chat.model.splice(ids, [chat.features])
    expected = attention_of(chat.model, embeds).mean((0, 1))[-1][source == -1]
    assert torch.allclose(word.map.flatten(), expected, atol=1e-5)


def test_kinds_of_tokens_follow_the_labels(chat, sample):
    stop = chat.tokenizer.encode("###", add_special_tokens=False)
    kinds = token_kinds(sample, stop)
    loss = [kind in ("answer", "stop") for kind in kinds]
    assert loss == (sample.labels != -100).tolist() and kinds.count("image") == 1
    assert kinds.count("stop") == 8 * len(stop)  # one after each of eight answers
    whole = len(sample.ids) - 1 + 16
    assert f"{sum(loss)} of {whole} positions" in words(sequence(sample, chat.tokenizer, "###", 16))


def test_a_question_that_carries_loss_is_not_drawn_as_an_answer(chat, sample):
    everything = torch.where(sample.ids == IMAGE, IGNORE, sample.ids)
    right, wrong, none = (
        sequence(sample, chat.tokenizer, "###", 16, labels)
        for labels in (None, everything, torch.full_like(sample.ids, IGNORE))
    )
    legends = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in (right, wrong)]
    assert legends[1] == [*legends[0], "no answer and no stop: loss all the same"]
    assert f"{len(sample.ids) - 1} of" in words(wrong) and "0 of" in words(none)
    drawn = [[patch.get_facecolor() for patch in figure.axes[0].patches] for figure in (right, wrong)]
    kept = sum(a == b for a, b in zip(*drawn))
    assert kept == int((sample.labels != IGNORE).sum()) + 1  # answers and stops keep their colour, and the image


def test_the_architecture_states_this_models_shapes(chat):
    before = list(chat.turns)
    said = words(architecture(chat, draw(compose("bench", 0), 96), "Where is this?", "In a park."))
    for shape in ("(3, 96, 96)", "(16, 32)", "In a park.", "Where is this?"):
        assert shape in said
    assert chat.turns == before


def test_nearest_words_finds_a_words_own_embedding(chat):
    table, ids = chat.model.language_model.embed_tokens.weight, chat.tokenizer.encode(" picture horse")
    ids = [i for i in ids if i not in chat.tokenizer.all_special_ids]
    found = nearest_words(chat.model, chat.tokenizer, torch.cat([table[ids], -table[ids]]).detach())
    assert found[: len(ids)] == [chat.tokenizer.decode([i]).strip() for i in ids]


def test_a_grid_says_how_many_patches_there_are():
    assert "4 x 4 = 16" in words(patch_grid(Image.new("RGB", (50, 80)), 4))


def test_bars_say_their_values():
    assert "mean 2.00" in words(loss_bars(["a", "###"], [1.0, 3.0], "t"))
    assert "mean 0.002" in words(loss_bars(["a", "###"], [0.001, 0.003], "t"))  # a little, and not nothing
    shown = words(paper_bars(TABLES["Table 5"], "All", "t", ("LLaVA",)))
    assert "67.3" in shown and "19.1" in shown


def test_a_widget_draws_again_when_a_control_moves():
    seen = []

    def show(n, kind):
        seen.append((n, kind))
        return f"{kind} <{n}>"

    one = explore(show, n=Slider(value=2, max=9), kind=ToggleButtons(options=["a", "b"]))
    one.controls["n"].value = 5
    one.controls["kind"].value = "b"
    assert seen == [(2, "a"), (5, "a"), (5, "b")]
    assert "b &lt;5&gt;" in one.children[-1].value and one.children[0] is one.controls["n"]
    assert "n, kind" in repr(one)
    for made in (canvas(2, 2)[0], Image.new("RGB", (4, 4))):
        assert isinstance(explore(lambda n, made=made: made, n=Slider()).view, ipywidgets.Image)
    box = explore(lambda asked: asked.upper(), asked=Text(value="a cat?"))
    box.controls["asked"].value = "a dog?"
    assert "A DOG?" in box.view.value and box.controls["asked"].layout.width == "100%"
    with pytest.raises(TypeError, match="returned int"):
        explore(lambda n: n, n=Slider())


def test_a_widget_leaves_room_for_text_and_hands_and_none_around_a_figure():
    assert Slider(max=9).layout.width == "400px" and Text(value="x").layout.width == "100%"
    one = explore(lambda question: "word " * 99, question=Text(value="why?"))
    assert "white-space:pre-wrap" in one.view.value and one.view.layout.width == "100%"
    figure, axis = canvas(6, 6)
    axis.set_position([0.4, 0.4, 0.2, 0.2])  # white all around
    shown = Image.open(io.BytesIO(explore(lambda n: figure, n=Slider()).view.value))
    assert max(shown.size) < 300 < 6 * 90


def test_a_widget_shows_what_a_function_yields_one_after_another():
    seen = []

    def count(n):
        for k in range(n):
            seen.append(made.view.value if seen else None)
            yield f"{k} <"

    made = type("", (), {})()
    made = explore(count, n=Slider(value=1, max=5))
    place = made.view
    assert "0 &lt;" in place.value
    made.controls["n"].value = 3
    assert "2 &lt;" in made.view.value and made.children[-1] is made.view and isinstance(made.view, ipywidgets.HTML)
    assert ["0" in seen[2], "1" in seen[3]] == [True, True] and len(
        seen
    ) == 4  # each stood there while the next was made

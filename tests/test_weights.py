"""Weights in the published formats: `transformers` loads what we export and computes the same.

The shipped weights are small, say how they were made, and use the picture. Every test of formats also runs on untrained
tiny weights.
"""

import json
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from minillava.chat import Chat
from minillava.data.images import Preparation, pixels
from minillava.data.template import CHAT
from minillava.data.tokenizer import load_tokenizer
from minillava.judging.answers import answer, shuffled
from minillava.model import load_language, load_llava, load_vision
from minillava.model.formats.preparation import read_preparation
from minillava.scales import WEIGHTS
from minillava.scenes.captions import captions
from minillava.scenes.compose import compose, scenes
from minillava.scenes.draw import draw
from minillava.scenes.questions import EXACT_KINDS, balanced_questions, exact_match
from minillava.standins.gates import text_accuracy
from minillava.standins.vision_tower import MEAN, STD

PARTS = ("vision_tower", "language_model", "language_model_small", "llava")


def shipped_part(part):
    if not (WEIGHTS / part).exists():
        pytest.skip(f"data_samples/weights/{part} is not there yet: `make weights` trains and exports it")
    return WEIGHTS / part


@pytest.fixture(params=["tiny", "shipped"])
def part(request, weights):
    """`part(name)`: the folder of a part, once of the untrained weights and once of the shipped ones."""
    return (lambda name: weights / name) if request.param == "tiny" else shipped_part


def load_strictly(kind, folder):
    """The model of `transformers` in float32; every tensor of the files is used, and none is initialised."""
    model, about = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(about.values()), about
    return model.eval()


# the published formats


@torch.no_grad()
def test_the_vision_tower_is_a_clip_that_transformers_loads_with_equal_outputs(part):
    folder = part("vision_tower")
    clip, ours = load_strictly(transformers.CLIPModel, folder), load_vision(folder)
    size = ours.config.image_size
    views = pixels([draw(s, size) for s in scenes("dev", 4)], read_preparation(folder, size))
    theirs = clip.vision_model(views, output_hidden_states=True)
    for state, other in zip(ours.hidden_states(views), theirs.hidden_states, strict=True):
        torch.testing.assert_close(state, other, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(ours.pooled(views), theirs.pooler_output, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def similarities(folder, count):
    """(count, count) cosines of dev pictures and their longest captions, both towers from `transformers`."""
    clip, tokenizer, some = load_strictly(transformers.CLIPModel, folder), load_tokenizer(folder), scenes("dev", count)
    texts = [max(captions(s), key=len) + tokenizer.eos_token for s in some]
    coded = tokenizer(texts, padding=True, return_tensors="pt")
    size = clip.config.vision_config.image_size
    views = pixels([draw(s, size) for s in some], read_preparation(folder, size))
    out = clip(input_ids=coded.input_ids, attention_mask=coded.attention_mask, pixel_values=views)
    return out.image_embeds @ out.text_embeds.T


def test_both_towers_of_clip_are_exported_and_give_each_input_its_own_vector(part):
    scores = similarities(part("vision_tower"), 6)
    assert torch.isfinite(scores).all() and scores.std(0).min() > 1e-4 and scores.std(1).min() > 1e-4


def test_the_shipped_vision_tower_finds_the_caption_of_a_picture_it_has_not_seen():
    scores = similarities(shipped_part("vision_tower"), 64)
    found = (scores.argmax(1) == torch.arange(64)).float().mean().item()
    print(f"of 64 dev captions the right one is first for {found:.0%} of the pictures")
    assert found > 0.5


@torch.no_grad()
def test_the_language_model_is_a_llama_that_transformers_loads_with_equal_logits_and_answers(part):
    folder = part("language_model")
    theirs, ours = load_strictly(transformers.LlamaForCausalLM, folder), load_language(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "".join(t for t, _ in CHAT.segments([("\n".join(captions(compose("dev", 0))) + "\nWhere is this?", None)]))
    ids = tokenizer(tokenizer.bos_token + text, add_special_tokens=False, return_tensors="pt").input_ids
    torch.testing.assert_close(ours.head(ours(ours.embed(ids))), theirs(ids).logits, atol=1e-3, rtol=1e-4)
    made = theirs.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    for token in made:  # greedy, token by token, without a cache
        assert ours.head(ours(ours.embed(ids)))[0, -1].argmax() == token
        ids = torch.cat([ids, token[None, None]], dim=1)


def test_the_image_processor_settings_are_those_that_transformers_reads(part):
    processor = transformers.CLIPImageProcessor.from_pretrained(part("vision_tower"))
    size = load_vision(part("vision_tower")).config.image_size
    view = draw(compose("dev", 0), size)
    assert read_preparation(part("vision_tower"), size) == Preparation(size, MEAN, STD)  # as in training
    ours = pixels([view], Preparation(size, MEAN, STD))
    torch.testing.assert_close(processor(view, return_tensors="pt").pixel_values, ours, atol=1e-5, rtol=1e-5)


def test_the_llava_has_the_vision_tower_unchanged(part):
    """It is frozen in both stages, so every bit equals the shipped vision tower's."""
    vision_tower, (llava, about) = load_vision(part("vision_tower"), dtype=None), load_llava(part("llava"), dtype=None)
    assert about["template"] == CHAT.name
    for name, tensor in vision_tower.state_dict().items():
        assert torch.equal(llava.vision_tower.state_dict()[name], tensor), name
    assert llava.language_model.config == load_language(part("language_model")).config
    assert read_preparation(part("llava"), 96) == read_preparation(part("vision_tower"), 96)
    words = "Is the red car to the left of the dog?"
    assert load_tokenizer(part("llava")).encode(words) == load_tokenizer(part("language_model")).encode(words)


def test_a_chat_can_start_from_the_folder(part):
    chat = Chat(part("llava"))
    chat.look(Image.new("RGB", (300, 200), "white"))
    assert isinstance(chat.ask("Where is this?", max_new_tokens=10), str)


# what is shipped


@pytest.mark.parametrize("name", PARTS)
def test_a_card_says_how_it_was_made_how_long_that_took_and_how_good_it_is(name):
    card = json.loads((shipped_part(name) / "card.json").read_text())
    assert {"recipe", "seed", "minutes", "machine", "figures"} <= card.keys()
    assert card["recipe"]["steps"] and card["minutes"] > 1 and card["figures"]
    assert {"cores", "torch", "precision"} <= card["machine"].keys()


def test_files_are_small_and_none_can_run_code():
    files = [p for name in PARTS for p in shipped_part(name).rglob("*") if p.is_file()]
    sizes = {p: p.stat().st_size / 2**20 for p in files}
    assert max(sizes.values()) <= 16 and sum(sizes.values()) <= 30, sizes
    assert {p.suffix for p in files} <= {".json", ".jsonl", ".safetensors", ".jinja"}
    weights = {p for p in files if p.suffix == ".safetensors"}
    assert {p.relative_to(WEIGHTS) for p in weights} == {Path(name, "model.safetensors") for name in PARTS}


def test_the_shipped_llava_answers_better_with_its_own_picture_than_with_anothers():
    folder, per_kind = shipped_part("llava"), 9  # 63 questions
    (model, _), tokenizer = load_llava(folder), load_tokenizer(folder)
    items = balanced_questions(scenes("dev", 150), per_kind)
    size, scores = model.config.vision.image_size, {}
    drawn = {s.id: draw(s, size) for s, _ in items}
    names = [s.id for s, _ in items]
    views = pixels(list(drawn.values()), read_preparation(folder, size))
    features = dict(zip(drawn, model.eval().features(views), strict=True))
    for tag, looked in (("own", names), ("another's", shuffled(names))):
        asked = [(q.text, features[n]) for n, (_, q) in zip(looked, items, strict=True)]
        texts = answer(model, tokenizer, CHAT, asked, 40)
        scores[tag] = exact_match([(s.id, q) for s, q in items], texts)
        print(tag, scores[tag])
    assert list(scores["own"]) == [*EXACT_KINDS, "all"]
    card = json.loads((folder / "card.json").read_text())["figures"]["exact match, dev split, per cent"]
    for tag, figures in (("own", card["picture"]), ("another's", card["shuffled"])):  # 63 questions: +- 4 at one sigma
        assert abs(scores[tag]["all"] - figures["all"]) < 16, (tag, scores[tag], figures)
    assert scores["own"]["all"] >= 85, scores
    assert all(scores["own"][kind] >= 77 for kind in ("existence", "colour", "place", "side")), scores


def test_the_shipped_language_model_answers_about_scenes_told_in_words_as_its_card_says():
    folder = shipped_part("language_model")
    figures_of = json.loads((folder / "card.json").read_text())["figures"]
    card = figures_of["exact match on scenes told in words, dev split, per cent"]
    told = text_accuracy(load_language(folder).eval(), load_tokenizer(folder), per_kind=6)  # 42 questions per format
    print(told)
    for how, figures in told.items():
        assert abs(figures["all"] - card[how]["all"]) < 12 and figures["all"] >= 86, (how, figures, card[how])

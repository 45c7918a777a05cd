"""From records and files to batches: Table 2's sequence, labels, plans, pictures, the tokenizer."""

import io
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from minillava.data import IGNORE, IMAGE, images
from minillava.data.images import ImageError, Preparation, open_picture, pixels
from minillava.data.records import RecordError
from minillava.data.samples import encode, plan_batches, prompt_ids, without_stop
from minillava.data.scienceqa import Problem, answer_text
from minillava.data.template import CHAT, CHAT_V1, PLAIN, TEMPLATES, VICUNA_V1
from minillava.data.tokenizer import load_tokenizer, train_tokenizer
from minillava.datagen.messages import TYPES
from minillava.judging.answer_scienceqa import TRAINED_JOINT
from minillava.scenes.compose import compose, scenes
from minillava.scenes.questions import questions
from minillava.standins.records import caption_record, in_turns, instruction_record, question_record


@pytest.fixture(scope="module")
def tokenizer(weights):
    return load_tokenizer(weights / "language_model")


def record(*values, image="a.png"):
    turns = [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)]
    return {"id": "r7", "conversations": turns} | ({"image": image} if image else {})


def pairs_of(some):
    values = [turn["value"] for turn in some["conversations"]]
    return list(zip(values[::2], values[1::2], strict=True))


def decoded(ids, tokenizer):
    """The text of a sequence with `<image>` for its picture, without the begin-of-sequence token."""
    parts, ids = [[]], ids.tolist()
    assert ids[0] == tokenizer.bos_token_id
    for i in ids[1:]:
        parts.append([]) if i == IMAGE else parts[-1].append(i)
    return "<image>".join(tokenizer.decode(part) for part in parts)


# Table 2


def test_the_template_is_table_2s_order_and_only_answers_and_their_stop_are_green():
    segments = CHAT.segments([("Q1", "A1"), ("Q2", "A2")])
    expected = f"{CHAT.system}###\nHuman: Q1###\nAssistant: A1###\nHuman: Q2###\nAssistant: A2###\n"
    assert "".join(text for text, _ in segments) == expected
    assert [text for text, green in segments if green] == ["A1", "###", "A2", "###"]


def test_ids_decode_to_the_record_and_labels_to_its_answers_and_stops(tokenizer):
    some = [
        record
        for s in scenes("train", 60)
        for record in (*(instruction_record(s, k) for k in TYPES), caption_record(s))
    ]
    for one in some:
        sample, pairs = encode(one, CHAT, tokenizer), pairs_of(one)
        assert sample.id == one["id"] and sample.images == (one["image"],) and len(sample.ids) == len(sample.labels)
        assert decoded(sample.ids, tokenizer) == "".join(text for text, _ in CHAT.segments(pairs))
        green = sample.labels != IGNORE
        assert torch.equal(sample.labels[green], sample.ids[green]) and int((sample.ids == IMAGE).sum()) == 1
        assert tokenizer.decode(sample.labels[green]) == "".join(answer + "###" for _, answer in pairs)
        assert not green[sample.ids == IMAGE].any() and not green[0]


def test_the_labels_of_each_turn_are_one_run_of_its_answer_and_stop(tokenizer):
    sample = encode(record("<image>\nHi?", "One.", "And?", "Two words.", "So?", "Three."), CHAT, tokenizer)
    runs, before = [], False
    for i, label in zip(sample.ids.tolist(), sample.labels.tolist(), strict=True):
        if label != IGNORE:
            runs[-1].append(i) if before else runs.append([i])
        before = label != IGNORE
    assert [tokenizer.decode(run) for run in runs] == ["One.###", "Two words.###", "Three.###"]


def test_the_plain_template_is_image_caption_stop_without_the_question(tokenizer):
    sample = encode(record("Describe this.\n<image>", "A red car."), PLAIN, tokenizer)
    assert decoded(sample.ids, tokenizer) == "<image>A red car.\n"
    assert sample.labels[:2].tolist() == [IGNORE, IGNORE] and (sample.labels[2:] == sample.ids[2:]).all()
    assert TEMPLATES == {"chat": CHAT, "chat_v1": CHAT_V1, "plain": PLAIN, "vicuna_v1": VICUNA_V1}


def test_a_record_without_a_picture_has_no_image_token(tokenizer):
    sample = encode(record("Hi?", "Hello.", image=None), CHAT, tokenizer)
    assert sample.images == () and IMAGE not in sample.ids


@pytest.mark.parametrize("template", [CHAT, PLAIN], ids=["chat", "plain"])
def test_a_prompt_is_the_sequence_up_to_the_answer(tokenizer, template):
    whole = encode(record("<image>\nWhat?", "A car."), template, tokenizer)
    asked = prompt_ids("<image>\nWhat?", template, tokenizer)
    assert torch.equal(whole.ids[: len(asked)], asked) and (whole.labels[: len(asked)] == IGNORE).all()
    assert whole.labels[len(asked)] != IGNORE


def test_a_later_prompt_continues_the_earlier_turns(tokenizer):
    whole = encode(record("<image>\nWhat?", "A car.", "Where?", "Here."), CHAT, tokenizer)
    asked = prompt_ids("Where?", CHAT, tokenizer, [("<image>\nWhat?", "A car.")])
    assert torch.equal(whole.ids[: len(asked)], asked) and whole.labels[len(asked)] != IGNORE


def test_a_record_that_breaks_the_format_or_carries_no_loss_is_named(tokenizer):
    with pytest.raises(RecordError, match="record r7: not in the form of records here"):
        encode(record("What?", "A car."), CHAT, tokenizer)

    class Silent(type(CHAT)):
        def segments(self, pairs):
            return [(text, False) for text, _ in super().segments(pairs)]

    with pytest.raises(RecordError, match="record r7: no token carries loss under the template 'silent'"):
        encode(record("<image>\nWhat?", "A car."), Silent("silent", ""), tokenizer)


@given(
    st.lists(st.text("# a\n", min_size=1).filter(str.strip), min_size=2, max_size=2),
    st.sampled_from(["###", "</s>", "|"]),
)
def test_a_stop_inside_a_text_is_shortened_until_it_ends_no_answer(texts, stop):
    one = record(f"<image>\n{texts[0]}", f"{texts[1]} x</s></s>| {texts[0]} y")
    found = without_stop(one, stop)
    assert not any(stop in turn["value"] for turn in found["conversations"]) and without_stop(found, stop) is found
    assert found is one or found != one
    assert (
        without_stop(record("<image> Tell.", "Two.\n### One\n##### Two"), "###")["conversations"][1]["value"]
        == "Two.\n## One\n## Two"
    )


def test_the_step_from_reasons_to_the_letter_of_scienceqa_stays_as_the_answering_has_it():
    lepa = answer_text(Problem("1", "Which?", ("a", "b"), 1, lecture="Look.", solution="# It is b."), "QCM-LEPA")
    assert TRAINED_JOINT in lepa
    for text, kept in (
        (lepa, lepa),
        (f"### {lepa}", f"## {lepa}"),
        (f"{lepa} And?", lepa.replace("###", "##") + " And?"),
    ):
        found = without_stop(record("<image> Which?", text), "###")
        assert found["conversations"][1]["value"] == kept and without_stop(found, "###") is found


# the plan


@pytest.mark.parametrize("count, size", [(64, 8), (67, 8), (8, 8), (400, 16), (5, 1)])
def test_each_epoch_takes_every_sample_at_most_once_and_leaves_out_less_than_a_batch(count, size):
    lengths, per = [random.Random(i).randrange(5, 90) for i in range(count)], count // size
    batches = plan_batches(lengths, size, 3 * per, seed=1)
    assert all(len(b) == size for b in batches)
    for epoch in range(3):
        taken = Counter(i for b in batches[epoch * per : (epoch + 1) * per] for i in b)
        assert set(taken.values()) == {1} and len(taken) == per * size
    if count % size == 0:
        assert sorted(i for b in batches[:per] for i in b) == list(range(count))


def test_a_seed_gives_the_same_plan_and_a_shorter_plan_is_its_beginning():
    lengths = list(range(100))
    whole = plan_batches(lengths, 8, 20, seed=3)
    assert plan_batches(lengths, 8, 20, seed=3) == whole and plan_batches(lengths, 8, 10, seed=3) == whole[:10]
    assert plan_batches(lengths, 8, 20, seed=4) != whole and whole[:12] != whole[12:]


def test_batches_hold_similar_lengths_and_are_not_sorted_by_length():
    lengths = [random.Random(i).randrange(10, 200) for i in range(512)]
    batches = plan_batches(lengths, 16, 32, seed=0)
    padding = sum(max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches)
    assert padding < 0.15 * sum(lengths)  # at random it is about 0.7
    second_epoch = plan_batches(lengths, 16, 64, seed=0)[32:]
    assert set(map(frozenset, batches)) != set(map(frozenset, second_epoch))
    longest = [max(lengths[i] for i in b) for b in batches[:16]]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_too_few_samples_for_a_batch_are_an_error():
    with pytest.raises(ValueError, match="7 samples cannot fill a batch of 8"):
        plan_batches([1] * 7, 8, 1, 0)


# pictures


@pytest.fixture
def scene_png(tmp_path):
    from minillava.scenes.draw import draw

    draw(scenes("train", 1)[0], 96).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("orientation, corner", [(1, (0, 0)), (3, (1, 1)), (6, (1, 0)), (8, (0, 1))])
def test_a_picture_is_turned_upright_by_its_exif(tmp_path, orientation, corner):
    image = Image.new("RGB", (80, 40), "white")
    image.paste("red", (0, 0, 20, 20))  # the upper left corner as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    opened = open_picture(tmp_path / "a.jpg")
    assert opened.size == ((80, 40) if orientation in (1, 3) else (40, 80))
    x, y = (c * (side - 1) for c, side in zip(corner, opened.size, strict=True))
    assert opened.getpixel((x, y))[1] < 100 < opened.getpixel((x, y))[0]


def test_transparency_is_white_in_rgba_grey_and_palette(tmp_path):
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    rgba.paste((0, 0, 0, 0), (0, 0, 4, 8))
    rgba.save(tmp_path / "rgba.png")
    Image.merge("LA", (rgba.getchannel("R"), rgba.getchannel("A"))).save(tmp_path / "la.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.paste(0, (0, 0, 4, 8))
    palette.save(tmp_path / "p.png", transparency=0)
    palette.save(tmp_path / "p.gif", transparency=0)
    for name in ("rgba.png", "la.png", "p.png", "p.gif"):
        opened = open_picture(tmp_path / name)
        assert opened.mode == "RGB" and opened.getpixel((0, 0)) == (255, 255, 255), name
        assert opened.getpixel((7, 7))[0] == 255, name


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_picture(tmp_path / "a.gif").getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(tmp_path, mode, scene_png):
    Image.open(scene_png).convert(mode).save(tmp_path / "a.tiff")
    assert open_picture(tmp_path / "a.tiff").mode == "RGB"


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert [open_picture(tmp_path / "a.png").getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, scene_png, monkeypatch):
    (tmp_path / "cut.png").write_bytes(scene_png.read_bytes()[:900])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    for name, why in (
        ("cut.png", "not a picture that can be read"),
        ("text.png", "not a picture that can be read"),
        ("empty.png", "not a picture that can be read"),
        ("none.png", "no such file"),
        ("", "a folder, not a picture"),
    ):
        with pytest.raises(ImageError, match=why) as error:
            open_picture(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    monkeypatch.setattr(images, "MAX_PIXELS", 96 * 96 - 1)
    with pytest.raises(ImageError, match="a.png: 96 x 96 pixels is more than 9,215 .PNG RGB.; make it smaller first"):
        open_picture(scene_png)


@pytest.mark.parametrize(
    "name, mode, saved, each",
    [
        ("a.png", "RGB", {}, 4),
        ("a.png", "RGBA", {}, 8),
        ("a.jpg", "RGB", {}, 4),
        ("a.jpg", "RGB", {"progressive": True}, 7),
        ("a.webp", "RGB", {}, 16),
        ("a.jp2", "RGB", {}, 19),
        ("a.tif", "RGB", {}, 8),
    ],
)
def test_a_format_that_takes_more_memory_per_pixel_may_have_fewer_pixels(
    tmp_path, monkeypatch, name, mode, saved, each
):
    path = tmp_path / name
    Image.new(mode, (80, 60)).save(path, **saved)
    monkeypatch.setattr(images, "MOST_MEMORY", 80 * 60 * each)
    assert open_picture(path).size == (80, 60)
    monkeypatch.setattr(images, "MOST_MEMORY", 80 * 60 * each - 1)
    with pytest.raises(ImageError, match=f"{name}: 80 x 60 pixels is more than 4,799 .*make it smaller first"):
        open_picture(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_damaged_file_opens_or_raises_image_error_and_no_other(tmp_path, kind, scene_png):
    whole, rng = io.BytesIO(), random.Random(kind)
    Image.open(scene_png).convert("RGB").save(whole, kind)
    for n in range(120):
        data = bytearray(whole.getvalue())
        if n % 2:
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(rng.choice((1, 5, 30))):
                data[rng.randrange(min(len(data), rng.choice((60, len(data)))))] = rng.randrange(256)
        (tmp_path / "damaged").write_bytes(data)
        try:
            assert open_picture(tmp_path / "damaged").mode == "RGB"
        except ImageError as error:
            assert "damaged" in str(error)


def test_a_real_photo_becomes_pixels(real):
    photo, how = open_picture(real("extreme_ironing.jpg")), Preparation(96, (0.5,) * 3, (0.5,) * 3)
    views = pixels([photo], how)
    assert views.shape == (1, 3, 96, 96) and views.dtype == torch.float32
    assert views.min() >= -1 and views.max() <= 1 and views.std() > 0.2
    black, white = pixels([Image.new("RGB", (9, 9), c) for c in ("black", "white")], how)
    assert (black == -1).all() and (white == 1).all()


# the tokenizer


@given(st.text())
@example(" a  car ,\n\n it 's 漢🦙é\x00 </s><pad> ### <image>")
def test_any_text_is_decoded_unchanged(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_special_tokens_come_first_and_most_words_of_the_picture_book_are_one_token(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    turns = [turn for s in scenes("dev", 50) for turn in instruction_record(s, "detail")["conversations"]]
    words = " ".join(turn["value"] for turn in turns).split()
    assert len(tokenizer.encode(" ".join(words), add_special_tokens=False)) < 1.4 * len(words)


def test_a_saved_tokenizer_loads_unchanged_and_a_folder_without_one_is_named(tmp_path):
    made = train_tokenizer(["a red car", "a red cat"] * 50, 280)
    made.save_pretrained(tmp_path / "t")
    assert load_tokenizer(tmp_path / "t").encode("a red cab é") == made.encode("a red cab é") and len(made) <= 280
    with pytest.raises(FileNotFoundError, match="none: no tokenizer files here"):
        load_tokenizer(tmp_path / "none")


def test_a_conversation_in_turns_keeps_its_questions_and_shows_the_picture_once_per_record():
    whole = instruction_record(compose("train", 3), "conversation")
    parts = in_turns(whole, 3)

    def texts(records):
        return [t["value"].replace("<image>", "").strip() for r in records for t in r["conversations"]]

    assert [len(part["conversations"]) for part in parts] == [6, 6, 4] and texts(parts) == texts([whole])
    assert all(part["image"] == whole["image"] and str(part).count("<image>") == 1 for part in parts)
    assert len({part["id"] for part in parts}) == 3 and parts == in_turns(whole, 3)
    places = [in_turns(instruction_record(compose("train", n), "conversation"), 8)[0] for n in range(200)]
    first = sum(r["conversations"][0]["value"].startswith("<image>") for r in places)
    assert 70 < first < 130


def test_a_question_record_asks_a_kind_as_often_as_its_weight_says_and_first_as_often_as_asked():
    records = [question_record(compose("train", n), 0, {"count": 3, "colour": 1}, after=0.8) for n in range(300)]
    values = [r["conversations"][0]["value"] for r in records]
    assert 200 < sum("How many" in v for v in values) < 260
    assert all("How many" in v or "What colour" in v for v in values)
    assert 215 < sum(v.endswith("<image>") for v in values) < 265
    for n, record in enumerate(records[:50]):
        asked, answer = (turn["value"] for turn in record["conversations"])
        known = {q.text: q.answer for q in questions(compose("train", n))}
        assert known[asked.replace("<image>", "").strip()] == answer

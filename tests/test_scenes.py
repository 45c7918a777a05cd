"""The picture book: the same scenes on every machine, separate splits, and annotations that are true."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import PIL
import pytest
from PIL import ImageChops

from minillava.scenes.captions import boxes, caps_boxes, captions, coco_files
from minillava.scenes.compose import SPLIT_BUCKETS, compose, held_out, scenes, twin
from minillava.scenes.draw import STYLES, draw
from minillava.scenes.reading import claims, holds, read_scene
from minillava.scenes.world import COLOURS, DOINGS, KINDS, PLACES, SIDES


@pytest.fixture(scope="module")
def train():
    return scenes("train", 3000)


@pytest.fixture(scope="module")
def wild():
    return scenes("wild", 500)


def novelties(scene):
    return [t for t in scene.things if held_out(t.kind, colour=t.colour) or held_out(t.kind, place=scene.place)]


# the world


def test_the_world_is_large_enough():
    assert len(KINDS) >= 30 and len(COLOURS) == 8 and len(PLACES) >= 4
    assert len(set(COLOURS.values())) == 8 and len({k.plural for k in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(
    "what, expected",
    [
        (lambda s: {t.kind for t in s.things}, set(KINDS)),
        (lambda s: {t.colour for t in s.things}, set(COLOURS)),
        (lambda s: {s.place}, set(PLACES)),
        (lambda s: {t.doing for t in s.things}, {None, *DOINGS}),
        (lambda s: {t.side for t in s.things}, set(SIDES)),
        (lambda s: {o.rule for o in s.odd}, {"doing", "support", "air", "place"}),
    ],
    ids=["kinds", "colours", "places", "doings", "sides", "ways to be odd"],
)
def test_everything_appears_in_training_scenes_at_least_ten_times(train, what, expected):
    counts = dict.fromkeys(expected, 0)
    for scene in train:
        for value in what(scene):
            counts[value] += 1
    assert min(counts.values()) >= 10, counts


def test_about_a_third_of_the_scenes_are_odd_each_in_exactly_one_way_and_with_a_reason(train):
    odd = [s for s in train if s.odd]
    assert 0.28 < len(odd) / len(train) < 0.38
    assert all(len(s.odd) == 1 and s.odd[0].why for s in odd)


# the splits


def test_splits_share_no_content(train, wild):
    keys = {"train": train, "wild": wild} | {name: scenes(name, 1000) for name in ("dev", "bench")}
    keys = {name: {s.key() for s in some} for name, some in keys.items()}
    assert keys.keys() == SPLIT_BUCKETS.keys()
    for one in keys:
        for two in keys.keys() - {one}:
            assert not keys[one] & keys[two], (one, two)
    assert len(keys["train"]) > 2500  # and scenes differ within a split


def test_held_out_combinations_are_in_every_wild_scene_and_in_no_other(train, wild):
    assert all(novelties(s) for s in wild)
    assert not any(novelties(s) for s in [*train, *scenes("dev", 300), *scenes("bench", 300)])
    assert {s.style for s in wild} == {"sticker"} and {s.style for s in train} == {"book"}


def test_a_twin_differs_in_one_respect_and_stays_in_the_training_split(train):
    import random

    keys, changed = {s.key() for s in scenes("dev", 500) + scenes("bench", 500)}, 0
    for n, scene in enumerate(train[:500]):
        other = twin(scene, random.Random(n))
        changed += other.key() != scene.key()
        assert other.key() not in keys and not novelties(other)
        assert [t.kind for t in other.things] == [t.kind for t in scene.things] and other.place == scene.place
    assert changed > 250


def test_an_unknown_split_is_an_error():
    with pytest.raises(KeyError, match="test"):
        compose("test", 0)


# reproducibility

DIGEST = """
import hashlib
from minillava.scenes.questions import questions
from minillava.standins.records import caption_record, instruction_record
from minillava.datagen.messages import TYPES
from minillava.scenes.captions import boxes, captions
from minillava.scenes.compose import SPLIT_BUCKETS, scenes
out = hashlib.sha256()
for split in SPLIT_BUCKETS:
    for s in scenes(split, 40):
        records = [caption_record(s), *(instruction_record(s, kind) for kind in TYPES)]
        out.update(repr([s, captions(s), boxes(s), records, questions(s)]).encode())
print(out.hexdigest())
"""


def test_scenes_captions_records_and_questions_do_not_depend_on_the_hash_seed():
    command, digests = [sys.executable, "-c", DIGEST], set()
    for seed in ("0", "1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        digests.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(digests) == 1 and len(digests.pop().strip()) == 64


def test_a_scene_does_not_depend_on_those_before_it(train):
    assert compose("train", 2999) == train[2999] and scenes("train", 2, start=7) == train[7:9]


GOLDEN = {  # SHA-256 of ten pictures; on a machine that draws other bits, figures cannot be compared
    ("book", 64): "e2c0a82853fd899ab7eac7e080434def858b5e31c5d9dbf75e43a5fb9dc5ce42",
    ("book", 96): "e9e11f1d7f5fcb2f9757a7d3242c47294a6cdb2f9d128356ce6f0ebbc60ab903",
    ("book", 200): "c14bf56cb573f0bfbedb4d2da6dc274f4e814e0f3dd01079e15f8370b6256c51",
    ("sticker", 64): "abf422612f2a97bb70073f10344f6d2fc360e35ce57f7346e197d8880e825923",
    ("sticker", 96): "b343e1dd1e4061beeba7fdbba1fd3a6f816fdf4aea8a6f7e39102a1b4dd152a4",
    ("sticker", 200): "e01451c8e7d0a92eba1e1c126a7926189f84639546f71319de435456ad02ccff",
}


@pytest.mark.parametrize("style, size", GOLDEN)
def test_drawn_pictures_are_the_same_bits_on_every_machine(style, size):
    digest = hashlib.sha256()
    for scene in scenes("train", 10):
        digest.update(draw(replace(scene, style=style), size).tobytes())
    assert digest.hexdigest() == GOLDEN[style, size], f"other bits from Pillow {PIL.__version__} on {sys.platform}"


@pytest.mark.parametrize("size", [64, 65, 97, 128, 333])
@pytest.mark.parametrize("style", STYLES)
def test_every_size_from_64_can_be_drawn_and_a_smaller_one_is_an_error(size, style, train):
    picture = draw(replace(train[0], style=style), size)
    assert picture.size == (size, size) and picture.mode == "RGB" and len(picture.getcolors(size * size)) > 20
    with pytest.raises(ValueError, match="size 63: the smallest picture is 64"):
        draw(train[0], 63)


def test_drawing_a_scene_that_was_read_from_text_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="scene told: only a composed scene can be drawn"):
        draw(read_scene(["a red car in a park"], name="told"))


def test_every_thing_is_drawn_in_its_box(train):
    """Pictures with and without a thing differ, and only in and around its box."""
    for scene in train[:40]:
        top = len(scene.things) - 1
        x1, y1, x2, y2 = (v * 96 // 1000 for v in scene.things[top].box)
        whole, without = draw(scene, 96), draw(replace(scene, things=scene.things[:top]), 96)
        changed = ImageChops.difference(whole, without).getbbox()
        assert changed[0] >= x1 - 2 and changed[1] >= y1 - 2 and changed[2] <= x2 + 2 and changed[3] <= y2 + 2
        assert (changed[2] - changed[0]) * (changed[3] - changed[1]) > (x2 - x1) * (y2 - y1) / 2


# boxes


def test_boxes_are_inside_the_picture_in_thousandths_and_wide_enough_to_be_seen(train, wild):
    for scene in [*train, *wild]:
        for kind, (x1, y1, x2, y2) in boxes(scene):
            assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1, (scene.id, kind)
            assert all(v == round(v, 3) for v in (x1, y1, x2, y2))
            assert x2 - x1 >= 0.15 - 1e-9, (scene.id, kind, x2 - x1)


def test_a_box_is_on_the_side_that_the_scene_says(train):
    for scene in train:
        for thing in scene.things:
            middle = (thing.box[0] + thing.box[2]) / 2
            assert SIDES[min(2, int(middle * 3 // 1000))] == thing.side, scene.id


def test_coco_files_and_caps_boxes_agree(train):
    size, some = 640, train[:50]
    texts, instances = coco_files(some, size)
    names = {c["id"]: c["name"] for c in instances["categories"]}
    for n, scene in enumerate(some):
        record = caps_boxes(scene)
        assert record["captions"] == [a["caption"] for a in texts["annotations"] if a["image_id"] == n]
        found = [a for a in instances["annotations"] if a["image_id"] == n]
        assert [names[a["category_id"]] for a in found] == [i["category"] for i in record["instances"]]
        for a, instance in zip(found, record["instances"], strict=True):
            x, y, w, h = a["bbox"]
            assert [v / size for v in (x, y, x + w, y + h)] == pytest.approx(instance["bbox"], abs=1e-4)
            assert a["area"] == pytest.approx(w * h, abs=0.01)
    every = [a["id"] for a in texts["annotations"]], [a["id"] for a in instances["annotations"]]
    assert all(len(ids) == len(set(ids)) for ids in every)


# captions


def test_every_scene_has_five_captions_and_every_claim_in_them_is_true(train):
    count = 0
    for scene in train[:2000]:
        texts = captions(scene)
        assert len(texts) == 5 and all(t.strip() == t and "\n" not in t for t in texts)
        for text in texts:
            for claim in claims(text):
                count += 1
                assert holds(claim, scene), (scene.id, text, claim)
    assert count > 10 * 2000  # there were claims to check


def test_the_five_captions_together_tell_the_scene_and_what_is_odd(train, wild):
    for scene in [*train, *wild]:
        read = read_scene(captions(scene))
        assert read.key() == scene.key(), scene.id
        assert [(o.rule, o.why) for o in read.odd] == [(o.rule, o.why) for o in scene.odd], scene.id


def test_only_the_first_writer_always_tells_everything(train):
    told = [[read_scene([text]).key() == s.key() for text in captions(s)] for s in train[:300]]
    assert all(any(some) for some in told) and sum(map(sum, told)) < 0.7 * 5 * 300

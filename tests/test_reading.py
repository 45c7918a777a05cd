"""Reading English about the picture book: the claims of a text, and whether they are true of a scene."""

from dataclasses import astuple

import pytest

from minillava.scenes.reading import Mention, claims, holds, mentions, place_in, read_scene
from minillava.scenes.world import Scene, Thing


def said(sentence):
    """For each mention of a sentence: the kind, and the fields that are not at their defaults."""
    plain = astuple(Mention("", None, None))
    names = list(Mention.__dataclass_fields__)
    return [
        {n: v for n, v, p in zip(names, astuple(m), plain, strict=True) if v != p and n != "kind"} | {"kind": m.kind}
        for m in mentions(sentence)
    ]


@pytest.mark.parametrize(
    "sentence, expected",
    [
        ("a red car", [dict(kind="car", colour="red", count=1)]),
        ("the car", [dict(kind="car")]),
        ("two red cars", [dict(kind="car", colour="red", count=2)]),
        ("3 butterflies", [dict(kind="butterfly", count=3)]),
        ("five sheep and a fish", [dict(kind="sheep", count=5), dict(kind="fish", count=1)]),
        ("six people", [dict(kind="person", count=6)]),
        ("the car is red", [dict(kind="car", colour="red")]),
        ("the cars are red", [dict(kind="car", colour="red")]),
        ("the car is not red", [dict(kind="car", not_colour="red")]),
        ("a person in blue", [dict(kind="person", colour="blue", count=1)]),
        ("a person wearing blue", [dict(kind="person", colour="blue", count=1)]),
        ("the person's shirt is green", [dict(kind="person", colour="green")]),
        ("no cats", [dict(kind="cat", count=0, denied=True)]),
        ("there is no red cat", [dict(kind="cat", colour="red", count=0, denied=True)]),
        ("there isn't a cat", [dict(kind="cat", count=1, denied=True)]),
        ("i cannot see any cat", [dict(kind="cat", denied=True)]),
        ("no, there is a cat", [dict(kind="cat", count=1)]),
        ("no cat, but a dog", [dict(kind="cat", count=0, denied=True), dict(kind="dog", count=1)]),
        ("a dog on the left", [dict(kind="dog", count=1, side="left")]),
        ("the dog is in the middle", [dict(kind="dog", side="middle")]),
        ("on the right there is a dog", [dict(kind="dog", count=1, side="right")]),
        ("a dog in the centre", [dict(kind="dog", count=1, side="middle")]),
        ("a dog to the left of a cat", [dict(kind="dog", count=1, relation=("to the left of", 1)), dict(kind="cat", count=1)]),
        ("a dog to the right of a cat", [dict(kind="dog", count=1, relation=("to the right of", 1)), dict(kind="cat", count=1)]),
        ("a dog beside a cat", [dict(kind="dog", count=1, relation=("next to", 1)), dict(kind="cat", count=1)]),
        ("a cat on a car on the left", [dict(kind="cat", count=1, side="left", relation=("on", 1)), dict(kind="car", count=1, side="left")]),
        ("a cat in a box", [dict(kind="cat", count=1, relation=("on", 1)), dict(kind="box", count=1)]),
        ("a cat on top of a box", [dict(kind="cat", count=1, relation=("on", 1)), dict(kind="box", count=1)]),
        ("a person in red riding a horse", [dict(kind="person", colour="red", count=1, relation=("on", 1)), dict(kind="horse", count=1)]),
        ("a person reading on a chair", [dict(kind="person", count=1, doing="reading", relation=("on", 1)), dict(kind="chair", count=1)]),
        ("a person is fishing", [dict(kind="person", count=1, doing="fishing")]),
        ("a kite in the sky", [dict(kind="kite", count=1, air=True)]),
        ("a clock on the wall", [dict(kind="clock", count=1, air=True)]),
        ("a bike, an airplane and two bunnies", [dict(kind="bicycle", count=1), dict(kind="plane", count=1), dict(kind="rabbit", count=2)]),
        ("a mug and sailboats", [dict(kind="cup", count=1), dict(kind="boat")]),
        ("carpets, scatter and boxing", []),  # words inside other words
        ("two trucks on a street", [dict(kind="truck", count=2)]),
    ],
)  # fmt: skip
def test_mentions(sentence, expected):
    assert said(sentence) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("A red car is on the left.", {("exists", "car", "red", None, False), ("side", "car", "red", "left")}),
        ("There are two cars.", {("exists", "car", None, 2, False)}),
        ("No, there is no dog.", {("exists", "dog", None, 0, True)}),
        ("The car is red because a bus is blue.", {("exists", "car", "red", None, False)}),
        ("The chair, because one can use a chair to sit down.", {("exists", "chair", None, None, False)}),
        ("Nothing is odd in this picture.", {("odd", None)}),
        ("No, nothing is unusual here.", {("odd", None)}),
        ("A cow is odd, because a cow cannot fly.", {("odd", "cow"), ("exists", "cow", None, None, False)}),
        ("Yes, something is strange.", {("odd", "?")}),
        ("This is on a beach.", {("place", "beach")}),
        ("This is at the seaside.", {("place", "beach")}),
        ("This is not a park.", set()),
        ("A park or a street?", set()),
        ("", set()),
        ("Paris is the capital of France.", set()),
        ("A cat sits. A cat sits.", {("exists", "cat", None, None, False)}),
    ],
)
def test_claims(text, expected):
    found = claims(text)
    assert set(found) == expected and len(found) == len(expected)


THINGS = (
    Thing("car", "red", "left"),
    Thing("cat", "white", "left", on=0),
    Thing("dog", "black", "middle"),
    Thing("dog", "white", "right"),
    Thing("person", "blue", "right", doing="ironing"),
    Thing("kite", "green", "middle", air=True),
)
SCENE = Scene("park", "park", THINGS)
NORMAL = Scene("street", "street", THINGS[:4])


@pytest.mark.parametrize(
    "text, truth",
    [
        ("There is a red car.", True),
        ("There is a blue car.", False),
        ("There is a bus.", False),
        ("There is no bus.", True),
        ("There is no car.", False),
        ("There is no blue car.", True),
        ("There are two dogs.", True),
        ("There are three dogs.", False),
        ("There are no dogs.", False),
        ("There are two white dogs.", False),
        ("The car is red.", True),
        ("The car is green.", False),
        ("The car is not green.", True),
        ("The car is not red.", False),
        ("The car is on the left.", True),
        ("The car is on the right.", False),
        ("A white dog is on the right.", True),
        ("A white dog is in the middle.", False),
        ("A cat is on the car.", True),
        ("A cat is on a red car.", True),
        ("A cat is on a blue car.", False),
        ("A car is on a cat.", False),
        ("A dog is on the car.", False),
        ("The car is next to the black dog.", True),
        ("The car is next to the white dog.", False),  # two sides away
        ("The car is to the left of the dog.", True),
        ("The dog is to the left of the car.", False),
        ("The white dog is to the right of the car.", True),
        ("The person's shirt is blue.", True),
        ("The person's shirt is red.", False),
        ("The person is ironing.", True),
        ("The person is reading.", False),
        ("A kite is in the sky.", True),
        ("The car is in the sky.", False),
        ("This is in a park.", True),
        ("This is in a room.", False),
        ("A person in blue ironing is odd, because people iron in a room.", True),
        ("A dog is odd.", False),
        ("Nothing is odd here.", False),
    ],
)
def test_whether_a_text_is_true_of_a_park_where_somebody_irons(text, truth):
    stated = claims(text)
    assert stated and all(holds(c, SCENE) for c in stated) == truth


@pytest.mark.parametrize("text, truth", [("Nothing is odd here.", True), ("A dog is odd.", False)])
def test_whether_a_text_is_true_of_an_ordinary_street(text, truth):
    assert all(holds(c, NORMAL) for c in claims(text)) == truth


@pytest.mark.parametrize(
    "text, truth", [("Two kites.", False), ("Three kites.", True), ("A kite.", True), ("Four kites.", False)]
)
def test_a_number_means_exactly_that_number(text, truth):
    kites = Scene("kites", "park", tuple(Thing("kite", "red", side, air=True) for side in ("left", "middle", "right")))
    assert all(holds(c, kites) for c in claims(text)) == truth


def test_an_unknown_claim_is_an_error():
    with pytest.raises(KeyError, match="above"):
        holds(("above", "car", None, "dog", None), SCENE)


def test_place_in_takes_a_single_place_and_none_from_a_reason():
    assert place_in("A road with a car") == "street" and place_in("a park, a beach") is None
    assert place_in("A car, because a car belongs on a street") is None


def test_a_scene_is_read_from_the_fullest_caption_and_boxes_add_things():
    told = ["a cat", "A red car on the left and a cat on a blue box on the right.", "a quiet street"]
    read = read_scene(told, [("car", (0, 0.5, 0.3, 0.9)), ("ball", (0.4, 0.8, 0.6, 0.9)), ("toaster", (0, 0, 1, 1))])
    assert read.place == "street"
    assert read.things == (
        Thing("car", "red", "left"),
        Thing("cat", None, "right", on=2),
        Thing("box", "blue", "right"),
        Thing("ball", side="middle"),
    )
    with pytest.raises(ValueError, match="this one: no captions"):
        read_scene([], name="this one")

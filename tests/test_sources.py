"""Sources: every format gives the same pictures; a bad record is named with its file, and the others are used."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillava.datagen.pictures import Picture
from minillava.datagen.sources import SourceError, read_source
from minillava.files import FileError
from minillava.scenes.captions import boxes, caps_boxes, captions, coco_files
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.pictures import picture_book

SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six scenes in every format, with their pictures."""
    root, some = tmp_path_factory.mktemp("sources"), scenes("train", 6)
    (root / "images").mkdir()
    for scene in some:
        draw(scene, SIZE).save(root / "images" / f"{scene.id}.png")
    (root / "caps.jsonl").write_text("".join(json.dumps(caps_boxes(s)) + "\n" for s in some))
    for name, data in zip(("captions_train.json", "instances_train.json"), coco_files(some, SIZE)):
        (root / name).write_text(json.dumps(data))
    rows = [f'{s.id}.png,"{text}"\n' for s in some for text in captions(s)]
    (root / "captions.csv").write_text("image,caption\n" + "".join(rows))
    return root


@pytest.fixture
def images(folder):
    return folder / "images"


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def good(n=0, **more):
    return caps_boxes(scenes("train", n + 1)[n]) | more


# the formats


def test_a_caps_boxes_file_is_read_unchanged(folder, images):
    pictures, problems = read_source(folder / "caps.jsonl", images)
    expected = [Picture(s.id, f"{s.id}.png", tuple(captions(s)), tuple(boxes(s))) for s in scenes("train", 6)]
    assert pictures == expected and not problems


def test_coco_pixels_become_the_same_boxes(folder, images):
    pictures, problems = read_source(folder / "captions_train.json", images)
    assert not problems and [p.id for p in pictures] == [s.id for s in scenes("train", 6)]
    for picture, scene in zip(pictures, scenes("train", 6)):
        assert picture.captions == tuple(captions(scene))
        assert [k for k, _ in picture.boxes] == [k for k, _ in boxes(scene)]
        for (_, box), (_, exact) in zip(picture.boxes, boxes(scene)):
            assert box == pytest.approx(exact, abs=0.011 / SIZE * 2)


def test_coco_boxes_may_be_in_a_named_file_or_absent(folder, images, tmp_path):
    alone = tmp_path / "captions_train.json"
    alone.write_text((folder / "captions_train.json").read_text())
    assert all(not p.boxes for p in read_source(alone, images)[0])
    assert all(p.boxes for p in read_source(alone, images, folder / "instances_train.json")[0])


def test_a_csv_has_one_row_per_caption(folder, images, tmp_path):
    pictures, problems = read_source(folder / "captions.csv", images)
    assert not problems and [p.captions for p in pictures] == [tuple(captions(s)) for s in scenes("train", 6)]
    rows = ["\ufeffid,caption,image", 'mine,"a, ""red"" car",train-000000.png', "mine,ein Döner,train-000000.png"]
    (tmp_path / "own.csv").write_text("\n".join(rows), encoding="utf-8")
    assert read_source(tmp_path / "own.csv", images)[0] == [
        Picture("mine", "train-000000.png", ('a, "red" car', "ein Döner"))
    ]


def test_the_picture_book_is_drawn_with_the_same_captions_and_boxes(folder, images, tmp_path):
    pictures = picture_book("picture-book", tmp_path / "drawn", limit=6)
    assert pictures == read_source(folder / "caps.jsonl", images)[0]
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == sorted(p.image for p in pictures)
    assert picture_book("picture-book:wild", tmp_path / "drawn", limit=1)[0].id == "wild-000000"
    with pytest.raises(SourceError, match="picture-book:none: no such split; there are train, dev, bench, wild"):
        picture_book("picture-book:none", tmp_path)


def test_a_limit_takes_the_first_good_ones(folder, images, tmp_path):
    assert [p.id for p in read_source(folder / "caps.jsonl", images, limit=2)[0]] == ["train-000000", "train-000001"]
    path = write(tmp_path / "c.jsonl", [good(0, captions=[]), good(1), good(2)])
    assert [p.id for p in read_source(path, images, limit=1)[0]] == ["train-000001"]
    with pytest.raises(SourceError, match="--limit 0"):
        read_source(path, images, limit=0)


def test_captions_have_one_line_and_are_at_most_five(images, tmp_path):
    path = write(tmp_path / "c.jsonl", [good(0, captions=["a\n\ncar: [0, 0, 1, 1]", " ", "b\tc", *"defgh"])])
    assert read_source(path, images)[0][0].captions == ("a car: [0, 0, 1, 1]", "b c", "d", "e", "f")


def test_every_record_of_the_authors_file_is_read(real, tmp_path):
    path = real("llava_bench_coco/caps_boxes_coco2014_val_80.jsonl")
    for line in path.read_text().splitlines():
        (tmp_path / json.loads(line)["image"]).touch()
    pictures, problems = read_source(path, tmp_path)
    assert (len(pictures), problems) == (80, [])
    assert sum(len(p.boxes) for p in pictures) == 476 and len({k for p in pictures for k, _ in p.boxes}) == 66
    assert all(len(p.captions) == 5 for p in pictures)


# bad records


@pytest.mark.parametrize(
    "row, reason",
    [
        (good(0, image="none.png"), "no picture 'none.png' in the image folder"),
        (good(0, image="../images/train-000000.png"), "outside the image folder"),
        (good(0, image="a/../train-000000.png"), "outside the image folder"),
        (good(0, image="/etc/passwd"), "outside the image folder"),
        (good(0, image="link.png"), "outside the image folder through a link"),
        (good(0, image="linked/train-000000.png"), "outside the image folder through a link"),
        (good(0, image="."), "is not a file"),
        (good(0, image="x" * 5000), "cannot be looked up"),
        (good(0, image="a\0b"), "outside the image folder"),
        (good(0, image=None), "no `image`"),
        (good(0, id=None), "no `id`"),
        (good(0, captions=[]), "no captions"),
        (good(0, captions=["", " "]), "no captions"),
        (good(0, captions=["<image>", " <image> "]), "no captions"),
        (good(0, captions="a car"), "`captions` must be a list of texts"),
        (good(0, captions=[1]), "`captions` must be a list of texts"),
        (good(0, captions=["half \ud800"]), "half a character"),
        (good(1), "the id 'train-000001' appears twice"),
        (good(0, instances=[{"category": "car", "bbox": [0.5, 0.1, 0.2, 0.4]}]), "car: .* is inverted or empty"),
        (good(0, instances=[{"category": "car", "bbox": [0.1, 0.4, 0.2, 0.4]}]), "is inverted or empty"),
        (good(0, instances=[{"category": "car", "bbox": [0.1, 0.1, 1.2, 0.4]}]), "is outside the picture"),
        (good(0, instances=[{"category": "car", "bbox": [-0.1, 0.1, 0.2, 0.4]}]), "is outside the picture"),
        (good(0, instances=[{"category": "car", "bbox": [0.1, 0.1, float("nan"), 0.4]}]), "is not a number"),
        (good(0, instances=[{"category": "car", "bbox": [0.1, 0.1, 0.2]}]), "is not a box"),
        (good(0, instances=[{"category": "car", "bbox": [0.1, "0.1", 0.2, 0.4]}]), "is not a number"),
        (good(0, instances=[{"category": " ", "bbox": [0.1, 0.1, 0.2, 0.4]}]), "is not a box"),
        (good(0, instances=[7]), "7 is not an instance"),
        (good(0, instances=7), "expected an object with"),
        ([1], "expected an object with"),
    ],
)  # fmt: skip
def test_a_bad_record_is_named_and_the_others_are_used(folder, tmp_path, row, reason):
    images, outside = tmp_path / "images", tmp_path / "outside"
    outside.mkdir()
    images.symlink_to(folder / "images") if isinstance(row, list) else images.mkdir()
    if not images.is_symlink():
        for path in (folder / "images").iterdir():
            (images / path.name).write_bytes(path.read_bytes())
            (outside / path.name).write_bytes(path.read_bytes())
        (images / "link.png").symlink_to(outside / "train-000000.png")
        (images / "linked").symlink_to(outside)
    path = write(tmp_path / "c.jsonl", [good(1), row, good(2)])
    pictures, problems = read_source(path, images)
    assert [p.id for p in pictures] == ["train-000001", "train-000002"]
    assert len(problems) == 1 and str(problems[0]).startswith("c.jsonl: line 2: ")
    assert re.search(reason, problems[0].reason), problems[0]
    str(problems[0]).encode()  # it can be printed


def test_a_link_inside_the_image_folder_is_a_picture(folder, tmp_path):
    (tmp_path / "real.png").write_bytes(b"png")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    assert len(read_source(write(tmp_path / "c.jsonl", [good(0, image="link.png")]), tmp_path)[0]) == 1


def test_boxes_that_extend_past_the_picture_by_a_pixel_are_clipped(images, tmp_path):
    path = write(tmp_path / "c.jsonl", [good(0, instances=[{"category": "car", "bbox": [-0.001, 0.1, 1.001, 0.4]}])])
    assert read_source(path, images)[0][0].boxes == (("car", (0.0, 0.1, 1.0, 0.4)),)


def test_lines_that_are_not_utf8_or_not_json_are_named(images, tmp_path):
    one = json.dumps(good(0)).encode()
    deep = b"[" * 100_000
    lines = [b"\xef\xbb\xbf" + one, b"\xff\xfe", b"{", b"", json.dumps(good(1)).encode(), deep]
    (tmp_path / "c.jsonl").write_bytes(b"\n".join(lines))
    pictures, problems = read_source(tmp_path / "c.jsonl", images)
    said = [str(p).removeprefix("c.jsonl: ").split(" (")[0] for p in problems]
    assert len(pictures) == 2 and said == ["line 2: not UTF-8", "line 3: not JSON", "line 6: not JSON"]


def test_bad_rows_of_a_csv_are_named(images, tmp_path):
    rows = (b"image,caption", b"train-000000.png,a car", b"train-000001.png,caf\xe9", b"train-000002.png,a,b")
    (tmp_path / "c.csv").write_bytes(b"\n".join((*rows, b"train-000003.png", b",x", b"train-000004.png,\n")))
    pictures, problems = read_source(tmp_path / "c.csv", images)
    assert [p.id for p in pictures] == ["train-000000"]
    said = "\n".join(map(str, problems))
    for part in ("line 3 is not UTF-8", "line 4 has more fields", "line 5 has fewer fields", "line 6: ", "no captions"):
        assert part in said, said
    assert len(problems) == 5
    (tmp_path / "d.csv").write_text("id,image,caption\na,train-000000.png,x\nb,train-000000.png,y\n")
    assert "one image with several ids: a, b" in str(read_source(tmp_path / "d.csv", images)[1][0])


def test_bad_coco_records_are_named(folder, images, tmp_path):
    texts = json.loads((folder / "captions_train.json").read_text())
    things = json.loads((folder / "instances_train.json").read_text())
    texts["annotations"] = [a for a in texts["annotations"] if a["image_id"] != 1]
    del texts["images"][2]["width"]
    texts["annotations"].append({"id": 999, "image_id": 77, "caption": "a stray"})
    next(a for a in things["annotations"] if a["image_id"] == 3)["bbox"] = [10, 10, -5, 5]
    next(a for a in things["annotations"] if a["image_id"] == 4)["category_id"] = 999
    things["annotations"][0]["segmentation"] = [[1, 2, 3]]
    (tmp_path / "captions_x.json").write_text(json.dumps(texts))
    (tmp_path / "instances_x.json").write_text(json.dumps(things))
    pictures, problems = read_source(tmp_path / "captions_x.json", images)
    assert [p.id for p in pictures] == ["train-000000", "train-000005"]
    said = [str(p).removeprefix("captions_x.json: ") for p in problems]
    starts = ("image 1: no captions", "image 2: no `width`", "image 3: the box", "image 4: None", "image 77: has")
    assert len(said) == 5 and all(found.startswith(start) for found, start in zip(said, starts)), said
    assert "inverted" in said[2]


@pytest.mark.parametrize("value", [None, [], {}, True, "x1", 10**400, float("nan"), float("inf")], ids=repr)
def test_a_wrong_value_in_any_field_of_coco_leaves_out_only_its_record(folder, images, tmp_path, value):
    texts = json.loads((folder / "captions_train.json").read_text())
    things = json.loads((folder / "instances_train.json").read_text())
    second, fourth = (next(a for a in things["annotations"] if a["image_id"] == n) for n in (2, 4))
    texts["images"][0]["height"] = second["bbox"][1] = fourth["category_id"] = value
    things["annotations"].append(fourth | {"image_id": value})
    things["categories"].append({"id": [value], "name": value})
    texts["annotations"].append({"image_id": value, "caption": "a stray"})
    texts["images"][5]["id"] = value
    (tmp_path / "captions_x.json").write_text(json.dumps(texts))
    (tmp_path / "instances_x.json").write_text(json.dumps(things))
    pictures, problems = read_source(tmp_path / "captions_x.json", images)
    assert {"train-000001", "train-000003"} <= {p.id for p in pictures}
    assert {"image 0", "image 2"} <= {p.record for p in problems} and "train-000004" not in {p.id for p in pictures}


# COCO's ids, splits and crowds


@pytest.fixture
def coco(folder, tmp_path):
    """A function that writes COCO's two files after a change, and reads them."""

    def read(change=lambda texts, things: None, root=folder / "images"):
        texts, things = (json.loads((folder / f"{name}_train.json").read_text()) for name in ("captions", "instances"))
        change(texts, things)
        (tmp_path / "captions_x.json").write_text(json.dumps(texts))
        (tmp_path / "instances_x.json").write_text(json.dumps(things))
        return read_source(tmp_path / "captions_x.json", root)

    return read


IDS = st.sampled_from([int, str, float, lambda n: f"{n:012}"])


@given(image=IDS, caption=IDS, box=IDS, category=IDS, kind=IDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_ids_join_as_numbers_however_each_file_writes_them(coco, image, caption, box, category, kind):
    def change(texts, things):
        for rows, field, write in (
            (texts["images"], "id", image), (texts["annotations"], "image_id", caption), (things["annotations"], "image_id", box),
            (things["annotations"], "category_id", category), (things["categories"], "id", kind),
        ):  # fmt: skip
            for row in rows:
                row[field] = write(row[field])

    assert coco(change) == coco()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["1", "0001", "../a.png", "."]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "bbox"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(at=st.randoms(), value=JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_value_in_any_field_of_coco_gives_pictures_or_words(coco, at, value):
    def change(texts, things):
        rows = at.choice([texts["images"], texts["annotations"], things["annotations"], things["categories"]])
        row = at.choice(rows)
        row[at.choice(list(row))] = value

    try:
        pictures, problems = coco(change)
    except SourceError as error:
        assert "_x.json: " in str(error)
    else:
        assert len(pictures) >= 5 - (len(problems) > 1) and all(p.captions and str(p).encode() for p in pictures)
        assert all(str(problem).startswith("captions_x.json: image ") for problem in problems)


def test_instances_of_another_split_are_refused_with_the_number_of_pictures(coco):
    def other(texts, things):
        for row in things["annotations"]:
            row["image_id"] += 500

    with pytest.raises(SourceError, match="0 of 6 pictures have boxes in .*instances_x.json; .*--instances"):
        coco(other)

    def some(texts, things):
        for row in things["annotations"]:
            row["image_id"] += 500 if row["image_id"] != 1 else 0

    pictures, problems = coco(some)
    assert len(pictures) == 6 and sum(bool(p.boxes) for p in pictures) == 1 and not problems


def test_frames_of_the_same_name_in_two_folders_are_two_pictures(coco, folder, tmp_path):
    for n in range(2):
        (tmp_path / "images" / f"clip{n}").mkdir(parents=True)
        (tmp_path / "images" / f"clip{n}" / "frame_0.png").touch()

    def frames(texts, things):
        texts["images"] = texts["images"][:2]
        texts["annotations"] = [a for a in texts["annotations"] if a["image_id"] in (0, 1)]
        for n, image in enumerate(texts["images"]):
            image["file_name"] = f"clip{n}/frame_0.png"

    pictures, problems = coco(frames, tmp_path / "images")
    assert [p.id for p in pictures] == ["clip0/frame_0", "clip1/frame_0"] and not problems
    rows = "".join(f"clip{n}/frame_0.png,a car\n" for n in range(2))
    (tmp_path / "c.csv").write_text(f"image,caption\n{rows}.,a car\n")
    pictures, problems = read_source(tmp_path / "c.csv", tmp_path / "images")
    assert [p.id for p in pictures] == ["clip0/frame_0", "clip1/frame_0"] and "not a file" in str(problems[0])


def test_crowd_boxes_are_left_out_and_two_pictures_with_one_id_are_named(coco):
    def crowd(texts, things):
        for row in things["annotations"]:
            row["iscrowd"] = int(row["image_id"] == 2)
        texts["images"][5]["id"] = "1"

    pictures, problems = coco(crowd)
    assert [bool(p.boxes) for p in pictures] == [True, True, False, True, True]
    assert [str(p) for p in problems][0] == "captions_x.json: image 1: has the id of another picture"


# bad sources


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("c.json", b"{", "c.json: not JSON"),
        ("c.json", b"[" * 100_000, "c.json: not JSON"),
        ("c.json", b"\xff\xfe", "c.json: not UTF-8"),
        ("c.json", b"[]", "no list `images`"),
        ("c.json", b'{"images": [1], "annotations": []}', "no list `images` of objects"),
        ("c.json", b'{"images": []}', "no list `annotations`"),
        ("c.csv", b"file,text\na,b\n", "its columns are .'file', 'text'.; expected `image` and `caption`"),
        ("c.csv", b"", "its columns are .."),
        ("c.parquet", b"", "not a source; expected"),
        (None, None, "cannot be read .No such file"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(images, tmp_path, name, text, message):
    path = tmp_path / (name or "none.jsonl")
    if name:
        path.write_bytes(text)
    with pytest.raises((SourceError, FileError), match=message) as error:
        read_source(path, images)
    assert str(path) in str(error.value)


def test_a_missing_image_folder_is_named(folder, tmp_path):
    with pytest.raises(SourceError, match="none: no such folder.*--images"):
        read_source(folder / "caps.jsonl", tmp_path / "none")

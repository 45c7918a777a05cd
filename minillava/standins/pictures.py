"""The picture book as a source of pictures: scenes drawn into a folder, with captions and boxes."""

from pathlib import Path

from minillava.datagen.pictures import Picture
from minillava.datagen.sources import SourceError
from minillava.scenes.captions import boxes, captions
from minillava.scenes.compose import SPLIT_BUCKETS, scenes
from minillava.scenes.draw import draw_file

PICTURE_BOOK = "picture-book"
PICTURE_SIZE = 256  # pixels per side
# Measured on 280 questions: 92.9 % right, 93.9 % with drawings of 96 pixels; of the odd scenes 82.5 and 90.0 %.
SIZE_NOTE = (
    f"the pictures are drawn with {PICTURE_SIZE} pixels per side; the shipped vision tower was trained on drawings of 96, "
    "so it sees these resized, which is not quite what it knows"
)


def picture_book(source: str, images: Path, limit: int | None = None) -> list[Picture]:
    """The first `limit` scenes of a split, by default 100, each drawn into `images` unless it is already there.

    source: `picture-book` (the split `train`) or `picture-book:SPLIT`. Raises SourceError for an unknown split or a
    limit below 1.
    """
    if limit is not None and limit < 1:
        raise SourceError(f"--limit {limit}: at least 1 is needed")
    split = source.partition(":")[2] or "train"
    if split not in SPLIT_BUCKETS:
        raise SourceError(f"{PICTURE_BOOK}:{split}: no such split; there are {', '.join(SPLIT_BUCKETS)}")
    some = scenes(split, limit or 100)
    for scene in some:
        draw_file(scene, images / f"{scene.id}.png", PICTURE_SIZE)
    return [Picture(s.id, f"{s.id}.png", tuple(captions(s)), tuple(boxes(s))) for s in some]

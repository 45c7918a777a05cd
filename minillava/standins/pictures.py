"""The picture book as a source of pictures: scenes drawn into a folder, with captions and boxes."""

from pathlib import Path

from minillava.datagen.pictures import Picture
from minillava.datagen.sources import SourceError
from minillava.files import whole
from minillava.scenes.captions import boxes, captions
from minillava.scenes.compose import SPLITS, scenes
from minillava.scenes.draw import draw

BOOK = "picture-book"
BOOK_SIZE = 256  # pixels of a side


def picture_book(source: str, images: Path, limit: int | None = None) -> list[Picture]:
    """The first `limit` (default: 100) scenes of a split, each drawn into `images` unless it is there.

    source: `picture-book` (its split `train`) or `picture-book:SPLIT`. Raises SourceError for an unknown split or limit and
    for a folder that cannot be written to.
    """
    if limit is not None and limit < 1:
        raise SourceError(f"--limit {limit}: at least 1 is needed")
    split = source.partition(":")[2] or "train"
    if split not in SPLITS:
        raise SourceError(f"{BOOK}:{split}: no such split; there are {', '.join(SPLITS)}")
    some = scenes(split, limit or 100)
    try:
        images.mkdir(parents=True, exist_ok=True)
        for scene in some:
            path = images / f"{scene.id}.png"
            if not path.exists():
                with whole(path, sync=False) as temporary:
                    draw(scene, BOOK_SIZE).save(temporary)
    except OSError as error:
        raise SourceError(f"{images}: cannot be written to ({error})") from error
    return [Picture(s.id, f"{s.id}.png", tuple(captions(s)), tuple(boxes(s))) for s in some]

"""Pictures from files to the vision tower's input: opened safely, turned upright, on white, cropped, normalised.

As CLIP's own processor does for the paper (facts D8), the shorter side is resized, then the centre is cropped. A file
that is not a picture, is incomplete, or is absurdly large is an error that names it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from minillava.errors import UserError

MAX_PIXELS = 89_000_000  # just under the size at which Pillow warns


class ImageError(UserError):
    """A picture that cannot be used; the message names the file and says why."""


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The image in a file, at its first frame. Any error, also one in the `with` block, becomes ImageError."""
    path = Path(path)
    if not path.is_file():
        why = "a folder, not a picture" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise ImageError(f"{path}: {why}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # below, it is an error
            image = Image.open(path)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"{path}: {image.width} x {image.height} pixels is more than {MAX_PIXELS:,}; make it smaller first"
                )
            image.seek(0)
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: far more than {MAX_PIXELS:,} pixels; make it smaller first") from error
    except Exception as error:  # Pillow's parsers raise errors of many kinds
        raise ImageError(f"{path}: not a picture that can be read ({error}); PNG, JPEG, WebP and GIF work") from error


def open_picture(path: str | Path) -> Image.Image:
    """The picture as RGB: first frame, upright by its EXIF data, transparency on white. Raises ImageError."""
    with _opened(path) as image:
        return to_rgb(image)


def frame_count(path: str | Path) -> int:
    """The number of frames in a file. `open_picture` returns the first frame of an animation. Raises ImageError."""
    with _opened(path) as image:
        return getattr(image, "n_frames", 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """An open image as RGB: upright by its EXIF data, transparency on white, 16-bit grey scaled."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if upright.mode.startswith("I;16"):  # Pillow would clip at 255 instead of scaling
        upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
    return upright.convert("RGB")


def crop(picture: Image.Image, size: int) -> Image.Image:
    """A picture of size x size: the shorter side is resized, then the centre is cropped."""
    return picture if picture.size == (size, size) else ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)


def pixels(pictures: list[Image.Image], size: int, mean: tuple, std: tuple) -> torch.Tensor:
    """RGB pictures -> (B, 3, size, size), scaled to [0, 1], then normalised by the vision tower's mean and std."""
    array = np.stack([np.asarray(crop(p, size), dtype=np.float32) for p in pictures]) / 255
    return torch.from_numpy((array - np.float32(mean)) / np.float32(std)).permute(0, 3, 1, 2).contiguous()

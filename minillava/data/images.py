"""Pictures from files to what the vision tower takes: opened safely, turned upright, on white, cropped to the middle, normalised.

Notable: as CLIP's own processor does for the paper (facts D8): the shorter side resized, then the centre cropped. A file
that is no picture, is cut off, or is absurdly large is refused with its name.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from minillava.errors import UserError

MAX_PIXELS = 89_000_000  # just under where Pillow begins to warn


class ImageError(UserError):
    """A picture that cannot be used; the message names the file and says why."""


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The image in a file, at its first frame; whatever goes wrong with it, also within, is an ImageError naming the file."""
    path = Path(path)
    if not path.is_file():
        what = (
            "a folder, not a picture"
            if path.is_dir()
            else "a pipe or a device, not a file"
            if path.exists()
            else "no such file"
        )
        raise ImageError(f"{path}: {what}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is an error below
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
    except Exception as error:  # Pillow raises whatever its parsers do
        raise ImageError(f"{path}: not a picture that can be read ({error}); PNG, JPEG, WebP and GIF work") from error


def open_picture(path: str | Path) -> Image.Image:
    """The picture as RGB: first frame, EXIF orientation applied, transparency on white. Raises ImageError naming the file."""
    with _opened(path) as image:
        return to_rgb(image)


def frame_count(path: str | Path) -> int:
    """How many frames a file has: 1 unless it is an animation, of which `open_picture` shows the first. Raises ImageError."""
    with _opened(path) as image:
        return getattr(image, "n_frames", 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """An open image as RGB: EXIF orientation applied, transparency on white, 16-bit grey scaled."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if upright.mode.startswith("I;16"):  # Pillow would cut off what is over 255, not scale it
        upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
    return upright.convert("RGB")


def crop(picture: Image.Image, size: int) -> Image.Image:
    """size x size: the shorter side resized, the centre kept."""
    return picture if picture.size == (size, size) else ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)


def pixels(pictures: list[Image.Image], size: int, mean: tuple, std: tuple) -> torch.Tensor:
    """RGB pictures -> (B, 3, size, size), scaled to [0, 1], then normalised by the vision tower's own mean and std."""
    array = np.stack([np.asarray(crop(p, size), dtype=np.float32) for p in pictures]) / 255
    return torch.from_numpy((array - np.float32(mean)) / np.float32(std)).permute(0, 3, 1, 2).contiguous()

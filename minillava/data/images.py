"""Pictures from files to the vision tower's input: opened safely, turned upright, on white, cropped, normalised.

As CLIP's own processor does for the paper (facts D8), the shorter side is resized, then the centre is cropped. Colours
are taken as they are stored, as there: a colour profile is not applied. What a viewer shows is never refused for its
metadata. A file that is not a picture, is incomplete, or is absurdly large is an error that names it.
"""

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError

from minillava.errors import UserError

MAX_PIXELS = 89_000_000  # just under the size at which Pillow warns; as RGB they take 4 bytes per pixel
MOST_MEMORY = 400_000_000  # bytes that one picture may take while it is opened
HEAVY = {"WEBP": 16, "JPEG2000": 19, "AVIF": 9, "TIFF": 8, "progressive JPEG": 7}  # bytes per pixel, measured
LARGE, ONE_LARGE = 8_000_000, Lock()  # pictures of more pixels are opened one at a time, whatever the threads
STRIP = 1 << 20  # pixels that are converted at a time
MAX_RESIZED = 32_000_000  # pixels of a whole picture before the crop; of a longer strip only the middle is resized
# Formats of pixels only. Pillow also opens EPS, which starts an interpreter, and stubs that need other programs.
FORMATS = "PNG JPEG WEBP GIF BMP DIB TIFF PPM JPEG2000 AVIF QOI ICO SGI PCX TGA".split()
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"IDAT", b"IEND")
JPEG_KEPT = (b"JFIF\0", b"Exif\0\0", b"Adobe")  # the kinds of application data that change what is shown
GREY_STEPS = {"L;2": 85, "L;4": 17}  # how Pillow spreads a PNG's 2 and 4 bits over 0 to 255
EXIF_TURNS = dict(zip(range(2, 9), map(Image.Transpose, [0, 3, 1, 5, 4, 6, 2])))  # by EXIF's orientation
BICUBIC = int(Image.Resampling.BICUBIC)


class ImageError(UserError):
    """A picture that cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class Preparation:
    """How an RGB picture becomes the vision tower's input (`model.formats.preparation` reads it from a folder).

    size: pixels per side of the input. mean, std: per colour. edge: the length that the shorter side gets before the
    crop, by default `size`. stretched: both sides get it. resample: Pillow's number. rescale: what a byte counts.
    padded: the picture becomes a square first, with bars in the colour of the mean, so that nothing is cropped.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    edge: int | None = None
    stretched: bool = False
    resample: int = BICUBIC
    rescale: float = 1 / 255
    padded: bool = False


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[Image.Image]:
    """The image in a file, or in its bytes, at the first frame. Any error, also in the `with` block: ImageError."""
    held = isinstance(source, bytes)
    path = Path("the picture" if held else source)
    if not held and not path.is_file():
        why = "a folder, not a picture" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise ImageError(f"{path}: {why}")
    try:
        with warnings.catch_warnings(), io.BytesIO(source) if held else open(path, "rb") as file:
            warnings.simplefilter("ignore")  # of odd metadata, and of a size that is an error below
            with Image.open(_without_metadata(file), formats=FORMATS) as image:
                kind = "progressive JPEG" if image.info.get("progressive") else image.format
                each = HEAVY.get(kind, 8 if len(image.getbands()) == 4 else 4)
                most = min(MAX_PIXELS, MOST_MEMORY // each)
                if image.width * image.height > most:
                    sides = f"{image.width} x {image.height} pixels is more than {most:,}"
                    raise ImageError(f"{sides} ({kind} {image.mode}); make it smaller first")
                image.seek(0)
                with ONE_LARGE if image.width * image.height > LARGE else nullcontext():
                    yield image
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: far more than {MAX_PIXELS:,} pixels; make it smaller first") from error
    except Exception as error:  # Pillow's parsers raise errors of many kinds
        why = "damaged, or of another format" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError(f"{path}: not a picture that can be read ({why}); PNG, JPEG, WebP and GIF work") from error


def _without_metadata(file: io.BufferedReader | io.BytesIO) -> io.BufferedReader | io.BytesIO:
    """A PNG or JPEG file without texts, profiles and thumbnails, whose faults Pillow takes for the picture's."""
    start, kept = file.read(8), io.BytesIO()
    if not start.startswith((PNG, JPEG)):
        return file
    file.seek(kept.write(PNG if start == PNG else JPEG))
    while start == PNG and len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big") + 4  # with the checksum
        if head[4:] in PNG_KEPT:
            kept.write(head + file.read(length))
        else:
            file.seek(length, io.SEEK_CUR)
    while start != PNG and len(head := file.read(4)) == 4 and head[0] == 0xFF and 0xC0 <= head[1] != 0xDA:
        body = file.read(max(0, int.from_bytes(head[2:], "big") - 2))  # of a segment before the first scan
        application = 0xE0 <= head[1] <= 0xEF or head[1] == 0xFE
        if not application or (body.startswith(JPEG_KEPT) and len(body) >= 12):
            kept.write(head + body)
    kept.write(head + file.read())
    return kept


def open_picture(source: str | Path | bytes) -> Image.Image:
    """The picture in a file, or in its bytes, as RGB: first frame, upright by its EXIF data, transparency on white.

    Raises ImageError.
    """
    with _opened(source) as image:
        file = image.fp
        _load(image)
        if isinstance(file, io.BytesIO) and not isinstance(source, bytes):
            file.truncate(0)  # an open PNG keeps it, and photos may fill the memory
        picture, turn = _on_white(image), _turn(image)
        if picture is not image:
            image.close()  # before the turned copy is made
        return picture if turn is None else picture.transpose(turn)


def frame_count(path: str | Path) -> int:
    """The number of frames in a file. `open_picture` returns the first frame of an animation. Raises ImageError."""
    with _opened(path) as image:
        return getattr(image, "n_frames", 1)


def to_rgb(image: Image.Image) -> Image.Image:
    """An open image as RGB: upright by its EXIF data, transparency on white, 16-bit grey scaled.

    Raises ImageError for numbers that have no agreed black and white (32 bits).
    """
    _load(image)
    picture, turn = _on_white(image), _turn(image)
    return picture if turn is None else picture.transpose(turn)


def _load(image: Image.Image) -> None:
    """Decode the pixels. Raises ImageError for those that cannot be shown as RGB."""
    mode, clear = image.mode, image.info.get("transparency")
    stored = image.tile[0].args if getattr(image, "tile", None) else None  # how the file holds a pixel
    if mode == "F" or (mode == "I" and image.format != "PPM"):
        raise ImageError(f"32 bits per pixel (mode {mode}) have no agreed black and white; save it with 8 or 16 bits")
    if clear is not None and stored == "RGB;16B":
        raise ImageError("16-bit colour with one transparent colour is not supported; save it with 8 bits per colour")
    if clear is not None and stored in GREY_STEPS:
        image.info["transparency"] = clear * GREY_STEPS[stored]
    image.load()


def _on_white(image: Image.Image) -> Image.Image:
    """A decoded image as RGB, itself where it is that, others in strips: memory holds at most two whole images."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    white, rows = Image.new("RGB", image.size, "white"), max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        if image.mode.startswith("I"):  # Pillow would clip at 255 instead of scaling
            strip = _scaled(strip, image.info.get("transparency"), getattr(image, "tag_v2", {}))
        if strip.mode in ("La", "RGBa"):  # colours multiplied by their alpha
            strip = strip.convert(strip.mode[:-1] + "A")
        strip = strip.convert("RGBA" if strip.has_transparency_data else "RGB")
        white.paste(strip, (0, top), strip if strip.mode == "RGBA" else None)
    return white


def _scaled(image: Image.Image, clear: int | None, tags: dict) -> Image.Image:
    """16-bit grey as 8 bits. clear: the value that is transparent. tags: of a TIFF file."""
    values = np.asarray(image)
    grey = (values >> (4 if tags.get(258) == (12,) else 8)).astype(np.uint8)
    image = Image.fromarray(255 - grey if tags.get(262) == 0 else grey)  # 0: white is stored as 0
    if clear is not None:
        image.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return image


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How a picture must be turned to be upright; None where its EXIF data does not say, or cannot be read."""
    try:
        return EXIF_TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # errors of many kinds; a viewer shows such a picture as it is stored
        return None


def crop(
    picture: Image.Image, size: int, edge: int | None = None, stretched: bool = False, resample: int = BICUBIC
) -> Image.Image:
    """A picture of size x size: the shorter side is resized to `edge` (default: size), then the centre is cropped.

    stretched: both sides are resized to `edge`. The pixels are CLIP's processor's.
    """
    edge = edge or size
    width, height = (edge if stretched else int(edge * side / min(picture.size)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    kept = (left, top, left + size, top + size)
    if width * height > MAX_RESIZED:
        x, y = picture.width / width, picture.height / height
        return picture.resize((size, size), resample, (kept[0] * x, kept[1] * y, kept[2] * x, kept[3] * y))
    return picture.resize((width, height), resample).crop(kept)


def _square(picture: Image.Image, mean: tuple[float, float, float]) -> Image.Image:
    """The picture in the middle of a square as long as its longer side, the rest in the colour of `mean`."""
    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), tuple(int(255 * m) for m in mean))
    square.paste(picture, tuple((longest - side) // 2 for side in picture.size))
    return square


def pixels(pictures: Iterable[Image.Image], preparation: Preparation) -> torch.Tensor:
    """RGB pictures -> (B, 3, size, size): cropped, scaled (commonly to [0, 1]), then normalised by mean and std."""
    p = preparation
    one = partial(crop, size=p.size, edge=p.edge, stretched=p.stretched, resample=p.resample)
    whole = map(partial(_square, mean=p.mean), pictures) if p.padded else pictures
    cropped = [np.asarray(c, dtype=np.float32) for c in map(one, whole)]  # of an iterator, one whole picture is held
    array = np.stack(cropped) / np.float32(1 / p.rescale)
    return torch.from_numpy((array - np.float32(p.mean)) / np.float32(p.std)).permute(0, 3, 1, 2).contiguous()

"""Pictures: CLIP's own crop, and what a viewer shows whatever the mode, the depth and the metadata of a file.

The files are written here byte by byte where Pillow cannot write them.
"""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageCms

from minillava.data import images
from minillava.data.images import ImageError, Preparation, crop, frame_count, open_picture, pixels, to_rgb

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


SIZES = [(640, 427), (427, 640), (333, 500), (500, 375), (1, 300), (300, 1), (31, 29), (96, 96), (97, 96), (96, 95),
         (1920, 1080), (3, 2), (95, 191), (1, 1)]  # fmt: skip


@pytest.mark.parametrize("size", [96, 97, 224])
@pytest.mark.parametrize("sides", SIZES, ids=str)
def test_the_crop_and_the_pixels_are_those_of_clips_processor(sides, size):
    noise = np.random.default_rng(0).integers(0, 256, (sides[1], sides[0], 3), dtype=np.uint8)
    picture, mean, std = Image.fromarray(noise), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    settings = dict(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    processor = transformers.CLIPImageProcessor(**settings, image_mean=mean, image_std=std)
    theirs = processor(picture, return_tensors="pt").pixel_values
    ours = pixels([picture], Preparation(size, mean, std))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    bytes_only = processor(picture, do_rescale=False, do_normalize=False, return_tensors="np").pixel_values[0]
    assert np.array_equal(np.asarray(crop(picture, size)), bytes_only.transpose(1, 2, 0))
    if sides == (size, size):
        assert np.array_equal(np.asarray(crop(picture, size)), noise)
    batch = pixels([picture, picture.rotate(180)], Preparation(size, mean, std))
    assert torch.equal(batch[:1], ours)


@pytest.mark.parametrize("sides", [(9000, 7), (7, 9000)], ids=str)
def test_of_a_long_strip_only_the_middle_is_resized(sides, monkeypatch):
    noise = np.random.default_rng(0).integers(100, 156, (sides[1], sides[0], 3), dtype=np.uint8)
    whole = crop(Image.fromarray(noise), 50)
    monkeypatch.setattr(images, "MAX_RESIZED", 50 * 5000)
    middle = crop(Image.fromarray(noise), 50)
    assert whole.size == middle.size == (50, 50)
    assert np.abs(np.asarray(whole).astype(int) - np.asarray(middle)).max() <= 1
    assert crop(Image.new("RGB", (80_000_000, 1)), 50).size == (50, 50)  # whole, it would take 800 GB


# modes and depths


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, depth, colour, row, *chunks, after=()):
    """A PNG file of one row of packed samples, with further chunks before and after the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
    parts = [header, *(chunk(*c) for c in chunks), chunk(b"IDAT", zlib.compress(b"\0" + row))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, *(chunk(*c) for c in after), chunk(b"IEND", b"")])


def tiff(width, bits, photometric, data, order="<", samples=1, kind=1, extra=None):
    """A TIFF file of one uncompressed row. kind: 1 unsigned, 2 signed, 3 floating point. extra: of the last sample."""
    shorts = {256: [width], 257: [1], 258: [bits] * samples, 259: [1], 262: [photometric], 277: [samples], 278: [1]}
    shorts |= {339: [kind] * samples} | ({338: [extra]} if extra is not None else {})
    longs, heap, entries = {273: [0], 279: [len(data)]}, b"", []
    start = 8 + 2 + 12 * (len(shorts) + len(longs)) + 4
    longs[273] = [start + sum(2 * len(v) for v in shorts.values() if len(v) > 2)]
    for tag, values in sorted((shorts | longs).items()):
        code, letter = (3, "H") if tag in shorts else (4, "I")
        raw = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(raw) > 4:
            raw, heap = struct.pack(f"{order}I", start + len(heap)), heap + raw
        entries.append(struct.pack(f"{order}HHI", tag, code, len(values)) + raw.ljust(4, b"\0"))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    return head + b"".join(entries) + b"\0" * 4 + heap + data


def saved(image, kind, **options):
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def words(*values, order=">"):
    return struct.pack(f"{order}{len(values)}H", *values)


def greys(*values):
    return [(value,) * 3 for value in values]


def row(mode, *values):
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


PALETTE = (b"PLTE", bytes(RED + GREEN + BLUE))
HALF = (b"tRNS", b"\x80\xff\x80")
SHOWN = {  # a file's bytes -> the row that a viewer shows
    "png 1": (png(2, 1, 0, b"\x40"), greys(0, 255)),
    "png 1, black clear": (png(2, 1, 0, b"\x40", (b"tRNS", words(0))), greys(255, 255)),
    "png 2 bits": (png(4, 2, 0, b"\x1b"), greys(0, 85, 170, 255)),
    "png 2 bits, one clear": (png(4, 2, 0, b"\x1b", (b"tRNS", words(1))), greys(0, 255, 170, 255)),
    "png 4 bits, one clear": (png(4, 4, 0, b"\x05\xaf", (b"tRNS", words(5))), greys(0, 255, 170, 255)),
    "png 8 bits, one clear": (png(3, 8, 0, b"\1\2\3", (b"tRNS", words(2))), greys(1, 255, 3)),
    "png 16 bits": (png(3, 16, 0, words(0, 32768, 65535)), greys(0, 128, 255)),
    "png 16 bits, one clear": (png(3, 16, 0, words(999, 1000, 1001), (b"tRNS", words(1000))), greys(3, 255, 3)),
    "png rgb, one clear": (png(2, 8, 2, bytes(RED + BLUE), (b"tRNS", words(255, 0, 0))), [WHITE, BLUE]),
    "png rgb 16": (png(1, 16, 2, words(65535, 32768, 0)), [(255, 128, 0)]),
    "png la 16": (png(2, 16, 4, words(0, 65535, 0, 0)), greys(0, 255)),
    "png rgba 16": (png(2, 16, 6, words(65535, 0, 0, 65535, 65535, 0, 0, 0)), [RED, WHITE]),
    "png palette": (png(3, 8, 3, b"\0\1\2", PALETTE), [RED, GREEN, BLUE]),
    "png palette, one clear": (png(3, 8, 3, b"\0\1\2", PALETTE, (b"tRNS", b"\xff\0")), [RED, WHITE, BLUE]),
    "png palette, half clear": (png(2, 8, 3, b"\0\2", PALETTE, HALF), [(255, 127, 127), (127, 127, 255)]),
    "pgm 255": (b"P5 2 1 255\n\x00\x80", greys(0, 128)),
    "pgm 15": (b"P5 3 1 15\n\x00\x07\x0f", greys(0, 119, 255)),
    "pgm 1000": (b"P5 3 1 1000\n" + words(0, 500, 1000), greys(0, 128, 255)),
    "pgm 65535": (b"P5 3 1 65535\n" + words(0, 32768, 65535), greys(0, 128, 255)),
    "pgm 4095 as text": (b"P2 3 1 4095\n0 2048 4095\n", greys(0, 128, 255)),
    "ppm 65535": (b"P6 1 1 65535\n" + words(0, 32768, 65535), [(0, 128, 255)]),
    "ppm 1000": (b"P6 1 1 1000\n" + words(0, 500, 1000), [(0, 128, 255)]),
    "pbm": (b"P4 2 1\n\x40", greys(255, 0)),
    "tiff 12 bits": (tiff(2, 12, 1, b"\x80\x0f\xff"), greys(128, 255)),
    "tiff 16 bits of 12": (tiff(2, 16, 1, words(0, 4095, order="<")), greys(0, 15)),  # dark, as viewers show it
    "tiff 16, white is 0": (tiff(2, 16, 0, words(0, 65535, order="<")), greys(255, 0)),
    "tiff 8, white is 0": (tiff(2, 8, 0, b"\0\xff"), greys(255, 0)),
    "tiff la": (tiff(2, 8, 1, b"\0\xff\0\0", samples=2, extra=2), greys(0, 255)),
    "tiff la, multiplied": (tiff(2, 8, 1, b"\x40\x80\0\0", samples=2, extra=1), greys(191, 255)),
    "tiff rgba, multiplied": (tiff(1, 8, 2, b"\x80\0\0\x80", samples=4, extra=1), [(255, 127, 127)]),
    "tiff rgbx": (tiff(1, 8, 2, bytes((*RED, 0)), samples=4, extra=0), [RED]),
    "tiff cmyk": (tiff(2, 8, 5, bytes((0, 255, 255, 0, 0, 0, 0, 255)), samples=4), [RED, BLACK]),
    "jpeg 2000, 16 bits": (saved(row("I;16", 0, 32768, 65535), "JPEG2000"), greys(0, 128, 255)),
    "tga": (saved(row("RGBA", (*RED, 255), (*RED, 0)), "TGA"), [RED, WHITE]),
    "webp": (saved(row("RGBA", (*RED, 255), (*RED, 0)), "WEBP", lossless=True), [RED, WHITE]),
}  # fmt: skip
for order in "<>":
    SHOWN[f"tiff 16 {order}"] = tiff(3, 16, 1, words(0, 32768, 65535, order=order), order), greys(0, 128, 255)
    SHOWN[f"tiff rgb 16 {order}"] = tiff(1, 16, 2, words(65535, 0, 0, order=order), order, 3), [RED]


@pytest.mark.parametrize("name", SHOWN)
def test_every_mode_and_depth_is_shown_as_a_viewer_shows_it(tmp_path, name):
    data, shown = SHOWN[name]
    (tmp_path / "a").write_bytes(data)
    opened = open_picture(tmp_path / "a")
    assert opened.mode == "RGB" and opened.size == (len(shown), 1)
    found = np.asarray(opened).astype(int)[0]
    assert np.abs(found - shown).max() <= 1, found.tolist()


REFUSED = {  # a file's bytes -> what the error says
    "png rgb 16, one clear": (png(1, 16, 2, words(1, 0, 0), (b"tRNS", words(1, 0, 0))), "16-bit colour"),
    "tiff 32": (tiff(1, 32, 1, b"\0\0\0\1"), "32 bits per pixel"),
    "tiff 16, signed": (tiff(1, 16, 1, b"\1\0", kind=2), "32 bits per pixel"),
    "tiff floating point": (tiff(1, 32, 1, struct.pack("<f", 0.5), kind=3), "32 bits per pixel"),
    "pfm": (b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 0.5), "32 bits per pixel"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_agreed_black_and_white_is_refused_by_name(tmp_path, name):
    data, why = REFUSED[name]
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ImageError, match=f"{tmp_path / 'a'}: .*{why}"):
        open_picture(tmp_path / "a")


def test_print_colours_and_clear_pixels_of_a_gif_are_shown(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)  # inverted, with Adobe's mark
    found = np.asarray(open_picture(tmp_path / "a.jpg")).astype(int)
    assert np.abs(found - np.array(RED)).max() < 10
    row("P", 0, 1).save(tmp_path / "clear.jpg", "GIF", transparency=0)  # a GIF by its bytes
    assert open_picture(tmp_path / "clear.jpg").getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("mode", ["LAB", "HSV", "YCbCr"])
def test_other_colour_spaces_are_converted(mode):
    for colour in (RED, GREEN, BLUE, WHITE):
        image = Image.new("RGB", (2, 2), colour)
        found = to_rgb(image.convert(mode)).getpixel((0, 0))
        assert np.abs(np.array(found) - colour).max() <= (25 if mode == "LAB" else 6), (colour, found)  # LAB's gamut


STORED = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "I;16", "I;16B")


def made_and_shown(mode, samples, palette):
    """An image of these samples (height, width, bands), and by plain arithmetic what it looks like on white."""
    height, width, bands = samples.shape
    image, first, alpha = Image.new(mode, (width, height)), samples[..., :1], samples[..., -1:] / 255
    if mode.startswith("I"):
        return Image.frombytes(
            mode, (width, height), samples.astype("<u2" if mode == "I;16" else ">u2").tobytes()
        ), first >> 8
    if mode[0] == "P":
        image.putpalette(palette.astype(np.uint8).tobytes())
    flat = samples.reshape(-1, bands).tolist()
    image.putdata([tuple(sample) if bands > 1 else sample[0] for sample in flat])
    if mode == "CMYK":
        return image, 255 * (1 - samples[..., :3] / 255) * (1 - samples[..., 3:] / 255)
    colour = samples[..., :3] if mode.startswith("RGB") else palette[first[..., 0]] if mode[0] == "P" else first
    if mode[-1] not in "Aa":
        return image, colour
    return image, 255 * (1 - alpha) + colour * (alpha if mode[-1] == "A" else 1)


@given(st.sampled_from(STORED), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_any_picture_of_any_mode_becomes_rgb_on_white(mode, width, height, seed):
    rng, bands = np.random.default_rng(seed), Image.getmodebands(mode)
    samples = rng.integers(0, 65536 if mode.startswith("I") else 256, (height, width, bands))
    if mode == "1":
        samples = 255 * (samples > 127)
    if mode[-1] == "a":  # colours are multiplied by their alpha
        samples[..., :-1] = samples[..., :-1] * samples[..., -1:] // 255
    image, shown = made_and_shown(mode, samples, rng.integers(0, 256, (256, 3)))
    found = np.asarray(to_rgb(image)).astype(float)
    assert found.shape == (height, width, 3) and np.abs(found - shown).max() <= 2.5


# metadata

EXIF_TEXT = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\x026\0\0\0\0\0\0\0"  # orientation "6" as text
EXIF_9 = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x09\0\0\0\0\0\0"
LONG = zlib.compress(b"a" * 2_000_000)
ODD_CHUNKS = {
    "long text": (b"zTXt", b"prompt\0\0" + LONG),
    "long international text": (b"iTXt", b"prompt\0\1\0\0\0" + LONG),
    "text in another packing": (b"zTXt", b"prompt\0\1abc"),
    "a text named transparency": (b"tEXt", b"transparency\0none"),
    "a text named exif": (b"tEXt", b"exif\0none"),
    "a profile in another packing": (b"iCCP", b"name\0\1abc"),
    "a profile cut short": (b"iCCP", b"name"),
    "no gamma": (b"gAMA", b"\0"),
    "no resolution": (b"pHYs", b"\0"),
    "no intent": (b"sRGB", b""),
    "exif that is none": (b"eXIf", b"garbage"),
    "orientation as text": (b"eXIf", EXIF_TEXT),
    "orientation 9": (b"eXIf", EXIF_9),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("after", [False, True], ids=["before the pixels", "after the pixels"])
@pytest.mark.parametrize("name", ODD_CHUNKS)
def test_a_png_is_not_refused_for_its_metadata(tmp_path, name, after):
    odd = [ODD_CHUNKS[name]]
    (tmp_path / "a.png").write_bytes(
        png(2, 8, 2, bytes(RED + BLUE), *([] if after else odd), after=odd if after else ())
    )
    opened = open_picture(tmp_path / "a.png")
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [RED, BLUE] and frame_count(tmp_path / "a.png") == 1


def test_a_png_is_not_refused_for_the_checksum_of_a_text(tmp_path):
    data = png(1, 8, 2, bytes(RED), (b"tEXt", b"key\0text"))
    (tmp_path / "a.png").write_bytes(data.replace(b"text", b"test"))
    assert open_picture(tmp_path / "a.png").getpixel((0, 0)) == RED


HEADS = [(0xE0, b"JFIF\0"), (0xE0, b"JFXX\0"), (0xE1, b"Exif\0\0"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
         (0xE2, b"ICC_PROFILE\0"), (0xE2, b"MPF\0"), (0xE2, b"FPXR\0"), (0xED, b"Photoshop 3.0\0"), (0xEE, b"Adobe"),
         (0xFE, b"")]  # fmt: skip


@given(
    st.sampled_from(HEADS), st.one_of(st.binary(max_size=6), st.just(EXIF_TEXT), st.just(EXIF_9), st.just(b"8BIM\4"))
)
def test_a_jpeg_is_not_refused_for_its_metadata(tmp_path_factory, head, body):
    whole, path = saved(Image.new("RGB", (9, 7), RED), "JPEG"), tmp_path_factory.getbasetemp() / "metadata.jpg"
    segment = bytes([0xFF, head[0]]) + words(2 + len(head[1] + body)) + head[1] + body
    path.write_bytes(whole[:2] + segment + whole[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = np.asarray(open_picture(path)).astype(int)
    assert found.shape == (7, 9, 3) and np.abs(found - np.array(RED)).max() < 10 and frame_count(path) == 1


def test_a_colour_profile_is_not_applied(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for name, options in (("a.png", {}), ("a.tiff", {}), ("a.webp", {"lossless": True})):
        Image.new("RGB", (4, 4), (200, 100, 50)).save(tmp_path / name, icc_profile=profile, **options)
        assert open_picture(tmp_path / name).getpixel((0, 0)) == (200, 100, 50)


@pytest.mark.parametrize("kind, options", [("PNG", {}), ("WEBP", {"lossless": True}), ("GIF", {}), ("TIFF", {})])
def test_the_first_of_several_frames_is_taken(tmp_path, kind, options):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, GREEN)]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:], **options)
    assert open_picture(tmp_path / "a").getpixel((4, 4)) == RED and frame_count(tmp_path / "a") == 3


def test_a_picture_before_an_animation_is_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, GREEN)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], default_image=True)
    assert open_picture(tmp_path / "a.png").getpixel((4, 4)) == RED


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP"])
def test_the_bytes_of_a_file_are_the_same_picture(tmp_path, kind):
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation
    image = Image.linear_gradient("L").convert("RGB").crop((0, 0, 256, 90))
    image.save(tmp_path / "a", kind, **({} if kind in ("GIF", "BMP") else {"exif": turned}))
    one, two = open_picture(tmp_path / "a"), open_picture((tmp_path / "a").read_bytes())
    assert (
        one.tobytes() == two.tobytes() and one.size == two.size and (one.height == 256) == (kind not in ("GIF", "BMP"))
    )
    with pytest.raises(ImageError, match="the picture: not a picture that can be read"):
        open_picture((tmp_path / "a").read_bytes()[:30])


def test_an_eps_file_under_another_name_starts_no_interpreter(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("an interpreter was started"))
    for name in ("a.png", "a.jpg", "a.eps"):
        Image.new("RGB", (8, 8), RED).save(tmp_path / name, "EPS")
        with pytest.raises(ImageError, match=f"{name}: not a picture that can be read .damaged, or of another"):
            open_picture(tmp_path / name)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


LARGE = {  # mode -> how it is saved
    "RGB": dict(format="JPEG", progressive=True),  # its coefficients take memory too
    "RGBA": dict(format="PNG", compress_level=1, exif=turned()),
    "I;16": dict(format="PNG", compress_level=1),
}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("mode", LARGE)
def test_of_large_photos_one_is_held_at_a_time_and_no_more_than_twice(tmp_path, mode):
    """20 photos of 48 megapixels took 4.5 GB, one that is turned and partly clear 617 MB; a copy in memory is 192 MB."""
    grey = Image.linear_gradient("L").resize((8000, 6000))
    (Image.fromarray(np.asarray(grey) * np.uint16(257)) if mode == "I;16" else grey.convert(mode)).save(
        tmp_path / "a", **LARGE[mode]
    )
    code = f"""import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from minillava.data.images import Preparation, open_picture, pixels
used = lambda: int(re.search("VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6  # the peak
before, path = used(), {str(tmp_path / "a")!r}
pixels((open_picture(path) for _ in range(2)), Preparation(96, (0.5,) * 3, (0.5,) * 3))
print(used() - before)
list(ThreadPoolExecutor(4).map(lambda _: open_picture(path).size, range(4)))  # as records are checked
print(used() - before)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    alone, threads = map(float, done.stdout.split())
    assert 150 < alone < 400 and threads < alone + 192, done.stdout  # an allocator keeps something for every thread


@pytest.mark.parametrize("mode", STORED)
def test_a_picture_is_the_same_in_strips_of_any_height(mode, monkeypatch):
    rng, shown = np.random.default_rng(0), []
    samples = rng.integers(0, 65536 if mode.startswith("I") else 256, (9, 7, Image.getmodebands(mode)))
    for pixels_at_once in (1, 20, 1 << 20):
        monkeypatch.setattr(images, "STRIP", pixels_at_once)
        shown.append(np.asarray(to_rgb(made_and_shown(mode, samples, np.arange(768).reshape(256, 3) % 256)[0])))
    assert (shown[0] == shown[2]).all() and (shown[1] == shown[2]).all()

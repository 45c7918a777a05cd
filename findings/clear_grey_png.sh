#!/usr/bin/env bash
# Pillow 13.0.0: a grey PNG in which one grey is declared clear (chunk tRNS, PNG specification 11.3.2.1).
# Guess: convert("RGBA") gives each pixel its grey, and the declared grey alpha 0, at every bit depth. Seen: at 8 bits it
# does. At 16 bits every pixel of this file becomes white and opaque. At 4 bits the clear grey stays opaque.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check pillow==13.0.0
"$home/venv/bin/python" - <<'P'
import io
import struct
import zlib

import PIL
from PIL import Image


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, depth, row, clear):
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, 0, 0, 0, 0)), chunk(b"tRNS", struct.pack(">H", clear))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")])


files = {  # bits: a clear grey, then one that is not
    8: png(2, 8, bytes([0x12, 0x80]), 0x12),
    16: png(2, 16, struct.pack(">HH", 0x1234, 0x8000), 0x1234),
    4: png(2, 4, bytes([0x5F]), 5),
}
print("Pillow", PIL.__version__)
seen = {}
for bits, data in files.items():
    with Image.open(io.BytesIO(data)) as image:
        seen[bits] = [image.convert("RGBA").getpixel((x, 0)) for x in range(2)]
    print(f"{bits:2} bits:", *seen[bits])
assert seen[8] == [(18, 18, 18, 0), (128, 128, 128, 255)]
assert seen[16] == [(255, 255, 255, 255)] * 2
assert seen[4] == [(85, 85, 85, 255), (255, 255, 255, 255)]
P
echo "as found: right at 8 bits only"

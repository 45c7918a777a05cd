#!/usr/bin/env bash
# Pillow 13.0.0: a picture opened from bytes in memory, after load().
# Guess: the bytes are free then, for a PNG as for a JPEG, as image.fp is None for both. Seen: a PNG's bytes stay in
# memory as long as the image does; a JPEG's do not.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q --disable-pip-version-check pillow==13.0.0
"$home/venv/bin/python" -W error - <<'P'
import gc
import io
import weakref

import PIL
from PIL import Image


class Bytes(io.BytesIO):
    """A BytesIO that can be watched."""


def kept(kind):
    """Whether the bytes of a loaded picture are still there."""
    made = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(made, kind)
    source = Bytes(made.getvalue())
    watched, image = weakref.ref(source), Image.open(source)
    image.load()
    assert image.fp is None
    del source
    gc.collect()
    return watched() is not None, image.size


print("Pillow", PIL.__version__)
found = {kind: kept(kind)[0] for kind in ("PNG", "JPEG")}
print("bytes still in memory:", found)
assert found == {"PNG": True, "JPEG": False}
P
echo "as found: a loaded PNG keeps the bytes that it was read from"

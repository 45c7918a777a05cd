"""A number that tells a folder's weights from others of the same name, in a second or two also where they are large."""

import os
import zlib
from pathlib import Path

from minillava.model.formats.files import open_tensors
from minillava.model.formats.preparation import NEW, OLD

LOOKS, PIECE = 1024, 1 << 16  # where a file is looked at, and bytes read there


def weights_checksum(folder: Path) -> int:
    """CRC-32 of a part's weights and of the configs that change what they mean.

    Of a large file only LOOKS pieces spread over it are read, as all of it would take minutes. Weights of another
    training differ nearly everywhere.
    """
    weights, found = {tensor.file for tensor in open_tensors(folder).values()}, 0
    for path in (*(folder / name for name in ("config.json", NEW, OLD)), *sorted(weights)):
        size = path.stat().st_size if path.exists() else 0
        found = zlib.crc32(f"{path.name} {size}".encode(), found)
        with open(path if size else os.devnull, "rb") as file:
            for start in range(0, size, max(PIECE, size // LOOKS)):
                file.seek(start)
                found = zlib.crc32(file.read(PIECE), found)
    return found

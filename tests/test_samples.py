"""What data_samples/ holds is what the code makes today."""

import numpy as np
import pytest
from PIL import Image

from minillava.experiments import pages
from minillava.scales import WEIGHTS

SHIPPED = WEIGHTS.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    pages.write_samples(folder)
    return folder


def test_every_text_file_is_made_again_byte_for_byte(made):
    files = sorted(p.relative_to(made) for p in made.rglob("*.json*"))
    assert len(files) == 17
    for file in files:
        assert (made / file).read_bytes() == (SHIPPED / file).read_bytes(), file


def test_every_picture_is_made_again_pixel_for_pixel(made):
    files = [p for folder in ("pictures", "bench") for p in sorted((made / folder).rglob("*.png"))]
    assert len(files) == pages.COUNT + 2 * pages.BENCH
    for file in files:
        shipped = Image.open(SHIPPED / file.relative_to(made))
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(shipped)), file.name

"""Files for which users have reported problems (``../shared/cases``)."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.records import ImageError, Reason
from support.paths import SHARED_CASES

DIRECTORY = SHARED_CASES / "images"
REASONS = {
    "png_idat_bad_crc.png": {Reason.CORRUPT},
    "png_width_0.png": {Reason.CORRUPT},
    "tif_3_bands_minisblack_separate.tif": {Reason.UNSUPPORTED_FORMAT},
    "tif_bigtiff_first_directory_out_of_reach.tif": {Reason.TRUNCATED, Reason.CORRUPT},
    "jpg_cut_40_bytes.jpg": {Reason.TRUNCATED},
    "svg_after_a_long_comment.svg": {Reason.UNSUPPORTED_FORMAT},
}
REFERENCES = {
    "psd_bitmap.psd": "reference_bitmap.png",
    "xbm.xbm": "reference_bitmap.png",
    "reference_bitmap.png": "reference_bitmap.png",
    "bmp_4bit_rle.bmp": "reference_16_colours.png",
    "reference_16_colours.png": "reference_16_colours.png",
}

pytestmark = pytest.mark.skipif(not DIRECTORY.exists(), reason="needs ../shared/cases, which is not shipped")


@pytest.mark.parametrize("name", sorted(path.name for path in DIRECTORY.glob("*")))
def test_case(name):
    data = (DIRECTORY / name).read_bytes()
    if name in REASONS:
        with pytest.raises(ImageError) as caught:
            decode(data, DecodeOptions(48, 64))
        assert caught.value.reason in REASONS[name]
        return
    pixels = decode(data, DecodeOptions(48, 64)).pixels.astype(int)
    with Image.open(io.BytesIO((DIRECTORY / REFERENCES.get(name, "reference.png")).read_bytes())) as image:
        difference = np.abs(pixels - np.asarray(image.convert("RGB")))
    assert difference.mean() < 6 if name.startswith("jpg") else difference.max() == 0

"""JPEGs that lack only the end marker become rows; those that lack pixels fail, with any bytes after them."""

from __future__ import annotations

import numpy as np
import pytest

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.records import ImageError, Reason
from support import images

KINDS = images.every_kind()
JPEGS = [name for name, data in KINDS.items() if data[:2] == b"\xff\xd8" and name != "mpo"]
NATIVE = DecodeOptions(90, 120)
NOISE = np.random.default_rng(5).bytes(3000)
TRAILERS = {
    "nothing": b"",
    "a film": b"\0\0\0\x1cftypmp42" + NOISE,
    "another JPEG": KINDS["jpeg_gray"],
    "an archive": b"PK\x03\x04" + NOISE,
    "zeros": bytes(500),
    "fill bytes": b"\xff" * 50,
    "a line end": b"\r\n",
}


def outcome(data: bytes) -> np.ndarray | Reason:
    try:
        return decode(data, NATIVE).pixels
    except ImageError as error:
        return error.reason


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("kind", JPEGS)
def test_without_end_marker(kind, trailer):
    data = KINDS[kind]
    assert data.endswith(b"\xff\xd9")
    np.testing.assert_array_equal(outcome(data[:-2] + TRAILERS[trailer]), decode(data, NATIVE).pixels)


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("kind", ["jpeg", "jpeg_progressive", "jpeg_restarts", "jpeg_444", "jpeg_gray"])
def test_without_pixels(kind, trailer):
    data = KINDS[kind]
    whole = decode(data, NATIVE).pixels
    for missing in (*range(1, 60), len(data) // 3, len(data) // 2):
        result = outcome(data[: -2 - missing] + TRAILERS[trailer])
        if isinstance(result, np.ndarray):  # the last bits of a progressive scan may add nothing
            np.testing.assert_array_equal(result, whole, str(missing))
        else:
            assert result in (Reason.TRUNCATED, Reason.CORRUPT), missing


def test_a_trailer_of_an_unknown_kind_is_not_taken_for_pixels():
    data = KINDS["jpeg"]
    for missing in range(100):
        assert outcome(data[: -2 - missing] + NOISE) in (Reason.TRUNCATED, Reason.CORRUPT)


def test_scans_of_single_components_that_lack_one():
    # Baseline in three scans; libjpeg returns the existing ones without a warning.
    data = KINDS["jpeg_444"]
    frame = data.index(b"\xff\xc0")
    scan = data.index(b"\xff\xda")
    only_luma = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    gray = KINDS["jpeg_gray"]
    gray_data = gray[gray.index(b"\xff\xda") + 10 :]
    tables = gray[gray.index(b"\xff\xdb") : gray.index(b"\xff\xc0")]
    huffman = gray[gray.index(b"\xff\xc4") : gray.index(b"\xff\xda")]
    assert frame < scan
    header = data[:2] + tables + tables.replace(b"\xff\xdb\0\x43\0", b"\xff\xdb\0\x43\1")
    assert outcome(header + data[frame : frame + 19] + huffman + only_luma + gray_data) is Reason.TRUNCATED

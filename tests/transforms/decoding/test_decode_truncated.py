"""A truncated image never decodes to other pixels; broken images and non-images get different reasons."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.records import ImageError, Reason
from support import images

KINDS = images.every_kind()
OPTIONS = DecodeOptions(height=45, width=60)
# Formats in which a checksum or an invalid code reveals changed bytes to the decoder.
CHECKED = ["png", "png_palette_alpha", "png_gray16", "png_1bit"]


def outcome(data: bytes) -> np.ndarray | Reason:
    try:
        return decode(data, OPTIONS).pixels
    except ImageError as error:
        return error.reason


def cuts(size: int, places: int = 60) -> list[int]:
    spread = [round(size * share) for share in np.linspace(0.02, 0.999, places)]
    return sorted({cut for cut in (*spread, *(size - k for k in range(1, 10))) if 16 <= cut < size})


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere_is_truncated_or_whole(kind):
    data, truncated = KINDS[kind], 0
    whole = decode(data, OPTIONS).pixels
    for cut in cuts(len(data)):
        result = outcome(data[:cut])
        if isinstance(result, Reason):
            assert result is Reason.TRUNCATED, f"cut at {cut} of {len(data)}"
            truncated += 1
        else:
            np.testing.assert_array_equal(result, whole, f"cut at {cut} of {len(data)}")
    assert truncated > 10


@pytest.mark.parametrize("kind", [kind for kind, data in KINDS.items() if data[:2] == b"\xff\xd8"])
def test_cut_jpeg_with_an_end_marker_put_on(kind):
    data = KINDS[kind]
    whole = decode(data, OPTIONS).pixels
    for cut in cuts(len(data), 300):
        result = outcome(data[:cut] + b"\xff\xd9")
        if isinstance(result, Reason):
            assert result is Reason.TRUNCATED, f"cut at {cut} of {len(data)}"
        else:
            np.testing.assert_array_equal(result, whole, f"cut at {cut} of {len(data)}")


def test_progressive_jpeg_closed_between_two_scans():
    data = KINDS["jpeg_progressive"]
    marker, results = data.index(b"\xff\xda"), []
    while (marker := data.find(b"\xff\xc4", marker + 2)) > 0:  # each later scan has its own tables
        results.append(outcome(data[:marker] + b"\xff\xd9"))
    assert len(results) > 5
    assert set(results) == {Reason.TRUNCATED}


def test_cut_jpeg_filled_up_with_zeros():
    for kind in ("jpeg", "jpeg_progressive", "jpeg_restarts"):
        data = KINDS[kind]
        cut = len(data) // 2
        assert outcome(data[:cut] + bytes(len(data) - cut)) in (Reason.TRUNCATED, Reason.CORRUPT), kind


def test_the_end_marker_of_a_thumbnail_is_not_the_images():
    thumbnail = images.encode(images.photo(16, 12), "JPEG")
    data = KINDS["jpeg"]
    block = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail
    data = data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]
    np.testing.assert_array_equal(outcome(data), decode(KINDS["jpeg"], OPTIONS).pixels)
    end_of_thumbnail = data.index(b"\xff\xd9") + 2
    for cut in (end_of_thumbnail - 40, end_of_thumbnail, end_of_thumbnail + 100):
        assert outcome(data[:cut]) is Reason.TRUNCATED


def test_bytes_after_the_image_do_not_matter():
    for kind in ("jpeg", "jpeg_progressive", "png", "gif", "webp", "bmp", "tiff_lzw"):
        np.testing.assert_array_equal(outcome(KINDS[kind] + b"\0" * 100), decode(KINDS[kind], OPTIONS).pixels)


@pytest.mark.parametrize("kind", CHECKED)
def test_changed_bytes_are_corrupt_if_the_format_can_detect_them(kind):
    data = KINDS[kind]
    for share in (0.3, 0.5, 0.7):
        assert outcome(images.flip(data, int(len(data) * share))) is Reason.CORRUPT


def test_jpeg_with_codes_that_cannot_be_is_corrupt():
    data = KINDS["jpeg_restarts"]
    # A restart marker out of order: the rows after it belong elsewhere.
    marker = data.index(b"\xff\xd2")
    assert outcome(data[: marker + 1] + b"\xd6" + data[marker + 2 :]) is Reason.CORRUPT


@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes_raise_nothing_but_image_errors(kind):
    random = np.random.default_rng(5)
    data = KINDS[kind]
    for place in [*random.integers(0, 64, 10), *random.integers(0, len(data), 10)]:
        outcome(images.flip(data, int(place)))


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body><svg></svg></body></html>",
        b"Not Found\n",
        b"{}",
        b"\n",
        b"P6 is the name of a road",
        b"BMW makes cars, and this is a text about them",
        b"GIF is a format",
        b"SIMPLE things are best",
        b"#define WIDTH 3\nint main() { return 0; }\n",
        b"Name: value\nImage type: no image\n",
        b"width 100\nheight 50\n",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        bytes(1000),
        b"\xff" * 1000,
        np.random.default_rng(3).bytes(5000),
    ],
)
def test_what_is_no_image(data):
    assert outcome(data) is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"%PDF-1.7\n",
        b"\xd7\xcd\xc6\x9a" + bytes(40),
        b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(40),
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
        b"\xff\x0a" + bytes(40),
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"\x89HDF\r\n\x1a\n" + bytes(40),
        b"\0\0\0\x1cftypavci\0\0\0\0avcimif1miaf",
        b"id=ImageMagick  version=1.0\n",
        b"LBLSIZE=1024            FORMAT='BYTE'",
        b"\0\0\0\x6b\0\0\0\7\0\0\0\2" + bytes(90),
        '<?xml version="1.0" encoding="UTF-16"?><svg xmlns="http://www.w3.org/2000/svg"/>'.encode("utf-16"),
        # Uncompressed PCX.
        b"\x0a\5\0\x08" + bytes(4) + b"\7\0\7\0" + bytes(53) + b"\1\x08\0" + bytes(200),
        # JPEG-LS.
        b"\xff\xd8\xff\xf7\0\x0b\x08\0\x30\0\x40\1\1\x11\0\xff\xda\0\x08\1\1\0\0\0\0" + bytes(40),
    ],
)
def test_formats_that_are_known_and_not_decoded(data):
    assert outcome(data) is Reason.UNSUPPORTED_FORMAT


def test_empty_and_details():
    with pytest.raises(ImageError) as caught:
        decode(b"", OPTIONS)
    assert caught.value.reason is Reason.EMPTY_FILE
    for kind in ("jpeg", "png", "avif", "tiff_lzw"):
        with pytest.raises(ImageError) as caught:
            decode(KINDS[kind][: len(KINDS[kind]) // 2], OPTIONS)
        assert caught.value.detail and "\n" not in caught.value.detail and len(caught.value.detail) <= 200


def test_pillow_itself_was_not_loosened():
    from PIL import ImageFile

    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    with pytest.raises(OSError, match="truncated"), Image.open(io.BytesIO(KINDS["png"][:5000])) as image:
        image.load()

"""The matrix of modes: the result of each mode, and its documentation."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
from PIL import Image

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.decoding.picture.pillow_modes import MODES, finish
from beamlabel.transforms.records import ImageError, Reason
from support import images
from support.paths import ROOT

KINDS = images.every_kind()


def pixels_of(data: bytes, width: int, height: int = 1) -> list[tuple[int, ...]]:
    return [tuple(map(int, p)) for p in decode(data, DecodeOptions(height, width)).pixels.reshape(-1, 3)]


def to_rgb(image: Image.Image) -> np.ndarray:
    pixels, converted = finish(image, None)
    assert not converted
    return pixels


def gray(*values: int) -> list[tuple[int, int, int]]:
    return [(v, v, v) for v in values]


def test_the_documented_matrix_is_the_codes():
    text = (ROOT / "docs" / "decoding.md").read_text()
    assert re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE) == list(MODES)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_every_mode_has_a_way(mode):
    pixels = to_rgb(Image.new(mode, (5, 4)))
    assert (pixels.shape, pixels.dtype) == ((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (40, 0), (255, 255, 255)),
        ("LA", (40, 128), (147, 147, 147)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("RGBA", (200, 0, 100, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 100, 255), (200, 0, 100)),
        ("RGBA", (200, 0, 100, 51), (244, 204, 224)),
        ("RGBa", (40, 0, 20, 51), (244, 204, 224)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("CMYK", (51, 0, 102, 51), (163, 204, 122)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("LAB", (255, 128, 128), (255, 255, 255)),
        ("LAB", (137, 128, 128), (128, 128, 128)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 256, (1, 1, 1)),
    ],
)
def test_colours(mode, color, expected):
    image = Image.new(mode, (2, 2), color)
    np.testing.assert_allclose(to_rgb(image).reshape(-1, 3).astype(int), [expected] * 4, atol=1)


def test_premultiplied_gray_and_palette_with_alpha_channel():
    gray_alpha = Image.new("LA", (2, 2), (100, 51))
    np.testing.assert_allclose(to_rgb(gray_alpha.convert("La")).astype(int), 224, atol=3)
    palette_alpha = Image.new("PA", (1, 2))
    palette_alpha.putpalette([10, 20, 30])
    palette_alpha.putpixel((0, 0), (0, 255))
    palette_alpha.putpixel((0, 1), (0, 0))
    assert to_rgb(palette_alpha).tolist() == [[[10, 20, 30]], [[255, 255, 255]]]


@pytest.mark.parametrize("mode", ["I", "F"])
@pytest.mark.parametrize("format_", ["TIFF", "PPM"])
def test_ranges_that_are_not_agreed_are_unsupported(mode, format_):
    image = images.photo().convert("L").convert(mode)
    if (mode, format_) == ("I", "PPM"):
        return  # Pillow writes a PGM of 16 bits
    with pytest.raises(ImageError) as caught:
        decode(images.encode(image, format_), DecodeOptions(4, 4))
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("mode", ["I", "F", "HSV", "I;16B"])
def test_modes_without_a_way_are_unsupported(mode):
    with pytest.raises(ImageError) as caught:
        to_rgb(Image.new(mode, (2, 2)))
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT


def test_png_gray_of_every_depth():
    for depth, row, expected in (
        (1, b"\x40", gray(0, 255)),
        (2, b"\x1b", gray(0, 85, 170, 255)),
        (4, b"\x0f", gray(0, 255)),
        (8, b"\x07\xff", gray(7, 255)),
        (16, b"\x80\xff\xff\xff", gray(128, 255)),
    ):
        assert pixels_of(images.png(len(expected), 1, depth, 0, row), len(expected)) == expected


def test_png_transparent_colour_becomes_white_at_every_depth():
    for depth, row, key, expected in (
        (1, b"\x40", b"\0\0", gray(255, 255)),
        (2, b"\x1b", b"\0\1", gray(0, 255, 170, 255)),
        (4, b"\x03", b"\0\3", gray(0, 255)),
        (8, b"\x07\x08", b"\0\7", gray(255, 8)),
        (16, b"\x80\xff\x80\xfe", b"\x80\xff", gray(255, 128)),
    ):
        data = images.png(len(expected), 1, depth, 0, row, tRNS=key)
        assert pixels_of(data, len(expected)) == expected, depth
    row = bytes((1, 2, 3, 4, 5, 6))
    key = struct.pack(">HHH", 1, 2, 3)
    assert pixels_of(images.png(2, 1, 8, 2, row, tRNS=key), 2) == [(255, 255, 255), (4, 5, 6)]
    wide = struct.pack(">6H", 0x0100, 0x0200, 0x0300, 0x0400, 0x0500, 0x0600)
    key = struct.pack(">HHH", 0x0100, 0x0200, 0x0300)
    assert pixels_of(images.png(2, 1, 16, 2, wide, tRNS=key), 2) == [(255, 255, 255), (4, 5, 6)]


def test_png_16_bit_colour_and_palette_alpha():
    wide = struct.pack(">6H", 65535, 0, 32768, 256, 255, 511)
    assert pixels_of(images.png(2, 1, 16, 2, wide), 2) == [(255, 0, 128), (1, 0, 1)]
    palette = bytes((10, 20, 30, 40, 50, 60, 0, 0, 0))
    for alphas, expected in (
        (b"\xff\x00", [(10, 20, 30), (255, 255, 255), (0, 0, 0)]),
        (b"\xff\xff\x80", [(10, 20, 30), (40, 50, 60), (127, 127, 127)]),
    ):
        assert pixels_of(images.png(3, 1, 8, 3, b"\0\1\2", PLTE=palette, tRNS=alphas), 3) == expected


def test_tiff_gray_of_12_and_16_bits_both_byte_orders():
    def gray_tiff(bits: int, photometric: int, data: bytes, order: str = "<") -> bytes:
        tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 1}
        packed = {tag: (3, struct.pack(order + "H", value)) for tag, value in tags.items()}
        return images.tiff(packed, data, order)

    assert pixels_of(gray_tiff(12, 1, b"\xff\xf8\x00"), 2) == gray(255, 128)
    assert pixels_of(gray_tiff(16, 1, struct.pack("<HH", 65535, 300)), 2) == gray(255, 1)
    assert pixels_of(gray_tiff(16, 1, struct.pack(">HH", 65535, 300), ">"), 2) == gray(255, 1)
    assert pixels_of(gray_tiff(16, 0, struct.pack("<HH", 65535, 0)), 2) == gray(0, 255)  # white is zero


def test_first_frame_of_animations():
    for kind in ("gif_animated", "webp_animated", "apng"):
        still = {"gif_animated": "gif", "webp_animated": "webp", "apng": "png"}[kind]
        first = decode(KINDS[kind], DecodeOptions(90, 120)).pixels.astype(int)
        assert np.abs(first - decode(KINDS[still], DecodeOptions(90, 120)).pixels).mean() < 8, kind


def test_tiff_of_other_colour_spaces():
    photo = np.asarray(images.photo()).astype(int)
    for mode in ("LAB", "CMYK"):
        data = images.encode(images.photo().convert(mode), "TIFF", compression="tiff_lzw")
        assert np.abs(decode(data, DecodeOptions(90, 120)).pixels - photo).mean() < 4, mode


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_ycbcr_tiff_without_jpeg_is_unsupported(compression):
    with pytest.raises(ImageError) as caught:
        data = images.encode(images.photo().convert("YCbCr"), "TIFF", compression=compression)
        decode(data, DecodeOptions(90, 120))
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT


def test_gif_transparency_is_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((0, 0), 0)
    pixels = decode(images.encode(image, "GIF", transparency=0), DecodeOptions(4, 4)).pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[3, 3].tolist() == [200, 10, 10]

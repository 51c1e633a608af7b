"""Orientation, crop and resize against their plain definitions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

import beamlabel.transforms.decoding.resize
from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.decoding.picture.exif import exif_orientation
from beamlabel.transforms.decoding.resize import Target, crop_side, fit
from support import images

ORIENTED = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "TIFF": {},
    "TIFF (LZW)": {"compression": "tiff_lzw"},
    "MPO": {"quality": 95, "subsampling": 0, "save_all": True, "append_images": [images.photo()]},
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ORIENTED)
def test_exif_orientation_stands_every_format_upright(format_, orientation):
    upright = images.photo(50, 30)
    data = images.encode(
        images.oriented(upright, orientation),
        format_.split()[0],
        exif=images.exif(orientation),
        **ORIENTED[format_],
    )
    decoded = decode(data, DecodeOptions(height=30, width=50))
    assert (decoded.width, decoded.height) == (50, 30)
    assert np.abs(decoded.pixels.astype(int) - np.asarray(upright)).mean() < 4


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0II", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0" + b"\xff" * 60]
)
def test_a_broken_exif_block_is_no_error(block):
    assert exif_orientation(block) == 1
    data = images.encode(images.photo(), "JPEG")
    segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    pixels = decode(data[:2] + segment + data[2:], DecodeOptions(90, 120)).pixels
    np.testing.assert_array_equal(pixels, decode(data, DecodeOptions(90, 120)).pixels)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_out_of_range_is_none(value):
    assert exif_orientation(images.exif(value).tobytes()) == 1


def test_xmp_orientation_is_not_read():
    xmp = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    for format_ in ("JPEG", "WEBP"):
        decoded = decode(images.encode(images.photo(), format_, xmp=xmp), DecodeOptions(8, 8))
        assert (decoded.width, decoded.height) == (120, 90)


@pytest.mark.parametrize("crop", [None, 0.3, 0.875, 1.0])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_fit_is_rotate_then_crop_then_resize(orientation, crop):
    stored = images.photo(101, 64)
    stored_exif = stored.copy()
    stored_exif.getexif()[images.ORIENTATION] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored_exif))
    if crop is not None:
        side = int(crop * 64 + 0.5)
        top, left = (upright.shape[0] - side) // 2, (upright.shape[1] - side) // 2
        upright = upright[top : top + side, left : left + side]
    for size in ((32, 32), (40, 24)):
        expected = cv2.resize(np.ascontiguousarray(upright), size[::-1], interpolation=cv2.INTER_LINEAR)
        fitted = fit(np.asarray(stored), orientation, Target(*size, crop))
        np.testing.assert_array_equal(fitted, expected)
        assert fitted.flags.c_contiguous


def test_resizing_before_a_transposition_would_give_other_pixels():
    # This is why rotation comes first. If this test ever fails, the cheaper order is possible.
    pixels = np.asarray(images.photo(451, 300))
    first = cv2.resize(np.ascontiguousarray(pixels.transpose(1, 0, 2)), (160, 160))
    after = cv2.resize(pixels, (160, 160)).transpose(1, 0, 2)
    difference = np.abs(first.astype(int) - after)
    assert 0 < difference.max() <= 1


@pytest.mark.parametrize("crop", [None, 0.875])
@pytest.mark.parametrize("size", [(2000, 1504), (2001, 1505), (2007, 1509)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_fraction_lies_where_the_full_picture_does(monkeypatch, orientation, size, crop):
    # Three smooth, different gradients: a shift by one full pixel changes some channel by a level.
    y, x = np.mgrid[: size[1], : size[0]]
    waves = np.stack([np.sin(x / 40), np.sin(y / 40), np.sin((x + y) / 60)], axis=-1)
    picture = Image.fromarray((128 + 60 * waves).astype(np.uint8))
    data = images.encode(picture, "JPEG", quality=95, exif=images.exif(orientation))
    options = DecodeOptions(72, 96, crop)
    reduced = decode(data, options)
    monkeypatch.setattr(beamlabel.transforms.decoding.resize, "_FULL_DECODE_PIXELS", 10**9)
    full = decode(data, options)
    assert (reduced.width, reduced.height) == (full.width, full.height)
    assert reduced.pixels.flags.c_contiguous
    difference = np.abs(reduced.pixels.astype(int) - full.pixels)
    assert 0 < difference.mean() < 0.9
    assert difference[:, -8:].mean() < 1.2
    assert difference[-8:].mean() < 1.2


def test_crop_side_stays_within_the_image():
    for short in range(1, 60):
        for crop in (1e-6, 0.1, 0.5, 0.875, 0.999, 1.0):
            assert 1 <= crop_side(short, short + 3, crop) <= short
    assert crop_side(256, 300, 0.875) == 224


def test_crop_of_an_image_of_one_pixel_and_of_a_line():
    for size in ((1, 1), (10000, 2), (2, 10000)):
        decoded = decode(images.encode(images.photo(*size), "PNG"), DecodeOptions(16, 16, crop=0.5))
        assert decoded.pixels.shape == (16, 16, 3)
        assert (decoded.width, decoded.height) == size


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff_lzw"])
def test_pixels_of_the_right_size_are_untouched(kind):
    pixels = decode(images.every_kind()[kind], DecodeOptions(90, 120)).pixels
    np.testing.assert_array_equal(pixels, np.asarray(images.photo()))


def test_resize_has_half_pixel_centres_and_no_antialias():
    # One white column in eight, halved twice: antialiasing would make the whole image gray.
    pixels = np.zeros((8, 64, 3), np.uint8)
    pixels[:, ::8] = 255
    data = images.encode(Image.fromarray(pixels), "PNG")
    row = decode(data, DecodeOptions(2, 16)).pixels[0, :, 0]
    # The center of target i is at 4 i + 1.5: between source columns 4 i + 1 and 4 i + 2, all black.
    assert row.max() == 0

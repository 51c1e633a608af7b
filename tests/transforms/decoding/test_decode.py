"""decode(): options, pixels of the JPEG path, refusals by the header, threads."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from beamlabel.transforms.decoding.decode import DECODER_VERSION, DecodeOptions, decode
from beamlabel.transforms.decoding.picture.jpeg_header import read_header
from beamlabel.transforms.decoding.resize import Target, reduction
from beamlabel.transforms.records import ImageError, Reason, Stage
from support import images
from support.paths import ROOT

KINDS = images.every_kind()
NATIVE = DecodeOptions(height=90, width=120)
JPEGS = [name for name, data in KINDS.items() if data[:2] == b"\xff\xd8" and name != "jpeg_rotated"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"width": -1},
        {"height": 2.5},
        {"width": True},
        {"crop": 0},
        {"crop": 1.01},
        {"crop": float("nan")},
        {"crop": "0.875"},
        {"max_pixels": 0},
    ],
)
def test_options_out_of_range_are_named(wrong):
    with pytest.raises(ValueError) as caught:
        DecodeOptions(**{"height": 4, "width": 4, **wrong})
    ((name, value),) = wrong.items()
    assert name in str(caught.value) and repr(value) in str(caught.value)


@pytest.mark.parametrize("crop", [None, 0.875, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_rgb_of_the_size(kind, crop):
    decoded = decode(KINDS[kind], DecodeOptions(height=40, width=56, crop=crop))
    assert decoded.pixels.shape == (40, 56, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.std() > 10
    expected = {"mpo": "jpeg", "apng": "png", "j2k": "jpeg2000", "pgm16": "ppm"}
    assert decoded.format == expected.get(kind, kind.split("_")[0])


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_pixels_are_pillows(kind):
    decoded = decode(KINDS[kind], NATIVE)
    assert (decoded.width, decoded.height) == (120, 90)
    np.testing.assert_array_equal(decoded.pixels, images.pillow_rgb(KINDS[kind]))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 33), (500, 375)])
def test_jpeg_of_odd_sizes(size):
    data = images.encode(images.photo(*size), "JPEG", quality=85)
    pixels = decode(data, DecodeOptions(height=size[1], width=size[0])).pixels
    np.testing.assert_array_equal(pixels, images.pillow_rgb(data))


def test_print_jpegs_keep_their_colours():
    photo = np.asarray(images.photo()).astype(int)
    for kind in ("jpeg_cmyk", "jpeg_ycck"):
        assert np.abs(decode(KINDS[kind], NATIVE).pixels - photo).mean() < 12, kind


def test_pillow_decides_on_images_that_the_fast_decoder_refuses():
    # Garbage between two segments: libjpeg warns of extraneous bytes, but the image is complete.
    data = KINDS["jpeg"]
    table = data.index(b"\xff\xdb")
    padded = data[:table] + b"\0\0\0" + data[table:]
    np.testing.assert_array_equal(decode(padded, NATIVE).pixels, decode(data, NATIVE).pixels)


def test_jpegs_that_nobody_here_decodes_are_unsupported():
    data = KINDS["jpeg"]
    frame = data.index(b"\xff\xc0\0")
    twelve_bits = data[: frame + 4] + b"\x0c" + data[frame + 5 :]
    height_later = data[: frame + 5] + b"\0\0" + data[frame + 7 :]
    for strange in (twelve_bits, height_later):
        with pytest.raises(ImageError) as caught:
            decode(strange, NATIVE)
        assert caught.value.reason is Reason.UNSUPPORTED_FORMAT


def test_reduction_keeps_three_times_the_target():
    target = Target(160, 160)
    cases = {
        (1600, 1250): 1,  # two megapixels are decoded in full
        (1601, 1250): 2,
        (4000, 3000): 4,
        (5000, 3840): 8,  # 3840 / 8 = 480 = 3 × 160
        (5000, 3839): 4,
        (10000, 900): 1,
        (10000, 960): 2,
    }
    assert {size: reduction(*size, 1, target) for size in cases} == cases
    assert reduction(5000, 3840, 1, Target(160, 160, crop=0.875)) == 4
    # A target that is not square: the sides are matched after rotation.
    assert reduction(8000, 4000, 1, Target(height=100, width=400)) == 4
    assert reduction(8000, 4000, 6, Target(height=100, width=400)) == 2


@pytest.mark.parametrize(("size", "factor"), [((1999, 1501), 2), ((2401, 1921), 4), ((4001, 3001), 8)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_large_jpegs_are_decoded_at_a_fraction(size, factor, mode):
    data = images.encode(images.photo(97, 61).resize(size).convert(mode), "JPEG")
    width, height = (int(side / (3 * factor)) for side in size)
    assert reduction(*size, 1, Target(height, width)) == factor
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (size[0] // factor, size[1] // factor))
        reduced = np.asarray(image.convert("RGB"))
    assert reduced.shape[1] == -(-size[0] // factor)
    decoded = decode(data, DecodeOptions(height=height, width=width))
    assert (decoded.width, decoded.height) == size
    # The last column and row are partial, so the scales come from the full size.
    scales = {"fx": width * factor / size[0], "fy": height * factor / size[1]}
    expected = cv2.resize(reduced, None, interpolation=cv2.INTER_CUBIC, **scales).astype(int)
    difference = np.abs(decoded.pixels - expected)
    assert difference.mean() < 0.5
    assert difference.max() <= 8


HUGE = {
    "png": images.png(30000, 30000, 8, 2, b""),
    "jpeg": images.claiming(KINDS["jpeg"], 30000, 30000),
    "jpeg_progressive": images.claiming(KINDS["jpeg_progressive"], 30000, 30000),
    "jpeg_cmyk": images.claiming(KINDS["jpeg_cmyk"], 30000, 30000),
    "bmp": KINDS["bmp"][:18] + struct.pack("<ii", 30000, 30000) + KINDS["bmp"][26:60],
    "gif": KINDS["gif"][:6] + struct.pack("<HH", 30000, 30000) + KINDS["gif"][10:],
    "webp": KINDS["webp"][:26] + struct.pack("<HH", 16383, 16383) + KINDS["webp"][30:],
    "webp_animated": KINDS["webp_animated"][:24] + b"\xfe\x3f\0" * 2 + KINDS["webp_animated"][30:],
    "avif": KINDS["avif"].replace(struct.pack(">II", 120, 90), struct.pack(">II", 30000, 30000)),
    "ico": KINDS["ico"].replace(struct.pack(">II", 64, 48), struct.pack(">II", 30000, 30000)),
    "tiff": images.tiff(
        {256: (3, struct.pack("<H", 30000)), 257: (3, struct.pack("<H", 30000)), 262: (3, b"\1\0")}, b"x"
    ),
}


@pytest.mark.parametrize("kind", HUGE)
def test_too_many_pixels_is_known_from_the_header(kind):
    # None of them holds the claimed pixels, so decoding would report truncation.
    with pytest.raises(ImageError) as caught:
        decode(HUGE[kind], NATIVE)
    assert (caught.value.stage, caught.value.reason) == (Stage.DECODE, Reason.TOO_MANY_PIXELS)
    assert "limit of 100000000" in caught.value.detail


def test_refusing_takes_no_memory(tmp_path):
    for kind, data in HUGE.items():
        (tmp_path / kind).write_bytes(data)
    script = (
        "import pathlib, resource, sys\n"
        "from beamlabel.transforms.decoding.decode import DecodeOptions, decode\n"
        "from beamlabel.transforms.records import ImageError\n"
        "from PIL import Image\n"
        "Image.init()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try: decode(path.read_bytes(), DecodeOptions(160, 160))\n"
        "    except ImageError: continue\n"
        "    sys.exit(path.name)\n"
        "sys.exit(0 if peak() - before < 40_000 else f'{peak() - before} KiB')\n"
    )
    root = ROOT
    ran = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_pixel_limit_is_inclusive_and_ours_alone(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in ("jpeg", "png", "webp", "gif", "bmp"):
        decode(KINDS[kind], DecodeOptions(8, 8, max_pixels=120 * 90))
        with pytest.raises(ImageError, match="too_many_pixels"):
            decode(KINDS[kind], DecodeOptions(8, 8, max_pixels=120 * 90 - 1))
    assert Image.MAX_IMAGE_PIXELS == 10


def test_hostile_directory(tmp_path):
    expected = images.hostile_images(tmp_path)
    fetched = {name for name in expected if expected[name] not in (Reason.NOT_A_FILE, Reason.FORBIDDEN)}
    outcome = {}
    for name in fetched:
        try:
            outcome[name] = decode((tmp_path / name).read_bytes(), DecodeOptions(32, 32)) and None
        except ImageError as error:
            outcome[name] = error.reason
    assert outcome == {name: expected[name] for name in fetched}


def test_many_threads_give_the_same_pixels():
    options = DecodeOptions(64, 48, crop=0.9)
    work = list(KINDS.values()) * 3
    alone = [decode(data, options).pixels for data in KINDS.values()] * 3
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, options).pixels, work))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_header_of_the_jpeg_road():
    assert read_header(KINDS["jpeg"])[:3] == (120, 90, 3)
    assert read_header(KINDS["jpeg_gray"])[:3] == (120, 90, 1)
    assert read_header(KINDS["jpeg_ycck"])[:3] == (120, 90, 4)
    assert read_header(KINDS["jpeg_progressive"]).progressive
    assert read_header(KINDS["jpeg_rotated"]).orientation == 6


def test_decoder_version_is_ours():
    assert DECODER_VERSION.isdecimal()

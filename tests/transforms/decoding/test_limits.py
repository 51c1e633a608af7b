"""Files that would decode forever: none takes the fast path, and the child process has limits."""

import io
import random
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from beamlabel.transforms.decoding import decode as decode_module
from beamlabel.transforms.decoding import with_limits
from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.decoding.in_place import decode_in_place
from beamlabel.transforms.decoding.picture.exif import exif_orientation
from beamlabel.transforms.decoding.picture.jpeg_header import MAX_SCANS
from beamlabel.transforms.decoding.picture.limits import NeedsLimitsError, in_place
from beamlabel.transforms.records import ImageError, Reason
from support import attacks, images
from support.corpus import corpus
from support.jobs import label, uri_list

SMALL = DecodeOptions(16, 16)
PHOTO = images.photo()


def reason(data, options=SMALL):
    with pytest.raises(ImageError) as caught:
        decode(data, options)
    return caught.value.reason


def is_fast(data, options=SMALL):
    """Whether this process itself decodes or refuses the file."""
    try:
        decode_in_place(data, options)
    except ImageError:
        return True
    except NeedsLimitsError:
        return False
    return True


@pytest.fixture
def other_child(monkeypatch):
    """A child process of another kind, for this test only."""
    monkeypatch.setattr(with_limits, "_children", None)
    monkeypatch.setattr(with_limits, "_CHILD", "support.limited_answers")
    yield
    with_limits._pool().close()


def test_a_child_finds_the_pixels_that_this_process_finds():
    files = corpus()[::25]
    for file in files:
        for options in (DecodeOptions(13, 11), DecodeOptions(24, 40, crop=0.875, color_profile="ignore")):
            with in_place():
                here = decode_in_place(file.data, options)
            there = with_limits.decode_with_limits(file.data, options)
            assert (here.width, here.height, here.format) == (there.width, there.height, there.format)
            assert here.color_converted == there.color_converted
            np.testing.assert_array_equal(here.pixels, there.pixels)
    assert len(files) > 40


def test_a_refusal_of_a_child_is_a_refusal_here():
    gif = images.encode(PHOTO, "GIF")
    assert reason(gif[:-40]) is Reason.TRUNCATED
    with pytest.raises(ImageError) as caught:
        decode(gif, DecodeOptions(16, 16, max_pixels=1000))
    assert (caught.value.reason, "120×90" in caught.value.detail) == (Reason.TOO_MANY_PIXELS, True)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_usual_images_start_no_process(format_, monkeypatch):
    monkeypatch.setattr(decode_module, "decode_with_limits", None)
    for image in (PHOTO, PHOTO.convert("L"), PHOTO.resize((2500, 1900))):
        assert decode(images.encode(image, format_), SMALL).format == format_.lower()
    progressive = images.encode(PHOTO.resize((3000, 2000)), "JPEG", progressive=True)
    assert decode(progressive, SMALL).width == 3000
    assert reason(images.encode(PHOTO, format_)[:900]) is Reason.TRUNCATED
    assert reason(b"<!doctype html><html>" + bytes(9)) is Reason.NOT_AN_IMAGE


def test_headers_show_which_images_may_take_long():
    jpeg = images.encode(PHOTO, "JPEG")
    profile = bytes(132) + b"mpet"
    slow = {
        "many scans": attacks.refined_jpeg(10_000, 10_000),
        "arithmetic": attacks.arithmetic_jpeg(10_000, 10_000),
        "large and cut": images.encode(Image.new("RGB", (8000, 6000)), "JPEG")[:-900],
        "steps of a profile": images.encode(PHOTO, "JPEG", icc_profile=profile),
        "large png": attacks.png(9000, 9000, 8, 2),
        "two decodes": attacks.png(4000, 4000, 16, 2, images.png_chunk(b"tRNS", bytes(6))),
        "chunks": attacks.png(9, 9, 8, 2, between=[images.png_chunk(b"IDAT", b"")] * 9000),
        "large webp": b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<II", 10, 0) + b"\x27\x23\0\x87\x13\0",
        "chunks of a webp": (
            b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<I", 10) + bytes(10) + b"nope\0\0\0\0" * 5000
        ),
    }
    for name, data in slow.items():
        assert not is_fast(data), name
    fast = {
        "usual": jpeg,
        "png": attacks.png(6000, 6000, 8, 2),
    }
    for name, data in fast.items():
        assert is_fast(data), name


@pytest.mark.parametrize("file", [next(f for f in corpus() if f.variant.startswith(k)) for k in (
    "avif", "bmp", "cur", "dds", "dib", "gif", "icns", "ico", "jpeg2000", "pbm", "pcx", "pgm", "ppm", "psb", "psd",
    "qoi", "sgi", "sun", "tga", "tiff", "xbm",
)], ids=lambda file: file.variant)  # fmt: skip
def test_other_formats_are_never_decoded_here(file):
    assert not is_fast(file.data)


def test_the_scans_of_a_jpeg_have_a_limit():
    assert decode(attacks.jpeg(64, 48, MAX_SCANS), SMALL).width == 64
    assert reason(attacks.jpeg(64, 48, MAX_SCANS + 1)) is Reason.CORRUPT
    # 18,000 of them, with the maximum number of pixels.
    assert reason(attacks.jpeg(10_000, 10_000, 18_000)) is Reason.CORRUPT
    # A marker without a length, and the next bytes are no length either: libjpeg continues after it.
    assert (
        reason(attacks.jpeg(64, 48, MAX_SCANS + 1, between=b"\xff\x01" + b"\xff\xff\xff")) is Reason.CORRUPT
    )


def test_segments_without_end_are_refused():
    comments = attacks.segment(0xFE, b"") * 60_000
    plain = attacks.jpeg(64, 48, 3)
    assert reason(attacks.START + comments + plain[2:]) is Reason.CORRUPT
    assert reason(attacks.jpeg(64, 48, 3, between=comments)) is Reason.CORRUPT
    # Any number of fill bytes is valid and cheap.
    assert decode(attacks.START + b"\xff" * 4_000_000 + plain[2:], SMALL).width == 64


def test_the_deadline_ends_a_decode():
    hasty = DecodeOptions(16, 16, decode_deadline=0.2)
    assert reason(attacks.refined_jpeg(10_000, 10_000), hasty) is Reason.DECODE_TIMEOUT
    chunks = [images.png_chunk(b"IDAT", b"")] * 300_000
    assert reason(attacks.png(9, 9, 8, 2, between=chunks), hasty) is Reason.DECODE_TIMEOUT
    assert decode(images.encode(PHOTO, "GIF"), SMALL).format == "gif"


def test_more_memory_than_allowed_is_a_decode_error():
    # Tags that affect pixels and all share the same forty million values.
    tags = (256, 257, 258, 259, 262, 266, 273)
    body = bytes(40_000_000)
    data = attacks.heaped_directory(len(tags), 1, len(body), body, tags)
    few = DecodeOptions(16, 16, max_pixels=1000, decode_deadline=600)
    assert reason(data, few) is Reason.DECODE_ERROR


def test_a_decoder_that_crashes_fails_the_image_alone(other_child):
    with pytest.raises(ImageError) as caught:
        decode(images.encode(PHOTO, "GIF"), SMALL)
    assert caught.value.reason is Reason.DECODE_ERROR and "SIGSEGV" in caught.value.detail


def test_a_job_continues_after_each_fault(tmp_path):
    endless = [images.png_chunk(b"IDAT", b"")] * 1_500_000
    files = {
        "good.jpg": (images.encode(PHOTO, "JPEG"), None),
        "endless.png": (attacks.png(9, 9, 8, 2, between=endless), Reason.DECODE_TIMEOUT),
        "scans.jpg": (attacks.jpeg(64, 48, MAX_SCANS + 1), Reason.CORRUPT),
        "comments.xbm": (b"/**/" * 400 + b"x", Reason.NOT_AN_IMAGE),
        "good.gif": (images.encode(PHOTO, "GIF"), None),
    }
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data)
    uris = uri_list(tmp_path / "list.txt", [tmp_path / name for name in files])
    job = label(tmp_path / "out", "--input", uris, "--max_error_rate", 1, "--decode_deadline", 2)
    found = {row["uri"]: None for row in job.rows} | {one["uri"]: one["reason"] for one in job.failures}
    assert found == {str(tmp_path / name): wanted and wanted.value for name, (_, wanted) in files.items()}


def test_overlapping_ranges_are_not_read_twice():
    """Directories whose entries all refer to the same bytes, so that megabytes count as gigabytes."""
    body = bytes(1 << 20)
    heap = attacks.heaped_directory(10_000, 7, len(body), body)
    assert reason(heap) is Reason.CORRUPT  # a TIFF without a width
    png = attacks.png(9, 9, 8, 2, images.png_chunk(b"eXIf", heap))
    assert decode(png, SMALL).width == 9
    again = attacks.png(9, 9, 8, 2, images.png_chunk(b"eXIf", b"Exif\0\0" * 300_000))
    assert decode(again, SMALL).width == 9


def test_boxes_that_lie_in_each_other_without_end():
    avif = images.encode(PHOTO, "AVIF")
    boxes = b"".join(struct.pack(">I4s", 8 * (9_000 - n), b"trak" if n else b"moov") for n in range(9_000))
    assert reason(avif + boxes) is Reason.CORRUPT
    assert decode(avif + boxes[-8:], SMALL).format == "avif"


def test_texts_that_can_be_read_in_many_ways():
    assert reason(b"/**/" * 400 + b"x") is Reason.NOT_AN_IMAGE
    assert reason(b"/* a *//**/ " * 100 + b"#define a_width 8\n#define a_height 1\nx") is Reason.TRUNCATED
    assert reason(b"<!-- -->" * 100_000) is Reason.NOT_AN_IMAGE
    for filling in (b" ", b"#\n", b"\n"):
        assert reason(b"P1 " + filling * 4_000_000) in (Reason.NOT_AN_IMAGE, Reason.TRUNCATED)
    bitmap = b"/* a */ /**/\n#define a_width 8\n#define a_height 1\nstatic char a_bits[] = { 0x0f };\n"
    assert decode(bitmap, DecodeOptions(1, 8)).pixels[0, :, 0].tolist() == [0] * 4 + [255] * 4


def test_pictures_within_pictures_are_held_to_the_limit():
    """Headers that claim less than the decoder would find."""
    few = DecodeOptions(16, 16, max_pixels=1000)
    inner = attacks.png(2000, 1000, 8, 2)
    assert reason(attacks.png(9, 9, 8, 2)[:33] + inner[8:], few) is Reason.CORRUPT
    avif = images.encode(PHOTO, "AVIF")
    small = avif.replace(struct.pack(">II", 120, 90), struct.pack(">II", 12, 9))
    assert small != avif
    with Image.open(io.BytesIO(small)) as image:
        image.load()  # decodes it all
        assert image.size == (12, 9)
    assert reason(small, few) is Reason.TOO_MANY_PIXELS
    animated = images.encode(PHOTO, "AVIF", save_all=True, append_images=[PHOTO.rotate(90)])
    assert reason(animated.replace(struct.pack(">II", 120, 90), struct.pack(">II", 12, 9)), few) in (
        Reason.TOO_MANY_PIXELS, Reason.UNSUPPORTED_FORMAT,
    )  # fmt: skip
    tiff = images.encode(PHOTO, "TIFF", compression="jpeg")
    claimed = tiff
    for tag, side, claim in ((256, 120, 12), (257, 90, 9), (278, 90, 9)):
        for kind in (3, 4):
            entry = struct.pack("<HHI", tag, kind, 1)
            claimed = claimed.replace(entry + struct.pack("<I", side), entry + struct.pack("<I", claim))
    assert claimed != tiff
    assert reason(claimed, few) is Reason.TOO_MANY_PIXELS


def test_the_orientation_is_the_one_that_pillow_finds():
    source = random.Random(5)
    found = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3000):
            block = _exif(source)
            exif = Image.Exif()
            try:
                exif.load(block)
                wanted = exif.get(images.ORIENTATION, 1)
            except Exception:  # Pillow may raise any error on these bytes
                wanted = 1
            wanted = wanted if isinstance(wanted, int) and 1 <= wanted <= 8 else 1
            assert exif_orientation(block) == wanted, block
            found.add(wanted)
    assert found == set(range(1, 9))


def _exif(source):
    order = source.choice("<>")
    heads = (b"II*\0", b"II\0*", b"II+\0") if order == "<" else (b"MM\0*", b"MM*\0", b"MM\0+")
    entries = b""
    count = source.randrange(1, 5)
    for _ in range(count):
        tag, kind = source.choice((274, 274, 256, 0x8769)), source.choice((3, 3, 3, *range(14), 16, 99))
        value = source.choice(
            (struct.pack(order + "HH", source.randrange(10), 0), bytes([source.randrange(9)] * 4))
        )
        entries += struct.pack(order + "HHI", tag, kind, source.choice((1, 1, 1, 0, 2, 8, 1 << 31))) + value
    start = source.choice((b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"))
    head = heads[0] if source.random() < 0.8 else source.choice(heads)
    block = (
        start + head + struct.pack(order + "IH", 8, count + source.choice((0, 0, 1))) + entries + bytes(40)
    )
    return block if source.random() < 0.9 else block[: source.randrange(len(block))]

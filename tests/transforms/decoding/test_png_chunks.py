"""PNG: pixels depend only on IHDR, PLTE, tRNS and IDAT, the orientation only on eXIf."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.records import ImageError, Reason
from support import images

NATIVE = DecodeOptions(90, 120)
PNG = images.encode(images.photo(), "PNG")
PIXELS = decode(PNG, NATIVE).pixels
BIG = zlib.compress(bytes(80 << 20))


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    whole = images.png_chunk(kind, content)
    return whole if checksum is None else whole[:-4] + struct.pack(">I", checksum)


ANCILLARY = {
    "long text": chunk(b"zTXt", b"a\0\0" + BIG),
    "long international text": chunk(b"iTXt", b"a\0\1\0\0\0" + BIG),
    "long profile": chunk(b"iCCP", b"a\0\0" + BIG),
    "text of nothing": chunk(b"tEXt", b""),
    "broken profile": chunk(b"iCCP", b"a\0\0no zlib"),
    "short size": chunk(b"pHYs", b"\0\0"),
    "short gamma": chunk(b"gAMA", b"\0"),
    "short time": chunk(b"tIME", b"\0"),
    "short code points": chunk(b"cICP", b"\1"),
    "broken EXIF": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "unknown": chunk(b"abCd", b"xyz"),
    "short animation": chunk(b"acTL", b"\0\0"),
    "animation of nothing": chunk(b"acTL", bytes(8)),
    **{
        f"wrong checksum of {kind.decode()}": chunk(kind, content, 1)
        for kind, content in (
            (b"iCCP", b"a\0\0" + zlib.compress(b"x")), (b"pHYs", bytes(9)), (b"tEXt", b"a\0b"), (b"tIME", bytes(7)),
            (b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"), (b"bKGD", bytes(6)), (b"sRGB", b"\0"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ANCILLARY)
@pytest.mark.parametrize("place", [33, len(PNG) - 12], ids=["before", "after"])
def test_ancillary_chunks_change_nothing(name, place):
    data = PNG[:place] + ANCILLARY[name] + PNG[place:]
    np.testing.assert_array_equal(decode(data, NATIVE).pixels, PIXELS)


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE", b"tRNS"])
def test_a_wrong_checksum_of_chunks_that_pixels_need_is_corrupt(kind):
    data = images.encode(images.photo().quantize(64), "PNG", transparency=bytes(range(0, 256, 4)))
    start = data.index(kind) - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    with pytest.raises(ImageError) as caught:
        decode(images.flip(data, end - 1), NATIVE)
    assert caught.value.reason is Reason.CORRUPT


def test_critical_chunks_that_are_not_known_are_unsupported():
    for data in (PNG[:33] + chunk(b"ABCD", b"x") + PNG[33:], PNG[:8] + chunk(b"CgBI", bytes(4)) + PNG[8:]):
        with pytest.raises(ImageError) as caught:
            decode(data, NATIVE)
        assert caught.value.reason is Reason.UNSUPPORTED_FORMAT


def test_a_header_that_cannot_be_is_corrupt():
    for size in ((0, 5), (5, 0), (1 << 31, 1)):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
        with pytest.raises(ImageError) as caught:
            decode(PNG[:8] + head + PNG[33:], NATIVE)
        assert caught.value.reason is Reason.CORRUPT
    for depth, colour in ((3, 0), (16, 3), (8, 5), (4, 2)):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 120, 90, depth, colour, 0, 0, 0))
        with pytest.raises(ImageError) as caught:
            decode(PNG[:8] + head + PNG[33:], NATIVE)
        assert caught.value.reason is Reason.UNSUPPORTED_FORMAT


def test_image_data_in_many_chunks_between_others():
    start = PNG.index(b"IDAT") - 4
    length = int.from_bytes(PNG[start : start + 4], "big")
    content = PNG[start + 8 : start + 8 + length]
    parts = b"".join(chunk(b"IDAT", content[at : at + 100]) for at in range(0, length, 100))
    for extra in (b"", chunk(b"tEXt", b"a\0b")):
        data = PNG[:start] + extra + parts + extra + PNG[start + 12 + length :]
        np.testing.assert_array_equal(decode(data, NATIVE).pixels, PIXELS)
    with pytest.raises(ImageError) as caught:
        decode(PNG[:start] + parts[: len(parts) // 2], NATIVE)
    assert caught.value.reason is Reason.TRUNCATED


def test_exif_turns_wherever_it_stands():
    block = chunk(b"eXIf", images.exif(6).tobytes().removeprefix(b"Exif\0\0"))
    for place in (33, len(PNG) - 12):
        decoded = decode(PNG[:place] + block + PNG[place:], NATIVE)
        assert (decoded.width, decoded.height) == (90, 120)


def test_transparent_colour_of_16_bits_is_compared_in_full():
    samples = np.array([[[0x1234, 0x5678, 0x9ABC], [0x1235, 0x5678, 0x9ABC]]], ">u2")
    data = images.png(2, 1, 16, 2, samples.tobytes(), tRNS=samples[0, 0].tobytes())
    assert decode(data, DecodeOptions(1, 2)).pixels.tolist() == [[[255, 255, 255], [0x12, 0x56, 0x9A]]]

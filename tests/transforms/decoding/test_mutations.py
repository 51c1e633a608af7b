"""Changed bytes in every variant: an image or a reason, never another error or more memory or time."""

from __future__ import annotations

import random
import struct

import pytest

from beamlabel.transforms.decoding.decode import DecodeOptions, decode
from beamlabel.transforms.decoding.in_place import decode_in_place
from beamlabel.transforms.decoding.picture import fresh_memory
from beamlabel.transforms.decoding.picture.limits import in_place
from beamlabel.transforms.records import ImageError, Reason
from support import images
from support.corpus import corpus

SMALL = DecodeOptions(8, 8, max_pixels=4_000_000)
NUMBERS = (
    b"\xff\xff\xff\xff",
    bytes(4),
    b"\x7f\xff\xff\xff",
    b"\0\0\0\x80",
    b"\xff" * 7 + b"\x7f",
    b"\xff" * 8,
)


def mutated(data: bytes, source: random.Random) -> bytes:
    if source.random() < 0.15:
        return data[: source.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 6))):
        at = source.randrange(min(len(changed), source.choice((32, 128, 600, len(changed)))))
        way = source.random()
        if way < 0.5:
            changed[at] ^= 1 << source.randrange(8)
        elif way < 0.9:
            number = source.choice((*NUMBERS, source.randbytes(4)))[: len(changed) - at]
            changed[at : at + len(number)] = number
        else:
            del changed[at : at + source.randrange(1, 20)]
            changed = changed or bytearray(1)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_mutations_of_the_corpus(seed):
    source, reasons = random.Random(seed), set()
    for file in source.choices(corpus(), k=700):
        try:
            decode(mutated(file.data, source), SMALL)
        except ImageError as error:
            reasons.add(error.reason)
            assert error.detail
    assert reasons >= {Reason.TRUNCATED, Reason.CORRUPT, Reason.UNSUPPORTED_FORMAT, Reason.TOO_MANY_PIXELS}


def reason(data: bytes, options: DecodeOptions = SMALL) -> Reason | None:
    try:
        decode(data, options)
    except ImageError as error:
        return error.reason
    return None


def test_no_pixel_shows_earlier_memory():
    """libtiff accepts a fax page with broken codes and leaves old memory of the process in the rest."""
    fill = fresh_memory._mallopt()
    if fill is None:
        pytest.skip("needs glibc to fill fresh memory")
    page, whole = images.every_kind()["tiff_group4"], DecodeOptions(90, 120)
    for at in (30, 500, 1500):
        broken = page[:at] + bytes(3686 - at) + page[3686:]
        found = []
        for bits in (0x33, 0xCC):
            fill(fresh_memory._M_PERTURB, bits)
            try:
                with in_place():
                    found.append(decode_in_place(broken, whole).pixels.tolist())
            except ImageError as error:
                found.append(error.reason)
            finally:
                fill(fresh_memory._M_PERTURB, 0)
        assert found == [Reason.CORRUPT] * 2, at


def test_offsets_beyond_the_end_are_truncated():
    for order in ("<", ">"):
        mark = b"II" if order == "<" else b"MM"
        for offset in (0x80FFFFFFFFFFFFFF, 1 << 63, (1 << 64) - 1, 17):
            data = mark + struct.pack(order + "HHHQ", 43, 8, 0, offset)
            assert reason(data) is Reason.TRUNCATED, offset
        assert reason(mark + struct.pack(order + "HI", 42, 0xFFFFFFFF) + bytes(8)) is Reason.TRUNCATED
    entry = struct.pack("<HHQQ", 256, 3, 1 << 62, 16)
    assert reason(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1) + entry) is Reason.TRUNCATED


def test_pictures_within_pictures_are_held_to_the_limit():
    huge = images.png(3000, 3000, 8, 2, b"")
    ico = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(huge), 22) + huge
    icns = b"icns" + struct.pack(">I", 16 + len(huge)) + b"ic10" + struct.pack(">I", 8 + len(huge)) + huge
    dib = struct.pack("<IiiHHIIiiII", 40, 30000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    ico_dib = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 24, len(dib), 22) + dib
    for data in (ico, icns, ico_dib):
        assert reason(data) is Reason.TOO_MANY_PIXELS


def test_slow_decoders_have_the_deadline_alone():
    qoi = b"qoif" + struct.pack(">IIBB", 2000, 1000, 3, 0) + b"\x6a" * 2_000_000 + bytes(7) + b"\1"
    assert reason(qoi, DecodeOptions(8, 8, decode_deadline=0.2)) is Reason.DECODE_TIMEOUT
    head = struct.pack("<IiiHHIIiiII", 40, 1000, 1000, 1, 8, 1, 0, 0, 0, 0, 0)
    bmp = b"BM" + struct.pack("<IHHI", 1078, 0, 0, 1078) + head + bytes(1024)
    assert reason(bmp) is Reason.TRUNCATED
    rows = (b"\xfa\1" * 4 + b"\0\0") * 1000 + b"\0\1"
    assert decode(bmp + rows, SMALL).width == 1000


@pytest.mark.parametrize(
    "data",
    [
        b"<?xml version='1.0'?>\n<!--" + b" x" * 9000 + b"-->\n<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xef\xbb\xbf<!DOCTYPE svg PUBLIC 'a' 'b' [<!ENTITY x 'y'>]><!-- a --><svg:svg xmlns:svg='x'/>",
        b"BLP2" + bytes(200),
        b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nENDHDR\nabc",
        b"PF\n1 1\n-1.0\n" + bytes(12),
        b"/* XPM */\nstatic char *a[] = {\n",
        b"SIMPLE  =                    T",
        b"\0\0\0\0\x12\xaf" + bytes(200),
    ],
)
def test_known_formats_without_a_comparison_are_unsupported(data):
    assert reason(data) is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (254, 1),
        (254, 4),
        (339, 2),
        (339, 3),
        (266, 2),
        (277, 5),
        (262, 32803),
        (262, 10),
        (259, 34712),
        (259, 6),
        (317, 3),
    ],
)
def test_tiffs_beyond_the_list_are_unsupported(tag, value):
    tags = {256: 2, 257: 1, 258: 8, 259: 1, 262: 2, 277: 3, 278: 1, tag: value}
    packed = {number: (3, struct.pack("<H", one)) for number, one in tags.items()}
    assert reason(images.tiff(packed, bytes(40))) is Reason.UNSUPPORTED_FORMAT


def test_psds_without_their_merged_picture_and_with_transparency():
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 4, 2, 3, 8, 3) + bytes(4)
    version = b"8BIM" + struct.pack(">HHI", 1057, 0, 6) + struct.pack(">IB", 1, 0) + b"\0"
    layers = struct.pack(">IIh", 6, 2, -1)
    planes = bytes(18)
    without = head + struct.pack(">I", len(version)) + version + bytes(4) + b"\0\0" + planes + bytes(6)
    transparent = head + bytes(4) + layers + b"\0\0" + planes + bytes((255, 255, 255, 255, 255, 0))
    opaque = head + bytes(4) + layers + b"\0\0" + planes + b"\xff" * 6
    assert reason(without) is reason(transparent) is Reason.UNSUPPORTED_FORMAT
    assert reason(opaque) is None

"""What an image file says of itself before it is decoded: claimed size, wholeness, checksums.

Pillow answers most of this when it loads an image. What stands here is what it would notice too late
(a size, when memory is taken) or not at all (a TIFF whose tags are cut off), and what tells a cut file
from a broken one when it only says that it can't read it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from beamlabel.transforms.decoding.options import refusal
from beamlabel.transforms.records import Reason

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Magic numbers of what Pillow can't read, or not without external programs: (offset, bytes, name).
_UNREADABLE = (
    (0, b"%!PS", "eps"),
    (0, b"\xc5\xd0\xd3\xc6", "eps"),
    (0, b"%PDF", "pdf"),
    (0, b"\xd7\xcd\xc6\x9a", "wmf"),
    (40, b" EMF", "emf"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "fpx or mic (an OLE file)"),
    (0, b"\xff\x0a", "jpeg xl"),
    (0, b"\x00\x00\x00\x0cJXL ", "jpeg xl"),
    (0, b"v/1\x01", "openexr"),
    (0, b"#?RADIANCE", "radiance hdr"),
    (0, b"GRIB", "grib"),
    (0, b"BUFR", "bufr"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"\x00\x00\x01\xb3", "mpeg"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"crx ")


def unreadable(data: bytes) -> str | None:
    """The name of a known format that is not decoded here, else None."""
    for offset, magic, name in _UNREADABLE:
        if data.startswith(magic, offset):
            return name
    if data[4:8] == b"ftyp":
        brands = data[8 : max(12, int.from_bytes(data[:4], "big"))][:256]
        if b"avif" not in brands and b"avis" not in brands:
            return "heif" if brands[:4] in _HEIF_BRANDS else None
    head = data[:1024].lower()
    markup = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")
    return "svg" if markup and b"<svg" in head and b"<html" not in head else None


def claimed_size(data: bytes) -> tuple[int, int]:
    """Width and height of formats that Pillow takes memory for, or decodes, in opening them; else (0, 0).

    WebP (RFC 9649), AVIF (``ispe``, ISO/IEC 23008-12), and the PNGs within icons (ICO, ICNS).
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size(data)
    if data[4:8] == b"ftyp":
        claims = re.finditer(rb"ispe....(....)(....)", data[:65536], re.DOTALL)
    elif data[:4] in (b"\x00\x00\x01\x00", b"\x00\x00\x02\x00", b"icns"):
        claims = re.finditer(re.escape(PNG_SIGNATURE) + rb"....IHDR(....)(....)", data, re.DOTALL)
    else:
        return 0, 0
    sizes = [(int.from_bytes(claim[1], "big"), int.from_bytes(claim[2], "big")) for claim in claims]
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk, head = data[12:16], data[20:30]
    if len(head) < 10:
        return 0, 0
    if chunk == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack("<HH", head[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def check_png(data: bytes) -> None:
    """Raises ``corrupt`` where the checksum of image data is wrong: Pillow skips those of IDAT chunks."""
    view = memoryview(data)
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data) or kind == b"IEND":
            return
        checksum = int.from_bytes(view[end : end + 4], "big")
        if kind == b"IDAT" and zlib.crc32(view[position + 4 : end]) != checksum:
            raise refusal(Reason.CORRUPT, f"wrong checksum of the image data at byte {position}")
        position = end + 4


class _TiffTag(NamedTuple):
    kind: int
    values: int
    offset: int  # of the value itself, wherever it lies


# Tags that pixels depend on; others may point anywhere. TIFF 6.0, section 8, and supplements.
_TIFF_TAGS = frozenset(
    (
        *(256, 257, 258, 259, 262, 266, 277, 284, 317, 320, 338, 339, 530),  # what the values mean
        *(273, 278, 279, 322, 323, 324, 325),  # strips and tiles
        *(274, 292, 293, 347),  # orientation; fax options; JPEG tables
    )
)
_TIFF_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_BITS_PER_SAMPLE, _COMPRESSION, _NONE, _PHOTOMETRIC, _YCBCR = 258, 259, 1, 262, 6


def check_tiff(data: bytes) -> None:
    """Raises ``truncated`` where the first image's tags, or its compressed data, lie beyond the end.

    Pillow leaves such tags out, and so may show another picture. ``unsupported_format`` is YCbCr without
    compression, which Pillow takes for four channels and so for cut off.
    """
    order = "<" if data[:2] == b"II" else ">"
    try:
        tags = _tiff_tags(data, order)
        samples = _values(data, order, tags, _BITS_PER_SAMPLE)
        compressed = _values(data, order, tags, _COMPRESSION) not in ([], [_NONE])
        if not compressed and _values(data, order, tags, _PHOTOMETRIC) == [_YCBCR] and len(samples) == 3:
            raise refusal(Reason.UNSUPPORTED_FORMAT, "a TIFF of uncompressed YCbCr")
        for offsets, lengths in ((273, 279), (324, 325)) if compressed else ():
            ends = map(
                sum,
                zip(_values(data, order, tags, offsets), _values(data, order, tags, lengths), strict=False),
            )
            if max(ends, default=0) > len(data):
                raise refusal(Reason.TRUNCATED, "the TIFF's image data lie beyond the end of the file")
    except struct.error as error:
        raise refusal(Reason.TRUNCATED, "the TIFF's tags lie beyond the end of the file") from error


def _tiff_tags(data: bytes, order: str) -> dict[int, _TiffTag]:
    """The first directory's tags that pixels depend on; ``struct.error`` where it isn't all there."""
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (directory,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, directory)
    layout = struct.Struct(order + ("HHQ" if big else "HHI"))
    room, stride, start = (8, 20, directory + 8) if big else (4, 12, directory + 2)
    if start + stride * entries > len(data):
        raise struct.error("directory")
    tags = {}
    for entry in range(start, start + stride * entries, stride):
        tag, kind, count = layout.unpack_from(data, entry)
        offset, size = entry + layout.size, count * _TIFF_SIZES.get(kind, 0)
        if size > room:
            (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, offset)
        if tag in _TIFF_TAGS:
            if offset + size > len(data):
                raise struct.error(f"tag {tag}")
            tags[tag] = _TiffTag(kind, count, offset)
    return tags


def _values(data: bytes, order: str, tags: dict[int, _TiffTag], tag: int) -> list[int]:
    """The whole numbers of a tag; empty where it is absent or of another type."""
    if tag not in tags:
        return []
    kind, count, offset = tags[tag]
    code = {3: "H", 4: "I", 16: "Q"}.get(kind)
    return list(struct.unpack_from(f"{order}{count}{code}", data, offset)) if code else []


def _whole_png(data: bytes) -> bool:
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return position <= len(data)
    return False


def _whole_boxes(data: bytes) -> bool:
    """ISO base media (AVIF, JP2): the boxes end where the file does, and hold the coded image."""
    position, kinds = 0, set()
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        kinds.add(kind)
        if length == 1 and position + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length == 0:  # to the end of the file; a codestream ends with its EOC marker
            return kind != b"jp2c" or data.endswith(b"\xff\xd9")
        position += max(length, 8)
    return position == len(data) and not kinds.isdisjoint({b"mdat", b"jp2c"})


def _whole_jpeg2000(data: bytes) -> bool:
    return data.endswith(b"\xff\xd9") if data[:2] == b"\xff\x4f" else _whole_boxes(data)


def _whole_ico(data: bytes) -> bool:
    if len(data) < 6:
        return False
    count = int.from_bytes(data[4:6], "little")
    if len(data) < 6 + 16 * count:
        return False
    return all(sum(struct.unpack_from("<II", data, 14 + 16 * entry)) <= len(data) for entry in range(count))


# Format → whether the file is all there; asked only when Pillow can't read it. Others are taken for whole.
WHOLE: Mapping[str, Callable[[bytes], bool]] = {
    "PNG": _whole_png,
    "GIF": lambda data: data.rstrip(b"\0").endswith(b";"),
    "WEBP": lambda data: 8 + int.from_bytes(data[4:8], "little") <= len(data),
    "AVIF": _whole_boxes,
    "JPEG2000": _whole_jpeg2000,
    "ICO": _whole_ico,
    "CUR": _whole_ico,
    "ICNS": lambda data: int.from_bytes(data[4:8], "big") <= len(data),
    "BMP": lambda data: len(data) >= 14 and int.from_bytes(data[10:14], "little") < len(data),
}

"""Reads the first directory of a TIFF (TIFF 6.0; BigTIFF) and checks every offset before use."""

from __future__ import annotations

import struct
from typing import NamedTuple

from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.decoding.readers.binary import part, unpack
from beamlabel.transforms.records import Reason

_DIRECTORY = "the TIFF's directory"
# Bytes per value of each type: BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, SSHORT, SLONG, SRATIONAL, FLOAT,
# DOUBLE, IFD; in BigTIFF also LONG8, SLONG8, IFD8.
_SIZES = dict(zip((*range(1, 14), 16, 17, 18), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 8, 8, 8), strict=True))
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_BYTES = (1, 2, 6, 7)

_SUBFILE, _JPEG_TABLES, _DNG_VERSION = 254, 347, 50706
# Tags that pixels depend on: a value of another type is an error, not a default.
_NEEDED = frozenset(
    (
        *(254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323),
        *(324, 325, 332, 338, 339, 530),
    )
)


# Other tags to read. Further values are skipped: in a hostile file they may overlap and add up to terabytes.
_ALSO = frozenset((_JPEG_TABLES, 34675, _DNG_VERSION))


class TiffTags(NamedTuple):
    """The part of a directory that is used here.

    Attributes:
      order: ``<`` or ``>``, the byte order.
      big: whether it is a BigTIFF.
      numbers: whole numbers by tag.
      blocks: bytes by tag, for tags whose values are bytes.
    """

    order: str
    big: bool
    numbers: dict[int, tuple[int, ...]]
    blocks: dict[int, bytes]

    def one(self, tag: int, default: int) -> int:
        """The first number of a tag, or ``default``."""
        values = self.numbers.get(tag)
        return values[0] if values else default


def read_tags(data: bytes) -> TiffTags:
    """Reads the first directory.

    Raises:
      ImageError: ``truncated`` if the directory or a tag that pixels depend on lies beyond the end;
        ``corrupt`` if a tag has an impossible value; ``unsupported_format`` for previews of camera files and masks.
    """
    order = "<" if data[:2] == b"II" else ">"
    (version,) = unpack(order + "H", data, 2, "the TIFF's header")
    big = version == 43
    if big:
        size, zero, directory = unpack(order + "HHQ", data, 4, "the TIFF's header")
        if (size, zero) != (8, 0):
            raise refusal(Reason.CORRUPT, f"the BigTIFF has offsets of {size} bytes")
    else:
        (directory,) = unpack(order + "I", data, 4, "the TIFF's header")
    (entries,) = unpack(order + ("Q" if big else "H"), data, directory, _DIRECTORY)
    layout, start = (order + "HHQ", directory + 8) if big else (order + "HHI", directory + 2)
    room, stride = (8, 20) if big else (4, 12)
    if start + stride * entries > len(data):
        raise refusal(Reason.TRUNCATED, f"the file ends within {_DIRECTORY}")
    tags = TiffTags(order, big, {}, {})
    for entry in range(start, start + stride * entries, stride):
        tag, kind, count = struct.unpack_from(layout, data, entry)
        if tag in _NEEDED or tag in _ALSO:
            _read(data, tags, tag, kind, count, entry + stride - room, room)
    if tags.one(_SUBFILE, 0) & 5 or _DNG_VERSION in tags.blocks:
        raise refusal(
            Reason.UNSUPPORTED_FORMAT, "the TIFF's first picture is a preview or a mask (a camera's file)"
        )
    return tags


def _read(data: bytes, tags: TiffTags, tag: int, kind: int, count: int, place: int, room: int) -> None:
    size = count * _SIZES.get(kind, 0)
    if size > room:
        (place,) = struct.unpack_from(tags.order + ("Q" if room == 8 else "I"), data, place)
    if place + size > len(data):
        if tag in _NEEDED or tag == _JPEG_TABLES:
            raise refusal(Reason.TRUNCATED, f"the TIFF's tag {tag} lies beyond the end of the file")
        return
    if kind in _WHOLE_NUMBERS and tag in _NEEDED:
        if tag not in tags.numbers:
            values = part(data, place, size, f"tag {tag}")
            tags.numbers[tag] = struct.unpack(f"{tags.order}{count}{_WHOLE_NUMBERS[kind]}", values)
    elif tag in _NEEDED:
        raise refusal(Reason.CORRUPT, f"the TIFF's tag {tag} has type {kind}, which holds no whole numbers")
    if kind in _BYTES and tag not in tags.blocks:
        tags.blocks[tag] = data[place : place + size]

"""Reads the only EXIF value that pixels depend on: the orientation."""

from __future__ import annotations

import struct

_PREFIX = b"Exif\0\0"
# TIFF's headers, and variants that some writers produce: order and version may have different byte orders.
_HEADERS = {b"MM\0*": ">", b"MM*\0": ">", b"MM\0+": ">", b"II*\0": "<", b"II\0*": "<"}
_ORIENTATION = 0x0112
# Bytes per value of each type (TIFF 6.0, and BigTIFF's 16), and the formats of whole numbers. BYTE is missing, since no
# writer stores the orientation as one.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_NUMBERS = {3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q"}


def exif_orientation(block: bytes) -> int:
    """EXIF orientation, 1..8, of a block with or without ``Exif\\0\\0``; 1 if it cannot be read.

    Reads the directory's entries and no other value: the values of a hostile block may overlap and add up to
    gigabytes. An entry whose value lies beyond the end is the last one that counts.
    """
    base = 0
    while block.startswith(_PREFIX, base):
        base += len(_PREFIX)
    order = _HEADERS.get(block[base : base + 4])
    if order is None or len(block) < base + 8:
        return 1
    (directory,) = struct.unpack_from(order + "I", block, base + 4)
    start = base + directory
    if start + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(order + "H", block, start)
    entries = block[start + 2 : start + 2 + 12 * count]
    found: int | None = None
    for tag, kind, values, place in struct.iter_unpack(order + "HHI4s", entries[: len(entries) // 12 * 12]):
        size = values * _SIZES.get(kind, 0)
        value = place
        if size > 4:
            (offset,) = struct.unpack(order + "I", place)
            if base + offset + size > len(block):
                break
            value = block[base + offset : base + offset + 8]
        if tag == _ORIENTATION and size:
            number = _NUMBERS.get(kind)
            found = None if number is None else struct.unpack_from(order + number, value)[0]
    return found if found is not None and 1 <= found <= 8 else 1

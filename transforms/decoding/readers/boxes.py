"""Walks boxes of ISO base media files (ISO/IEC 14496-12), as used in AVIF and JP2."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def boxes(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box; the last may end beyond ``stop``."""
    position = start
    while position + 8 <= stop:
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1 and position + 16 <= stop:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        end = stop if length == 0 else position + max(length, head)
        yield kind, position + head, end
        position = end


def is_whole(data: bytes) -> bool:
    """Whether the boxes end with the file and hold the coded image."""
    kinds, end = set(), 0
    for kind, start, end in boxes(data, 0, len(data)):
        kinds.add(kind)
        if kind == b"jp2c" and end == len(data) and start + 2 <= end:
            # The box extends to the end of the file, so check the codestream's EOC marker instead.
            return data.endswith(b"\xff\xd9")
    return end == len(data) and not kinds.isdisjoint({b"mdat", b"jp2c"})

"""The lengths of a page's values in the encoding ``DELTA_BYTE_ARRAY``.

In it, a value may repeat all of the previous one. A page of a megabyte may therefore hold a million values of a
megabyte. Its numbers come before its bytes: the repeated length of each value, then the length of its own bytes, both
as ``DELTA_BINARY_PACKED``. This module adds them up, in no more memory than the page takes.

The format: https://github.com/apache/parquet-format/blob/master/Encodings.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beamlabel.transforms.inputs.parquet.page_index import CompactReader

_MOST_BITS = 64
# pyarrow's own limit is the page's size; all writers use blocks of 128 values.
_MOST_MINIBLOCKS = 1 << 16


class Lengths(NamedTuple):
    """The bytes of a page's values: of all, and an upper bound for the longest."""

    total: int
    longest: int


class _Numbers(NamedTuple):
    """The count, sum, maximum and end of a sequence of numbers."""

    values: int
    total: int
    largest: int
    end: int


def delta_lengths(data: bytes, most: int) -> Lengths:
    """The lengths of the values.

    Args:
      data: the values of a page, unpacked and without its levels.
      most: the largest number of values.

    Raises:
      ValueError: they are damaged.
    """
    repeated = _numbers(data, 0, most)
    own = _numbers(data, repeated.end, most)
    if repeated.values != own.values:
        raise ValueError("a page of DELTA_BYTE_ARRAY has two different numbers of values")
    return Lengths(repeated.total + own.total, repeated.largest + own.largest)


def _numbers(data: bytes, at: int, most: int) -> _Numbers:
    reader = CompactReader(data[at:])
    try:
        block, minis, count = reader.varint(), reader.varint(), reader.varint()
        value = reader.integer()
        if count > most or not 0 < minis <= _MOST_MINIBLOCKS or block % minis or not block:
            raise ValueError("damaged numbers of a page of DELTA_BYTE_ARRAY")
        total = largest = value if count else 0
        left, size = max(count - 1, 0), block // minis
        while left > 0:
            least, widths = reader.integer(), reader.bytes(minis)
            for width in widths:
                if left <= 0:
                    break
                there = min(size, left)
                left -= there
                value, added, top = _miniblock(reader, width, size, there, value, least)
                total, largest = total + added, max(largest, top)
    except IndexError:
        raise ValueError("the numbers of a page of DELTA_BYTE_ARRAY end too early") from None
    if largest < 0 or total < 0:
        raise ValueError("negative lengths in a page of DELTA_BYTE_ARRAY")
    return _Numbers(count, total, largest, at + reader.at)


def _miniblock(
    reader: CompactReader, width: int, size: int, count: int, value: int, least: int
) -> tuple[int, int, int]:
    """The last value of a miniblock of ``size`` differences, of which ``count`` are used; their sum; the largest."""
    if not width:  # any number of them takes no bytes
        last = value + count * least
        return last, count * value + least * count * (count + 1) // 2, max(value + least, last)
    if width > _MOST_BITS or size % 8:
        raise ValueError("damaged numbers of a page of DELTA_BYTE_ARRAY")
    packed = np.frombuffer(reader.bytes(size * width // 8), np.uint8)
    bits = np.unpackbits(packed, bitorder="little")[: count * width].reshape(count, width)
    # In floats: inexact values are far beyond any length.
    steps = bits @ np.exp2(np.arange(width)) + least
    values = value + np.cumsum(steps)
    return int(values[-1]), int(values.sum()), int(values.max())

"""Reads numbers and ranges from bytes that may end anywhere, and scales samples to 8 bits."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.records import Reason


def unpack(layout: str, data: bytes, offset: int, what: str) -> tuple[Any, ...]:
    """``struct.unpack_from`` with an offset that may come from the file.

    Raises:
      ImageError: ``truncated`` if the data end too early; ``what`` names the missing part.
    """
    if offset + struct.calcsize(layout) > len(data):
        raise refusal(Reason.TRUNCATED, f"the file ends within {what}")
    return struct.unpack_from(layout, data, offset)


def part(data: bytes, offset: int, length: int, what: str) -> bytes:
    """``length`` bytes at ``offset``; raises ``ImageError`` (``truncated``) if the data end too early."""
    if offset + length > len(data):
        raise refusal(Reason.TRUNCATED, f"the file ends within {what}")
    return data[offset : offset + length]


def unpack_bits(rows: np.ndarray, bits: int, columns: int) -> np.ndarray:
    """Unpacks uint8[H, bytes] of samples of 1, 2 or 4 bits, the first in the highest bits, to uint8[H, columns]."""
    if bits == 8:
        return rows[:, :columns]
    if bits == 1:
        return np.unpackbits(rows, axis=1, count=columns)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    return ((rows[:, :, np.newaxis] >> shifts) & ((1 << bits) - 1)).reshape(len(rows), -1)[:, :columns]


def look_up(indices: np.ndarray, palette: np.ndarray, what: str) -> np.ndarray:
    """Maps indices uint8[H, W] through a palette uint8[N, 3] to uint8[H, W, 3].

    Raises:
      ImageError: ``corrupt`` if an index has no color.
    """
    if indices.size and int(indices.max()) >= len(palette):
        raise refusal(
            Reason.CORRUPT, f"{what}: color {int(indices.max())} is outside the palette of {len(palette)}"
        )
    return palette[indices]

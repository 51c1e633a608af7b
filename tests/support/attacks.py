"""Small files that cost a decoder much time or memory; they are generated, not stored."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

from support.images import png_chunk

START, END = b"\xff\xd8", b"\xff\xd9"


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def scan(components: Sequence[int], first: int, last: int, high: int, low: int, data: bytes) -> bytes:
    """A scan of a progressive JPEG (ITU-T T.81, B.2.3)."""
    named = b"".join(bytes((component, 0)) for component in components)
    return segment(0xDA, bytes((len(components),)) + named + bytes((first, last, high << 4 | low))) + data


def frame(width: int, height: int, marker: int = 0xC2, components: int = 1) -> bytes:
    """Everything before the scans; in the tables' codes, a bit 0 is a DC of 0 or a run of 2^14 empty blocks."""
    named = b"".join(bytes((1 + number, 0x11, 0)) for number in range(components))
    huffman = b"".join(
        segment(0xC4, bytes((kind, *counts, *(0,) * (16 - len(counts)))) + values)
        for kind, counts, values in ((0, (1,), b"\0"), (0x10, (1, 1), b"\xe0\0"))
    )
    return b"".join(
        (
            START,
            segment(0xDB, b"\0" + bytes([1] * 64)),
            segment(marker, struct.pack(">BHHB", 8, height, width, components) + named),
            huffman,
        )
    )


def packed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def empty_blocks(width: int, height: int) -> bytes:
    """Entropy-coded data of a scan of one component without coefficients."""
    left, bits = -(-width // 8) * -(-height // 8), ""
    while left >= 1 << 14:
        run = min(left, (1 << 15) - 1)
        bits, left = bits + "0" + format(run - (1 << 14), "014b"), left - run
    return packed(bits + "10" * left)


def jpeg(width: int, height: int, scans: int, between: bytes = b"") -> bytes:
    """A gray progressive JPEG with this number of scans, all but the first empty, and ``between`` after each scan."""
    blocks = -(-width // 8) * -(-height // 8)
    empty = scan((1,), 1, 63, 0, 0, empty_blocks(width, height))
    first = scan((1,), 0, 0, 0, 0, packed("0" * blocks))
    return b"".join((frame(width, height), first, between, (empty + between) * (scans - 1), END))


def refined_jpeg(width: int, height: int) -> bytes:
    """A valid progressive JPEG of 3 components whose 42 scans cover all coefficients and contain none."""
    blocks, empty = -(-width // 8) * -(-height // 8), empty_blocks(width, height)
    scans = [scan((1, 2, 3), 0, 0, 0, 0, packed("0" * 3 * blocks))]
    scans += [scan((one,), 1, 63, 0, 13, empty) for one in (1, 2, 3)]
    scans += [scan((one,), 1, 63, high, high - 1, empty) for high in range(13, 0, -1) for one in (1, 2, 3)]
    return b"".join((frame(width, height, components=3), *scans, END))


def endlessly_refined_jpeg(width: int, height: int) -> bytes:
    """A valid progressive JPEG of 3 components in 463 scans, each of which covers some coefficients of all blocks.

    Each band of six coefficients is sent as its highest bit, then bit by bit. All coefficients are zero.
    """
    blocks, empty = -(-width // 8) * -(-height // 8), empty_blocks(width, height)
    scans = [scan((1, 2, 3), 0, 0, 0, 0, packed("0" * 3 * blocks))]
    for first in range(1, 64, 6):
        for high in (0, *range(13, 0, -1)):
            last, low = min(first + 5, 63), (high or 14) - 1
            scans += [scan((one,), first, last, high, low, empty) for one in (1, 2, 3)]
    return b"".join((frame(width, height, components=3), *scans, END))


def arithmetic_jpeg(width: int, height: int) -> bytes:
    """A JPEG of 3 components whose arithmetic decoder never ends after a few zero bytes."""
    named = b"".join(bytes((component, 0)) for component in (1, 2, 3))
    return frame(width, height, 0xC9, 3) + segment(0xDA, b"\3" + named + b"\0\x3f\0") + bytes(64) + END


def png(
    width: int, height: int, depth: int, colour: int, *chunks: bytes, between: Iterable[bytes] = ()
) -> bytes:
    """A PNG of zeros; if it has many pixels, the last of them are missing."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = 1 + -(-width * channels * depth // 8)
    pixels = zlib.compress(bytes(min(row * height, 1 << 20)))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    parts = (header, *chunks, *between, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def heaped_directory(entries: int, kind: int, count: int, body: bytes, tags: Sequence[int] = ()) -> bytes:
    """A little-endian TIFF or EXIF directory whose entries all share the same ``count`` values."""
    place = 8 + 2 + 12 * entries + 4
    numbers = tags or range(40_000, 40_000 + entries)
    heap = b"".join(struct.pack("<HHII", tag, kind, count, place) for tag in numbers)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + heap + bytes(4) + body

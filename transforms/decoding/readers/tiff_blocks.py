"""Assembles the strips and tiles of a TIFF to samples.

zlib and Pillow's libtiff unpack the bytes; libtiff sees each block as gray rows of bytes. This module interprets the
bytes (order, depth, predictor, planes, tiles), in the same way for every compression.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from beamlabel.transforms.decoding.picture.jpeg_header import read_header
from beamlabel.transforms.decoding.picture.options import check_pixels, refusal
from beamlabel.transforms.decoding.readers.binary import part, unpack_bits
from beamlabel.transforms.decoding.readers.tiff_tags import TiffTags
from beamlabel.transforms.records import Reason

_STRIP_OFFSETS, _ROWS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 278, 279, 324, 325
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_BY_LIBTIFF = {"lzw": 5, "packbits": 32773, "lzma": 34925, "zstd": 50000}
# Number of bytes unpacked at a time; a single larger strip is unpacked whole.
_AT_A_TIME = 32 << 20
# By how much the tiles may exceed the picture that they hold.
_WASTE, _WASTE_BYTES = 8, 1 << 22


class Layout(NamedTuple):
    """How samples are laid out in the file.

    Attributes:
      width, height: pixels.
      samples: samples per pixel.
      bits: bits per sample: 1, 2, 4, 8, 12 or 16.
      planes: whether the samples of a pixel are stored in separate planes.
      compression: ``plain``, ``deflate``, ``lzw``, ``packbits``, ``lzma`` or ``zstd``.
      predictor: whether each sample is stored as its difference from the pixel before.
    """

    width: int
    height: int
    samples: int
    bits: int
    planes: bool
    compression: str
    predictor: bool


def read_samples(data: bytes, tags: TiffTags, layout: Layout) -> np.ndarray:
    """The samples as stored, uint8 or uint16 [H, W, samples].

    Raises:
      ImageError: ``truncated`` or ``corrupt``.
    """
    tiled = _TILE_WIDTH in tags.numbers
    if tiled:
        across, down = tags.one(_TILE_WIDTH, 0), tags.one(_TILE_HEIGHT, 0)
    else:
        across, down = layout.width, min(tags.one(_ROWS, layout.height), layout.height)
    if across < 1 or down < 1:
        raise refusal(Reason.CORRUPT, f"the TIFF has blocks of an invalid size of {across}×{down} pixels")
    columns, rows = -(-layout.width // across), -(-layout.height // down)
    together = 1 if layout.planes else layout.samples  # samples of a pixel that are stored together
    row_bytes = -(-across * together * layout.bits // 8)
    in_memory = columns * rows * down * row_bytes
    if in_memory > _WASTE * layout.width * layout.height * max(together, 1) * 2 + _WASTE_BYTES:
        raise refusal(
            Reason.UNSUPPORTED_FORMAT, f"the TIFF's tiles of {across}×{down} pixels far exceed the picture"
        )
    planes = layout.samples if layout.planes else 1
    blocks = _Blocks(data, tags, tiled, columns * rows * planes)
    result = np.empty(
        (layout.height, layout.width, layout.samples), np.uint8 if layout.bits <= 8 else np.uint16
    )
    at_a_time = max(1, _AT_A_TIME // (down * row_bytes))
    for plane in range(planes):
        target = result[:, :, plane : plane + 1] if layout.planes else result
        first = plane * columns * rows
        for start in range(0, columns * rows, at_a_time):
            count = min(at_a_time, columns * rows - start)
            # The last strip holds the remaining rows; tiles are always full.
            lines = count * down
            if not tiled:
                lines = min(lines, layout.height - start * down)
            raw = blocks.unpack(first + start, count, down, lines, row_bytes, layout.compression)
            values = _values(raw, layout, tags.order, across, together)
            for number in range(count):
                row, column = divmod(start + number, columns)
                top, left = row * down, column * across
                area = target[top : top + down, left : left + across]
                lines_at = number * down
                area[...] = values[lines_at : lines_at + area.shape[0], : area.shape[1]]
    return result


def _values(raw: np.ndarray, layout: Layout, order: str, across: int, together: int) -> np.ndarray:
    """Converts uint8[rows, bytes] to [rows, across, together]."""
    count = across * together
    values: np.ndarray
    if layout.bits == 16:
        values = raw.reshape(-1).view(order + "u2").reshape(len(raw), count).astype(np.uint16)
    elif layout.bits == 12:
        values = _unpack_12(raw, count)
    else:
        values = unpack_bits(raw, layout.bits, count)
    pixels = values.reshape(len(raw), across, together)
    return np.cumsum(pixels, axis=1, dtype=pixels.dtype) if layout.predictor else pixels


def _unpack_12(raw: np.ndarray, count: int) -> np.ndarray:
    """Unpacks two samples from three bytes, for both byte orders; each row begins with a new byte."""
    padded = np.zeros((len(raw), -(-count // 2) * 3), np.uint16)
    padded[:, : raw.shape[1]] = raw
    first, second, third = padded[:, 0::3], padded[:, 1::3], padded[:, 2::3]
    pairs = np.stack((first << 4 | second >> 4, (second & 15) << 8 | third), axis=2)
    return pairs.reshape(len(raw), -1)[:, :count]


class _Blocks:
    """The encoded strips or tiles of a file."""

    def __init__(self, data: bytes, tags: TiffTags, tiled: bool, needed: int) -> None:
        offsets = tags.numbers.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS)
        counts = tags.numbers.get(_TILE_COUNTS if tiled else _STRIP_COUNTS)
        if offsets is None and tiled:  # some writers use the strips' tags for tiles
            offsets, counts = tags.numbers.get(_STRIP_OFFSETS), tags.numbers.get(_STRIP_COUNTS)
        if offsets is None or len(offsets) < needed:
            raise refusal(Reason.CORRUPT, f"the TIFF has {len(offsets or ())} blocks but needs {needed}")
        self._data = data
        self._offsets = offsets
        self._counts = counts if counts is not None and len(counts) >= needed else None

    def unpack(
        self, first: int, count: int, down: int, lines: int, row_bytes: int, compression: str
    ) -> np.ndarray:
        """Unpacks ``count`` blocks of ``down`` rows (the last may have fewer), stacked: uint8[lines, row_bytes]."""
        sizes = [min(down, lines - number * down) * row_bytes for number in range(count)]
        if compression == "plain":
            wanted = zip(self._offsets[first : first + count], sizes, strict=True)
            plain = [part(self._data, offset, size, "its image data") for offset, size in wanted]
            return np.frombuffer(b"".join(plain), np.uint8).reshape(lines, row_bytes)
        encoded = self.encoded(first, count)
        if compression == "deflate":
            unpacked = b"".join(_inflate(block, size) for block, size in zip(encoded, sizes, strict=True))
            return np.frombuffer(unpacked, np.uint8).reshape(lines, row_bytes)
        return _with_libtiff(encoded, down, lines, row_bytes, _BY_LIBTIFF[compression])

    def encoded(self, first: int, count: int) -> list[bytes]:
        """The blocks as stored in the file."""
        if self._counts is None:
            raise refusal(Reason.CORRUPT, "the compressed TIFF does not state the lengths of its blocks")
        return [
            part(self._data, self._offsets[number], self._counts[number], "its image data")
            for number in range(first, first + count)
        ]


def _inflate(block: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        result = inflater.decompress(block, size)
        if len(result) == size and not inflater.eof:
            inflater.decompress(inflater.unconsumed_tail, 1)  # reads on to verify the checksum
    except zlib.error as error:
        raise refusal(Reason.CORRUPT, f"TIFF: {error}") from error
    if len(result) < size:
        raise refusal(Reason.TRUNCATED, f"a block of the TIFF has {len(result)} bytes but needs {size}")
    return result


def _with_libtiff(blocks: list[bytes], down: int, lines: int, row_bytes: int, compression: int) -> np.ndarray:
    """Unpacks blocks as the strips of a gray TIFF of ``lines`` rows of ``row_bytes`` pixels."""
    numbers = {256: (row_bytes,), 257: (lines,), 258: (8,), 259: (compression,), 262: (1,), 277: (1,)}
    image = TiffImageFile(io.BytesIO(_written({**numbers, _ROWS: (down,)}, {}, blocks, _STRIP_OFFSETS)))
    image.load()
    return np.asarray(image)


# The tags that libtiff needs for fax pages and JPEGs: size, depth, coding, colors, bit order, samples, rows, planes,
# fax options, tiles, JPEG's subsampling and white. The orientation is missing, since Pillow would turn the picture.
_COPIED = (256, 257, 258, 259, 262, 266, 277, _ROWS, 284, 292, 293, _TILE_WIDTH, _TILE_HEIGHT, 530)
_JPEG_TABLES, _JPEG = 347, 7


def with_blocks_as_they_are(data: bytes, tags: TiffTags, max_pixels: int) -> TiffImageFile:
    """Repackages the picture as a small little-endian TIFF for libtiff to decode.

    Raises:
      ImageError: ``truncated`` or ``corrupt``; ``too_many_pixels`` if a JPEG in it claims more than ``max_pixels``.
    """
    tiled = _TILE_WIDTH in tags.numbers
    width, height = tags.one(256, 1), tags.one(257, 1)
    if tiled:
        needed = -(-width // max(tags.one(_TILE_WIDTH, 0), 1)) * -(
            -height // max(tags.one(_TILE_HEIGHT, 0), 1)
        )
    else:
        needed = -(-height // max(min(tags.one(_ROWS, height), height), 1))
    blocks = _Blocks(data, tags, tiled, needed).encoded(0, needed)
    if tags.one(259, 1) == _JPEG:
        for block in blocks:
            frame = read_header(block)
            check_pixels(frame.width, frame.height, max_pixels)
    numbers = {tag: tags.numbers[tag] for tag in _COPIED if tag in tags.numbers}
    tables = {tag: tags.blocks[tag] for tag in (_JPEG_TABLES,) if tag in tags.blocks}
    return TiffImageFile(
        io.BytesIO(_written(numbers, tables, blocks, _TILE_OFFSETS if tiled else _STRIP_OFFSETS))
    )


def _written(
    numbers: dict[int, tuple[int, ...]], tables: dict[int, bytes], blocks: list[bytes], offsets_tag: int
) -> bytes:
    """A little-endian TIFF: its directory, long values, then the blocks."""
    counts_tag = {_STRIP_OFFSETS: _STRIP_COUNTS, _TILE_OFFSETS: _TILE_COUNTS}[offsets_tag]
    start = 8 + 2 + 12 * (len(numbers) + len(tables) + 2) + 4
    place = start + sum(4 * len(values) for values in numbers.values() if len(values) > 1)
    place += sum(len(table) for table in tables.values()) + (8 * len(blocks) if len(blocks) > 1 else 0)
    offsets = []
    for block in blocks:
        offsets.append(place)
        place += len(block)
    values = {**numbers, offsets_tag: tuple(offsets), counts_tag: tuple(map(len, blocks))}
    packed = {tag: (4, len(parts), struct.pack(f"<{len(parts)}I", *parts)) for tag, parts in values.items()}
    packed |= {tag: (7, len(table), table) for tag, table in tables.items()}
    directory, after = b"", b""
    for tag, (kind, count, content) in sorted(packed.items()):
        if kind == 7 or count > 1:
            directory += struct.pack("<HHII", tag, kind, count, start + len(after))
            after += content
        else:
            directory += struct.pack("<HHI", tag, kind, count) + content
    return b"".join((b"II*\0\x08\0\0\0", struct.pack("<H", len(packed)), directory, bytes(4), after, *blocks))

"""TGA, SGI, Sun raster, PCX, DDS and QOI: most are written by hand; read by ImageMagick, FFmpeg and netpbm."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import product

import imagecodecs
import numpy as np
from PIL import Image

from tools.corpus.entry import (
    HEIGHT,
    WIDTH,
    Entry,
    alpha,
    deep,
    ffmpeg,
    gray,
    magick,
    netpbm,
    on_white,
    palette,
    photo,
    saved,
)


def entries() -> Iterator[Entry]:
    """Yields all entries of these formats."""
    yield from _tgas()
    yield from _sgis()
    yield from _suns()
    yield from _pcxs()
    yield from _ddss()
    yield from _qois()


def _tga_runs(pixels: list[bytes]) -> bytes:
    """Encodes a row in packets of at most 5 raw pixels and packets of repeated pixels."""
    body, at = b"", 0
    while at < len(pixels):
        same = 1
        while same < 100 and at + same < len(pixels) and pixels[at + same] == pixels[at]:
            same += 1
        if same > 1:
            body, at = body + bytes((0x80 | same - 1,)) + pixels[at], at + same
        else:
            part = pixels[at : at + 5]
            body, at = body + bytes((len(part) - 1,)) + b"".join(part), at + len(part)
    return body


def _tgas() -> Iterator[Entry]:
    table = palette(4)
    five = (photo() >> 3).astype(np.uint16)
    kinds = {
        "palette 8 bit of 24 bit": (1, 8, 0, gray()[..., np.newaxis]),
        "colour 16 bit": (
            2,
            16,
            0,
            (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2])
            .astype("<u2")[..., np.newaxis]
            .view(np.uint8),
        ),
        "colour 24 bit": (2, 24, 0, photo()[..., ::-1]),
        "colour 32 bit + 8 bit alpha": (2, 32, 8, np.dstack((photo()[..., ::-1], alpha()))),
        "gray 8 bit": (3, 8, 0, gray()[..., np.newaxis]),
    }
    for (name, (kind, bits, opacity, values)), runs, top in product(
        kinds.items(), (False, True), (False, True)
    ):
        rows = values if top else values[::-1]
        mapped = kind == 1
        head = struct.pack(
            "<BBBHHBHHHHBB",
            0,
            mapped,
            kind + 8 * runs,
            0,
            256 * mapped,
            24 * mapped,
            0,
            0,
            WIDTH,
            HEIGHT,
            bits,
            opacity | 0x20 * top,
        )
        lines = [[pixel.tobytes() for pixel in row] for row in rows.reshape(HEIGHT, WIDTH, bits // 8)]
        data = (
            head
            + (table[:, ::-1].tobytes() if mapped else b"")
            + b"".join(_tga_runs(line) if runs else b"".join(line) for line in lines)
        )
        corner = "top left" if top else "bottom left"
        # FFmpeg leaves the lower bits of 5-bit colors empty.
        read, reader = (netpbm("tgatoppm", data), "netpbm") if bits == 16 else (ffmpeg(data, "tga"), "FFmpeg")
        yield Entry(f"tga {name}, {'run lengths' if runs else 'plain'}, {corner}", data, read, reader, 1)


def _sgi_runs(row: bytes) -> bytes:
    parts = [row[at : at + 60] for at in range(0, len(row), 60)]
    return b"".join(bytes((0x80 | len(part),)) + part for part in parts) + b"\0"


def _sgis() -> Iterator[Entry]:
    for channels, size, runs in product((1, 3, 4), (1, 2), (False, True)):
        values = {1: gray()[..., np.newaxis], 3: photo(), 4: np.dstack((photo(), alpha()))}[channels]
        values = deep(values) if size == 2 else values
        head = struct.pack(
            ">HBBHHHHII4x80sI",
            474,
            runs,
            size,
            2 if channels == 1 else 3,
            WIDTH,
            HEIGHT,
            channels,
            0,
            255,
            b"",
            0,
        ).ljust(512, b"\0")
        rows = [
            values[::-1][y, :, c].astype(f">u{size}").tobytes()
            for c in range(channels)
            for y in range(HEIGHT)
        ]
        if runs and size == 2:
            coded = [_sgi_runs_16(row) for row in rows]
        elif runs:
            coded = [_sgi_runs(row) for row in rows]
        else:
            coded = rows
        tables = b""
        if runs:
            starts = np.cumsum([0, *map(len, coded)])[:-1] + 512 + 8 * len(coded)
            tables = struct.pack(f">{len(coded)}I", *starts) + struct.pack(
                f">{len(coded)}I", *map(len, coded)
            )
        data = head + tables + b"".join(coded)
        name = f"sgi {channels} channels of {8 * size} bit, {'run lengths' if runs else 'plain'}"
        yield Entry(name, data, magick(data, "sgi"), "ImageMagick", 2)


def _sgi_runs_16(row: bytes) -> bytes:
    values = [row[at : at + 2] for at in range(0, len(row), 2)]
    parts = [values[at : at + 60] for at in range(0, len(values), 60)]
    return b"".join(struct.pack(">H", 0x80 | len(part)) + b"".join(part) for part in parts) + b"\0\0"


def _suns() -> Iterator[Entry]:
    table = palette(5)
    bits = np.packbits(gray() < 110, axis=1)
    kinds = {
        "1 bit": (1, bits, b""), "8 bit": (8, gray(), b""), "8 bit palette": (8, gray(), table.T.tobytes()),
        "24 bit": (24, photo()[..., ::-1].reshape(HEIGHT, -1), b""),
    }  # fmt: skip
    for (name, (depth, rows, colours)), (number, coding) in product(
        kinds.items(), enumerate(("old", "plain"))
    ):
        body = b"".join(row.tobytes() + bytes(row.size % 2) for row in rows)
        head = struct.pack(
            ">8I", 0x59A66A95, WIDTH, HEIGHT, depth, len(body), number, 1 if colours else 0, len(colours)
        )
        data = head + colours + body
        yield Entry(f"sun {name}, {coding}", data, ffmpeg(data, "sun", "rgb24"), "FFmpeg")


def _pcx_runs(row: bytes) -> bytes:
    body, at = b"", 0
    while at < len(row):
        same = 1
        while same < 63 and at + same < len(row) and row[at + same] == row[at]:
            same += 1
        single = same == 1 and row[at] < 0xC0
        body, at = body + (row[at : at + 1] if single else bytes((0xC0 | same, row[at]))), at + same
    return body


def _pcxs() -> Iterator[Entry]:
    table = palette(6)
    low = gray() >> 4
    planes_16 = np.stack([np.packbits(low >> bit & 1, axis=1) for bit in range(4)], axis=1)
    kinds = {
        "4 planes of 1 bit": (1, 4, planes_16, None),
        "1 planes of 8 bit palette": (8, 1, gray()[:, np.newaxis], table),
        "3 planes of 8 bit": (8, 3, np.moveaxis(photo(), 2, 1), None),
    }
    for name, (bits, planes, rows, colours) in kinds.items():
        stride = rows.shape[2] + rows.shape[2] % 2
        first = table[:16].tobytes() if planes == 4 else b"\0\0\0\xff\xff\xff".ljust(48, b"\0")
        head = struct.pack(
            "<BBBBHHHHHH48sBBHH",
            10,
            5,
            1,
            bits,
            0,
            0,
            WIDTH - 1,
            HEIGHT - 1,
            72,
            72,
            first,
            0,
            planes,
            stride,
            1,
        ).ljust(128, b"\0")
        body = b"".join(
            _pcx_runs(b"".join(plane.tobytes().ljust(stride, b"\0") for plane in row)) for row in rows
        )
        data = head + body + (b"\x0c" + colours.tobytes() if colours is not None else b"")
        yield Entry(f"pcx version 5, {name}", data, netpbm("pcxtoppm", data), "netpbm")
    # A palette of all grays in order, which Pillow reads as gray.
    data = saved(Image.fromarray(gray()), "PCX")
    yield Entry("pcx version 5, 1 planes of 8 bit palette", data, magick(data, "pcx"), "ImageMagick")


def _dds_header(flags: int, code: bytes, bits: int, masks: tuple[int, ...], pitch: int) -> bytes:
    head = struct.pack("<4s7I44x", b"DDS ", 124, 0x1007, 16, 24, pitch, 0, 0)
    return (
        head + struct.pack("<2I4s5I", 32, flags, code, bits, *masks) + struct.pack("<5I", 0x1000, 0, 0, 0, 0)
    )


def _ddss() -> Iterator[Entry]:
    """24 × 16 pixels: whole blocks of 4 × 4."""
    colours, opacity = photo(24, 16), alpha(24, 16)
    clear = np.dstack((colours, opacity))
    numbers = {"DXT1": 71, "DXT3": 74, "DXT5": 77}
    for code, bc in (("DXT1", "BC1"), ("DXT3", "BC2"), ("DXT5", "BC3")):
        data = saved(Image.fromarray(colours if code == "DXT1" else clear), "DDS", pixel_format=code)
        read = magick(data, "dds")
        yield Entry(f"dds {code}", data, read, "ImageMagick", 2)
        blocks = data[128:]
        ten = (
            _dds_header(4, b"DX10", 0, (0, 0, 0, 0), 0)
            + struct.pack("<5I", numbers[code], 3, 0, 1, 0)
            + blocks
        )
        yield Entry(f"dds DX10 {bc}", ten, read, "ImageMagick", 2)
    # BC7 blocks in mode 6 (one set of endpoints, 4 bits an index) with random bits.
    random = np.random.default_rng(7)
    blocks = b"".join(
        bytes((0x40 | int(random.integers(0, 2)) << 7, *random.integers(0, 256, 15).tolist()))
        for _ in range(24)
    )
    data = _dds_header(4, b"DX10", 0, (0, 0, 0, 0), 0) + struct.pack("<5I", 98, 3, 0, 1, 0) + blocks
    read = imagecodecs.bcn_decode(blocks, 7, shape=(16, 24, 4))
    yield Entry("dds DX10 BC7", data, on_white(read[..., :3], read[..., 3]), "imagecodecs (bcdec)", 1)
    data = _dds_header(0x40, bytes(4), 24, (0xFF0000, 0xFF00, 0xFF, 0), 72) + colours[..., ::-1].tobytes()
    yield Entry("dds 24 bit, masks ff0000/ff00/ff", data, magick(data, "dds"), "ImageMagick")
    raw = np.dstack((colours[..., ::-1], opacity)).tobytes()
    data = _dds_header(0x41, bytes(4), 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 96) + raw
    yield Entry("dds 32 bit, masks ff0000/ff00/ff/ff000000", data, magick(data, "dds"), "ImageMagick", 1)


def _qois() -> Iterator[Entry]:
    for colours, values in product((0, 1), (photo(), np.dstack((photo(), alpha())))):
        data = imagecodecs.qoi_encode(values)
        data = data[:13] + bytes((colours,)) + data[14:]
        read = ffmpeg(data, "qoi", "rgba" if values.shape[2] == 4 else "rgb24")
        yield Entry(f"qoi {values.shape[2]} channels, colour space {colours}", data, read, "FFmpeg", 1)

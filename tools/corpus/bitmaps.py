"""BMP, DIB, PSD, PNM, icons and X bitmaps: written by hand, read by ImageMagick, FFmpeg, netpbm and icns2png."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

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
    magick_cmyk,
    palette,
    photo,
    run,
    saved,
)

_SIZES = {"os/2 1": 12, "info": 40, "v4": 108, "v5": 124}
_MASKS = {16: (0xF800, 0x7E0, 0x1F, 0), 32: (0xFF, 0xFF00, 0xFF0000, 0)}
_ALPHA_MASKS = {16: (0, 0, 0, 0), 32: (0xFF, 0xFF00, 0xFF0000, 0xFF000000)}


def entries() -> Iterator[Entry]:
    """Yields all entries of these formats."""
    yield from _bmps()
    yield from _psds()
    yield from _pnms()
    yield from _icons()
    yield from _xbms()


def _rows(raw: list[bytes], top_down: bool) -> bytes:
    padded = [row + bytes(-len(row) % 4) for row in raw]
    return b"".join(padded if top_down else padded[::-1])


def _packed(indices: np.ndarray, bits: int) -> list[bytes]:
    split = np.unpackbits(indices[..., np.newaxis], axis=2)[..., 8 - bits :]
    return [np.packbits(row.ravel()).tobytes() for row in split]


def _body(bits: int, masks: tuple[int, ...], top_down: bool) -> bytes:
    if bits <= 8:
        return _rows(_packed(gray() >> (8 - bits), bits), top_down)
    if bits == 24:
        return _rows([row.tobytes() for row in photo()[:, :, ::-1]], top_down)
    values = np.zeros((HEIGHT, WIDTH), np.uint32)
    for mask, channel in zip(masks, (*np.moveaxis(photo(), -1, 0), alpha()), strict=True):
        if mask:
            low = (mask & -mask).bit_length() - 1
            values |= (channel.astype(np.uint32) >> (8 - (mask >> low).bit_length())) << low
    return _rows([row.astype(f"<u{bits // 8}").tobytes() for row in values], top_down)


def _runs(indices: np.ndarray, bits: int) -> bytes:
    """Absolute runs of 7 and 3 pixels, which end within a byte, and encoded ones of 5."""
    body = b""
    for row in indices[::-1]:
        x, number = 0, 0
        while x < len(row):
            length = min((7, 5, 3)[number % 3], len(row) - x)
            pixels = [int(value) for value in row[x : x + length]]
            if (number % 3 == 1 and len(set(pixels)) == 1) or length < 3:
                for value in pixels:
                    body += bytes((1, value if bits == 8 else value << 4))
            else:
                pairs = [*pixels, 0][: length + length % 2]
                packed = (
                    bytes(pixels)
                    if bits == 8
                    else bytes(a << 4 | b for a, b in zip(pairs[::2], pairs[1::2], strict=True))
                )
                body += bytes((0, length)) + packed + bytes(len(packed) % 2)
            x, number = x + length, number + 1
        body += b"\0\0"
    return body + b"\0\1"


def _header(header: str, bits: int, coding: int, masks: tuple[int, ...], height: int, size: int) -> bytes:
    if header == "os/2 1":
        return struct.pack("<IHHHH", 12, WIDTH, height, 1, bits)
    info = struct.pack("<IiiHHIIiiII", _SIZES[header], WIDTH, height, 1, bits, coding, size, 2835, 2835, 0, 0)
    if header == "info":
        return info + (struct.pack("<III", *masks[:3]) if coding == 3 else b"")
    return (info + struct.pack("<IIII", *masks) + b"BGRs").ljust(_SIZES[header], b"\0")


def _bmp(
    header: str, bits: int, coding: int, masks: tuple[int, ...], body: bytes, top_down: bool = False
) -> bytes:
    head = _header(header, bits, coding, masks, -HEIGHT if top_down else HEIGHT, len(body))
    if bits <= 8:
        filler = np.zeros((1 << bits, 0 if header == "os/2 1" else 1), np.uint8)
        head += np.hstack((palette(bits, 1 << bits)[:, ::-1], filler)).tobytes()
    start = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + body


def _bmps() -> Iterator[Entry]:
    none = (0, 0, 0, 0)
    for header, top_down in (*product(("info", "v4", "v5"), (False, True)), ("os/2 1", False)):
        rows = "top down" if top_down else "bottom up"
        for bits in (1, 4, 8, 24) if header == "os/2 1" else (1, 4, 8, 16, 24, 32):
            masks = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}.get(bits, none)
            data = _bmp(
                header, bits, 0, masks if header != "v5" else none, _body(bits, masks, top_down), top_down
            )
            reader = (
                (lambda data: ffmpeg(data, "bmp", "rgb24"), "FFmpeg")
                if bits != 16
                else (lambda data: magick(data, "bmp"), "ImageMagick")
            )
            yield Entry(
                f"bmp {header} {bits} bit, plain, {rows}",
                data,
                reader[0](data),
                reader[1],
                1 if bits == 16 else 0,
            )
            if header == "info" and not top_down:
                yield Entry(
                    f"dib info {bits} bit, plain, bottom up",
                    data[14:],
                    reader[0](data),
                    reader[1],
                    1 if bits == 16 else 0,
                )
        if header == "os/2 1":
            continue
        for bits, (suffix, table) in product((16, 32), (("", _MASKS), (" + alpha", _ALPHA_MASKS))):
            if suffix and (header == "info" or bits == 16):
                continue
            data = _bmp(header, bits, 3, table[bits], _body(bits, table[bits], top_down), top_down)
            yield Entry(
                f"bmp {header} {bits} bit{suffix}, masks, {rows}", data, magick(data, "bmp"), "ImageMagick", 1
            )
        if not top_down:
            for bits in (4, 8):
                data = _bmp(
                    header, bits, 3 - bits // 4 if bits == 8 else 2, none, _runs(gray() >> (8 - bits), bits)
                )
                yield Entry(
                    f"bmp {header} {bits} bit, rle{bits}, bottom up", data, magick(data, "bmp"), "ImageMagick"
                )


def _pack_bits(row: bytes) -> bytes:
    """Literal runs, and a repeat for the last two bytes if they are equal."""
    body, repeat = (row[:-2], row[-2:]) if len(row) > 2 and row[-1] == row[-2] else (row, b"")
    packed = b"".join(
        bytes((len(body[at : at + 100]) - 1,)) + body[at : at + 100] for at in range(0, len(body), 100)
    )
    return packed + (bytes((255, repeat[0])) if repeat else b"")


def _psd(
    mode: int, depth: int, planes: list[np.ndarray], packed: bool, big: bool, palette: bytes = b""
) -> bytes:
    head = b"8BPS" + struct.pack(">H6xHIIHH", 2 if big else 1, len(planes), HEIGHT, WIDTH, depth, mode)
    head += struct.pack(">I", len(palette)) + palette + bytes(4) + bytes(8 if big else 4)
    rows = []
    for plane in planes:
        if depth == 1:
            rows += [np.packbits(row).tobytes() for row in plane]
        else:
            rows += [row.astype(f">u{depth // 8}").tobytes() for row in plane]
    if not packed:
        return head + b"\0\0" + b"".join(rows)
    coded = [_pack_bits(row) for row in rows]
    return (
        head
        + b"\0\1"
        + b"".join(struct.pack(">I" if big else ">H", len(row)) for row in coded)
        + b"".join(coded)
    )


def _psds() -> Iterator[Entry]:
    ink = np.dstack((255 - photo(), gray()[::-1] // 3))
    spot = np.full((HEIGHT, WIDTH), 200, np.uint8)
    table = palette(8)
    for packed, big in product((False, True), repeat=2):
        name = ("psb" if big else "psd", "packbits" if packed else "plain")
        for depth, extra in product((8, 16), (0, 2)):
            bring = deep if depth == 16 else np.asarray
            more = [bring(spot)] * extra
            tolerance = 1 if depth == 16 else 0
            for mode, kind, planes in (
                (1, "gray", [gray()]),
                (3, "rgb", list(np.moveaxis(photo(), -1, 0))),
                (4, "cmyk", list(np.moveaxis(255 - ink, -1, 0))),
            ):
                data = _psd(mode, depth, [*(bring(plane) for plane in planes), *more], packed, big)
                alone = _psd(mode, depth, [bring(plane) for plane in planes], packed, big)
                read = magick_cmyk(alone, "psd") if kind == "cmyk" else magick(alone, "psd")
                yield Entry(
                    f"{name[0]} {kind} {depth} bit, {name[1]}",
                    data,
                    read,
                    "ImageMagick",
                    tolerance + (kind == "cmyk"),
                )
        bits = gray() < 110  # a set bit is black
        data = _psd(0, 1, [bits], packed, big)
        yield Entry(f"{name[0]} bitmap 1 bit, {name[1]}", data, magick(data, "psd"), "ImageMagick")
        data = _psd(2, 8, [gray()], packed, big, table.T.tobytes())
        yield Entry(
            f"{name[0]} palette 8 bit, {name[1]}",
            data,
            ffmpeg(_psd(2, 8, [gray()], packed, False, table.T.tobytes()), "psd", "rgb24"),
            "FFmpeg",
        )


def _pnms() -> Iterator[Entry]:
    bits = (gray() < 110).astype(np.uint8)
    for number, text in ((1, True), (4, False)):
        body = " ".join(map(str, bits.ravel())).encode() if text else np.packbits(bits, axis=1).tobytes()
        data = f"P{number}\n# a comment\n{WIDTH} {HEIGHT}\n".encode() + body
        yield Entry(f"pbm, {'text' if text else 'binary'}", data, magick(data, "pbm"), "ImageMagick")
    for kind, values, numbers in (("pgm", gray(), (2, 5)), ("ppm", photo(), (3, 6))):
        for number, top in product(numbers, (255, 100, 65535, 1000)):
            scaled = deep(values) if top == 65535 else (values.astype(int) * top // 255)
            if number < 4:
                body = "\n".join(map(str, scaled.ravel())).encode() + b"\n"
            else:
                body = scaled.astype(">u2" if top > 255 else np.uint8).tobytes()
            data = f"P{number} {WIDTH} {HEIGHT}\n{top}\n".encode() + body
            name = f"{kind} {'8' if top < 256 else '16'} bit, {'text' if number < 4 else 'binary'}"
            yield Entry(name, data, magick(data, kind), "ImageMagick", 0 if top == 255 else 1)


def _icon(kind: int, pictures: list[tuple[int, int, int, bytes]]) -> bytes:
    head, place = struct.pack("<HHH", 0, kind, len(pictures)), 6 + 16 * len(pictures)
    for width, height, bits, content in pictures:
        fields = (1, bits) if kind == 1 else (2, 3)
        head += struct.pack("<BBBBHHII", width, height, 0, 0, *fields, len(content), place)
        place += len(content)
    return head + b"".join(content for *_, content in pictures)


def _icons() -> Iterator[Entry]:
    picture = saved(Image.fromarray(np.dstack((photo(), alpha()))), "PNG")
    for kind, name in ((1, "ico"), (2, "cur")):
        for bits in (1, 4, 8, 24, 32):
            masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000) if bits == 32 else (0, 0, 0, 0)
            head = struct.pack("<IiiHHIIiiII", 40, WIDTH, 2 * HEIGHT, 1, bits, 0, 0, 0, 0, 0, 0)
            if bits <= 8:
                head += np.hstack(
                    (palette(bits, 1 << bits)[:, ::-1], np.zeros((1 << bits, 1), np.uint8))
                ).tobytes()
            mask = _rows([np.packbits(row).tobytes() for row in alpha() < 100], False)
            small = struct.pack("<IiiHHIIiiII", 40, 1, 2, 1, 24, 0, 0, 0, 0, 0, 0) + b"\1\2\3\0" + bytes(4)
            body = head + _body(bits, masks, False) + mask
            data = _icon(kind, [(1, 1, 24, small), (WIDTH, HEIGHT, bits, body)])
            read = magick(_icon(kind, [(WIDTH, HEIGHT, bits, body)]), name)
            yield Entry(f"{name} info {bits} bit, plain", data, read, "ImageMagick", 1)
        data = _icon(kind, [(WIDTH, HEIGHT, 32, picture)])
        yield Entry(f"{name} of png", data, magick(data, name), "ImageMagick", 1)
    yield _icns()


def _icns() -> Entry:
    side = 256
    picture = np.asarray(Image.fromarray(photo()).resize((side, side), Image.Resampling.NEAREST))
    content = saved(Image.fromarray(picture), "PNG", optimize=True)
    data = (
        b"icns"
        + struct.pack(">I", 16 + len(content))
        + b"ic08"
        + struct.pack(">I", 8 + len(content))
        + content
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.icns"
        path.write_bytes(data)
        run("icns2png", "-x", "-o", directory, path)
        (written,) = Path(directory).glob("*.png")
        return Entry("icns of png", data, np.asarray(Image.open(written).convert("RGB")), "icns2png")


def _xbms() -> Iterator[Entry]:
    bits = gray() < 110
    values = np.packbits(bits, axis=1, bitorder="little").ravel()
    for hot in ("", "#define a_x_hot 3\n#define a_y_hot 4\n"):
        text = f"#define a_width {WIDTH}\n#define a_height {HEIGHT}\n{hot}static char a_bits[] = {{\n"
        data = (text + ", ".join(f"0x{value:02X}" for value in values) + "};\n").encode()
        yield Entry("xbm of char", data, magick(data, "xbm"), "ImageMagick")

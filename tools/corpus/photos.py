"""JPEG, PNG, GIF, WebP, AVIF and JPEG 2000."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import imagecodecs
import numpy as np
import pyvips
from PIL import Image

from tools.corpus.entry import (
    HEIGHT,
    WIDTH,
    Entry,
    alpha,
    deep,
    ffmpeg,
    from_cmyk,
    gray,
    magick,
    on_white,
    palette,
    photo,
    rgb,
    run,
    saved,
)


def entries() -> Iterator[Entry]:
    """Yields all entries of these formats."""
    yield from _jpegs()
    yield from _lossless_jpegs()
    yield from _pngs()
    yield from _gifs()
    yield from _webps()
    yield from _avifs()
    yield from _jpegs_2000()


def _netpbm(data: bytes) -> np.ndarray:
    return rgb(np.asarray(Image.open(io.BytesIO(data))))


def _jpegs() -> Iterator[Entry]:
    """Written by libjpeg-turbo's cjpeg; read by its djpeg, the decoder behind TensorFlow's pixels."""
    codings = {
        "baseline": (),
        "progressive": ("-progressive",),
        "arithmetic": ("-arithmetic",),
        "progressive arithmetic": ("-arithmetic", "-progressive"),
    }
    samplings = ("1x1", "2x1", "2x2", "1x2", "4x1", "4x2")
    for coding, switches in codings.items():
        picture = saved(Image.fromarray(gray()), "PPM")
        yield _jpeg(f"jpeg {coding} 8 bit gray", run("cjpeg", "-quality", "90", *switches, data=picture))
        picture = saved(Image.fromarray(photo()), "PPM")
        for sampling in samplings if coding in ("baseline", "progressive") else ("2x2",):
            data = run("cjpeg", "-quality", "90", "-sample", sampling, *switches, data=picture)
            yield _jpeg(f"jpeg {coding} 8 bit colour", data)
        restarts = run("cjpeg", "-quality", "90", "-restart", "1", *switches, data=picture)
        yield _jpeg(f"jpeg {coding} 8 bit colour", restarts)
        as_rgb = run("cjpeg", "-quality", "90", "-rgb", *switches, data=picture)
        yield _jpeg(f"jpeg {coding} 8 bit colour", as_rgb)
        for adobe in (b"\0", b"\2"):
            yield _cmyk_jpeg(coding, adobe)
    # With 8 bits, extended differs from baseline only by its marker.
    for colours in (gray(), photo()):
        data = run("cjpeg", "-quality", "90", data=saved(Image.fromarray(colours), "PPM"))
        frame = data.index(b"\xff\xc0")
        name = "jpeg extended 8 bit " + ("gray" if colours.ndim == 2 else "colour")
        yield _jpeg(name, data[: frame + 1] + b"\xc1" + data[frame + 2 :])
    entry = _cmyk_jpeg("baseline", b"\0")
    frame = entry.data.index(b"\xff\xc0")
    yield entry._replace(
        variant="jpeg extended 8 bit cmyk", data=entry.data[: frame + 1] + b"\xc1" + entry.data[frame + 2 :]
    )


def _jpeg(variant: str, data: bytes) -> Entry:
    return Entry(variant, data, _netpbm(run("djpeg", "-dct", "int", data=data)), "djpeg")


def _cmyk_jpeg(coding: str, adobe: bytes) -> Entry:
    """CMYK, or YCCK (Adobe's transform 2: the same bytes mean other colors)."""
    ink = np.dstack((255 - photo(), gray()[::-1] // 3))
    data = saved(Image.fromarray(ink, "CMYK"), "JPEG", quality=95, progressive="progressive" in coding)
    at = data.index(b"Adobe") + 11
    data = data[:at] + adobe + data[at + 1 :]
    if "arithmetic" in coding:
        with tempfile.TemporaryDirectory() as directory:
            before = Path(directory) / "a.jpg"
            before.write_bytes(data)
            data = run(
                "jpegtran", "-arithmetic", *(("-progressive",) if "progressive" in coding else ()), before
            )
    # libvips inverts according to Adobe's marker and returns ink.
    ink_read = pyvips.Image.new_from_buffer(data, "").numpy()
    return Entry(f"jpeg {coding} 8 bit cmyk", data, from_cmyk(ink_read), "libvips", 1)


def _lossless_jpegs() -> Iterator[Entry]:
    for colours, name in ((gray(), "gray"), (photo(), "colour")):
        for predictor in (1, 4, 7):
            data = imagecodecs.jpeg8_encode(colours, lossless=True, predictor=predictor)
            read = imagecodecs.jpegsof3_decode(data)
            np.testing.assert_array_equal(read.reshape(colours.shape), colours)
            yield Entry(f"jpeg lossless 8 bit {name}", data, rgb(colours), "imagecodecs (jpegsof3)")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _png(samples: np.ndarray, depth: int, colour: int, interlaced: bool, **chunks: bytes) -> bytes:
    """Writes a PNG by hand; each row has filter 1 or 0."""
    rows = b""
    channels = samples.shape[2] if samples.ndim == 3 else 1
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        for number, row in enumerate(
            samples[top::down, left::across].reshape(-1, len(samples[0, left::across]) * channels)
        ):
            if row.size:
                raw = row.astype(">u2").tobytes() if depth == 16 else _packed(row, depth)
                rows += _filtered(raw, max(1, channels * depth // 8), number % 2)
    body = _chunk(
        b"IHDR", struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour, 0, 0, interlaced)
    )
    body += b"".join(_chunk(kind.encode(), content) for kind, content in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + body + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")


def _packed(row: np.ndarray, depth: int) -> bytes:
    bits = np.unpackbits(row.astype(np.uint8)[:, np.newaxis], axis=1)[:, 8 - depth :]
    return np.packbits(bits.ravel()).tobytes()


def _filtered(raw: bytes, pixel: int, kind: int) -> bytes:
    values = np.frombuffer(raw, np.uint8)
    if kind:
        before = np.concatenate((np.zeros(pixel, np.uint8), values[:-pixel]))[: len(values)]
        values = values - before
    return bytes((kind,)) + values.tobytes()


def _pngs() -> Iterator[Entry]:
    """Read by libpng (libvips), which returns all bits and alpha."""
    table = palette(1)
    kinds = (
        *(("gray", 0, bits) for bits in (1, 2, 4, 8, 16)),
        *(("rgb", 2, bits) for bits in (8, 16)),
        *(("palette", 3, bits) for bits in (1, 2, 4, 8)),
        *(("gray+alpha", 4, bits) for bits in (8, 16)),
        *(("rgba", 6, bits) for bits in (8, 16)),
    )
    for (kind, colour, bits), interlaced, transparent in product(kinds, (False, True), (False, True)):
        if transparent and colour in (4, 6):
            continue
        samples = {
            0: gray(),
            2: photo(),
            3: gray(),
            4: np.dstack((gray(), alpha())),
            6: np.dstack((photo(), alpha())),
        }[colour]
        samples = deep(samples) if bits == 16 else samples >> (8 - bits)
        chunks = {"PLTE": table[: 1 << bits].tobytes()} if colour == 3 else {}
        if transparent and colour == 3:
            chunks["tRNS"] = np.linspace(0, 255, (1 << bits) // 2 + 1).astype(np.uint8).tobytes()
        elif transparent:
            # A value of the picture; with 16 bits, other values have the same upper byte.
            chunks["tRNS"] = b"".join(int(value).to_bytes(2, "big") for value in np.atleast_1d(samples[3, 4]))
        data = _png(samples, bits, colour, interlaced, **chunks)
        read = pyvips.Image.new_from_buffer(data, "").numpy()
        read = (read >> 8).astype(np.uint8) if read.dtype == np.uint16 else read.astype(np.uint8)
        read = read[..., np.newaxis] if read.ndim == 2 else read
        clear = read.shape[2] in (2, 4)
        pixels = on_white(read[..., :-1].squeeze(), read[..., -1]) if clear else rgb(read.squeeze())
        details = (" transparent" if transparent else "") + (" interlaced" if interlaced else "")
        name = f"png {kind} {bits} bit{details}"
        has_alpha = transparent or colour in (4, 6)
        yield Entry(name, data, pixels, "libvips", 1 if has_alpha else 0)


def _lzw(indices: bytes, bits: int) -> bytes:
    """GIF's coding without compression: a clear code comes before the codes would grow."""
    clear, width = 1 << bits, bits + 1
    codes, run_length = [], (1 << bits) - 2
    for at in range(0, len(indices), run_length):
        codes += [clear, *indices[at : at + run_length]]
    number = place = 0
    for code in [*codes, clear + 1]:
        number |= code << place
        place += width
    raw = number.to_bytes(-(-place // 8), "little")
    return (
        bytes((bits,))
        + b"".join(bytes((len(raw[at : at + 255]),)) + raw[at : at + 255] for at in range(0, len(raw), 255))
        + b"\0"
    )


def _gifs() -> Iterator[Entry]:
    table = palette(2, 32).tobytes()
    for local, transparent, interlaced, part in product((False, True), repeat=4):
        indices = (gray() >> 3)[: HEIGHT - 5, : WIDTH - 4] if part else gray() >> 3
        height, width = indices.shape
        order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
        rows = indices[order] if interlaced else indices
        data = (b"GIF89a" if transparent else b"GIF87a") + struct.pack(
            "<HHBBB", WIDTH, HEIGHT, 0 if local else 0x84, 3, 0
        )
        data += b"" if local else table
        if transparent:
            data += b"\x21\xf9\x04\x01\0\0" + bytes((int(indices[4, 4]),)) + b"\0"
        flags = (0x84 if local else 0) | (0x40 if interlaced else 0)
        data += b"," + struct.pack("<HHHHB", 2 if part else 0, 3 if part else 0, width, height, flags)
        data += (table if local else b"") + _lzw(rows.tobytes(), 5) + b";"
        read = magick(data, "gif", "-coalesce")
        if part:  # nothing is drawn outside the frame
            frame = magick(data, "gif", "+repage")
            np.testing.assert_array_equal(read[3 : 3 + height, 2 : 2 + width], frame)
            read = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
            read[3 : 3 + height, 2 : 2 + width] = frame
        details = (" transparent" if transparent else "") + (" interlaced" if interlaced else "")
        name = f"gif {'local' if local else 'global'} palette{details}{' part of the screen' if part else ''}"
        yield Entry(name, data, read, "ImageMagick")


def _webps() -> Iterator[Entry]:
    """Read by libvips; the lossless ones by FFmpeg's own decoder as well."""
    plain, clear = Image.fromarray(photo()), Image.fromarray(np.dstack((photo(), alpha())))
    for image, suffix in ((plain, ""), (clear, " + alpha")):
        lossless = saved(image, "WEBP", lossless=True, exact=True)
        yield Entry(f"webp lossless{suffix}", lossless, ffmpeg(lossless, "webp"), "FFmpeg", 1)
        lossy = saved(image, "WEBP", quality=90)
        yield Entry(f"webp lossy{suffix}", lossy, _vips(lossy), "libvips", 1)
        other = image.transpose(Image.Transpose.ROTATE_180)
        # The encoder marks lossless frames as having alpha, even if they are opaque.
        coding = {"lossless": True, "exact": True} if suffix else {"quality": 90}
        animated = saved(image, "WEBP", save_all=True, append_images=[other], **coding)
        yield Entry(f"webp animated{suffix}", animated, magick(animated, "webp"), "ImageMagick", 1)


def _vips(data: bytes) -> np.ndarray:
    read = pyvips.Image.new_from_buffer(data, "").colourspace("srgb").cast("uchar").numpy()
    return on_white(read[..., :3], read[..., 3]) if read.shape[2] == 4 else read


def _avifs() -> Iterator[Entry]:
    """Written by imagecodecs and Pillow (libavif), read by libvips (libheif).

    The picture is smooth because readers enlarge halved colors in different ways.
    """
    smooth = np.asarray(Image.fromarray(photo(3, 3)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    for sampling, alpha_too, depth in product(
        ("4:2:0", "4:2:2", "4:4:4", "gray"), (False, True), (8, 10, 12)
    ):
        values = gray() if sampling == "gray" else smooth
        if alpha_too:
            values = np.dstack((values, alpha()))
        deeper = (values.astype(np.uint16) << (depth - 8)) if depth > 8 else values
        codec = {"4:2:0": "420", "4:2:2": "422", "4:4:4": "444", "gray": "400"}[sampling]
        data = imagecodecs.avif_encode(
            deeper, level=90, bitspersample=depth, pixelformat=codec, speed=9, codec="aom"
        )
        read = pyvips.Image.new_from_buffer(data, "").numpy()
        read = (read >> 8 if read.dtype == np.uint16 else read).astype(np.uint8)
        pixels = on_white(read[..., :3], read[..., 3]) if read.shape[2] == 4 else rgb(read.squeeze())
        suffix = " + alpha" if alpha_too else ""
        yield Entry(f"avif {sampling} {depth} bit{suffix}", data, pixels, "libvips", 8)
    image = Image.fromarray(smooth)
    frames = [image.transpose(Image.Transpose.ROTATE_180)]
    data = saved(image, "AVIF", save_all=True, append_images=frames, quality=95)
    yield Entry("avif animated 4:2:0 8 bit", data, ffmpeg(data, "avif", "rgb24"), "FFmpeg", 10)


def _jpegs_2000() -> Iterator[Entry]:
    """Written by OpenJPEG, read by FFmpeg's own decoder."""
    for name, values in (("gray 8 bit", gray()), ("rgb 8 bit", photo()), ("gray 16 bit", deep(gray()))):
        for boxes in (True, False):
            data = imagecodecs.jpeg2k_encode(
                values, level=0, codecformat="jp2" if boxes else "j2k", reversible=True
            )
            kind = "gray16le" if "16" in name else "gray" if values.ndim == 2 else "rgb24"
            read = ffmpeg(data, "jp2", kind)
            if "16" in name:
                read = read[..., 1:]
            yield Entry(f"jpeg2000 {name}", data, rgb(read.squeeze()), "FFmpeg")
    image = Image.fromarray(np.dstack((photo(), alpha())))
    data = saved(image, "JPEG2000", irreversible=False)
    yield Entry("jpeg2000 rgb 8 bit + alpha", data, ffmpeg(data, "jp2"), "FFmpeg", 1)

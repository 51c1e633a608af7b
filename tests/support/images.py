"""Generated images of every kind, and a directory of hostile and unusual ones."""

from __future__ import annotations

import functools
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from beamlabel.transforms.records import Reason

ORIENTATION = 0x0112


@functools.cache
def photo(width: int = 120, height: int = 90) -> Image.Image:
    """A smooth, asymmetric RGB image with detail and without constant rows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    noise = np.random.default_rng(7).normal(0, 6, (height, width, 3))
    red = 255 * x / max(width - 1, 1)
    green = 255 * y / max(height - 1, 1)
    blue = 127 + 100 * np.sin(x / 7) * np.cos(y / 5)
    pixels = np.stack([red, green, blue], axis=-1) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    """The image, encoded by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def pillow_rgb(data: bytes) -> np.ndarray:
    """The pixels from Pillow alone."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


def oriented(image: Image.Image, orientation: int) -> Image.Image:
    """The stored pixels that ``orientation`` turns into ``image``."""
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def png(width: int, height: int, depth: int, color: int, rows: bytes, **chunks: bytes) -> bytes:
    """A hand-made PNG: ``rows`` without filter bytes (filter 0 is added), ``chunks`` before the image data."""
    stride = len(rows) // height if height and rows else 0
    raw = b"".join(b"\0" + rows[i : i + stride] for i in range(0, len(rows), stride)) if stride else b""
    body = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    for name, content in chunks.items():
        body += png_chunk(name.encode(), content)
    if raw:
        body += png_chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(tags: dict[int, tuple[int, bytes]], data: bytes, order: str = "<") -> bytes:
    """A hand-made TIFF, directory first: tag → (type, packed values); 273 is set for one strip."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}
    tags = {**tags, 273: (4, b"\0" * 4), 279: (4, struct.pack(order + "I", len(data)))}
    after = 8 + 2 + 12 * len(tags) + 4
    extra = b""
    entries = b""
    strip = after + sum(len(value) for _, value in tags.values() if len(value) > 4)
    for tag, (kind, value) in sorted(tags.items()):
        if tag == 273:
            value = struct.pack(order + "I", strip)
        entries += struct.pack(order + "HHI", tag, kind, len(value) // sizes[kind])
        if len(value) > 4:
            entries += struct.pack(order + "I", after + len(extra))
            extra += value
        else:
            entries += value.ljust(4, b"\0")
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return header + struct.pack(order + "H", len(tags)) + entries + b"\0" * 4 + extra + data


def ycck_jpeg(image: Image.Image) -> bytes:
    """A YCCK JPEG: Y, Cb, Cr of the negative, and K, inverted like Adobe's."""
    ycc = np.asarray(Image.fromarray(255 - np.asarray(image)).convert("YCbCr"))
    black = np.zeros((*ycc.shape[:2], 1), np.uint8)
    stored = np.concatenate([255 - ycc, black], axis=-1)  # Pillow inverts its output
    data = encode(Image.frombytes("CMYK", image.size, stored.tobytes()), "JPEG", quality=95)
    adobe = data.index(b"Adobe")
    return data[: adobe + 11] + b"\x02" + data[adobe + 12 :]


def bmp_rle8(width: int, height: int) -> bytes:
    """A run-length encoded BMP, which Pillow can read but not write."""
    palette = b"".join(bytes((i, 255 - i, i // 2, 0)) for i in range(256))
    row = b"".join(bytes((2, (7 * x) % 256)) for x in range(width // 2))
    data = (row + b"\0\0") * height + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 2835, 2835, 256, 0)
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette + data


def claiming(data: bytes, width: int, height: int) -> bytes:
    """A baseline or progressive JPEG, cut after a header with a false size."""
    for marker in (b"\xff\xc0\0", b"\xff\xc2\0"):
        frame = data.find(marker)
        if frame > 0:
            scan = data.index(b"\xff\xda\0")
            size = struct.pack(">HH", height, width)
            return data[: frame + 5] + size + data[frame + 9 : scan] + b"\xff\xda\0\x0c" + b"\0" * 40
    raise ValueError("no frame")


@functools.cache
def every_kind() -> dict[str, bytes]:
    """Name → a valid encoded image; each format and coding at least once."""
    return _jpegs() | _pngs_and_webps() | _other_formats() | _tiffs()


def _gray16() -> Image.Image:
    return Image.fromarray(np.asarray(photo().convert("L")).astype(np.uint16) * 257)


def _with_alpha() -> Image.Image:
    image = photo().copy()
    image.putalpha(image.getchannel("R"))
    return image


def _frames() -> dict[str, object]:
    return {"save_all": True, "append_images": [photo().rotate(40), photo().rotate(80)]}


def _jpegs() -> dict[str, bytes]:
    image = photo()
    return {
        "jpeg": encode(image, "JPEG", quality=90),
        "jpeg_progressive": encode(image, "JPEG", quality=90, progressive=True),
        "jpeg_gray": encode(image.convert("L"), "JPEG", quality=90),
        "jpeg_cmyk": encode(image.convert("CMYK"), "JPEG"),
        "jpeg_ycck": ycck_jpeg(image),
        "jpeg_restarts": encode(image, "JPEG", quality=90, restart_marker_rows=1),
        "jpeg_444": encode(image, "JPEG", quality=90, subsampling=0),
        "jpeg_422": encode(image, "JPEG", quality=90, subsampling=1),
        "jpeg_rgb": encode(image, "JPEG", quality=90, keep_rgb=True),
        "jpeg_rotated": encode(image, "JPEG", quality=90, exif=exif(6)),
        "mpo": encode(image, "MPO", save_all=True, append_images=[image.rotate(90)]),
    }


def _pngs_and_webps() -> dict[str, bytes]:
    image, alpha, frames = photo(), _with_alpha(), _frames()
    return {
        "png": encode(image, "PNG"),
        "png_palette": encode(image.quantize(64), "PNG"),
        "png_palette_alpha": encode(image.quantize(64), "PNG", transparency=bytes(range(0, 256, 4))),
        "png_gray16": encode(_gray16(), "PNG"),
        "png_rgb16": png(120, 90, 16, 2, (np.asarray(image).astype(">u2") * 257).tobytes()),
        "png_gray_alpha": encode(alpha.convert("LA"), "PNG"),
        "png_alpha": encode(alpha, "PNG"),
        "png_1bit": encode(image.convert("1"), "PNG"),
        "apng": encode(image, "PNG", **frames),
        "webp": encode(image, "WEBP"),
        "webp_lossless": encode(image, "WEBP", lossless=True),
        "webp_alpha": encode(alpha, "WEBP"),
        "webp_animated": encode(image, "WEBP", **frames),
    }


def _other_formats() -> dict[str, bytes]:
    image = photo()
    return {
        "gif": encode(image, "GIF"),
        "gif_animated": encode(image, "GIF", **_frames()),
        "bmp": encode(image, "BMP"),
        "bmp_palette": encode(image.quantize(64), "BMP"),
        "bmp_rle": bmp_rle8(120, 90),
        "avif": encode(image, "AVIF"),
        "avif_alpha": encode(_with_alpha(), "AVIF"),
        "jpeg2000": encode(image, "JPEG2000"),
        "j2k": encode(image, "JPEG2000", no_jp2=True),
        "ico": encode(image, "ICO", sizes=[(64, 64)]),
        "ico_bmp": encode(image, "ICO", sizes=[(64, 64)], bitmap_format="bmp"),
        "tga": encode(image, "TGA"),
        "tga_rle": encode(image, "TGA", compression="tga_rle"),
        "pcx": encode(image, "PCX"),
        "ppm": encode(image, "PPM"),
        "pgm16": encode(_gray16(), "PPM"),
        "sgi": encode(image, "SGI"),
        "dds": encode(image.resize((40, 32)), "DDS"),
        "qoi": encode(image.resize((40, 30)), "QOI"),
    }


def _tiffs() -> dict[str, bytes]:
    image = photo()
    compressions = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg")
    return {
        "tiff": encode(image, "TIFF"),
        "tiff_gray16": encode(_gray16(), "TIFF"),
        "tiff_cmyk": encode(image.convert("CMYK"), "TIFF"),
        "tiff_rotated": encode(image, "TIFF", exif=exif(6)),
        "tiff_strips": encode(image, "TIFF", compression="tiff_lzw", tiffinfo={278: 10}),
        "tiff_group3": encode(image.convert("1"), "TIFF", compression="group3"),
        "tiff_group4": encode(image.convert("1"), "TIFF", compression="group4"),
        "tiff_directory_first": tiff(
            {
                256: (3, struct.pack("<H", 120)),
                257: (3, struct.pack("<H", 90)),
                258: (3, struct.pack("<HHH", 8, 8, 8)),
                259: (3, struct.pack("<H", 8)),
                262: (3, struct.pack("<H", 2)),
                277: (3, struct.pack("<H", 3)),
                278: (3, struct.pack("<H", 90)),
            },
            zlib.compress(image.tobytes()),
        ),
        **{
            f"tiff_{name.removeprefix('tiff_')}": encode(image, "TIFF", compression=name)
            for name in compressions
        },
    }


def hostile_images(directory: Path) -> dict[str, Reason | None]:
    """Fills ``directory`` with hostile and unusual images.

    Returns:
      File name → the reason of its failure, or None if it becomes a row. A file without permissions becomes a row if
      the tests run as root, who may read it.
    """
    image, kinds = photo(), every_kind()
    jpeg = kinds["jpeg"]
    files: dict[str, tuple[bytes, Reason | None]] = {
        "plain.jpg": (jpeg, None),
        "empty.jpg": (b"", Reason.EMPTY_FILE),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], Reason.TRUNCATED),
        "truncated-and-closed.jpg": (jpeg[: len(jpeg) // 2] + b"\xff\xd9", Reason.TRUNCATED),
        "truncated.png": (kinds["png"][:5000], Reason.TRUNCATED),
        "flipped.png": (flip(kinds["png"], 5000), Reason.CORRUPT),
        "page.jpg": (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n", Reason.NOT_AN_IMAGE),
        "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>\n', Reason.UNSUPPORTED_FORMAT),
        "one-pixel.png": (encode(photo(1, 1), "PNG"), None),
        "one-pixel.jpg": (encode(photo(1, 1), "JPEG"), None),
        "wide.png": (encode(photo(10000, 2), "PNG"), None),
        "wide.jpg": (encode(photo(10000, 2), "JPEG"), None),
        "huge.png": (png(30000, 30000, 8, 2, b""), Reason.TOO_MANY_PIXELS),
        "huge.jpg": (claiming(jpeg, 30000, 30000), Reason.TOO_MANY_PIXELS),
        "cmyk.jpg": (kinds["jpeg_cmyk"], None),
        "ycck.jpg": (kinds["jpeg_ycck"], None),
        "gray16.png": (kinds["png_gray16"], None),
        "rgb16.png": (kinds["png_rgb16"], None),
        "float.tif": (encode(image.convert("F"), "TIFF"), Reason.UNSUPPORTED_FORMAT),
        "palette-alpha.png": (kinds["png_palette_alpha"], None),
        "animated.gif": (kinds["gif_animated"], None),
        "animated.webp": (kinds["webp_animated"], None),
        "rotated.jpg": (kinds["jpeg_rotated"], None),
        "broken-exif.jpg": (encode(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), None),
        "a name with spaces.jpg": (jpeg, None),
        "grüße 图像 📷.png": (kinds["png_alpha"], None),
        "twin-1.webp": (kinds["webp"], None),
        "twin-2.webp": (kinds["webp"], None),
    }
    for name, (data, _) in files.items():
        (directory / name).write_bytes(data)
    expected = {name: outcome for name, (_, outcome) in files.items()}
    (directory / "directory.jpg").mkdir()
    expected["directory.jpg"] = Reason.NOT_A_FILE
    unreadable = directory / "unreadable.jpg"
    unreadable.write_bytes(jpeg)
    unreadable.chmod(0)
    expected["unreadable.jpg"] = None if os.access(unreadable, os.R_OK) else Reason.FORBIDDEN
    return expected


def flip(data: bytes, position: int) -> bytes:
    """The data with the bits of one byte inverted."""
    return data[:position] + bytes((data[position] ^ 0xFF,)) + data[position + 1 :]

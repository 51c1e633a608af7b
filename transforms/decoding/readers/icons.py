"""Reads ICO, CUR, ICNS and XBM."""

from __future__ import annotations

import re
import struct

import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.pillow_image import load
from beamlabel.transforms.decoding.picture.pillow_modes import finish
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.readers.binary import part, unpack
from beamlabel.transforms.decoding.readers.bmp import dib_image, read_dib
from beamlabel.transforms.decoding.readers.png import SIGNATURE, read_png
from beamlabel.transforms.records import Reason

_WHAT = "the icon's directory"


def read_icon(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the largest picture of an ICO or CUR; of several, the one with the most colors, then the first."""
    kind = "ico" if data[2] == 1 else "cur"
    (count,) = unpack("<H", data, 4, _WHAT)
    if not count:
        raise refusal(Reason.CORRUPT, "the icon has no pictures")
    entries = []
    for number in range(count):
        width, height, _, _, _, bits, length, offset = unpack("<BBBBHHII", data, 6 + 16 * number, _WHAT)
        depth = bits if kind == "ico" else 0  # cursors store their hot spot there
        entries.append(((width or 256) * (height or 256), depth, -number, offset, length))
    *_, offset, length = max(entries)
    content = part(data, offset, length, "the icon's picture")
    if content.startswith(SIGNATURE):
        check_variant(f"{kind} of png")
        return read_png(content, options)._replace(format=kind)
    dib = read_dib(content, 0)
    if dib.height % 2 or dib.top_down:
        raise refusal(
            Reason.CORRUPT,
            f"the icon has an invalid size of {dib.width}×{dib.height} pixels for colors and mask together",
        )
    dib = dib._replace(height=dib.height // 2)
    check_pixels(dib.width, dib.height, options.max_pixels)
    check_variant(f"{kind} {dib.name} {dib.bits} bit, {dib.coding}")
    if dib.bits == 32:
        dib = dib._replace(masks=(*dib.masks[:3], 0xFF000000))

    def decode() -> tuple[np.ndarray, bool]:
        image = Image.fromarray(dib_image(content, dib, dib.end))
        if dib.bits != 32 or not image.getchannel("A").getextrema()[1]:
            # Icons without alpha, and 32-bit icons with empty alpha, have a mask; 1 is transparent.
            row = -(-dib.width // 32) * 4
            colours = -(-dib.width * dib.bits // 32) * 4 * dib.height
            raw = part(content, dib.end + colours, row * dib.height, "the icon's mask")
            bits = np.frombuffer(raw, np.uint8).reshape(dib.height, row)[::-1]
            mask = np.unpackbits(bits, axis=1, count=dib.width)
            image.putalpha(Image.fromarray((1 - mask) * np.uint8(255)))
        return finish(image, None)

    pixels, converted = load(decode, "ICO", dib.width, dib.height)
    return Picture(pixels, dib.width, dib.height, kind, converted=converted)


def read_icns(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the largest picture of an ICNS, which must be a PNG."""
    position, largest, others = 8, (0, b""), False
    (length,) = unpack(">I", data, 4, "the ICNS")
    if length > len(data):
        raise refusal(Reason.TRUNCATED, "the file ends within the ICNS")
    while position + 8 <= length:
        kind, size = struct.unpack_from(">4sI", data, position)
        content = data[position + 8 : position + size]
        if content.startswith(SIGNATURE) and len(content) >= 24:
            width, height = struct.unpack_from(">II", content, 16)
            largest = max(largest, (width * height, content), key=lambda one: one[0])
        elif kind not in (b"TOC ", b"icnV", b"name", b"info"):
            others = True
        position += max(size, 8)
    if others or not largest[1]:
        raise refusal(Reason.UNSUPPORTED_FORMAT, "the ICNS has pictures other than PNG")
    check_variant("icns of png")
    return read_png(largest[1], options)._replace(format="icns")


# No part of a comment may match another comment, or the expression could match a row in too many ways to try.
_COMMENTS = rb"\s*(?:/\*[^*]*\*+(?:[^/*][^*]*\*+)*/\s*)*"
_XBM = re.compile(
    _COMMENTS + rb"#define[ \t]+\S*width[ \t]+(\d{1,5})\s+#define[ \t]+\S*height[ \t]+(\d{1,5})\s+"
    rb"(?:#define[ \t]+\S*x_hot[ \t]+\d+\s+#define[ \t]+\S*y_hot[ \t]+\d+\s+)?"
    rb"(?:static\s+)?(?:unsigned\s+|const\s+)*(char|short)\s+\S*bits\s*\[\s*\w*\s*\]\s*=\s*\{",
    re.DOTALL,
)
_XBM_START = re.compile(_COMMENTS + rb"#define[ \t]+\S*width[ \t]+\d+\s+#define[ \t]+\S*height", re.DOTALL)
_BYTE = re.compile(rb"0[xX]([0-9a-fA-F]{1,2})\b")


def is_xbm(data: bytes) -> bool:
    """Whether the data begin like an X bitmap."""
    return _XBM_START.match(data[:2048]) is not None


def read_xbm(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes an X bitmap (X11): a set bit is black, and the lowest bit comes first."""
    found = _XBM.match(data[:4096])
    if found is None:
        whole = b"{" in data[:4096] or len(data) >= 4096
        raise refusal(Reason.CORRUPT if whole else Reason.TRUNCATED, "the X bitmap has no bits")
    width, height = int(found[1]), int(found[2])
    if not width or not height:
        raise refusal(Reason.CORRUPT, f"the X bitmap has an invalid size of {width}×{height} pixels")
    check_pixels(width, height, options.max_pixels)
    check_variant(f"xbm of {found[3].decode()}")
    row = -(-width // 8)
    body = data[found.end() :].partition(b"}")
    digits = _BYTE.findall(body[0])
    if len(digits) < row * height:
        raise refusal(
            Reason.CORRUPT if body[1] else Reason.TRUNCATED,
            f"the X bitmap has {len(digits)} bytes of {row * height}",
        )
    raw = bytes.fromhex(b"".join(one.rjust(2, b"0") for one in digits[: row * height]).decode())
    bits = np.frombuffer(raw, np.uint8).reshape(height, row)
    black = np.unpackbits(bits, axis=1, count=width, bitorder="little")
    pixels, _ = finish((1 - black) * np.uint8(255), None)
    return Picture(pixels, width, height, "xbm")

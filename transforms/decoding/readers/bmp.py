"""Reads BMP and DIB files of Windows and OS/2 with headers of 12 to 124 bytes.

Sources of the format: Microsoft's BITMAPINFOHEADER to BITMAPV5HEADER, and "OS/2 Bitmap File Format".
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.pillow_image import load
from beamlabel.transforms.decoding.picture.pillow_modes import finish
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.readers.binary import look_up, part, unpack, unpack_bits
from beamlabel.transforms.decoding.readers.bmp_rle import decode_runs
from beamlabel.transforms.records import Reason

_HEADERS = {12: "os/2 1", 16: "os/2 2", 64: "os/2 2", 40: "info", 52: "v2", 56: "v3", 108: "v4", 124: "v5"}
_CODINGS = {0: "plain", 1: "rle8", 2: "rle4", 3: "masks", 4: "jpeg", 5: "png", 6: "masks"}
_EMBEDDED_PROFILE = int.from_bytes(b"MBED", "big")
_WHAT = "the BMP's header"
_BYTES = ((0xFF0000, 0xFF00, 0xFF, 0), (0xFF0000, 0xFF00, 0xFF, 0xFF000000))
_DEFAULT_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}


class Dib(NamedTuple):
    """A bitmap header without the file header.

    Attributes:
      name: name of the header in the list of variants.
      width, height: pixels; ``height`` is positive.
      bits: bits per pixel.
      coding: ``plain``, ``rle8``, ``rle4``, ``masks`` and so on.
      top_down: whether the first row is the highest.
      masks: bit masks of red, green, blue and alpha, for 16 and 32 bits.
      palette: offset of the palette, number of its colors, and bytes per color.
      profile: an ICC profile, or None.
      end: offset after header, masks and palette, where the pixels of a DIB begin.
    """

    name: str
    width: int
    height: int
    bits: int
    coding: str
    top_down: bool
    masks: tuple[int, int, int, int]
    palette: tuple[int, int, int]
    profile: bytes | None
    end: int


def is_dib(data: bytes) -> bool:
    """Whether the data may be a bitmap header without a file header: 40 bytes, one plane, a known depth."""
    return data[:4] == b"\x28\0\0\0" and data[12:14] == b"\1\0" and data[14:16] in _DIB_DEPTHS


_DIB_DEPTHS = tuple(bytes((bits, 0)) for bits in (1, 4, 8, 16, 24, 32))


def read_bmp(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes a BMP, or a DIB without a file header.

    Raises:
      ImageError: ``too_many_pixels``, ``truncated``, ``corrupt`` or ``unsupported_format``.
    """
    is_file = data[:2] == b"BM"
    start = int(unpack("<I", data, 10, _WHAT)[0]) if is_file else 0
    dib = read_dib(data, 14 if is_file else 0, start)
    check_pixels(dib.width, dib.height, options.max_pixels)
    rows = "top down" if dib.top_down else "bottom up"
    alpha = " + alpha" if dib.masks[3] else ""
    check_variant(f"{'bmp' if is_file else 'dib'} {dib.name} {dib.bits} bit{alpha}, {dib.coding}, {rows}")
    profile = dib.profile if options.color_profile == "convert" else None

    def decode() -> tuple[np.ndarray, bool]:
        pixels = dib_image(data, dib, start if is_file else dib.end)
        return finish(Image.fromarray(pixels) if dib.masks[3] else pixels, profile)

    pixels, converted = load(decode, "BMP", dib.width, dib.height)
    return Picture(pixels, dib.width, dib.height, "bmp" if is_file else "dib", converted=converted)


def read_dib(data: bytes, at: int, pixels_at: int = 0) -> Dib:
    """Reads the header at ``at``; ``pixels_at`` is the offset of the pixels that the file states, 0 if none."""
    (size,) = unpack("<I", data, at, _WHAT)
    name = _HEADERS.get(size)
    if name is None:
        raise refusal(Reason.UNSUPPORTED_FORMAT, f"a BMP header of {size} bytes is not supported")
    coding, used, profile = 0, 0, None
    masks: tuple[int, int, int, int] = (0, 0, 0, 0)
    if size == 12:
        width, height, _, bits = unpack("<HHHH", data, at + 4, _WHAT)
    else:
        width, height, _, bits = unpack("<iiHH", data, at + 4, _WHAT)
        part(data, at, size, _WHAT)
        if size >= 40:
            coding, _, _, _, used = unpack("<IIiiI", data, at + 16, _WHAT)
    end = at + size
    masks = _DEFAULT_MASKS.get(bits, masks)
    os2 = name.startswith("os/2")
    if coding in (3, 6) and not os2:
        red, green, blue = unpack("<III", data, at + 40, _WHAT)
        has_alpha = size >= 56 or coding == 6
        masks = red, green, blue, int(unpack("<I", data, at + 52, _WHAT)[0]) if has_alpha else 0
        end = max(end, at + (56 if coding == 6 else 52))
    if size == 124 and unpack("<I", data, at + 56, _WHAT)[0] == _EMBEDDED_PROFILE:
        offset, length = unpack("<II", data, at + 112, _WHAT)
        profile = data[at + offset : at + offset + length]
    colours, stride = (used or 1 << bits, 3 if size == 12 else 4) if bits <= 8 else (0, 4)
    if bits <= 8 and pixels_at:  # shorter palettes than the header promises are common
        colours = min(colours, max(0, pixels_at - end) // stride)
    palette = end, min(colours, 1 << bits if bits <= 8 else 0), stride
    if width < 1 or height == 0 or height == -(1 << 31):
        raise refusal(Reason.CORRUPT, f"the BMP has an invalid size of {width}×{height} pixels")
    label = f"os/2 coding {coding}" if os2 and coding > 2 else _CODINGS.get(coding, f"coding {coding}")
    end += colours * stride if bits <= 8 else used * 4
    return Dib(name, width, abs(height), bits, label, height < 0, masks, palette, profile, end)


def dib_image(data: bytes, dib: Dib, start: int) -> np.ndarray:
    """The pixels at ``start``: uint8[H, W, 3], RGB, or [H, W, 4] if there is a mask for alpha."""
    if dib.bits <= 8:
        offset, colours, stride = dib.palette
        table = part(data, offset, colours * stride, "the BMP's palette")
        palette = np.frombuffer(table, np.uint8).reshape(-1, stride)[:, 2::-1]
        if dib.coding.startswith("rle"):
            indices = decode_runs(data, start, dib.width, dib.height, dib.bits)
        else:
            indices = unpack_bits(_rows(data, dib, start), dib.bits, dib.width)
        return look_up(indices if dib.top_down else indices[::-1], np.ascontiguousarray(palette), "BMP")
    rows = _rows(data, dib, start)
    rows = rows if dib.top_down else rows[::-1]
    if dib.bits == 24:
        bgr = np.ascontiguousarray(rows[:, : 3 * dib.width]).reshape(dib.height, dib.width, 3)
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    size = dib.bits // 8
    values = np.ascontiguousarray(rows[:, : size * dib.width])
    if dib.masks in _BYTES:
        bgra = values.reshape(dib.height, dib.width, 4)
        return cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA if dib.masks[3] else cv2.COLOR_BGRA2RGB)
    numbers = values.view(f"<u{size}")
    return np.stack(
        [_masked(numbers, mask) for mask in (dib.masks if dib.masks[3] else dib.masks[:3])], axis=-1
    )


def _rows(data: bytes, dib: Dib, start: int) -> np.ndarray:
    """uint8[H, bytes], in the order of the file; each row is padded to a multiple of 4 bytes."""
    stride = -(-dib.width * dib.bits // 32) * 4
    used = -(-dib.width * dib.bits // 8)
    # The last row needs no padding.
    raw = part(data, start, stride * (dib.height - 1) + used, "the BMP's pixels")
    return np.frombuffer(raw.ljust(stride * dib.height, b"\0"), np.uint8).reshape(dib.height, stride)


def _masked(values: np.ndarray, mask: int) -> np.ndarray:
    """The bits of ``mask`` as 0..255, rounded to the nearest; a mask is one run of bits."""
    if not mask:
        return np.zeros(values.shape, np.uint8)
    low = (mask & -mask).bit_length() - 1
    top = mask >> low
    if top & (top + 1):
        raise refusal(Reason.CORRUPT, f"the BMP's mask {mask:#x} is not one run of bits")
    bits = top.bit_length()
    parts = (values >> low) & top
    if bits > 8:
        return (parts >> (bits - 8)).astype(np.uint8)
    scale = ((np.arange(top + 1) * 510 + top) // (2 * top)).astype(np.uint8)
    return scale[parts]

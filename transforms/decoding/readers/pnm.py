"""Reads PBM, PGM and PPM, as text and binary, up to 16 bits (Netpbm's manual pages)."""

from __future__ import annotations

import re

import numpy as np

from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.pillow_image import load
from beamlabel.transforms.decoding.picture.pillow_modes import finish
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.readers.binary import part
from beamlabel.transforms.records import Reason

_KINDS = {1: "pbm", 2: "pgm", 3: "ppm", 4: "pbm", 5: "pgm", 6: "ppm"}
_COMMENT = re.compile(rb"#[^\r\n]*")
_LONG_NUMBER = re.compile(rb"[1-9][0-9]{5}")
_SPACE = b" \t\n\v\f\r"
# White space and comments, then a number.
_FIELD = re.compile(rb"(?:[ \t\n\v\f\r]|#[^\r\n]*[\r\n])*([0-9]{1,10})(?=[ \t\n\v\f\r#]|\Z)")
_HEADER = re.compile(rb"P[1-6](?:[ \t\n\v\f\r]|#)")
# The first number must lie within this many bytes: searching further could take seconds and gigabytes.
_FIRST_NUMBER = 1 << 16
_CUT_HEADER = re.compile(rb"P[1-6](?:[ \t\n\v\f\r0-9]|#[^\r\n]*(?:[\r\n]|\Z))*\Z")


def is_pnm(data: bytes) -> bool:
    """Whether the data begin like a PBM, PGM or PPM, including its numbers."""
    if not _HEADER.match(data):
        return False
    return _FIELD.match(data, 2, _FIRST_NUMBER) is not None or _CUT_HEADER.match(data[:1024]) is not None


def read_pnm(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the first picture.

    Raises:
      ImageError: ``too_many_pixels``, ``truncated``, ``corrupt`` or ``unsupported_format``.
    """
    number = data[1] - ord("0")
    kind, is_text = _KINDS[number], number <= 3
    fields, position = _fields(data, 2 if kind == "pbm" else 3)
    width, height, top = (*fields, 1)[:3]
    if width < 1 or height < 1 or not 1 <= top <= 65535:
        raise refusal(
            Reason.CORRUPT,
            f"the {kind} is invalid: {width}×{height} pixels, largest value {top}",
        )
    check_pixels(width, height, options.max_pixels)
    depth = "" if kind == "pbm" else " 8 bit" if top < 256 else " 16 bit"
    check_variant(f"{kind}{depth}, {'text' if is_text else 'binary'}")

    def decode() -> tuple[np.ndarray, bool]:
        samples = 3 if kind == "ppm" else 1
        count = width * height * samples
        if is_text:
            values = _text_bits(data, position, count) if kind == "pbm" else _numbers(data, position, count)
        elif kind == "pbm":
            row = -(-width // 8)
            raw = np.frombuffer(part(data, position, row * height, "the picture"), np.uint8)
            values = np.unpackbits(raw.reshape(height, row), axis=1, count=width)
        else:
            size = 1 if top < 256 else 2
            binary = part(data, position, count * size, "the picture")
            values = np.frombuffer(binary, np.uint8 if size == 1 else ">u2")
        if kind == "pbm":
            return finish((1 - values.reshape(height, width)) * np.uint8(255), None)
        pixels = _scaled(values, top).reshape((height, width, 3) if samples == 3 else (height, width))
        return finish(pixels, None)

    pixels, converted = load(decode, "PPM", width, height)
    return Picture(pixels, width, height, "ppm", converted=converted)


def _fields(data: bytes, count: int) -> tuple[list[int], int]:
    """The header's numbers, and the offset of the pixels, after one white space."""
    position, fields = 2, []
    for _ in range(count):
        found = _FIELD.match(data, position)
        if found is None:
            cut = _CUT_HEADER.match(data[:1024]) is not None
            raise refusal(Reason.TRUNCATED if cut else Reason.CORRUPT, "the header lacks numbers")
        fields.append(int(found[1]))
        position = found.end()
    if position >= len(data):
        raise refusal(Reason.TRUNCATED, "the file ends after its header")
    return fields, position + 1


def _scaled(values: np.ndarray, top: int) -> np.ndarray:
    """Scales values of 0..top to 0..255: takes the upper 8 of 16 bits, otherwise rounds to the nearest."""
    if int(values.max(initial=0)) > top:
        raise refusal(Reason.CORRUPT, f"the value {int(values.max())} exceeds the largest, {top}")
    if top == 255:
        return values.astype(np.uint8)
    if top == 65535:
        return (values >> 8).astype(np.uint8)
    scale = ((np.arange(top + 1) * 510 + top) // (2 * top)).astype(np.uint8)
    return scale[values]


def _without_comments(data: bytes, position: int) -> bytes:
    text = data[position:]
    return _COMMENT.sub(b" ", text) if b"#" in text else text


def _text_bits(data: bytes, position: int, count: int) -> np.ndarray:
    """Ones and zeros, with or without white space between them."""
    text = _without_comments(data, position).translate(None, _SPACE)[:count]
    values = np.frombuffer(text, np.uint8) - ord("0")
    if values.size and int(values.max()) > 1:
        raise refusal(Reason.CORRUPT, "a pixel is neither 0 nor 1")
    if len(values) < count:
        raise refusal(Reason.TRUNCATED, f"the picture has {len(values)} pixels of {count}")
    return values


def _numbers(data: bytes, position: int, count: int) -> np.ndarray:
    """Numbers in digits; takes about 50 ns each."""
    text = _without_comments(data, position)
    if text.translate(None, _SPACE + b"0123456789"):
        raise refusal(Reason.CORRUPT, "the picture holds characters other than numbers")
    if _LONG_NUMBER.search(text):
        raise refusal(Reason.CORRUPT, "a value exceeds the largest")
    # No count is passed: with one, NumPy demands that all values exist.
    values = np.fromstring(text, np.uint32, sep=" ") if text.strip(_SPACE) else np.empty(0, np.uint32)
    if len(values) < count:
        raise refusal(Reason.TRUNCATED, f"the picture has {len(values)} values of {count}")
    return values[:count]

"""The fast road for JPEG: a header of our own, then libjpeg-turbo through simplejpeg.

The pixels equal Pillow's and ``tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")``'s. libjpeg fills what
is missing with gray and only warns; here each of its warnings is an error first (``strict=True``), and
only those known to be harmless send the image on to Pillow.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from beamlabel.transforms.decoding.options import Picture, check_pixels, refusal
from beamlabel.transforms.decoding.resize import Target, reduction
from beamlabel.transforms.records import Reason

# Frame markers: SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC). ITU-T T.81, table B.1.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START_OF_SCAN, _END_OF_IMAGE, _APP1 = 0xDA, 0xD9, 0xE1
# Markers that stand alone, without a length: TEM, RST0..RST7, SOI; and a stuffed zero, which is none.
_STANDALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
# In entropy-coded data FF is followed by a stuffed zero, a restart marker or a fill byte.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# libjpeg's warnings (jerror.h, JWRN_*) that mean missing or wrong pixels; the rest is harmless.
_TRUNCATED = ("Premature end", "premature end", "found marker 0xd9 instead of RST")
_CORRUPT = ("bad Huffman code", "bad arithmetic code", "instead of RST", "Inconsistent progression")


class JpegHeader(NamedTuple):
    """What stands before the first scan.

    Attributes:
      width, height: pixels as stored.
      components: 1 gray, 3 colour, 4 CMYK or YCCK.
      component_ids: one byte a component.
      progressive: whether several scans refine one another.
      orientation: EXIF, 1..8; 1 where there is none or the block is broken.
      first_scan: offset of the first start-of-scan marker.
    """

    width: int
    height: int
    components: int
    component_ids: bytes
    progressive: bool
    orientation: int
    first_scan: int


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes start as a JPEG (also MPO) does, or are cut within those bytes."""
    return data[:3] == b"\xff\xd8\xff" or data == b"\xff\xd8"


def decode_jpeg(data: bytes, target: Target, max_pixels: int) -> Picture | None:
    """Decodes a JPEG, in full or at 1/2, 1/4, 1/8 of its size where ``target`` allows it.

    Returns:
      The picture, or None where libjpeg-turbo refuses and Pillow has to be asked.

    Raises:
      ImageError: ``too_many_pixels``, ``truncated``, ``corrupt`` or ``unsupported_format``.
    """
    header = read_header(data)
    check_pixels(header.width, header.height, max_pixels)
    if header.progressive:
        _check_scans(data, header)
    factor = reduction(header.width, header.height, header.orientation, target)
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            "CMYK" if header.components == 4 else "RGB",
            min_height=-(-header.height // factor),
            min_width=-(-header.width // factor),
            min_factor=factor,
        )
    except ValueError as error:
        message = str(error)
        if any(sign in message for sign in _TRUNCATED):
            raise refusal(Reason.TRUNCATED, message) from error
        if any(sign in message for sign in _CORRUPT):
            raise refusal(Reason.CORRUPT, message) from error
        return None
    if header.components == 4:
        pixels = _cmyk_to_rgb(pixels)
    return Picture(pixels, header.width, header.height, "jpeg", header.orientation, factor)


def read_header(data: bytes) -> JpegHeader:
    """Walks the segments up to the first scan; some microseconds.

    Raises:
      ImageError: ``truncated`` where a segment or the first scan is missing, ``corrupt`` where there is
        no usable frame, ``unsupported_format`` for a height that only follows after the data (DNL).
    """
    frame: tuple[int, bytes] | None = None
    orientation: int | None = None
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            raise refusal(Reason.TRUNCATED, "the file ends within the JPEG header")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        if marker == _END_OF_IMAGE:
            raise refusal(Reason.TRUNCATED, "the JPEG ends before its first scan")
        start, end = position + 4, position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if end > len(data):
            raise refusal(Reason.TRUNCATED, "the file ends within the JPEG header")
        if marker == _START_OF_SCAN:
            return _header(frame, orientation or 1, position)
        if marker in _FRAMES and frame is None:
            frame = marker, data[start:end]
        elif marker == _APP1 and orientation is None and data[start : start + 6] == b"Exif\0\0":
            orientation = exif_orientation(data[start:end])
        position = max(end, start)


def _header(frame: tuple[int, bytes] | None, orientation: int, first_scan: int) -> JpegHeader:
    # Frame header: precision (8 bit), lines (16), samples a line (16), components (8), then 3 bytes each.
    if frame is None or len(frame[1]) < 6:
        raise refusal(Reason.CORRUPT, "the JPEG has no frame header")
    marker, body = frame
    height, width, components = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5]
    if height == 0:
        raise refusal(Reason.UNSUPPORTED_FORMAT, "a JPEG that states its height after the data (DNL)")
    if width == 0 or len(body) < 6 + 3 * components:
        raise refusal(Reason.CORRUPT, "the JPEG frame header is broken")
    ids = body[6 : 6 + 3 * components : 3]
    return JpegHeader(width, height, components, ids, marker in _PROGRESSIVE, orientation, first_scan)


def exif_orientation(block: bytes) -> int:
    """EXIF orientation, 1..8, of a block with or without ``Exif\\0\\0``; 1 where it can't be read."""
    exif = Image.Exif()
    try:
        exif.load(block)
        orientation = exif.get(0x0112, 1)
    except Exception:  # a broken EXIF block is not an error, however it is broken
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _check_scans(data: bytes, header: JpegHeader) -> None:
    """Raises ``truncated`` where a progressive file closes before every coefficient has its last bit.

    libjpeg takes such a file, cut between two scans, for a whole one.
    """
    missing = {component: set(range(64)) for component in header.component_ids}
    position = header.first_scan
    while position + 4 <= len(data) and data[position + 1] != _END_OF_IMAGE:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] == _START_OF_SCAN:
            # Components (8 bit), 2 bytes each, spectral start and end, successive bit positions (4 + 4).
            body = data[position + 4 : end]
            if len(body) >= 4 and len(body) == 4 + 2 * body[0] and body[-1] & 0x0F == 0:
                for component in body[1:-3:2]:
                    missing.get(component, set()).difference_update(range(body[-3], body[-2] + 1))
        found = _NEXT_MARKER.search(data, end)
        if found is None:
            break
        position = found.start()
    if any(missing.values()):
        raise refusal(Reason.TRUNCATED, "the progressive JPEG lacks its last scans")


def _cmyk_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """CMYK as JPEGs hold it (Adobe's way, 0 is full ink), uint8[H, W, 4], to RGB as Pillow does."""
    height, width = pixels.shape[:2]
    ink = Image.frombuffer("CMYK", (width, height), np.bitwise_not(pixels), "raw", "CMYK", 0, 1)
    return np.asarray(ink.convert("RGB"))

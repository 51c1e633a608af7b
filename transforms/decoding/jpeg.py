"""The fast path for JPEG: an own parser for the header, then libjpeg-turbo through simplejpeg.

The pixels equal those of Pillow and ``tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")``. libjpeg fills missing pixels
with gray and only warns. Here each of its warnings is an error first (``strict=True``), and only warnings known to be
harmless send the image on to Pillow.
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from PIL import Image

from beamlabel.transforms.decoding.picture.by_pillow import read_with_pillow
from beamlabel.transforms.decoding.picture.color import is_needless, to_srgb
from beamlabel.transforms.decoding.picture.jpeg_header import (
    JpegHeader,
    check_scans,
    has_several_scans,
    read_header,
    without_garbage,
)
from beamlabel.transforms.decoding.picture.limits import FAST_PROFILE_PIXELS, need_limits
from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.pillow_image import is_out_of_memory
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.resize import Target, reduction
from beamlabel.transforms.records import ImageError, Reason

# libjpeg's warnings (jerror.h, JWRN_*) that mean missing or wrong pixels; the others are harmless.
_TRUNCATED = ("Premature end", "premature end", "found marker 0xd9 instead of RST")
_CORRUPT = ("bad Huffman code", "bad arithmetic code", "instead of RST", "Inconsistent progression")

_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x(..)")
# Cameras pad their last scan with a few bytes before the end marker.
_FEW_BYTES = 64

_END = b"\xff\xd9"
# Trailers that cameras and phones append to a JPEG: a video (ISO base media, after a length of 4 bytes), another JPEG,
# a ZIP archive, blocks of Samsung and Google.
_TRAILER = re.compile(rb"(?s:....)ftyp|\xff\xd8\xff|PK\x03\x04|(?s:...)\x00(?=SEF[HT])|MotionPhoto_Data")
# This many equal bytes at the end are padding, not pixels.
_FILLING = 8
# Number of trailers to try; each costs one decode.
_TRIED = 4


# Upper bounds in nanoseconds: a scan of Huffman or arithmetic codes, for each pixel of a component; the steps after the
# scans, likewise; and each byte. Measured with scans that refine all coefficients and hold none, and with noise.
_HUFFMAN_NS, _ARITHMETIC_NS, _PIXEL_NS, _BYTE_NS = 1.0, 10.0, 4.0, 8.0
_FAST_SECONDS = 4.0
_FAST_BYTES = 16 << 20
# Decodes of a damaged file: as it is, with each possible end, and without the bytes between segments.
_MOST_TRIES = _TRIED + 4


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes start like a JPEG (or MPO), or end within its signature."""
    return data[:3] == b"\xff\xd8\xff" or data == b"\xff\xd8"


def jpeg_variant(header: JpegHeader) -> str:
    """The header's entry in the list of variants."""
    colours = {1: "gray", 3: "colour", 4: "cmyk"}.get(header.components, f"{header.components} components")
    if header.components == 4 and header.adobe is None:
        colours = "cmyk without Adobe's segment"  # readers disagree whether 0 is full ink
    return f"jpeg {header.coding} {header.precision} bit {colours}"


def decode_jpeg(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes a JPEG in full, or at 1/2, 1/4 or 1/8 of its size if the size in the options allows it.

    If libjpeg-turbo refuses a file for a harmless warning, Pillow decodes it in full.

    Raises:
      ImageError: ``too_many_pixels``, ``truncated``, ``corrupt`` or ``unsupported_format``.
      NeedsLimitsError: the image may take long.
    """
    header = read_header(data)
    check_pixels(header.width, header.height, options.max_pixels)
    check_variant(jpeg_variant(header))
    pictures = check_scans(data, header) if has_several_scans(data, header) else header.components
    target = Target(options.height, options.width, options.crop)
    factor = reduction(header.width, header.height, header.orientation, target)
    if header.coding == "lossless":
        factor = 1
    seconds = _seconds(header, pictures, len(data))
    if seconds > _FAST_SECONDS or _converts_many(header, factor, options):
        need_limits()
    try:
        pixels = _pixels(data, header, factor)
    except ValueError as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        # The next steps may take several tries, and read bytes that libjpeg has not seen yet.
        if seconds * _MOST_TRIES > _FAST_SECONDS or len(data) > _FAST_BYTES:
            need_limits()
        mended = _mended(data, header, factor, str(error))
        if mended is None:
            need_limits()  # Pillow also reads metadata, and does not stop at warnings
            size = header.width, header.height
            turn, profile = header.orientation, header.profile
            return read_with_pillow("JPEG", data, options, size, profile=profile, orientation=turn)
        pixels = mended
    pixels, converted = _to_rgb(pixels, header, options)
    return Picture(pixels, header.width, header.height, "jpeg", header.orientation, factor, converted)


def _seconds(header: JpegHeader, pictures: int, size: int) -> float:
    """CPU seconds of the slowest JPEG with this header, this many components in all scans, and this many bytes."""
    scan = _ARITHMETIC_NS if "arithmetic" in header.coding else _HUFFMAN_NS
    pixels = header.width * header.height
    return 1e-9 * (pixels * (scan * pictures + _PIXEL_NS * header.components) + _BYTE_NS * size)


def _converts_many(header: JpegHeader, factor: int, options: DecodeOptions) -> bool:
    """Whether a color profile must be applied to more pixels than the fast path allows."""
    if header.width * header.height <= FAST_PROFILE_PIXELS * factor * factor:
        return False
    return options.color_profile == "convert" and not is_needless(header.profile)


def _pixels(data: bytes, header: JpegHeader, factor: int) -> np.ndarray:
    """uint8[H, W, 3], or [H, W, 4] as stored; raises ``ValueError`` for any warning or error of libjpeg."""
    return simplejpeg.decode_jpeg(
        data,
        "CMYK" if header.components == 4 else "RGB",
        min_height=-(-header.height // factor),
        min_width=-(-header.width // factor),
        min_factor=factor,
    )


def _mended(data: bytes, header: JpegHeader, factor: int, message: str) -> np.ndarray | None:
    """The pixels of a JPEG that libjpeg refused with ``message``, if they are complete; None: try Pillow.

    Raises:
      ImageError: ``truncated`` or ``corrupt``.
    """
    whole = _without_end_marker(data, header, factor)
    if whole is not None:
        return whole
    if any(sign in message for sign in _TRUNCATED):
        raise refusal(Reason.TRUNCATED, message)
    if any(sign in message for sign in _CORRUPT):
        raise refusal(Reason.CORRUPT, message)
    if _EXTRANEOUS.search(message):
        # Between segments such bytes are harmless. After the scan they may follow a cut and count as pixels.
        try:
            return _pixels(without_garbage(data), header, factor)
        except ValueError as error:
            extraneous = _EXTRANEOUS.search(str(error))
            if extraneous and (int(extraneous[1]) > _FEW_BYTES or extraneous[2] != "d9"):
                raise refusal(Reason.CORRUPT, str(error)) from error
    return None


def _without_end_marker(data: bytes, header: JpegHeader, factor: int) -> np.ndarray | None:
    """The pixels of a JPEG that lacks only its end marker; None if pixels are missing too.

    The marker is put at the end of the data, or before a trailer. The trailer must be recognized by its first bytes:
    otherwise libjpeg would take it for pixels, in place of the missing ones.
    """
    for end in _ends(data, header.first_scan):
        try:
            closed = data[:end] + _END
            if has_several_scans(closed, header):
                check_scans(closed, header)
            return _pixels(closed, header, factor)
        except (ValueError, ImageError):
            continue
    return None


def _ends(data: bytes, first_scan: int) -> list[int]:
    """Offsets where the entropy-coded data may end: before a known trailer, before padding, at the end."""
    ends = []
    for found in _TRAILER.finditer(data, first_scan):
        ends.append(found.start())
        if len(ends) == _TRIED:
            break
    filling = len(data.rstrip(data[-1:]))
    if len(data) - filling >= _FILLING:  # padding of this length is never pixels
        # A zero may also be the second byte of a stuffed FF.
        return (
            [*ends, filling, filling + 1]
            if data[filling - 1 : filling + 1] == b"\xff\0"
            else [*ends, filling]
        )
    return [*ends, len(data.rstrip(b"\r\n"))]  # line breaks that a text-mode transfer appends


def _to_rgb(pixels: np.ndarray, header: JpegHeader, options: DecodeOptions) -> tuple[np.ndarray, bool]:
    """RGB pixels, and whether a color profile was applied.

    JPEGs store CMYK in Adobe's way: 0 is full ink. Without a profile, CMYK becomes RGB as in browsers and Pillow:
    ``(255 − ink) × (255 − black) / 255``.
    """
    profile = header.profile if options.color_profile == "convert" else None
    if header.components != 4 and is_needless(profile):
        return pixels, False
    if header.components == 4:
        height, width = pixels.shape[:2]
        ink = np.bitwise_not(pixels)
        image = Image.frombuffer("CMYK", (width, height), ink, "raw", "CMYK", 0, 1)
    else:
        image = Image.fromarray(pixels if header.components == 3 else np.ascontiguousarray(pixels[:, :, 0]))
    converted = to_srgb(image, profile)
    if converted is not None:
        return np.asarray(converted), True
    return (np.asarray(image.convert("RGB")) if header.components == 4 else pixels), False

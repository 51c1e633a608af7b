"""Pillow's road: every format it reads by itself, and the JPEGs that the fast road refuses."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from beamlabel.transforms.decoding import image_headers
from beamlabel.transforms.decoding.jpeg import exif_orientation
from beamlabel.transforms.decoding.options import Picture, check_pixels, refusal
from beamlabel.transforms.decoding.pillow_modes import to_rgb
from beamlabel.transforms.records import ImageError, Reason

# Signatures long enough that a file which starts so, and can't be opened, is a broken image and not
# something else.
_SIGNED = (
    *("PNG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG", "JPEG2000", "ICO", "CUR", "ICNS", "PSD", "QOI"),
    *("DDS", "BLP", "DCX", "FTEX", "MCIDAS", "MSP", "SUN", "XPM", "XVTHUMB", "BMP"),
)
# The rest have short signatures, plain words or none, and are asked last. Left out are formats that need
# external programs or a handler (EPS, WMF, FPX, MIC, BUFR, GRIB, HDF5, MPEG), and IMT, which takes text
# for an image.
_UNSIGNED = (
    *("PPM", "SGI", "PCX", "DIB", "FLI", "GBR", "PIXAR", "XBM", "FITS", "IM", "TGA", "PCD", "IPTC"),
    "SPIDER",
)
FORMATS = (*_SIGNED, *_UNSIGNED)

_END_OF_DATA = (EOFError, IndexError, struct.error)
_TRUNCATED = ("truncated", "not enough", "eof while", "end of file", "unexpected end", "incomplete")
_UNSUPPORTED = ("unsupported", "not supported", "cannot handle", "unknown", "unimplemented", "not available")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


# A decoded image takes up to 17 bytes a pixel on its way to RGB: large ones go one at a time in a process, so
# that a few hostile megabytes do not take the memory of all the loading threads at once.
_LARGE_PIXELS = 20_000_000
_large = threading.Lock()


def _new_lock() -> None:
    global _large
    _large = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


def decode_with_pillow(data: bytes, max_pixels: int, formats: Sequence[str] = FORMATS) -> Picture:
    """Decodes the first frame of an image of one of Pillow's ``formats``.

    The plugins are called directly: ``PIL.Image.open`` would hold images against the process-wide
    ``MAX_IMAGE_PIXELS``, which belongs to others, and hide why a plugin refused.

    Raises:
      ImageError: ``not_an_image``, ``truncated``, ``corrupt``, ``unsupported_format`` or
        ``too_many_pixels``; the last from the header alone.
    """
    name = image_headers.unreadable(data)
    if name is not None:
        raise refusal(Reason.UNSUPPORTED_FORMAT, f"{name} is not decoded")
    check_pixels(*image_headers.claimed_size(data), max_pixels)
    image = _open(data, formats)
    format_ = image.format or "unknown"
    check_pixels(*image.size, max_pixels)
    if format_ == "PNG":
        image_headers.check_png(data)
    elif format_ == "TIFF":
        image_headers.check_tiff(data)
    try:
        with _large if image.width * image.height > _LARGE_PIXELS else contextlib.nullcontext():
            image.load()
            pixels = to_rgb(_on_scale(image, data))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # plugins raise whatever the bytes lead them to
        raise _explain(error, format_, data) from error
    # Pillow turns TIFFs itself. Of PNGs the EXIF block is known only now.
    exif = image.info.get("exif") if format_ != "TIFF" else None
    orientation = exif_orientation(exif) if isinstance(exif, bytes) else 1
    format_ = "jpeg" if format_ == "MPO" else format_.lower()
    return Picture(pixels, *image.size, format_, orientation)


def _open(data: bytes, formats: Sequence[str]) -> Image.Image:
    """The image, its header read and nothing decoded (but for icons)."""
    Image.init()
    failure: ImageError | None = None
    if len(data) < 4:  # no signature says enough in fewer
        formats = ()
    prefix = data[:16].ljust(16, b"\0")
    for name in formats:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(prefix)
        if not accepted or isinstance(accepted, str):  # a string says what this build of Pillow lacks
            continue
        if name == "BMP" and data[15:18].strip(b"\0"):  # its header is no longer than 255 bytes: a text
            continue
        try:
            return factory(io.BytesIO(data), "")
        except MemoryError:
            raise
        except Exception as error:
            reason = _explain(error, name, data)
            if name in _SIGNED or (accept is not None and reason.reason is Reason.TRUNCATED):
                failure = failure or reason
    raise failure or refusal(Reason.NOT_AN_IMAGE, f"no known image format; starts with {data[:8]!r}")


def _on_scale(image: Image.Image, data: bytes) -> Image.Image:
    """Mends values that Pillow hands on as the file has them, though the mode's range is another."""
    if isinstance(image, TiffImageFile) and image.mode in ("I;16", "I;16B"):
        values = np.asarray(image)
        if image.tag_v2.get(_TIFF_BITS) == (12,):
            values = values << 4
        if image.tag_v2.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
            values = 65535 - values
        return Image.fromarray(values.astype(np.uint16))
    if image.format == "PNG" and "transparency" in image.info:
        # tRNS is in the units of the file; Pillow brings gray of 2 and 4 bits, and colour of 16, to 8 bits.
        depth, transparent = data[24], image.info["transparency"]
        if image.mode == "L" and depth in (2, 4):
            image.info["transparency"] = transparent * 255 // ((1 << depth) - 1)
        elif image.mode == "RGB" and depth == 16:
            image.info["transparency"] = tuple(value >> 8 for value in transparent)
    return image


def _explain(error: Exception, format_: str, data: bytes) -> ImageError:
    """What a plugin's exception means."""
    detail = f"{format_}: {error}"
    message = str(error).lower()
    if isinstance(error, _BOMBS):
        return refusal(Reason.TOO_MANY_PIXELS, detail)
    ended = isinstance(error, _END_OF_DATA) or isinstance(error.__cause__, _END_OF_DATA)
    if ended or any(sign in message for sign in _TRUNCATED):
        return refusal(Reason.TRUNCATED, detail)
    if format_ == "TIFF":
        try:
            image_headers.check_tiff(data)
        except ImageError as cut:
            return cut
    if format_ in image_headers.WHOLE and not image_headers.WHOLE[format_](data):
        return refusal(Reason.TRUNCATED, detail)
    if isinstance(error, NotImplementedError) or any(sign in message for sign in _UNSUPPORTED):
        return refusal(Reason.UNSUPPORTED_FORMAT, detail)
    return refusal(Reason.CORRUPT, detail)

"""Decodes encoded bytes to uint8[H, W, 3]: a pure function, described in ``docs/decoding.md``."""

from __future__ import annotations

from beamlabel.transforms.decoding.in_place import Decoded, decode_in_place
from beamlabel.transforms.decoding.picture.limits import NeedsLimitsError
from beamlabel.transforms.decoding.picture.options import DecodeOptions
from beamlabel.transforms.decoding.with_limits import decode_with_limits

__all__ = ["DECODER_VERSION", "DecodeOptions", "Decoded", "decode"]

DECODER_VERSION = "4"
"""Changes whenever the same bytes may yield other pixels; part of ``preprocessing_id``."""


def decode(data: bytes, options: DecodeOptions) -> Decoded:
    """Decodes one image and brings it to the size of ``options``. Thread-safe.

    JPEG, PNG and WebP are decoded in the calling thread if their headers show that this takes a few seconds at most.
    A child process with limits decodes everything else, to the same pixels.

    Raises:
      ImageError: stage ``decode`` and one of ``empty_file``, ``not_an_image``, ``truncated``, ``corrupt``,
        ``unsupported_format``, ``too_many_pixels``, ``decode_timeout`` and ``decode_error``.
      RuntimeError: no child process starts, or a bug in beamlabel raised an exception in one.
    """
    try:
        return decode_in_place(data, options)
    except NeedsLimitsError:
        return decode_with_limits(data, options)

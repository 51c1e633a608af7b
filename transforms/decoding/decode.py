"""Encoded bytes → uint8[H, W, 3]: a pure function, described in ``docs/decoding.md``."""

from __future__ import annotations

from beamlabel.transforms.decoding.in_place import Decoded, decode_in_place
from beamlabel.transforms.decoding.picture.limits import NeedsLimitsError
from beamlabel.transforms.decoding.picture.options import DecodeOptions
from beamlabel.transforms.decoding.with_limits import decode_with_limits

__all__ = ["DECODER_VERSION", "DecodeOptions", "Decoded", "decode"]

DECODER_VERSION = "4"
"""Changes whenever the same bytes may give other pixels; part of ``preprocessing_id``."""


def decode(data: bytes, options: DecodeOptions) -> Decoded:
    """Decodes one image and brings it to the size of ``options``; safe in many threads at once.

    JPEG, PNG and WebP are decoded in this thread, if their headers show that this takes a few seconds at the most;
    all else is decoded by a child process with limits, to the same pixels.

    Raises:
      ImageError: stage ``decode`` and one of ``empty_file``, ``not_an_image``, ``truncated``, ``corrupt``,
        ``unsupported_format``, ``too_many_pixels``, ``decode_timeout`` and ``decode_error``.
      RuntimeError: no child process comes up; or a fault of ours in one.
    """
    try:
        return decode_in_place(data, options)
    except NeedsLimitsError:
        return decode_with_limits(data, options)

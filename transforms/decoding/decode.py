"""Encoded bytes → uint8[H, W, 3]: a pure function, described in ``docs/decoding.md``."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from beamlabel.transforms.decoding.jpeg import decode_jpeg, is_jpeg
from beamlabel.transforms.decoding.options import DecodeOptions, refusal
from beamlabel.transforms.decoding.pillow_decode import decode_with_pillow
from beamlabel.transforms.decoding.resize import Target, fit, fit_reduced, swaps_sides
from beamlabel.transforms.records import Reason

__all__ = ["DECODER_VERSION", "DecodeOptions", "Decoded", "decode"]

DECODER_VERSION = "3"
"""Changes whenever the same bytes may give other pixels; part of ``preprocessing_id``."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded image and what is known of its source.

    Attributes:
      pixels: uint8[height, width, 3] of the options' size, RGB, C-contiguous.
      width, height: pixels of the source after EXIF rotation, before crop and resize.
      format: lower case, as ``jpeg`` or ``png``.
    """

    pixels: np.ndarray = field(repr=False)
    width: int
    height: int
    format: str


def decode(data: bytes, options: DecodeOptions) -> Decoded:
    """Decodes one image and brings it to the size of ``options``; safe in many threads at once.

    Raises:
      ImageError: stage ``decode`` and one of ``empty_file``, ``not_an_image``, ``truncated``, ``corrupt``,
        ``unsupported_format`` and ``too_many_pixels``.
    """
    if not data:
        raise refusal(Reason.EMPTY_FILE, "the file has no bytes")
    target = Target(options.height, options.width, options.crop)
    if is_jpeg(data):
        picture = decode_jpeg(data, target, options.max_pixels) or decode_with_pillow(
            data, options.max_pixels, ("JPEG",)
        )
    else:
        picture = decode_with_pillow(data, options.max_pixels)
    width, height = picture.width, picture.height
    if picture.reduction == 1:
        pixels = fit(picture.pixels, picture.orientation, target)
    else:
        pixels = fit_reduced(picture.pixels, picture.reduction, (width, height), picture.orientation, target)
    if swaps_sides(picture.orientation):
        width, height = height, width
    return Decoded(pixels, width, height, picture.format)

"""Decodes bytes to pixels in the calling thread, or raises if the image is unfit for the fast path."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from beamlabel.transforms.decoding.formats import read_picture
from beamlabel.transforms.decoding.jpeg import decode_jpeg, is_jpeg
from beamlabel.transforms.decoding.picture.options import DecodeOptions, refusal
from beamlabel.transforms.decoding.resize import Target, fit, fit_reduced, swaps_sides
from beamlabel.transforms.records import Reason


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded image and the facts about its source.

    Attributes:
      pixels: uint8[height, width, 3] of the size in the options, RGB, C-contiguous.
      width, height: pixels of the source after EXIF rotation, before crop and resize.
      format: lower case, such as ``jpeg`` or ``png``.
      color_converted: whether a color profile other than sRGB was applied.
    """

    pixels: np.ndarray = field(repr=False)
    width: int
    height: int
    format: str
    color_converted: bool = False


def decode_in_place(data: bytes, options: DecodeOptions) -> Decoded:
    """Decodes one image and brings it to the size of ``options``. Thread-safe.

    Raises:
      ImageError: see ``decode``.
      NeedsLimitsError: the image may take long or much memory; never raised within ``limits.in_place``.
    """
    if not data:
        raise refusal(Reason.EMPTY_FILE, "the file is empty")
    target = Target(options.height, options.width, options.crop)
    picture = decode_jpeg(data, options) if is_jpeg(data) else read_picture(data, options)
    width, height = picture.width, picture.height
    if picture.reduction == 1:
        pixels = fit(picture.pixels, picture.orientation, target)
    else:
        pixels = fit_reduced(picture.pixels, picture.reduction, (width, height), picture.orientation, target)
    if swaps_sides(picture.orientation):
        width, height = height, width
    return Decoded(pixels, width, height, picture.format, picture.converted)

"""Input and output of the decoders: ``DecodeOptions``, ``Picture``, and their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from beamlabel.transforms.records import ImageError, Reason, Stage

COLOR_PROFILE = ("convert", "ignore")
"""Allowed values of ``DecodeOptions.color_profile``."""

DEFAULT_DECODE_DEADLINE = 20.0
"""Seconds."""


@dataclass(frozen=True)
class DecodeOptions:
    """How to turn an encoded image into the module's input.

    Attributes:
      height, width: pixels of the result.
      crop: None stretches the whole image; a fraction in (0, 1] takes the central square whose side
        is that fraction of the short side, after EXIF rotation.
      max_pixels: images whose header claims more are refused before any decode.
      color_profile: ``convert`` brings pixels with a color profile to sRGB, as browsers do; ``ignore`` takes them as
        they are.
      decode_deadline: seconds of CPU time that a decode in a child process may take, see ``limits``; the fast path has
        its own bounds.

    Raises:
      ValueError: a value is out of range; the message names the option and the value.
    """

    height: int
    width: int
    crop: float | None = None
    max_pixels: int = 100_000_000
    color_profile: str = "convert"
    decode_deadline: float = DEFAULT_DECODE_DEADLINE

    def __post_init__(self) -> None:
        for name in ("height", "width", "max_pixels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")
        if self.color_profile not in COLOR_PROFILE:
            names = " or ".join(COLOR_PROFILE)
            raise ValueError(f"color_profile must be {names}, not {self.color_profile!r}")
        seconds = isinstance(self.decode_deadline, (int, float)) and not isinstance(
            self.decode_deadline, bool
        )
        if not seconds or not (math.isfinite(self.decode_deadline) and self.decode_deadline > 0):
            raise ValueError(
                f"decode_deadline must be a positive number of seconds, not {self.decode_deadline!r}"
            )
        if self.crop is None:
            return
        number = isinstance(self.crop, (int, float)) and not isinstance(self.crop, bool)
        if not number or not (math.isfinite(self.crop) and 0 < self.crop <= 1):
            raise ValueError(f"crop must be above 0 and at most 1, not {self.crop!r}")


class Picture(NamedTuple):
    """A decoded image as stored: not yet rotated, cropped or resized.

    Attributes:
      pixels: uint8[H, W, 3], RGB; a JPEG may be decoded at a fraction of its size.
      width, height: pixels of the stored image in full.
      format: lower case, such as ``jpeg``.
      orientation: EXIF orientation still to be applied, 1..8.
      reduction: the factor by which the sides of ``pixels`` are smaller: 1, 2, 4 or 8; they are rounded up.
      converted: whether a color profile was applied.
    """

    pixels: np.ndarray
    width: int
    height: int
    format: str
    orientation: int = 1
    reduction: int = 1
    converted: bool = False


def refusal(reason: Reason, detail: str) -> ImageError:
    """The error for an image that is not decoded; ``detail`` is cut to one line of 200 characters."""
    return ImageError(Stage.DECODE, reason, " ".join(detail.split())[:200])


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raises ``ImageError`` (``too_many_pixels``) if the header claims more than ``max_pixels``."""
    if width * height > max_pixels:
        raise refusal(Reason.TOO_MANY_PIXELS, f"{width}×{height} pixels exceed the limit of {max_pixels}")

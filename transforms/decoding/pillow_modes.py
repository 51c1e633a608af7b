"""What each of Pillow's modes becomes: RGB, 8 bits. The table in ``docs/decoding.md`` says it in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.options import refusal
from beamlabel.transforms.records import Reason


def to_rgb(image: Image.Image) -> np.ndarray:
    """The first frame of a loaded image as uint8[H, W, 3], RGB, transparent parts on white.

    Colour profiles and gamma are not applied (neither does TensorFlow).

    Raises:
      ImageError: ``unsupported_format`` for modes and value ranges that have no agreed way to 8 bits.
    """
    rule = MODES.get(image.mode)
    if rule is None:
        raise refusal(Reason.UNSUPPORTED_FORMAT, f"no way from Pillow's mode {image.mode} to RGB")
    return rule(image)


def _plain(image: Image.Image) -> np.ndarray:
    """Converted as it is; one transparent value or colour (PNG's tRNS, GIF) becomes white."""
    if "transparency" in image.info:
        return _on_white(image)
    # Converting RGB to RGB would copy it, which costs a quarter of the decode.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _on_white(image: Image.Image) -> np.ndarray:
    alpha = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(alpha, mask=alpha)
    return np.asarray(white)


def _premultiplied_gray_on_white(image: Image.Image) -> np.ndarray:
    return _on_white(image.convert("LA"))


def _gray_16_bit(image: Image.Image) -> np.ndarray:
    """The upper 8 of 16 bits, as libpng and Pillow do for 16 bit colour; ``convert`` would clip at 255."""
    values = np.asarray(image)
    gray = (values >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)


def _gray_32_bit(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise refusal(
            Reason.UNSUPPORTED_FORMAT, f"32 bit gray from {low} to {high}; only 0..65535 has an agreed range"
        )
    return _gray_16_bit(image)


def _no_range(image: Image.Image) -> np.ndarray:
    raise refusal(Reason.UNSUPPORTED_FORMAT, "floating point pixels have no agreed range")


MODES: Mapping[str, Callable[[Image.Image], np.ndarray]] = {
    "1": _plain,
    "L": _plain,
    "P": _plain,
    "RGB": _plain,
    "RGBX": _plain,
    "CMYK": _plain,
    "YCbCr": _plain,
    "LAB": _plain,
    "HSV": _plain,
    "LA": _on_white,
    "PA": _on_white,
    "RGBA": _on_white,
    "RGBa": _on_white,
    "La": _premultiplied_gray_on_white,
    "I;16": _gray_16_bit,
    "I;16L": _gray_16_bit,
    "I;16B": _gray_16_bit,
    "I;16N": _gray_16_bit,
    "I": _gray_32_bit,
    "F": _no_range,
}

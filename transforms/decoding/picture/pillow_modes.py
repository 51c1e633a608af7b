"""Converts each of Pillow's modes to RGB, 8 bits. ``docs/decoding.md`` has the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.picture.color import is_needless, to_srgb
from beamlabel.transforms.decoding.picture.options import refusal
from beamlabel.transforms.records import Reason


def finish(image: Image.Image | np.ndarray, profile: bytes | None) -> tuple[np.ndarray, bool]:
    """A loaded image as uint8[H, W, 3], sRGB, transparent parts on white, and whether ``profile`` was applied.

    Args:
      image: of one of Pillow's modes, or uint8[H, W] (gray) or uint8[H, W, 3] (RGB).
      profile: an ICC profile to apply.

    Raises:
      ImageError: ``unsupported_format`` for modes without an agreed conversion to 8 bits.
    """
    if isinstance(image, np.ndarray):
        if is_needless(profile):  # Pillow would copy it twice
            plain = np.ascontiguousarray(image)
            return (cv2.cvtColor(plain, cv2.COLOR_GRAY2RGB) if plain.ndim == 2 else plain), False
        image = Image.fromarray(np.ascontiguousarray(image))
    rule = MODES.get(image.mode)
    if rule is None:
        raise refusal(Reason.UNSUPPORTED_FORMAT, f"Pillow's mode {image.mode} cannot be converted to RGB")
    image = rule(image)
    converted = to_srgb(image, profile)
    image = image if converted is None else converted
    if image.mode in ("RGBA", "LA"):
        image = _on_white(image)
    # Converting RGB to RGB would copy it, which costs a quarter of the decode.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), converted is not None


def _plain(image: Image.Image) -> Image.Image:
    """The image with its single transparent value or color (PNG's tRNS, GIF) as alpha, if it has one."""
    return image.convert("RGBA") if "transparency" in image.info else image


def _to(mode: str) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.convert("RGBA" if "transparency" in image.info else mode)


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, "white")
    alpha = image if image.mode == "RGBA" else image.convert("RGBA")
    white.paste(alpha, mask=alpha)
    return white


def _gray_16_bit(image: Image.Image) -> Image.Image:
    """The upper 8 of 16 bits, as libpng and Pillow do for 16-bit color; ``convert`` would clip at 255."""
    values = np.asarray(image)
    gray = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return gray


MODES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "1": _to("L"),
    "L": _plain,
    "P": _to("RGB"),
    "RGB": _plain,
    "RGBX": _to("RGB"),
    "CMYK": _plain,
    "YCbCr": _to("RGB"),
    "LAB": _to("RGB"),
    "LA": _plain,
    "PA": _to("RGBA"),
    "RGBA": _plain,
    "RGBa": _to("RGBA"),
    "La": _to("LA"),
    "I;16": _gray_16_bit,
}

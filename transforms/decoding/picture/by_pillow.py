"""Decodes with one of Pillow's plugins, for readers that have already read the header."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.picture.exif import exif_orientation
from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.pillow_image import load
from beamlabel.transforms.decoding.picture.pillow_modes import finish
from beamlabel.transforms.records import Reason


def open_plugin(name: str, data: bytes) -> Image.Image:
    """Opens the data with one plugin.

    ``PIL.Image.open`` would check images against the process-wide ``MAX_IMAGE_PIXELS``, which is not ours to set, and
    hide the reason why a plugin refused.
    """
    Image.init()
    if name not in Image.OPEN:
        raise refusal(Reason.UNSUPPORTED_FORMAT, f"this build of Pillow does not decode {name}")
    image = Image.OPEN[name][0](io.BytesIO(data), "")
    assert isinstance(image, Image.Image)
    return image


def read_with_pillow(
    name: str,
    data: bytes,
    options: DecodeOptions,
    size: tuple[int, int] | None,
    *,
    profile: bytes | None = None,
    orientation: int | None = 1,
    is_whole: Callable[[], bool] | None = None,
    mend: Callable[[Image.Image], Image.Image] | None = None,
) -> Picture:
    """Decodes the first frame with the plugin ``name``.

    Args:
      name: Pillow's name of the format.
      data: the file.
      options: for ``color_profile``.
      size: width and height from the header; Pillow must find the same. None: Pillow's own.
      profile: an ICC profile; None: the profile that the plugin finds, if any.
      orientation: EXIF orientation; None: the orientation that the plugin finds.
      is_whole: see ``pillow_image.load``.
      mend: called with the loaded image; returns the image to use.
    """

    turn = orientation or 1

    def decode() -> tuple[np.ndarray, bool]:
        nonlocal turn
        image = open_plugin(name, data)
        check_pixels(*image.size, options.max_pixels)
        if size is not None and image.size != size:
            sizes = f"{image.width}×{image.height} pixels, not {size[0]}×{size[1]}"
            raise refusal(Reason.CORRUPT, f"{name}: {sizes} as in its header")
        image.load()
        exif = image.info.get("exif")
        if orientation is None and isinstance(exif, bytes):
            turn = exif_orientation(exif)
        found = profile or image.info.get("icc_profile")
        used = found if options.color_profile == "convert" and isinstance(found, bytes) else None
        return finish(image if mend is None else mend(image), used)

    pixels, converted = load(decode, name, *(size or (0, 0)), is_whole)
    height, width = pixels.shape[:2]
    check_pixels(width, height, options.max_pixels)
    return Picture(pixels, width, height, name.lower(), turn, converted=converted)

"""Reads DDS and QOI: headers here, pixels through Pillow."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from beamlabel.transforms.decoding.picture.by_pillow import read_with_pillow
from beamlabel.transforms.decoding.picture.options import DecodeOptions, Picture, check_pixels, refusal
from beamlabel.transforms.decoding.picture.pillow_image import load
from beamlabel.transforms.decoding.picture.pillow_modes import finish
from beamlabel.transforms.decoding.picture.variants import check_variant
from beamlabel.transforms.decoding.readers.binary import part, unpack
from beamlabel.transforms.records import Reason

_FOUR_CC, _ALPHA = 4, 1
# DXGI_FORMAT: BC1, BC2, BC3, BC7, each plain and for sRGB.
_DXGI = {71: "BC1", 72: "BC1", 74: "BC2", 75: "BC2", 77: "BC3", 78: "BC3", 98: "BC7", 99: "BC7"}
_TEXTURE_2D = 3


def read_dds(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes the largest level of a DDS (Microsoft, "DDS_HEADER")."""
    what = "the DDS's header"
    size, _, height, width = unpack("<4I", data, 4, what)
    flags, four_cc, bits, *masks = unpack("<I4sI4I", data, 80, what)
    _, caps2 = unpack("<2I", data, 108, what)
    if size != 124 or width < 1 or height < 1:
        raise refusal(
            Reason.CORRUPT,
            f"the DDS is invalid: {width}×{height} pixels, header of {size} bytes",
        )
    check_pixels(width, height, options.max_pixels)
    if flags & _FOUR_CC:
        kind = four_cc.decode("latin-1").strip("\0")
        if four_cc == b"DX10":
            number, dimension, _, layers = unpack("<4I", data, 128, what)
            flat = dimension == _TEXTURE_2D and layers == 1
            kind = "DX10 " + (_DXGI.get(number, f"format {number}") if flat else "of several surfaces")
    else:
        kind = f"{bits} bit, masks " + "/".join(f"{mask:x}" for mask in masks[: 4 if flags & _ALPHA else 3])
    check_variant(f"dds {'cube or volume ' if caps2 else ''}{kind}")
    if flags & _FOUR_CC:
        return read_with_pillow("DDS", data, options, (width, height))

    def decode() -> tuple[np.ndarray, bool]:
        # Both masks in the list store blue first. Pillow's decoder of these is written in Python, so it is not used.
        raw = part(data, 4 + size, width * height * bits // 8, "the DDS's pixels")
        pixels = np.frombuffer(raw, np.uint8).reshape(height, width, bits // 8)
        if bits == 24:
            return finish(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), None)
        return finish(Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)), None)

    pixels, converted = load(decode, "DDS", width, height)
    return Picture(pixels, width, height, "dds", converted=converted)


def read_qoi(data: bytes, options: DecodeOptions) -> Picture:
    """Decodes a QOI (The Quite OK Image Format, 1.0). Pillow's decoder is Python: about 2 s for a megapixel."""
    width, height, channels, colours = unpack(">IIBB", data, 4, "the QOI's header")
    if width < 1 or height < 1:
        raise refusal(Reason.CORRUPT, f"the QOI has an invalid size of {width}×{height} pixels")
    check_pixels(width, height, options.max_pixels)
    check_variant(f"qoi {channels} channels, colour space {colours}")
    return read_with_pillow("QOI", data, options, (width, height))

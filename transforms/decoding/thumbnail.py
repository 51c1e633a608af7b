"""Encodes the module's pixels as a small JPEG for people to look at."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

MAX_SIDE = 160
"""Maximum number of pixels on the short side."""

MAX_BYTES = 8 << 10

# Photographs fit with the first; only noise needs the others.
_QUALITIES = (75, 50, 25, 5)


def thumbnail(pixels: np.ndarray) -> bytes:
    """Encodes uint8[H, W, 3], RGB, as JPEG: 0.1 ms.

    The picture is shrunk by a whole factor until its short side has at most ``MAX_SIDE`` pixels. Its quality is lowered
    until it has at most ``MAX_BYTES``; only pictures many times as long as high may exceed that.
    """
    height, width = pixels.shape[:2]
    factor = -(-min(height, width) // MAX_SIDE)
    if factor > 1:
        size = max(width // factor, 1), max(height // factor, 1)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    pixels = np.ascontiguousarray(pixels)
    for quality in _QUALITIES:
        data = bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling="420"))
        if len(data) <= MAX_BYTES:
            break
    return data

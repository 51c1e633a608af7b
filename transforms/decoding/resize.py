"""Orientation, crop and resize: from the stored picture to the module's input size."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from beamlabel.transforms.worker.allocators import empty_pixels

# The caller decodes many images in parallel, so OpenCV must not start threads of its own.
cv2.setNumThreads(1)

# EXIF orientation → (transpose first, then flip by OpenCV's code: 1 left-right, 0 top-bottom, -1 both).
_TURNS: dict[int, tuple[bool, int | None]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}

# Sources up to this size are decoded in full: a reduced decode would cost accuracy and save little time.
_FULL_DECODE_PIXELS = 2_000_000
# Minimum number of decoded pixels per side of a target pixel; benchmarks/scale.md states the cost of fewer.
_MIN_OVERSAMPLING = 3.0


class Target(NamedTuple):
    """The size of the result in pixels, and the crop (see ``DecodeOptions``)."""

    height: int
    width: int
    crop: float | None = None


def swaps_sides(orientation: int) -> bool:
    """Whether the EXIF orientation turns width into height."""
    return orientation in (5, 6, 7, 8)


def crop_side(width: int, height: int, crop: float) -> int:
    """Side of the central square in pixels: ``crop`` × the short side, rounded half up, at least 1."""
    return max(1, int(crop * min(width, height) + 0.5))


def reduction(width: int, height: int, orientation: int, target: Target) -> int:
    """The factor by which decoding may reduce a JPEG of ``width`` × ``height`` (as stored): 1, 2, 4 or 8.

    Images above 2 megapixels are reduced as long as each side of the used region keeps at least 3 times the pixels of
    the side that it maps to.
    """
    if width * height <= _FULL_DECODE_PIXELS:
        return 1
    if swaps_sides(orientation):
        width, height = height, width
    if target.crop is not None:
        width = height = crop_side(width, height, target.crop)
    oversampling = min(width / target.width, height / target.height)
    return next((factor for factor in (8, 4, 2) if oversampling >= _MIN_OVERSAMPLING * factor), 1)


def fit(pixels: np.ndarray, orientation: int, target: Target) -> np.ndarray:
    """Rotates, crops and resizes uint8[h, w, 3] to uint8[target.height, target.width, 3], C-contiguous.

    The crop is the central square of the upright picture, with its corner rounded down. The resize is bilinear with
    half-pixel centers and without antialiasing, like ``tf.image.resize(method="bilinear")``. A picture of the right
    size keeps its pixels. Rotation precedes the resize, since OpenCV's fixed-point passes do not commute with a
    transposition (8 % of the values differ by one). Parts outside the crop are not rotated.
    """
    transpose, flip = _TURNS.get(orientation, (False, None))
    if target.crop is not None:
        pixels = _central_square(pixels, transpose, flip, target.crop)
    if transpose:
        pixels = cv2.transpose(pixels)
    if flip is not None:
        pixels = cv2.flip(pixels, flip)
    if pixels.shape[:2] != (target.height, target.width):
        resized = empty_pixels(target.height, target.width)
        cv2.resize(pixels, (target.width, target.height), resized, interpolation=cv2.INTER_LINEAR)
        return resized
    return np.ascontiguousarray(pixels)


def resized(pixels: np.ndarray, target: Target) -> np.ndarray:
    """Resizes uint8[H, W, 3] to uint8[height, width, 3]; returns the same array if the size is right already."""
    if pixels.shape[:2] == (target.height, target.width):
        return pixels
    return fit(np.ascontiguousarray(pixels), 1, target)


def fit_reduced(
    pixels: np.ndarray, factor: int, size: tuple[int, int], orientation: int, target: Target
) -> np.ndarray:
    """Does what ``fit`` does, for a picture of ``size`` (width, height as stored) that was reduced by ``factor``.

    Each target pixel is sampled at the place where ``fit`` would find it in the full picture, to 1/32 of a reduced
    pixel: neither a last column or row that stands for less than ``factor`` nor the rounding of a crop shifts it. The
    interpolation is cubic, because these pixels are averages already: a bilinear mean would blur a second time what
    ``fit`` takes from single pixels.
    """
    transpose, flip = _TURNS.get(orientation, (False, None))
    width, height = size[::-1] if transpose else size
    left, top, across, down = 0, 0, width, height
    if target.crop is not None:
        across = down = crop_side(width, height, target.crop)
        left, top = (width - across) // 2, (height - down) // 2
    # Edges of the region in reduced pixels: first and last along each axis of the upright picture.
    x0, x1 = left / factor, (left + across) / factor
    y0, y1 = top / factor, (top + down) / factor
    if flip in (1, -1):
        x0, x1 = width / factor - x0, width / factor - x1
    if flip in (0, -1):
        y0, y1 = height / factor - y0, height / factor - y1
    step_x, step_y = (x1 - x0) / target.width, (y1 - y0) / target.height
    # Maps a target pixel (x, y, 1), whose center lies half a pixel further, to the reduced one.
    rows = np.array([[step_x, 0, x0 + (step_x - 1) / 2], [0, step_y, y0 + (step_y - 1) / 2]])
    upright = empty_pixels(target.height, target.width)
    cv2.warpAffine(
        pixels,
        rows[::-1] if transpose else rows,
        (target.width, target.height),
        upright,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return upright


def _central_square(pixels: np.ndarray, transpose: bool, flip: int | None, crop: float) -> np.ndarray:
    """A view of the part of the stored picture that becomes the central square once it is upright."""
    height, width = pixels.shape[1::-1] if transpose else pixels.shape[:2]
    side = crop_side(width, height, crop)
    left, top = (width - side) // 2, (height - side) // 2
    if flip in (1, -1):
        left = width - side - left
    if flip in (0, -1):
        top = height - side - top
    if transpose:
        left, top = top, left
    return pixels[top : top + side, left : left + side]

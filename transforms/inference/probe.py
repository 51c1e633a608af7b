"""Fixed images for trying a module before use, so that every run decides alike, and the criteria for equal
answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from beamlabel.transforms.inference.artifact import FEATURES, LOGITS, ModuleError

PROBE_IMAGES = 4
_SEED = 20180614
_COARSE = 6
_NOISE = 12.0
# Largest difference that passes, relative to the largest value expected.
_TOLERANCE = 1e-3
# How much worse the best class may be, by the expected logits and relative to the largest: only rounding.
_TIE = 1e-4


def probe_batch(height: int, width: int) -> np.ndarray:
    """Four images that resemble photographs a little: uint8[4, height, width, 3], RGB.

    They are large soft patches of color (a 6×6 random grid, interpolated bilinearly) under a little noise. Plain noise
    drives many networks into one corner of their output, where errors would not show.
    """
    random = np.random.default_rng(_SEED)
    coarse = random.uniform(0, 255, (PROBE_IMAGES, _COARSE, _COARSE, 3))
    smooth = _interpolate(_interpolate(coarse, 1, height), 2, width)
    noisy = smooth + random.normal(0, _NOISE, smooth.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def extreme_batch(height: int, width: int) -> np.ndarray:
    """Images unlike any photograph, with extreme answers: uint8[8, height, width, 3], RGB.

    They are black, white, red, green, blue, a chessboard, a slope and noise.
    """
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    plain = [np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)) for colour in colours]
    rows, columns = np.indices((height, width))
    chessboard = ((rows + columns) % 2 * 255).astype(np.uint8)
    slope = np.rint(np.linspace(0, 255, width)).astype(np.uint8)[None, :] + np.zeros((height, 1), np.uint8)
    noise = np.random.default_rng(_SEED).integers(0, 256, (height, width, 3), dtype=np.uint8)
    grey = [np.repeat(one[:, :, None], 3, axis=2) for one in (chessboard, slope)]
    return np.stack([*plain, *grey, noise])


def check_outputs(
    expected: Sequence[np.ndarray | None],
    found: Sequence[np.ndarray | None],
    *,
    tolerance: float = _TOLERANCE,
    tie: float = _TIE,
    cause: str = "compilation",
) -> None:
    """Checks logits and features, either of which may be absent; see ``check_equal``."""
    for name, before, after in zip((LOGITS, FEATURES), expected, found, strict=True):
        if before is not None and after is not None:
            check_equal(name, before, after, tolerance=tolerance, tie=tie, cause=cause)


def check_equal(
    name: str,
    expected: np.ndarray,
    found: np.ndarray,
    *,
    tolerance: float = _TOLERANCE,
    tie: float = _TIE,
    least_scale: float = 0.0,
    cause: str = "compilation",
) -> None:
    """Refuses outputs, float32[N, D], that differ from the expected ones.

    Args:
      name: kind of output, ``logits`` or ``features``.
      expected, found: the two outputs.
      tolerance: largest difference allowed, relative to the largest value expected.
      tie: how much worse the best class may be by the expected logits, relative to the largest value expected.
      least_scale: scale to use if the expected values are smaller: for sums whose terms cancel, which have rounding
        errors relative to the terms.
      cause: the difference between the two computations, for the message.

    Raises:
      ModuleError: the expected values are not finite, or the two are not equal.
    """
    if not np.all(np.isfinite(expected)):
        raise ModuleError(f"its {name} are not finite numbers on ordinary images")
    scale = max(float(np.abs(expected).max()), least_scale, float(np.finfo(np.float32).tiny))
    change = difference(expected, found, least_scale)
    # Not `change > tolerance`, which NaN would pass.
    if not change <= tolerance:
        raise ModuleError(f"{cause} changed its {name} by {change:.2g} (relative), more than {tolerance}")
    if name == LOGITS:
        chosen = np.take_along_axis(expected, found.argmax(axis=1)[:, None], axis=1)[:, 0]
        if np.any(expected.max(axis=1) - chosen > tie * scale):
            raise ModuleError(f"{cause} changed its best class")


def difference(expected: np.ndarray, found: np.ndarray, least_scale: float = 0.0) -> float:
    """The largest difference of two arrays, relative to the largest value expected; NaN if there is a NaN."""
    scale = max(float(np.abs(expected).max()), least_scale, float(np.finfo(np.float32).tiny))
    return float(np.abs(expected - found).max()) / scale


def _interpolate(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    places = np.linspace(0, values.shape[axis] - 1, size)
    below = np.minimum(places.astype(int), values.shape[axis] - 2)
    weight = (places - below).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return np.take(values, below, axis) * (1 - weight) + np.take(values, below + 1, axis) * weight

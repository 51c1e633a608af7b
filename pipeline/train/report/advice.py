"""Advice from the learning curve: whether more truth would help."""

from __future__ import annotations

import math
from collections.abc import Sequence

from beamlabel.pipeline.train.findings.findings import CurvePoint

# Fewer points would follow one lucky draw, more would include the steep beginning.
_LAST_POINTS = 3
# Doubling the truth takes days of work, which a smaller gain does not justify.
_MIN_GAIN = 0.005
# Above this accuracy, the remaining errors are mostly mistakes in the truth, or chance.
_NEAR_ALL = 0.98


def gain_by_doubling(curve: Sequence[CurvePoint]) -> float | None:
    """The gain in accuracy from doubling the truth, at the end of the curve: the slope over log2(images).

    Fits a least-squares line through the last three points; None for fewer than two different amounts.
    """
    known = _known(curve)[-_LAST_POINTS:]
    if len(known) < 2:
        return None
    amounts = [math.log2(images) for images, _ in known]
    mean_amount = sum(amounts) / len(known)
    mean_value = sum(value for _, value in known) / len(known)
    spread = sum((amount - mean_amount) ** 2 for amount in amounts)
    rise = sum(
        (amount - mean_amount) * (value - mean_value)
        for amount, (_, value) in zip(amounts, known, strict=True)
    )
    return rise / spread


def curve_advice(curve: Sequence[CurvePoint]) -> str | None:
    """A description of the curve's end with advice; None if the curve is too short."""
    gain = gain_by_doubling(curve)
    if gain is None:
        return None
    known = _known(curve)[-_LAST_POINTS:]
    last = max((point for point in curve if point.images == known[-1][0]), key=lambda point: point.images)
    images, value = last.accuracy.images, known[-1][1]
    if value >= _NEAR_ALL:
        return (
            f"Nearly all of {images:,} test images are right with all of the truth ({100 * value:.1f} %). More truth "
            "can only confirm that."
        )
    uncertainty = ((last.accuracy.high or 0.0) - (last.accuracy.low or 0.0)) / 2
    is_sure = abs(value - known[0][1]) > uncertainty
    change = f"{100 * gain:+.1f}".replace("-", "−")
    doubled = f"doubling the truth changed the accuracy by {change} points"
    if not is_sure:
        doubled += f", but {images:,} test images measure that only to ± {100 * uncertainty:.1f} points"
    if gain >= _MIN_GAIN:
        return (
            f"The curve {'still rises' if is_sure else 'seems to rise'} at its end: {doubled}. More truth "
            f"{'would' if is_sure else 'may'} help."
        )
    if gain > -_MIN_GAIN:
        return (
            f"The curve is flat at its end: {doubled}. More truth of the same kind would hardly help. Look at "
            "the likely mistakes in the truth and the confused classes, or train the base too, with --fine_tune."
        )
    return (
        f"The curve {'falls' if is_sure else 'seems to fall'} at its end: {doubled}. Look at the likely mistakes in "
        "the truth before you add more."
    )


def _known(curve: Sequence[CurvePoint]) -> list[tuple[int, float]]:
    """(images, accuracy) by rising amounts, one for each amount."""
    points = {
        point.images: point.accuracy.value
        for point in curve
        if point.images > 0 and point.accuracy.value is not None
    }
    return sorted(points.items())

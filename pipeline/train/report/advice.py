"""What a learning curve says: whether more truth would help."""

from __future__ import annotations

import math
from collections.abc import Sequence

from beamlabel.pipeline.train.findings.findings import CurvePoint

# Fewer points at the end follow one lucky draw, more of them the steep beginning.
_LAST_POINTS = 3
# A twice as large truth costs a person days; what it brings below this is not worth them.
_MIN_GAIN = 0.005


def gain_by_doubling(curve: Sequence[CurvePoint]) -> float | None:
    """The rise of the accuracy by twice the truth, at the end of the curve: the slope over log2(images).

    A line of least squares through the last three points; None of fewer than two different amounts.
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
    """A sentence that says whether more truth would help; None if the curve cannot tell."""
    gain = gain_by_doubling(curve)
    if gain is None:
        return None
    known = _known(curve)[-_LAST_POINTS:]
    last = max((point for point in curve if point.images == known[-1][0]), key=lambda point: point.images)
    uncertainty = ((last.accuracy.high or 0.0) - (last.accuracy.low or 0.0)) / 2
    rise = known[-1][1] - known[0][1]
    at_the_end = (
        f"At the end of the curve, twice the truth changed the accuracy by {100 * gain:+.1f} points".replace(
            "-", "−"
        )
    )
    if gain < _MIN_GAIN:
        return (
            f"More truth of the same kind would hardly help. {at_the_end}. Look at the likely mistakes in the truth "
            "and at the confused classes, or fine-tune the base with --fine_tune."
        )
    if rise > uncertainty:
        return f"More truth would help. {at_the_end}."
    return (
        f"More truth may help. {at_the_end}, which is less than {last.accuracy.images:,} test images can tell "
        f"(± {100 * uncertainty:.1f} points)."
    )


def _known(curve: Sequence[CurvePoint]) -> list[tuple[int, float]]:
    """(images, accuracy) by rising amounts, each amount once."""
    points = {
        point.images: point.accuracy.value
        for point in curve
        if point.images > 0 and point.accuracy.value is not None
    }
    return sorted(points.items())

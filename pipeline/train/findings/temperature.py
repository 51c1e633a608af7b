"""Temperature scaling: the divisor of the logits that makes scores match accuracy.

Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2: https://arxiv.org/abs/1706.04599. If all
images are right, as with a few easy ones, the sharpest scores would fit best. Therefore the targets are those of
Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2.2: after n images no target exceeds
(n + 1) / (n + 2).
"""

from __future__ import annotations

import math

import numpy as np

THRESHOLD = 0.5
"""Least probability of a class that counts as predicted, if an image may have several classes."""

_LOW, _HIGH = 0.05, 20.0


def temperature_of(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The temperature from 0.05 to 20 with the least loss against smoothed targets, and that loss.

    Args:
      logits: float32[N, C].
      targets: int32[N], or uint8[N, C] for several classes per image.
    """
    from scipy.optimize import minimize_scalar

    doubt = 1 / (len(targets) + 2)
    found = minimize_scalar(
        lambda power: loss_of(logits * np.float32(math.exp(-power)), targets, doubt),
        bounds=(math.log(_LOW), math.log(_HIGH)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return math.exp(found.x), float(found.fun)


def loss_of(logits: np.ndarray, targets: np.ndarray, doubt: float = 0.0) -> float:
    """Mean cross entropy; for several classes per image, the binary one summed over the classes.

    Args:
      logits: float32[N, C].
      targets: int32[N], or uint8[N, C] for several classes per image.
      doubt: share of a target that is spread evenly over the other classes.
    """
    if targets.ndim == 2:
        losses = np.logaddexp(0, logits) - logits * (targets * (1 - 2 * doubt) + doubt)
        return float(losses.sum(axis=1).mean(dtype=np.float64))
    highest = logits.max(axis=1)
    sums = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest
    true = logits[np.arange(len(targets)), targets]
    others = (logits.sum(axis=1) - true) / max(logits.shape[1] - 1, 1)
    return float((sums - (1 - doubt) * true - doubt * others).mean(dtype=np.float64))


def probabilities(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """float32[N, C]: softmax, or sigmoid for several classes per image."""
    if multi_label:
        with np.errstate(over="ignore"):
            return (1 / (1 + np.exp(-logits))).astype(np.float32)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

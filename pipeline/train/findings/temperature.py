"""Temperature scaling: by which number logits are divided, so that scores are as sure as they are right.

Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2: https://arxiv.org/abs/1706.04599. If all images
are right, as of a few that are easy, the sharpest scores would fit best. So the targets are those of Platt,
Probabilistic Outputs for Support Vector Machines, 1999, section 2.2: after n images nobody is surer than
(n + 1) / (n + 2).
"""

from __future__ import annotations

import math

import numpy as np

THRESHOLD = 0.5
"""Of the probability of each class, if an image may have several."""

_LOW, _HIGH = 0.05, 20.0


def temperature_of(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The temperature from 0.05 to 20 with the least loss against smoothed targets, and that loss.

    Args:
      logits: float32[N, C].
      targets: int32[N], or uint8[N, C] of several classes an image.
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
    """Mean cross entropy; of several classes an image the sum over the classes of the binary one.

    Args:
      logits: float32[N, C].
      targets: int32[N], or uint8[N, C] of several classes an image.
      doubt: the share of a target that is given to the other classes, all alike.
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
    """float32[N, C]: softmax, or sigmoid of several classes an image."""
    if multi_label:
        with np.errstate(over="ignore"):
            return (1 / (1 + np.exp(-logits))).astype(np.float32)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

"""The head of an own module: a linear layer on the base's features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamlabel.transforms.inference.top_k import l2_normalized

SOFTMAX, SIGMOID = "softmax", "sigmoid"


@dataclass(frozen=True, eq=False)
class Head:
    """Computes logits from features: ``features @ kernel + bias``.

    Standardization of the features and the temperature are folded into both.

    Attributes:
      kernel: float32[D, C].
      bias: float32[C].
      scores: ``softmax`` if an image has one class, ``sigmoid`` if it may have several.
      normalizes: whether features are scaled to L2 length 1 first, because the head was trained on such.

    Raises:
      ValueError: shapes or dtypes do not fit, or a weight is not finite.
    """

    kernel: np.ndarray
    bias: np.ndarray
    scores: str = SOFTMAX
    normalizes: bool = False

    def __post_init__(self) -> None:
        if self.scores not in (SOFTMAX, SIGMOID):
            raise ValueError(f"scores must be {SOFTMAX} or {SIGMOID}, not {self.scores!r}")
        if self.kernel.dtype != np.float32 or self.bias.dtype != np.float32:
            raise ValueError(f"the head has dtypes {self.kernel.dtype} and {self.bias.dtype}, not float32")
        if self.kernel.ndim != 2 or self.bias.shape != self.kernel.shape[1:]:
            raise ValueError(f"kernel {self.kernel.shape} and bias {self.bias.shape} do not fit")
        if not (np.isfinite(self.kernel).all() and np.isfinite(self.bias).all()):
            raise ValueError("a weight of the head is NaN or infinite")

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32[N, C] logits for float32[N, D] features."""
        vectors = l2_normalized(features) if self.normalizes else features
        return vectors @ self.kernel + self.bias

    def magnitude(self, features: np.ndarray) -> float:
        """The largest sum of absolute terms in a logit of float32[N, D], which rounding errors are relative to.

        Standardization produces large terms that cancel each other.
        """
        vectors = l2_normalized(features) if self.normalizes else features
        return float((np.abs(vectors) @ np.abs(self.kernel) + np.abs(self.bias)).max())

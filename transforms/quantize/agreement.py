"""Measures how close a quantized model's answers are to float32, on images that did not calibrate it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamlabel.transforms.inference.engines import Outputs
from beamlabel.transforms.inference.top_k import scores_of

# An image counts as sure if its best class in float32 has this score.
SURE_SCORE = 0.5
LEAST_SURE_SHARE = 0.985
LEAST_COSINE = 0.99
# With fewer sure images a share of 98.5 % cannot be measured: one other class is 2 % of 50.
LEAST_SURE_IMAGES = 50


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison.

    Attributes:
      images: number of compared images.
      same_class: share of images that keep their best class; None if there are no classes.
      sure_images: number of images whose best class has a score of ``SURE_SCORE`` or more in float32.
      sure_same_class: share of the sure images that keep their best class; None if there are none.
      cosine: median cosine between the embeddings; None if there are no embeddings.
    """

    images: int
    same_class: float | None
    sure_images: int
    sure_same_class: float | None
    cosine: float | None

    def shortfalls(self) -> tuple[str, ...]:
        """The reasons why the model does not pass; empty if it passes."""
        found = []
        if self.same_class is not None and self.sure_images < LEAST_SURE_IMAGES:
            found.append(
                f"only {self.sure_images} of {self.images} test images have a score of {SURE_SCORE} or more in "
                f"float32; the test needs {LEAST_SURE_IMAGES}"
            )
        elif self.sure_same_class is not None and not self.sure_same_class >= LEAST_SURE_SHARE:
            found.append(
                f"{self.sure_same_class:.2%} of the {self.sure_images} sure images keep their best class, less than "
                f"{LEAST_SURE_SHARE:.1%}"
            )
        # Not `cosine < LEAST_COSINE`, which NaN would pass.
        if self.cosine is not None and not self.cosine >= LEAST_COSINE:
            found.append(
                f"the median cosine of the embeddings is {self.cosine:.4f}, less than {LEAST_COSINE}"
            )
        return tuple(found)

    @property
    def passes(self) -> bool:
        """Whether the model may replace the one in float32."""
        return not self.shortfalls()

    def text(self) -> str:
        """The numbers on one line."""
        parts = []
        if self.same_class is not None:
            sure = "none" if self.sure_same_class is None else f"{self.sure_same_class:.2%}"
            parts.append(
                f"best class as float32 {self.same_class:.2%}, of {self.sure_images} sure images {sure}"
            )
        if self.cosine is not None:
            parts.append(f"median cosine {self.cosine:.4f}")
        return ", ".join(parts)


def agreement(expected: Outputs, found: Outputs, scores: str) -> Agreement:
    """Compares logits and features, float32[N, D] each or None.

    Args:
      expected: outputs in float32.
      found: outputs of the quantized model.
      scores: the function from logits to scores, see ``top_k.scores_of``.
    """
    logits, features = expected
    same = sure_same = cosine = None
    sure = 0
    if logits is not None and found[0] is not None:
        kept = logits.argmax(axis=1) == found[0].argmax(axis=1)
        is_sure = scores_of(logits, scores).max(axis=1) >= SURE_SCORE
        same, sure = float(kept.mean()), int(is_sure.sum())
        sure_same = float(kept[is_sure].mean()) if sure else None
    if features is not None and found[1] is not None:
        cosine = float(np.median(_cosines(features, found[1])))
    images = next(len(one) for one in expected if one is not None)
    return Agreement(images, same, sure, sure_same, cosine)


def _cosines(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The cosine of each row; 1 if both rows are zeros, 0 if one is."""
    lengths = [np.linalg.norm(one.astype(np.float64), axis=1) for one in (expected, found)]
    products = (expected.astype(np.float64) * found).sum(axis=1)
    both = lengths[0] * lengths[1]
    empty = (lengths[0] == 0) & (lengths[1] == 0)
    return np.where(empty, 1.0, products / np.where(both == 0, 1, both))

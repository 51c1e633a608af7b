"""Turns logits into scores and the k best classes (pure NumPy)."""

from __future__ import annotations

import numpy as np

SCORE_FUNCTIONS = ("softmax", "sigmoid", "none")


def scores_of(logits: np.ndarray, function: str) -> np.ndarray:
    """Scores of every class.

    Args:
      logits: float32[N, C].
      function: ``softmax`` over the classes, ``sigmoid`` of each, or ``none`` for the unchanged logits.

    Returns:
      float32[N, C].

    Raises:
      ValueError: the function is unknown.
    """
    if function == "softmax":
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)
    if function == "sigmoid":
        # exp of a non-positive number cannot overflow: 1/(1+e^-x) = e^x/(1+e^x).
        small = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1, small).astype(logits.dtype) / (1 + small)
    if function == "none":
        return logits
    raise ValueError(f"scores must be one of {', '.join(SCORE_FUNCTIONS)}, not {function!r}")


def top_k(logits: np.ndarray, k: int, function: str) -> tuple[np.ndarray, np.ndarray]:
    """The k best classes of each row, best first; equal logits keep the order of the classes.

    Args:
      logits: float32[N, C].
      k: 1 to C.
      function: see ``scores_of``.

    Returns:
      (class ids int32[N, k], scores float32[N, k]).

    Raises:
      ValueError: k is out of range, or the function is unknown.
    """
    classes = logits.shape[1]
    if not 1 <= k <= classes:
        raise ValueError(f"k must be 1 to {classes}, the number of classes, not {k}")
    if k < classes:
        best = np.sort(np.argpartition(-logits, k - 1, axis=1)[:, :k], axis=1)
        # If equal logits straddle the border, argpartition takes any of them, so these rows are sorted in full.
        border = np.take_along_axis(logits, best, axis=1).min(axis=1, keepdims=True)
        tied = (logits >= border).sum(axis=1) > k
        best[tied] = np.sort(np.argsort(-logits[tied], axis=1, kind="stable")[:, :k], axis=1)
    else:
        best = np.broadcast_to(np.arange(classes), logits.shape)
    order = np.argsort(-np.take_along_axis(logits, best, axis=1), axis=1, kind="stable")
    ids = np.take_along_axis(best, order, axis=1)
    scores = np.take_along_axis(scores_of(logits, function), ids, axis=1)
    return ids.astype(np.int32), np.ascontiguousarray(scores, dtype=np.float32)


def l2_normalized(vectors: np.ndarray) -> np.ndarray:
    """Scales rows of float32[N, D] to length 1; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)

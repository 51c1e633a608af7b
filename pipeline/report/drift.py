"""The distance of two label distributions, and of two mean embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_SHOWN = 20


def label_drift(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, Any] | None:
    """The distance of two label distributions; None if one of them has no image.

    With p and q as the labels' shares and m = (p + q) / 2, ``total_variation`` is ½ Σ|p − q|, the share of images that
    need another label to make both alike. ``jensen_shannon`` is ½ KL(p‖m) + ½ KL(q‖m) in bits, from 0 to 1 (J. Lin,
    "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37(1), 1991). ``labels``
    holds the labels whose share changed most.
    """
    totals = sum(a.values()), sum(b.values())
    if not all(totals):
        return None
    names = sorted(a.keys() | b.keys())
    counts = np.array([[a.get(name, 0), b.get(name, 0)] for name in names], np.float64)
    p, q = (counts / totals).T
    middle = (p + q) / 2
    order = sorted(range(len(names)), key=lambda place: (-abs(q[place] - p[place]), names[place]))
    return {
        "total_variation": _rounded(np.abs(p - q).sum() / 2),
        "jensen_shannon": _rounded((_divergence(p, middle) + _divergence(q, middle)) / 2),
        "labels": [
            {
                "label": names[place],
                "a": a.get(names[place], 0),
                "b": b.get(names[place], 0),
                "share_a": _rounded(p[place]),
                "share_b": _rounded(q[place]),
                "change": _rounded(q[place] - p[place]),
            }
            for place in order[:_SHOWN]
            if p[place] != q[place]
        ],
    }


def embedding_drift(a: np.ndarray, b: np.ndarray) -> dict[str, float | None]:
    """The distances of two mean embeddings, float[D] each.

    ``cosine_distance`` is 1 − a·b / (‖a‖ ‖b‖), or None if one of them is zero. ``l2_distance`` is ‖a − b‖; its scale
    is given by ``length_a`` and ``length_b``, ‖a‖ and ‖b‖.
    """
    lengths = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    product = lengths[0] * lengths[1]
    cosine = None if not product else max(1 - float(a @ b) / product, 0.0)
    return {
        "cosine_distance": None if cosine is None else _rounded(cosine),
        "l2_distance": _rounded(np.linalg.norm(a - b)),
        "length_a": _rounded(lengths[0]),
        "length_b": _rounded(lengths[1]),
    }


def _divergence(p: np.ndarray, m: np.ndarray) -> float:
    """KL(p‖m) in bits."""
    there = p > 0
    return float((p[there] * np.log2(p[there] / m[there])).sum())


def _rounded(value: float | np.floating[Any]) -> float:
    """Rounds to six significant digits: the digits after them depend on the order of summation."""
    return float(f"{float(value):.6g}")

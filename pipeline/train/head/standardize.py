"""Mean, deviation and principal axes of features, which standardize them and speed up training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK = 4096
# Enough for the axes, which affect only the speed of the training.
_ROWS_FOR_AXES = 32_768


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Statistics of features.

    Attributes:
      mean, deviation: float32[D]; a constant column has deviation 1.
      axes: float32[D, D], orthonormal columns: principal axes of the standardized, weighted features.
      spectrum: float64[D], mean square along each axis.
    """

    mean: np.ndarray
    deviation: np.ndarray
    axes: np.ndarray
    spectrum: np.ndarray


def standardizer_of(features: np.ndarray, places: np.ndarray, weights: np.ndarray) -> Standardizer:
    """Computes the statistics of some rows, in blocks.

    Args:
      features: float32[N, D].
      places: int64[n], positions of the rows.
      weights: float32[n], weights of the rows for the axes, 1 on average.
    """
    dimension = features.shape[1]
    total, squares = np.zeros(dimension), np.zeros(dimension)
    # Relative to the first row, so that no digits are lost.
    about = np.asarray(features[places[0]], np.float64)
    for start in range(0, len(places), _BLOCK):
        block = features[places[start : start + _BLOCK]] - about
        total += block.sum(axis=0)
        squares += np.square(block).sum(axis=0)
    mean = total / len(places)
    variance = np.maximum(squares / len(places) - mean**2, 0)
    deviation = np.sqrt(variance)
    # Rounding makes constant columns deviate slightly.
    deviation[deviation <= 1e-6 * np.maximum(np.abs(about + mean), 1e-30)] = 1
    center = (about + mean).astype(np.float32)
    scale = deviation.astype(np.float32)
    scatter = np.zeros((dimension, dimension))
    every = -(-len(places) // _ROWS_FOR_AXES)
    chosen, weight = places[::every], weights[::every]
    for start in range(0, len(chosen), _BLOCK):
        block = (features[chosen[start : start + _BLOCK]] - center) / scale
        scatter += block.T @ (block * weight[start : start + _BLOCK, None])
    spectrum, axes = np.linalg.eigh(scatter / len(chosen))
    return Standardizer(center, scale, axes.astype(np.float32), np.maximum(spectrum, 0))

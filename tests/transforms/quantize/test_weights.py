"""Int8 weights: no sum of two products exceeds 16 bits, and the weights keep as many bits as possible."""

import numpy as np
import pytest

from beamlabel.transforms.quantize.weights import _quantized, largest_pair


def saturates(quantized: np.ndarray) -> bool:
    """Whether a sum of two products with bytes from 0 to 255 may exceed 16 bits, for pairs of channels."""
    flat = quantized.reshape(*quantized.shape[:2], -1)
    if flat.shape[1] % 2:
        flat = np.concatenate([flat, np.zeros_like(flat[:, :1])], axis=1)
    first, second = flat[:, 0::2], flat[:, 1::2]
    sums = [a * first + b * second for a in (0, 255) for b in (0, 255)]
    return max(one.max() for one in sums) > 32767 or min(one.min() for one in sums) < -32768


@pytest.mark.parametrize("shape", [(8, 16, 1, 1), (16, 3, 3, 3), (4, 1, 5, 5), (8, 7, 1, 1)])
def test_no_sum_saturates_and_the_rounding_is_less_than_with_7_bits(shape):
    weights = np.random.default_rng(5).standard_normal(shape)
    quantized, scale = _quantized(weights)
    assert not saturates(quantized)
    assert np.array_equal(quantized, np.rint(quantized)) and np.abs(quantized).max() <= 127
    halved = np.abs(weights).reshape(len(weights), -1).max(axis=1).reshape(-1, *[1] * (weights.ndim - 1)) / 64
    with_7_bits = np.rint(weights / halved) * halved
    assert np.square(weights - quantized * scale).sum() < 0.7 * np.square(weights - with_7_bits).sum()


def test_weights_of_the_full_range_would_saturate():
    weights = np.full((1, 2, 1, 1), 1.0)
    assert saturates(np.full((1, 2, 1, 1), 127.0))
    quantized, scale = _quantized(weights)
    assert not saturates(quantized)
    assert (quantized * scale).ravel() == pytest.approx([1, 1])
    # Weights of opposite signs have no such sum.
    quantized, _ = _quantized(np.array([1.0, -1.0]).reshape(1, 2, 1, 1))
    assert np.abs(quantized).max() == 127


def test_a_channel_of_zeros_stays_zero():
    weights = np.zeros((2, 4, 1, 1))
    weights[0] = 0.25
    quantized, scale = _quantized(weights)
    assert np.isfinite(scale).all()
    assert (quantized[1] == 0).all()


def test_the_largest_pair():
    weights = np.array([[3.0, 4.0, -9.0, 1.0], [-5.0, -6.0, 2.0, 2.0]]).reshape(2, 4, 1)
    assert largest_pair(weights).tolist() == [9, 11]

"""Makes the numbers of a training depend on the seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from beamlabel.transforms.inference.lazy_tensorflow import tensorflow


@contextmanager
def repeatable(seed: int, *, is_repeatable: bool = True) -> Iterator[None]:
    """Seeds Python, NumPy and TensorFlow, and makes TensorFlow's operations deterministic, within the block only.

    A process that runs a training keeps its own random state, and may draw random numbers without a seed afterwards,
    which TensorFlow refuses while operations are deterministic. TensorFlow's own seed is not restored.

    Args:
      seed: seed of all generators.
      is_repeatable: False for a network with operations that draw random numbers without a seed.
    """
    # The public function can turn determinism on, but not off.
    from tensorflow.python.util import _pywrap_determinism

    before = _pywrap_determinism.is_enabled()
    state, numpy_state = random.getstate(), np.random.get_state()
    tensorflow().keras.utils.set_random_seed(seed)
    _pywrap_determinism.enable(is_repeatable)
    try:
        yield
    finally:
        _pywrap_determinism.enable(before)
        random.setstate(state)
        np.random.set_state(numpy_state)

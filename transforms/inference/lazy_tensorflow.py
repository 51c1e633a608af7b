"""Imports TensorFlow on first use: it takes seconds and a gigabyte that most steps do not need."""

from __future__ import annotations

import os
import warnings
from typing import Any

from beamlabel.transforms.inference.artifact import ModuleError


def tensorflow() -> Any:
    """The ``tensorflow`` package, with its C++ log silenced unless the environment sets a level.

    Raises:
      ModuleError: it is not installed.
    """
    # 3, not 2: TensorFlow logs a missing GPU as an error. Errors that matter here are exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ModuleError(
            f"TensorFlow cannot be imported ({error}): pip install 'beamlabel[launcher]'"
        ) from error
    return tf


def tensorflow_hub() -> Any:
    """The ``tensorflow_hub`` package, which imports TensorFlow.

    Raises:
      ModuleError: one of the two is not installed.
    """
    tensorflow()
    try:
        with warnings.catch_warnings():
            # It imports pkg_resources, which warns that it is deprecated.
            warnings.simplefilter("ignore")
            import tensorflow_hub as hub
    except ImportError as error:
        raise ModuleError(
            f"tensorflow-hub cannot be imported ({error}): pip install 'beamlabel[launcher]'"
        ) from error
    return hub
